// SPDX-License-Identifier: Apache-2.0
#define DEFOCUS_FAST_WAITS_FOR_DEVICE
#include "emulation.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
// The scheduler itself is no part of what is checked.
#define UNCHECKED __attribute__((no_sanitize("thread")))
#else
#define UNCHECKED
#endif

Index3 threadIdx{}, blockIdx{}, blockDim{}, gridDim{};

// Saves the callee-saved registers of System V x86-64 on the stack, exchanges stacks, restores them. ucontext would do,
// but enters the kernel twice per switch.
#ifndef __x86_64__
#error "The emulation switches stacks on x86-64 only."
#endif
extern "C" void switch_stack(void** save, void* load);
asm(R"(
.text
.globl switch_stack
.type switch_stack,@function
switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size switch_stack,.-switch_stack
)");

namespace defocus_fast::emulation {
namespace {

constexpr unsigned max_threads = 1024;
constexpr std::size_t stack_bytes = 128 << 10, guard_bytes = 4096;

enum class State : std::uint8_t { ready, at_barrier, at_warp_operation, done };

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;       // null: the scheduler, on the stack of the caller of run_grid
  void* fake_stack = nullptr;  // AddressSanitizer's
  void* sanitizer = nullptr;   // ThreadSanitizer's
  State state = State::ready;
  // What the thread waits for.
  const char* file = nullptr;
  int line = 0;
  bool predicate = false;
  WarpOperation operation{};
  unsigned mask = 0, distance = 0;
  std::uint64_t value = 0, result = 0;
};

Fiber scheduler;
std::array<Fiber, max_threads> fibers;
Fiber* current = &scheduler;
unsigned running = 0;  // index of the current fiber
int barrier_count = 0;
void (*kernel)(const void*);
const void* kernel_context;
bool random_order = false;
std::uint32_t random_state = 0;
[[maybe_unused]] const void* scheduler_stack = nullptr;
[[maybe_unused]] std::size_t scheduler_stack_bytes = 0;

// Addresses that stand for what orders memory accesses, to ThreadSanitizer.
[[maybe_unused]] char launch_begin, block_end, block_barrier;
bool blocks_are_ordered = false;

UNCHECKED unsigned random_below(std::size_t n) {
  random_state = random_state * 1664525u + 1013904223u;
  return unsigned((random_state >> 8) % n);
}

UNCHECKED void release([[maybe_unused]] char& what) {
#ifdef __SANITIZE_THREAD__
  __tsan_release(&what);
#endif
}
UNCHECKED void acquire([[maybe_unused]] char& what) {
#ifdef __SANITIZE_THREAD__
  __tsan_acquire(&what);
#endif
}

UNCHECKED void after_switch([[maybe_unused]] Fiber* to) {
#ifdef __SANITIZE_ADDRESS__
  const void* bottom;
  std::size_t bytes;
  __sanitizer_finish_switch_fiber(to ? to->fake_stack : nullptr, &bottom, &bytes);
  if (current != &scheduler && scheduler_stack == nullptr) {
    scheduler_stack = bottom;
    scheduler_stack_bytes = bytes;
  }
#endif
}

UNCHECKED void switch_to(Fiber& to) {
  Fiber* const from = current;
  current = &to;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&from->fake_stack, to.stack ? to.stack : scheduler_stack,
                                 to.stack ? stack_bytes : scheduler_stack_bytes);
#endif
#ifdef __SANITIZE_THREAD__
  __tsan_switch_to_fiber(to.sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
  switch_stack(&from->stack_pointer, to.stack_pointer);
  after_switch(from);
}

/// A fiber runs its thread of every block in turn.
UNCHECKED void fiber_main() {
  after_switch(nullptr);
  for (;;) {
    acquire(launch_begin);
    if (blocks_are_ordered) acquire(block_end);
    kernel(kernel_context);
    release(block_end);
    current->state = State::done;
    switch_to(scheduler);
  }
}

UNCHECKED void make(Fiber& fiber) {
  if (fiber.stack == nullptr) {
    void* memory = mmap(nullptr, stack_bytes + guard_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, guard_bytes, PROT_NONE);
    fiber.stack = static_cast<char*>(memory) + guard_bytes;
  }
  void** top = reinterpret_cast<void**>(fiber.stack + stack_bytes);
  *--top = nullptr;  // the stack is aligned to 16 bytes after the return address
  *--top = reinterpret_cast<void*>(fiber_main);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.stack_pointer = top;
#ifdef __SANITIZE_THREAD__
  fiber.sanitizer = __tsan_create_fiber(0);
#endif
}

/// After a fault the threads still wait in the middle of the kernel: they start anew.
UNCHECKED void abandon(unsigned threads) {
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = fibers[t];
    if (fiber.state == State::done) continue;
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(fiber.stack, stack_bytes);
#endif
#ifdef __SANITIZE_THREAD__
    __tsan_switch_to_fiber(fiber.sanitizer, __tsan_switch_to_fiber_no_sync);
    release(block_end);  // what it did lies before what its launch's caller does
    __tsan_switch_to_fiber(scheduler.sanitizer, __tsan_switch_to_fiber_no_sync);
    __tsan_destroy_fiber(fiber.sanitizer);
#endif
    fiber.fake_stack = nullptr;
    make(fiber);
  }
  acquire(block_end);
}

