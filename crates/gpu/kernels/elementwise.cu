// Element by element. Where kernels take four numbers at a time, a.n[0] says how often and a.n[1] is the length of a row; a
// single row unless said otherwise.

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
    struct Four value = {{a.f[0], a.f[0], a.f[0], a.f[0]}};
    EACH(i, a.n[0]) write_four(a.p[0] + 4 * (size_t)i, a.n[1] - 4 * i, value);
}

// z = a·x + b·y
KERNEL(combine) {
    EACH(i, a.n[0]) {
        size_t at = 4 * (size_t)i;
        int left = a.n[1] - 4 * i;
        struct Four x = read_four(a.p[0] + at, left), y = read_four(a.p[1] + at, left);
        UNROLL
        for (int k = 0; k < 4; k++) x.at[k] = a.f[0] * x.at[k] + a.f[1] * y.at[k];
        write_four(a.p[2] + at, left, x);
    }
}

// y = a·x + b
KERNEL(scale) {
    EACH(i, a.n[0]) {
        size_t at = 4 * (size_t)i;
        int left = a.n[1] - 4 * i;
        struct Four x = read_four(a.p[0] + at, left);
        UNROLL
        for (int k = 0; k < 4; k++) x.at[k] = a.f[0] * x.at[k] + a.f[1];
        write_four(a.p[1] + at, left, x);
    }
}

// z = a·x·y
KERNEL(multiply) {
    EACH(i, a.n[0]) {
        size_t at = 4 * (size_t)i;
        int left = a.n[1] - 4 * i;
        struct Four x = read_four(a.p[0] + at, left), y = read_four(a.p[1] + at, left);
        UNROLL
        for (int k = 0; k < 4; k++) x.at[k] = a.f[0] * x.at[k] * y.at[k];
        write_four(a.p[2] + at, left, x);
    }
}

// Each sample of x, a row, times its factor.
KERNEL(scale_samples) {
    unsigned sample = a.n[1], fours = (sample + 3) / 4;
    EACH(i, a.n[0]) {
        unsigned b = i / fours, first = i % fours * 4;
        size_t at = (size_t)b * sample + first;
        struct Four x = read_four(a.p[0] + at, sample - first);
        float factor = a.p[1][b];
        UNROLL
        for (int k = 0; k < 4; k++) x.at[k] *= factor;
        write_four(a.p[2] + at, sample - first, x);
    }
}

// x [B, places, C] + e [B, C]
KERNEL(add_channels) {
    int c = a.n[1];
    struct Tile t = tile(a.n[0], c, a.n[2]);
    struct Four e = read_four(a.p[1] + (size_t)t.sample * c + t.channel, t.left);
    EACH_PART(place, t) {
        struct Part x = read_part(a.p[0] + t.start, c, t, place);
        UNROLL
        for (int i = 0; i < PART; i++) x.at[i] += e.at[i % 4];
        write_part(a.p[2] + t.start, c, t, place, x);
    }
}

// bias [C] (or none) + residual [rows, C] (or none): what a product is then added to.
KERNEL(add_rows) {
    const float *residual = a.p[1];
    int c = a.n[1];
    struct Tile t = tile(a.n[0], c, a.n[2]);
    struct Four bias = read_four(a.p[0] + t.channel, a.p[0] ? t.left : 0);
    EACH_PART(place, t) {
        struct Part x = {{0.0f}};
        if (residual) x = read_part(residual + t.start, c, t, place);
        UNROLL
        for (int i = 0; i < PART; i++) x.at[i] += bias.at[i % 4];
        write_part(a.p[2] + t.start, c, t, place, x);
    }
}

// Which one: 0 SiLU, 1 GELU, 2 quick GELU.
KERNEL(activate) {
    int which = a.n[2];
    EACH(i, a.n[0]) {
        size_t at = 4 * (size_t)i;
        int left = a.n[1] - 4 * i;
        struct Four x = read_four(a.p[0] + at, left);
        UNROLL
        for (int k = 0; k < 4; k++) x.at[k] = which == 1 ? gelu(x.at[k]) : swish(x.at[k], which ? 1.702f : 1.0f);
        write_four(a.p[1] + at, left, x);
    }
}

KERNEL(activate_backward) {
    int which = a.n[2];
    EACH(i, a.n[0]) {
        size_t at = 4 * (size_t)i;
        int left = a.n[1] - 4 * i;
        struct Four x = read_four(a.p[0] + at, left), d = read_four(a.p[1] + at, left);
        UNROLL
        for (int k = 0; k < 4; k++)
            d.at[k] *= which == 1 ? gelu_slope(x.at[k]) : swish_slope(x.at[k], which ? 1.702f : 1.0f);
        write_four(a.p[2] + at, left, d);
    }
}

// x [rows, 2C] = value | gate → value · gelu(gate)
KERNEL(geglu) {
    unsigned c = a.n[1], fours = (c + 3) / 4;
    EACH(i, a.n[0]) {
        unsigned row = i / fours, first = i % fours * 4;
        const float *x = a.p[0] + (size_t)row * 2 * c + first;
        struct Four value = read_four(x, c - first), gate = read_four(x + c, c - first);
        UNROLL
        for (int k = 0; k < 4; k++) value.at[k] *= gelu(gate.at[k]);
        write_four(a.p[1] + (size_t)row * c + first, c - first, value);
    }
}

KERNEL(geglu_backward) {
    unsigned c = a.n[1], fours = (c + 3) / 4;
    EACH(i, a.n[0]) {
        unsigned row = i / fours, first = i % fours * 4;
        size_t at = (size_t)row * 2 * c + first;
        int left = c - first;
        struct Four value = read_four(a.p[0] + at, left), gate = read_four(a.p[0] + at + c, left);
        struct Four d = read_four(a.p[1] + (size_t)row * c + first, left);
        UNROLL
        for (int k = 0; k < 4; k++) {
            float slope = value.at[k] * gelu_slope(gate.at[k]);
            value.at[k] = d.at[k] * gelu(gate.at[k]);
            gate.at[k] = d.at[k] * slope;
        }
        write_four(a.p[2] + at, left, value);
        write_four(a.p[2] + at + c, left, gate);
    }
}
