// Attention without its matrix of scores in memory (Dao 2023, arXiv:2307.08691): heads of up to 64 numbers, factors rounded to
// bf16, sums f32. On the way back the scores are computed again, once for the gradient of the queries and once for those of
// keys and values, so that no two blocks add to the same number.

// One head of one sample: where its rows begin in q (out, dy) and in k and v, [B, S, heads, D], and in what there is a number
// of for each query, [B, heads, Sq].
struct Head {
    size_t of_queries, of_keys, of_rows;
    // The first of this block's rows.
    int first;
};

DEVICE struct Head head_of(int tiles, int queries, int keys, int heads, int d) {
    unsigned pair = blockIdx.x / tiles, sample = pair / heads, head = pair % heads;
    struct Head h;
    h.of_queries = ((size_t)sample * queries * heads + head) * d;
    h.of_keys = ((size_t)sample * keys * heads + head) * d;
    h.of_rows = (size_t)pair * queries;
    h.first = blockIdx.x % tiles * 64;
    return h;
}

// Rounds rows of d numbers, `width` apart, to a tile of `rows` rows of 64; zeros where there is none.
DEVICE void fill_tile(uint4 *tile, int rows, const float *from, int width, int there, int d) {
    for (int i = threadIdx.x; i < rows * 8; i += blockDim.x) {
        int row = i / 8, at = i % 8 * 8;
        float4 none = {0.0f, 0.0f, 0.0f, 0.0f}, first = none, second = none;
        const float *x = from + (size_t)row * width + at;
        if (row < there && at < d) first = *(const float4 *)x;
        if (row < there && at + 4 < d) second = *(const float4 *)(x + 4);
        uint4 all = {pack_bf16(first.x, first.y), pack_bf16(first.z, first.w), pack_bf16(second.x, second.y),
                     pack_bf16(second.z, second.w)};
        tile[chunk_of_64(row, i % 8)] = all;
    }
}

// sums [16, 8·count] = rows first..first + 16 of one tile times rows 0..8·count of another, over d numbers.
DEVICE void multiply_rows(float (*sums)[4], const uint4 *one, int first, const uint4 *other, int count, int d) {
    UNROLL for (int j = 0; j < 8; j++)
        if (j < count)
            UNROLL for (int l = 0; l < 4; l++) sums[j][l] = 0.0f;
    UNROLL for (int chunk = 0; chunk < 8; chunk += 2) {
        if (chunk * 8 >= d) continue;
        unsigned of_a[4], of_b[2];
        sixteen_rows_of_64(of_a, one, first, chunk);
        UNROLL for (int j = 0; j < 8; j++) {
            if (j >= count) continue;
            rows_of_64(of_b, other, 8 * j, chunk);
            mma_bf16(sums[j], of_a, of_b);
        }
    }
}

// sums [16, d] += x [16, 8·count] · rows 0..8·count of a tile; x lies in registers as products leave it.
DEVICE void add_product(float (*sums)[4], float (*x)[4], const uint4 *tile, int count, int d) {
    UNROLL for (int j = 0; j < 8; j += 2) {
        if (j >= count) continue;
        unsigned of_a[4] = {pack_bf16(x[j][0], x[j][1]), pack_bf16(x[j][2], x[j][3]), pack_bf16(x[j + 1][0], x[j + 1][1]),
                            pack_bf16(x[j + 1][2], x[j + 1][3])};
        UNROLL for (int chunk = 0; chunk < 8; chunk += 2) {
            if (chunk * 8 >= d) continue;
            unsigned of_b[4];
            columns_of_64(of_b, tile, 8 * j, chunk);
            mma_bf16(sums[chunk], of_a, of_b);
            mma_bf16(sums[chunk + 1], of_a, of_b + 2);
        }
    }
}

DEVICE void clear(float (*sums)[4]) {
    UNROLL for (int j = 0; j < 8; j++)
        UNROLL for (int l = 0; l < 4; l++) sums[j][l] = 0.0f;
}

// Writes sums [16, d], the upper and lower eight rows times a factor each, to rows `width` apart of which `there` are there.
DEVICE void write_rows(float *to, int width, int there, int d, float (*sums)[4], const float *factors) {
    int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    UNROLL for (int half = 0; half < 2; half++) {
        if (g + 8 * half >= there) continue;
        UNROLL for (int j = 0; j < 8; j++) {
            if (8 * j + 2 * q >= d) continue;
            float2 pair = {sums[j][2 * half] * factors[half], sums[j][2 * half + 1] * factors[half]};
            *(float2 *)(to + (size_t)(g + 8 * half) * width + 8 * j + 2 * q) = pair;
        }
    }
}

