// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

#include "defocus_fast/error.hpp"
#include "workers.hpp"

namespace defocus_fast {

/// A mutex by which the calls of an estimator run one after the other. In a forked child nobody would give back what
/// another thread of the parent held: there it throws Error instead of waiting.
class Turns {
 public:
  void lock() {
    const std::uint32_t taken = forks() + 1;
    for (std::uint32_t before = 0; !holder_.compare_exchange_strong(before, taken); before = 0) {
      if (before != taken)
        throw Error("estimator: the process was forked during a frame; make a new estimator in the child");
      // What evaluates the networks of a frame on a device is the caller's own code.
      if (thread_ == std::this_thread::get_id())
        throw Error("estimator: called from within one of its own calls, which would wait for itself");
      holder_.wait(before);
    }
    thread_ = std::this_thread::get_id();
  }

  void unlock() {
    thread_ = std::thread::id();
    holder_ = 0;
    holder_.notify_one();
  }

  /// Whether this process was forked while a call was under way: what the call was writing is in no defined state.
  bool abandoned() const {
    const std::uint32_t holder = holder_;
    return holder != 0 && holder != forks() + 1;
  }

 private:
  std::atomic<std::uint32_t> holder_ = 0;  // 0: nobody; otherwise forks() + 1 of the process that holds it
  std::atomic<std::thread::id> thread_;    // that holds it
};

}  // namespace defocus_fast
