// Element by element.

// x in bf16, eight numbers at a time.
KERNEL(round_bf16) {
    const float *x = a.p[0];
    uint4 *to = (uint4 *)a.p[1];
    EACH(i, a.n[0]) {
        float4 first = ((const float4 *)x)[2 * i], second = ((const float4 *)x)[2 * i + 1];
        uint4 all = {pack_bf16(first.x, first.y), pack_bf16(first.z, first.w), pack_bf16(second.x, second.y),
                     pack_bf16(second.z, second.w)};
        to[i] = all;
    }
}

// x = value
KERNEL(fill) {
    EACH(i, a.n[0]) a.p[0][i] = a.f[0];
}

// z = a·x + b·y
KERNEL(combine) {
    const float *x = a.p[0], *y = a.p[1];
    EACH(i, a.n[0]) a.p[2][i] = a.f[0] * x[i] + a.f[1] * y[i];
}

// y = a·x + b
KERNEL(scale) {
    EACH(i, a.n[0]) a.p[1][i] = a.f[0] * a.p[0][i] + a.f[1];
}

// z = a·x·y
KERNEL(multiply) {
    EACH(i, a.n[0]) a.p[2][i] = a.f[0] * a.p[0][i] * a.p[1][i];
}

// Each sample of x times its factor.
KERNEL(scale_samples) {
    const float *x = a.p[0], *factors = a.p[1];
    int sample = a.n[1];
    EACH(i, a.n[0]) a.p[2][i] = x[i] * factors[i / sample];
}

// x [B, places, C] + e [B, C]
KERNEL(add_channels) {
    const float *x = a.p[0];
    int places = a.n[0], c = a.n[1];
    struct Tile t = tile(places, c, a.n[2]);
    float e = t.channel < c ? a.p[1][(size_t)t.sample * c + t.channel] : 0.0f;
    EACH_OF_TILE(i, t, places, c) a.p[2][i] = x[i] + e;
}

// bias [C] (or none) + residual [rows, C] (or none): what a product is then added to.
KERNEL(add_rows) {
    const float *residual = a.p[1];
    int rows = a.n[0], c = a.n[1];
    struct Tile t = tile(rows, c, a.n[2]);
    float bias = a.p[0] && t.channel < c ? a.p[0][t.channel] : 0.0f;
    EACH_OF_TILE(i, t, rows, c) a.p[2][i] = residual ? bias + residual[i] : bias;
}

// Which one: 0 SiLU, 1 GELU, 2 quick GELU.
KERNEL(activate) {
    const float *x = a.p[0];
    int which = a.n[1];
    EACH(i, a.n[0]) a.p[1][i] = which == 1 ? gelu(x[i]) : swish(x[i], which ? 1.702f : 1.0f);
}

KERNEL(activate_backward) {
    const float *x = a.p[0], *dy = a.p[1];
    int which = a.n[1];
    EACH(i, a.n[0]) a.p[2][i] = dy[i] * (which == 1 ? gelu_slope(x[i]) : swish_slope(x[i], which ? 1.702f : 1.0f));
}

// x [rows, 2C] = value | gate → value · gelu(gate)
KERNEL(geglu) {
    const float *x = a.p[0];
    int c = a.n[1];
    EACH(i, a.n[0]) {
        const float *row = x + (size_t)(i / c) * 2 * c + i % c;
        a.p[1][i] = row[0] * gelu(row[c]);
    }
}

KERNEL(geglu_backward) {
    const float *x = a.p[0], *dy = a.p[1];
    int c = a.n[1];
    EACH(i, a.n[0]) {
        size_t at = (size_t)(i / c) * 2 * c + i % c;
        float value = x[at], gate = x[at + c];
        a.p[2][at] = dy[i] * gelu(gate);
        a.p[2][at + c] = dy[i] * value * gelu_slope(gate);
    }
}