DEVICE float sum_of_four(float x) {
    x += of_lane(x, 1);
    return x + of_lane(x, 2);
}

// q, k, v → out, and log2 Σ exp2 of each query's scores for the way back. A block of 128 threads takes 64 queries of a head, 16 a
// warp, and 64 keys at a time. f[0] is what products are multiplied by to be powers of two.
KERNEL(flash_attention) {
    int queries = a.n[0], keys = a.n[1], heads = a.n[2], d = a.n[3], causal = a.n[4], width = heads * d;
    struct Head h = head_of((queries + 63) / 64, queries, keys, heads, d);
    const float *k = a.p[1] + h.of_keys, *v = a.p[2] + h.of_keys;
    SHARED uint4 tile_q[64 * 8], tile_k[64 * 8], tile_v[64 * 8];
    int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4, first = threadIdx.x / 32 * 16;
    fill_tile(tile_q, 64, a.p[0] + h.of_queries + (size_t)h.first * width, width, queries - h.first, d);

    float out[8][4], most[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    clear(out);
    int end = causal && h.first + 64 < keys ? h.first + 64 : keys;
    for (int start = 0; start < end; start += 64) {
        BARRIER;
        fill_tile(tile_k, 64, k + (size_t)start * width, width, keys - start, d);
        fill_tile(tile_v, 64, v + (size_t)start * width, width, keys - start, d);
        BARRIER;
        float p[8][4];
        multiply_rows(p, tile_q, first, tile_k, 8, d);
        UNROLL for (int half = 0; half < 2; half++) {
            int query = h.first + first + g + 8 * half;
            float before = most[half], all = 0.0f;
            UNROLL for (int j = 0; j < 8; j++)
                UNROLL for (int l = 2 * half; l < 2 * half + 2; l++) {
                    int key = start + 8 * j + 2 * q + l % 2;
                    p[j][l] = key < keys && !(causal && key > query) ? p[j][l] * a.f[0] : -INFINITY;
                    most[half] = fmaxf(most[half], p[j][l]);
                }
            most[half] = fmaxf(most[half], of_lane(most[half], 1));
            most[half] = fmaxf(most[half], of_lane(most[half], 2));
            UNROLL for (int j = 0; j < 8; j++)
                UNROLL for (int l = 2 * half; l < 2 * half + 2; l++) {
                    p[j][l] = exp2f(p[j][l] - most[half]);
                    all += p[j][l];
                }
            // The first key is seen by all, so there is a finite maximum from the first tile on.
            float kept = exp2f(before - most[half]);
            sum[half] = sum[half] * kept + sum_of_four(all);
            UNROLL for (int j = 0; j < 8; j++)
                UNROLL for (int l = 2 * half; l < 2 * half + 2; l++) out[j][l] *= kept;
        }
        add_product(out, p, tile_v, 8, d);
    }
    float shares[2] = {1.0f / sum[0], 1.0f / sum[1]};
    int row = h.first + first, there = queries - row;
    write_rows(a.p[3] + h.of_queries + (size_t)row * width, width, there, d, out, shares);
    UNROLL for (int half = 0; half < 2; half++)
        if (q == 0 && g + 8 * half < there) a.p[4][h.of_rows + row + g + 8 * half] = most[half] + log2f(sum[half]);
}

// For each query, Σ dy·out: what the gradients of its scores have in common. [B, Sq, heads, D] → [B, heads, Sq].
KERNEL(flash_attention_common) {
    const float *dy = a.p[0], *out = a.p[1];
    unsigned queries = a.n[1], heads = a.n[2], d = a.n[3];
    EACH(i, a.n[0]) {
        unsigned head = i % heads, row = i / heads;
        float sum = 0.0f;
        for (unsigned j = 0; j < d; j += 4) {
            float4 x = *(const float4 *)(dy + (size_t)i * d + j), y = *(const float4 *)(out + (size_t)i * d + j);
            sum += x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
        }
        a.p[2][((size_t)row / queries * heads + head) * queries + row % queries] = sum;
    }
}

// The gradient of q. A block as above, with 32 keys at a time. f[1] is 1/√D.
KERNEL(flash_attention_queries) {
    int queries = a.n[0], keys = a.n[1], heads = a.n[2], d = a.n[3], causal = a.n[4], width = heads * d;
    struct Head h = head_of((queries + 63) / 64, queries, keys, heads, d);
    const float *k = a.p[1] + h.of_keys, *v = a.p[2] + h.of_keys;
    SHARED uint4 tile_q[64 * 8], tile_dy[64 * 8], tile_k[32 * 8], tile_v[32 * 8];
    int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4, first = threadIdx.x / 32 * 16, row = h.first + first;
    size_t block = h.of_queries + (size_t)h.first * width;
    fill_tile(tile_q, 64, a.p[0] + block, width, queries - h.first, d);
    fill_tile(tile_dy, 64, a.p[3] + block, width, queries - h.first, d);
    float total[2], common[2], dq[8][4];
    UNROLL for (int half = 0; half < 2; half++) {
        int query = row + g + 8 * half, there = query < queries;
        total[half] = there ? a.p[4][h.of_rows + query] : 0.0f;
        common[half] = there ? a.p[5][h.of_rows + query] : 0.0f;
    }
    clear(dq);
    int end = causal && h.first + 64 < keys ? h.first + 64 : keys;
    for (int start = 0; start < end; start += 32) {
        BARRIER;
        fill_tile(tile_k, 32, k + (size_t)start * width, width, keys - start, d);
        fill_tile(tile_v, 32, v + (size_t)start * width, width, keys - start, d);
        BARRIER;
        float p[8][4], dp[8][4];
        multiply_rows(p, tile_q, first, tile_k, 4, d);
        multiply_rows(dp, tile_dy, first, tile_v, 4, d);
        UNROLL for (int j = 0; j < 4; j++)
            UNROLL for (int l = 0; l < 4; l++) {
                int key = start + 8 * j + 2 * q + l % 2, seen = key < keys && !(causal && key > row + g + l / 2 * 8);
                p[j][l] = seen ? exp2f(p[j][l] * a.f[0] - total[l / 2]) * (dp[j][l] - common[l / 2]) : 0.0f;
            }
        add_product(dq, p, tile_k, 4, d);
    }
    float scales[2] = {a.f[1], a.f[1]};
    write_rows(a.p[6] + h.of_queries + (size_t)row * width, width, queries - row, d, dq, scales);
}

// The gradients of k and v. A block of 128 threads takes 64 keys of a head, 16 a warp, and 32 queries at a time.
KERNEL(flash_attention_keys) {
    int queries = a.n[0], keys = a.n[1], heads = a.n[2], d = a.n[3], causal = a.n[4], width = heads * d;
    struct Head h = head_of((keys + 63) / 64, queries, keys, heads, d);
    const float *of_q = a.p[0] + h.of_queries, *dy = a.p[3] + h.of_queries;
    SHARED uint4 tile_k[64 * 8], tile_v[64 * 8], tile_q[32 * 8], tile_dy[32 * 8];
    SHARED float totals[32], commons[32];
    int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4, first = threadIdx.x / 32 * 16, row = h.first + first;
    size_t block = h.of_keys + (size_t)h.first * width;
    fill_tile(tile_k, 64, a.p[1] + block, width, keys - h.first, d);
    fill_tile(tile_v, 64, a.p[2] + block, width, keys - h.first, d);
    float dk[8][4], dv[8][4];
    clear(dk);
    clear(dv);
    // Queries before this block's keys see none of them.
    for (int start = causal ? h.first : 0; start < queries; start += 32) {
        BARRIER;
        fill_tile(tile_q, 32, of_q + (size_t)start * width, width, queries - start, d);
        fill_tile(tile_dy, 32, dy + (size_t)start * width, width, queries - start, d);
        if (threadIdx.x < 32) {
            int query = start + (int)threadIdx.x, there = query < queries;
            totals[threadIdx.x] = there ? a.p[4][h.of_rows + query] : 0.0f;
            commons[threadIdx.x] = there ? a.p[5][h.of_rows + query] : 0.0f;
        }
        BARRIER;
        float p[8][4], dp[8][4];
        multiply_rows(p, tile_k, first, tile_q, 4, d);
        multiply_rows(dp, tile_v, first, tile_dy, 4, d);
        UNROLL for (int j = 0; j < 4; j++)
            UNROLL for (int l = 0; l < 4; l++) {
                int in_tile = 8 * j + 2 * q + l % 2, query = start + in_tile, key = row + g + l / 2 * 8;
                int seen = query < queries && !(causal && key > query);
                p[j][l] = seen ? exp2f(p[j][l] * a.f[0] - totals[in_tile]) : 0.0f;
                dp[j][l] = p[j][l] * (dp[j][l] - commons[in_tile]);
            }
        add_product(dv, p, tile_dy, 4, d);
        add_product(dk, dp, tile_q, 4, d);
    }
    float scales[2] = {a.f[1], a.f[1]}, ones[2] = {1.0f, 1.0f};
    size_t to = h.of_keys + (size_t)row * width;
    write_rows(a.p[6] + to, width, keys - row, d, dk, scales);
    write_rows(a.p[7] + to, width, keys - row, d, dv, ones);
}
