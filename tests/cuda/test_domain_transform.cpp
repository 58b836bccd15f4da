// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <limits>

#include "../../cpp/src/stages.hpp"
#include "edges.hpp"
#include "emulation.hpp"

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
  Workers workers{ThreadPool(1)};
  cpu::DomainTransform expected(height, width, select_kernels("portable"), workers);
  Device device(height, width);
  const std::uint8_t* const barrier = depth.empty() ? nullptr : depth.data();
  expected.load(guide);
  expected.set_feedback(guide.channels, options.sigma_s / options.sigma_r, options, barrier, 20);
  expected.load(image);
  const int before = emulation::allocations();
  device.transform.load(guide, nullptr);
  device.transform.set_feedback(guide.channels, options.sigma_s / options.sigma_r, options, barrier, 20, {}, nullptr);
  device.transform.load(image, nullptr);
  for (int c = 0; c < image.channels; ++c) CHECK(largest_difference(expected, device.transform, c, height, width) == 0);
  expected.filter(image.channels, options.iterations);
  device.transform.filter(image.channels, options.iterations, nullptr);
  CHECK(emulation::allocations() == before);
  for (int c = 0; c < image.channels; ++c)
    CHECK(largest_difference(expected, device.transform, c, height, width) <= filter_tolerance);
}

/// Edges with answers, by pixel or by cell.
struct Seeds : DeviceEdges {
  Seeds(int height, int width, int side, int percent) : DeviceEdges(height, width, side, 0) {
    scatter(percent);
    for (int i = 0; i < questions(); ++i) {
      answers.depth_probability[i] = random_int(0, 9) < 3 ? 0.9f : random_float(0, 0.5f);
      answers.radius[i] = random_float(0.5f, 6);
      answers.radius_std[i] = random_float(0, 2);
    }
    cuda::split_edges(0.5, answers, nullptr);
  }

  /// As the estimator's of the CPU stage.
  void write(Labels labels, int y, const cpu::SeedRows& rows) const {
    for (int x = 0; x < answers.width; ++x) {
      const std::ptrdiff_t at = answers.pixel(y, x), question = answers.question(y, x);
      const bool depth = answers.depth_edges[at] != 0;
      if (!depth && !answers.pattern_edges[at]) continue;
      const float deviation = answers.radius_std[question];
      const float weight = edge_weight(labels, depth, answers.depth_probability[question], deviation, 0);
      if (weight > 0) rows.add(x, make_seed(weight, answers.radius[question], deviation));
    }
  }
};

Propagation propagation(int height, int width, const PropagationOptions& options) {
  return resolve({}, options, 3.75, 5, height, width, 1);
}

struct Map {
  Map(int height, int width, std::ptrdiff_t stride, std::ptrdiff_t pitch)
      : values(std::size_t((height - 1) * pitch + (width - 1) * stride + 1), -7.0f),
        view{values.data(), height, width, pitch * 4, stride * 4} {}
  std::vector<float> values;
  MapView view;
};

void check_propagation(const ImageView& image, const Seeds& seeds, Labels labels, bool with_error) {
  const int height = image.height, width = image.width;
  const Propagation options = propagation(height, width, {});
  Workers workers{ThreadPool(1)};
  cpu::DomainTransform transform(height, width, select_kernels("portable"), workers);
  Map expected(height, width, 1, width), got(height, width, 2, 2 * width + 3), error(height, width, 3, 3 * width);
  std::vector<float> deviations(std::size_t(height * width));
  transform.make_guide(image, options);
  transform.propagate(
      image.channels, seeds.answers.depth_edges, options, {},
      [&](int y, const cpu::SeedRows& rows) { seeds.write(labels, y, rows); }, expected.view,
      with_error ? deviations.data() : nullptr, 6);
  Device device(height, width);
  const int before = emulation::allocations();
  device.transform.propagate(image, options, {1, {seeds.answers}, 6}, seeds.answers.depth_edges, nullptr, labels,
                             got.view, {with_error ? error.view : MapView{}, 0.25f, 2, 6}, nullptr);
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
  Workers workers{ThreadPool(1)};
  cpu::DomainTransform expected(height, width, select_kernels("portable"), workers);
  Device device(height, width);
  expected.load(image.view);
  expected.set_feedback(3, 14, {7, 0.5, 5}, nullptr, 0);
  expected.filter(2, 5);
  device.transform.load(image.view, nullptr);
  device.transform.set_feedback(3, 14, {7, 0.5, 5}, nullptr, 0, {}, nullptr);
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
        // The sums of seeds have 65536 threads, however small the picture is.
        if (small_pictures && (width == 1 || (labels == Labels::hard) != (channels == 1))) continue;
        CAPTURE(height);
        CAPTURE(width);
        const PixelType type = channels == 1 ? PixelType::float32 : PixelType::uint8;
        const Picture image = scene(type, height, width, channels, Layout::odd_pitch);
        for (const int percent : {0, 15, 100})
          for (const int side : {1, cell}) {
            if (small_pictures && percent != 15) continue;
            CAPTURE(percent);
            CAPTURE(side);
            const Seeds seeds(height, width, side, percent);
            check_propagation(image.view, seeds, labels, percent != 15 || labels == Labels::posterior);
          }
      }
}

TEST_CASE("where no pattern edge is in reach the map is the mean radius") {
  const int height = 8, width = small_pictures ? 60 : 300;
  const Picture image = picture(PixelType::uint8, height, width, 1, Layout::packed, [](int, int x, int) {
    return x % 2 == 0 ? 0.0f : 1.0f;  // no coefficient lets anything through
  });
  DeviceEdges seeds(height, width, 1, 0);
  const int edge = 3 * width;
  seeds.answers.pattern_edges[edge] = 1;
  seeds.answers.radius[edge] = 2.75f;
  seeds.answers.radius_std[edge] = 0.2f;
  Device device(height, width);
  Map out(height, width, 1, width), error(height, width, 1, width);
  device.transform.propagate(image.view, propagation(height, width, {.sigma_s = 1, .sigma_r = 0.01, .iterations = 5}),
                             {1, {seeds.answers}, 6}, seeds.answers.depth_edges, nullptr, Labels::hard, out.view,
                             {error.view, 0.3f, 2, 6}, nullptr);
  for (const float value : out.values) CHECK(value == doctest::Approx(2.75).epsilon(1e-6));
  CHECK(error.values.back() == doctest::Approx(std::hypot(0.3, 2 * unknown_share * (2.75 + 1))).epsilon(1e-5));
  float weight = 0;
  for (int y = 0; y < height; ++y) weight += device.transform.signal(1)[y * width + width - 1];
  CHECK(weight == 0.0f);
}
