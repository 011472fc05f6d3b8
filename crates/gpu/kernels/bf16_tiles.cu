// Tiles of bf16 in shared memory, as rows of chunks of 16 bytes, and how a warp takes its parts of them for the matrix units.
// Chunks change places from row to row so that a warp's threads read from different banks.

// Rows of 32 numbers.
DEVICE int chunk_of_32(int row, int chunk) { return row * 4 + (chunk ^ row / 2 % 4); }

// What this thread has of eight rows from `first` on, at 16 of k from chunk `chunk` on: pairs q and q + 4 of row g.
DEVICE void rows_of_32(unsigned *pairs, const uint4 *tile, int first, int chunk) {
    int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    pairs[0] = ((const unsigned *)&tile[chunk_of_32(first + g, chunk)])[q];
    pairs[1] = ((const unsigned *)&tile[chunk_of_32(first + g, chunk + 1)])[q];
}

// Rows of 64 numbers.
DEVICE int chunk_of_64(int row, int chunk) { return row * 8 + (chunk ^ row % 8); }

DEVICE void rows_of_64(unsigned *pairs, const uint4 *tile, int first, int chunk) {
    int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    pairs[0] = ((const unsigned *)&tile[chunk_of_64(first + g, chunk)])[q];
    pairs[1] = ((const unsigned *)&tile[chunk_of_64(first + g, chunk + 1)])[q];
}

// Sixteen rows as the first factor of a product.
DEVICE void sixteen_rows_of_64(unsigned *of_a, const uint4 *tile, int first, int chunk) {
    unsigned upper[2], lower[2];
    rows_of_64(upper, tile, first, chunk);
    rows_of_64(lower, tile, first + 8, chunk);
    of_a[0] = upper[0];
    of_a[1] = lower[0];
    of_a[2] = upper[1];
    of_a[3] = lower[1];
}

// Sixteen columns from chunk `chunk` on, over which rows first..first + 16 are summed, as the second factors of two products
// (columns 0..8 are parts 0 and 1).
DEVICE void columns_of_64(unsigned *of_b, const uint4 *tile, int first, int chunk) {
    int lane = threadIdx.x % 32, row = first + lane / 8 % 2 * 8 + lane % 8;
    load_transposed(of_b, &tile[chunk_of_64(row, chunk + lane / 16)]);
}

// Likewise, as the first factor of one.
DEVICE void columns_of_64_first(unsigned *of_a, const uint4 *tile, int first, int chunk) {
    int lane = threadIdx.x % 32, row = first + lane / 16 * 8 + lane % 8;
    load_transposed(of_a, &tile[chunk_of_64(row, chunk + lane / 8 % 2)]);
}
