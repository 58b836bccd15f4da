// SPDX-License-Identifier: Apache-2.0
// What the files compiled once per instruction set hand to each other. DEFOCUS_FAST_VARIANT is "portable", "avx2" or
// "avx512", given by CMake.
#pragma once

#include "kernels.hpp"

namespace defocus_fast::DEFOCUS_FAST_VARIANT {

extern const CannyKernels<float> canny_float;
extern const CannyKernels<double> canny_double;
extern const NetworkKernels<float> networks_float;

}  // namespace defocus_fast::DEFOCUS_FAST_VARIANT
