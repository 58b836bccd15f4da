// SPDX-License-Identifier: Apache-2.0
#include "device.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>

#include "canny.hpp"
#include "defocus_fast/error.hpp"
#include "defocus_fast/version.hpp"
#include "estimator_impl.hpp"
#include "options.hpp"

namespace defocus_fast {

namespace {

std::int32_t max_edges(int height, int width, const Options& options) {
  const std::int32_t pixels = height * width;
  return std::min(options.max_edges.value_or(std::max(4096, pixels / 4)), pixels);
}

cuda::NetworkShapes network_shapes(const Model& model, int height, int width, const Options& options) {
  cuda::NetworkShapes shapes{
      .type = options.precision == Precision::float16 ? cuda::TensorType::float16 : cuda::TensorType::float32,
      .evaluation = options.evaluation};
  // Larger tiles compute fewer features twice, larger batches launch less often, and both cost more memory (tip22's
  // first layer has 390 kB a patch).
  const bool cells = model.architecture == Architecture::cells, patch = options.evaluation == Evaluation::patch;
  if (!cells) shapes.head_batch = std::min(max_edges(height, width, options), patch ? 256 : 16384);
  if (patch) return shapes;
  const int most = cells ? 1536 : 512, margin = network_margin(model);
  // Of the canvas that there is by default, so that the same engines serve other options.
  const int more = grid_period(question_side(model), octave_count(height, width, {})) - 1;
  const int tile_height = tile_side(model, height + more, most), tile_width = tile_side(model, width + more, most);
  shapes.image_height = tile_height + 2 * margin;
  shapes.image_width = tile_width + 2 * margin;
  if (cells) {
    shapes.cell_rows = tile_height / cell;
    shapes.cell_columns = tile_width / cell;
  }
  return shapes;
}

}  // namespace

std::unique_ptr<Device> make_device(const DeviceSetup& setup) {
  const std::filesystem::path file = library_folder() / "libdefocus_fast_cuda.so";
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

/// Frames on the device; the stages are in cuda/estimator.cu.
struct Estimator::Cuda : Impl {
  Cuda(int height_, int width_, const Options& options_, const std::optional<ThreadPool>& pool)
      : Impl(height_, width_, options_, pool, "cuda") {
    if (options.precision == Precision::bfloat16 || options.precision == Precision::int8)
      throw BackendUnavailable(std::string("precision: ") + precision_name(options.precision) +
                               " needs device cpu; accepted on device cuda: float32, float16, auto");
    if (options.precision == Precision::float16) precision = Precision::float16;
    DeviceSetup setup{height,
                      width,
                      options,
                      model,
                      depth_threshold,
                      propagation,
                      learns_distances,
                      period,
                      max_edges(height, width, options),
                      network_shapes(*model, height, width, options)};
    setup.options.canny.smoothing = cpu::smoothing_kernel(options.canny);
    gpu = make_device(setup);
  }

  void run(const ImageView& image, const MapView& out, BlurMap& result, const FrameOptions& frame) override {
    gpu->estimate(image, out, result, frame);
  }
  Device& on_device() override { return *gpu; }

  std::unique_ptr<Device> gpu;
};

std::unique_ptr<Estimator::Impl> Estimator::Impl::on_cuda(int height, int width, const Options& options,
                                                          const std::optional<ThreadPool>& pool) {
  return std::make_unique<Cuda>(height, width, options, pool);
}

cuda::NetworkShapes cuda::network_shapes(int height, int width, const Options& options) {
  check(height, width, options);
  return defocus_fast::network_shapes(*load_model_for(options), height, width, options);
}

}  // namespace defocus_fast
