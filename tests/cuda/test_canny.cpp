// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "../../cpp/src/stages.hpp"
#include "../../cuda/stages.hpp"
#include "emulation.hpp"
#include "images.hpp"

using namespace defocus_fast;
using namespace defocus_fast::test;

namespace {

struct Device {
  Device(int height, int width, const CannyOptions& options) : detector(height, width, options, arena) {
    arena.allocate();
  }
  cuda::Arena arena;
  cuda::EdgeDetector detector;
};

CannyOptions options_of(double sigma, double low, double high) {
  CannyOptions options;
  options.sigma = sigma;
  options.low = low;
  options.high = high;
  options.smoothing = smoothing(sigma);
  return options;
}

constexpr int period = 12;  // px

/// Compares with the CPU's edges, and where they lie on a canvas; returns how many there are.
int check_edges(const ImageView& image, const CannyOptions& options) {
  const std::size_t pixels = std::size_t(image.height) * std::size_t(image.width);
  Workers workers{ThreadPool(1)};
  std::vector<std::uint8_t> expected(pixels, 9), mask(pixels, 9);
  cpu::EdgeDetector detector(image.height, image.width, options, select_kernels("portable"), workers);
  const Pixel pad = pad_of(detector.detect_edges(image), period);
  detector.write_mask(expected.data(), image.width);
  Pixel found{-1, -1};
  const cuda::Canvas canvas{image.height + period - 1, image.width + period - 1, &found};
  std::vector<std::uint8_t> on_canvas(std::size_t(canvas.height) * std::size_t(canvas.width), 0), got(on_canvas);
  detector.write_mask(on_canvas.data() + std::ptrdiff_t(pad.y) * canvas.width + pad.x, canvas.width);
  Device device(image.height, image.width, options);
  for (int run = 0; run < 2; ++run) {  // the second finds what the first left in memory
    device.detector.detect_edges(image, nullptr);
    device.detector.write_mask({image.height, image.width}, mask.data(), nullptr);
    CHECK(mask == expected);
    device.detector.place(period, &found, nullptr);
    CHECK(found.y == pad.y);
    CHECK(found.x == pad.x);
    std::fill(got.begin(), got.end(), std::uint8_t{9});
    device.detector.write_mask(canvas, got.data(), nullptr);
    CHECK(got == on_canvas);
  }
  return int(std::count(expected.begin(), expected.end(), 1));
}

}  // namespace

TEST_CASE("edges equal the CPU's bit for bit, whatever the layout of the image") {
  int edges = 0;
  for (const PixelType type : {PixelType::uint8, PixelType::float32})
    for (const int channels : {1, 3})
      for (const Layout layout : {Layout::packed, Layout::odd_pitch, Layout::planar, Layout::flipped}) {
        CAPTURE(int(type));
        CAPTURE(channels);
        CAPTURE(int(layout));
        const Picture image = scene(type, small_pictures ? 37 : 83, small_pictures ? 41 : 131, channels, layout);
        edges += check_edges(image.view, options_of(std::sqrt(2.0), 0.08, 0.2));
      }
  CHECK(edges > 1000);
}

TEST_CASE("edges of images of awkward sizes") {
  for (const PixelType type : {PixelType::uint8, PixelType::float32})
    for (const auto& [height, width] : std::vector<std::pair<int, int>>{
             {1, 1}, {1, 70}, {70, 1}, {2, 2}, {2, 50}, {3, 3}, {3, 33}, {9, 32}, {8, 33}, {17, 31}, {600, 3}}) {
      if (small_pictures && height > 100) continue;
      CAPTURE(height);
      CAPTURE(width);
      const Picture image = scene(type, height, width, 3);
      for (const double sigma : {0.1, 1.5, 6.0}) check_edges(image.view, options_of(sigma, 0.02, 0.05));
    }
}

TEST_CASE("edges at extreme thresholds") {
  const Picture image = scene(PixelType::uint8, 45, 52, 3);
  const Picture flat = picture(PixelType::float32, 40, 44, 1, Layout::packed, [](int, int, int) { return 0.5f; });
  CHECK(check_edges(image.view, options_of(1, 0, 0)) > 300);
  CHECK(check_edges(image.view, options_of(1, 0, 100)) == 0);
  CHECK(check_edges(image.view, options_of(1, 0.1, 0.1)) > 0);
  CHECK(check_edges(flat.view, options_of(1, 0, 0)) >= 0);
  CHECK(check_edges(flat.view, options_of(1, 0.05, 0.1)) == 0);
}

TEST_CASE("hysteresis follows a chain through the whole image") {
  // A band of weak contrast that winds from top to bottom; its outline is one chain. Only towards its end does the
  // contrast grow beyond the high threshold.
  const int n = small_pictures ? 60 : 180, bands = (n - 10) / 10;
  const auto value = [&](int y, int x, float end) {
    const int band = (y - 5) / 10, turn = band % 2 == 0 ? n - 12 : 5;
    const bool inside = y >= 5 && band < bands && x >= 5 && x < n - 5 &&
                        ((y - 5) % 10 < 5 || (band + 1 < bands && x >= turn && x < turn + 7));
    if (!inside) return 0.2f;
    const float to_end = float(bands % 2 == 1 ? n - 6 - x : x - 5) / 20;
    return band == bands - 1 && to_end < 1 ? 0.3f + (end - 0.3f) * (1 - to_end) : 0.3f;
  };
  const CannyOptions options = options_of(1, 0.05, 0.8);
  for (const PixelType type : {PixelType::uint8, PixelType::float32}) {
    const auto edges = [&](float end) {
      const auto pixel = [&](int y, int x, int) { return value(y, x, end); };
      return check_edges(picture(type, n, n, 1, Layout::packed, pixel).view, options);
    };
    CHECK(edges(0.3f) == 0);
    CHECK(edges(1.0f) > 2 * bands * (n - 20));
  }
}
