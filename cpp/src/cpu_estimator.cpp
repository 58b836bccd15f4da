// SPDX-License-Identifier: Apache-2.0
// Frames on the CPU: the stages in order.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <numeric>
#include <utility>

#include "defocus_fast/error.hpp"
#include "estimator_impl.hpp"
#include "stages.hpp"

namespace defocus_fast {

namespace {

using cpu::FrameBudget;
using Clock = std::chrono::steady_clock;
double milliseconds(Clock::duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

/// Adds the time until its end to one stage.
class StageTimer {
 public:
  StageTimer(BlurMap& result, Stage stage) : ms_(result.stage_ms[std::size_t(stage)]) {}
  ~StageTimer() { ms_ += milliseconds(Clock::now() - start_); }
  StageTimer(const StageTimer&) = delete;
  StageTimer& operator=(const StageTimer&) = delete;

 private:
  double& ms_;
  Clock::time_point start_ = Clock::now();
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
        "precision: bfloat16 needs a CPU with AVX512-BF16 and the avx512 kernels, or an ARM64 one with BF16; accepted "
        "here: float32, auto");
  return precision == Precision::automatic ? (bfloat16 ? Precision::bfloat16 : Precision::float32) : precision;
}

cpu::TileSize tile_size(const Model& model, int height, int width, Precision precision) {
  // Of tip22 390 px instead of 192 save 5 % of the time, and with their margins such tiles hold whole squares of
  // Winograd's filtering; in float32 its features would take 400 MB.
  const int most = model.architecture == Architecture::tip22 && precision == Precision::float32 ? 224 : 390;
  return {tile_side(model, height, most), tile_side(model, width, most)};
}

/// The canvas at one size, and what was found in it.
struct Octave {
  /// Edges of the first octave are detected in the image alone, of `period` - 1 px less.
  Octave(int number_, int canvas_height, int canvas_width, int period, const CannyOptions& canny,
         const Kernels& kernels, Workers& workers)
      : number(number_),
        scale(1 << number),
        height(canvas_height / scale),
        width(canvas_width / scale),
        edge_detector(number > 0 ? height : height - (period - 1), number > 0 ? width : width - (period - 1), canny,
                      kernels, workers),
        row_start(std::size_t(height) + 1) {}

  std::size_t index(Pixel pixel) const { return std::size_t(pixel.y) * std::size_t(width) + std::size_t(pixel.x); }

  const int number, scale, height, width;
  Pixel pad{0, 0};                // of the first octave: from the canvas's corner to the image's
  ImageView image;                // without the pad
  std::vector<std::byte> pixels;  // of the image, unless it is the caller's
  cpu::EdgeDetector edge_detector;
  std::vector<std::size_t> row_start;  // index of each row's first edge
  BlurMap found;                       // in px of this octave; the first one's is the frame's result
  std::vector<std::uint8_t> said;      // (height, width) of edges, see asks()
};

}  // namespace

struct Estimator::Cpu : Impl {
  Cpu(int height_, int width_, const Options& options_, const std::optional<ThreadPool>& pool,
      const VideoOptions* video_options)
      : Impl(height_, width_, options_, pool, "cpu", video_options != nullptr),
        domain_transform(canvas_height >> propagation.octave, canvas_width >> propagation.octave, kernels, workers) {
    if (options.evaluation == Evaluation::patch)
      throw InvalidArgument("evaluation: patch needs device cuda; accepted on the CPU: shared");
    precision = choose(options.precision, kernels);
    tile = tile_size(*model, canvas_height, canvas_width, precision);
    const int count = octave_count(height, width, options.octaves);
    for (int number = 0; number < count; ++number)
      octaves.emplace_back(number, canvas_height, canvas_width, period, canny_of(options, number, height, width),
                           kernels, workers);
    weights = cpu::network_weights(model, precision, kernels);
    networks = weights->make_workspace(kernels, workers, tile);
    if (video_options) {
      const Octave& spread = octaves[std::size_t(propagation.octave)];
      average.emplace(spread.height, spread.width, video_options->frames, workers);
      if (video_options->budget_ms) budget.emplace(*video_options->budget_ms, height, width);
    }
    if (learns_distances) {
      const Octave& spread = octaves[std::size_t(propagation.octave)];
      distances = weights->make_distances(spread.height, spread.width, kernels, workers);
      const std::size_t columns = std::size_t(distances->columns());
      regions.assign(std::size_t(workers.slots(distances->rows(), 1)), {});
      for (auto& [sums, pixels] : regions) {
        sums.resize(columns * learned::groups);
        pixels.resize(3 * std::size_t(learned::region) * columns * learned::region);
      }
    }
    if (octaves.size() > 1) {  // the widest neighbour is the second octave
      const Range reach = beside(0, false);
      said_in_rows.assign(std::size_t(workers.count()),
                          std::vector<std::uint8_t>(std::size_t(octaves[1].width + reach.end - reach.begin)));
    }
    if (const Octave& spread = octaves[std::size_t(propagation.octave)]; spread.number > 0) {
      lines.assign(std::size_t(workers.count()), std::vector<float>(std::size_t(spread.width)));
      for (int x = 0; x < canvas_width; ++x) columns.push_back(between(x, spread.number, spread.width));
    }
  }

