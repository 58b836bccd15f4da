// SPDX-License-Identifier: Apache-2.0
#include "device.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>

#include "defocus_fast/error.hpp"
#include "defocus_fast/version.hpp"

namespace defocus_fast {

cuda::NetworkShapes network_shapes(const Model& model, int height, int width, const Options& options) {
  const auto type = options.precision == Precision::float16 ? cuda::TensorType::float16 : cuda::TensorType::float32;
  // Larger tiles compute fewer features twice, larger batches launch less often, and both cost more memory (tip22's
  // first layer has 390 kB a patch).
  if (options.evaluation == Evaluation::patch) return {type, 0, 0, std::min(options.max_edges, 256), Evaluation::patch};
  const bool cells = model.architecture == Architecture::cells;
  const int most = cells ? 1536 : 512, most_edges = cells ? 65536 : 16384, margin = network_margin(model);
  return {type, tile_side(model, height, most) + 2 * margin, tile_side(model, width, most) + 2 * margin,
          std::min(options.max_edges, most_edges), Evaluation::shared};
}

std::unique_ptr<Device> make_device(const DeviceSetup& setup) {
  Dl_info library{};
  dladdr(reinterpret_cast<const void*>(&network_shapes), &library);
  const std::filesystem::path file =
      std::filesystem::canonical(library.dli_fname).parent_path() / "libdefocus_fast_cuda.so";
  if (!std::filesystem::exists(file))
    throw BackendUnavailable("device: the CUDA part of this library is missing: " + file.string() +
                             "; build with -DDEFOCUS_FAST_CUDA=ON (needs nvcc 13, see CONTRIBUTING.md)");
  void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  void* const make = handle ? dlsym(handle, "defocus_fast_make_device") : nullptr;
  if (make == nullptr)
    throw BackendUnavailable("device: the CUDA part of this library cannot be loaded: " + std::string(dlerror()));
  return std::unique_ptr<Device>(
      reinterpret_cast<decltype(&defocus_fast_make_device)>(make)(DEFOCUS_FAST_VERSION, setup));
}

}  // namespace defocus_fast
