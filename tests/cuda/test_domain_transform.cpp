// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <limits>

#include "../../cpp/src/stages.hpp"
#include "../../cuda/stages.hpp"
#include "emulation.hpp"
#include "images.hpp"

using namespace defocus_fast;
using namespace defocus_fast::test;

namespace {

// FILTER and PROPAGATED of tests/tolerances.py, with their reasons.
constexpr float filter_tolerance = 2e-6f, propagated_tolerance = 2e-5f;
// px; of E = sqrt(0.25^2 + 2^2 v), v = mean square - map^2. The mean square, up to 6^2 + 2^2, is as good relative to
// itself as the map; the map's square is off by 2 * 6 times what the map is; dE/dv = 2^2 / (2 E) is at most 8.
constexpr float error_tolerance = 8 * (40 * propagated_tolerance / 6 + 12 * propagated_tolerance);

struct Device {
  Device(int height, int width) : transform(height, width, arena) { arena.allocate(); }
  cuda::Arena arena;
  cuda::DomainTransform transform;
};

float largest_difference(cpu::DomainTransform& expected, const cuda::DomainTransform& got, int signal, int height,
                         int width) {
  float largest = 0;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const float difference =
          std::abs(expected.signal(signal).row(y)[x] - got.signal(signal)[std::ptrdiff_t(y) * width + x]);
      largest = difference <= largest ? largest : difference;  // NaN is larger
    }
  return largest;
}

/// Both filters on the same image and guide.
void check_filter(const ImageView& image, const ImageView& guide, const FilterOptions& options,
                  const std::vector<std::uint8_t>& depth) {
  const int height = image.height, width = image.width;
  Workers workers(1);
  cpu::DomainTransform expected(height, width, select_kernels("portable"), workers);
  Device device(height, width);
  const std::uint8_t* const barrier = depth.empty() ? nullptr : depth.data();
  expected.load(guide);
  expected.set_feedback(guide.channels, options.sigma_s / options.sigma_r, options, barrier, 20);
  expected.load(image);
  const int before = emulation::allocations();
  device.transform.load(guide, nullptr);
  device.transform.set_feedback(guide.channels, options.sigma_s / options.sigma_r, options, barrier, 20, nullptr);
  device.transform.load(image, nullptr);
  for (int c = 0; c < image.channels; ++c) CHECK(largest_difference(expected, device.transform, c, height, width) == 0);
  expected.filter(image.channels, options.iterations);
  device.transform.filter(image.channels, options.iterations, nullptr);
  CHECK(emulation::allocations() == before);
  for (int c = 0; c < image.channels; ++c)
    CHECK(largest_difference(expected, device.transform, c, height, width) <= filter_tolerance);
}

/// Edges with answers, on the device and as the estimator's seed of the CPU stage.
struct Seeds {
  Seeds(int height, int width, int percent) : detector(height, width, {}, height * width, arena) {
    arena.allocate();
    pattern.resize(std::size_t(height * width));
    depth_edges.resize(pattern.size());
    std::vector<std::uint8_t> mask(pattern.size());
    for (auto& value : mask) value = random_int(0, 99) < percent;
    detector.list_edges(mask.data(), nullptr);
    for (int i = 0; i < detector.edges().count->kept; ++i) {
      const std::int32_t* edge = detector.edges().edges + 2 * i;
      const bool depth = random_int(0, 9) < 3;
      depth_probability.push_back(depth ? 0.9f : random_float(0, 0.5f));
      radii.push_back(random_float(0.5f, 6));
      deviation.push_back(random_float(0, 2));
      (depth ? depth_edges : pattern)[std::size_t(edge[0] * width + edge[1])] = 1;
    }
  }
  const cuda::EdgeList& edges() const { return detector.edges(); }
  cuda::Answers answers() {
    cuda::Answers result;
    result.depth_probability = depth_probability.data();
    result.radii = radii.data();
    result.radius_std = deviation.data();
    result.depth_edges = depth_edges.data();
    return result;
  }
  float weight(Labels labels, std::size_t i) const {
    const float certainty = 0.15f / (0.15f + deviation[i]);
    const bool depth = depth_probability[i] > 0.5f;
    if (labels == Labels::hard) return depth ? 0.0f : 1.0f;
    return (depth ? 0.02f : 1.0f - depth_probability[i]) * certainty * certainty;
  }