  void run(const ImageView& image, const MapView& out, BlurMap& result, const FrameOptions& frame) override {
    // Given edges are those of the image; what the edge detector would find in its reductions are others.
    const std::size_t count = frame.edges.data ? 1 : octaves.size();
    const Clock::time_point start = Clock::now();
    octaves[0].image = image;
    detect_edges(octaves[0], result, frame);
    for (std::size_t i = 1; i < std::max(count, std::size_t(propagation.octave) + 1); ++i)
      reduce(octaves[i - 1], octaves[i], result);
    if (average) compare_with_average(result);
    for (std::size_t i = 1; i < count; ++i) {
      octaves[i].found.stage_ms.fill(0);
      detect_edges(octaves[i], octaves[i].found, frame);
    }
    const double began_to_ask = budget ? choose_regions(result, count, start) : 0;
    for (std::size_t step = 0; step < count; ++step) {
      const std::size_t i = std::size_t(octave_of_step(int(step), int(count)));
      Octave& octave = octaves[i];
      BlurMap& found = i == 0 ? result : octave.found;
      if (i > 0) octave.said.assign(found.pattern_edges.size(), 0);
      if (step > 0 && !all_are_edges) drop_edges(octaves[std::size_t(told_by(int(i), int(count)))], octave, found);
      list_edges(octave, found);
      ask_networks(octave, found, frame);
      if (i > 0) note_answers(octave, found);
    }
    const double had_asked = milliseconds(Clock::now() - start);
    propagate(out, result, frame, count);
    put_in_image(result, count);
    if (budget) {
      count_asked(result, count);
      budget->learn(began_to_ask, had_asked, milliseconds(Clock::now() - start));
    }
  }

  void warm_up() override;

  void ask_networks(const Octave& octave, BlurMap& found, const FrameOptions& frame) {
    for (int y = 0; y < octave.height; y += tile.height)
      for (int x = 0; x < octave.width; x += tile.width) {
        select_tile(octave, y, x, found);
        if (selected.empty()) continue;
        extract_features(octave, y, x, found);
        classify_edges(octave, found);
        estimate_radii(found, frame);
      }
  }

  void reduce(const Octave& finer, Octave& octave, BlurMap& result);
  void compare_with_average(BlurMap& result);
  void detect_edges(Octave& octave, BlurMap& found, const FrameOptions& frame);
  double choose_regions(BlurMap& result, std::size_t count, Clock::time_point start);
  void count_asked(const BlurMap& result, std::size_t count);
  void list_edges(Octave& octave, BlurMap& found);
  void drop_edges(const Octave& neighbour, Octave& octave, BlurMap& found);
  void note_answers(Octave& octave, const BlurMap& found);
  void select_tile(const Octave& octave, int y0, int x0, const BlurMap& found);
  void extract_features(const Octave& octave, int y0, int x0, BlurMap& found);
  void classify_edges(const Octave& octave, BlurMap& found);
  void estimate_radii(BlurMap& found, const FrameOptions& frame);
  void propagate(const MapView& out, BlurMap& result, const FrameOptions& frame, std::size_t count);
  void describe_regions(const BlurMap& result, std::size_t count);
  void put_in_image(BlurMap& result, std::size_t count);
  void merge(const Octave& octave, BlurMap& result);
  void mark_barriers(const BlurMap& result, std::size_t count);
  void enlarge(const std::vector<float>& values, const MapView& out);

