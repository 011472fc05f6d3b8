// Group and layer normalisation, and sums over rows.

// Over each piece of a sample's places: the sums of x [samples, places, C], a row for each piece.
KERNEL(sum_rows) {
    int c = a.n[1];
    struct Tile t = tile(a.n[0], c, a.n[2]);
    SHARED struct Four shared[256];
    struct Four sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
    EACH_PART(place, t) {
        struct Part x = read_part(a.p[0] + t.start, c, t, place);
        UNROLL
        for (int i = 0; i < PART; i++) sum.at[i % 4] += x.at[i];
    }
    sum = tile_sum(sum, shared);
    if (threadIdx.x < 16) write_four(a.p[1] + (size_t)t.piece * c + t.channel, t.left, sum);
}

// Over each piece of a sample's places and each channel: mean and Σ (x − mean)², [pieces, C, 2]. The sums are of x less the
// first number there is, so that a mean far from 0 costs no digits.
KERNEL(channel_moments) {
    const float *x = a.p[0];
    int c = a.n[1];
    struct Tile t = tile(a.n[0], c, a.n[2]);
    SHARED struct Four shared[256];
    struct Four shift = read_four(x + t.start + (size_t)t.first * c, t.left);
    struct Four sum = {{0.0f, 0.0f, 0.0f, 0.0f}}, squares = sum;
    EACH_PART(place, t) {
        struct Part part = read_part(x + t.start, c, t, place);
        UNROLL
        for (int i = 0; i < PART; i++) {
            float d = in_tile(t, place, i) ? part.at[i] - shift.at[i % 4] : 0.0f;
            sum.at[i % 4] += d;
            squares.at[i % 4] += d * d;
        }
    }
    sum = tile_sum(sum, shared);
    squares = tile_sum(squares, shared);
    if (threadIdx.x < 16) {
        float *moments = a.p[1] + 2 * ((size_t)t.piece * c + t.channel);
        for (int k = 0; k < 4 && k < t.left; k++) {
            float mean = sum.at[k] / (t.end - t.first);
            moments[2 * k] = shift.at[k] + mean;
            moments[2 * k + 1] = squares.at[k] - sum.at[k] * mean;
        }
    }
}

// A block of 32 threads for each sample and group makes of its channels' moments stats [B, G, 2] = mean,
// 1/√(variance + eps) (Chan et al. 1983).
KERNEL(group_norm_stats) {
    int places = a.n[0], c = a.n[1], chunk = a.n[2], groups = a.n[3], width = c / groups;
    int pieces = (places + chunk - 1) / chunk, b = blockIdx.x / groups, first = blockIdx.x % groups * width;
    const float *moments = a.p[0] + 2 * ((size_t)b * pieces * c + first);
    SHARED float shared[32];
    float total = (float)places * width, sum = 0.0f;
    for (int i = threadIdx.x; i < pieces * width; i += blockDim.x) {
        int piece = i / width, count = piece + 1 < pieces ? chunk : places - piece * chunk;
        sum += count * moments[2 * ((size_t)piece * c + i % width)];
    }
    float mean = block_sum(sum, shared) / total;
    sum = 0.0f;
    for (int i = threadIdx.x; i < pieces * width; i += blockDim.x) {
        int piece = i / width, count = piece + 1 < pieces ? chunk : places - piece * chunk;
        const float *m = moments + 2 * ((size_t)piece * c + i % width);
        sum += m[1] + count * (m[0] - mean) * (m[0] - mean);
    }
    float variance = block_sum(sum, shared) / total;
    if (threadIdx.x == 0) {
        a.p[1][2 * blockIdx.x] = mean;
        a.p[1][2 * blockIdx.x + 1] = 1.0f / sqrtf(variance + a.f[0]);
    }
}

// What a tile's thread needs of a group norm.
struct Norm {
    struct Four mean, scale, gamma, beta;
};

// Of the pairs [B, G, 2], those of the groups that a thread's channels are in.
DEVICE void pairs_of(const float *pairs, struct Tile t, int c, int groups, struct Four *first, struct Four *second) {
    int width = c / groups;
    UNROLL
    for (int k = 0; k < 4; k++) {
        const float *pair = pairs + 2 * (t.sample * groups + (k < t.left ? (t.channel + k) / width : 0));
        first->at[k] = pair[0];
        second->at[k] = pair[1];
    }
}

