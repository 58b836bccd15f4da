// SPDX-License-Identifier: Apache-2.0
// Frames on the CPU: the stages in order.
#include <algorithm>
#include <chrono>
#include <numeric>

#include "defocus_fast/error.hpp"
#include "estimator_impl.hpp"
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

Precision choose(Precision precision, const Kernels& kernels) {
  const bool bfloat16 = bf16_networks(kernels) != nullptr, int8 = int8_networks(kernels) != nullptr;
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

}  // namespace

struct Estimator::Cpu : Impl {
  Cpu(int height_, int width_, const Options& options_)
      : Impl(height_, width_, options_, "cpu"),
        edge_detector(height, width, options.canny, kernels, workers),
        domain_transform(height, width, kernels, workers),
        row_start(std::size_t(height) + 1) {
    if (options.evaluation == Evaluation::patch)
      throw InvalidArgument("evaluation: patch needs device cuda; accepted on the CPU: shared");
    precision = choose(options.precision, kernels);
    tile = tile_size(*model, height, width, precision);
    weights = cpu::network_weights(model, precision, kernels);
    networks = weights->make_workspace(kernels, workers, tile);
  }

  void run(const ImageView& image, const MapView& out, BlurMap& result, const FrameOptions& frame) override {
    detect_edges(image, result, frame);
    for (int y = 0; y < height; y += tile.height)
      for (int x = 0; x < width; x += tile.width) {
        select_tile(y, x, result);
        if (selected.empty()) continue;
        extract_features(image, y, x, result);
        classify_edges(result);
        estimate_radii(result, frame);
      }
    propagate(image, out, result, frame);
  }

  void detect_edges(const ImageView& image, BlurMap& result, const FrameOptions& frame);
  void list_edges(BlurMap& result);
  void select_tile(int y0, int x0, const BlurMap& result);
  void extract_features(const ImageView& image, int y0, int x0, BlurMap& result);
  void classify_edges(BlurMap& result);
  void estimate_radii(BlurMap& result, const FrameOptions& frame);
  void propagate(const ImageView& image, const MapView& out, BlurMap& result, const FrameOptions& frame);

  /// Calls use(edge, its question) for the selected edges, by several threads at once.
  template <class Use>
  void for_selected(const Use& use) {
    const std::vector<std::int32_t>& question = networks->question_of_edge();
    workers.for_ranges(int(selected.size()), 1024, [&](int begin, int end, int) {
      for (std::size_t k = std::size_t(begin); k < std::size_t(end); ++k)
        use(std::size_t(selected[k]), std::size_t(question[k]));
    });
  }
  std::size_t index(Pixel pixel) const { return std::size_t(pixel.y) * std::size_t(width) + std::size_t(pixel.x); }

  cpu::TileSize tile{};
  cpu::EdgeDetector edge_detector;
  std::shared_ptr<const cpu::NetworkWeights> weights;
  std::unique_ptr<cpu::TileNetworks> networks;
  cpu::DomainTransform domain_transform;
  std::vector<std::size_t> row_start;  // index of each row's first edge
  // Of the tile at hand.
  std::vector<std::int32_t> selected;  // its edges
  std::vector<Pixel> in_tile;          // and where they are in it
  // By question.
  std::vector<float> depth_probability, bin_probabilities;
  std::vector<Reading> readings;
};

void Estimator::Cpu::detect_edges(const ImageView& image, BlurMap& result, const FrameOptions& frame) {
  StageTimer timer(result, Stage::detect_edges);
  // Until the edges are classified, all of them stand in the mask of pattern edges.
  std::vector<std::uint8_t>& mask = result.pattern_edges;
  mask.resize(std::size_t(height) * std::size_t(width));
  result.depth_edges.resize(mask.size());
  std::fill(result.depth_edges.begin(), result.depth_edges.end(), std::uint8_t{0});
  if (frame.edges.data == nullptr)
    edge_detector.detect_edges(image, mask.data());
  else
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) mask[index({y, x})] = *frame.edges.at(y, x) != 0;
  if (const int stride = frame.edge_stride; stride > 1)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        if (y % stride != 0 || x % stride != 0) mask[index({y, x})] = 0;
  list_edges(result);
}

void Estimator::Cpu::list_edges(BlurMap& result) {
  const auto row = [&](int y) { return result.pattern_edges.data() + std::ptrdiff_t(y) * width; };
  workers.for_ranges(height, 64, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y)
      row_start[std::size_t(y) + 1] = std::size_t(std::count(row(y), row(y) + width, std::uint8_t{1}));
  });
  std::partial_sum(row_start.begin(), row_start.end(), row_start.begin());  // row_start[0] is always 0
  Edges& edges = result.edges;
  edges.position.resize(row_start.back());
  workers.for_ranges(height, 64, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y) {
      Pixel* edge = edges.position.data() + row_start[std::size_t(y)];
      for (int x = 0; x < width; ++x)
        if (row(y)[x]) *edge++ = {y, x};
    }
  });
  for (std::vector<float>* values :
       {&edges.depth_probability, &edges.radius, &edges.radius_std, &edges.radius_probability})
    values->resize(edges.position.size());
}