  /// Calls use(begin, end) for what the rows of an octave's mask of edges have in a region of the budget.
  template <class Use>
  void for_rows_of_region(int number, BlurMap& result, int row, int column, const Use& use) {
    Octave& octave = octaves[std::size_t(number)];
    std::vector<std::uint8_t>& mask = (number == 0 ? result : octave.found).pattern_edges;
    const int side = 1 << (FrameBudget::region_octave - number);
    const int left = std::min(column * side, octave.width), right = std::min(left + side, octave.width);
    for (int y = row * side; y < std::min((row + 1) * side, octave.height); ++y)
      use(mask.data() + octave.index({y, left}), mask.data() + octave.index({y, right}));
  }

  /// Calls use(edge, its question) for the selected edges, by several threads at once.
  template <class Use>
  void for_selected(const Use& use) {
    const std::vector<std::int32_t>& question = networks->question_of_edge();
    workers.for_ranges(int(selected.size()), 1024, [&](int begin, int end, int) {
      for (std::size_t k = std::size_t(begin); k < std::size_t(end); ++k)
        use(std::size_t(selected[k]), std::size_t(question[k]));
    });
  }

  bool all_are_edges = false;  // see warm_up()
  cpu::TileSize tile{};
  std::deque<Octave> octaves;  // from fine to coarse
  std::shared_ptr<const cpu::NetworkWeights> weights;
  std::unique_ptr<cpu::TileNetworks> networks;
  cpu::DomainTransform domain_transform;
  std::unique_ptr<cpu::LearnedDistances> distances;
  struct RowOfRegions {
    std::vector<learned::EdgeSums> sums;  // (columns, groups)
    std::vector<float> pixels;            // (channels, region rows, columns of pixels)
  };
  std::vector<RowOfRegions> regions;  // one per slot
  // Of the tile at hand.
  std::vector<std::int32_t> selected;  // its edges
  std::vector<Pixel> in_tile;          // and where they are in it
  // By question.
  std::vector<float> depth_probability, bin_probabilities;
  std::vector<Reading> readings;
  std::optional<cpu::TimeAverage> average;  // of videos
  std::optional<FrameBudget> budget;        // of videos that have one
  // In the octave in which radii are spread, unless it is the first of single images.
  std::vector<std::uint8_t> barriers;
  std::vector<float> spread_map, spread_error;
  std::vector<std::vector<float>> lines;                // of the map, one per slot
  std::vector<std::vector<std::uint8_t>> said_in_rows;  // by column of an octave, one per slot; see drop_edges()
  std::vector<Between> columns;                         // by column of the canvas
};

/// A pixel is the mean of four.
void Estimator::Cpu::reduce(const Octave& finer, Octave& octave, BlurMap& result) {
  StageTimer timer(result, Stage::detect_edges);
  const ImageView& image = finer.image;
  const std::ptrdiff_t size = image.type == PixelType::uint8 ? 1 : sizeof(float);
  const std::ptrdiff_t pitch = octave.width * image.channels * size;
  octave.pixels.resize(std::size_t(octave.height) * std::size_t(pitch));
  octave.image =
      ImageView::interleaved(octave.pixels.data(), image.type, octave.height, octave.width, image.channels, pitch);
  workers.for_ranges(octave.height, 32, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y)
      cpu::reduce_row(image, finer.pad, y, octave.width, octave.pixels.data() + y * pitch);
  });
}

void Estimator::Cpu::detect_edges(Octave& octave, BlurMap& found, const FrameOptions& frame) {
  StageTimer timer(found, Stage::detect_edges);
  // Until the edges are classified, all of them stand in the mask of pattern edges.
  std::vector<std::uint8_t>& mask = found.pattern_edges;
  mask.resize(std::size_t(octave.height) * std::size_t(octave.width));
  found.depth_edges.resize(mask.size());
  std::fill(found.depth_edges.begin(), found.depth_edges.end(), std::uint8_t{0});
  const bool in_part = octave.number == 0 && period > 1;  // of the canvas the image is
  if (in_part) std::fill(mask.begin(), mask.end(), std::uint8_t{0});
  if (frame.edges.data == nullptr) {
    const Pixel strongest = octave.edge_detector.detect_edges(octave.image);
    if (in_part) octave.pad = pad_of(strongest, period);
    octave.edge_detector.write_mask(mask.data() + octave.index(octave.pad), octave.width);
  } else {
    octave.pad = {0, 0};
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) mask[octave.index({y, x})] = *frame.edges.at(y, x) != 0;
  }
  if (all_are_edges) std::fill(mask.begin(), mask.end(), std::uint8_t{1});
  if (const int stride = frame.edge_stride; stride > 1 && octave.number == 0)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        if (y % stride != 0 || x % stride != 0) mask[octave.index({y + octave.pad.y, x + octave.pad.x})] = 0;
}

