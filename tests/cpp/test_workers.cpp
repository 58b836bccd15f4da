// SPDX-License-Identifier: Apache-2.0
#include "workers.hpp"

#include <doctest/doctest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "defocus_fast/error.hpp"
#include "turns.hpp"

using namespace defocus_fast;

namespace {

/// Whether every index of [0, n) was seen once, in ranges of `grain`, and no slot was busy twice at a time.
bool covers(Workers& workers, int n, int grain) {
  std::vector<int> seen(std::size_t{unsigned(n)});
  std::vector<std::atomic<int>> busy(std::size_t(workers.slots(n, grain)));
  std::atomic<bool> good = true;
  workers.for_ranges(n, grain, [&](int begin, int end, int slot) {
    if (slot < 0 || slot >= workers.slots(n, grain) || busy[std::size_t(slot)]++ != 0) good = false;
    if (begin % grain != 0 || end != std::min(n, begin + grain)) good = false;
    for (int i = begin; i < end; ++i) ++seen[std::size_t(i)];
    --busy[std::size_t(slot)];
  });
  return good && std::ranges::all_of(seen, [](int times) { return times == 1; });
}

int threads_of_process() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return int(std::distance(begin(tasks), end(tasks)));
}

/// A thread is listed for a moment after it was joined.
bool comes_to(int threads) {
  for (int i = 0; i < 1000 && threads_of_process() != threads; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return threads_of_process() == threads;
}

}  // namespace

TEST_CASE("workers cover a range once, never with one slot twice at a time") {
  for (const int threads : {1, 2, 4, 33}) {
    Workers workers{ThreadPool(threads)};
    CHECK(workers.count() == threads);
    for (const int n : {0, 1, 9, 10, 11, 1001})
      for (const int grain : {1, 10, 2000}) CHECK(covers(workers, n, grain));
  }
}

