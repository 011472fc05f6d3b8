// Runs kernels on the processor, a block at a time. A block's threads are fibers: each runs until it waits at a barrier
// or ends, then the next one. What is wrong between barriers (a thread that reads what another has not written yet)
// comes out wrong here as well, if not always in the same way.

#include "emulator.h"
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { MOST_THREADS = 1024, STACK = 64 << 10 };

extern const struct Entry KERNELS[];

struct Index threadIdx, blockIdx, blockDim, gridDim;

static enum { NEW, WAITING, ENDED } states[MOST_THREADS];
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

void barrier(void) {
    unsigned me = threadIdx.x;
    states[me] = WAITING;
    if (!_setjmp(waiting[me])) _longjmp(scheduler, 1);
    threadIdx.x = me;
}

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

// A warp's threads show each other their parts, so all of a block have to come here together.
void mma_bf16(float *c, const unsigned *a, const unsigned *b) {
    static unsigned as[MOST_THREADS][4], bs[MOST_THREADS][2];
    unsigned me = threadIdx.x, warp = me - me % 32, g = me % 32 / 4, q = me % 4;
    memcpy(as[me], a, sizeof as[me]);
    memcpy(bs[me], b, sizeof bs[me]);
    barrier();
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
    barrier();
}

// Lets thread t run to its next barrier or its end.
static void go_on(unsigned t) {
    threadIdx.x = t;
    if (_setjmp(scheduler)) return;
    if (states[t] == WAITING) _longjmp(waiting[t], 1);
    getcontext(&fresh[t]);
    fresh[t].uc_stack.ss_sp = stacks + (size_t)t * STACK;
    fresh[t].uc_stack.ss_size = STACK;
    makecontext(&fresh[t], fiber, 0);
    setcontext(&fresh[t]);
}

static void block(unsigned threads) {
    for (unsigned t = 0; t < threads; t++) states[t] = NEW;
    for (unsigned left = threads; left > 0;) {
        left = 0;
        for (unsigned t = 0; t < threads; t++) {
            if (states[t] == ENDED) continue;
            go_on(t);
            left += states[t] != ENDED;
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
