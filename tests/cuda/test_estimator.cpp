// SPDX-License-Identifier: Apache-2.0
// Whole frames on the device against the CPU's estimator.
#include <doctest/doctest.h>

#include <optional>

#include "../../cpp/src/device.hpp"
#include "../../cuda/stages.hpp"
#include "defocus_fast/error.hpp"
#include "defocus_fast/version.hpp"
#include "emulation.hpp"
#include "images.hpp"
#include "networks.hpp"

using namespace defocus_fast;
using namespace defocus_fast::test;

namespace {

// PROBABILITY_DEVICE, RADIUS_DEVICE, DEVIATION_DEVICE and ERROR_DEVICE of tests/tolerances.py, with their reasons.
constexpr float probability_tolerance = 1e-5f, radius_tolerance = 1e-4f, deviation_tolerance = 1e-3f,
                error_tolerance = 2e-3f;

struct Case {
  std::string model = "tip22";
  PixelType type = PixelType::uint8;
  int height = 1, width = 1, channels = 3;
  Layout layout = Layout::packed;
  int percent = -1;  // of the pixels are edges; -1: those that the detector finds
  Labels labels = Labels::posterior;
  int tile = 24;  // px
  int batch = 7;
  int max_edges = 0;  // 0: all pixels
  Precision precision = Precision::float32;
  int edge_stride = 1;
  Evaluation evaluation = Evaluation::shared;  // of the device; the CPU's is shared
  int octaves = 1;
  std::optional<PixelFormat> format = {};  // of a camera's frame, in place of type and layout
};

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  float largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const float difference = std::abs(a[i] - b[i]);
    largest = difference <= largest ? largest : difference;  // NaN is larger
  }
  return largest;
}

/// A threshold that splits the edges far from each one's probability, so that rounding decides nothing.
double threshold_between(std::vector<float> probabilities) {
  std::sort(probabilities.begin(), probabilities.end());
  double threshold = 0.5, widest = 0;
  for (std::size_t i = probabilities.size() / 4; i + 1 < probabilities.size() - probabilities.size() / 4; ++i)
    if (const double gap = double(probabilities[i + 1]) - probabilities[i]; gap > widest) {
      widest = gap;
      threshold = (double(probabilities[i]) + probabilities[i + 1]) / 2;
    }
  return threshold;
}

struct Answer {
  BlurMap expected, got;
};

/// As Estimator::Cuda's.
DeviceSetup make_setup(int height, int width, const Options& options) {
  const auto model = load_model(options.model);
  const bool hard = options.labels == Labels::hard;
  const int octaves = octave_count(height, width, options.octaves);
  return {.height = height,
          .width = width,
          .options = options,
          .model = model,
          .depth_threshold = options.depth_threshold.value_or(model->depth_threshold),
          .propagation = resolve(options.guide, options.propagation, hard ? 3.75 : model->sigma_r,
                                 hard ? 5 : model->iterations, height, width, octaves),
          .learns_distances = model->learns_distances() && !hard && octaves > 1,
          .period = grid_period(question_side(*model), octaves),
          .max_edges = options.max_edges.value_or(height * width),
          .shapes = cuda::network_shapes(height, width, options)};
}

