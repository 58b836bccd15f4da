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

  /// allocate() will set `pointer` to `count` zeroed elements on a 256-byte boundary.
  template <class T>
  void reserve(T*& pointer, std::size_t count) {
    reservations_.push_back({&pointer, bytes_, [](void* variable, void* memory) {
                               *static_cast<T**>(variable) = static_cast<T*>(memory);
                             }});
    bytes_ += (count * sizeof(T) + alignment - 1) / alignment * alignment;
  }

  /// Throws CudaError where the device has not that much.
  void allocate();

 private:
  static constexpr std::size_t alignment = 256;

  struct Reservation {
    void* variable;
    std::size_t offset;
    void (*assign)(void* variable, void* memory);
  };
  std::vector<Reservation> reservations_;
  std::size_t bytes_ = 0;
  std::byte* memory_ = nullptr;
};

}  // namespace defocus_fast::cuda
