// Kernels that do the same to many arrays in one launch, which a table in the card's memory names (src/multi.rs). Here are what
// they share, and sums; the optimisers' are in optimizer.cu.

// A row of the table that such a kernel gets as its first array: arrays of `len` numbers each. Blocks count through the pieces of
// all rows, of which this one's begin with `first`.
struct Row {
    float *p[4];
    unsigned first, len;
};

// What a block does: of row number `index`, the numbers from `start` to `end`.
struct Piece {
    struct Row row;
    unsigned index, start, end;
};

// A kernel's first whole numbers are how many rows there are and how long a piece is.
DEVICE struct Piece piece_of_block(struct Args a) {
    const struct Row *rows = (const struct Row *)a.p[0];
    unsigned low = 0, high = a.n[0], size = a.n[1];
    // The last row that begins no later: empty rows begin where the next one does.
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (rows[middle].first <= blockIdx.x)
            low = middle;
        else
            high = middle;
    }
    struct Piece piece;
    piece.row = rows[low];
    piece.index = low;
    piece.start = (blockIdx.x - piece.row.first) * size;
    piece.end = piece.row.len - piece.start < size ? piece.row.len : piece.start + size;
    return piece;
}

#define EACH_OF_PIECE(i, piece) for (unsigned i = piece.start + threadIdx.x; i < piece.end; i += blockDim.x)

// Of each piece: the sum of x, or of x².
KERNEL(sums) {
    struct Piece piece = piece_of_block(a);
    const float *x = piece.row.p[0];
    int squared = a.n[2];
    SHARED float shared[1024];
    float sum = 0.0f;
    EACH_OF_PIECE(i, piece) sum += squared ? x[i] * x[i] : x[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) a.p[1][blockIdx.x] = sum;
}

// Of each row, for which there is a block: the sum of its pieces' sums.
KERNEL(add_pieces) {
    struct Row row = ((const struct Row *)a.p[0])[blockIdx.x];
    const float *sums = a.p[1] + row.first;
    unsigned size = a.n[1], pieces = (row.len + size - 1) / size;
    SHARED float shared[1024];
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < pieces; i += blockDim.x) sum += sums[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) a.p[2][blockIdx.x] = sum;
}