Answer run(const Case& c) {
  const Picture picture = scene(c.type, c.height, c.width, c.channels, c.layout);
  std::optional<CameraFrame> of_camera;
  if (c.format) of_camera.emplace(*c.format, c.height, c.width);
  const ImageView image = of_camera ? of_camera->view : picture.view;
  const std::size_t pixels = std::size_t(c.height) * std::size_t(c.width);
  std::vector<std::uint8_t> mask(2 * pixels);  // a gap after each
  for (std::size_t i = 0; i < pixels; ++i) mask[2 * i] = random_int(0, 99) < c.percent ? 7 : 0;
  const MaskView edges{c.percent < 0 ? nullptr : mask.data(), c.height, c.width, 2 * std::ptrdiff_t(c.width), 2};

  Options options;
  options.model = c.model;
  options.device = "cpu";
  options.precision = Precision::float32;
  options.num_threads = 1;
  options.kernels = "portable";
  options.canny.smoothing = smoothing(options.canny.sigma);
  options.labels = c.labels;
  options.octaves = c.octaves;
  options.max_edges = c.max_edges == 0 ? int(pixels) : c.max_edges;
  const FrameOptions frame{
      .edges = edges, .edge_stride = c.edge_stride, .expected_error = true, .bin_probabilities = true};
  Answer answer;
  Estimator(c.height, c.width, options).estimate(image, answer.expected, frame);
  options.depth_threshold = threshold_between(answer.expected.edges.depth_probability);
  Estimator(c.height, c.width, options).estimate(image, answer.expected, frame);

  const auto model = load_model(c.model);
  options.precision = c.precision;
  options.evaluation = c.evaluation;
  DeviceSetup setup = make_setup(c.height, c.width, options);
  // Smaller ones than the library's, so that small images have several of both.
  if (c.evaluation == Evaluation::shared) {
    const int more = setup.period - 1;
    const int height = tile_side(*model, c.height + more, c.tile), width = tile_side(*model, c.width + more, c.tile);
    setup.shapes.image_height = height + 2 * network_margin(*model);
    setup.shapes.image_width = width + 2 * network_margin(*model);
    if (setup.shapes.cell_rows > 0) {
      setup.shapes.cell_rows = height / cell;
      setup.shapes.cell_columns = width / cell;
    }
  }
  if (setup.shapes.head_batch > 0) setup.shapes.head_batch = c.batch;
  setup.options.networks = std::make_shared<HostNetworks>(model, setup.shapes);
  const std::unique_ptr<Device> device(defocus_fast_make_device(DEFOCUS_FAST_VERSION, setup));
  answer.got.map.resize(pixels);
  const MapView out{answer.got.map.data(), c.height, c.width, c.width * 4};
  device->estimate(image, out, answer.got, frame);

  // In device memory, without allocation, with what the first frame left.
  std::vector<float> map(2 * pixels, -7.0f), error(pixels);
  const int before = emulation::allocations();
  device->enqueue({.image = image,
                   .edges = edges,
                   .edge_stride = c.edge_stride,
                   .out = {map.data(), c.height, c.width, 8 * c.width, 8},
                   .expected_error = {error.data(), c.height, c.width, 4 * c.width}},
                  nullptr);
  CHECK(emulation::allocations() == before);
  CHECK(error == answer.got.expected_error);
  bool equal = true;  // and nothing is written between the map's pixels
  for (std::size_t i = 0; i < pixels; ++i) equal &= map[2 * i] == answer.got.map[i] && map[2 * i + 1] == -7.0f;
  CHECK(equal);
  const EdgeCount count = device->edge_count(nullptr);
  CHECK(std::size_t(count.found) == answer.expected.edges.size());
  CHECK(count.kept == count.found);
  return answer;
}

void check(const Case& c) {
  CAPTURE(c.model);
  CAPTURE(c.height);
  CAPTURE(c.width);
  CAPTURE(c.percent);
  const auto [expected, got] = run(c);
  const float coarsest = expected.edges.octave.empty() ? 1 : float(1 << expected.edges.octave.back());
  CHECK(coarsest == float(1 << (c.octaves - 1)));
  CHECK(got.edges.position == expected.edges.position);
  CHECK(got.edges.octave == expected.edges.octave);
  CHECK(got.pattern_edges == expected.pattern_edges);
  CHECK(got.depth_edges == expected.depth_edges);
  CHECK(largest_difference(got.edges.depth_probability, expected.edges.depth_probability) <= probability_tolerance);
  CHECK(largest_difference(got.edges.bin_probabilities, expected.edges.bin_probabilities) <= probability_tolerance);
  CHECK(largest_difference(got.edges.radius_probability, expected.edges.radius_probability) <= probability_tolerance);
  CHECK(largest_difference(got.edges.radius, expected.edges.radius) <= coarsest * radius_tolerance);
  CHECK(largest_difference(got.edges.radius_std, expected.edges.radius_std) <= coarsest * deviation_tolerance);
  CHECK(largest_difference(got.map, expected.map) <= coarsest * radius_tolerance);
  CHECK(largest_difference(got.expected_error, expected.expected_error) <= coarsest * error_tolerance);
}

