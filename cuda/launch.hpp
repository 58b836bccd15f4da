// SPDX-License-Identifier: Apache-2.0
// The one place that knows whether kernels are compiled by nvcc or, in the tests, run on the CPU from the same source
// (tests/cuda/emulation.hpp).
#pragma once

#ifdef DEFOCUS_FAST_EMULATION
#include "emulation.hpp"
#else
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#include <cstdint>
#include <string>

#include "defocus_fast/error.hpp"

namespace defocus_fast::cuda {

/// A call of the CUDA runtime failed.
class CudaError : public Error {
 public:
  using Error::Error;
};

inline void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw CudaError(std::string(call) + ": " + cudaGetErrorString(status));
}

/// Threads per block of every kernel that has no reason for another number. No GPU was at hand to measure it: 256 is
/// a multiple of a warp that lets any of the supported architectures fill its multiprocessors.
inline constexpr int block_size = 256;

/// Blocks of `size` that cover n. Grids are one-dimensional: only their x may exceed 65535.
inline unsigned blocks_for(std::int64_t n, int size = block_size) { return unsigned((n + size - 1) / size); }

/// Enqueues `kernel`. Throws CudaError if the launch is refused.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), unsigned grid, int block, cudaStream_t stream,
            const Arguments&... arguments) {
  cudaGetLastError();  // forgets what failed before, such as an allocation, which was told there
#ifdef DEFOCUS_FAST_EMULATION
  (void)stream;
  emulation::run(grid, unsigned(block), [&] { kernel(Parameters(arguments)...); });
#else
  // clang-format off: it splits the closing brackets
  kernel<<<grid, unsigned(block), 0, stream>>>(Parameters(arguments)...);
  // clang-format on
#endif
  check(cudaGetLastError(), "kernel launch");
}

/// Nobody may touch this device memory. A GPU does not know; AddressSanitizer does.
inline void forbid([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) {
#ifdef DEFOCUS_FAST_EMULATION
  emulation::forbid(memory, bytes);
#endif
}

/// The index of this thread in the grid.
__device__ inline std::int64_t thread_index() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }

/// Reads a word that other threads may be changing by atomic operations.
__device__ inline int atomic_load(const int* address) {
#ifdef DEFOCUS_FAST_EMULATION
  return emulation::atomic_load(address);
#else
  return *static_cast<const volatile int*>(address);
#endif
}

}  // namespace defocus_fast::cuda
