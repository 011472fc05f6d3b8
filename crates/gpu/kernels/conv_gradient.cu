// The gradient of a convolution's weight on the matrix units, from bf16 in f32 sums.

// What the next steps need is on its way while one multiplies.
enum { GRADIENT_STAGES = 3 };

// x [B, h, w, C] and dy [B, h', w', O], both bf16, C and O multiples of 8 → dw [parts, O, k, k, C] and the bias', db [parts, O]:
// a block of 128 threads sums 64 outputs × 64 channels of one of the k·k neighbours over some of the places, 64 in a step,
// and writes them into a part of the result of its own. Each of 4 warps makes 32 × 32. A bias is the weight of a channel of
// ones.
KERNEL(conv_weight_gradient) {
    const unsigned short *x = (const unsigned short *)a.p[0], *dy = (const unsigned short *)a.p[1];
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
    SHARED uint4 tiles_dy[GRADIENT_STAGES][64 * 8], tiles_x[GRADIENT_STAGES][64 * 8];

    // This thread gathers eight outputs and eight channels of every 16th place.
    int chunk = threadIdx.x % 8, line = threadIdx.x / 8;
    int output = first_output + chunk * 8, channel = first_channel + chunk * 8;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rows = warp % 2 * 32, columns = warp / 2 * 32;
    // Warps with nothing to make leave the matrix units to others.
    int busy = first_output + rows < outputs && first_channel + columns < c;
    int of_bias = tap == 0 && first_channel == 0 && columns == 0;
    float sums[2][4][4], bias[2][4];
    UNROLL for (int i = 0; i < 2; i++)
        UNROLL for (int l = 0; l < 4; l++) {
            bias[i][l] = 0.0f;
            UNROLL for (int j = 0; j < 4; j++) sums[i][j][l] = 0.0f;
        }

    int steps = begin < end ? (end - begin + 63) / 64 : 0;
    for (int step = 1 - GRADIENT_STAGES; step < steps; step++) {
        if (step >= 0) {
            WAIT_FOR_COPIES(GRADIENT_STAGES - 2);
            BARRIER;
        }
        int coming = step + GRADIENT_STAGES - 1;
        if (coming < steps) {
            uint4 *tile_x = tiles_x[coming % GRADIENT_STAGES], *tile_dy = tiles_dy[coming % GRADIENT_STAGES];
            UNROLL for (int i = 0; i < 4; i++) {
                unsigned place = begin + coming * 64 + line + 16 * i, row = place / out_w;
                int there = place < end;
                int y = (int)(row % out_h) * stride - top + ky, column = (int)(place % out_w) * stride - left + kx;
                int inside = there && channel < c && y >= 0 && y < h && column >= 0 && column < w;
                size_t at = (((size_t)(row / out_h) * h + y) * w + column) * c + channel;
                int to = chunk_of_64(line + 16 * i, chunk);
                copy_later(&tile_x[to], inside ? x + at : x, inside);
                there = there && output < outputs;
                copy_later(&tile_dy[to], there ? dy + (size_t)place * outputs + output : dy, there);
            }
        }
        copies_end();
        if (step < 0 || !busy) continue;
        const uint4 *tile_x = tiles_x[step % GRADIENT_STAGES], *tile_dy = tiles_dy[step % GRADIENT_STAGES];
        UNROLL for (int first = 0; first < 64; first += 16) {
            unsigned of_dy[2][4], of_x[2][4];
            UNROLL for (int i = 0; i < 2; i++) columns_of_64_first(of_dy[i], tile_dy, first, rows / 8 + 2 * i);
            UNROLL for (int j = 0; j < 2; j++) columns_of_64(of_x[j], tile_x, first, columns / 8 + 2 * j);
            UNROLL for (int i = 0; i < 2; i++)
                UNROLL for (int j = 0; j < 4; j++) mma_bf16(sums[i][j], of_dy[i], &of_x[j / 2][j % 2 * 2]);
            if (!of_bias) continue;
            unsigned ones[2] = {0x3f803f80, 0x3f803f80};
            UNROLL for (int i = 0; i < 2; i++) mma_bf16(bias[i], of_dy[i], ones);
        }
    }

    int g = lane / 4, q = lane % 4;
    float *dw = a.p[2] + (size_t)part * outputs * k * k * c;
    UNROLL for (int i = 0; i < 4; i++)
        UNROLL for (int j = 0; j < 4; j++) {
            int o = first_output + rows + 8 * i + g, two = first_channel + columns + 8 * j + 2 * q;
            if (o >= outputs || two >= c) continue;
            float2 pair = {sums[i / 2][j][i % 2 * 2], sums[i / 2][j][i % 2 * 2 + 1]};
            *(float2 *)(dw + ((size_t)o * k * k + tap) * c + two) = pair;
        }
    UNROLL for (int i = 0; i < 4; i++) {
        int o = first_output + rows + 8 * i + g;
        if (of_bias && q == 0 && o < outputs) a.p[3][(size_t)part * outputs + o] = bias[i / 2][i % 2 * 2];
    }
}
