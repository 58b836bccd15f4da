// SPDX-License-Identifier: Apache-2.0
// The public estimator: checks, turns, and the choice of the device.
#include "defocus_fast/estimator.hpp"

#include <mutex>
#include <utility>

#include "defocus_fast/error.hpp"
#include "defocus_fast/version.hpp"
#include "estimator_impl.hpp"
#include "image.hpp"
#include "options.hpp"

namespace defocus_fast {

namespace {

const Options& checked(int height, int width, const Options& options) {
  check(height, width, options);
  return options;
}

ThreadPool pool_for(const Options& options, const std::optional<ThreadPool>& given) {
  if (!given) return ThreadPool(options.num_threads);
  if (options.num_threads.value_or(given->num_threads()) != given->num_threads())
    throw InvalidArgument("num_threads: expected none or that of the thread pool, " +
                          std::to_string(given->num_threads()) + ", got " + std::to_string(*options.num_threads));
  return *given;
}

bool hard(const Options& options) { return options.labels == Labels::hard; }

/// What Options::distances comes to.
bool learns(const Options& options, const Model& model, const Propagation& propagation, bool of_video) {
  // A video's edges are those of many frames, of which the network would see those that were read last.
  const char* const missing = !model.learns_distances() ? "a model that has the network"
                              : hard(options)           ? "labels posterior"
                              : propagation.octave == 0 ? "more than one octave"
                              : of_video                ? "images that are no frames of a video"
                                                        : nullptr;
  if (options.distances == Distances::learned && missing)
    throw InvalidArgument(std::string("distances: learned needs ") + missing + "; accepted: domain_transform, auto");
  return options.distances != Distances::domain_transform && !missing;
}

/// What Options::grid comes to: the period, in px.
int period_for(const Options& options, const Model& model, int octaves, bool of_video) {
  const char* const missing = octaves == 1 ? "more than one octave"
                              : of_video   ? "images that are no frames of a video"
                                           : nullptr;
  if (options.grid == Grid::anchored && missing)
    throw InvalidArgument(std::string("grid: anchored needs ") + missing + "; accepted: corner, auto");
  return options.grid == Grid::corner || missing ? 1 : grid_period(question_side(model), octaves);
}

}  // namespace

std::shared_ptr<const Model> load_model_for(const Options& options) {
  auto model = load_model(options.model);
  if (model->architecture == Architecture::cells && options.evaluation == Evaluation::patch)
    throw InvalidArgument("evaluation: model \"" + model->name + "\" has no patch networks; accepted: shared");
  if (options.precision == Precision::int8 && model->ranges.empty())
    throw ModelError("model: \"" + model->name +
                     "\" has no int8_ranges, which precision int8 needs; see training/README.md");
  return model;
}

Estimator::Impl::Impl(int height_, int width_, const Options& options_, const std::optional<ThreadPool>& pool,
                      const char* device_, bool of_video)
    : height(height_),
      width(width_),
      options(checked(height_, width_, options_)),
      device(device_),
      kernels(select_kernels(options.kernels.c_str())),
      workers(pool_for(options, pool)),
      model(load_model_for(options)),
      depth_threshold(options.depth_threshold.value_or(hard(options) ? 0.5 : model->depth_threshold)),
      // As in the paper for hard labels.
      propagation(resolve(options.guide, options.propagation, hard(options) ? 3.75 : model->sigma_r,
                          hard(options) ? 5 : model->iterations, height, width,
                          octave_count(height, width, options.octaves))),
      learns_distances(learns(options, *model, propagation, of_video)),
      period(period_for(options, *model, octave_count(height, width, options.octaves), of_video)),
      canvas_height(height + period - 1),
      canvas_width(width + period - 1) {}

void Estimator::Impl::estimate(const ImageView& image, const MapView& out, BlurMap& result, const FrameOptions& frame) {
  check_out(out, "out", height, width);
  checked_run(image, out, result, frame);
}

void Estimator::Impl::estimate_reduced(const ImageView& image, const FrameOptions& frame) {
  FrameOptions only_maps = frame;
  only_maps.expected_error = true;
  only_maps.bin_probabilities = false;
  checked_run(image, {}, scratch, only_maps);
}

void Estimator::Impl::checked_run(const ImageView& image, const MapView& out, BlurMap& result,
                                  const FrameOptions& frame) {
  cpu::check_layout(image, "image");
  check_size(image, "image", height, width);
  check(frame, height, width);
  cpu::check_range(image, "image", 0, 1, workers);
  result.height = height;
  result.width = width;
  result.stage_ms.fill(0);
  run(image, out, result, frame);
}

void Estimator::Impl::estimate_into(const ImageView& image, const MapView& out, const FrameOptions& frame) {
  FrameOptions only_map = frame;
  only_map.expected_error = only_map.bin_probabilities = false;
  estimate(image, out, scratch, only_map);
}

void Estimator::Impl::estimate(const ImageView& image, BlurMap& result, const FrameOptions& frame) {
  result.map.resize(std::size_t(height) * std::size_t(width));
  estimate(image, {result.map.data(), height, width, width * std::ptrdiff_t{sizeof(float)}}, result, frame);
}

Device& Estimator::Impl::on_device() {
  throw BackendUnavailable("device: views of device memory need device cuda, this estimator's is " + device);
}

Estimator::Estimator(int height, int width, const Options& options, const std::optional<ThreadPool>& pool) {
  if (options.device != "cpu") try {
      // What only the CPU has is not asked of a GPU that nobody asked for.
      const bool only_cpu = options.precision == Precision::bfloat16 || options.precision == Precision::int8;
      if (options.device == "cuda" || !only_cpu) impl_ = Impl::on_cuda(height, width, options, pool);
    } catch (const BackendUnavailable&) {
      if (options.device == "cuda") throw;
    }
  if (!impl_) impl_ = Impl::on_cpu(height, width, options, pool);
}
Estimator::Estimator(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Estimator::~Estimator() {
  // What a frame was writing when the process was forked is left as it is.
  if (impl_ && impl_->turns.abandoned()) static_cast<void>(impl_.release());
}
Estimator::Estimator(Estimator&&) noexcept = default;
Estimator& Estimator::operator=(Estimator&& other) noexcept {
  Estimator before(std::move(other));
  std::swap(impl_, before.impl_);
  return *this;
}

Estimator::Impl& Estimator::impl() const {
  if (!impl_) throw InvalidArgument("estimator: it was moved from");
  return *impl_;
}

void Estimator::estimate_into(const ImageView& image, const MapView& out, const FrameOptions& frame) {
  const std::lock_guard turn(impl().turns);
  impl().estimate_into(image, out, frame);
}

void Estimator::estimate(const ImageView& image, BlurMap& result, const FrameOptions& frame) {
  const std::lock_guard turn(impl().turns);
  impl().estimate(image, result, frame);
}

void Estimator::enqueue(const ImageView& image, const MapView& out, cuda::Stream stream, const MapView& expected_error,
                        const FrameOptions& frame) {
  const std::lock_guard turn(impl().turns);
  Device& device = impl().on_device();
  cpu::check_layout(image, "image");
  check_size(image, "image", impl().height, impl().width);
  check(frame, impl().height, impl().width);
  check_out(out, "out", impl().height, impl().width);
  if (expected_error.data) check_out(expected_error, "expected_error", impl().height, impl().width);
  device.enqueue({image, frame.edges, frame.edge_stride, out, expected_error}, stream);
}

EdgeCount Estimator::edge_count(cuda::Stream stream) {
  const std::lock_guard turn(impl().turns);
  return impl().on_device().edge_count(stream);
}

std::shared_ptr<float> Estimator::make_map() { return impl().on_device().make_map(); }
void Estimator::order(cuda::Stream before, cuda::Stream after) { impl().on_device().order(before, after); }
int Estimator::gpu() const { return impl().on_device().gpu(); }

int Estimator::height() const { return impl().height; }
int Estimator::width() const { return impl().width; }
int Estimator::num_threads() const { return impl().workers.count(); }
const std::string& Estimator::device() const { return impl().device; }
const char* Estimator::precision() const { return precision_name(impl().precision); }
const char* Estimator::kernels() const { return impl().kernels.name; }
const std::string& Estimator::model() const { return impl().model->name; }
const std::vector<float>& Estimator::radius_bins() const { return impl().model->radius_bins; }

std::vector<std::pair<std::string, std::string>> build_config() {
  std::string kernels;
  for (const std::string& name : available_kernels()) kernels += (kernels.empty() ? "" : ", ") + name;
  return {{"version", DEFOCUS_FAST_VERSION},
          {"compiler", DEFOCUS_FAST_COMPILER},
          {"cuda", DEFOCUS_FAST_CUDA_PART},
          {"kernels", kernels}};
}

}  // namespace defocus_fast