  cuda::Arena arena;
  cuda::EdgeDetector detector;
  std::vector<float> depth_probability, radii, deviation;
  std::vector<std::uint8_t> pattern, depth_edges;
};

struct Map {
  Map(int height, int width, std::ptrdiff_t stride, std::ptrdiff_t pitch)
      : values(std::size_t((height - 1) * pitch + (width - 1) * stride + 1), -7.0f),
        view{values.data(), height, width, pitch * 4, stride * 4} {}
  std::vector<float> values;
  MapView view;
};

void check_propagation(const ImageView& image, Seeds& seeds, Labels labels, const PropagationOptions& options,
                       bool with_error) {
  const int height = image.height, width = image.width;
  Workers workers(1);
  cpu::DomainTransform transform(height, width, select_kernels("portable"), workers);
  Map expected(height, width, 1, width), got(height, width, 2, 2 * width + 3), error(height, width, 3, 3 * width);
  std::vector<float> deviations(std::size_t(height * width));
  cpu::propagate(
      transform, image, seeds.depth_edges.data(), options,
      [&](int y, const cpu::SeedRows& rows) {
        for (int i = 0; i < seeds.edges().count->kept; ++i) {
          const std::int32_t* edge = seeds.edges().edges + 2 * i;
          const float radius = seeds.radii[std::size_t(i)], deviation = seeds.deviation[std::size_t(i)];
          if (edge[0] != y) continue;
          rows.weights[edge[1]] = seeds.weight(labels, std::size_t(i));
          rows.radii[edge[1]] = rows.weights[edge[1]] * radius;
          if (rows.squares) rows.squares[edge[1]] = rows.weights[edge[1]] * (radius * radius + deviation * deviation);
        }
      },
      expected.view, with_error ? deviations.data() : nullptr, 6);
  Device device(height, width);
  const int before = emulation::allocations();
  cuda::propagate(device.transform, image, options, seeds.edges(), seeds.answers(), labels, got.view,
                  {with_error ? error.view : MapView{}, 0.25f, 2, 6}, nullptr);
  CHECK(emulation::allocations() == before);
  float largest = 0;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const float difference = std::abs(*expected.view.at(y, x) - *got.view.at(y, x));
      largest = difference <= largest ? largest : difference;
      if (x + 1 < width) CHECK(got.view.at(y, x)[1] == -7.0f);  // what lies between the map's pixels
      const float deviation = deviations[std::size_t(y * width + x)];
      if (with_error) CHECK(std::abs(*error.view.at(y, x) - std::hypot(0.25f, 2 * deviation)) <= error_tolerance);
    }
  CHECK(largest <= propagated_tolerance);
}

}  // namespace

TEST_CASE("the filter agrees with the CPU's, whatever the layout, type and number of signals") {
  const int height = small_pictures ? 19 : 67, width = small_pictures ? 35 : 141;
  for (const PixelType type : {PixelType::uint8, PixelType::float32})
    for (const int channels : {1, 3})
      for (const int guide_channels : {1, 3})
        for (const Layout layout : {Layout::packed, Layout::odd_pitch, Layout::planar, Layout::flipped}) {
          if (small_pictures && layout == Layout::planar) continue;
          const Picture image = scene(type, height, width, channels, layout);
          const Picture guide = scene(type, height, width, guide_channels, layout);
          check_filter(image.view, guide.view, {7, 0.5, 5}, {});
        }
}