std::unique_ptr<Device> make(const char* model, int height, int width, int max_edges) {
  Options options;
  options.model = model;
  options.canny.smoothing = smoothing(options.canny.sigma);
  options.max_edges = max_edges;
  DeviceSetup setup = make_setup(height, width, options);
  setup.options.networks = std::make_shared<HostNetworks>(setup.model, setup.shapes);
  return std::unique_ptr<Device>(defocus_fast_make_device(DEFOCUS_FAST_VERSION, setup));
}

}  // namespace

TEST_CASE("whole frames equal the CPU's on images of awkward sizes") {
  for (const char* model : {"tip22", "cells"})
    for (const auto& [height, width] : std::vector<std::pair<int, int>>{{1, 1}, {1, 30}, {31, 1}, {7, 5}, {26, 49}})
      for (const int percent : {-1, 0, 10, 100}) {
        if (height > 20 && width > 1 && (percent == 0 || percent == (small_pictures ? 10 : 100))) continue;
        if (small_pictures && percent != (height * width > 1000 ? -1 : 10)) continue;
        const Labels labels = percent == 10 ? Labels::hard : Labels::posterior;
        check({model, random_int(0, 1) ? PixelType::uint8 : PixelType::float32, height, width, random_int(0, 1) ? 1 : 3,
               Layout(random_int(0, 3)), percent, labels});
      }
}

TEST_CASE("the whole networks on patches give what shared features give") {
  for (const auto& [height, width, percent] : {std::tuple{1, 1, 100}, {5, 1, 60}, {31, 26, -1}, {9, 11, 0}}) {
    Case c{"tip22",
           random_int(0, 1) ? PixelType::uint8 : PixelType::float32,
           height,
           width,
           random_int(0, 1) ? 1 : 3,
           Layout(random_int(0, 3)),
           percent};
    c.evaluation = Evaluation::patch;
    c.edge_stride = percent < 0 ? 2 : 1;
    c.max_edges = height * width > 90 ? 90 : 0;
    check(c);
  }
}

TEST_CASE("octaves") {
  for (const char* model : {"cells", "learned"}) {
    if (small_pictures && std::string(model) == "cells") continue;  // the other one runs all kernels of this one
    // The third octave is coarser than the one in which radii are spread, and the last regions are not whole.
    const PixelType type = std::string(model) == "cells" ? PixelType::float32 : PixelType::uint8;
    Case c{model, type, 257, type == PixelType::uint8 ? 263 : 258, type == PixelType::uint8 ? 3 : 1};
    c.octaves = 3;
    c.tile = 66;
    check(c);
  }
}

TEST_CASE("frames of cameras in host memory") {
  for (const PixelFormat format : {PixelFormat::nv12, PixelFormat::i420, PixelFormat::p010, PixelFormat::gray16}) {
    Case c{"cells", PixelType::uint8, 22, 26, 3, Layout::packed, 30};
    c.format = format;
    check(c);
  }
}

