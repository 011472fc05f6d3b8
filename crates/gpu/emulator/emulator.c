// Runs kernels on the processor, a block at a time. A block's threads are fibers: each runs until it waits for its warp, waits
// at a barrier or ends, then the next one. What is wrong between barriers (a thread that reads what another has not written yet)
// comes out wrong here as well, if not always in the same way.

#include "emulator.h"
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { MOST_THREADS = 1024, STACK = 64 << 10 };

extern const struct Entry KERNELS[];

struct Index threadIdx, blockIdx, blockDim, gridDim;
// As much as any kernel is launched with.
uint4 shared_memory[80 << 10 >> 4];

// Waiting for the other threads of a warp is over when each has come there; at a barrier, when all warps have.
static enum { NEW, READY, IN_WARP, AT_BARRIER, ENDED } states[MOST_THREADS];
static ucontext_t fresh[MOST_THREADS];
// Contexts are left and entered again by jumps, which ask nothing of the system.
static jmp_buf scheduler, waiting[MOST_THREADS];
static char *stacks;
static void (*running)(struct Args);
static struct Args arguments;

static void fiber(void) {
    running(arguments);
    states[threadIdx.x] = ENDED;
    _longjmp(scheduler, 1);
}

static void wait_until(int state) {
    unsigned me = threadIdx.x;
    states[me] = state;
    if (!_setjmp(waiting[me])) _longjmp(scheduler, 1);
    threadIdx.x = me;
}

void barrier(void) { wait_until(AT_BARRIER); }

static void warp_barrier(void) { wait_until(IN_WARP); }

static unsigned bf16(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static float number(unsigned bf16) {
    unsigned bits = bf16 << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

unsigned pack_bf16(float first, float second) { return bf16(first) | bf16(second) << 16; }

// A warp's threads show each other their parts, so all of a warp have to come here together.
void mma_bf16(float *c, const unsigned *a, const unsigned *b) {
    static unsigned as[MOST_THREADS][4], bs[MOST_THREADS][2];
    unsigned me = threadIdx.x, warp = me - me % 32, g = me % 32 / 4, q = me % 4;
    memcpy(as[me], a, sizeof as[me]);
    memcpy(bs[me], b, sizeof bs[me]);
    warp_barrier();
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = g + i / 2 * 8, column = 2 * q + i % 2;
        float sum = 0.0f;
        for (unsigned k = 0; k < 16; k++) {
            // Pair k / 2 is with the thread of quarter k / 2 % 4, in its lower or upper half of k.
            unsigned quarter = k / 2 % 4, upper = k / 8, half = k % 2 * 16;
            unsigned pair_a = as[warp + row % 8 * 4 + quarter][upper * 2 + row / 8];
            unsigned pair_b = bs[warp + column * 4 + quarter][upper];
            sum += number(pair_a >> half & 0xffff) * number(pair_b >> half & 0xffff);
        }
        c[i] += sum;
    }
    warp_barrier();
}

void load_transposed(unsigned *parts, const uint4 *row) {
    static const unsigned short *rows[MOST_THREADS];
    unsigned me = threadIdx.x, warp = me - me % 32, g = me % 32 / 4, q = me % 4;
    rows[me] = (const unsigned short *)row;
    warp_barrier();
    for (unsigned matrix = 0; matrix < 4; matrix++) {
        unsigned short pair[2];
        for (unsigned i = 0; i < 2; i++)
            memcpy(&pair[i], rows[warp + matrix * 8 + 2 * q + i] + g, sizeof pair[i]);
        parts[matrix] = pair[0] | (unsigned)pair[1] << 16;
    }
    warp_barrier();
}

float of_lane(float value, int mask) {
    static float values[MOST_THREADS];
    unsigned me = threadIdx.x;
    values[me] = value;
    warp_barrier();
    float of_other = values[me ^ (unsigned)mask];
    warp_barrier();
    return of_other;
}

// Lets thread t run to its next barrier or its end.
static void go_on(unsigned t) {
    threadIdx.x = t;
    if (_setjmp(scheduler)) return;
    if (states[t] != NEW) _longjmp(waiting[t], 1);
    getcontext(&fresh[t]);
    fresh[t].uc_stack.ss_sp = stacks + (size_t)t * STACK;
    fresh[t].uc_stack.ss_size = STACK;
    makecontext(&fresh[t], fiber, 0);
    setcontext(&fresh[t]);
}

// Lets the threads of a warp run until each is at a barrier or has ended.
static void warp(unsigned first, unsigned end) {
    for (unsigned left = 1; left > 0;) {
        left = 0;
        for (unsigned t = first; t < end; t++) {
            if (states[t] == AT_BARRIER || states[t] == ENDED) continue;
            go_on(t);
            left += states[t] == IN_WARP;
        }
    }
}

static void block(unsigned threads) {
    for (unsigned t = 0; t < threads; t++) states[t] = NEW;
    for (unsigned left = threads; left > 0;) {
        left = 0;
        for (unsigned first = 0; first < threads; first += 32)
            warp(first, first + 32 < threads ? first + 32 : threads);
        for (unsigned t = 0; t < threads; t++) {
            if (states[t] != AT_BARRIER) continue;
            states[t] = READY;
            left++;
        }
    }
}

// Runs the kernel of that name; 1 if there is none. Not to be called by two threads at a time.
int velatura_emulate(const char *name, unsigned blocks, unsigned threads, const struct Args *args) {
    const struct Entry *kernel = KERNELS;
    while (kernel->name && strcmp(kernel->name, name)) kernel++;
    if (!kernel->name || threads > MOST_THREADS) return 1;
    if (!stacks) stacks = malloc((size_t)MOST_THREADS * STACK);
    running = kernel->run;
    arguments = *args;
    blockDim.x = threads;
    gridDim.x = blocks;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        if (kernel->waits)
            block(threads);
        else
            for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) running(arguments);
    }
    return 0;
}
