// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

namespace defocus_fast::cuda {

/// All device memory of an estimator, one allocation. Stages reserve() in their constructors, then allocate() is
/// called once; nothing is allocated in a frame. The arena outlives the stages' use of it and stages do not move.
class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// allocate() will set `pointer` to `count` zeroed elements on a 256-byte boundary. After them lies a gap, so that
  /// the tests see what is read or written beyond them.
  template <class T>
  void reserve(T*& pointer, std::size_t count) {
    const std::size_t begin = bytes_, end = begin + count * sizeof(T);
    bytes_ = (end + alignment - 1) / alignment * alignment + alignment;
    reservations_.push_back({&pointer, begin, end, bytes_, [](void* variable, void* memory) {
                               *static_cast<T**>(variable) = static_cast<T*>(memory);
                             }});
  }

  /// Throws CudaError where the device has not that much.
  void allocate();

 private:
  static constexpr std::size_t alignment = 256;

  struct Reservation {
    void* variable;
    std::size_t begin, end, next;
    void (*assign)(void* variable, void* memory);
  };
  std::vector<Reservation> reservations_;
  std::size_t bytes_ = 0;
  std::byte* memory_ = nullptr;
};

}  // namespace defocus_fast::cuda
