// Copies in another order.

// rows × columns numbers from one matrix into another, each with its own row length and first column.
KERNEL(copy_columns) {
    int from_width = a.n[3], to_width = a.n[5];
    struct Tile t = tile(a.n[0], a.n[1], a.n[2]);
    const float *from = a.p[0] + a.n[4] + t.channel;
    float *to = a.p[1] + a.n[6] + t.channel;
    EACH_PART(place, t) write_part(to, to_width, t, place, read_part(from, from_width, t, place));
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

// Each place of [B, h, w, C] four times. The next three kernels take four numbers of a row at a time, as those in
// elementwise.cu.
KERNEL(upsample) {
    unsigned c = a.n[1], h = a.n[2], w = a.n[3], fours = (c + 3) / 4;
    EACH(i, a.n[0]) {
        unsigned channel = i % fours * 4, place = i / fours;
        unsigned x = place % (2 * w), y = place / (2 * w) % (2 * h), b = place / (2 * w) / (2 * h);
        const float *from = a.p[0] + (((size_t)b * h + y / 2) * w + x / 2) * c + channel;
        write_four(a.p[1] + (size_t)place * c + channel, c - channel, read_four(from, c - channel));
    }
}

KERNEL(upsample_backward) {
    unsigned c = a.n[1], h = a.n[2], w = a.n[3], fours = (c + 3) / 4;
    EACH(i, a.n[0]) {
        unsigned channel = i % fours * 4, place = i / fours, x = place % w, y = place / w % h, b = place / w / h;
        const float *corner = a.p[0] + (((size_t)b * 2 * h + 2 * y) * 2 * w + 2 * x) * c + channel;
        const float *below = corner + (size_t)2 * w * c;
        int left = c - channel;
        struct Four sum = read_four(corner, left), right = read_four(corner + c, left);
        struct Four third = read_four(below, left), fourth = read_four(below + c, left);
        UNROLL
        for (int k = 0; k < 4; k++) sum.at[k] = (sum.at[k] + right.at[k]) + (third.at[k] + fourth.at[k]);
        write_four(a.p[1] + (size_t)place * c + channel, left, sum);
    }
}

// Rows of a table [V, D] by their numbers.
KERNEL(take_rows) {
    const int *ids = (const int *)a.p[1];
    unsigned width = a.n[1], fours = (width + 3) / 4;
    EACH(i, a.n[0]) {
        unsigned row = i / fours, first = i % fours * 4;
        struct Four four = read_four(a.p[0] + (size_t)ids[row] * width + first, width - first);
        write_four(a.p[2] + (size_t)row * width + first, width - first, four);
    }
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

