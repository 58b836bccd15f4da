// SPDX-License-Identifier: Apache-2.0
#include "defocus_fast/estimator.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>
#include <variant>

#include "defocus_fast/error.hpp"
#include "defocus_fast/version.hpp"
#include "device.hpp"
#include "formulas.hpp"
#include "stages.hpp"

namespace defocus_fast {

namespace {

/// Adds the time until its end to one stage.
class StageTimer {
 public:
  StageTimer(BlurMap& result, Stage stage) : ms_(result.stage_ms[std::size_t(stage)]) {}
  ~StageTimer() { ms_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count(); }
  StageTimer(const StageTimer&) = delete;
  StageTimer& operator=(const StageTimer&) = delete;

 private:
  double& ms_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

const char* precision_name(Precision precision) {
  constexpr std::array names{"auto", "float32", "bfloat16", "float16", "int8"};
  return names[std::size_t(precision)];
}

std::string size_text(int height, int width) { return std::to_string(height) + " x " + std::to_string(width); }

void check_pointer(const void* data, const char* name) {
  if (data == nullptr) throw InvalidArgument(std::string(name) + ": expected a pointer to pixels, got null");
}

template <class View>
void check_size(const View& view, const char* name, int height, int width) {
  check_pointer(view.data, name);
  if (view.height != height || view.width != width)
    throw InvalidArgument(std::string(name) + ": expected height x width " + size_text(height, width) + ", got " +
                          size_text(view.height, view.width));
  if constexpr (!std::is_same_v<View, ImageView>)
    cpu::check_addresses(name, view.data, sizeof(*view.data),
                         {{height, view.pitch_bytes}, {width, view.pixel_stride_bytes}});
}

/// Throws InvalidArgument unless every pixel of `out` has memory of its own.
void check_out(const MapView& out, const char* name, int height, int width) {
  check_size(out, name, height, width);
  const std::int64_t size = sizeof(float), row = height == 1 ? 0 : std::abs(std::int64_t{out.pitch_bytes}),
                     pixel = width == 1 ? 0 : std::abs(std::int64_t{out.pixel_stride_bytes});
  const bool apart =
      (width == 1 || pixel >= size) && (height == 1 || row >= size) &&
      (width == 1 || height == 1 || row >= pixel * (width - 1) + size || pixel >= row * (height - 1) + size);
  if (!apart)
    throw InvalidArgument(std::string(name) + ": expected pixels that do not overlap in memory, got strides of " +
                          std::to_string(out.pitch_bytes) + " and " + std::to_string(out.pixel_stride_bytes) +
                          " bytes");
}

int check_threads(int num_threads) {
  if (num_threads < 0 || num_threads > 1024)
    throw InvalidArgument("num_threads: expected 0 (all cores) to 1024, got " + std::to_string(num_threads));
  return num_threads;
}

/// The options with their defaults filled in.
Options check(int height, int width, Options options) {
  if (std::min(height, width) < 1 || std::max(height, width) > cpu::most_side ||
      std::int64_t{height} * width > std::numeric_limits<std::int32_t>::max())
    throw InvalidArgument(
        "size: expected sides of 1 to 1073741824 px and at most 2147483647 pixels, got height x width " +
        size_text(height, width));
  if (options.device != "auto" && options.device != "cpu" && options.device != "cuda")
    throw InvalidArgument("device: expected auto, cpu or cuda, got \"" + options.device + '"');
  if (options.depth_threshold && !(*options.depth_threshold >= 0 && *options.depth_threshold <= 1))
    throw InvalidArgument("depth_threshold: expected [0, 1], got " + std::to_string(*options.depth_threshold));
  const bool hard = options.labels == Labels::hard;
  if (options.propagation.sigma_r == 0) options.propagation.sigma_r = hard ? 3.75 : 0.5;
  if (options.propagation.iterations == 0) options.propagation.iterations = hard ? 5 : 3;
  const std::int32_t pixels = height * width;
  if (options.edge_stride < 1 || options.edge_stride > 16)
    throw InvalidArgument("edge_stride: expected 1 to 16, got " + std::to_string(options.edge_stride));
  if (options.max_edges < 0)
    throw InvalidArgument("max_edges: expected >= 0, got " + std::to_string(options.max_edges));
  if (options.max_edges == 0) options.max_edges = std::max(4096, pixels / 4);
  options.max_edges = std::min(options.max_edges, pixels);
  check_threads(options.num_threads);
  cpu::check(options.propagation, height, width);
  return options;
}

Precision choose(Precision precision, bool bfloat16, bool int8) {
  if (precision == Precision::float16)
    throw BackendUnavailable(
        "precision: float16 needs device cuda; accepted on the CPU: float32, bfloat16, int8, auto");
  if (precision == Precision::int8 && !int8)
    throw BackendUnavailable("precision: int8 needs a CPU with AVX512-VNNI and the avx512 kernels; accepted here: " +
                             std::string(bfloat16 ? "float32, bfloat16, auto" : "float32, auto"));
  if (precision == Precision::bfloat16 && !bfloat16)
    throw BackendUnavailable(
        "precision: bfloat16 needs a CPU with AVX512-BF16 and the avx512 kernels; accepted here: float32, auto");
  return precision == Precision::automatic ? (bfloat16 ? Precision::bfloat16 : Precision::float32) : precision;
}

cpu::TileSize tile_size(const Model& model, int height, int width, Precision precision) {
  // Of tip22 390 px instead of 192 save 5 % of the time, and with their margins such tiles hold whole squares of
  // Winograd's filtering; in float32 its features would take 400 MB.
  const int most = model.architecture == Architecture::tip22 && precision == Precision::float32 ? 224 : 390;
  return {tile_side(model, height, most), tile_side(model, width, most)};
}

const Model& check_model(const Model& model, const Options& options) {
  if (model.architecture == Architecture::cells && options.evaluation == Evaluation::patch)
    throw InvalidArgument("evaluation: model \"" + model.name + "\" has no patch networks; accepted: auto, shared");
  if (options.precision == Precision::int8 && model.ranges.empty())
    throw ModelError("model: \"" + model.name +
                     "\" has no int8_ranges, which precision int8 needs; see training/README.md");
  return model;
}

/// The networks with features shared by all edges of a tile.
template <class T>
struct SharedNetworks {
  std::unique_ptr<cpu::Trunk<T>> trunk;
  cpu::Heads<T> heads;

