// Every kernel has the same arguments: arrays, whole numbers and fractions, which its first lines name. So one function
// launches all of them, here and on the processor (emulator/).

struct Args {
    float *p[8];
    int n[12];
    float f[8];
};

#define KERNEL(name) extern "C" __global__ void name(const struct Args a)
#define DEVICE static __device__ inline
#define SHARED __shared__
#define BARRIER __syncthreads()

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif


// Two numbers rounded to bf16, the first in the lower half. Cards older than Ampere have no such instructions, and are not
// asked for the kernels that use them.
static __device__ inline unsigned pack_bf16(float first, float second) {
    unsigned pair = 0;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
#endif
    return pair;
}

// c [16, 8] += a [16, 16] · b [16, 8] by a warp, whose threads hold the matrices' parts as the PTX manual says for
// mma.m16n8k16. With g = lane / 4 and q = lane % 4 (and pairs along k):
//   a: rows g, g + 8, g, g + 8, columns 2q, 2q, 2q + 8, 2q + 8;  b: rows 2q, 2q + 8 of column g;
//   c: row g, columns 2q and 2q + 1, then row g + 8.
static __device__ inline void mma_bf16(float *c, const unsigned *a, const unsigned *b) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Shared memory whose size is given when a kernel is launched, as there is more of it than arrays may have.
extern __shared__ uint4 shared_memory[];

// Copies 16 bytes to shared memory while the thread goes on, or writes zeros there.
static __device__ inline void copy_later(uint4 *to, const void *from, int there) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 : : "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "r"(there ? 16 : 0) : "memory");
#endif
}

// Ends a group of such copies.
static __device__ inline void copies_end(void) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}

// Waits for this thread's groups but the last `others`, a constant. Other threads see what was copied after a barrier.
#if __CUDA_ARCH__ >= 800
#define WAIT_FOR_COPIES(others) asm volatile("cp.async.wait_group %0;" : : "n"(others) : "memory")
#else
#define WAIT_FOR_COPIES(others)
#endif

// A warp reads four matrices [8, 8] of bf16, of which lane l names row l % 8 of matrix l / 8, and gets their transposes:
// with g = lane / 4 and q = lane % 4, rows 2q and 2q + 1 of column g of each.
static __device__ inline void load_transposed(unsigned *parts, const uint4 *row) {
#if __CUDA_ARCH__ >= 800
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row)) : "memory");
#endif
}

// What the thread of the same warp has whose number differs in the bits of `mask`.
static __device__ inline float of_lane(float value, int mask) { return __shfl_xor_sync(0xffffffff, value, mask); }

#define UNROLL _Pragma("unroll")

