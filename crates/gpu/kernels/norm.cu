// Group and layer normalisation, and sums over rows.

// Block by block, sums of x, or of x²; the host adds up the blocks.
KERNEL(sums) {
    const float *x = a.p[0];
    int squared = a.n[1];
    SHARED float shared[1024];
    float sum = 0.0f;
    EACH(i, a.n[0]) sum += squared ? x[i] * x[i] : x[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) a.p[1][a.n[2] + blockIdx.x] = sum;
}

// The sums over some rows of x [rows, C]: a block takes 32 channels of `chunk` rows and writes a row of the result.
KERNEL(sum_rows) {
    const float *x = a.p[0];
    int rows = a.n[0], c = a.n[1], chunk = a.n[2];
    int tiles = (c + 31) / 32, part = blockIdx.x / tiles;
    int channel = blockIdx.x % tiles * 32 + threadIdx.x % 32, lane = threadIdx.x / 32, lanes = blockDim.x / 32;
    SHARED float shared[1024];
    int end = (part + 1) * chunk < rows ? (part + 1) * chunk : rows;
    float sum = 0.0f;
    if (channel < c)
        for (int row = part * chunk + lane; row < end; row += lanes) sum += x[(size_t)row * c + channel];
    shared[threadIdx.x] = sum;
    BARRIER;
    if (lane == 0 && channel < c) {
        for (int l = 1; l < lanes; l++) sum += shared[l * 32 + threadIdx.x];
        a.p[1][(size_t)part * c + channel] = sum;
    }
}

// A block for each sample and group: stats [B, G, 2] = mean, 1/√(variance + eps).
KERNEL(group_norm_stats) {
    int places = a.n[0], c = a.n[1], groups = a.n[2], width = c / groups, count = places * width;
    const float *x = a.p[0] + (size_t)(blockIdx.x / groups) * places * c + blockIdx.x % groups * width;
    SHARED float shared[1024];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += x[(size_t)(i / width) * c + i % width];
    float mean = block_sum(sum, shared) / count;
    sum = 0.0f;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        float d = x[(size_t)(i / width) * c + i % width] - mean;
        sum += d * d;
    }
    float variance = block_sum(sum, shared) / count;
    if (threadIdx.x == 0) {
        a.p[1][2 * blockIdx.x] = mean;
        a.p[1][2 * blockIdx.x + 1] = 1.0f / sqrtf(variance + a.f[0]);
    }
}

// y = gamma·x̂ + beta, through SiLU if asked.
KERNEL(group_norm_apply) {
    const float *x = a.p[0], *stats = a.p[1], *gamma = a.p[2], *beta = a.p[3];
    int sample = a.n[1], c = a.n[2], groups = a.n[3], silu = a.n[4], width = c / groups;
    EACH(i, a.n[0]) {
        int channel = i % c;
        const float *s = stats + 2 * (i / sample * groups + channel / width);
        float z = (x[i] - s[0]) * s[1] * gamma[channel] + beta[channel];
        a.p[4][i] = silu ? swish(z, 1.0f) : z;
    }
}

// The gradient before SiLU.
DEVICE float before_silu(float x_hat, float gamma, float beta, float dy, int silu) {
    return silu ? dy * swish_slope(gamma * x_hat + beta, 1.0f) : dy;
}

// A block for each sample and 32 channels: over its places, Σ dz and Σ dz·x̂, [B, C] each.
KERNEL(group_norm_sums) {
    const float *x = a.p[0], *stats = a.p[1], *gamma = a.p[2], *beta = a.p[3], *dy = a.p[4];
    int places = a.n[0], c = a.n[1], groups = a.n[2], silu = a.n[3], tiles = (c + 31) / 32;
    int b = blockIdx.x / tiles, channel = blockIdx.x % tiles * 32 + threadIdx.x % 32;
    int lane = threadIdx.x / 32, lanes = blockDim.x / 32;
    SHARED float shared[1024], shared_hat[1024];
    float sum = 0.0f, sum_hat = 0.0f;
    if (channel < c) {
        const float *s = stats + 2 * (b * groups + channel / (c / groups));
        for (int place = lane; place < places; place += lanes) {
            size_t i = ((size_t)b * places + place) * c + channel;
            float x_hat = (x[i] - s[0]) * s[1];
            float dz = before_silu(x_hat, gamma[channel], beta[channel], dy[i], silu);
            sum += dz;
            sum_hat += dz * x_hat;
        }
    }
    shared[threadIdx.x] = sum;
    shared_hat[threadIdx.x] = sum_hat;
    BARRIER;
    if (lane == 0 && channel < c) {
        for (int l = 1; l < lanes; l++) {
            sum += shared[l * 32 + threadIdx.x];
            sum_hat += shared_hat[l * 32 + threadIdx.x];
        }
        a.p[5][(size_t)b * c + channel] = sum;
        a.p[6][(size_t)b * c + channel] = sum_hat;
    }
}

// For each sample and group the means of gamma·dz and gamma·dz·x̂: [B, G, 2].
KERNEL(group_norm_means) {
    const float *sum = a.p[0], *sum_hat = a.p[1], *gamma = a.p[2];
    int c = a.n[1], groups = a.n[2], places = a.n[3], width = c / groups;
    EACH(i, a.n[0]) {
        int b = i / groups, first = i % groups * width;
        float mean = 0.0f, mean_hat = 0.0f;
        for (int channel = first; channel < first + width; channel++) {
            mean += gamma[channel] * sum[(size_t)b * c + channel];
            mean_hat += gamma[channel] * sum_hat[(size_t)b * c + channel];
        }
        float count = (float)places * width;
        a.p[3][2 * i] = mean / count;
        a.p[3][2 * i + 1] = mean_hat / count;
    }
}

// dx, plus what is there before (or none).
KERNEL(group_norm_backward) {
    const float *x = a.p[0], *stats = a.p[1], *gamma = a.p[2], *beta = a.p[3], *dy = a.p[4], *means = a.p[5];
    const float *before = a.p[6];
    int sample = a.n[1], c = a.n[2], groups = a.n[3], silu = a.n[4], width = c / groups;
    EACH(i, a.n[0]) {
        int channel = i % c, group = i / sample * groups + channel / width;
        const float *s = stats + 2 * group, *m = means + 2 * group;
        float x_hat = (x[i] - s[0]) * s[1];
        float dz = before_silu(x_hat, gamma[channel], beta[channel], dy[i], silu);
        float dx = s[1] * (gamma[channel] * dz - m[0] - x_hat * m[1]);
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

