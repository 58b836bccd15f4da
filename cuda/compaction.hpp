// SPDX-License-Identifier: Apache-2.0
// Lists those of n elements that pass a test, in their order: count per block, prefix sum of the counts, write. Three
// launches without any wait between blocks, so the list is the same in every run and the grid may be of any size.
#pragma once

#include "launch.hpp"
#include "stages.hpp"

namespace defocus_fast::cuda {

/// Sum of `value` over the threads of the block before this one; `total` is the sum over all of them. Every thread of
/// the block must call it.
__device__ inline int exclusive_sum(int value, int& total) {
  constexpr unsigned all = 0xffffffffu;
  __shared__ int warp_sums[32];
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32), warps = int(blockDim.x / 32);
  int sum = value;
  for (int distance = 1; distance < 32; distance *= 2) {
    const int before = __shfl_up_sync(all, sum, unsigned(distance));
    if (lane >= distance) sum += before;
  }
  __syncthreads();  // the previous call's sums may still be read
  if (lane == 31) warp_sums[warp] = sum;
  __syncthreads();
  int before = 0;
  total = 0;
  for (int w = 0; w < warps; ++w) {
    if (w < warp) before += warp_sums[w];
    total += warp_sums[w];
  }
  return before + sum - value;
}

template <class Keep>
__global__ void count_kept(Keep keep, std::int64_t n, int* counts) {
  const std::int64_t i = thread_index();
  const int count = __syncthreads_count(i < n && keep(i));
  if (threadIdx.x == 0) counts[blockIdx.x] = count;
}

/// counts[i] becomes the sum of those before it. One block: there are n / 256 counts.
static __global__ void sum_counts(int* counts, int blocks, int capacity, EdgeCount* count) {
  int carry = 0;
  for (int begin = 0; begin < blocks; begin += int(blockDim.x)) {
    const int i = begin + int(threadIdx.x);
    int total;
    const int before = exclusive_sum(i < blocks ? counts[i] : 0, total);
    if (i < blocks) counts[i] = carry + before;
    carry += total;
  }
  if (threadIdx.x == 0) *count = {carry, carry < capacity ? carry : capacity};
}

template <class Keep, class Write>
__global__ void write_kept(Keep keep, Write write, std::int64_t n, const int* counts) {
  const std::int64_t i = thread_index();
  const bool kept = i < n && keep(i);
  int total;
  const int position = counts[blockIdx.x] + exclusive_sum(kept, total);
  if (kept) write(position, i);
}

/// Counts those that are kept. `counts`: of blocks_for(n) integers, which say then how many are kept before each block.
template <class Keep>
void count(const Keep& keep, std::int64_t n, int capacity, int* counts, EdgeCount* count, Stream stream) {
  const unsigned blocks = blocks_for(n);
  launch(count_kept<Keep>, blocks, block_size, stream, keep, n, counts);
  launch(sum_counts, 1, 1024, stream, counts, int(blocks), capacity, count);
}

/// After count(): calls write(position in the list, element) for every element that is kept.
template <class Keep, class Write>
void write(const Keep& keep, const Write& write, std::int64_t n, const int* counts, Stream stream) {
  launch(write_kept<Keep, Write>, blocks_for(n), block_size, stream, keep, write, n, counts);
}

}  // namespace defocus_fast::cuda
