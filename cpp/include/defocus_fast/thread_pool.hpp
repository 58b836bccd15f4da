// SPDX-License-Identifier: Apache-2.0
// Threads that several estimators share.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "defocus_fast/export.hpp"

namespace defocus_fast {

/// Threads for any number of estimators. Each frame is computed by the thread that calls its estimator and by those of
/// the pool that have nothing else to do: frames of several estimators run side by side, none waits for another's end,
/// and each goes on by its caller alone while the pool is busy elsewhere. A pool's threads go where the fewest are.
///
/// A handle: copies are the same pool, which lives as long as one of them or an estimator made with it. Its functions
/// may be called from any thread. In a forked process the first frame starts the threads again.
class DEFOCUS_FAST_API ThreadPool {
 public:
  /// Starts num_threads - 1 threads, as the caller of a frame is its last one; all cores that this process may use if
  /// it is nothing. The threads are named "defocus_fast", receive no signals, and inherit the affinity, the scheduling
  /// policy and the priority of the thread that calls this.
  ///
  /// `on_start` is called once in each of them, before it computes anything, with an index from 0 to num_threads - 2:
  /// to give it a name, cores or a priority of its own. Several threads call it at the same time. The first exception
  /// of a call comes out here, and no thread is left behind.
  ///
  /// Throws InvalidArgument for a number that is not in [1, 1024], Error where the system starts fewer threads.
  explicit ThreadPool(std::optional<int> num_threads = {}, std::function<void(int index)> on_start = {});
  // Moving copies: there is no handle without a pool.
  ThreadPool(const ThreadPool&);
  ThreadPool& operator=(const ThreadPool&);
  ~ThreadPool();

  /// Threads that a frame runs on at most, its caller included.
  int num_threads() const;

 private:
  friend class Workers;
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace defocus_fast