TEST_CASE("workers of all cores are as many as the process may use") {
  cpu_set_t allowed;
  REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  CHECK(ThreadPool().num_threads() == CPU_COUNT(&allowed));
  int first = 0;
  while (!CPU_ISSET(first, &allowed)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  std::thread([&] {
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK(ThreadPool().num_threads() == 1);
  }).join();
}

TEST_CASE("workers have a name, and the affinity, policy and priority of the thread that makes them") {
  cpu_set_t allowed;
  REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  int last = CPU_SETSIZE - 1;
  while (!CPU_ISSET(last, &allowed)) --last;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(last, &one);
  std::thread([&] {
    // SCHED_BATCH is the one policy that needs no privileges and is not the default.
    const sched_param parameters{};
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK(sched_setscheduler(0, SCHED_BATCH, &parameters) == 0);
    Workers workers{ThreadPool(3)};
    std::atomic<int> arrived = 0, good = 0;
    const std::thread::id caller = std::this_thread::get_id();
    workers.for_ranges(3, 1, [&](int, int, int) {
      ++arrived;
      while (arrived < 3) std::this_thread::yield();
      if (std::this_thread::get_id() == caller) return;
      cpu_set_t own;
      char name[16]{};
      pthread_getname_np(pthread_self(), name, sizeof name);
      good += sched_getaffinity(0, sizeof own, &own) == 0 && CPU_EQUAL(&own, &one) != 0 &&
              sched_getscheduler(0) == SCHED_BATCH && std::string(name) == "defocus_fast";
    });
    CHECK(good == 2);
  }).join();
}

TEST_CASE("thousands of regions follow each other, on threads that spin and on threads that sleep") {
  Workers workers{ThreadPool(3)};
  std::atomic<long> sum = 0;
  for (int region = 0; region < 20000; ++region) {
    if (region % 500 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
    const int n = region % 7;
    workers.for_ranges(n, 1, [&](int i, int, int) { sum += i + 1; });
    sum -= n * (n + 1) / 2;
  }
  CHECK(sum == 0);
}

TEST_CASE("all threads take part") {
  Workers workers{ThreadPool(4)};
  std::atomic<int> arrived = 0;
  std::atomic<int> slots = 0;
  workers.for_ranges(4, 1, [&](int, int, int slot) {
    slots += 1 << slot;
    ++arrived;
    while (arrived < 4) std::this_thread::yield();
  });
  CHECK(slots == 0b1111);
}

TEST_CASE("several groups of workers are busy side by side") {
  std::vector<std::thread> callers;
  std::atomic<int> good = 0;
  for (int i = 0; i < 6; ++i)
    callers.emplace_back([&, i] {
      Workers workers{ThreadPool(1 + i)};
      for (int region = 0; region < 300; ++region) good += covers(workers, 100 + region, 7);
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(good == 6 * 300);
}

TEST_CASE("an exception of a body reaches the caller, whichever thread it comes from, and the workers go on") {
  for (const int threads : {1, 3}) {
    Workers workers{ThreadPool(threads)};
    for (int region = 0; region < 500; ++region) {
      std::string caught;
      try {
        workers.for_ranges(100, 1, [&](int i, int, int) {
          if (i % 50 == region % 50) throw std::runtime_error("at " + std::to_string(i % 50));
        });
      } catch (const std::runtime_error& error) {
        caught = error.what();
      }
      CHECK(caught == "at " + std::to_string(region % 50));
      CHECK(covers(workers, 100, 3));
    }
    CHECK_THROWS_AS(workers.for_ranges(8, 1, [](int, int, int) { throw std::bad_alloc(); }), std::bad_alloc);
  }
}

TEST_CASE("signals arrive in the threads of the caller") {
  Workers workers{ThreadPool(3)};
  sigset_t mine, empty;
  pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  sigemptyset(&empty);
  CHECK(sigismember(&mine, SIGINT) == 0);  // the constructor has put it back
  std::atomic<int> arrived = 0, blocking = 0;
  const auto caller = std::this_thread::get_id();
  workers.for_ranges(3, 1, [&](int, int, int) {
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    if (std::this_thread::get_id() != caller)
      blocking += sigismember(&blocked, SIGINT) && sigismember(&blocked, SIGTERM);
    ++arrived;
    while (arrived < 3) std::this_thread::yield();
  });
  CHECK(blocking == 2);
}

TEST_CASE("users of one pool, who come and go, are busy side by side") {
  const ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::atomic<int> good = 0;
  for (int i = 0; i < 6; ++i)
    callers.emplace_back([&] {
      for (int k = 0; k < 30; ++k) {
        Workers workers(pool);
        for (int region = 0; region < 20; ++region) good += covers(workers, 100 + region, 1 + k % 7);
      }
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(good == 6 * 30 * 20);
}

TEST_CASE("a region ends though all of the pool's threads are held up in another user's") {
  const ThreadPool pool(3);
  Workers held_up(pool), other(pool);
  std::atomic<int> inside = 0;
  std::atomic<bool> released = false;
  std::thread caller([&] {
    held_up.for_ranges(3, 1, [&](int, int, int) {
      ++inside;
      released.wait(false);
    });
  });
  while (inside < 3) std::this_thread::yield();
  CHECK(covers(other, 100, 1));
  CHECK_THROWS_AS(other.for_ranges(9, 1, [](int, int, int) { throw std::bad_alloc(); }), std::bad_alloc);
  released = true;
  released.notify_all();
  caller.join();
}

TEST_CASE("threads leave a region in which many take part for one in which few do") {
  const ThreadPool pool(4);
  Workers first(pool), second(pool);
  std::atomic<int> inside = 0, met = 0;
  std::atomic<bool> second_began = false, second_ended = false;
  std::thread caller([&] {
    first.for_ranges(8, 1, [&, self = std::this_thread::get_id()](int i, int, int) {
      ++inside;
      second_began.wait(false);
      if (i >= 4 || std::this_thread::get_id() == self) second_ended.wait(false);
    });
  });
  while (inside < 4) std::this_thread::yield();
  second.for_ranges(2, 1, [&](int, int, int) {
    ++met;
    second_began = true;
    second_began.notify_all();
    while (met < 2) std::this_thread::yield();  // a thread has come from the first region, which has ranges left
  });
  second_ended = true;
  second_ended.notify_all();
  caller.join();
  CHECK(inside == 8);
}

TEST_CASE("an exception stays with the user in whose region it was thrown") {
  const ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::atomic<int> good = 0;
  for (int mine = 0; mine < 4; ++mine)
    callers.emplace_back([&, mine] {
      Workers workers(pool);
      for (int region = 0; region < 300; ++region) try {
          workers.for_ranges(50, 1, [&](int i, int, int) {
            if (mine % 2 == 0 && i % 20 == 7) throw mine;
          });
          good += mine % 2 == 1;
        } catch (const int thrown) {
          good += thrown == mine;
        }
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(good == 4 * 300);
}

TEST_CASE("on_start is called once in each thread before it works, and may name it") {
  static thread_local int started = 0;
  std::mutex mutex;
  std::set<int> indices;
  const ThreadPool pool(4, [&](int index) {
    ++started;
    pthread_setname_np(pthread_self(), ("camera " + std::to_string(index)).c_str());
    const std::lock_guard lock(mutex);
    CHECK(indices.insert(index).second);
  });
  CHECK(indices == std::set{0, 1, 2});  // all are done when the constructor is
  CHECK(started == 0);
  Workers workers(pool), others(pool);
  const auto caller = std::this_thread::get_id();
  for (Workers* each : {&workers, &others, &workers}) {
    std::atomic<int> arrived = 0;
    std::set<std::string> names;
    each->for_ranges(4, 1, [&](int, int, int) {
      {
        const std::lock_guard lock(mutex);
        char name[16]{};
        pthread_getname_np(pthread_self(), name, sizeof name);
        CHECK(started == (std::this_thread::get_id() != caller));
        if (started) names.insert(name);
      }
      ++arrived;
      while (arrived < 4) std::this_thread::yield();
    });
    CHECK(names == std::set<std::string>{"camera 0", "camera 1", "camera 2"});
  }
}

TEST_CASE("an exception of on_start comes out of the constructor, and no thread is left") {
  const int before = threads_of_process();
  std::atomic<int> calls = 0;
  const auto not_permitted = [&](int index) {
    ++calls;
    if (index == 1) throw std::system_error(EPERM, std::generic_category(), "priority");
  };
  CHECK_THROWS_AS(ThreadPool(4, not_permitted), std::system_error);
  CHECK(calls == 3);
  CHECK_THROWS_WITH_AS(ThreadPool(5, [](int) { throw std::runtime_error("all of them"); }), "all of them",
                       std::runtime_error);
  CHECK(comes_to(before));
  const ThreadPool none(1, not_permitted);  // has no threads to call it
  CHECK(calls == 3);
}

TEST_CASE("a pool has its threads until the last of its handles and users is gone, however many there are") {
  const int before = threads_of_process();
  std::optional<ThreadPool> pool(std::in_place, 3);
  std::vector<std::unique_ptr<Workers>> users;
  for (int i = 0; i < 20; ++i) users.push_back(std::make_unique<Workers>(*pool));
  const ThreadPool moved = std::move(*pool);
  CHECK(pool->num_threads() == 3);
  CHECK(comes_to(before + 2));
  pool.reset();
  users.erase(users.begin() + 3, users.begin() + 11);
  for (const auto& user : users) CHECK(covers(*user, 100, 1));
  CHECK(comes_to(before + 2));
  std::optional<Workers> last(moved);
  users.clear();
  CHECK(covers(*last, 100, 1));
}

TEST_CASE("numbers of threads are checked") {
  CHECK_THROWS_WITH_AS(ThreadPool(0), "num_threads: expected an integer in [1, 1024], or none, got 0", InvalidArgument);
  CHECK_THROWS_AS(ThreadPool(1025), InvalidArgument);
}

TEST_CASE("turns are taken one after the other, once by each thread") {
  Turns turns;
  int count = 0;  // unguarded but by turns
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int k = 0; k < 2000; ++k) {
        const std::lock_guard turn(turns);
        ++count;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(count == 8000);
  const std::lock_guard turn(turns);
  CHECK_THROWS_WITH_AS(turns.lock(), "estimator: called from within one of its own calls, which would wait for itself",
                       Error);
}

TEST_CASE("in a forked child nobody waits for a turn that a thread of the parent has") {
  Turns held, idle;
  std::atomic<bool> locked = false, forked = false;
  std::thread holder([&] {
    const std::lock_guard turn(held);
    locked = true;
    while (!forked) std::this_thread::yield();
  });
  while (!locked) std::this_thread::yield();
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    {
      const std::lock_guard turn(idle);
    }
    std::string message;
    try {
      held.lock();
    } catch (const Error& error) {
      message = error.what();
    }
    const bool good = held.abandoned() && !idle.abandoned() &&
                      message == "estimator: the process was forked during a frame; make a new estimator in the child";
    _exit(good ? 0 : 1);
  }
  forked = true;
  holder.join();
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK_FALSE(held.abandoned());
  const std::lock_guard turn(held);
}

#ifndef __SANITIZE_THREAD__  // which lets no child of a process with threads start threads
TEST_CASE("a forked child starts its own threads") {
  Workers workers{ThreadPool(3)};
  CHECK(covers(workers, 100, 1));
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    bool good = covers(workers, 100, 1) && covers(workers, 100, 1);
    {
      Workers made_there{ThreadPool(2)};
      good &= covers(made_there, 100, 1);
    }
    _exit(good ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(covers(workers, 100, 1));
}

TEST_CASE("a forked child starts the threads of a pool once for all of its users, with on_start") {
  std::atomic<int> calls = 0;
  const ThreadPool pool(3, [&](int) { ++calls; });
  Workers first(pool), second(pool);
  CHECK(covers(first, 100, 1));
  CHECK(calls == 2);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    bool good = true;
    {
      Workers made_there(pool);
      good &= covers(second, 100, 1) && covers(made_there, 100, 1) && covers(first, 100, 1);
      good &= calls == 4 && comes_to(3);
    }
    _exit(good ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(calls == 2);
  CHECK(covers(second, 100, 1));
}
#endif
