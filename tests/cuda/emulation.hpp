// SPDX-License-Identifier: Apache-2.0
// Runs CUDA kernels on the CPU from their own source, for tests. A block's threads are fibers of one OS thread that
// run until they wait; blocks run one after another, and so do the launches of several OS threads. Device memory is
// host memory and streams are eager.
//
// The environment variable EMULATION_ORDER is "forward" (default), "reverse" or a number, the seed of a random order of
// blocks and threads in which threads are also interrupted at atomic operations. Under ThreadSanitizer each CUDA
// thread is a thread of its own to it: what no barrier orders is a race. It sees races between blocks only in
// kernels without barriers, because blocks share the memory of their __shared__ variables here.
// What this cannot show: tensor cores, textures, stream order, capture, contraction of multiply-adds, speed.
#pragma once

#include <math.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __shared__ static  // one OS thread and one block at a time; the sanitizers guard static variables

struct Index3 {
  unsigned x, y, z;
};
extern Index3 threadIdx, blockIdx, blockDim, gridDim;  // only x is ever used

namespace defocus_fast::emulation {

/// A kernel did what hangs or is undefined on a GPU. The block's other threads are abandoned.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Thrown away with the launch that failed. Launches of no block or of too many threads throw Fault as well.
void run_grid(unsigned grid, unsigned block, void (*body)(const void*), const void* context);
template <class Body>
void run(unsigned grid, unsigned block, const Body& body) {
  run_grid(grid, block, [](const void* context) { (*static_cast<const Body*>(context))(); }, &body);
}

enum class WarpOperation : std::uint8_t { shuffle_up, ballot };
/// All threads of the warp that `mask` names meet here.
std::uint64_t exchange(WarpOperation operation, unsigned mask, std::uint64_t value, unsigned distance);
/// Returns the number of threads of the block that came with `predicate`. `line` tells barriers apart.
int barrier(bool predicate, const char* file, int line);
/// A place where another thread may run first.
void interrupt();

int allocations();  // calls of cudaMalloc so far
void fail_next_allocation();
/// AddressSanitizer ends the program where this memory is touched, until it is freed.
void forbid(void* memory, std::size_t bytes);

inline int atomic_load(const int* address) {
  interrupt();
  return __atomic_load_n(address, __ATOMIC_RELAXED);
}

}  // namespace defocus_fast::emulation

#define __syncthreads() ((void)defocus_fast::emulation::barrier(false, __FILE__, __LINE__))
#define __syncthreads_count(predicate) defocus_fast::emulation::barrier(predicate, __FILE__, __LINE__)

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t) && std::is_trivially_copyable_v<T>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = defocus_fast::emulation::exchange(defocus_fast::emulation::WarpOperation::shuffle_up, mask, bits, distance);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return unsigned(
      defocus_fast::emulation::exchange(defocus_fast::emulation::WarpOperation::ballot, mask, predicate != 0, 0));
}

inline int atomicMin(int* address, int value) {
  defocus_fast::emulation::interrupt();
  int old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value < old && !__atomic_compare_exchange_n(address, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

inline unsigned long long atomicMax(unsigned long long* address, unsigned long long value) {
  defocus_fast::emulation::interrupt();
  unsigned long long old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value > old && !__atomic_compare_exchange_n(address, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

inline int atomicAdd(int* address, int value) {
  defocus_fast::emulation::interrupt();
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

using __half = _Float16;
inline float __half2float(__half value) { return float(value); }
inline __half __float2half_rn(float value) { return __half(value); }

// The part of the runtime that the library may call in a frame or to make its memory. There is no call that waits for
// the device, so a stage that did would not compile here.
using cudaError_t = int;
enum : int {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorSystemDriverMismatch = 803
};
using cudaStream_t = struct CUstream_st*;
cudaError_t cudaMalloc(void** memory, std::size_t bytes);
cudaError_t cudaFree(void* memory);
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation         ? "out of memory"
         : error == cudaErrorSystemDriverMismatch   ? "system has unsupported display driver / cuda driver combination"
         : error == cudaErrorNoKernelImageForDevice ? "no kernel image is available for execution on the device"
                                                    : "no error";
}
cudaError_t cudaGetLastError();  // of the thread's last call that failed; like CUDA's, calls that succeed leave it
inline cudaError_t cudaMemset(void* memory, int value, std::size_t bytes) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t) {
  return cudaMemset(memory, value, bytes);
}

/// Fails on a device of compute capability 11, of which cuda/CMakeLists.txt has no kernels: its PTX is for 12.0 and
/// newer.
struct cudaFuncAttributes {};
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel);
template <class... Parameters>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void (*kernel)(Parameters...)) {
  return cudaFuncGetAttributes(attributes, reinterpret_cast<const void*>(kernel));
}

// An event is a time of the host, since streams are eager; there is no capture.
using cudaEvent_t = std::chrono::steady_clock::time_point*;
inline constexpr unsigned cudaEventRecordDefault = 0, cudaEventRecordExternal = 1;
enum cudaStreamCaptureMode : int { cudaStreamCaptureModeRelaxed = 2 };
inline cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }
enum cudaStreamCaptureStatus : int { cudaStreamCaptureStatusNone = 0 };
inline cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
inline cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new std::chrono::steady_clock::time_point();
  return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t, unsigned) {
  *event = std::chrono::steady_clock::now();
  return cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) {
  *ms = std::chrono::duration<float, std::milli>(*end - *begin).count();
  return cudaSuccess;
}

// For the files that may.
#ifdef DEFOCUS_FAST_WAITS_FOR_DEVICE
enum cudaMemcpyKind : int { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum cudaDeviceAttr : int { cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76 };
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
inline cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                                     std::size_t width, std::size_t height, cudaMemcpyKind, cudaStream_t) {
  for (std::size_t y = 0; y < height; ++y)
    std::memcpy(static_cast<char*>(to) + y * to_pitch, static_cast<const char*>(from) + y * from_pitch, width);
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
/// The environment variable EMULATION_DEVICE is "major.minor" of the device (default 9.0), after which may stand "no
/// memory", or "no driver", "other driver" or "no device".
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
/// The environment variable EMULATION_GPU is the name of the device (default "Emulated GPU").
struct cudaDeviceProp {
  char name[256];
};
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
/// The environment variable EMULATION_MEMORY is the GPU that all memory is said to belong to (default 0), or "unknown".
enum cudaMemoryType : int { cudaMemoryTypeUnregistered = 0, cudaMemoryTypeDevice = 2 };
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory);
#endif