void Estimator::Cpu::compare_with_average(BlurMap& result) {
  StageTimer timer(result, Stage::propagate);
  if (std::exchange(video.first, false)) average->reset();
  average->advance(octaves[std::size_t(propagation.octave)].image);
}

/// Only those regions are read for which there is time. Returns when that was known, in ms since the frame's start.
double Estimator::Cpu::choose_regions(BlurMap& result, std::size_t count, Clock::time_point start) {
  StageTimer timer(result, Stage::detect_edges);
  const Octave& spread = octaves[std::size_t(propagation.octave)];
  const int by_region = std::min(int(count), FrameBudget::octaves);
  const auto part = [&](int i, int length) {
    const int side = 1 << (FrameBudget::region_octave - spread.number);
    return Range{std::min(i * side, length), std::min((i + 1) * side, length)};
  };
  workers.for_ranges(budget->rows(), 1, [&](int row, int, int) {
    for (int column = 0; column < budget->columns(); ++column) {
      FrameBudget::Region& region = budget->region(row, column);
      region.changed = average->changed(part(row, spread.height), part(column, spread.width));
      region.fine = region.coarse = region.asked = 0;
      for (int o = 0; o < by_region; ++o)
        for_rows_of_region(o, result, row, column, [&](std::uint8_t* begin, std::uint8_t* end) {
          (o < FrameBudget::fine_octaves ? region.fine : region.coarse) += int(std::count(begin, end, std::uint8_t{1}));
        });
    }
  });
  const double now = milliseconds(Clock::now() - start);
  budget->choose(now);
  for (int row = 0; row < budget->rows(); ++row)
    for (int column = 0; column < budget->columns(); ++column) {
      const FrameBudget::Region& region = budget->region(row, column);
      if (!region.is_read) average->leave_out(part(row, spread.height), part(column, spread.width));
      for (int o = 0; o < by_region; ++o)
        if (!region.is_read_in(o))
          for_rows_of_region(o, result, row, column,
                             [](std::uint8_t* begin, std::uint8_t* end) { std::fill(begin, end, std::uint8_t{0}); });
    }
  return now;
}

void Estimator::Cpu::count_asked(const BlurMap& result, std::size_t count) {
  for (int o = 0; o < std::min(int(count), FrameBudget::octaves); ++o) {
    const int side = FrameBudget::region_octave - o;
    // Of the first octave the result has all octaves' edges by now.
    const Octave& octave = octaves[std::size_t(o)];
    const std::vector<Pixel>& position = o == 0 ? result.edges.position : octave.found.edges.position;
    for (std::size_t i = 0; i < octave.row_start.back(); ++i)
      ++budget->region(position[i].y >> side, position[i].x >> side).asked;
  }
}

/// An octave is not asked about edges that would count nothing, as its neighbour says that was read before.
void Estimator::Cpu::drop_edges(const Octave& neighbour, Octave& octave, BlurMap& found) {
  StageTimer timer(found, Stage::detect_edges);
  const bool finer = neighbour.number < octave.number;
  const Range reach = beside(0, finer);  // of the first column; what is beyond the ends says nothing
  workers.for_ranges(octave.height, 32, [&](int begin, int end, int slot) {
    std::vector<std::uint8_t>& in_rows = said_in_rows[std::size_t(slot)];
    for (int y = begin; y < end; ++y) {
      in_rows.assign(std::size_t(neighbour.width + reach.end - reach.begin), 0);
      const Range rows = beside(y, finer);
      for (int v = std::max(rows.begin, 0); v < std::min(rows.end, neighbour.height); ++v) {
        std::uint8_t* const __restrict sum = in_rows.data() - reach.begin;
        const std::uint8_t* const __restrict said = neighbour.said.data() + neighbour.index({v, 0});
        for (int u = 0, n = neighbour.width; u < n; ++u) sum[u] |= said[u];
      }
      std::uint8_t* const edges = found.pattern_edges.data() + octave.index({y, 0});
      cpu::for_marked(edges, octave.width, [&](int x) {
        const std::uint8_t* const first = in_rows.data() + (beside(x, finer).begin - reach.begin);
        std::uint8_t said = 0;
        for (int u = 0; u < reach.end - reach.begin; ++u) said |= first[u];
        if (!said || (said & (finer ? asks_coarser : asks_finer))) return;
        edges[x] = 0;
        if (octave.number > 0) octave.said[octave.index({y, x})] = passes_on(said, finer);
      });
    }
  });
}

