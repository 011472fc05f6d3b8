// A convolution as a matrix product: what each output place sees, in a row of its own, times the weight.

// x [B, H, W, C] → columns [B·H'·W', k·k·C]; zeros outside.
KERNEL(im2col) {
    const float *x = a.p[0];
    int h = a.n[1], w = a.n[2], c = a.n[3], k = a.n[4], stride = a.n[5], top = a.n[6], left = a.n[7];
    int out_h = a.n[8], out_w = a.n[9];
    EACH(i, a.n[0]) {
        int channel = i % c;
        unsigned rest = i / c;
        int tap = rest % (k * k);
        rest /= k * k;
        int ox = rest % out_w, oy = rest / out_w % out_h, b = rest / out_w / out_h;
        int iy = oy * stride - top + tap / k, ix = ox * stride - left + tap % k;
        int inside = iy >= 0 && iy < h && ix >= 0 && ix < w;
        a.p[1][i] = inside ? x[(((size_t)b * h + iy) * w + ix) * c + channel] : 0.0f;
    }
}

// The opposite, summed: the gradient of x from that of the columns, plus what is there before (or none).
KERNEL(col2im) {
    const float *columns = a.p[0], *before = a.p[1];
    int h = a.n[1], w = a.n[2], c = a.n[3], k = a.n[4], stride = a.n[5], top = a.n[6], left = a.n[7];
    int out_h = a.n[8], out_w = a.n[9];
    EACH(i, a.n[0]) {
        int channel = i % c, ix = i / c % w, iy = i / c / w % h, b = i / c / w / h;
        float sum = before ? before[i] : 0.0f;
        for (int ky = 0; ky < k; ky++) {
            int y = iy + top - ky;
            if (y < 0 || y % stride || y / stride >= out_h) continue;
            for (int kx = 0; kx < k; kx++) {
                int x = ix + left - kx;
                if (x < 0 || x % stride || x / stride >= out_w) continue;
                size_t place = ((size_t)b * out_h + y / stride) * out_w + x / stride;
                sum += columns[(place * k * k + ky * k + kx) * c + channel];
            }
        }
        a.p[2][i] = sum;
    }
}

