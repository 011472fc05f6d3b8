// What a kernel's source needs of CUDA, on a processor: see emulator.c.
#include <math.h>
#include <stddef.h>

struct Args {
    float *p[8];
    int n[12];
    float f[8];
};

struct Index {
    unsigned x;
};

extern struct Index threadIdx, blockIdx, blockDim, gridDim;
void barrier(void);

struct Entry {
    const char *name;
    void (*run)(struct Args);
    int waits;
};

// One block runs at a time, so what its threads share is a static variable.
#define KERNEL(name) void name(struct Args a)
#define DEVICE static inline
#define SHARED static
#define BARRIER barrier()
#define UNROLL

typedef struct {
    float x, y;
} float2;
typedef struct {
    float x, y, z, w;
} float4;
typedef struct {
    unsigned x, y, z, w;
} uint4;

unsigned pack_bf16(float first, float second);
void mma_bf16(float *c, const unsigned *a, const unsigned *b);
void load_transposed(unsigned *parts, const uint4 *row);
float of_lane(float value, int mask);

// Here copies are done at once.
static inline void copy_later(uint4 *to, const void *from, int there) {
    uint4 none = {0, 0, 0, 0};
    *to = there ? *(const uint4 *)from : none;
}
static inline void copies_end(void) {}
#define WAIT_FOR_COPIES(others)

extern uint4 shared_memory[];
