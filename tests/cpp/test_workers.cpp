// SPDX-License-Identifier: Apache-2.0
#include "workers.hpp"

#include <doctest/doctest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
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
#endif