void Estimator::Cpu::note_answers(Octave& octave, const BlurMap& found) {
  for (std::size_t i = 0; i < found.edges.size(); ++i)
    octave.said[octave.index(found.edges.position[i])] =
        asks(found.edges.radius[i], found.edges.radius_std[i], octave.number);
}

void Estimator::Cpu::list_edges(Octave& octave, BlurMap& found) {
  std::vector<std::size_t>& row_start = octave.row_start;
  const int width = octave.width;
  const auto row = [&](int y) { return found.pattern_edges.data() + std::ptrdiff_t(y) * width; };
  workers.for_ranges(octave.height, 64, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y)
      row_start[std::size_t(y) + 1] = std::size_t(std::count(row(y), row(y) + width, std::uint8_t{1}));
  });
  std::partial_sum(row_start.begin(), row_start.end(), row_start.begin());  // row_start[0] is always 0
  Edges& edges = found.edges;
  edges.position.resize(row_start.back());
  workers.for_ranges(octave.height, 64, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y) {
      Pixel* edge = edges.position.data() + row_start[std::size_t(y)];
      cpu::for_marked(row(y), width, [&](int x) { *edge++ = {y, x}; });
    }
  });
  for (std::vector<float>* values :
       {&edges.depth_probability, &edges.radius, &edges.radius_std, &edges.radius_probability})
    values->resize(edges.position.size());
  edges.octave.assign(edges.position.size(), 0);
}

void Estimator::Cpu::select_tile(const Octave& octave, int y0, int x0, const BlurMap& found) {
  const Pixel* const edges = found.edges.position.data();
  const std::vector<std::size_t>& row_start = octave.row_start;
  selected.clear();
  in_tile.clear();
  for (int y = y0; y < std::min(y0 + tile.height, octave.height); ++y) {
    const Pixel* const end = edges + row_start[std::size_t(y) + 1];
    const auto before = [](Pixel edge, int x) { return edge.x < x; };
    for (const Pixel* edge = std::lower_bound(edges + row_start[std::size_t(y)], end, x0, before);
         edge != end && edge->x < x0 + tile.width; ++edge) {
      selected.push_back(std::int32_t(edge - edges));
      in_tile.push_back({y - y0, edge->x - x0});
    }
  }
}

void Estimator::Cpu::extract_features(const Octave& octave, int y0, int x0, BlurMap& found) {
  StageTimer timer(found, Stage::extract_features);
  networks->extract_features(octave.image, y0 - octave.pad.y, x0 - octave.pad.x, in_tile);
}

void Estimator::Cpu::classify_edges(const Octave& octave, BlurMap& found) {
  StageTimer timer(found, Stage::classify_edges);
  Edges& edges = found.edges;
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
    found.pattern_edges[octave.index(edges.position[edge])] = 0;
    found.depth_edges[octave.index(edges.position[edge])] = 1;
  });
}

