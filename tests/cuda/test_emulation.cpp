// SPDX-License-Identifier: Apache-2.0
// The emulation does what a GPU does, and refuses what a GPU would hang on. Faults that a sanitizer must find are in
// planted_faults.cpp.
#include <doctest/doctest.h>

#include <numeric>
#include <string>
#include <vector>

#include "arena.hpp"
#include "launch.hpp"

using namespace defocus_fast::cuda;
namespace emulation = defocus_fast::emulation;

namespace {

constexpr unsigned all = 0xffffffffu;

__global__ void write_indices(int* out) { out[thread_index()] = int(thread_index()); }

__global__ void warp_sums(const int* in, int* out, unsigned* ballots) {
  int sum = in[thread_index()];
  const unsigned odd = __ballot_sync(all, sum & 1);
  for (int distance = 1; distance < 32; distance *= 2) {
    const int before = __shfl_up_sync(all, sum, unsigned(distance));
    if (int(threadIdx.x % 32) >= distance) sum += before;
  }
  out[thread_index()] = sum;
  if (threadIdx.x % 32 == 0) ballots[thread_index() / 32] = odd;
}

__global__ void turn_around(int* values) {
  __shared__ int copy[256];
  copy[threadIdx.x] = values[threadIdx.x];
  const int odd = __syncthreads_count(values[threadIdx.x] & 1);
  values[threadIdx.x] = copy[blockDim.x - 1 - threadIdx.x] + odd;
}

__global__ void smallest(const int* in, int* out) { atomicMin(out, in[thread_index()]); }

__global__ void end_before_barrier() {
  if (threadIdx.x == 7) return;
  __syncthreads();
}

__global__ void different_barriers() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}

__global__ void shuffle_without_lane() {
  if (threadIdx.x % 32 == 3) return;
  __shfl_up_sync(all, 1, 1);
}

__global__ void shuffle_while_others_wait() {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    __shfl_up_sync(all, 1, 1);
}

__global__ void foreign_mask() { __ballot_sync(1u, 1); }

__global__ void read_outside_mask() {
  if (threadIdx.x % 32 >= 16) __shfl_up_sync(0xffff0000u, 1, 1);
}

void check_fault(void (*kernel)(), const char* message) {
  std::string what;
  try {
    launch(kernel, 2, 64, nullptr);
  } catch (const emulation::Fault& fault) {
    what = fault.what();
  }
  CHECK_MESSAGE(what.find(message) != std::string::npos, what);
  std::vector<int> out(640, -1);  // and the next launch is not harmed
  launch(write_indices, 5, 128, nullptr, out.data());
  for (int i = 0; i < 640; ++i) CHECK(out[std::size_t(i)] == i);
}

}  // namespace

TEST_CASE("every thread of the grid runs once") {
  std::vector<int> out(7 * 96, -1);
  launch(write_indices, 7, 96, nullptr, out.data());
  for (int i = 0; i < 7 * 96; ++i) CHECK(out[std::size_t(i)] == i);
}

TEST_CASE("shuffles, ballots, barriers and atomic operations") {
  std::vector<int> in(256), out(256);
  for (int i = 0; i < 256; ++i) in[std::size_t(i)] = i * 37 % 101;
  std::vector<unsigned> ballots(8);
  launch(warp_sums, 2, 128, nullptr, in.data(), out.data(), ballots.data());
  for (std::size_t i = 0; i < 256; ++i) {
    const auto warp = in.begin() + std::ptrdiff_t(i / 32 * 32);
    CHECK(out[i] == std::accumulate(warp, in.begin() + std::ptrdiff_t(i) + 1, 0));
    CHECK((ballots[i / 32] >> i % 32 & 1) == unsigned(in[i] % 2));
  }
  int least = 1000;
  launch(smallest, 2, 128, nullptr, in.data(), &least);
  CHECK(least == 0);
  std::vector<int> turned = in;
  launch(turn_around, 1, 256, nullptr, turned.data());
  int odd = 0;
  for (const int value : in) odd += value % 2;
  for (std::size_t i = 0; i < 256; ++i) CHECK(turned[i] == in[255 - i] + odd);
}

TEST_CASE("what hangs or is undefined on a GPU is refused") {
  check_fault(end_before_barrier, "have ended while others wait at a barrier");
  check_fault(different_barriers, "different barriers");
  check_fault(shuffle_without_lane, "names a lane that has ended");
  check_fault(shuffle_while_others_wait, "threads wait at a warp operation that others never reach");
  check_fault(foreign_mask, "whose mask it is not in");
  check_fault(read_outside_mask, "outside its mask");
}

TEST_CASE("launches beyond the limits are refused") {
  int out = 0;
  CHECK_THROWS_AS(launch(write_indices, 0, 32, nullptr, &out), emulation::Fault);
  CHECK_THROWS_AS(launch(write_indices, 1, 1025, nullptr, &out), emulation::Fault);
}

TEST_CASE("the arena gives zeroed, aligned, separate memory in one allocation, or says how much was wanted") {
  float* floats = nullptr;
  std::uint8_t* bytes = nullptr;
  {
    Arena arena;
    arena.reserve(floats, 3);
    arena.reserve(bytes, 300);
    const int before = emulation::allocations();
    arena.allocate();
    CHECK(emulation::allocations() == before + 1);
    CHECK(reinterpret_cast<std::uint8_t*>(floats) + 512 == bytes);  // with a gap
    CHECK(floats[2] == 0.0f);
    CHECK(bytes[299] == 0);
  }
  Arena arena;
  arena.reserve(floats, 100);
  emulation::fail_next_allocation();
  CHECK_THROWS_WITH_AS(arena.allocate(), "cudaMalloc of 768 bytes: out of memory", CudaError);
}
