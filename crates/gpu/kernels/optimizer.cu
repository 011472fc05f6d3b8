// AdamW as velatura-kernels computes it, the average of the weights, and what Muon does besides products. Each takes many
// parameters: see multi.cu.

// Rows of weights, gradient and both moments.
KERNEL(adamw) {
    struct Piece piece = piece_of_block(a);
    float *w = piece.row.p[0], *m = piece.row.p[2], *v = piece.row.p[3];
    const float *gradient = piece.row.p[1];
    float scale = a.f[0], keep = a.f[1], to_first = a.f[2], second_keep = a.f[3], to_second = a.f[4];
    float root = a.f[5], eps = a.f[6], size = a.f[7];
    EACH_OF_PIECE(i, piece) {
        float g = gradient[i] * scale;
        m[i] += to_first * (g - m[i]);
        v[i] = second_keep * v[i] + to_second * g * g;
        w[i] = w[i] * keep - size * (m[i] / (sqrtf(v[i]) * root + eps));
    }
}

// Rows of average and x: average += share · (x − average)
KERNEL(approach) {
    struct Piece piece = piece_of_block(a);
    float *average = piece.row.p[0];
    const float *x = piece.row.p[1];
    EACH_OF_PIECE(i, piece) average[i] += a.f[0] * (x[i] - average[i]);
}

// Rows of mean and gradient: mean = momentum · mean + share · gradient, and the same again into the row's part of the
// directions; of each piece, the sum of their squares.
KERNEL(nesterov) {
    struct Piece piece = piece_of_block(a);
    float *mean = piece.row.p[0], *direction = a.p[1] + (size_t)piece.index * piece.row.len;
    const float *gradient = piece.row.p[1];
    float momentum = a.f[0], share = a.f[1], sum = 0.0f;
    SHARED float shared[1024];
    EACH_OF_PIECE(i, piece) {
        float g = gradient[i], m = momentum * mean[i] + share * g, d = momentum * m + share * g;
        mean[i] = m;
        direction[i] = d;
        sum += d * d;
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) a.p[2][blockIdx.x] = sum;
}

// Each sample of x divided by its norm, whose square is given.
KERNEL(normalise) {
    const float *squares = a.p[1];
    int sample = a.n[1];
    float eps = a.f[0];
    EACH(i, a.n[0]) a.p[0][i] *= 1.0f / fmaxf(sqrtf(squares[i / sample]), eps);
}

// Rows of weights: weights = kept · weights − rate · the row's part of the directions
KERNEL(descend) {
    struct Piece piece = piece_of_block(a);
    float *w = piece.row.p[0];
    const float *direction = a.p[1] + (size_t)piece.index * piece.row.len;
    EACH_OF_PIECE(i, piece) w[i] = a.f[0] * w[i] - a.f[1] * direction[i];
}

