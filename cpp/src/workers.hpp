// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "defocus_fast/thread_pool.hpp"

namespace defocus_fast {

/// How often this process and those before it were forked since the library was loaded: another number than before
/// means that this is a child, in which the threads of its parent do not run.
std::uint32_t forks();

/// One part of a frame, which threads take range by range.
struct Region {
  int n = 0, grain = 1;
  const void* body = nullptr;
  void (*call)(const void* body, int begin, int end, int slot) = nullptr;

  int ranges() const { return n / grain + (n % grain != 0); }
  void run_range(int i, int slot) const {
    const int begin = i * grain;
    call(body, begin, begin + std::min(n - begin, grain), slot);
  }
};

struct PoolUser;

/// A pool as one of its users sees it, of which each estimator is one.
class Workers {
 public:
  explicit Workers(const ThreadPool& pool);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  /// The calling thread included.
  int count() const { return pool_.num_threads(); }
  /// How many threads can be at work on so many ranges.
  int slots(int n, int grain) const { return std::min(count(), Region{n, grain}.ranges()); }

  /// Calls body(begin, end, slot) on disjoint ranges that cover [0, n), each `grain` long but the last; `slot` in
  /// [0, slots(n, grain)) is never in use twice at a time. Throws the first exception of a body, and then the rest of
  /// the ranges may be left out. Only one call at a time, and none from a body; other users of the pool are not waited
  /// for.
  template <class Body>
  void for_ranges(int n, int grain, const Body& body) {
    run({n, grain, &body, [](const void* context, int begin, int end, int slot) {
           (*static_cast<const Body*>(context))(begin, end, slot);
         }});
  }

 private:
  void run(const Region& region);

  const ThreadPool pool_;
  PoolUser* user_;  // none for one thread
};

}  // namespace defocus_fast
