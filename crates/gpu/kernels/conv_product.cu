// Convolutions on the matrix units: what the output places of a tile see is gathered and multiplied at once, so no array of
// the views is ever in memory. Factors are bf16, two in each unsigned, and sums f32.

// The weight [O, C, k, k] in bf16: as [O, k, k, C], or, for the gradient of the input, which is a convolution too, as
// [C, k, k, O] with neighbours mirrored.
KERNEL(conv_weight) {
    const float *weight = a.p[0];
    unsigned *to = (unsigned *)a.p[1];
    int outputs = a.n[1], c = a.n[2], taps = a.n[3], mirrored = a.n[4], inner = mirrored ? outputs : c;
    EACH(i, a.n[0]) {
        unsigned first = 2 * i % inner, tap = 2 * i / inner % taps, outer = 2 * i / inner / taps;
        size_t at = mirrored ? ((size_t)first * c + outer) * taps + taps - 1 - tap : ((size_t)outer * c + first) * taps + tap;
        to[i] = pack_bf16(weight[at], weight[at + (size_t)(mirrored ? c : 1) * taps]);
    }
}

// A step's tiles: 256 places and 64 outputs, 32 channels of each; conv_product.rs asks for as much memory. What the next steps need is on its way while one multiplies.
enum { PRODUCT_STAGES = 4, PLACE_CHUNKS = 256 * 4, STAGE_CHUNKS = PLACE_CHUNKS + 64 * 4 };

// x [B, h, w, C] convolved with weight [O, k, k, C], both bf16, + bias + residual → [B, h', w', O]; C a multiple of 8, O even. A
// block of 256 threads makes 256 places × 64 outputs; a step is 32 channels of one of the k·k neighbours. Each of 8 warps
// makes 64 × 32. Shared memory holds the stages.
KERNEL(conv_product) {
    const unsigned short *x = (const unsigned short *)a.p[0], *weight = (const unsigned short *)a.p[1];
    const float *bias = a.p[2], *residual = a.p[3];
    int h = a.n[1], w = a.n[2], c = a.n[3], k = a.n[4], stride = a.n[5], top = a.n[6], left = a.n[7];
    int out_h = a.n[8], out_w = a.n[9], outputs = a.n[10];
    unsigned places = a.n[0], column_tiles = (outputs + 63) / 64;
    unsigned first_place = blockIdx.x / column_tiles * 256;
    int first_output = blockIdx.x % column_tiles * 64;

    // This thread gathers eight channels of four places, and of one output's weights.
    int chunk = threadIdx.x % 4, line = threadIdx.x / 4;
    int ys[4], xs[4];
    const unsigned short *from[4];
    UNROLL for (int i = 0; i < 4; i++) {
        unsigned place = first_place + line + 64 * i, row = place / out_w;
        int there = place < places;
        // A place too many sees nothing.
        ys[i] = there ? (int)(row % out_h) * stride - top : -k;
        xs[i] = (int)(place % out_w) * stride - left;
        long long corner = ((long long)(row / out_h) * h + ys[i]) * w + xs[i];
        from[i] = x + (there ? corner * c : 0);
    }
    int output = first_output + line;
    const unsigned short *weights = weight + (output < outputs ? (size_t)output * k * k * c : 0);

    int warp = threadIdx.x / 32, rows = warp % 4 * 64, columns = warp / 4 * 32;
    // Warps with nothing to make leave the matrix units to others.
    int busy = first_place + rows < places && first_output + columns < outputs;
    float sums[4][4][4];
    UNROLL for (int i = 0; i < 4; i++)
        UNROLL for (int j = 0; j < 4; j++)
            UNROLL for (int l = 0; l < 4; l++) sums[i][j][l] = 0.0f;

    int steps = k * k * ((c + 31) / 32), ky = 0, kx = 0, first = 0;
    for (int step = 1 - PRODUCT_STAGES; step < steps; step++) {
        if (step >= 0) {
            WAIT_FOR_COPIES(PRODUCT_STAGES - 2);
            BARRIER;
        }
        int coming = step + PRODUCT_STAGES - 1;
        if (coming < steps) {
            int channel = first + chunk * 8, here = channel < c;
            uint4 *tile_x = shared_memory + coming % PRODUCT_STAGES * STAGE_CHUNKS, *tile_w = tile_x + PLACE_CHUNKS;
            int neighbour = (ky * w + kx) * c + channel;
            UNROLL for (int i = 0; i < 4; i++) {
                int y = ys[i] + ky, column = xs[i] + kx;
                int inside = here && y >= 0 && y < h && column >= 0 && column < w;
                copy_later(&tile_x[chunk_of_32(line + 64 * i, chunk)], inside ? from[i] + neighbour : x, inside);
            }
            int known = here && output < outputs;
            const unsigned short *of_tap = weights + (ky * k + kx) * c + channel;
            copy_later(&tile_w[chunk_of_32(line, chunk)], known ? of_tap : weight, known);
            first += 32;
            if (first >= c) {
                first = 0;
                if (++kx == k) {
                    kx = 0;
                    ky++;
                }
            }
        }
        copies_end();
        if (step < 0 || !busy) continue;
        const uint4 *tile_x = shared_memory + step % PRODUCT_STAGES * STAGE_CHUNKS, *tile_w = tile_x + PLACE_CHUNKS;
        UNROLL for (int half = 0; half < 4; half += 2) {
            unsigned of_w[4][2];
            UNROLL for (int j = 0; j < 4; j++) rows_of_32(of_w[j], tile_w, columns + 8 * j, half);
            UNROLL for (int i = 0; i < 4; i++) {
                unsigned upper[2], lower[2];
                rows_of_32(upper, tile_x, rows + 16 * i, half);
                rows_of_32(lower, tile_x, rows + 16 * i + 8, half);
                unsigned of_x[4] = {upper[0], lower[0], upper[1], lower[1]};
                UNROLL for (int j = 0; j < 4; j++) mma_bf16(sums[i][j], of_x, of_w[j]);
            }
        }
    }

    int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    UNROLL for (int j = 0; j < 4; j++) {
        int two = first_output + columns + 8 * j + 2 * q;
        if (two >= outputs) continue;
        float2 added = {0.0f, 0.0f};
        if (bias) added = *(const float2 *)(bias + two);
        UNROLL for (int i = 0; i < 8; i++) {
            unsigned place = first_place + rows + 8 * i + g;
            if (place >= places) continue;
            size_t at = (size_t)place * outputs + two;
            float2 sum = {sums[i / 2][j][i % 2 * 2] + added.x, sums[i / 2][j][i % 2 * 2 + 1] + added.y};
            if (residual) {
                float2 more = *(const float2 *)(residual + at);
                sum.x += more.x;
                sum.y += more.y;
            }
            *(float2 *)(a.p[4] + at) = sum;
        }
    }
}