void Estimator::Cpu::select_tile(int y0, int x0, const BlurMap& result) {
  const Pixel* const edges = result.edges.position.data();
  selected.clear();
  in_tile.clear();
  for (int y = y0; y < std::min(y0 + tile.height, height); ++y) {
    const Pixel* const end = edges + row_start[std::size_t(y) + 1];
    const auto before = [](Pixel edge, int x) { return edge.x < x; };
    for (const Pixel* edge = std::lower_bound(edges + row_start[std::size_t(y)], end, x0, before);
         edge != end && edge->x < x0 + tile.width; ++edge) {
      selected.push_back(std::int32_t(edge - edges));
      in_tile.push_back({y - y0, edge->x - x0});
    }
  }
}

void Estimator::Cpu::extract_features(const ImageView& image, int y0, int x0, BlurMap& result) {
  StageTimer timer(result, Stage::extract_features);
  networks->extract_features(image, y0, x0, in_tile);
}

void Estimator::Cpu::classify_edges(BlurMap& result) {
  StageTimer timer(result, Stage::classify_edges);
  Edges& edges = result.edges;
  if (depth_threshold >= 1) {  // no edge is a depth edge
    for (const std::int32_t edge : selected) edges.depth_probability[std::size_t(edge)] = 0;
    return;
  }
  depth_probability.resize(std::size_t(networks->question_count()));
  const auto use = [&](int question, const float* probability) {
    depth_probability[std::size_t(question)] = probability[1];
  };
  networks->ask(cpu::Head::edge, std::ref(use));  // by reference: a copy of what it captures would be allocated
  for_selected([&](std::size_t edge, std::size_t question) {
    edges.depth_probability[edge] = depth_probability[question];
    if (!is_depth_edge(depth_probability[question], depth_threshold)) return;
    result.pattern_edges[index(edges.position[edge])] = 0;
    result.depth_edges[index(edges.position[edge])] = 1;
  });
}

void Estimator::Cpu::estimate_radii(BlurMap& result, const FrameOptions& frame) {
  StageTimer timer(result, Stage::estimate_radii);
  Edges& edges = result.edges;
  const std::size_t bins = model->radius_bins.size(), questions = std::size_t(networks->question_count());
  readings.resize(questions);
  bin_probabilities.resize(frame.bin_probabilities ? questions * bins : 0);
  edges.bin_probabilities.resize(frame.bin_probabilities ? edges.size() * bins : 0);
  const auto use = [&](int question, const float* probabilities) {
    const auto probability = [&](int bin) { return probabilities[bin]; };
    readings[std::size_t(question)] = read_bins(probability, model->radius_bins.data(), int(bins), options.labels);
    if (frame.bin_probabilities)
      std::copy_n(probabilities, bins, bin_probabilities.data() + std::size_t(question) * bins);
  };
  networks->ask(cpu::Head::blur, std::ref(use));
  for_selected([&](std::size_t edge, std::size_t question) {
    const Reading& reading = readings[question];
    edges.radius[edge] = reading.radius;
    edges.radius_std[edge] = reading.radius_std;
    edges.radius_probability[edge] = reading.radius_probability;
    if (frame.bin_probabilities)
      std::copy_n(bin_probabilities.data() + question * bins, bins, edges.bin_probabilities.data() + edge * bins);
  });
}

void Estimator::Cpu::propagate(const ImageView& image, const MapView& out, BlurMap& result, const FrameOptions& frame) {
  StageTimer timer(result, Stage::propagate);
  result.expected_error.resize(frame.expected_error ? result.depth_edges.size() : 0);
  const Edges& edges = result.edges;
  const auto seed = [&](int y, const cpu::SeedRows& rows) {
    for (std::size_t i = row_start[std::size_t(y)]; i < row_start[std::size_t(y) + 1]; ++i) {
      const Pixel at = edges.position[i];
      const bool depth = result.depth_edges[index(at)] != 0;
      const float weight = edge_weight(options.labels, depth, edges.depth_probability[i], edges.radius_std[i]);
      if (weight > 0) rows.set(at.x, make_seed(weight, edges.radius[i], edges.radius_std[i]));
    }
  };
  float* const errors = frame.expected_error ? result.expected_error.data() : nullptr;
  domain_transform.propagate(image, result.depth_edges.data(), propagation, std::ref(seed), out, errors,
                             model->radius_bins.back());
  if (!errors) return;
  const float floor = float(model->error_floor), slope = float(model->error_slope);
  workers.for_ranges(height, 64, [&](int begin, int end, int) {
    for (std::size_t i = index({begin, 0}); i < index({end, 0}); ++i)
      errors[i] = expected_error(floor, slope, errors[i]);
  });
}

std::unique_ptr<Estimator::Impl> Estimator::Impl::on_cpu(int height, int width, const Options& options) {
  return std::make_unique<Cpu>(height, width, options);
}

}  // namespace defocus_fast
