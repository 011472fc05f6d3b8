// A convolution as a matrix product: what each output place sees, in a row of its own, times the weight.

// x [B, H, W, C] → columns [B·H'·W', k·k·C]; zeros outside. A thread takes a channel of an output place.
KERNEL(im2col) {
    const float *x = a.p[0];
    int h = a.n[1], w = a.n[2], c = a.n[3], k = a.n[4], stride = a.n[5], top = a.n[6], left = a.n[7];
    int out_h = a.n[8], out_w = a.n[9];
    EACH(i, a.n[0]) {
        unsigned place = i / c, channel = i % c;
        unsigned line = place / out_w, b = line / out_h;
        int y = (int)(line % out_h) * stride - top, first = (int)(place % out_w) * stride - left;
        float *to = a.p[1] + (size_t)place * k * k * c + channel;
        for (int ky = 0; ky < k; ky++, y++) {
            const float *row = x + (((long long)b * h + y) * w + first) * c + channel;
            for (int kx = 0; kx < k; kx++, to += c, row += c) {
                int inside = y >= 0 && y < h && first + kx >= 0 && first + kx < w;
                *to = inside ? *row : 0.0f;
            }
        }
    }
}

// The opposite, summed: the gradient of x from that of the columns.
KERNEL(col2im) {
    const float *columns = a.p[0];
    int h = a.n[1], w = a.n[2], c = a.n[3], k = a.n[4], stride = a.n[5], top = a.n[6], left = a.n[7];
    int out_h = a.n[8], out_w = a.n[9];
    EACH(i, a.n[0]) {
        unsigned place = i / c, channel = i % c;
        unsigned line = place / w, b = line / h;
        int ix = place % w, iy = line % h;
        float sum = 0.0f;
        for (int ky = 0; ky < k; ky++) {
            int above = iy + top - ky, y = stride == 1 ? above : above / stride;
            if (above < 0 || y * stride != above || y >= out_h) continue;
            for (int kx = 0; kx < k; kx++) {
                int before = ix + left - kx, x = stride == 1 ? before : before / stride;
                if (before < 0 || x * stride != before || x >= out_w) continue;
                size_t from = ((size_t)b * out_h + y) * out_w + x;
                sum += columns[(from * k * k + ky * k + kx) * c + channel];
            }
        }
        a.p[1][i] = sum;
    }
}

