// Convolutions on the matrix units: tiles of what the output places see are gathered, rounded to bf16 and multiplied at once,
// and sums stay f32. No array of the views is ever in memory.
//
// A tile in shared memory has 16 pairs of bf16 along k in a row, and 4 more so that a warp's threads read from different
// banks.

enum { PAIRS = 16, ROW = 20 };

// What one warp reads of tile rows first..first + 16 (a), or first..first + 8 (b), at pairs `pair`..pair + 8.
DEVICE void read_a(unsigned *a, const unsigned *tile, int first, int pair) {
    int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const unsigned *at = tile + (first + g) * ROW + pair + q;
    a[0] = at[0];
    a[1] = at[8 * ROW];
    a[2] = at[4];
    a[3] = at[8 * ROW + 4];
}

DEVICE void read_b(unsigned *b, const unsigned *tile, int first, int pair) {
    int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const unsigned *at = tile + (first + g) * ROW + pair + q;
    b[0] = at[0];
    b[1] = at[4];
}

DEVICE float4 four(const float *x, int there) {
    float4 none = {0.0f, 0.0f, 0.0f, 0.0f};
    return there ? *(const float4 *)x : none;
}

// x [B, h, w, C] convolved with weight [O, k, k, C] + bias + residual → [B, h', w', O], C a multiple of 4. A block of 256
// threads makes 128 places × 64 channels; a step is 32 channels of one of the k·k neighbours. Each of 8 warps makes 32 × 32.
KERNEL(conv_product) {
    const float *x = a.p[0], *weight = a.p[1], *bias = a.p[2], *residual = a.p[3];
    int h = a.n[1], w = a.n[2], c = a.n[3], k = a.n[4], stride = a.n[5], top = a.n[6], left = a.n[7];
    int out_h = a.n[8], out_w = a.n[9], outputs = a.n[10];
    unsigned places = a.n[0], column_tiles = (outputs + 63) / 64;
    unsigned first_place = blockIdx.x / column_tiles * 128, first_output = blockIdx.x % column_tiles * 64;
    SHARED unsigned tile_x[128 * ROW], tile_w[64 * ROW];

    // This thread gathers 4 channels of 4 places, and of 2 outputs' weights.
    int quad = threadIdx.x % 8, line = threadIdx.x / 8;
    int ys[4], xs[4];
    const float *samples[4];
    UNROLL for (int i = 0; i < 4; i++) {
        unsigned place = first_place + line + 32 * i;
        int there = place < places;
        unsigned row = place / out_w;
        // A place too many sees nothing.
        ys[i] = there ? (int)(row % out_h) * stride - top : -k;
        xs[i] = (int)(place % out_w) * stride - left;
        samples[i] = x + (there ? (size_t)(row / out_h) * h * w * c : 0);
    }
    int warp = threadIdx.x / 32, rows = warp % 4 * 32, columns = warp / 4 * 32;
    float sums[2][4][4];
    UNROLL for (int i = 0; i < 2; i++)
        UNROLL for (int j = 0; j < 4; j++)
            UNROLL for (int l = 0; l < 4; l++) sums[i][j][l] = 0.0f;

    int pieces = (c + 31) / 32, steps = k * k * pieces;
    float4 next_x[4], next_w[2];
    for (int step = -1; step < steps; step++) {
        // What the next step needs is on its way while this one multiplies.
        int coming = step + 1, tap = coming / pieces, channel = coming % pieces * 32 + quad * 4;
        int here = coming < steps && channel < c, ky = tap / k, kx = tap % k;
        if (step >= 0) {
            BARRIER;
            UNROLL for (int i = 0; i < 4; i++) {
                unsigned *to = tile_x + (line + 32 * i) * ROW + quad * 2;
                to[0] = pack_bf16(next_x[i].x, next_x[i].y);
                to[1] = pack_bf16(next_x[i].z, next_x[i].w);
            }
            UNROLL for (int i = 0; i < 2; i++) {
                unsigned *to = tile_w + (line + 32 * i) * ROW + quad * 2;
                to[0] = pack_bf16(next_w[i].x, next_w[i].y);
                to[1] = pack_bf16(next_w[i].z, next_w[i].w);
            }
            BARRIER;
        }
        UNROLL for (int i = 0; i < 4; i++) {
            int y = ys[i] + ky, column = xs[i] + kx;
            int inside = here && y >= 0 && y < h && column >= 0 && column < w;
            next_x[i] = four(samples[i] + (inside ? ((size_t)y * w + column) * c + channel : 0), inside);
        }
        UNROLL for (int i = 0; i < 2; i++) {
            int output = first_output + line + 32 * i, inside = here && output < outputs;
            next_w[i] = four(weight + (inside ? ((size_t)output * k * k + tap) * c + channel : 0), inside);
        }
        if (step < 0) continue;
        UNROLL for (int pair = 0; pair < PAIRS; pair += 8) {
            unsigned of_x[2][4], of_w[4][2];
            UNROLL for (int i = 0; i < 2; i++) read_a(of_x[i], tile_x, rows + 16 * i, pair);
            UNROLL for (int j = 0; j < 4; j++) read_b(of_w[j], tile_w, columns + 8 * j, pair);
            UNROLL for (int i = 0; i < 2; i++)
                UNROLL for (int j = 0; j < 4; j++) mma_bf16(sums[i][j], of_x[i], of_w[j]);
        }
    }

    int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    UNROLL for (int i = 0; i < 2; i++)
        UNROLL for (int j = 0; j < 4; j++)
            UNROLL for (int l = 0; l < 4; l++) {
                unsigned place = first_place + rows + 16 * i + g + l / 2 * 8;
                int output = first_output + columns + 8 * j + 2 * q + l % 2;
                if (place >= places || output >= outputs) continue;
                size_t at = (size_t)place * outputs + output;
                a.p[4][at] = sums[i][j][l] + (bias ? bias[output] : 0.0f) + (residual ? residual[at] : 0.0f);
            }
}

