// SPDX-License-Identifier: Apache-2.0
// The CPU stages on one thread, for comparison: the part of oneTBB that cpp/src/workers.hpp uses, so that these tests
// need no oneTBB and ThreadSanitizer sees no threads that it does not know.
#pragma once

namespace tbb {

class task_arena {
 public:
  static constexpr int automatic = -1;
  explicit task_arena(int) {}
  int max_concurrency() { return 1; }
  template <class Body>
  void execute(const Body& body) {
    body();
  }
};

namespace this_task_arena {
inline int current_thread_index() { return 0; }
}  // namespace this_task_arena

}  // namespace tbb
