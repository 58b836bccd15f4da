// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "defocus_fast/error.hpp"
#include "defocus_fast/estimator.hpp"

using namespace defocus_fast;

namespace {

constexpr int height = 70, width = 90;

std::vector<std::uint8_t> checkerboard() {
  std::vector<std::uint8_t> pixels(std::size_t{height} * width * 3);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c)
        pixels[std::size_t((y * width + x) * 3 + c)] = std::uint8_t((x / 12 + y / 12) % 2 ? 200 - 20 * c : 30 + 10 * c);
  return pixels;
}

ImageView view(const std::vector<std::uint8_t>& pixels) {
  return ImageView::interleaved(pixels.data(), PixelType::uint8, height, width, 3, width * 3);
}

Options options(Evaluation evaluation = Evaluation::automatic) {
  Options result;
  result.model = TEST_MODEL;
  result.precision = Precision::float32;
  result.evaluation = evaluation;
  result.num_threads = 2;
  return result;
}

}  // namespace

TEST_CASE("shared and patch evaluation give the same radii") {
  const auto pixels = checkerboard();
  BlurMap shared, patch;
  Estimator(height, width, options(Evaluation::shared)).estimate(view(pixels), shared, {}, {.bin_probabilities = true});
  Estimator(height, width, options(Evaluation::patch)).estimate(view(pixels), patch, {}, {.bin_probabilities = true});
  CHECK(shared.edges == patch.edges);
  REQUIRE(shared.bin_probabilities.size() == patch.bin_probabilities.size());
  REQUIRE(shared.radii.size() > 100);
  for (std::size_t i = 0; i < shared.bin_probabilities.size(); ++i)
    CHECK(shared.bin_probabilities[i] == doctest::Approx(patch.bin_probabilities[i]).epsilon(1e-4).scale(1));
}

TEST_CASE("estimate_into writes within its pitch and equals estimate") {
  const auto pixels = checkerboard();
  Estimator estimator(height, width, options());
  BlurMap result;
  estimator.estimate(view(pixels), result);
  std::vector<float> wide(std::size_t{height} * 128, -7.0f);
  estimator.estimate_into(view(pixels), {wide.data(), height, width, 128 * 4});
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < 128; ++x)
      CHECK(wide[std::size_t(y * 128 + x)] == (x < width ? result.map[std::size_t(y * width + x)] : -7.0f));
}

TEST_CASE("one estimator serves several threads, and moves") {
  const auto pixels = checkerboard();
  Estimator first(height, width, options());
  Estimator estimator = std::move(first);
  BlurMap expected;
  estimator.estimate(view(pixels), expected);
  std::vector<std::vector<float>> maps(4, std::vector<float>(expected.map.size()));
  std::vector<std::thread> threads;
  for (auto& map : maps)
    threads.emplace_back([&] {
      for (int i = 0; i < 3; ++i) estimator.estimate_into(view(pixels), {map.data(), height, width, width * 4});
    });
  for (auto& thread : threads) thread.join();
  for (const auto& map : maps) CHECK(map == expected.map);
}

TEST_CASE("errors have one base and say what was got") {
  const auto pixels = checkerboard();
  Estimator estimator(height, width, options());
  std::vector<float> map(std::size_t{height} * width);
  const MapView out{map.data(), height, width, width * 4};
  ImageView image = view(pixels);
  image.channels = 2;
  CHECK_THROWS_WITH_AS(estimator.estimate_into(image, out),
                       "image: expected 1 or 3 channels, got height 70, width 90, channels 2", InvalidArgument);
  image = view(pixels);
  image.data = nullptr;
  CHECK_THROWS_AS(estimator.estimate_into(image, out), InvalidArgument);
  CHECK_THROWS_AS(estimator.estimate_into(view(pixels), {nullptr, height, width, width * 4}), InvalidArgument);
  Options wrong = options();
  wrong.model = "no/such/folder";
  CHECK_THROWS_AS(Estimator(height, width, wrong), ModelError);
  wrong = options();
  wrong.device = "cuda";
  CHECK_THROWS_AS(Estimator(height, width, wrong), BackendUnavailable);
  wrong = options();
  wrong.num_threads = -1;
  CHECK_THROWS_AS(Estimator(height, width, wrong), Error);
}

TEST_CASE("null and overflowing views are refused") {
  const std::vector<std::uint8_t> pixels = checkerboard();
  std::vector<float> map(std::size_t{height} * width), grey(map.size());
  CHECK_THROWS_WITH_AS(detect_edges(view(pixels), {}, nullptr, 1), "mask: expected a pointer to pixels, got null",
                       InvalidArgument);
  const ImageView guide = ImageView::interleaved(grey.data(), PixelType::float32, height, width, 1, 4 * width);
  CHECK_THROWS_WITH_AS(domain_transform_filter(guide, guide, {}, nullptr, 1),
                       "out: expected a pointer to pixels, got null", InvalidArgument);
  constexpr std::ptrdiff_t far = std::ptrdiff_t{1} << 62;
  const RadiiView radii{map.data(), height, width, 4 * width};
  const MaskView mask{pixels.data(), height, width, width};
  const MapView out{map.data(), height, width, 4 * width};
  CHECK_THROWS_AS(propagate(view(pixels), {map.data(), height, width, far}, mask, mask, {}, out, 1), InvalidArgument);
  CHECK_THROWS_AS(propagate(view(pixels), radii, {pixels.data(), height, width, far}, mask, {}, out, 1),
                  InvalidArgument);
  CHECK_THROWS_AS(propagate(view(pixels), radii, mask, mask, {}, {map.data(), height, width, -far}, 1),
                  InvalidArgument);
  CHECK_THROWS_AS(Estimator(1, (1 << 30) + 1, options()), InvalidArgument);
}
