// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>

namespace defocus_fast {

/// The threads of one estimator.
class Workers {
 public:
  /// `num_threads` 0 means all cores.
  explicit Workers(int num_threads) : arena_(num_threads > 0 ? num_threads : tbb::task_arena::automatic) {}

  int count() { return arena_.max_concurrency(); }

  /// Calls body(begin, end, slot) on disjoint ranges that cover [0, n), each at least `grain` long but the last;
  /// `slot` in [0, count()) is never in use twice at a time.
  template <class Body>
  void for_ranges(int n, int grain, const Body& body) {
    arena_.execute([&] {
      tbb::parallel_for(0, n / grain + (n % grain != 0), [&](int i) {
        const int begin = i * grain;
        body(begin, begin + std::min(n - begin, grain), tbb::this_task_arena::current_thread_index());
      });
    });
  }

 private:
  tbb::task_arena arena_;
};

}  // namespace defocus_fast
