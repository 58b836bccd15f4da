// SPDX-License-Identifier: Apache-2.0
// Elements of the networks' inputs and outputs.
#pragma once

#include "../cpp/src/formulas.hpp"
#include "defocus_fast/networks.hpp"
#include "launch.hpp"

namespace defocus_fast::cuda {

__device__ inline void store(float value, float* out) { *out = value; }
__device__ inline void store(float value, __half* out) { *out = __float2half_rn(value); }
DEFOCUS_FAST_HOST_DEVICE inline float widen(float value) { return value; }
DEFOCUS_FAST_HOST_DEVICE inline float widen(__half value) { return __half2float(value); }

/// Calls use(Value{}) with the type of the tensors' elements.
template <class Use>
void for_tensor_type(TensorType type, const Use& use) {
  if (type == TensorType::float32)
    use(float{});
  else
    use(__half{});
}

}  // namespace defocus_fast::cuda