  template <class Hidden>
  SharedNetworks(const Model& model, const NetworkKernels<Hidden>& trunk_kernels, const NetworkKernels<T>& head_kernels,
                 const Kernels& kernels, Workers& workers, const cpu::TileSize& tile)
      : trunk(cpu::make_trunk<T>(model, trunk_kernels, kernels, workers, tile)),
        heads(model, head_kernels, kernels, workers.count()) {}
};

}  // namespace

struct Estimator::Impl {
  Impl(int height_, int width_, const Options& options_, const char* device_)
      : height(height_),
        width(width_),
        options(check(height_, width_, options_)),
        device(device_),
        kernels(select_kernels(options.kernels.c_str())),
        workers(options.num_threads),
        model(load_model(options.model)),
        depth_threshold(
            options.depth_threshold.value_or(options.labels == Labels::hard ? 0.5 : model->depth_threshold)) {
    check_model(*model, options);
  }
  virtual ~Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  /// Checks the arguments, and runs the frame.
  void estimate(const ImageView& image, const MaskView& edges, const MapView& out, BlurMap& result,
                const Wanted& wanted) {
    cpu::check_layout(image, "image");
    check_size(image, "image", height, width);
    if (edges.data) check_size(edges, "edges", height, width);
    check_out(out, "out", height, width);
    cpu::check_range(image, "image", 0, 1, workers);
    result.height = height;
    result.width = width;
    result.stage_ms.fill(0);
    run(image, edges, out, result, wanted);
  }
  virtual void run(const ImageView& image, const MaskView& edges, const MapView& out, BlurMap& result,
                   const Wanted& wanted) = 0;
  virtual Device& on_device() {
    throw BackendUnavailable("device: views of device memory need device cuda, this estimator's is " + device);
  }