[[noreturn]] UNCHECKED void fail(const std::string& what, unsigned threads) {
  std::array<int, 4> count{};
  for (unsigned t = 0; t < threads; ++t) ++count[std::size_t(fibers[t].state)];
  const std::string message = what + " (block " + std::to_string(blockIdx.x) + ": " + std::to_string(count[1]) +
                              " threads at a barrier, " + std::to_string(count[2]) + " at a warp operation, " +
                              std::to_string(count[3]) + " ended)";
  abandon(threads);
  throw Fault(message);
}

UNCHECKED void wait(State state) {
  const unsigned me = running;
  current->state = state;
  switch_to(scheduler);
  running = me;
  threadIdx = {me, 0, 0};
}

UNCHECKED bool release_warps(unsigned threads) {
  bool any = false;
  for (unsigned t = 0; t < threads; ++t) {
    const Fiber& first = fibers[t];
    if (first.state != State::at_warp_operation) continue;
    const unsigned warp = t / 32 * 32;
    if (!(first.mask >> (t - warp) & 1)) fail("a lane calls a warp operation whose mask it is not in", threads);
    bool all_here = true;
    std::uint64_t ballot = 0;
    for (unsigned lane = 0; lane < 32; ++lane) {
      if (!(first.mask >> lane & 1)) continue;
      if (warp + lane >= threads || fibers[warp + lane].state == State::done)
        fail("a warp operation names a lane that has ended or does not exist", threads);
      const Fiber& other = fibers[warp + lane];
      all_here &=
          other.state == State::at_warp_operation && other.mask == first.mask && other.operation == first.operation;
      ballot |= std::uint64_t{other.value != 0} << lane;
    }
    if (!all_here) continue;
    const unsigned mask = first.mask;
    for (unsigned lane = 0; lane < 32; ++lane) {
      if (!(mask >> lane & 1)) continue;
      Fiber& fiber = fibers[warp + lane];
      const unsigned source = fiber.distance <= lane ? lane - fiber.distance : lane;
      if (fiber.operation == WarpOperation::ballot) {
        fiber.result = ballot;
      } else {
        if (!(mask >> source & 1)) fail("a shuffle reads a lane outside its mask", threads);
        fiber.result = fibers[warp + source].value;
      }
    }
    for (unsigned lane = 0; lane < 32; ++lane)
      if (mask >> lane & 1) fibers[warp + lane].state = State::ready;
    any = true;
  }
  return any;
}

UNCHECKED void release_barrier(unsigned threads) {
  const Fiber& first = fibers[0];
  barrier_count = 0;
  for (unsigned t = 0; t < threads; ++t) {
    if (fibers[t].state == State::at_warp_operation)
      fail("threads wait at a warp operation that others never reach", threads);
    if (fibers[t].state == State::done) fail("threads have ended while others wait at a barrier", threads);
    barrier_count += fibers[t].predicate;
  }
  for (unsigned t = 0; t < threads; ++t)
    if (fibers[t].line != first.line || std::strcmp(fibers[t].file, first.file) != 0)
      fail("threads wait at different barriers, lines " + std::to_string(first.line) + " and " +
               std::to_string(fibers[t].line),
           threads);
  for (unsigned t = 0; t < threads; ++t) fibers[t].state = State::ready;
}

UNCHECKED void run_block(const std::vector<unsigned>& order) {
  const unsigned threads = unsigned(order.size());
  for (unsigned t = 0; t < threads; ++t) fibers[t].state = State::ready;
  for (;;) {
    bool ran = false;
    unsigned ended = 0;
    for (const unsigned t : order) {
      if (fibers[t].state == State::ready) {
        ran = true;
        running = t;
        threadIdx = {t, 0, 0};
        switch_to(fibers[t]);
      }
      ended += fibers[t].state == State::done;
    }
    if (ended == threads) return;
    if (!ran && !release_warps(threads)) release_barrier(threads);
  }
}

}  // namespace