void Estimator::Cpu::estimate_radii(BlurMap& found, const FrameOptions& frame) {
  StageTimer timer(found, Stage::estimate_radii);
  Edges& edges = found.edges;
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

void Estimator::Cpu::propagate(const MapView& out, BlurMap& result, const FrameOptions& frame, std::size_t count) {
  StageTimer timer(result, Stage::propagate);
  const Octave& spread = octaves[std::size_t(propagation.octave)];
  const bool enlarged = propagation.octave > 0;
  if (enlarged || average) mark_barriers(result, count);
  domain_transform.make_guide(spread.image, propagation);
  learned::Factors factors;
  if (learns_distances && frame.edges.data == nullptr) {
    describe_regions(result, count);
    factors = distances->factors();
  }
  const bool is_learned = factors.values != nullptr;
  // An octave's edges that have seeds in a row of `spread`, `dy` rows below their own.
  const auto seed_edges = [&](const Octave& octave, int y, int dy, const cpu::SeedRows& rows) {
    const Range lines = put_into(y - dy, spread.height, spread.number, octave.height, octave.number);
    const Edges& edges = octave.number == 0 ? result.edges : octave.found.edges;
    const float scale = float(octave.scale);
    const int group = learned::group(octave.number, spread.number);
    for (std::size_t i = octave.row_start[std::size_t(lines.begin)]; i < octave.row_start[std::size_t(lines.end)];
         ++i) {
      const bool depth = is_depth_edge(edges.depth_probability[i], depth_threshold);
      const bool beside = is_beside_barrier(depth, octave.number, is_learned);
      if (dy != 0 && !beside) continue;
      const float weight =
          edge_weight(options.labels, depth, edges.depth_probability[i], edges.radius_std[i], octave.number) *
          octave_weight(edges.radius[i], model->radius_bins.back(), octave.number, octave.number + 1 == int(count));
      if (!(weight > 0)) continue;
      const auto add = [&](int x, Side side) {
        const float of_place = is_learned ? weight * factors.at(learned::kind(group, side), y, x) : weight;
        rows.add(x, make_seed(beside ? of_place / 4 : of_place, scale * edges.radius[i], scale * edges.radius_std[i]));
      };
      const int x = put(edges.position[i], octave.number, spread.number, spread.height, spread.width).x;
      if (!beside) {
        add(x, Side::here);
      } else if (dy != 0) {
        add(x, dy > 0 ? Side::below : Side::above);
      } else {
        const int aside = beside_barrier(octave.number, spread.number, is_learned);
        if (x + aside < spread.width) add(x + aside, Side::right);
        if (x - aside >= 0) add(x - aside, Side::left);
      }
    }
  };
  const auto seed = [&](int y, const cpu::SeedRows& rows) {
    for (std::size_t o = 0; o < count; ++o) {
      seed_edges(octaves[o], y, 0, rows);
      if (!is_beside_barrier(true, octaves[o].number, is_learned)) continue;
      const int aside = beside_barrier(octaves[o].number, spread.number, is_learned);
      seed_edges(octaves[o], y, -aside, rows);
      seed_edges(octaves[o], y, aside, rows);
    }
  };
  const auto averages = [&](int y, const cpu::SeedRows& rows) { average->put(y, rows); };
  if (average) {
    average->add(std::ref(seed), barriers.data());
    video.change = average->change();
    video.change.shift_y *= spread.scale;
    video.change.shift_x *= spread.scale;
    if (budget) video.change.read = budget->read();
  }
  const bool aside = enlarged || !out.data;  // the map is written to memory of its own
  if (aside) {
    spread_map.resize(barriers.size());
    spread_error.resize(frame.expected_error ? barriers.size() : 0);
  }
  const std::size_t pixels = std::size_t(height) * std::size_t(width);
  result.expected_error.resize(frame.expected_error && out.data ? pixels : 0);
  const auto view = [](std::vector<float>& values, int rows, int columns_) {
    return MapView{values.data(), rows, columns_, columns_ * std::ptrdiff_t{sizeof(float)}};
  };
  std::vector<float>& errors = aside ? spread_error : result.expected_error;
  domain_transform.propagate(
      spread.image.channels, barriers.empty() ? result.depth_edges.data() : barriers.data(), propagation, factors,
      average ? cpu::SeedRow(std::ref(averages)) : cpu::SeedRow(std::ref(seed)),
      aside ? view(spread_map, spread.height, spread.width) : out, frame.expected_error ? errors.data() : nullptr,
      model->radius_bins.back() * float(octaves[count - 1].scale));
  const float floor = float(model->error_floor), slope = float(model->error_slope);
  const int columns_of_errors = spread.width;
  workers.for_ranges(int(errors.size()) / columns_of_errors, 32, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y)
      for (int x = 0; x < columns_of_errors; ++x) {
        float& error = errors[std::size_t(y) * std::size_t(columns_of_errors) + std::size_t(x)];
        error = expected_error(floor, slope, error);
        if (factors.values) error *= factors.at(learned::error, y, x);
      }
  });
  if (average) {
    video.map = spread_map.data();
    video.expected_error = errors.data();
  }
  if (enlarged && out.data) {
    enlarge(spread_map, out);
    if (frame.expected_error) enlarge(spread_error, view(result.expected_error, height, width));
  }
}