  const int height, width;
  const Options options;
  const std::string device;
  const Kernels& kernels;
  Workers workers;
  const std::shared_ptr<const Model> model;
  const double depth_threshold;
  Precision precision = Precision::float32;
  BlurMap scratch;  // what estimate_into finds on the way
  std::mutex mutex;
  std::atomic<std::thread::id> at_work;  // the thread that holds it
};

/// Calls run one after the other.
class Estimator::Turn {
 public:
  explicit Turn(Impl& impl) : impl_(impl) {
    // What evaluates the networks of a frame on a device is the caller's own code.
    if (impl.at_work == std::this_thread::get_id())
      throw Error("estimator: called from within one of its own calls, which would wait for itself");
    impl.mutex.lock();
    impl.at_work = std::this_thread::get_id();
  }
  ~Turn() {
    impl_.at_work = std::thread::id();
    impl_.mutex.unlock();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  Impl& impl_;
};

/// Frames on the device; the stages are in cuda/estimator.cu.
struct Estimator::Cuda : Impl {
  Cuda(int height_, int width_, const Options& options_) : Impl(height_, width_, options_, "cuda") {
    if (options.precision == Precision::bfloat16 || options.precision == Precision::int8)
      throw BackendUnavailable(std::string("precision: ") + precision_name(options.precision) +
                               " needs device cpu; accepted on device cuda: float32, float16, auto");
    if (options.precision == Precision::float16) precision = Precision::float16;
    DeviceSetup setup{height, width, options, model, depth_threshold, network_shapes(*model, height, width, options)};
    setup.options.canny.smoothing = cpu::smoothing_kernel(options.canny);
    gpu = make_device(setup);
  }

  void run(const ImageView& image, const MaskView& edges, const MapView& out, BlurMap& result,
           const Wanted& wanted) override {
    gpu->estimate(image, edges, out, result, wanted);
  }
  Device& on_device() override { return *gpu; }

  std::unique_ptr<Device> gpu;
};

struct Estimator::Cpu : Impl {
  Cpu(int height_, int width_, const Options& options_)
      : Impl(height_, width_, options_, "cpu"),
        edge_detector(height_, width_, options.canny, kernels, workers),
        domain_transform(height_, width_, kernels, workers),
        row_start(std::size_t(height_) + 1) {
    const auto* const bf16 = bf16_networks(kernels);
    const auto* const int8 = int8_networks(kernels);
    precision = choose(options.precision, bf16 != nullptr, int8 != nullptr);
    tile = tile_size(*model, height, width, precision);
    if (precision == Precision::int8 && options.evaluation == Evaluation::patch)
      throw InvalidArgument("evaluation: patch has no precision int8; accepted: auto, shared");
    if (options.evaluation != Evaluation::shared && model->architecture == Architecture::tip22 &&
        precision != Precision::int8)
      patches.emplace(*model, precision, workers.count());
    if (options.evaluation == Evaluation::patch) return;
    const auto share = [&]<class T>(const auto& trunk_kernels, const NetworkKernels<T>& head_kernels) {
      shared.emplace<SharedNetworks<T>>(*model, trunk_kernels, head_kernels, kernels, workers, tile);
    };
    if (precision == Precision::int8)
      bf16 ? share(*int8, *bf16) : share(*int8, *kernels.networks_float);
    else if (precision == Precision::bfloat16)
      share(*bf16, *bf16);
    else
      share(*kernels.networks_float, *kernels.networks_float);
  }

  void run(const ImageView& image, const MaskView& edges, const MapView& out, BlurMap& result,
           const Wanted& wanted) override;

  void detect_edges(const ImageView& image, const MaskView& edges, BlurMap& result, const Wanted& wanted);
  void list_edges(BlurMap& result);
  void read_tile(const ImageView& image, int y0, int x0, BlurMap& result, const Wanted& wanted);
  template <class Use>
  void evaluate(Head head, bool by_patch, const ImageView& image, int y0, int x0, const BlurMap& result,
                const Use& use);
  void propagate(const ImageView& image, BlurMap& result, const MapView& out, const Wanted& wanted);

  std::size_t pixel(const BlurMap& result, std::size_t edge) const {
    return std::size_t(result.edges[2 * edge]) * std::size_t(width) + std::size_t(result.edges[2 * edge + 1]);
  }
  /// Calls use with the networks of this precision.
  template <class Use>
  void visit_shared(const Use& use) {
    if (auto* bf16 = std::get_if<SharedNetworks<std::uint16_t>>(&shared))
      use(*bf16);
    else
      use(std::get<SharedNetworks<float>>(shared));
  }