UNCHECKED std::uint64_t exchange(WarpOperation operation, unsigned mask, std::uint64_t value, unsigned distance) {
  blocks_are_ordered = true;
  current->operation = operation;
  current->mask = mask;
  current->value = value;
  current->distance = distance;
  wait(State::at_warp_operation);
  return current->result;
}

UNCHECKED int barrier(bool predicate, const char* file, int line) {
  blocks_are_ordered = true;
  current->predicate = predicate;
  current->file = file;
  current->line = line;
  release(block_barrier);
  wait(State::at_barrier);
  acquire(block_barrier);
  return barrier_count;
}

UNCHECKED void interrupt() {
  if (random_order && random_below(4) == 0) wait(State::ready);
}

UNCHECKED void run_grid(unsigned grid, unsigned block, void (*body)(const void*), const void* context) {
  static std::mutex mutex;  // fibers and __shared__ variables are the process's
  const std::lock_guard lock(mutex);
  if (grid < 1 || grid > 0x7fffffffu || block < 1 || block > max_threads)
    throw Fault("invalid launch of " + std::to_string(grid) + " blocks of " + std::to_string(block) + " threads");
  const char* name = std::getenv("EMULATION_ORDER");
  const std::string order_name = name ? name : "forward";
  random_order = order_name != "forward" && order_name != "reverse";
  std::vector<unsigned> threads(block), blocks(grid);
  for (auto* order : {&threads, &blocks}) {
    for (std::size_t i = 0; i < order->size(); ++i) (*order)[i] = unsigned(i);
    if (order_name == "reverse") std::reverse(order->begin(), order->end());
    if (random_order) {
      random_state = unsigned(std::stoul(order_name)) + grid;
      for (std::size_t i = order->size(); i > 1; --i) std::swap((*order)[i - 1], (*order)[random_below(i)]);
    }
  }
  for (unsigned t = 0; t < block; ++t)
    if (fibers[t].stack == nullptr) make(fibers[t]);
#ifdef __SANITIZE_THREAD__
  scheduler.sanitizer = __tsan_get_current_fiber();
#endif
  kernel = body;
  kernel_context = context;
  gridDim = {grid, 1, 1};
  blockDim = {block, 1, 1};
  blocks_are_ordered = false;
  release(launch_begin);
  for (const unsigned b : blocks) {
    blockIdx = {b, 0, 0};
    run_block(threads);
  }
  acquire(block_end);
}

namespace {
std::atomic<int> allocation_count = 0;
bool allocation_fails = false;
}  // namespace

int allocations() { return allocation_count; }
void fail_next_allocation() { allocation_fails = true; }

void forbid([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(memory, bytes);
#endif
}

}  // namespace defocus_fast::emulation

namespace {
thread_local cudaError_t last_error = cudaSuccess;

cudaError_t fail(cudaError_t error) { return last_error = error; }
}  // namespace

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  using namespace defocus_fast::emulation;
  ++allocation_count;
  // Aligned as CUDA's; not std::aligned_alloc, whose size is a multiple of it: the sanitizers guard the exact end.
  const char* device = std::getenv("EMULATION_DEVICE");
  if (std::exchange(allocation_fails, false) || (device && std::strstr(device, "no memory")) ||
      posix_memalign(memory, 256, bytes) != 0)
    return fail(cudaErrorMemoryAllocation);
  std::memset(*memory, 0xCD, bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}

namespace {
std::string device_name() {
  const char* name = std::getenv("EMULATION_DEVICE");
  return name ? name : "9.0";
}
}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (device_name() == "no driver") return fail(cudaErrorInsufficientDriver);
  if (device_name() == "no device") return fail(cudaErrorNoDevice);
  if (device_name() == "other driver") return fail(cudaErrorSystemDriverMismatch);
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const std::string name = device_name();
  *value = std::stoi(attribute == cudaDevAttrComputeCapabilityMajor ? name : name.substr(name.find('.') + 1));
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) {
  return std::stoi(device_name()) == 11 ? fail(cudaErrorNoKernelImageForDevice) : cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void*) {
  const char* gpu = std::getenv("EMULATION_MEMORY");
  *attributes = {gpu && std::strcmp(gpu, "unknown") == 0 ? cudaMemoryTypeUnregistered : cudaMemoryTypeDevice,
                 gpu ? std::atoi(gpu) : 0};
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  const char* name = std::getenv("EMULATION_GPU");
  *properties = {};
  std::strncpy(properties->name, name ? name : "Emulated GPU", sizeof properties->name - 1);
  return cudaSuccess;
}
