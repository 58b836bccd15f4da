// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

namespace defocus_fast {

/// How often this process and those before it were forked since the library was loaded: another number than before
/// means that this is a child, in which the threads of its parent do not run.
std::uint32_t forks();

/// The threads of one estimator. Regions of a frame are short, down to a tenth of a millisecond, and follow each other
/// closely: threads that wait spin for a moment before they sleep. They receive no signals, are named "defocus_fast",
/// and inherit the affinity, the scheduling policy and the priority of who makes them.
class Workers {
 public:
  /// `num_threads` 0 means all cores that this process may run on. Throws Error if threads cannot be started.
  explicit Workers(int num_threads);
  ~Workers();

  /// The calling thread included.
  int count() const { return count_; }
  /// How many threads can be at work on so many ranges.
  int slots(int n, int grain) const { return std::min(count_, Region{n, grain}.ranges()); }

  /// Calls body(begin, end, slot) on disjoint ranges that cover [0, n), each `grain` long but the last; `slot` in
  /// [0, slots(n, grain)) is never in use twice at a time. Throws the first exception of a body, and then the rest of
  /// the ranges may be left out. Only one call at a time, and none from a body.
  template <class Body>
  void for_ranges(int n, int grain, const Body& body) {
    run({n, grain, &body, [](const void* context, int begin, int end, int slot) {
           (*static_cast<const Body*>(context))(begin, end, slot);
         }});
  }

 private:
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
  class Pool;

  void run(const Region& region);

  const int count_;
  std::unique_ptr<Pool> pool_;  // none for one thread
};

}  // namespace defocus_fast