  cpu::TileSize tile{};
  cpu::EdgeDetector edge_detector;
  std::variant<std::monostate, SharedNetworks<float>, SharedNetworks<std::uint16_t>> shared;
  std::optional<cpu::PatchNetworks> patches;
  cpu::DomainTransform domain_transform;
  std::vector<std::size_t> row_start;   // index of each row's first edge
  std::vector<std::int32_t> selection;  // edges of the tile at hand that a network is asked about
  std::vector<cpu::Pixel> in_tile;      // and where they are in it
};

void Estimator::Cpu::run(const ImageView& image, const MaskView& edges, const MapView& out, BlurMap& result,
                         const Wanted& wanted) {
  detect_edges(image, edges, result, wanted);
  for (int y = 0; y < height; y += tile.height)
    for (int x = 0; x < width; x += tile.width) read_tile(image, y, x, result, wanted);
  propagate(image, result, out, wanted);
}

void Estimator::Cpu::detect_edges(const ImageView& image, const MaskView& edges, BlurMap& result,
                                  const Wanted& wanted) {
  StageTimer timer(result, Stage::detect_edges);
  // Until the edges are classified, all of them stand in the mask of pattern edges.
  result.pattern_edges.resize(std::size_t(height) * std::size_t(width));
  result.depth_edges.resize(result.pattern_edges.size());
  std::fill(result.depth_edges.begin(), result.depth_edges.end(), std::uint8_t{0});
  if (edges.data == nullptr)
    edge_detector.detect_edges(image, result.pattern_edges.data());
  else
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        result.pattern_edges[std::size_t(y) * std::size_t(width) + std::size_t(x)] = *edges.at(y, x) != 0;
  if (const int stride = options.edge_stride; stride > 1)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        if (y % stride != 0 || x % stride != 0)
          result.pattern_edges[std::size_t(y) * std::size_t(width) + std::size_t(x)] = 0;
  list_edges(result);
  result.bin_probabilities.assign(wanted.bin_probabilities ? result.radii.size() * model->radius_bins.size() : 0, 0.0f);
}

void Estimator::Cpu::list_edges(BlurMap& result) {
  const auto row = [&](int y) { return result.pattern_edges.data() + std::ptrdiff_t(y) * width; };
  workers.for_ranges(height, 64, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y)
      row_start[std::size_t(y) + 1] = std::size_t(std::count(row(y), row(y) + width, std::uint8_t{1}));
  });
  std::partial_sum(row_start.begin(), row_start.end(), row_start.begin());  // row_start[0] is always 0
  const std::size_t count = row_start.back();
  result.edges.resize(2 * count);
  workers.for_ranges(height, 64, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y) {
      std::int32_t* edge = result.edges.data() + 2 * row_start[std::size_t(y)];
      for (int x = 0; x < width; ++x)
        if (row(y)[x]) {
          *edge++ = y;
          *edge++ = x;
        }
    }
  });
  result.depth_probability.assign(count, 0.0f);
  result.radii.assign(count, 0.0f);
  result.radius_std.assign(count, 0.0f);
  result.radius_probability.assign(count, 0.0f);
}

