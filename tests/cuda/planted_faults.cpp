// SPDX-License-Identifier: Apache-2.0
// Kernels with a fault each, named on the command line: the sanitizer of the build must end this program.
// "none" must pass. tests/cuda/run holds the expected messages.
#include <string_view>
#include <vector>

#include "arena.hpp"
#include "launch.hpp"

using namespace defocus_fast::cuda;

namespace {

enum class Fault : unsigned char { none, global_memory, arena_memory, shared_memory, missing_barrier, blocks };

/// Turns the values of each block around, through shared memory.
__global__ void turn_around(const int* in, int n, Fault fault, int* out) {
  __shared__ int values[block_size];
  const int t = int(threadIdx.x), i = int(thread_index());
  values[t] = i < n || fault == Fault::global_memory ? in[i] : 0;
  if (fault != Fault::missing_barrier) __syncthreads();
  const int from = block_size - 1 - t + (fault == Fault::shared_memory);
  if (i < n + (fault == Fault::arena_memory)) out[i] = values[from];
}

/// A sum of all values, atomic or not.
__global__ void add(const int* in, int n, Fault fault, int* sum) {
  const int i = int(thread_index());
  if (i >= n) return;
  if (fault == Fault::blocks) {
    if (threadIdx.x == blockIdx.x) *sum += in[i];  // one thread of each block, never the same
  } else {
    atomicAdd(sum, in[i]);
  }
}

}  // namespace

int main(int count, char** arguments) {
  const std::string_view name = count > 1 ? arguments[1] : "none";
  const Fault fault = name == "global_memory"     ? Fault::global_memory
                      : name == "arena_memory"    ? Fault::arena_memory
                      : name == "shared_memory"   ? Fault::shared_memory
                      : name == "missing_barrier" ? Fault::missing_barrier
                      : name == "blocks"          ? Fault::blocks
                                                  : Fault::none;
  const int n = 3 * block_size - 5;
  const std::vector<int> in(n, 1);
  Arena arena;
  int *out = nullptr, *sum = nullptr;
  arena.reserve(out, n);
  arena.reserve(sum, 1);
  arena.allocate();
  launch(turn_around, blocks_for(n), block_size, nullptr, in.data(), n, fault, out);
  launch(add, blocks_for(n), block_size, nullptr, in.data(), n, fault, sum);
  return *sum != n;
}
