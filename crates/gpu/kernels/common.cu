// What several kernels use.

// A thread takes every (number of threads)th element.
#define EACH(i, count) \
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x, many = count; i < many; i += gridDim.x * blockDim.x)

// A block's part of x [samples, places, C]: 32 channels, of which each thread has one, at some places of a sample. Nothing
// has to be divided on the way from place to place.
struct Tile {
    int channel, sample, first, place, end, step;
    // Which piece of all samples' places it is.
    unsigned piece;
};

DEVICE struct Tile tile(int places, int c, int chunk) {
    unsigned tiles = (c + 31) / 32, pieces = (places + chunk - 1) / chunk;
    struct Tile t;
    t.channel = blockIdx.x % tiles * 32 + threadIdx.x % 32;
    t.piece = blockIdx.x / tiles;
    t.sample = t.piece / pieces;
    t.first = t.piece % pieces * chunk;
    t.end = t.first + chunk < places ? t.first + chunk : places;
    t.step = blockDim.x / 32;
    // A channel too many has no place.
    t.place = t.channel < c ? t.first + (int)threadIdx.x / 32 : t.end;
    return t;
}

// For `i`, where this thread's numbers lie in x.
#define EACH_OF_TILE(i, t, places, c)                                                                      \
    for (size_t place = t.place, i = ((size_t)t.sample * places + t.place) * c + t.channel; place < (size_t)t.end; \
         place += t.step, i += (size_t)t.step * c)

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

// The sum of a tile's threads that have the same channel, for the first 32 of them; 0 for the others.
DEVICE float tile_sum(float value, float *shared) {
    BARRIER;
    shared[threadIdx.x] = value;
    BARRIER;
    float sum = 0.0f;
    if (threadIdx.x < 32)
        for (unsigned t = threadIdx.x; t < blockDim.x; t += 32) sum += shared[t];
    return sum;
}