DEVICE struct Norm norm_of(struct Tile t, int c, int groups, const float *stats, const float *gamma, const float *beta) {
    struct Norm norm;
    pairs_of(stats, t, c, groups, &norm.mean, &norm.scale);
    norm.gamma = read_four(gamma + t.channel, t.left);
    norm.beta = read_four(beta + t.channel, t.left);
    return norm;
}

// y = gamma·x̂ + beta, through SiLU if asked.
KERNEL(group_norm_apply) {
    int c = a.n[1], groups = a.n[3], silu = a.n[4];
    struct Tile t = tile(a.n[0], c, a.n[2]);
    struct Norm norm = norm_of(t, c, groups, a.p[1], a.p[2], a.p[3]);
    EACH_PART(place, t) {
        struct Part x = read_part(a.p[0] + t.start, c, t, place);
        UNROLL
        for (int i = 0; i < PART; i++) {
            int k = i % 4;
            float z = (x.at[i] - norm.mean.at[k]) * norm.scale.at[k] * norm.gamma.at[k] + norm.beta.at[k];
            x.at[i] = silu ? swish(z, 1.0f) : z;
        }
        write_part(a.p[4] + t.start, c, t, place, x);
    }
}

// Of channel k: the gradient before SiLU.
DEVICE float before_silu(float x_hat, struct Norm norm, int k, float dy, int silu) {
    return silu ? dy * swish_slope(norm.gamma.at[k] * x_hat + norm.beta.at[k], 1.0f) : dy;
}

// Over each piece of a sample's places: Σ dz and Σ dz·x̂, [pieces, C] each.
KERNEL(group_norm_sums) {
    int c = a.n[1], groups = a.n[3], silu = a.n[4];
    struct Tile t = tile(a.n[0], c, a.n[2]);
    struct Norm norm = norm_of(t, c, groups, a.p[1], a.p[2], a.p[3]);
    SHARED struct Four shared[256];
    struct Four sum = {{0.0f, 0.0f, 0.0f, 0.0f}}, sum_hat = sum;
    EACH_PART(place, t) {
        struct Part x = read_part(a.p[0] + t.start, c, t, place), dy = read_part(a.p[4] + t.start, c, t, place);
        UNROLL
        for (int i = 0; i < PART; i++) {
            int k = i % 4;
            float x_hat = (x.at[i] - norm.mean.at[k]) * norm.scale.at[k];
            float dz = before_silu(x_hat, norm, k, dy.at[i], silu);
            sum.at[k] += dz;
            sum_hat.at[k] += dz * x_hat;
        }
    }
    sum = tile_sum(sum, shared);
    sum_hat = tile_sum(sum_hat, shared);
    if (threadIdx.x < 16) {
        size_t at = (size_t)t.piece * c + t.channel;
        write_four(a.p[5] + at, t.left, sum);
        write_four(a.p[6] + at, t.left, sum_hat);
    }
}

// A block of 32 threads for each sample and group: the means of gamma·dz and gamma·dz·x̂, [B, G, 2].
KERNEL(group_norm_means) {
    const float *gamma = a.p[2];
    int places = a.n[0], c = a.n[1], chunk = a.n[2], groups = a.n[3], width = c / groups;
    int pieces = (places + chunk - 1) / chunk, first = blockIdx.x % groups * width;
    size_t start = (size_t)(blockIdx.x / groups) * pieces * c + first;
    SHARED float shared[32];
    float mean = 0.0f, mean_hat = 0.0f;
    for (int i = threadIdx.x; i < pieces * width; i += blockDim.x) {
        size_t at = start + (size_t)(i / width) * c + i % width;
        mean += gamma[first + i % width] * a.p[0][at];
        mean_hat += gamma[first + i % width] * a.p[1][at];
    }
    float count = (float)places * width;
    mean = block_sum(mean, shared);
    mean_hat = block_sum(mean_hat, shared);
    if (threadIdx.x == 0) {
        a.p[3][2 * blockIdx.x] = mean / count;
        a.p[3][2 * blockIdx.x + 1] = mean_hat / count;
    }
}

