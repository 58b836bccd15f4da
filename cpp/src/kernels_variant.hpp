// SPDX-License-Identifier: Apache-2.0
// What the files compiled once per instruction set hand to each other. DEFOCUS_FAST_VARIANT is their name,
// "avx2" for example, given by CMake.
#pragma once

#include "kernels.hpp"

namespace defocus_fast::DEFOCUS_FAST_VARIANT {

#if defined(__AVX512F__)
constexpr int vector_floats = 16;
#elif defined(__AVX2__)
constexpr int vector_floats = 8;
#else
constexpr int vector_floats = 4;
#endif
// Attributes before the "=": behind it, Clang ignores "aligned".
using Floats __attribute__((vector_size(vector_floats * sizeof(float)), aligned(4), may_alias)) = float;

extern const CannyKernels<float> canny_float;
extern const CannyKernels<double> canny_double;
extern const NetworkKernels<float> networks_float;

}  // namespace defocus_fast::DEFOCUS_FAST_VARIANT
