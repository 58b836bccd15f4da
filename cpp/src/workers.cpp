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
#include <deque>
#include <exception>
#include <limits>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "defocus_fast/error.hpp"
#include "options.hpp"

namespace defocus_fast {

namespace {

std::atomic<std::uint32_t> fork_count = 0;
std::atomic<int> busy = 0;  // threads of all pools, and their callers, that work or spin

[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] {
  ++fork_count;
  busy = 0;
});

class Busy {
 public:
  Busy() { ++busy; }
  ~Busy() { --busy; }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;
};

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

/// Counts what is left of something that several threads do, and keeps the first exception.
class Completion {
 public:
  void begin(int parts) { left_ = parts; }
  bool done() const { return left_ == 0; }
  /// Of the exception that is being handled.
  void fail() {
    if (!failed_.exchange(true)) error_ = std::current_exception();
  }
  void finish(int parts) {
    if (left_.fetch_sub(parts) == parts) left_.notify_one();
  }
  /// Until nothing is left; throws the exception.
  void wait_for_all(int cores) {
    wait(left_, cores, [](int left) { return left == 0; });
    if (!failed_) return;
    failed_ = false;
    std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  alignas(64) std::atomic<int> left_ = 0;
  alignas(64) std::atomic<bool> failed_ = false;
  std::exception_ptr error_;  // written by who has set failed_
};

/// A thread's slot in a user's regions; they are counted from 1.
struct alignas(64) Seat {
  std::uint64_t region = 0;
  int slot = 0;
};

}  // namespace

std::uint32_t forks() { return fork_count; }

class PoolThreads;

/// A user of a pool's threads, and its region. Threads take the ranges one by one. Who has taken one may read the
/// region until it is done with it; so nobody has to be told that a region ends, and threads that come late find
/// nothing to take. A user lives as long as the threads do, and serves one Workers after the other.
struct PoolUser {
  PoolUser(PoolThreads& threads_, std::size_t count) : threads(threads_), seats(count), next(this) {}

  void begin(const Region& region_) {
    region = region_;
    ++region_count;
    taken_slots = 0;
    completion.begin(region.ranges());
    untaken = region.ranges();
  }

  /// Runs a range; false if there is none.
  bool take_range(Seat& seat) {
    for (int left = untaken; left > 0;) {
      if (!untaken.compare_exchange_weak(left, left - 1)) continue;
      if (seat.region != region_count) seat = {region_count, taken_slots++};
      int done = 1;
      try {
        region.run_range(region.ranges() - left, seat.slot);
      } catch (...) {
        completion.fail();
        done += untaken.exchange(0);
      }
      completion.finish(done);
      return true;
    }
    return false;
  }

  PoolThreads& threads;
  Region region;
  std::uint64_t region_count = 0;
  // Each in a cache line of its own.
  alignas(64) std::atomic<int> untaken = 0;      // ranges of the region that nobody has taken yet
  alignas(64) std::atomic<int> taken_slots = 0;  // threads that have taken part in the region
  Completion completion;                         // of the region's ranges
  std::vector<Seat> seats;                       // of the pool's threads
  std::atomic<PoolUser*> next;                   // in the ring of all users
  bool in_use = false;                           // guarded by PoolThreads::users_mutex_
};

/// What there is of a pool in one process.
class PoolThreads {
 public:
  PoolThreads(int count, const std::function<void(int)>& on_start) : count_(std::size_t(count)) {
    check_memory(count);
    threads_.reserve(count_);
    users_.emplace_back(*this, count_);
    starting_.begin(count);
    const NoSignals no_signals;
    try {
      for (int i = 0; i < count; ++i) start(i, on_start);
      starting_.wait_for_all(cores_);
    } catch (...) {
      stop();
      throw;
    }
  }
  ~PoolThreads() { stop(); }
  PoolThreads(const PoolThreads&) = delete;
  PoolThreads& operator=(const PoolThreads&) = delete;

  bool of_this_process() const { return forks_ == forks(); }

  PoolUser& join() {
    const std::lock_guard lock(users_mutex_);
    for (PoolUser& user : users_)
      if (!std::exchange(user.in_use, true)) return user;
    PoolUser& last = users_.back();
    PoolUser& user = users_.emplace_back(*this, count_);
    user.in_use = true;
    user.next = &users_.front();
    last.next = &user;
    return user;
  }
  void leave(PoolUser& user) {
    const std::lock_guard lock(users_mutex_);
    user.in_use = false;
  }

  void run(PoolUser& user, const Region& region) {
    assert(user.completion.done());
    const int ranges = region.ranges();
    user.begin(region);
    ++begun_;
    const Busy busy_here;
    if (std::size_t(ranges) > count_)
      begun_.notify_all();
    else
      for (int i = 1; i < ranges; ++i) begun_.notify_one();
    Seat seat;
    while (user.take_range(seat)) continue;
    user.completion.wait_for_all(cores_);
  }

