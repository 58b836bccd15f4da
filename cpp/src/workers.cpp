// SPDX-License-Identifier: Apache-2.0
#include "workers.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <exception>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "defocus_fast/error.hpp"

namespace defocus_fast {

namespace {

std::atomic<std::uint32_t> fork_count = 0;
std::atomic<int> busy = 0;  // threads of all estimators that work or spin

[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] {
  ++fork_count;
  busy = 0;
});

int cores() {
  cpu_set_t allowed;
  // Fails on machines with more cores than the set holds.
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
  return std::max(1, int(std::thread::hardware_concurrency()));
}

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Waits until ready(value) is true. Spins first, if there is a core for it, since waking up a thread takes longer than
/// the last ranges of a region, or what lies between two regions; then sleeps.
template <class Ready>
void wait(const std::atomic<int>& value, int cores, const Ready& ready) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::microseconds(300);
  do
    for (int i = 0; i < 32; ++i) {
      if (ready(value.load())) return;
      pause();
    }
  while (busy.load(std::memory_order_relaxed) <= cores && Clock::now() < end);
  --busy;
  for (int seen; !ready(seen = value.load());) value.wait(seen);
  ++busy;
}

/// Throws std::bad_alloc unless there are addresses left for the stacks of so many threads and for what the C library
/// gives every thread at its start: without the former it says "try again", without the latter it ends the process.
void check_memory(int threads) {
  pthread_attr_t defaults;
  std::size_t stack = 0;
  pthread_attr_init(&defaults);
  pthread_attr_getstacksize(&defaults, &stack);
  pthread_attr_destroy(&defaults);
  const std::size_t size = std::size_t(threads) * (stack + (std::size_t{64} << 10));
  void* const memory = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  munmap(memory, size);
}

/// No signal arrives in this thread, nor in threads that it starts.
class NoSignals {
 public:
  NoSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~NoSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  NoSignals(const NoSignals&) = delete;
  NoSignals& operator=(const NoSignals&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

std::uint32_t forks() { return fork_count; }

/// Threads take the ranges of a region one by one. Who has taken one may read the region until it is done with it; so
/// nobody has to be told that a region ends, and threads that wake up late find nothing to take.
class Workers::Pool {
 public:
  explicit Pool(int threads) {
    check_memory(threads);
    threads_.reserve(std::size_t(threads));
    unfinished_ = threads;
    const NoSignals no_signals;
    try {
      for (int i = 0; i < threads; ++i) threads_.emplace_back(&Pool::work, this);
    } catch (const std::system_error& error) {
      stop();
      throw Error("num_threads: could start only " + std::to_string(threads_.size() + 1) + " of " +
                  std::to_string(threads + 1) + " threads: " + error.code().message());
    } catch (...) {
      stop();
      throw;
    }
    wait_for_all();
  }
  ~Pool() { stop(); }

  bool of_this_process() const { return forks_ == forks(); }

  void run(const Region& region) {
    assert(unfinished_ == 0);
    const int ranges = region.ranges();
    region_ = region;
    ++region_count_;
    taken_slots_ = 0;
    unfinished_ = ranges;
    untaken_ = ranges;
    ++busy;
    if (std::size_t(ranges) > threads_.size())
      untaken_.notify_all();
    else
      for (int i = 1; i < ranges; ++i) untaken_.notify_one();
    take_ranges();
    wait_for_all();
    --busy;
    if (failed_) {
      failed_ = false;
      std::rethrow_exception(std::exchange(error_, nullptr));
    }
  }

 private:
  static constexpr int stopped = -1;

  void stop() {
    untaken_ = stopped;
    untaken_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void work() {
    pthread_setname_np(pthread_self(), "defocus_fast");
    // Takes the thread's own memory for exceptions, which may not be left when std::bad_alloc is thrown: see
    // check_memory.
    try {
      throw std::bad_alloc();
    } catch (const std::bad_alloc&) {
    }
    finish(1);
    ++busy;
    while (untaken_ != stopped) {
      take_ranges();
      wait(untaken_, cores_, [](int ranges) { return ranges != 0; });
    }
    --busy;
  }

  void finish(int done) {
    if (unfinished_.fetch_sub(done) == done) unfinished_.notify_one();
  }

  void wait_for_all() {
    wait(unfinished_, cores_, [](int left) { return left == 0; });
  }

  void take_ranges() {
    int slot = 0;
    std::uint64_t slot_of = 0;  // the region for which this thread has its slot; they are counted from 1
    for (int left = untaken_; left > 0;) {
      if (!untaken_.compare_exchange_weak(left, left - 1)) continue;
      if (slot_of != region_count_) {
        slot_of = region_count_;
        slot = taken_slots_++;
      }
      int done = 1;
      try {
        region_.run_range(region_.ranges() - left, slot);
      } catch (...) {
        if (!failed_.exchange(true)) error_ = std::current_exception();
        done += untaken_.exchange(0);
      }
      finish(done);
      left = untaken_;
    }
  }

  const int cores_ = cores();
  const std::uint32_t forks_ = forks();
  Region region_;
  std::uint64_t region_count_ = 0;
  // Each in a cache line of its own.
  alignas(64) std::atomic<int> untaken_ = 0;     // ranges of the region that nobody has taken yet, or `stopped`
  alignas(64) std::atomic<int> unfinished_ = 0;  // ranges of the region that are not done; at first threads to start
  alignas(64) std::atomic<int> taken_slots_ = 0;
  alignas(64) std::atomic<bool> failed_ = false;
  std::exception_ptr error_;  // written by who has set failed_
  std::vector<std::thread> threads_;
};

Workers::Workers(int num_threads)
    : count_(num_threads > 0 ? num_threads : cores()),
      pool_(count_ > 1 ? std::make_unique<Pool>(count_ - 1) : nullptr) {}

Workers::~Workers() {
  // In a child the threads are gone: they cannot be joined, and their memory is left as it is.
  if (pool_ && !pool_->of_this_process()) static_cast<void>(pool_.release());
}

void Workers::run(const Region& region) {
  const int ranges = region.ranges();
  if (count_ == 1 || ranges == 1) {
    for (int i = 0; i < ranges; ++i) region.run_range(i, 0);
    return;
  }
  if (ranges == 0) return;
  if (pool_ && !pool_->of_this_process()) static_cast<void>(pool_.release());
  if (!pool_) pool_ = std::make_unique<Pool>(count_ - 1);
  pool_->run(region);
}

}  // namespace defocus_fast