/// Writes what the network of distances reads.
void Estimator::Cpu::describe_regions(const BlurMap& result, std::size_t count) {
  const Octave& spread = octaves[std::size_t(propagation.octave)];
  const int channels = spread.image.channels, pitch = distances->columns() * learned::region;
  workers.for_ranges(distances->rows(), 1, [&](int row, int, int slot) {
    std::vector<learned::EdgeSums>& sums = regions[std::size_t(slot)].sums;
    std::vector<float>& pixels = regions[std::size_t(slot)].pixels;
    std::fill(sums.begin(), sums.end(), learned::EdgeSums{});
    for (int k = 0; k < learned::region; ++k) {
      const int y = row * learned::region + k;
      // The last regions may reach beyond the image, whose last row and column are repeated there.
      std::array<float*, 3> to{};
      for (int c = 0; c < channels; ++c)
        to[std::size_t(c)] = pixels.data() + std::ptrdiff_t{c * learned::region + k} * pitch;
      cpu::load_row(spread.image, std::min(y, spread.height - 1), 0, spread.width, to.data());
      for (int c = 0; c < channels; ++c)
        std::fill(to[std::size_t(c)] + spread.width, to[std::size_t(c)] + pitch, to[std::size_t(c)][spread.width - 1]);
      for (std::size_t o = 0; o < count; ++o) {
        const Octave& octave = octaves[o];
        const Edges& edges = o == 0 ? result.edges : octave.found.edges;
        const Range lines = put_into(y, spread.height, spread.number, octave.height, octave.number);
        const int group = learned::group(octave.number, spread.number);
        for (std::size_t i = octave.row_start[std::size_t(lines.begin)]; i < octave.row_start[std::size_t(lines.end)];
             ++i) {
          const int x = put(edges.position[i], octave.number, spread.number, spread.height, spread.width).x;
          sums[std::size_t(x / learned::region * learned::groups + group)].add(
              octave.number, spread.number, is_depth_edge(edges.depth_probability[i], depth_threshold), edges.radius[i],
              edges.radius_std[i], edges.depth_probability[i]);
        }
      }
    }
    for (int column = 0; column < distances->columns(); ++column) {
      float* const inputs = distances->inputs(row, column);
      for (int group = 0; group < learned::groups; ++group)
        sums[std::size_t(column * learned::groups + group)].write(inputs + group * learned::of_group);
      std::array<std::array<float, learned::region>, learned::region> mean;  // over channels
      for (int y = 0; y < learned::region; ++y) {
        auto& line = mean[std::size_t(y)] = {};
        for (int c = 0; c < channels; ++c)
          for (int x = 0; x < learned::region; ++x)
            line[std::size_t(x)] +=
                pixels[std::size_t((c * learned::region + y) * pitch + column * learned::region + x)];
        for (float& value : line) value /= float(channels);
      }
      const auto grey = [&](int y, int x) { return mean[std::size_t(y)][std::size_t(x)]; };
      for (int band = 0; band < learned::bands; ++band)
        inputs[learned::edge_inputs + band] = learned::contrast(band, grey);
    }
    domain_transform.measure_guide(row, channels, [&](int column, float across, float down) {
      const int top = row * learned::region, left = column * learned::region;
      const int bottom = std::min(top + learned::region, spread.height),
                right = std::min(left + learned::region, spread.width);
      float fine = 0, coarse = 0;
      for (int y = top; y < bottom; ++y)
        for (int x = left; x < right; ++x) {
          const std::uint8_t bits = barriers[spread.index({y, x})];
          fine += float((bits & learned::is_fine_barrier) != 0);
          coarse += float((bits & learned::is_coarse_barrier) != 0);
        }
      const float pixels = float((bottom - top) * (right - left));
      learned::write_rest(fine / pixels, coarse / pixels,
                          learned::size(height >> spread.number, width >> spread.number), across, down,
                          distances->inputs(row, column));
    });
  });
}

void Estimator::Cpu::mark_barriers(const BlurMap& result, std::size_t count) {
  const Octave& spread = octaves[std::size_t(propagation.octave)];
  barriers.assign(std::size_t(spread.height) * std::size_t(spread.width), 0);
  for (std::size_t o = 0; o < count; ++o) {
    const Octave& octave = octaves[o];
    const Edges& edges = o == 0 ? result.edges : octave.found.edges;
    const std::uint8_t bit = learned::barrier_bit(learned::group(octave.number, spread.number));
    for (std::size_t i = octave.row_start.front(); i < octave.row_start.back(); ++i)
      if (is_depth_edge(edges.depth_probability[i], depth_threshold) && (o == 0 || is_barrier(edges.radius[i])))
        for_barrier(put(edges.position[i], octave.number, spread.number, spread.height, spread.width),
                    std::max(octave.scale / spread.scale, 1),
                    [&](Pixel pixel) { barriers[spread.index(pixel)] |= bit; });
  }
}