void Estimator::Cpu::read_tile(const ImageView& image, int y0, int x0, BlurMap& result, const Wanted& wanted) {
  const auto column = [&](std::size_t edge) { return result.edges[2 * edge + 1]; };
  selection.clear();
  for (int y = y0; y < std::min(y0 + tile.height, height); ++y) {
    for (std::size_t edge = row_start[std::size_t(y)]; edge < row_start[std::size_t(y) + 1]; ++edge)
      if (column(edge) >= x0 && column(edge) < x0 + tile.width) selection.push_back(std::int32_t(edge));
  }
  if (selection.empty()) return;

  // Multiply-adds: 0.67 M per pixel of the trunk against 136 M per edge through the whole networks at width 64;
  // the ratio does not depend on the width. Of a stride of 3 the layers behind the pools, which are most of the trunk,
  // need a ninth of the pixels.
  const std::int64_t pixels_per_patch = options.edge_stride % 3 == 0 ? 800 : 200;
  const std::int64_t trunk_pixels = std::int64_t{tile.height + 24} * (tile.width + 24);
  const bool by_patch = options.evaluation == Evaluation::automatic && patches
                            ? std::int64_t(selection.size()) * pixels_per_patch <= trunk_pixels
                            : options.evaluation == Evaluation::patch;
  if (!by_patch) {
    StageTimer timer(result, Stage::extract_features);
    in_tile.clear();
    for (const std::int32_t edge : selection)
      in_tile.push_back({result.edges[2 * std::size_t(edge)] - y0, column(std::size_t(edge)) - x0});
    visit_shared([&](auto& networks) {
      networks.trunk->load(image, y0, x0);
      networks.trunk->extract_features(in_tile);
    });
  }

  if (depth_threshold < 1) {
    StageTimer timer(result, Stage::classify_edges);
    evaluate(Head::edge, by_patch, image, y0, x0, result, [&](std::size_t edge, const float* probability) {
      result.depth_probability[edge] = probability[1];
      if (double(probability[1]) > depth_threshold) {
        result.pattern_edges[pixel(result, edge)] = 0;
        result.depth_edges[pixel(result, edge)] = 1;
      }
    });
  }

  StageTimer timer(result, Stage::estimate_radii);
  const std::size_t bins = model->radius_bins.size();
  evaluate(Head::blur, by_patch, image, y0, x0, result, [&](std::size_t i, const float* probability) {
    const float* best = std::max_element(probability, probability + bins);
    double mean = 0, square = 0;
    for (std::size_t k = 0; k < bins; ++k) {
      mean += double(probability[k]) * model->radius_bins[k];
      square += double(probability[k]) * model->radius_bins[k] * model->radius_bins[k];
    }
    result.radii[i] =
        options.labels == Labels::hard ? model->radius_bins[std::size_t(best - probability)] : float(mean);
    result.radius_std[i] = float(std::sqrt(std::max(0.0, square - mean * mean)));
    result.radius_probability[i] = *best;
    if (wanted.bin_probabilities) std::copy_n(probability, bins, result.bin_probabilities.data() + i * bins);
  });
}

/// Asks a network about the selected edges, a batch at a time, and calls use(edge, probabilities), for several edges at
/// once.
template <class Use>
void Estimator::Cpu::evaluate(Head head, bool by_patch, const ImageView& image, int y0, int x0, const BlurMap& result,
                              const Use& use) {
  const int total = int(selection.size());
  if (!by_patch) {
    visit_shared([&]<class T>(SharedNetworks<T>& networks) {
      workers.for_ranges(total, networks.heads.batch, [&](int begin, int end, int slot) {
        const std::ptrdiff_t size = networks.heads.edge_size();
        for (int k = begin; k < end; ++k) {
          const std::size_t edge = std::size_t(selection[std::size_t(k)]);
          networks.trunk->gather(head, {result.edges[2 * edge] - y0, result.edges[2 * edge + 1] - x0},
                                 networks.heads.features(slot) + (k - begin) * size);
        }
        const float* probabilities = networks.heads.predict(head, end - begin, slot);
        for (int k = begin; k < end; ++k)
          use(std::size_t(selection[std::size_t(k)]),
              probabilities + std::ptrdiff_t{k - begin} * networks.heads.pitch(head));
      });
    });
    return;
  }
  const std::size_t outputs = head == Head::edge ? 2 : model->radius_bins.size();
  for (int first = 0; first < total; first += patches->batch) {
    const int count = std::min(patches->batch, total - first);
    const std::array<float*, 3> crops = patches->crops(head);
    workers.for_ranges(count, 1, [&](int k, int, int) {
      const std::size_t edge = std::size_t(selection[std::size_t(first + k)]);
      std::array<float*, 3> of_edge = crops;
      for (std::size_t i = 0; i < 3; ++i) of_edge[i] += k * 3 * crop_sizes[i] * crop_sizes[i];
      cpu::extract_patches(image, result.edges[2 * edge], result.edges[2 * edge + 1], model->crop_offset, of_edge);
    });
    const float* probabilities = patches->predict(head);
    for (int k = 0; k < count; ++k)
      use(std::size_t(selection[std::size_t(first + k)]), probabilities + std::size_t(k) * outputs);
  }
}