 private:
  void start(int index, const std::function<void(int)>& on_start) {
    try {
      threads_.emplace_back(&PoolThreads::work, this, std::size_t(index), std::cref(on_start));
    } catch (const std::system_error& error) {
      throw Error("num_threads: could start only " + std::to_string(threads_.size() + 1) + " of " +
                  std::to_string(count_ + 1) + " threads: " + error.code().message());
    }
  }

  void stop() {
    stopped_ = true;
    ++begun_;
    begun_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void work(std::size_t index, const std::function<void(int)>& on_start) {
    pthread_setname_np(pthread_self(), "defocus_fast");
    // Takes the thread's own memory for exceptions, which may not be left when std::bad_alloc is thrown: see
    // check_memory.
    try {
      throw std::bad_alloc();
    } catch (const std::bad_alloc&) {
    }
    try {
      if (on_start) on_start(int(index));
    } catch (...) {
      starting_.fail();
    }
    PoolUser* at = &users_.front();  // before others join
    starting_.finish(1);
    const Busy busy_here;
    for (;;) {
      const int seen = begun_;  // before what it tells of
      if (stopped_) return;
      if (PoolUser* const user = choose(at)) {
        at = user;
        at->take_range(at->seats[index]);
      } else {
        wait(begun_, cores_, [&](int begun) { return begun != seen; });
      }
    }
  }

  /// Where the fewest other threads take part, of the users that have ranges left. So a thread stays where it is, but
  /// if it would be of more use to somebody who began later.
  static PoolUser* choose(PoolUser* at) {
    PoolUser *chosen = nullptr, *user = at;
    int fewest = std::numeric_limits<int>::max();
    do {
      if (user->untaken > 0)
        if (const int others = user->taken_slots - (user == at); others < fewest) {
          chosen = user;
          fewest = others;
        }
      user = user->next;
    } while (user != at);
    return chosen;
  }

  const std::size_t count_;
  const int cores_ = cores();
  const std::uint32_t forks_ = forks();
  Completion starting_;
  std::mutex users_mutex_;
  std::deque<PoolUser> users_;              // whose ring the threads go round without the mutex
  alignas(64) std::atomic<int> begun_ = 0;  // regions of all users; by it threads know that there may be work
  std::atomic<bool> stopped_ = false;
  std::vector<std::thread> threads_;
};

class ThreadPool::Impl {
 public:
  Impl(int count, std::function<void(int)> on_start)
      : num_threads(count), on_start_(std::move(on_start)), threads_(make().release()) {}
  ~Impl() {
    // In a child the threads are gone: they cannot be joined, and their memory is left as it is.
    if (PoolThreads* const threads = threads_; threads && threads->of_this_process()) delete threads;
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  /// Those of this process, of a pool of more than one.
  PoolThreads& threads() {
    PoolThreads* threads = threads_;
    while (!threads->of_this_process()) {
      auto made = make();
      if (threads_.compare_exchange_strong(threads, made.get())) threads = made.release();
    }
    return *threads;
  }

  const int num_threads;

 private:
  std::unique_ptr<PoolThreads> make() const {
    return num_threads > 1 ? std::make_unique<PoolThreads>(num_threads - 1, on_start_) : nullptr;
  }

  const std::function<void(int)> on_start_;
  std::atomic<PoolThreads*> threads_;
};

ThreadPool::ThreadPool(std::optional<int> num_threads, std::function<void(int)> on_start) {
  check_running(num_threads, "auto");
  impl_ = std::make_shared<Impl>(num_threads.value_or(cores()), std::move(on_start));
}
ThreadPool::ThreadPool(const ThreadPool&) = default;
ThreadPool& ThreadPool::operator=(const ThreadPool&) = default;
ThreadPool::~ThreadPool() = default;

int ThreadPool::num_threads() const { return impl_->num_threads; }

Workers::Workers(const ThreadPool& pool) : pool_(pool), user_(count() > 1 ? &pool_.impl_->threads().join() : nullptr) {}

Workers::~Workers() {
  if (user_ && user_->threads.of_this_process()) user_->threads.leave(*user_);
}

void Workers::run(const Region& region) {
  const int ranges = region.ranges();
  if (!user_ || ranges == 1) {
    for (int i = 0; i < ranges; ++i) region.run_range(i, 0);
    return;
  }
  if (ranges == 0) return;
  if (!user_->threads.of_this_process()) user_ = &pool_.impl_->threads().join();
  user_->threads.run(*user_, region);
}

}  // namespace defocus_fast
