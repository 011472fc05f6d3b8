// Rows of attention's scores: a block of 32 threads each.

// In place; with `queries` above 0, row i sees columns 0..=i mod queries only.
KERNEL(softmax) {
    int keys = a.n[0], queries = a.n[1];
    float *row = a.p[0] + (size_t)blockIdx.x * keys;
    int seen = queries > 0 && (int)(blockIdx.x % queries) + 1 < keys ? (int)(blockIdx.x % queries) + 1 : keys;
    SHARED float shared[32];
    float most = -INFINITY;
    for (int i = threadIdx.x; i < seen; i += blockDim.x) most = fmaxf(most, row[i]);
    most = block_max(most, shared);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < seen; i += blockDim.x) {
        row[i] = expf(row[i] - most);
        sum += row[i];
    }
    float scale = 1.0f / block_sum(sum, shared);
    for (int i = threadIdx.x; i < keys; i += blockDim.x) row[i] = i < seen ? row[i] * scale : 0.0f;
}

// The gradient of the scores from that of the probabilities, in its place.
KERNEL(softmax_backward) {
    int keys = a.n[0];
    const float *p = a.p[0] + (size_t)blockIdx.x * keys;
    float *d = a.p[1] + (size_t)blockIdx.x * keys;
    SHARED float shared[32];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < keys; i += blockDim.x) sum += p[i] * d[i];
    sum = block_sum(sum, shared);
    for (int i = threadIdx.x; i < keys; i += blockDim.x) d[i] = p[i] * (d[i] - sum);
}

