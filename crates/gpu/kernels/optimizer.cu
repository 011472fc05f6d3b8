// AdamW as velatura-kernels computes it, and the average of the weights.

KERNEL(adamw) {
    float *w = a.p[0], *m = a.p[2], *v = a.p[3];
    const float *gradient = a.p[1];
    float scale = a.f[0], keep = a.f[1], to_first = a.f[2], second_keep = a.f[3], to_second = a.f[4];
    float root = a.f[5], eps = a.f[6], size = a.f[7];
    EACH(i, a.n[0]) {
        float g = gradient[i] * scale;
        m[i] += to_first * (g - m[i]);
        v[i] = second_keep * v[i] + to_second * g * g;
        w[i] = w[i] * keep - size * (m[i] / (sqrtf(v[i]) * root + eps));
    }
}

// average += share · (x − average)
KERNEL(approach) {
    EACH(i, a.n[0]) a.p[0][i] += a.f[0] * (a.p[1][i] - a.p[0][i]);
}

