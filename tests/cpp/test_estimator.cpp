// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <thread>

#include "defocus_fast/error.hpp"
#include "defocus_fast/video.hpp"
#include "model.hpp"
#include "tile_networks.hpp"

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

Options options() {
  Options result;
  result.model = TEST_MODEL;
  result.precision = Precision::float32;
  result.num_threads = 2;
  return result;
}

}  // namespace

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

TEST_CASE("estimators on one pool answer side by side as alone, in any order of their ends") {
  const auto pixels = checkerboard();
  Options alone = options();
  alone.model += "/../fast";
  Options shared = alone;
  shared.num_threads.reset();
  std::optional<ThreadPool> pool(3);
  BlurMap expected;
  Estimator(height, width, alone).estimate(view(pixels), expected);
  // Of a part of the image, which takes less time.
  ImageView part = view(pixels);
  part.height = 40;
  BlurMap expected_of_part;
  Estimator(40, width, alone).estimate(part, expected_of_part);

  std::vector<std::unique_ptr<Estimator>> estimators;
  for (int i = 0; i < 4; ++i)
    estimators.push_back(std::make_unique<Estimator>(i % 2 ? 40 : height, width, shared, pool));
  VideoEstimator video(height, width, shared, {}, pool);
  CHECK(estimators[0]->num_threads() == 3);
  CHECK(video.num_threads() == 3);
  pool.reset();
  std::atomic<int> good = 0;
  std::vector<std::thread> callers;
  for (std::size_t i = 0; i < 4; ++i)
    callers.emplace_back([&, i] {
      BlurMap found;
      const BlurMap& right = i % 2 ? expected_of_part : expected;
      for (int frame = 0; frame < 8; ++frame) {
        estimators[i]->estimate(i % 2 ? part : view(pixels), found);
        good += found.map == right.map && found.expected_error == right.expected_error &&
                found.edges.radius == right.edges.radius && found.pattern_edges == right.pattern_edges;
      }
      estimators[i].reset();
    });
  for (int frame = 0; frame < 8; ++frame) {
    VideoBlurMap found;
    video.reset();
    video.estimate(view(pixels), found);
    good += found.map == expected.map;
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(good == 5 * 8);
}

TEST_CASE("a number of threads besides a pool must be the pool's") {
  const ThreadPool pool(3);
  Options given = options();
  given.num_threads = 3;
  CHECK_NOTHROW(Estimator(height, width, given, pool));
  given.num_threads = 2;
  const char* const message = "num_threads: expected none or that of the thread pool, 3, got 2";
  CHECK_THROWS_WITH_AS(Estimator(height, width, given, pool), message, InvalidArgument);
  CHECK_THROWS_WITH_AS(VideoEstimator(height, width, given, {}, pool), message, InvalidArgument);
}

TEST_CASE("estimators share the weights of a model, and of no other") {
  const auto& kernels = select_kernels("auto");
  const auto of = [&](const std::string& model) {
    return cpu::network_weights(load_model(model), Precision::float32, kernels);
  };
  const auto weights = of(TEST_MODEL);
  CHECK(of(TEST_MODEL) == weights);
  CHECK(of(TEST_MODEL "/../tip22") == weights);
  CHECK(of(TEST_MODEL "/../fast") != weights);
  CHECK(weights.use_count() == 1);  // nothing but their users keeps them
}

TEST_CASE("an estimator that was moved from says so, and can be given another") {
  const auto pixels = checkerboard();
  Estimator estimator(height, width, options());
  Estimator other = std::move(estimator);
  std::vector<float> map(std::size_t{height} * width);
  BlurMap result;
  const MapView out{map.data(), height, width, width * 4};
  const auto moved_from = [](const auto& call) {
    CHECK_THROWS_WITH_AS(call(), "estimator: it was moved from", InvalidArgument);
  };
  moved_from([&] { estimator.estimate_into(view(pixels), out); });
  moved_from([&] { estimator.estimate(view(pixels), result); });
  moved_from([&] { estimator.enqueue(view(pixels), out, nullptr); });
  moved_from([&] { estimator.edge_count(nullptr); });
  moved_from([&] { estimator.make_map(); });
  moved_from([&] { estimator.order(nullptr, nullptr); });
  moved_from([&] { estimator.gpu(); });
  moved_from([&] { estimator.height(); });
  moved_from([&] { estimator.width(); });
  moved_from([&] { estimator.num_threads(); });
  moved_from([&] { estimator.device(); });
  moved_from([&] { estimator.precision(); });
  moved_from([&] { estimator.kernels(); });
  moved_from([&] { estimator.model(); });
  moved_from([&] { estimator.radius_bins(); });
  estimator = std::move(other);
  CHECK(estimator.height() == height);
  moved_from([&] { other.height(); });
  Estimator& same = estimator;
  estimator = std::move(same);
  CHECK(estimator.height() == height);
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
  CHECK_THROWS_WITH_AS(estimator.estimate_into(image, out), "image: expected a pointer to pixels, got null",
                       InvalidArgument);
  CHECK_THROWS_AS(estimator.estimate_into(view(pixels), {nullptr, height, width, width * 4}), InvalidArgument);
  Options wrong = options();
  wrong.model = "no/such/folder";
  CHECK_THROWS_AS(Estimator(height, width, wrong), ModelError);
  wrong = options();
  wrong.device = "cuda";
  CHECK_THROWS_AS(Estimator(height, width, wrong), BackendUnavailable);
  wrong = options();
  wrong.num_threads = 0;
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
  CHECK_THROWS_WITH_AS(domain_transform_filter(guide, view(pixels), {}, map.data(), 1),
                       "guide: expected float32, got uint8", InvalidArgument);
  constexpr std::ptrdiff_t far = std::ptrdiff_t{1} << 62;
  const RadiiView radii{map.data(), height, width, 4 * width};
  const MaskView mask{pixels.data(), height, width, width};
  const MapView out{map.data(), height, width, 4 * width};
  CHECK_THROWS_AS(propagate(view(pixels), {map.data(), height, width, far}, mask, mask, {}, {}, out, 1),
                  InvalidArgument);
  CHECK_THROWS_AS(propagate(view(pixels), radii, {pixels.data(), height, width, far}, mask, {}, {}, out, 1),
                  InvalidArgument);
  CHECK_THROWS_AS(propagate(view(pixels), radii, mask, mask, {}, {}, {map.data(), height, width, -far}, 1),
                  InvalidArgument);
  CHECK_THROWS_AS(Estimator(1, (1 << 30) + 1, options()), InvalidArgument);
}
