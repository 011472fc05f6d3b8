// Group and layer normalisation, and sums over rows.

// Over each piece of a sample's places: the sums of x [samples, places, C], a row for each piece.
KERNEL(sum_rows) {
    const float *x = a.p[0];
    int places = a.n[0], c = a.n[1];
    struct Tile t = tile(places, c, a.n[2]);
    SHARED float shared[1024];
    float sum = 0.0f;
    EACH_OF_TILE(i, t, places, c) sum += x[i];
    sum = tile_sum(sum, shared);
    if (threadIdx.x < 32 && t.channel < c) a.p[1][(size_t)t.piece * c + t.channel] = sum;
}

// Over each piece of a sample's places and each channel: mean and Σ (x − mean)², [pieces, C, 2]. The sums are of x less the
// first number there is, so that a mean far from 0 costs no digits.
KERNEL(channel_moments) {
    const float *x = a.p[0];
    int places = a.n[0], c = a.n[1];
    struct Tile t = tile(places, c, a.n[2]);
    SHARED float shared[1024];
    float shift = t.channel < c ? x[((size_t)t.sample * places + t.first) * c + t.channel] : 0.0f;
    float sum = 0.0f, squares = 0.0f;
    EACH_OF_TILE(i, t, places, c) {
        float d = x[i] - shift;
        sum += d;
        squares += d * d;
    }
    sum = tile_sum(sum, shared);
    squares = tile_sum(squares, shared);
    if (threadIdx.x < 32 && t.channel < c) {
        float mean = sum / (t.end - t.first);
        size_t at = 2 * ((size_t)t.piece * c + t.channel);
        a.p[1][at] = shift + mean;
        a.p[1][at + 1] = squares - sum * mean;
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
    float mean, scale, gamma, beta;
};

DEVICE struct Norm norm_of(struct Tile t, int c, int groups, const float *stats, const float *gamma, const float *beta) {
    struct Norm norm = {0.0f, 0.0f, 0.0f, 0.0f};
    if (t.channel < c) {
        const float *s = stats + 2 * (t.sample * groups + t.channel / (c / groups));
        norm.mean = s[0];
        norm.scale = s[1];
        norm.gamma = gamma[t.channel];
        norm.beta = beta[t.channel];
    }
    return norm;
}

// y = gamma·x̂ + beta, through SiLU if asked.
KERNEL(group_norm_apply) {
    const float *x = a.p[0];
    int places = a.n[0], c = a.n[1], groups = a.n[3], silu = a.n[4];
    struct Tile t = tile(places, c, a.n[2]);
    struct Norm norm = norm_of(t, c, groups, a.p[1], a.p[2], a.p[3]);
    EACH_OF_TILE(i, t, places, c) {
        float z = (x[i] - norm.mean) * norm.scale * norm.gamma + norm.beta;
        a.p[4][i] = silu ? swish(z, 1.0f) : z;
    }
}

// The gradient before SiLU.
DEVICE float before_silu(float x_hat, struct Norm norm, float dy, int silu) {
    return silu ? dy * swish_slope(norm.gamma * x_hat + norm.beta, 1.0f) : dy;
}

// Over each piece of a sample's places: Σ dz and Σ dz·x̂, [pieces, C] each.
KERNEL(group_norm_sums) {
    const float *x = a.p[0], *dy = a.p[4];
    int places = a.n[0], c = a.n[1], groups = a.n[3], silu = a.n[4];
    struct Tile t = tile(places, c, a.n[2]);
    struct Norm norm = norm_of(t, c, groups, a.p[1], a.p[2], a.p[3]);
    SHARED float shared[1024];
    float sum = 0.0f, sum_hat = 0.0f;
    EACH_OF_TILE(i, t, places, c) {
        float x_hat = (x[i] - norm.mean) * norm.scale;
        float dz = before_silu(x_hat, norm, dy[i], silu);
        sum += dz;
        sum_hat += dz * x_hat;
    }
    sum = tile_sum(sum, shared);
    sum_hat = tile_sum(sum_hat, shared);
    if (threadIdx.x < 32 && t.channel < c) {
        a.p[5][(size_t)t.piece * c + t.channel] = sum;
        a.p[6][(size_t)t.piece * c + t.channel] = sum_hat;
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
    const float *x = a.p[0], *dy = a.p[4], *before = a.p[6];
    int places = a.n[0], c = a.n[1], groups = a.n[3], silu = a.n[4];
    struct Tile t = tile(places, c, a.n[2]);
    struct Norm norm = norm_of(t, c, groups, a.p[1], a.p[2], a.p[3]);
    const float *m = a.p[5] + 2 * (t.channel < c ? t.sample * groups + t.channel / (c / groups) : 0);
    float mean = m[0], mean_hat = m[1];
    EACH_OF_TILE(i, t, places, c) {
        float x_hat = (x[i] - norm.mean) * norm.scale;
        float dz = before_silu(x_hat, norm, dy[i], silu);
        float dx = norm.scale * (norm.gamma * dz - mean - x_hat * mean_hat);
        a.p[7][i] = before ? before[i] + dx : dx;
    }
}

// A block of 32 threads for each row of x [rows, C]; stats [rows, 2] = mean, 1/√(variance + eps).
KERNEL(layer_norm) {
    int c = a.n[0];
    const float *x = a.p[0] + (size_t)blockIdx.x * c, *gamma = a.p[1], *beta = a.p[2];
    float *y = a.p[3] + (size_t)blockIdx.x * c;
    SHARED float shared[32];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < c; i += blockDim.x) sum += x[i];
    float mean = block_sum(sum, shared) / c;
    sum = 0.0f;
    for (int i = threadIdx.x; i < c; i += blockDim.x) sum += (x[i] - mean) * (x[i] - mean);
    float scale = 1.0f / sqrtf(block_sum(sum, shared) / c + a.f[0]);
    for (int i = threadIdx.x; i < c; i += blockDim.x) y[i] = (x[i] - mean) * scale * gamma[i] + beta[i];
    if (threadIdx.x == 0) {
        a.p[4][2 * blockIdx.x] = mean;
        a.p[4][2 * blockIdx.x + 1] = scale;
    }
}

// dx, plus what is there before (or none), and dy·x̂, whose sum over the rows is gamma's gradient.
KERNEL(layer_norm_backward) {
    int c = a.n[0];
    size_t row = (size_t)blockIdx.x * c;
    const float *x = a.p[0] + row, *gamma = a.p[1], *s = a.p[2] + 2 * blockIdx.x, *dy = a.p[3] + row;
    const float *before = a.p[4];
    float *dx = a.p[5] + row, *dy_hat = a.p[6] + row;
    SHARED float shared[32];
    float sum = 0.0f, sum_hat = 0.0f;
    for (int i = threadIdx.x; i < c; i += blockDim.x) {
        float x_hat = (x[i] - s[0]) * s[1];
        sum += gamma[i] * dy[i];
        sum_hat += gamma[i] * dy[i] * x_hat;
        dy_hat[i] = dy[i] * x_hat;
    }
    float mean = block_sum(sum, shared) / c, mean_hat = block_sum(sum_hat, shared) / c;
    for (int i = threadIdx.x; i < c; i += blockDim.x) {
        float x_hat = (x[i] - s[0]) * s[1];
        dx[i] = (before ? before[row + i] : 0.0f) + s[1] * (gamma[i] * dy[i] - mean - x_hat * mean_hat);
    }
}

