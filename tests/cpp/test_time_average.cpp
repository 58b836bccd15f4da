// SPDX-License-Identifier: Apache-2.0
// Averages along time against their definition, in double precision.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "time_average.hpp"

using namespace defocus_fast;

namespace {

constexpr int height = 45, width = 61, margin = 20, wide = width + 2 * margin, pixels = height * width;

/// The camera's view of a scene from (y, x) of it.
ImageView view(const std::vector<std::uint8_t>& scene, int y = margin, int x = margin) {
  return ImageView::interleaved(scene.data() + y * wide + x, PixelType::uint8, height, width, 1, wide);
}

std::vector<std::uint8_t> make_scene(unsigned seed = 0) {
  std::mt19937 random(seed);
  std::vector<std::uint8_t> scene(std::size_t{height + 2 * margin} * wide);
  for (std::uint8_t& value : scene) value = std::uint8_t(random() % 256);
  return scene;
}

/// A frame's seeds: a weight at each pixel, all of one radius, so that radii do not change.
struct Seeds {
  std::vector<float> weights;
  float radius = 2;

  explicit Seeds(unsigned seed) : weights(pixels) {
    std::mt19937 random(seed);
    for (float& weight : weights) weight = random() % 3 == 0 ? float(random() % 1000) / 1000 : 0.0f;
  }
  cpu::SeedRow row() const {
    return [this](int y, const cpu::SeedRows& rows) {
      for (int x = 0; x < width; ++x)
        if (const float weight = weights[std::size_t(y * width + x)]; weight > 0)
          rows.add(x, make_seed(weight, radius, 0.5f));
    };
  }
};

struct Averages {
  std::vector<float> weights = std::vector<float>(pixels), radii = weights, squares = weights;

  explicit Averages(const cpu::TimeAverage& average) {
    for (int y = 0; y < height; ++y)
      average.put(y, {weights.data() + y * width, radii.data() + y * width, squares.data() + y * width});
  }
};

}  // namespace

TEST_CASE("seeds are averaged over so many frames, and afresh after a cut") {
  const auto scene = make_scene(), other = make_scene(1);
  for (const int threads : {1, 3})
    for (const int frames : {1, 5}) {
      Workers workers{ThreadPool(threads)};
      cpu::TimeAverage average(height, width, frames, workers);
      std::vector<double> expected(pixels);
      std::vector<std::uint8_t> barriers(pixels);
      for (int t = 0; t < 20; ++t) {
        const bool cut = t == 0 || t == 12;
        const Seeds seeds{unsigned(t)};
        average.advance(view(t < 12 ? scene : other));
        average.add(seeds.row(), barriers.data());
        CHECK(average.change().cut == cut);
        CHECK(average.change().renewed == (cut ? 1.0f : 0.0f));
        const int age = std::min((t < 12 ? t : t - 12) + 1, frames);
        const Averages found(average);
        for (std::size_t i = 0; i < pixels; ++i) {
          expected[i] += (double(seeds.weights[i]) - expected[i]) / age;
          CHECK(double(found.weights[i]) == doctest::Approx(expected[i]).epsilon(1e-5));
          CHECK(double(found.radii[i]) == doctest::Approx(2 * expected[i]).epsilon(1e-5));
          CHECK(double(found.squares[i]) == doctest::Approx(4.25 * expected[i]).epsilon(1e-5));
          if (cut) CHECK(found.weights[i] == seeds.weights[i]);
        }
      }
    }
}

TEST_CASE("barriers appear when half of the frames have them, and disappear when less than 0.3 do") {
  const auto scene = make_scene();
  Workers workers{ThreadPool(2)};
  cpu::TimeAverage average(height, width, 8, workers);
  std::vector<std::uint8_t> barriers(pixels);
  double share = 0;
  bool shown = false;
  int seen = 0, hidden = 0;
  for (int t = 0; t < 120; ++t) {
    const bool there = t < 60 ? t % 5 == 0 : t % 5 != 0;  // seldom, then mostly
    std::fill(barriers.begin(), barriers.end(), std::uint8_t{0});
    barriers[17 * width + 23] = there ? 2 : 0;
    average.advance(view(scene));
    average.add(Seeds(7).row(), barriers.data());
    share += (double(there) - share) / std::min(t + 1, 8);
    shown = share > (shown ? 0.3 : 0.5);
    CHECK(barriers[17 * width + 23] == (shown ? 2 : 0));
    CHECK(std::count(barriers.begin(), barriers.end(), 0) == pixels - int(shown));
    seen += int(shown && !there);
    hidden += int(!shown && there);
  }
  CHECK(seen > 5);
  CHECK(hidden > 5);
}

TEST_CASE("averages move with the camera, and begin where something comes into the image") {
  const auto scene = make_scene();
  for (const auto& [down, right] : {std::pair(3, -5), std::pair(-2, 0), std::pair(0, 9)}) {
    Workers workers{ThreadPool(2)};
    cpu::TimeAverage average(height, width, 10, workers);
    std::vector<std::uint8_t> barriers(pixels);
    const Seeds first(1), second(2);
    average.advance(view(scene));
    average.add(first.row(), barriers.data());
    average.advance(view(scene, margin - down, margin - right));
    average.add(second.row(), barriers.data());
    CHECK(average.change().shift_y == down);
    CHECK(average.change().shift_x == right);
    CHECK(!average.change().cut);
    const Averages found(average);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        const std::size_t i = std::size_t(y * width + x);
        const int v = y - down, u = x - right;
        const bool known = v >= 0 && v < height && u >= 0 && u < width;
        const double now = double(second.weights[i]);
        const double expected = known ? (double(first.weights[std::size_t(v * width + u)]) + now) / 2 : now;
        CHECK(double(found.weights[i]) == doctest::Approx(expected).epsilon(1e-6));
      }
  }
}

TEST_CASE("other radii start afresh, though the image is the same") {
  const auto scene = make_scene();
  Workers workers{ThreadPool(1)};
  cpu::TimeAverage average(height, width, 10, workers);
  std::vector<std::uint8_t> barriers(pixels);
  Seeds seeds(3);
  for (int t = 0; t < 12; ++t) {
    if (t == 11) seeds.radius = 4;
    average.advance(view(scene));
    average.add(seeds.row(), barriers.data());
    CHECK(average.change().renewed == (t == 0 || t == 11 ? 1.0f : 0.0f));
  }
  CHECK(!average.change().cut);
  const Averages found(average);
  for (std::size_t i = 0; i < pixels; ++i) CHECK(found.radii[i] == 4 * seeds.weights[i]);
}
