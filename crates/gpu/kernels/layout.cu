// Copies in another order.

// rows × columns numbers from one matrix into another, each with its own row length and first column.
KERNEL(copy_columns) {
    const float *from = a.p[0];
    int from_width = a.n[3], from_start = a.n[4], to_width = a.n[5], to_start = a.n[6];
    struct Tile t = tile(a.n[0], a.n[1], a.n[2]);
    for (size_t row = t.place; row < (size_t)t.end; row += t.step)
        a.p[1][row * to_width + to_start + t.channel] = from[row * from_width + from_start + t.channel];
}

// [B, R, C] → [B, C, R]
KERNEL(swap_axes) {
    const float *from = a.p[0];
    int rows = a.n[1], columns = a.n[2];
    EACH(i, a.n[0]) {
        unsigned r = i % rows, c = i / rows % columns, b = i / rows / columns;
        a.p[1][i] = from[((size_t)b * rows + r) * columns + c];
    }
}

// Each place of [B, h, w, C] four times.
KERNEL(upsample) {
    const float *from = a.p[0];
    unsigned h = a.n[1], w = a.n[2], c = a.n[3];
    EACH(i, a.n[0]) {
        unsigned channel = i % c, x = i / c % (2 * w), y = i / c / (2 * w) % (2 * h), b = i / c / (2 * w) / (2 * h);
        a.p[1][i] = from[(((size_t)b * h + y / 2) * w + x / 2) * c + channel];
    }
}

KERNEL(upsample_backward) {
    const float *dy = a.p[0];
    unsigned h = a.n[1], w = a.n[2], c = a.n[3];
    EACH(i, a.n[0]) {
        unsigned channel = i % c, x = i / c % w, y = i / c / w % h, b = i / c / w / h;
        const float *corner = dy + (((size_t)b * 2 * h + 2 * y) * 2 * w + 2 * x) * c + channel;
        a.p[1][i] = (corner[0] + corner[c]) + (corner[2 * w * c] + corner[(2 * w + 1) * c]);
    }
}

// Rows of a table [V, D] by their numbers.
KERNEL(take_rows) {
    const float *table = a.p[0];
    const int *ids = (const int *)a.p[1];
    int width = a.n[1];
    EACH(i, a.n[0]) a.p[2][i] = table[(size_t)ids[i / width] * width + i % width];
}

// Row g of the result is the sum of those rows whose numbers are order[start[g]..start[g + 1]].
KERNEL(gather_sums) {
    const float *rows = a.p[0];
    const int *start = (const int *)a.p[1], *order = (const int *)a.p[2];
    int width = a.n[1];
    EACH(i, a.n[0]) {
        unsigned g = i / width, d = i % width;
        float sum = 0.0f;
        for (int j = start[g]; j < start[g + 1]; j++) sum += rows[(size_t)order[j] * width + d];
        a.p[3][i] = sum;
    }
}