void Estimator::Cpu::propagate(const ImageView& image, BlurMap& result, const MapView& out, const Wanted& wanted) {
  StageTimer timer(result, Stage::propagate);
  result.expected_error.resize(wanted.expected_error ? result.depth_edges.size() : 0);
  const auto weight = [&](std::size_t i) {
    const bool depth = result.depth_edges[pixel(result, i)] != 0;
    if (options.labels == Labels::hard) return depth ? 0.0f : 1.0f;
    const float certainty = deviation_floor_px / (deviation_floor_px + result.radius_std[i]);
    return (depth ? depth_edge_weight : 1.0f - result.depth_probability[i]) * certainty * certainty;
  };
  const auto seed = [&](int y, const cpu::SeedRows& rows) {
    for (std::size_t i = row_start[std::size_t(y)]; i < row_start[std::size_t(y) + 1]; ++i)
      if (const float of_edge = weight(i); of_edge > 0) {
        const float radius = result.radii[i], deviation = result.radius_std[i];
        const std::int32_t x = result.edges[2 * i + 1];
        rows.weights[x] = of_edge;
        rows.radii[x] = rows.weights[x] * radius;
        if (rows.squares) rows.squares[x] = rows.weights[x] * (radius * radius + deviation * deviation);
      }
  };
  float* const errors = wanted.expected_error ? result.expected_error.data() : nullptr;
  // By reference: a copy of what it captures would be allocated.
  cpu::propagate(domain_transform, image, result.depth_edges.data(), options.propagation, std::ref(seed), out, errors,
                 model->radius_bins.back());
  if (!errors) return;
  const float floor = float(model->error_floor), slope = float(model->error_slope);
  workers.for_ranges(height * width, 1 << 16, [&](int begin, int end, int) {
    for (int i = begin; i < end; ++i) errors[i] = std::sqrt(floor * floor + slope * errors[i] * (slope * errors[i]));
  });
}

cuda::NetworkShapes cuda::network_shapes(int height, int width, const Options& options) {
  return defocus_fast::network_shapes(check_model(*load_model(options.model), options), height, width,
                                      check(height, width, options));
}

Estimator::Estimator(int height, int width, const Options& options) {
  if (options.device != "cpu") try {
      // What only the CPU has is not asked of a GPU that nobody asked for.
      const bool only_cpu = options.precision == Precision::bfloat16 || options.precision == Precision::int8;
      if (options.device == "cuda" || !only_cpu) impl_ = std::make_unique<Cuda>(height, width, options);
    } catch (const BackendUnavailable&) {
      if (options.device == "cuda") throw;
    }
  if (!impl_) impl_ = std::make_unique<Cpu>(height, width, options);
}
Estimator::~Estimator() = default;
Estimator::Estimator(Estimator&&) noexcept = default;
Estimator& Estimator::operator=(Estimator&&) noexcept = default;

void Estimator::estimate_into(const ImageView& image, const MapView& out) {
  const Turn turn(*impl_);
  impl_->estimate(image, {}, out, impl_->scratch, {.expected_error = false});
}

void Estimator::estimate(const ImageView& image, BlurMap& result, const MaskView& edges, const Wanted& wanted) {
  const Turn turn(*impl_);
  result.map.resize(std::size_t(impl_->height) * std::size_t(impl_->width));
  const MapView out{result.map.data(), impl_->height, impl_->width, impl_->width * std::ptrdiff_t{sizeof(float)}};
  impl_->estimate(image, edges, out, result, wanted);
}

void Estimator::enqueue(const ImageView& image, const MapView& out, cuda::Stream stream, const MapView& expected_error,
                        const MaskView& edges) {
  const Turn turn(*impl_);
  Device& device = impl_->on_device();
  cpu::check_layout(image, "image");
  check_size(image, "image", impl_->height, impl_->width);
  check_out(out, "out", impl_->height, impl_->width);
  if (expected_error.data) check_out(expected_error, "expected_error", impl_->height, impl_->width);
  if (edges.data) check_size(edges, "edges", impl_->height, impl_->width);
  device.enqueue({image, edges, out, expected_error}, stream);
}

EdgeCount Estimator::edge_count(cuda::Stream stream) {
  const Turn turn(*impl_);
  return impl_->on_device().edge_count(stream);
}

std::shared_ptr<float> Estimator::make_map() { return impl_->on_device().make_map(); }
void Estimator::order(cuda::Stream before, cuda::Stream after) { impl_->on_device().order(before, after); }
int Estimator::gpu() const { return impl_->on_device().gpu(); }