TEST_CASE("the filter on lines of awkward and great length") {
  for (const auto& [height, width] : std::vector<std::pair<int, int>>{{1, 1},
                                                                      {1, 2},
                                                                      {2, 1},
                                                                      {1, 127},
                                                                      {1, 129},
                                                                      {64, 1},
                                                                      {65, 1},
                                                                      {63, 65},
                                                                      {5, 1023},
                                                                      {3, 1025},
                                                                      {1, 20'001},
                                                                      {1'001, 2},
                                                                      {193, 33}}) {
    if (small_pictures && height * width > 6000) continue;
    CAPTURE(height);
    CAPTURE(width);
    const Picture image = scene(PixelType::float32, height, width, 3);
    check_filter(image.view, image.view, {40, 3.75, 5}, {});
  }
  if (small_pictures) return;
  const Picture column = scene(PixelType::float32, 16'385, 1, 1);
  check_filter(column.view, column.view, {40, 3.75, 1}, {});
}

TEST_CASE("the filter across depth edges and with few or many iterations") {
  const Picture image = scene(PixelType::uint8, 31, 43, 3);
  std::vector<std::uint8_t> depth(31 * 43);
  for (auto& value : depth) value = random_int(0, 9) == 0;
  for (const int iterations : {1, 2, 16})
    for (const double sigma_s : {0.3, 7.0, 1000.0})
      check_filter(image.view, image.view, {sigma_s, 0.5, iterations}, depth);
}

TEST_CASE("two signals share their coefficients") {
  const int height = 21, width = 70;
  const Picture image = scene(PixelType::float32, height, width, 3);
  Workers workers(1);
  cpu::DomainTransform expected(height, width, select_kernels("portable"), workers);
  Device device(height, width);
  expected.load(image.view);
  expected.set_feedback(3, 14, {7, 0.5, 5}, nullptr, 0);
  expected.filter(2, 5);
  device.transform.load(image.view, nullptr);
  device.transform.set_feedback(3, 14, {7, 0.5, 5}, nullptr, 0, nullptr);
  device.transform.filter(2, 5, nullptr);
  for (int i = 0; i < 2; ++i)
    CHECK(largest_difference(expected, device.transform, i, height, width) <= filter_tolerance);
  CHECK(largest_difference(expected, device.transform, 2, height, width) == 0);
}

TEST_CASE("radii are spread as on the CPU") {
  for (const Labels labels : {Labels::posterior, Labels::hard})
    for (const int channels : {1, 3})
      for (const auto& [height, width] :
           std::vector<std::pair<int, int>>{{1, 1}, {1, 90}, {90, 1}, {small_pictures ? 20 : 71, 43}}) {
        CAPTURE(height);
        CAPTURE(width);
        const PixelType type = channels == 1 ? PixelType::float32 : PixelType::uint8;
        const Picture image = scene(type, height, width, channels, Layout::odd_pitch);
        for (const int percent : {0, 15, 100}) {
          CAPTURE(percent);
          Seeds seeds(height, width, percent);
          check_propagation(image.view, seeds, labels, {}, percent != 15 || labels == Labels::posterior);
        }
      }
}

TEST_CASE("where no pattern edge is in reach the map is the mean radius") {
  const int height = 8, width = small_pictures ? 60 : 300;
  const Picture image = picture(PixelType::uint8, height, width, 1, Layout::packed, [](int, int x, int) {
    return x % 2 == 0 ? 0.0f : 1.0f;  // no coefficient lets anything through
  });
  Seeds seeds(height, width, 0);
  std::vector<std::uint8_t> mask(seeds.pattern.size());
  mask[std::size_t(3 * width)] = 1;
  seeds.detector.list_edges(mask.data(), nullptr);
  seeds.radii = {2.75f};
  seeds.deviation = {0.2f};
  seeds.depth_probability = {0.0f};
  PropagationOptions options;
  options.sigma_s = 1;
  options.sigma_r = 0.01;
  Device device(height, width);
  Map out(height, width, 1, width), error(height, width, 1, width);
  cuda::propagate(device.transform, image.view, options, seeds.edges(), seeds.answers(), Labels::hard, out.view,
                  {error.view, 0.3f, 2, 6}, nullptr);
  for (const float value : out.values) CHECK(value == doctest::Approx(2.75).epsilon(1e-6));
  CHECK(error.values.back() == doctest::Approx(std::hypot(0.3, 2 * 0.2)).epsilon(1e-5));
  float weight = 0;
  for (int y = 0; y < height; ++y) weight += device.transform.signal(1)[y * width + width - 1];
  CHECK(weight == 0.0f);
}
