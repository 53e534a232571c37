// Runs a CUDA kernel's source on a CPU, so that tests need no GPU.
//
// Each thread of each block is a fiber with its own stack, and all fibers share one system thread.
// A fiber gives way only at __syncthreads, __syncwarp, shuffles, mma_bf16 and spin; who goes next is
// drawn from a seed, so a missing barrier shows as a wrong result under some seeds. What this cannot
// show: missing memory fences, and races inside a stretch of code that has no such call.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct __align__(8) uint2 { unsigned x, y; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
struct __align__(8) float2 { float x, y; };
struct __align__(16) float4 { float x, y, z, w; };
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// The values of the fiber that runs now: the scheduler sets them at each switch. All state is static,
// so that two kernels loaded into one process share nothing.
struct CudaIndex { unsigned x, y, z; };
static CudaIndex threadIdx, blockIdx, blockDim = {1, 1, 1}, gridDim = {1, 1, 1};

// Saves the registers a call must keep, stores the stack pointer, and takes up another stack.
// swapcontext would do, but makes a system call each time.
extern "C" void cuda_on_cpu_switch(void** save, void* load);
#if defined(__x86_64__)
asm(R"(.text
cuda_on_cpu_switch:
    push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
    mov %rsp, (%rdi); mov %rsi, %rsp
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
    ret
)");
enum { SAVED_WORDS = 8, RETURN_WORD = 6 };  // one word more than is saved: keeps the stack 16-byte aligned
#elif defined(__aarch64__)
asm(R"(.text
cuda_on_cpu_switch:
    stp x29, x30, [sp, #-160]!
    stp x19, x20, [sp, #16]; stp x21, x22, [sp, #32]; stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]; stp x27, x28, [sp, #80]
    stp d8, d9, [sp, #96]; stp d10, d11, [sp, #112]; stp d12, d13, [sp, #128]; stp d14, d15, [sp, #144]
    mov x9, sp; str x9, [x0]; mov sp, x1
    ldp x19, x20, [sp, #16]; ldp x21, x22, [sp, #32]; ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]; ldp x27, x28, [sp, #80]
    ldp d8, d9, [sp, #96]; ldp d10, d11, [sp, #112]; ldp d12, d13, [sp, #128]; ldp d14, d15, [sp, #144]
    ldp x29, x30, [sp], #160
    ret
)");
enum { SAVED_WORDS = 20, RETURN_WORD = 1 };
#else
#error "cuda_on_cpu.h knows only x86-64 and aarch64"
#endif

namespace cuda_on_cpu {
namespace {
struct Place { const char* file; int line; };  // where the kernel's source calls one of the functions below
#define CUDA_ON_CPU_PLACE cuda_on_cpu::Place place = {__builtin_FILE(), __builtin_LINE()}
enum Wait { RUNNING, SYNCTHREADS, SYNCWARP, SHUFFLE, MMA, SPIN, FINISHED };
const char* const WAIT_NAMES[] = {"ready", "__syncthreads", "__syncwarp", "shuffle", "mma_bf16", "spin", "finished"};

struct Fiber {
    void* stack_pointer;
    Wait wait; Place place; unsigned mask;           // what it waits at, and with which lanes
    unsigned value, result; int source;              // a shuffle's operands
    const unsigned *a, *b; float* c;                 // mma_bf16's operands, on the waiting fiber's stack
};
struct Warp {
    Fiber lanes[32];
    unsigned ready, spinning, waiting, wanted, gone; // bit per lane: may run; only spins; is at a warp-wide
    unsigned block, first_thread, list_index;        // call; is named by one's mask; is at __syncthreads or ended
    bool slow;                                       // seldom chosen under this seed
};
struct Grid {
    std::vector<Warp> warps; std::vector<Warp*> ready;  // ready: the warps that have a lane that may run
    std::vector<unsigned char*> shared; std::vector<unsigned> arrived;  // per block: memory, lanes at the barrier
    void (*start)(const void* kernel, const void* arguments); const void *kernel, *arguments;
    Warp* warp; unsigned lane; Warp outside;         // the fiber that runs now; one that stands for run's caller
    uint64_t random, spins, spins_without_signal;
    unsigned unfinished, stay;                       // stay: chance in 256 to go on with the same warp
};
Grid grid;

// Prints why the kernel cannot go on, and where every fiber is, then ends the process.
[[noreturn]] void fail(const std::string& why) {
    fprintf(stderr, "cuda_on_cpu: %s (seen by block %u thread %u)\n", why.c_str(), blockIdx.x, threadIdx.x);
    std::map<std::string, int> counts;
    for (const Warp& warp : grid.warps)
        for (const Fiber& fiber : warp.lanes) {
            const bool ready = (warp.ready >> (&fiber - warp.lanes) & 1) && fiber.wait != SPIN;
            std::string key = WAIT_NAMES[ready ? RUNNING : fiber.wait];
            if (!ready && fiber.wait != RUNNING && fiber.wait != FINISHED)
                key += std::string(" at ") + fiber.place.file + ":" + std::to_string(fiber.place.line);
            ++counts["block " + std::to_string(warp.block) + ": " + key];
        }
    for (const auto& count : counts) fprintf(stderr, "  %s: %d fibers\n", count.first.c_str(), count.second);
    abort();
}

unsigned random_below(uint64_t limit) {  // xorshift: cheap, as it runs at every switch
    grid.random ^= grid.random << 13; grid.random ^= grid.random >> 7; grid.random ^= grid.random << 17;
    return unsigned(((grid.random >> 32) * limit) >> 32);
}

void make_ready(Warp& warp, unsigned lanes) {
    if (!warp.ready) { warp.list_index = unsigned(grid.ready.size()); grid.ready.push_back(&warp); }
    warp.ready |= lanes;
}

// Chooses the next fiber and runs it; comes back when this fiber is chosen again.
void give_way(bool may_stay) {
    Fiber& from = grid.warp->lanes[grid.lane];
    if (grid.ready.empty() && grid.unfinished) fail("deadlock: no fiber can run");
    if (grid.ready.empty()) return cuda_on_cpu_switch(&from.stack_pointer, grid.outside.lanes[0].stack_pointer);
    // Staying lets one warp run far ahead of the others. Picking evenly would keep all warps nearly in
    // step, as each warp-wide call needs 32 picks, and would hide barriers missing over long distances.
    if (!(may_stay && grid.warp->ready && random_below(256) < grid.stay)) {
        grid.warp = grid.ready[random_below(grid.ready.size())];
        // A slow warp lets others go first, but not those that only spin: it may be what they wait for.
        for (int draws = 0; draws < 4 && grid.warp->slow; ++draws) {
            Warp* other = grid.ready[random_below(grid.ready.size())];
            if (other->ready & ~other->spinning) grid.warp = other;
        }
    }
    Warp& warp = *grid.warp;
    unsigned turn = random_below(32);
    grid.lane = (unsigned(__builtin_ctz(warp.ready >> turn | warp.ready << (-turn & 31))) + turn) & 31;
    warp.ready &= ~(1u << grid.lane);
    warp.spinning &= ~(1u << grid.lane);
    if (!warp.ready) {  // take it off the list by putting the last one in its place
        grid.ready[warp.list_index] = grid.ready.back();
        grid.ready[warp.list_index]->list_index = warp.list_index;
        grid.ready.pop_back();
    }
    Fiber& to = warp.lanes[grid.lane];
    to.wait = RUNNING;
    threadIdx.x = warp.first_thread + grid.lane;
    blockIdx.x = warp.block;
    if (&to != &from) cuda_on_cpu_switch(&from.stack_pointer, to.stack_pointer);
}

// Notes what the running fiber waits at, and finds lanes that wait for one that can no longer come.
Fiber& arrive(Wait wait, Place place, unsigned mask) {
    Warp& warp = *grid.warp;
    Fiber& fiber = warp.lanes[grid.lane];
    fiber.wait = wait; fiber.place = place; fiber.mask = mask;
    grid.spins = 0;
    (mask ? warp.waiting : warp.gone) |= 1u << grid.lane;
    warp.wanted |= mask;
    if (warp.wanted & warp.gone) fail("a lane is missing at a warp-wide call: it is at __syncthreads or has ended");
    return fiber;
}

// Waits for all lanes in mask; the last one to come works out everybody's result.
void meet(Wait wait, Place place, unsigned mask, void (*work)(Warp&, unsigned mask)) {
    Warp& warp = *grid.warp;
    if (!(mask >> grid.lane & 1)) fail("a lane makes a warp-wide call whose mask leaves it out");
    arrive(wait, place, mask);
    if ((warp.waiting & mask) == mask) {
        for (unsigned lane = 0; lane < 32; ++lane) {
            const Fiber& fiber = warp.lanes[lane];
            if ((mask >> lane & 1) && (fiber.wait != wait || fiber.mask != mask ||
                                       (wait == MMA && fiber.place.line != place.line)))
                fail("the lanes of a warp meet at different calls or with different masks");
        }
        work(warp, mask);
        warp.waiting &= ~mask;
        warp.wanted &= ~mask;
        make_ready(warp, mask);
    }
    give_way(true);
}

inline float from_bits(unsigned bits) { float value; memcpy(&value, &bits, 4); return value; }
inline unsigned to_bits(float value) { unsigned bits; memcpy(&bits, &value, 4); return bits; }
inline float bf16(unsigned pair, int half) { return from_bits(half ? pair & 0xFFFF0000u : pair << 16); }

// Sums in double in order of k, then rounds once. A vector holds one row of the product: 8 columns.
void multiply(Warp& warp, unsigned) {
    typedef double Row __attribute__((vector_size(64)));
    Row b[16], c[16];
    float a[16][16];
    for (int lane = 0; lane < 32; ++lane) {
        const Fiber& fiber = warp.lanes[lane];
        const int g = lane >> 2, t = lane & 3;
        for (int half = 0; half < 2; ++half) {  // half: the low or the high 16 bits of a register
            for (int i = 0; i < 4; ++i)
                a[g + i % 2 * 8][2 * t + i / 2 * 8 + half] = bf16(fiber.a[i], half);
            for (int i = 0; i < 2; ++i) {
                b[2 * t + i * 8 + half][g] = double(bf16(fiber.b[i], half));
                c[g + i * 8][2 * t + half] = double(fiber.c[2 * i + half]);
            }
        }
    }
    for (int row = 0; row < 16; ++row)
        for (int k = 0; k < 16; ++k) c[row] += double(a[row][k]) * b[k];
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i)
            warp.lanes[lane].c[i] = float(c[(lane >> 2) + i / 2 * 8][2 * (lane & 3) + i % 2]);
}

template <class T> T shuffle(unsigned mask, T value, int source, Place place) {
    static_assert(sizeof(T) == 4, "shuffles move 4-byte values");
    Fiber& fiber = grid.warp->lanes[grid.lane];
    memcpy(&fiber.value, &value, 4);
    fiber.source = source & 31;
    meet(SHUFFLE, place, mask, [](Warp& warp, unsigned lanes) {
        for (Fiber& to : warp.lanes) {
            if (!(lanes >> (&to - warp.lanes) & 1)) continue;
            if (!(lanes >> to.source & 1)) fail("a shuffle reads from a lane that its mask leaves out");
            // Each lane could read this itself, but its source may have gone on to another shuffle by then.
            to.result = warp.lanes[to.source].value;
        }
    });
    memcpy(&value, &fiber.result, 4);
    return value;
}

template <class T> T load(const void* address) {
    T value;
    if (uintptr_t(address) % sizeof(T)) fail("a load of " + std::to_string(sizeof(T)) + " bytes is not aligned");
    memcpy(&value, address, sizeof(T));
    return value;
}

void fiber_main() {
    grid.start(grid.kernel, grid.arguments);
    arrive(FINISHED, {"", 0}, 0);
    grid.spins_without_signal = 0;
    --grid.unfinished;
    give_way(true);
}

// Memory that ends at a page that may not be touched, at its end or its beginning, so that overruns fault.
char* guarded_bytes(size_t size, size_t count, bool guard_first) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* base = mmap(nullptr, size * count, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (base == MAP_FAILED) fail("no memory for fibers");
    for (size_t i = 0; i < count; ++i)
        mprotect(static_cast<char*>(base) + i * size + (guard_first ? 0 : size - 4096), 4096, PROT_NONE);
    return static_cast<char*>(base);
}

inline int run(void (*start)(const void*, const void*), const void* kernel, const void* arguments, int num_blocks,
        int num_threads, int shared_bytes, unsigned seed) {
    if (num_blocks < 1 || num_threads < 32 || num_threads > 1024 || num_threads % 32 || shared_bytes < 0 ||
        shared_bytes > 227 * 1024)
        return 1;
    static std::mutex one_at_a_time;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    const size_t num_fibers = size_t(num_blocks) * num_threads, stack_size = 128 * 1024;
    // Given back after each run: a process may have some 65,000 mappings, and each stack with its guard page is two.
    char* stacks = guarded_bytes(stack_size, num_fibers, true);
    grid = Grid();
    grid.start = start; grid.kernel = kernel; grid.arguments = arguments;
    grid.unfinished = unsigned(num_fibers);
    gridDim.x = unsigned(num_blocks); blockDim.x = unsigned(num_threads);

    // The seed also chooses how fibers are chosen: how long one warp runs on, and which are slow (none, one
    // warp, one block, or about half). Any 16 seeds in a row try every pair of these.
    const unsigned stays[] = {256, 0, 255, 230}, slow_kind = seed / 4 % 4;
    grid.stay = stays[seed % 4];
    grid.random = (uint64_t(seed) + 1) * 0x9E3779B97F4A7C15u;
    const unsigned slow = random_below(num_fibers);

    const size_t shared_size = (size_t(shared_bytes) + 4095) / 4096 * 4096 + 4096;
    const size_t shared_used = (size_t(shared_bytes) + 127) / 128 * 128;
    char* shared = guarded_bytes(shared_size, num_blocks, false);
    for (int block = 0; block < num_blocks; ++block) {
        char* begin = shared + (block + 1) * shared_size - 4096 - shared_used;
        grid.shared.push_back(reinterpret_cast<unsigned char*>(memset(begin, 0xFF, shared_used)));
    }
    grid.arrived.resize(num_blocks);
    grid.warps.resize(num_fibers / 32);
    for (unsigned i = 0; i < num_fibers; ++i) {
        Warp& warp = grid.warps[i / 32];
        if (i % 32 == 0) {
            warp.block = i / blockDim.x; warp.first_thread = i % blockDim.x;
            warp.slow = slow_kind == 1 ? i / 32 == slow / 32 : slow_kind == 2 ? warp.block == slow / blockDim.x
                                                             : slow_kind == 3 && random_below(2);
            make_ready(warp, ~0u);
        }
        // Stacks begin at different offsets, else all of them would compete for the same cache lines.
        void** top = reinterpret_cast<void**>(stacks + (i + 1) * stack_size - i % 48 * 64) - SAVED_WORDS;
        memset(top, 0, SAVED_WORDS * sizeof(void*));
        top[RETURN_WORD] = reinterpret_cast<void*>(fiber_main);
        warp.lanes[i % 32].stack_pointer = top;
    }
    grid.warp = &grid.outside; grid.lane = 0;
    give_way(false);  // comes back when no fiber is left
    munmap(shared, shared_size * num_blocks);
    munmap(stacks, num_fibers * stack_size);
    return 0;
}
}  // namespace
}  // namespace cuda_on_cpu

static inline unsigned char* shared_memory() { return cuda_on_cpu::grid.shared[blockIdx.x]; }

static inline void __syncthreads(CUDA_ON_CPU_PLACE) {
    using namespace cuda_on_cpu;
    arrive(SYNCTHREADS, place, 0);
    if (++grid.arrived[blockIdx.x] == blockDim.x) {
        grid.arrived[blockIdx.x] = 0;
        for (unsigned i = 0, per_block = blockDim.x / 32; i < per_block; ++i) {
            Warp& warp = grid.warps[blockIdx.x * per_block + i];
            warp.gone = 0;
            make_ready(warp, ~0u);
        }
    }
    give_way(true);
}
static inline void __syncwarp(unsigned mask = ~0u, CUDA_ON_CPU_PLACE) {
    cuda_on_cpu::meet(cuda_on_cpu::SYNCWARP, place, mask, [](cuda_on_cpu::Warp&, unsigned) {});
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, CUDA_ON_CPU_PLACE) {
    return cuda_on_cpu::shuffle(mask, value, int(threadIdx.x & 31) ^ lane_mask, place);
}
template <class T> static inline T __shfl_sync(unsigned mask, T value, int lane, CUDA_ON_CPU_PLACE) {
    return cuda_on_cpu::shuffle(mask, value, lane, place);
}
static inline void mma_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], CUDA_ON_CPU_PLACE) {
    cuda_on_cpu::Fiber& fiber = cuda_on_cpu::grid.warp->lanes[cuda_on_cpu::grid.lane];
    fiber.a = a; fiber.b = b; fiber.c = c;
    cuda_on_cpu::meet(cuda_on_cpu::MMA, place, ~0u, cuda_on_cpu::multiply);
}
// A fiber that spins lets another warp run. If nothing but spinning happens, or no block has signalled
// another for minutes, the wait will never end.
static inline void spin(CUDA_ON_CPU_PLACE) {
    using namespace cuda_on_cpu;
    if (++grid.spins > 4000000 || ++grid.spins_without_signal > 2000000000) fail("deadlock: fibers only spin");
    grid.warp->spinning |= 1u << grid.lane;
    grid.warp->lanes[grid.lane].wait = SPIN;
    grid.warp->lanes[grid.lane].place = place;
    make_ready(*grid.warp, 1u << grid.lane);
    give_way(false);
}

static inline unsigned atomic_add(unsigned* counter, unsigned value) {
    if (uintptr_t(counter) % 4) cuda_on_cpu::fail("an atomic is not aligned");
    if (value) cuda_on_cpu::grid.spins = cuda_on_cpu::grid.spins_without_signal = 0;
    return __atomic_fetch_add(counter, value, __ATOMIC_ACQ_REL);
}
static inline void atomic_max(unsigned long long* at, unsigned long long value) {
    if (uintptr_t(at) % 8) cuda_on_cpu::fail("an atomic is not aligned");
    unsigned long long held = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (held < value && !__atomic_compare_exchange_n(at, &held, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}
static inline void add_release(unsigned* counter, unsigned value) { atomic_add(counter, value); }
static inline unsigned load_acquire(const unsigned* counter) {
    if (uintptr_t(counter) % 4) cuda_on_cpu::fail("an atomic is not aligned");
    return __atomic_load_n(counter, __ATOMIC_ACQUIRE);
}
static inline void copy_ahead16(void* to, const void* from) {
    if (uintptr_t(to) % 16 || uintptr_t(from) % 16) cuda_on_cpu::fail("a copy of 16 bytes is not aligned");
    std::memcpy(to, from, 16);
}
static inline void wait_for_copies() {}
static inline long long clock64() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}
static inline void memory_fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

static inline uint2 load_weights8(const void* p) { return cuda_on_cpu::load<uint2>(p); }
static inline uint4 load_weights16(const void* p) { return cuda_on_cpu::load<uint4>(p); }
static inline uint4 load_shared_by_all16(const void* p) { return cuda_on_cpu::load<uint4>(p); }
static inline uint2 load_shared_by_all8(const void* p) { return cuda_on_cpu::load<uint2>(p); }
static inline unsigned load_shared_by_all4(const void* p) { return cuda_on_cpu::load<unsigned>(p); }
static inline unsigned short load_shared_by_all2(const void* p) { return cuda_on_cpu::load<unsigned short>(p); }
static inline void prefetch_bytes(const void* p, unsigned num_bytes) {
    if ((uintptr_t(p) | num_bytes) % 16) cuda_on_cpu::fail("prefetch_bytes needs multiples of 16");
}

static inline float __int_as_float(int bits) { return cuda_on_cpu::from_bits(unsigned(bits)); }
static inline int __float_as_int(float value) { return int(cuda_on_cpu::to_bits(value)); }
static inline float low_bf16(unsigned pair) { return cuda_on_cpu::bf16(pair, 0); }
static inline float high_bf16(unsigned pair) { return cuda_on_cpu::bf16(pair, 1); }
static inline unsigned pack_bf16(float low, float high) {  // rounds to nearest even; any NaN becomes the GPU's NaN
    auto round = [](float value) {
        const unsigned bits = cuda_on_cpu::to_bits(value);
        return value != value ? 0x7FFFu : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    };
    return round(low) | round(high) << 16;
}
static inline float fast_exp(float x) { return expf(x); }
static inline float fast_rsqrt(float x) { return 1.0f / sqrtf(x); }
static inline float fast_divide(float a, float b) { return a / b; }

// Runs the kernel to its end. Returns 1, as a launch would fail, if a GPU could not take this shape; else 0.
template <class A>
static int run_on_cpu(void (*kernel)(A), const A& arguments, int num_blocks, int num_threads, int shared_bytes,
                      unsigned seed) {
    return cuda_on_cpu::run(
        [](const void* k, const void* a) { (*static_cast<void (*const*)(A)>(k))(*static_cast<const A*>(a)); },
        &kernel, &arguments, num_blocks, num_threads, shared_bytes, seed);
}
#define EXPORT_KERNEL(name, Arguments)                                                                     \
    extern "C" int name##_on_cpu(const Arguments* arguments, int blocks, int threads, int shared_bytes,    \
                                 unsigned seed) {                                                          \
        return run_on_cpu<Arguments>(name, *arguments, blocks, threads, shared_bytes, seed);               \
    }