int Estimator::height() const { return impl_->height; }
int Estimator::width() const { return impl_->width; }
int Estimator::num_threads() const { return impl_->workers.count(); }
const std::string& Estimator::device() const { return impl_->device; }
const char* Estimator::precision() const { return precision_name(impl_->precision); }
const char* Estimator::kernels() const { return impl_->kernels.name; }
const std::string& Estimator::model() const { return impl_->model->name; }
const std::vector<float>& Estimator::radius_bins() const { return impl_->model->radius_bins; }

void detect_edges(const ImageView& image, const CannyOptions& options, std::uint8_t* mask, int num_threads,
                  const std::string& kernels) {
  Workers workers(check_threads(num_threads));
  cpu::check_layout(image, "image");
  check_pointer(mask, "mask");
  cpu::check_range(image, "image", 0, 1, workers);
  cpu::EdgeDetector(image.height, image.width, options, select_kernels(kernels.c_str()), workers)
      .detect_edges(image, mask);
}

void domain_transform_filter(const ImageView& image, const ImageView& guide, const FilterOptions& options, float* out,
                             int num_threads, const std::string& kernels) {
  Workers workers(check_threads(num_threads));
  cpu::check_layout(image, "image");
  cpu::check_layout(guide, "guide");
  check_size(guide, "guide", image.height, image.width);
  check_pointer(out, "out");
  cpu::check(options);
  constexpr float most = std::numeric_limits<float>::max();
  cpu::check_range(image, "image", -most, most, workers);
  cpu::check_range(guide, "guide", -most, most, workers);
  cpu::DomainTransform transform(image.height, image.width, select_kernels(kernels.c_str()), workers);
  transform.load(guide);
  transform.set_feedback(guide.channels, options.sigma_s / options.sigma_r, options, nullptr, 0);
  transform.load(image);
  transform.filter(image.channels, options.iterations);
  for (int y = 0; y < image.height; ++y)
    for (int c = 0; c < image.channels; ++c) {
      const float* row = transform.signal(c).row(y);
      float* to = out + std::ptrdiff_t(y) * image.width * image.channels + c;
      for (int x = 0; x < image.width; ++x) to[std::ptrdiff_t(x) * image.channels] = row[x];
    }
}

void propagate(const ImageView& image, const RadiiView& radii, const MaskView& pattern, const MaskView& depth,
               const PropagationOptions& options, const MapView& out, int num_threads, const std::string& kernels) {
  Workers workers(check_threads(num_threads));
  cpu::check_layout(image, "image");
  cpu::check(options, image.height, image.width);
  check_size(radii, "radii", image.height, image.width);
  check_size(pattern, "pattern_edges", image.height, image.width);
  check_size(depth, "depth_edges", image.height, image.width);
  check_out(out, "out", image.height, image.width);
  cpu::check_range(image, "image", 0, 1, workers);
  std::vector<std::uint8_t> barrier(std::size_t(image.height) * std::size_t(image.width));
  workers.for_ranges(image.height, 64, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y)
      for (int x = 0; x < image.width; ++x) {
        barrier[std::size_t(y) * std::size_t(image.width) + std::size_t(x)] = *depth.at(y, x) != 0;
        if (const float radius = *radii.at(y, x); *pattern.at(y, x) && !(radius >= 0 && std::isfinite(radius)))
          throw InvalidArgument("radii: expected finite px >= 0 at pattern edges, got " + std::to_string(radius) +
                                " at row " + std::to_string(y) + ", column " + std::to_string(x));
      }
  });
  cpu::DomainTransform transform(image.height, image.width, select_kernels(kernels.c_str()), workers);
  cpu::propagate(
      transform, image, barrier.data(), options,
      [&](int y, const cpu::SeedRows& rows) {
        for (int x = 0; x < image.width; ++x)
          if (*pattern.at(y, x)) {
            rows.radii[x] = *radii.at(y, x);
            rows.weights[x] = 1;
          }
      },
      out);
}

std::vector<std::pair<std::string, std::string>> build_config() {
  std::string kernels;
  for (const std::string& name : available_kernels()) kernels += (kernels.empty() ? "" : ", ") + name;
  return {{"version", DEFOCUS_FAST_VERSION},
          {"compiler", DEFOCUS_FAST_COMPILER},
          {"openvino", DEFOCUS_FAST_OPENVINO},
          {"cuda", DEFOCUS_FAST_CUDA_PART},
          {"kernels", kernels}};
}

}  // namespace defocus_fast