/// From the octave in which radii are spread to the image, linearly between the pixels' centres.
void Estimator::Cpu::enlarge(const std::vector<float>& values, const MapView& out) {
  const Octave& spread = octaves[std::size_t(propagation.octave)];
  const Pixel pad = octaves[0].pad;
  workers.for_ranges(height, 32, [&](int begin, int end, int slot) {
    float* const line = lines[std::size_t(slot)].data();
    for (int y = begin; y < end; ++y) {
      const Between rows = between(y + pad.y, spread.number, spread.height);
      const float *above = values.data() + spread.index({rows.before, 0}),
                  *below = values.data() + spread.index({rows.after, 0});
      for (int x = 0; x < spread.width; ++x) line[x] = above[x] + rows.share * (below[x] - above[x]);
      for (int x = 0; x < width; ++x) {
        const Between& at = columns[std::size_t(x + pad.x)];
        *out.at(y, x) = line[at.before] + at.share * (line[at.after] - line[at.before]);
      }
    }
  });
}

/// From the canvas, and all octaves' edges behind those of the first.
void Estimator::Cpu::put_in_image(BlurMap& result, std::size_t count) {
  StageTimer timer(result, Stage::propagate);
  const Octave& octave = octaves[0];
  if (period > 1) {
    for (Pixel& at : result.edges.position) at = in_image(at, octave.pad, height, width);
    for (std::vector<std::uint8_t>* mask : {&result.pattern_edges, &result.depth_edges}) {
      for (int y = 0; y < height; ++y)  // to the front: no row is overwritten before it has been moved
        std::memmove(mask->data() + std::ptrdiff_t(y) * width,
                     mask->data() + octave.index({y + octave.pad.y, octave.pad.x}), std::size_t(width));
      mask->resize(std::size_t(height) * std::size_t(width));
    }
  }
  for (std::size_t o = 1; o < count; ++o) merge(octaves[o], result);
}

/// Adds what an octave's edges say to the result, in px of the image.
void Estimator::Cpu::merge(const Octave& octave, BlurMap& result) {
  for (std::size_t stage = 0; stage < result.stage_ms.size(); ++stage)
    result.stage_ms[stage] += octave.found.stage_ms[stage];
  const Edges& edges = octave.found.edges;
  Edges& all = result.edges;
  const float scale = float(octave.scale);
  for (std::size_t i = 0; i < edges.size(); ++i) {
    all.position.push_back(in_image(in_finer(edges.position[i], octave.scale), octaves[0].pad, height, width));
    all.octave.push_back(std::uint8_t(octave.number));
    all.depth_probability.push_back(edges.depth_probability[i]);
    all.radius.push_back(scale * edges.radius[i]);
    all.radius_std.push_back(scale * edges.radius_std[i]);
    all.radius_probability.push_back(edges.radius_probability[i]);
  }
  all.bin_probabilities.insert(all.bin_probabilities.end(), edges.bin_probabilities.begin(),
                               edges.bin_probabilities.end());
}

void Estimator::Cpu::warm_up() {
  const std::ptrdiff_t pixels = std::ptrdiff_t{height} * width;
  std::vector<float> map(static_cast<std::size_t>(pixels));
  const MapView out{map.data(), height, width, width * std::ptrdiff_t{sizeof(float)}};
  const Octave& spread = octaves[std::size_t(propagation.octave)];
  video.sorted.reserve(std::size_t(spread.height) * std::size_t(spread.width));
  {
    // No image needs more memory than one whose reductions are of float, and whose pixels are all edges.
    const std::vector<float> image(map.size() * 3);
    const ImageView view = ImageView::interleaved(image.data(), PixelType::float32, height, width, 3,
                                                  width * 3 * std::ptrdiff_t{sizeof(float)});
    const struct EveryPixel {
      bool& flag;
      explicit EveryPixel(bool& flag_) : flag(flag_) { flag = true; }
      ~EveryPixel() { flag = false; }
    } every_pixel(all_are_edges);
    estimate_into(view, out, {});
    estimate_reduced(view, {});
  }
  // What a frame takes: of noise, which has many edges. Each takes less than one of a photograph.
  std::vector<std::uint8_t> image(map.size() * 3);
  std::uint32_t state = 1;
  for (std::uint8_t& value : image) value = std::uint8_t((state = state * 1664525 + 1013904223) >> 24);
  const ImageView view =
      ImageView::interleaved(image.data(), PixelType::uint8, height, width, 3, width * std::ptrdiff_t{3});
  if (budget) budget->forget();
  for (int i = 0; i < 2; ++i) estimate_into(view, out, {});
  if (budget) budget->doubt();
}

std::unique_ptr<Estimator::Impl> Estimator::Impl::on_cpu(int height, int width, const Options& options,
                                                         const std::optional<ThreadPool>& pool,
                                                         const VideoOptions* video) {
  return std::make_unique<Cpu>(height, width, options, pool, video);
}

}  // namespace defocus_fast