// The weight's gradient [O, k, k, C] of such a convolution, C and O multiples of 4: a block of 256 threads sums 64 outputs × 64
// channels of one of the k·k neighbours over some of the places, 32 in a step, and writes them into a part of the result of its
// own. Each of 8 warps makes 16 × 32.
KERNEL(conv_weight_gradient) {
    const float *x = a.p[0], *dy = a.p[1];
    int h = a.n[1], w = a.n[2], c = a.n[3], k = a.n[4], stride = a.n[5], top = a.n[6], left = a.n[7];
    int out_h = a.n[8], out_w = a.n[9], outputs = a.n[10];
    unsigned places = a.n[0], share = a.n[11];
    unsigned channel_tiles = (c + 63) / 64, output_tiles = (outputs + 63) / 64, rest = blockIdx.x;
    int first_channel = rest % channel_tiles * 64;
    rest /= channel_tiles;
    int first_output = rest % output_tiles * 64;
    rest /= output_tiles;
    int tap = rest % (k * k), ky = tap / k, kx = tap % k;
    unsigned part = rest / (k * k), begin = part * share, end = begin + share < places ? begin + share : places;
    SHARED unsigned tile_dy[64 * ROW], tile_x[64 * ROW];

    // This thread gathers two places, one after the other, of 4 outputs and of 4 channels.
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int quad = lane % 4 + warp % 4 * 4, pair = lane / 4 + warp / 4 * 8;
    int output = first_output + quad * 4, channel = first_channel + quad * 4;
    int rows = warp % 4 * 16, columns = warp / 4 * 32;
    float sums[4][4];
    UNROLL for (int j = 0; j < 4; j++)
        UNROLL for (int l = 0; l < 4; l++) sums[j][l] = 0.0f;

    int steps = begin < end ? (end - begin + 31) / 32 : 0;
    float4 next_dy[2], next_x[2];
    for (int step = -1; step < steps; step++) {
        if (step >= 0) {
            BARRIER;
            unsigned *to = tile_dy + quad * 4 * ROW + pair;
            to[0] = pack_bf16(next_dy[0].x, next_dy[1].x);
            to[ROW] = pack_bf16(next_dy[0].y, next_dy[1].y);
            to[2 * ROW] = pack_bf16(next_dy[0].z, next_dy[1].z);
            to[3 * ROW] = pack_bf16(next_dy[0].w, next_dy[1].w);
            to = tile_x + quad * 4 * ROW + pair;
            to[0] = pack_bf16(next_x[0].x, next_x[1].x);
            to[ROW] = pack_bf16(next_x[0].y, next_x[1].y);
            to[2 * ROW] = pack_bf16(next_x[0].z, next_x[1].z);
            to[3 * ROW] = pack_bf16(next_x[0].w, next_x[1].w);
            BARRIER;
        }
        UNROLL for (int i = 0; i < 2; i++) {
            unsigned place = begin + (step + 1) * 32 + 2 * pair + i;
            int there = place < end;
            unsigned row = place / out_w;
            int y = (int)(row % out_h) * stride - top + ky, column = (int)(place % out_w) * stride - left + kx;
            int inside = there && channel < c && y >= 0 && y < h && column >= 0 && column < w;
            size_t at = (((size_t)(row / out_h) * h + y) * w + column) * c + channel;
            next_x[i] = four(x + (inside ? at : 0), inside);
            there = there && output < outputs;
            next_dy[i] = four(dy + (there ? (size_t)place * outputs + output : 0), there);
        }
        if (step < 0) continue;
        UNROLL for (int first = 0; first < PAIRS; first += 8) {
            unsigned of_dy[4], of_x[4][2];
            read_a(of_dy, tile_dy, rows, first);
            UNROLL for (int j = 0; j < 4; j++) read_b(of_x[j], tile_x, columns + 8 * j, first);
            UNROLL for (int j = 0; j < 4; j++) mma_bf16(sums[j], of_dy, of_x[j]);
        }
    }

    int g = lane / 4, q = lane % 4;
    float *dw = a.p[2] + (size_t)part * outputs * k * k * c;
    UNROLL for (int j = 0; j < 4; j++)
        UNROLL for (int l = 0; l < 4; l++) {
            int o = first_output + rows + g + l / 2 * 8, i = first_channel + columns + 8 * j + 2 * q + l % 2;
            if (o < outputs && i < c) dw[((size_t)o * k * k + tap) * c + i] = sums[j][l];
        }
}

// The weight [O, C, k, k] for the gradient of the input, which is a convolution too: [C, k, k, O], neighbours mirrored.
KERNEL(mirrored_weight) {
    const float *weight = a.p[0];
    int outputs = a.n[1], c = a.n[2], taps = a.n[3];
    EACH(i, a.n[0]) {
        unsigned output = i % outputs, tap = i / outputs % taps, channel = i / outputs / taps;
        a.p[1][i] = weight[((size_t)output * c + channel) * taps + taps - 1 - tap];
    }
}

