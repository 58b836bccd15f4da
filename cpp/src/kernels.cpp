// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"

#include <array>
#include <cstring>
#include <string>

#ifdef DEFOCUS_FAST_NEON
#include <sys/auxv.h>
#endif

#include "defocus_fast/error.hpp"
#include "defocus_fast/estimator.hpp"

namespace defocus_fast {

#ifdef DEFOCUS_FAST_NEON
namespace neon {
extern const Kernels kernels;
}
namespace neonbf16 {
extern const NetworkKernels<std::uint16_t> networks_bf16;
}
#else
namespace portable {
extern const Kernels kernels;
}
#endif
#ifdef DEFOCUS_FAST_X86
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
namespace avx512bf16 {
extern const NetworkKernels<std::uint16_t> networks_bf16;
}
namespace avx512vnni {
extern const NetworkKernels<std::uint8_t> networks_int8;
}
#endif

namespace {

struct Variant {
  const Kernels* kernels;
  bool (*runs_here)();
};

// Widest first; the last ones run on every CPU that the library is built for. The features asked for are those that
// CMake compiles each variant with.
const std::array variants{
#ifdef DEFOCUS_FAST_X86
    Variant{&avx512::kernels,
            [] {
              return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                     __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
            }},
    Variant{&avx2::kernels, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#endif
#ifdef DEFOCUS_FAST_NEON
    Variant{&neon::kernels, [] { return true; }},
#else
    Variant{&portable::kernels, [] { return true; }},
#endif
};

}  // namespace

const Kernels& select_kernels(const char* name) {
  std::string known = "auto";
  for (const Variant& variant : variants) {
    const bool automatic = std::strcmp(name, "auto") == 0;
    if (automatic ? variant.runs_here() : std::strcmp(name, variant.kernels->name) == 0) {
      if (!variant.runs_here()) throw BackendUnavailable("kernels: this CPU does not run \"" + std::string(name) + '"');
      return *variant.kernels;
    }
    known += std::string(", ") + variant.kernels->name;
  }
  throw InvalidArgument("kernels: expected one of " + known + ", got \"" + name + '"');
}

const NetworkKernels<std::uint16_t>* bf16_networks([[maybe_unused]] const Kernels& kernels) {
#ifdef DEFOCUS_FAST_X86
  if (&kernels == &avx512::kernels && __builtin_cpu_supports("avx512bf16")) return &avx512bf16::networks_bf16;
#endif
#ifdef DEFOCUS_FAST_NEON
  constexpr unsigned long hwcap2_bf16 = 1 << 14;  // older C libraries have no name for it
  if (getauxval(AT_HWCAP2) & hwcap2_bf16) return &neonbf16::networks_bf16;
#endif
  return nullptr;
}

const NetworkKernels<std::uint8_t>* int8_networks([[maybe_unused]] const Kernels& kernels) {
#ifdef DEFOCUS_FAST_X86
  if (&kernels == &avx512::kernels && __builtin_cpu_supports("avx512vnni")) return &avx512vnni::networks_int8;
#endif
  return nullptr;
}

std::vector<std::string> available_kernels() {
  std::vector<std::string> names;
  for (const Variant& variant : variants)
    if (variant.runs_here()) names.emplace_back(variant.kernels->name);
  return names;
}

}  // namespace defocus_fast
