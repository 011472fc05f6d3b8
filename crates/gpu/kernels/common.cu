// What several kernels use.

// A thread takes every (number of threads)th element.
#define EACH(i, count) \
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x, many = count; i < many; i += gridDim.x * blockDim.x)

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
DEVICE float normal_share(float x) { return 0.5f * (1.0f + erff(x * 0.70710678f)); }
DEVICE float gelu(float x) { return x * normal_share(x); }
DEVICE float gelu_slope(float x) { return normal_share(x) + x * 0.39894228f * expf(-0.5f * x * x); }
DEVICE float swish(float x, float steepness) { return x * sigmoid(steepness * x); }
DEVICE float swish_slope(float x, float steepness) {
    float s = sigmoid(steepness * x);
    return s * (1.0f + steepness * x * (1.0f - s));
}

// The sum of `value` over a block's threads, which all get it. `shared` has room for one number per thread; their number is a
// power of two.
DEVICE float block_sum(float value, float *shared) {
    unsigned t = threadIdx.x;
    BARRIER;
    shared[t] = value;
    BARRIER;
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) shared[t] += shared[t + half];
        BARRIER;
    }
    return shared[0];
}

DEVICE float block_max(float value, float *shared) {
    unsigned t = threadIdx.x;
    BARRIER;
    shared[t] = value;
    BARRIER;
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) shared[t] = fmaxf(shared[t], shared[t + half]);
        BARRIER;
    }
    return shared[0];
}

