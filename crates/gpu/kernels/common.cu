// What several kernels use.

// A thread takes every (number of threads)th element.
#define EACH(i, count) \
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x, many = count; i < many; i += gridDim.x * blockDim.x)

// Four numbers in a row, which a thread reads and writes at once: a thread that waits for 16 bytes instead of 4 keeps memory
// four times as busy.
struct Four {
    float at[4];
};

// Whether the next four can be: so many are left, and they begin at a multiple of 16 bytes.
DEVICE int at_once(const float *x, int left) { return left >= 4 && (size_t)x % 16 == 0; }

// Numbers that are not there are 0.
DEVICE struct Four read_four(const float *x, int left) {
    struct Four four = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (at_once(x, left)) {
        float4 all = *(const float4 *)x;
        four.at[0] = all.x;
        four.at[1] = all.y;
        four.at[2] = all.z;
        four.at[3] = all.w;
    } else {
        UNROLL
        for (int k = 0; k < 4; k++)
            if (k < left) four.at[k] = x[k];
    }
    return four;
}

DEVICE void write_four(float *x, int left, struct Four four) {
    if (at_once(x, left)) {
        float4 all = {four.at[0], four.at[1], four.at[2], four.at[3]};
        *(float4 *)x = all;
    } else {
        UNROLL
        for (int k = 0; k < 4; k++)
            if (k < left) x[k] = four.at[k];
    }
}

// A block's part of x [samples, places, C]: 64 channels, of which each thread has four, at some places of a sample. Nothing
// has to be divided on the way from place to place.
struct Tile {
    // `left` are the channels from the thread's first on.
    int channel, left, sample, first, place, end, step;
    // Which piece of all samples' places it is.
    unsigned piece;
    // Where the thread's channels are in x at the sample's first place.
    size_t start;
};

DEVICE struct Tile tile(int places, int c, int chunk) {
    unsigned tiles = (c + 63) / 64, pieces = (places + chunk - 1) / chunk;
    struct Tile t;
    t.channel = blockIdx.x % tiles * 64 + threadIdx.x % 16 * 4;
    t.left = c - t.channel;
    t.piece = blockIdx.x / tiles;
    t.sample = t.piece / pieces;
    t.first = t.piece % pieces * chunk;
    t.end = t.first + chunk < places ? t.first + chunk : places;
    t.step = blockDim.x / 16;
    // Channels too many have no place.
    t.place = t.left > 0 ? t.first + (int)threadIdx.x / 16 : t.end;
    t.start = (size_t)t.sample * places * c + t.channel;
    return t;
}

// A thread's numbers at four of a tile's places: number i is of channel i % 4. All are read before the first is used.
enum { PART = 16 };
struct Part {
    float at[PART];
};

// The first of a thread's next four places.
#define EACH_PART(place, t) for (int place = t.place; place < t.end; place += PART / 4 * t.step)

// Whether number i is still of the tile.
DEVICE int in_tile(struct Tile t, int place, int i) { return place + i / 4 * t.step < t.end; }

// Of a matrix with rows of `width` numbers, x being where the channels are in its first. Numbers beyond the tile are 0.
DEVICE struct Part read_part(const float *x, int width, struct Tile t, int place) {
    struct Part part;
    UNROLL
    for (int i = 0; i < PART; i += 4) {
        const float *row = x + (size_t)(place + i / 4 * t.step) * width;
        struct Four four = read_four(row, in_tile(t, place, i) ? t.left : 0);
        UNROLL
        for (int k = 0; k < 4; k++) part.at[i + k] = four.at[k];
    }
    return part;
}

DEVICE void write_part(float *x, int width, struct Tile t, int place, struct Part part) {
    UNROLL
    for (int i = 0; i < PART; i += 4) {
        struct Four four = {{part.at[i], part.at[i + 1], part.at[i + 2], part.at[i + 3]}};
        write_four(x + (size_t)(place + i / 4 * t.step) * width, in_tile(t, place, i) ? t.left : 0, four);
    }
}

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
DEVICE float normal_share(float x) { return 0.5f * (1.0f + erff(x * 0.70710678f)); }
DEVICE float gelu(float x) { return x * normal_share(x); }
DEVICE float gelu_slope(float x) { return normal_share(x) + x * 0.39894228f * expf(-0.5f * x * x); }
DEVICE float swish(float x, float steepness) { return x * sigmoid(steepness * x); }
DEVICE float swish_slope(float x, float steepness) {
    float s = sigmoid(steepness * x);
    return s * (1.0f + steepness * x * (1.0f - s));
}

// The sum of a warp's numbers, which all its threads get.
DEVICE float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += of_lane(value, distance);
    return value;
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

// The sums of a tile's threads that have the same channels, for the first 16 of them; 0 for the others.
DEVICE struct Four tile_sum(struct Four value, struct Four *shared) {
    BARRIER;
    shared[threadIdx.x] = value;
    BARRIER;
    struct Four sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (threadIdx.x < 16)
        for (unsigned t = threadIdx.x; t < blockDim.x; t += 16)
            for (int k = 0; k < 4; k++) sum.at[k] += shared[t].at[k];
    return sum;
}