// dx, plus what is there before (or none).
KERNEL(group_norm_backward) {
    const float *before = a.p[6];
    int c = a.n[1], groups = a.n[3], silu = a.n[4];
    struct Tile t = tile(a.n[0], c, a.n[2]);
    struct Norm norm = norm_of(t, c, groups, a.p[1], a.p[2], a.p[3]);
    struct Four mean, mean_hat;
    pairs_of(a.p[5], t, c, groups, &mean, &mean_hat);
    EACH_PART(place, t) {
        struct Part x = read_part(a.p[0] + t.start, c, t, place), dy = read_part(a.p[4] + t.start, c, t, place);
        struct Part dx = {{0.0f}};
        if (before) dx = read_part(before + t.start, c, t, place);
        UNROLL
        for (int i = 0; i < PART; i++) {
            int k = i % 4;
            float x_hat = (x.at[i] - norm.mean.at[k]) * norm.scale.at[k];
            float dz = before_silu(x_hat, norm, k, dy.at[i], silu);
            dx.at[i] += norm.scale.at[k] * (norm.gamma.at[k] * dz - mean.at[k] - x_hat * mean_hat.at[k]);
        }
        write_part(a.p[7] + t.start, c, t, place, dx);
    }
}

// The row of a warp's thread, and the first of its numbers there; it takes every 128th four.
#define ROW ((size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32)
#define EACH_OF_ROW(i, c) for (int i = threadIdx.x % 32 * 4; i < c; i += 128)

// A warp for each row of x [rows, C]; stats [rows, 2] = mean, 1/√(variance + eps).
KERNEL(layer_norm) {
    int c = a.n[1];
    size_t row = ROW;
    if (row >= (size_t)a.n[0]) return;
    const float *x = a.p[0] + row * c, *gamma = a.p[1], *beta = a.p[2];
    float sum = 0.0f;
    EACH_OF_ROW(i, c) {
        struct Four four = read_four(x + i, c - i);
        sum += four.at[0] + four.at[1] + (four.at[2] + four.at[3]);
    }
    float mean = warp_sum(sum) / c;
    sum = 0.0f;
    EACH_OF_ROW(i, c) {
        struct Four four = read_four(x + i, c - i);
        UNROLL
        for (int k = 0; k < 4; k++) {
            float d = i + k < c ? four.at[k] - mean : 0.0f;
            sum += d * d;
        }
    }
    float scale = 1.0f / sqrtf(warp_sum(sum) / c + a.f[0]);
    EACH_OF_ROW(i, c) {
        struct Four y = read_four(x + i, c - i), g = read_four(gamma + i, c - i), b = read_four(beta + i, c - i);
        UNROLL
        for (int k = 0; k < 4; k++) y.at[k] = (y.at[k] - mean) * scale * g.at[k] + b.at[k];
        write_four(a.p[3] + row * c + i, c - i, y);
    }
    if (threadIdx.x % 32 == 0) {
        a.p[4][2 * row] = mean;
        a.p[4][2 * row + 1] = scale;
    }
}

// A warp for each row: dx, plus what is there before (or none), and dy·x̂, whose sum over the rows is gamma's gradient.
KERNEL(layer_norm_backward) {
    int c = a.n[1];
    size_t row = ROW, start = row * c;
    if (row >= (size_t)a.n[0]) return;
    const float *x = a.p[0] + start, *gamma = a.p[1], *dy = a.p[3] + start, *before = a.p[4];
    float row_mean = a.p[2][2 * row], scale = a.p[2][2 * row + 1];
    float sum = 0.0f, sum_hat = 0.0f;
    EACH_OF_ROW(i, c) {
        struct Four x_hat = read_four(x + i, c - i), d = read_four(dy + i, c - i), g = read_four(gamma + i, c - i);
        UNROLL
        for (int k = 0; k < 4; k++) {
            float dy_hat = d.at[k] * (x_hat.at[k] - row_mean) * scale;
            sum += g.at[k] * d.at[k];
            sum_hat += g.at[k] * dy_hat;
            x_hat.at[k] = dy_hat;
        }
        write_four(a.p[6] + start + i, c - i, x_hat);
    }
    float mean = warp_sum(sum) / c, mean_hat = warp_sum(sum_hat) / c;
    EACH_OF_ROW(i, c) {
        struct Four four = read_four(x + i, c - i), d = read_four(dy + i, c - i), g = read_four(gamma + i, c - i);
        struct Four dx = read_four(before + start + i, before ? c - i : 0);
        UNROLL
        for (int k = 0; k < 4; k++) {
            float x_hat = (four.at[k] - row_mean) * scale;
            dx.at[k] += scale * (g.at[k] * d.at[k] - mean - x_hat * mean_hat);
        }
        write_four(a.p[5] + start + i, c - i, dx);
    }
}