TEST_CASE("edges that would count nothing are not asked about") {
  const int height = 23, width = 19;
  for (const bool finer : {false, true}) {
    const int other_height = finer ? 2 * height + 1 : height / 2, other_width = finer ? 2 * width : width / 2;
    std::vector<std::uint8_t> said(std::size_t(other_height * other_width)), edges(std::size_t(height * width));
    for (auto& each : said) each = random_int(0, 3) ? 0 : std::uint8_t(is_read | (random_int(0, 7) << 1));
    for (auto& each : edges) each = std::uint8_t(random_int(0, 1));
    std::vector<std::uint8_t> left = edges, own(edges.size(), 77);
    cuda::Answers neighbour, answers;
    neighbour.height = other_height, neighbour.width = other_width, neighbour.said = said.data();
    answers.height = height, answers.width = width, answers.pattern_edges = left.data(), answers.said = own.data();
    cuda::drop_edges(neighbour, answers, nullptr);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        int all = 0;
        for (int v = finer ? 2 * y - 1 : y / 2 - 2; v <= (finer ? 2 * y + 2 : y / 2 + 2); ++v)
          for (int u = finer ? 2 * x - 1 : x / 2 - 2; u <= (finer ? 2 * x + 2 : x / 2 + 2); ++u)
            if (v >= 0 && v < other_height && u >= 0 && u < other_width) all |= said[std::size_t(v * other_width + u)];
        const std::size_t i = std::size_t(y * width + x);
        const bool dropped = edges[i] && all != 0 && !(all & (finer ? asks_coarser : asks_finer));
        CHECK(int(left[i]) == (dropped ? 0 : int(edges[i])));
        CHECK(int(own[i]) == (!dropped ? 0 : !finer && (all & is_sharp) ? is_read | asks_finer : int(is_read)));
      }
  }
}

TEST_CASE("edges on a grid") {
  for (const int stride : {2, 3}) {
    Case c{stride == 2 ? "cells" : "tip22", PixelType::uint8, 19, 22, 3, Layout::packed, 60};
    c.edge_stride = stride;
    check(c);
  }
}

TEST_CASE("networks in half precision agree to what half precision holds") {
  for (const char* model : {"tip22", "cells"}) {
    Case c{model, PixelType::uint8, 20, 23, 3, Layout::packed, 20};
    c.precision = Precision::float16;
    const auto [expected, got] = run(c);
    // 11 bits: features and probabilities are off by 5e-4 of themselves, which the layers between multiply.
    CHECK(largest_difference(got.edges.bin_probabilities, expected.edges.bin_probabilities) <= 2e-2f);
    CHECK(largest_difference(got.edges.bin_probabilities, expected.edges.bin_probabilities) > 0);
  }
}

TEST_CASE("more edges than there is memory for are an error from host memory and counted on the device") {
  const int height = 9, width = 11;
  const Picture image = scene(PixelType::uint8, height, width, 1);
  const std::unique_ptr<Device> device = make("tip22", height, width, 10);
  const std::vector<std::uint8_t> all(height * width, 1);
  std::vector<float> map(height * width);
  const MaskView edges{all.data(), height, width, width};
  const MapView out{map.data(), height, width, width * 4};
  BlurMap result;
  CHECK_THROWS_WITH_AS(device->estimate(image.view, out, result, {.edges = edges}),
                       "edges: found 99, but there is memory for 10: set max_edges", Error);
  device->enqueue({.image = image.view, .edges = edges, .out = out}, nullptr);
  const EdgeCount count = device->edge_count(nullptr);
  CHECK(count.found == 99);
  CHECK(count.kept == 10);
  CHECK(std::all_of(map.begin(), map.end(), [](float radius) { return radius >= 0 && radius <= 6.001f; }));
}

TEST_CASE("where cells answer no edge is lost, whatever max_edges is") {
  const int height = 9, width = 11, n = height * width;
  const Picture image = scene(PixelType::uint8, height, width, 1);
  const std::vector<std::uint8_t> all(std::size_t(n), 1);
  std::vector<float> map(n), expected(n);
  const auto view = [&](std::vector<float>& values) { return MapView{values.data(), height, width, width * 4}; };
  const FrameOptions frame{.edges = {all.data(), height, width, width}};
  BlurMap few, many;
  const std::unique_ptr<Device> device = make("cells", height, width, 1);
  device->estimate(image.view, view(map), few, frame);
  make("cells", height, width, n)->estimate(image.view, view(expected), many, frame);
  CHECK(map == expected);
  CHECK(few.edges.position.size() == std::size_t(n));
  CHECK(few.edges.radius == many.edges.radius);
  CHECK(device->edge_count(nullptr).found == n);
  CHECK(device->edge_count(nullptr).kept == n);
}

