// SPDX-License-Identifier: Apache-2.0
#include "arena.hpp"

#include "launch.hpp"

namespace defocus_fast::cuda {

Arena::~Arena() { cudaFree(memory_); }

void Arena::allocate() {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes_), ("cudaMalloc of " + std::to_string(bytes_) + " bytes").c_str());
  memory_ = static_cast<std::byte*>(memory);
  check(cudaMemset(memory_, 0, bytes_), "cudaMemset");
  for (const Reservation& reservation : reservations_) {
    reservation.assign(reservation.variable, memory_ + reservation.begin);
    forbid(memory_ + reservation.end, reservation.next - reservation.end);
  }
  reservations_.clear();
}

}  // namespace defocus_fast::cuda
