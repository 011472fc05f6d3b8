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