TEST_CASE("lists of edges that get longer from frame to frame") {
  const int height = 9, width = 11;
  const Picture image = scene(PixelType::uint8, height, width, 1);
  std::vector<std::uint8_t> mask(height * width);
  std::vector<float> map(height * width);
  const MapView out{map.data(), height, width, width * 4};
  for (const char* model : {"tip22", "cells"}) {
    const std::unique_ptr<Device> device = make(model, height, width, height * width);
    for (const int n : {0, 1, 20, 99, 3}) {
      for (int i = 0; i < height * width; ++i) mask[std::size_t(i)] = i < n;
      for (const bool bins : {false, true}) {
        if (small_pictures && bins != (n == 20)) continue;
        BlurMap result;
        device->estimate(image.view, out, result,
                         {.edges = {mask.data(), height, width, width}, .bin_probabilities = bins});
        CHECK(result.edges.position.size() == std::size_t(n));
        CHECK(result.edges.radius.size() == std::size_t(n));
        CHECK(result.edges.bin_probabilities.size() == (bins ? std::size_t(4 * n) : 0));
      }
    }
  }
}

TEST_CASE("frames that differ in any argument are not replayed for each other") {
  const Picture image = scene(PixelType::uint8, 3, 3, 1);
  const DeviceFrame frame{.image = image.view, .edges = {}, .out = {}};
  DeviceFrame grid = frame, error = frame;
  CHECK(grid == frame);
  grid.edge_stride = 2;
  CHECK_FALSE(grid == frame);
  error.expected_error.pitch_bytes = 4;
  CHECK_FALSE(error == frame);
}

TEST_CASE("maps in device memory") {
  const int height = 9, width = 11;
  const Picture image = scene(PixelType::uint8, height, width, 3);
  std::unique_ptr<Device> device = make("cells", height, width, 1);
  std::vector<float> expected(height * width);
  device->enqueue({.image = image.view, .edges = {}, .out = {expected.data(), height, width, width * 4}}, nullptr);
  const std::shared_ptr<float> map = device->make_map();
  const DeviceFrame frame{.image = image.view, .edges = {}, .out = {map.get(), height, width, width * 4}};
  device->order(nullptr, reinterpret_cast<cuda::Stream>(1));
  device->enqueue(frame, nullptr);
  CHECK(device->gpu() == 0);
  for (const auto& [memory, message] :
       {std::pair{"unknown", "image: expected memory of GPU 0, got memory that no GPU knows"},
        std::pair{"1", "image: expected memory of GPU 0, got memory of GPU 1"}}) {
    setenv("EMULATION_MEMORY", memory, 1);
    CHECK_THROWS_WITH_AS(device->enqueue(frame, nullptr), message, InvalidArgument);
    unsetenv("EMULATION_MEMORY");
  }
  emulation::fail_next_allocation();
  CHECK_THROWS_WITH_AS(device->make_map(), "cudaMalloc of 396 bytes: out of memory", Error);
  std::fill_n(map.get(), height * width, -1.0f);
  device->enqueue(frame, nullptr);  // what failed and was told is not told again
  device.reset();                   // the map outlives it
  CHECK(std::equal(expected.begin(), expected.end(), map.get()));
}

TEST_CASE("a CUDA part of another version, or without networks, is refused") {
  Options options;
  options.model = "cells";
  const DeviceSetup setup = make_setup(1, 1, options);
  CHECK_THROWS_AS(defocus_fast_make_device("0.0.0", setup), BackendUnavailable);
  CHECK_THROWS_AS(defocus_fast_make_device(DEFOCUS_FAST_VERSION, setup), BackendUnavailable);
}
