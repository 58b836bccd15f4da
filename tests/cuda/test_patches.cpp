// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "../../cpp/src/stages.hpp"
#include "../../cuda/stages.hpp"
#include "emulation.hpp"
#include "pictures.hpp"

using namespace defocus_fast;
using namespace defocus_fast::test;

namespace {

/// A list of edges and those of them that lie in a tile.
struct Edges {
  Edges(int height, int width, std::vector<std::int32_t> pixels, int tile_capacity = 0)
      : capacity(int(pixels.size() / 2) + 3),
        detector(height, width, {}, capacity, arena),
        selector(capacity, tile_capacity > 0 ? tile_capacity : capacity, arena),
        positions(std::move(pixels)) {
    arena.allocate();
    std::vector<std::uint8_t> mask(std::size_t(height) * std::size_t(width));
    for (std::size_t i = 0; i < positions.size(); i += 2)
      mask[std::size_t(positions[i]) * std::size_t(width) + std::size_t(positions[i + 1])] = 1;
    detector.list_edges(mask.data(), nullptr);
    REQUIRE(list().count->kept == int(positions.size() / 2));
    selector.select_edges(list(), 0, 0, height, width, nullptr, 0, nullptr);
  }
  const cuda::EdgeList& list() const { return detector.edges(); }
  const cuda::Selection& selection() const { return selector.selection(); }
  int count() const { return int(positions.size() / 2); }
  int y(int i) const { return positions[2 * std::size_t(i)]; }
  int x(int i) const { return positions[2 * std::size_t(i) + 1]; }

  int capacity;
  cuda::Arena arena;
  cuda::EdgeDetector detector;
  cuda::TileSelector selector;
  std::vector<std::int32_t> positions;  // (n, 2) row and column, in row-major order
};

std::vector<std::int32_t> random_pixels(int height, int width, int percent) {
  std::vector<std::int32_t> pixels;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      if (random_int(0, 99) < percent) pixels.insert(pixels.end(), {y, x});
  return pixels;
}

template <class T>
void for_pictures(const T& body) {
  for (const PixelType type : {PixelType::uint8, PixelType::float32})
    for (const int channels : {1, 3})
      for (const auto& [height, width] : std::vector<std::pair<int, int>>{{1, 1}, {1, 50}, {50, 1}, {7, 5}, {63, 65}})
        body(scene(type, height, width, channels, Layout(random_int(0, 3))));
}

}  // namespace

TEST_CASE("tiles equal the CPU's") {
  for_pictures([&](const Picture& image) {
    const int height = std::min(image.view.height, 20), width = std::min(image.view.width, 33);
    for (const int y0 : {0, image.view.height - height})
      for (const int x0 : {0, image.view.width - width}) {
        const std::size_t pixels = std::size_t((height + 40) * (width + 40));
        std::vector<float> expected(3 * pixels), tile(3 * pixels, -1.0f);
        cpu::extract_pixels(image.view, y0 - 20, x0 - 20, height + 40, width + 40, 3, expected.data());
        cuda::extract_tile(image.view, y0, x0, height, width, tile.data(), nullptr);
        CHECK(tile == expected);
      }
  });
}

TEST_CASE("patches equal the CPU's, and rows beyond the selection are left alone") {
  for_pictures([&](const Picture& image) {
    const int bottom = image.view.height - 1, right = image.view.width - 1;
    std::vector<std::int32_t> corners{0, 0};
    if (bottom > 0 || right > 0) corners.insert(corners.end(), {bottom, right});
    const Edges edges(image.view.height, image.view.width, corners);
    for (const int crop_offset : {0, 1})
      for (const int first : {0, 1}) {
        const int batch = 3;
        std::array<std::vector<float>, 3> crops, expected;
        const std::array<int, 3> sizes{41, 27, 15};
        for (std::size_t i = 0; i < 3; ++i)
          crops[i] = expected[i] = std::vector<float>(std::size_t(batch * sizes[i] * sizes[i] * 3), -1.0f);
        for (int k = 0; k < batch && first + k < edges.count(); ++k) {
          std::array<float*, 3> to;
          for (std::size_t i = 0; i < 3; ++i) to[i] = expected[i].data() + k * sizes[i] * sizes[i] * 3;
          cpu::extract_patches(image.view, edges.y(first + k), edges.x(first + k), crop_offset, to);
        }
        cuda::extract_patches(image.view, edges.list(), edges.selection(), first, batch, crop_offset,
                              {crops[0].data(), crops[1].data(), crops[2].data()}, nullptr);
        CHECK(crops == expected);
      }
  });
}

TEST_CASE("a tile's edges are selected in order, those of low depth probability on request") {
  const int height = 40, width = 50;
  for (const int percent : {0, 20, 100}) {
    const Edges edges(height, width, random_pixels(height, width, percent));
    std::vector<float> depth(std::size_t(edges.capacity));
    for (float& p : depth) p = random_float();
    depth[0] = 0.5f;
    for (const float* probability : {static_cast<const float*>(nullptr), static_cast<const float*>(depth.data())})
      for (const int capacity : {5, 100'000}) {
        cuda::Arena arena;
        cuda::TileSelector selector(edges.capacity, capacity, arena);
        arena.allocate();
        const int y0 = 3, x0 = 7, tile_height = 21, tile_width = 32;
        selector.select_edges(edges.list(), y0, x0, tile_height, tile_width, probability, 0.5, nullptr);
        std::vector<std::int32_t> expected;
        for (int i = 0; i < edges.count(); ++i)
          if (edges.y(i) >= y0 && edges.y(i) < y0 + tile_height && edges.x(i) >= x0 && edges.x(i) < x0 + tile_width &&
              !(probability && double(probability[i]) > 0.5))
            expected.push_back(i);
        const cuda::Selection& selection = selector.selection();
        CHECK(selection.count->found == int(expected.size()));
        CHECK(selection.count->kept == std::min(int(expected.size()), capacity));
        CHECK(std::equal(selection.indices, selection.indices + selection.count->kept, expected.begin()));
      }
  }
}

TEST_CASE("fused features equal the CPU's in float and the rounded sum in half") {
  const int height = 30, width = 37, tile_height = 11, tile_width = 17, y0 = 9, x0 = 13;
  const Edges edges(height, width, random_pixels(height, width, 10));
  cuda::Arena arena;
  cuda::TileSelector selector(edges.capacity, edges.capacity, arena);
  arena.allocate();
  selector.select_edges(edges.list(), y0, x0, tile_height, tile_width, nullptr, 0, nullptr);
  const cuda::Selection& selection = selector.selection();
  REQUIRE(selection.count->kept > 5);
  const Kernels& kernels = select_kernels("portable");
  for (const int channels : {1, 7, 64}) {
    const int pitch = tile_width + 12;
    const std::size_t size = std::size_t((tile_height + 12) * pitch * channels);
    std::vector<float> u(size), v(size);
    std::vector<_Float16> half_u(size), half_v(size);
    for (std::size_t i = 0; i < size; ++i) {
      half_u[i] = _Float16(random_float(-1, 1));
      half_v[i] = _Float16(random_float(-1, 1));
      u[i] = random_float(-1, 1);
      v[i] = random_float(-1, 1);
    }
    std::array<std::ptrdiff_t, 25> u_offset{}, v_offset{};
    for (std::ptrdiff_t p = 0; p < 25; ++p) {
      v_offset[std::size_t(p)] = ((p / 5 - 2) * pitch + p % 5 - 2) * channels;
      u_offset[std::size_t(p)] = 3 * v_offset[std::size_t(p)];
    }
    for (const int first : {0, 3}) {
      const int batch = selection.count->kept;  // the last `first` rows are beyond the selection
      const std::size_t row = std::size_t(25 * channels);
      std::vector<float> expected(std::size_t(batch) * row, -1.0f), out = expected;
      std::vector<_Float16> half_expected(std::size_t(batch) * row, _Float16(-1.0f)), half_out = half_expected;
      for (int k = 0; first + k < batch; ++k) {
        const int edge = selection.indices[first + k];
        const std::ptrdiff_t centre =
            (std::ptrdiff_t(edges.y(edge) - y0 + 6) * pitch + edges.x(edge) - x0 + 6) * channels;
        kernels.fuse_float(u.data() + centre, v.data() + centre, u_offset.data(), v_offset.data(), channels,
                           expected.data() + std::size_t(k) * row);
        for (std::size_t i = 0; i < row; ++i) {
          const std::ptrdiff_t at = centre + std::ptrdiff_t(i) % channels;
          const std::size_t p = i / std::size_t(channels);
          const float sum = float(half_u[std::size_t(at + u_offset[p])]) + float(half_v[std::size_t(at + v_offset[p])]);
          half_expected[std::size_t(k) * row + i] = _Float16(std::max(sum, 0.0f));
        }
      }
      cuda::fuse_float({u.data(), v.data(), tile_width, channels}, y0, x0, edges.list(), selection, first, batch,
                       out.data(), nullptr);
      cuda::fuse_half({half_u.data(), half_v.data(), tile_width, channels}, y0, x0, edges.list(), selection, first,
                      batch, half_out.data(), nullptr);
      CHECK(out == expected);
      CHECK(half_out == half_expected);
    }
  }
}

TEST_CASE("probabilities become masks, radii and deviations as the estimator's") {
  const int height = 23, width = 29;
  const double threshold = 0.5;
  std::vector<float> levels(23);
  for (std::size_t i = 0; i < levels.size(); ++i) levels[i] = 0.5f + 0.25f * float(i);
  for (const Labels labels : {Labels::posterior, Labels::hard})
    for (const bool all_levels : {false, true}) {
      Edges edges(height, width, random_pixels(height, width, 60));
      const std::size_t capacity = std::size_t(edges.capacity), n = std::size_t(edges.count());
      // What an earlier frame left must not show.
      std::vector<float> depth(capacity, 9.0f), radii = depth, deviation = depth, probability = depth;
      std::vector<float> level_probabilities(capacity * levels.size(), 9.0f);
      std::vector<std::uint8_t> mask(std::size_t(height * width)), pattern(mask.size(), 9), depth_mask(mask.size(), 9);
      for (int i = 0; i < edges.count(); ++i) mask[std::size_t(edges.y(i) * width + edges.x(i))] = 1;
      const cuda::Answers answers{depth.data(),
                                  radii.data(),
                                  deviation.data(),
                                  probability.data(),
                                  all_levels ? level_probabilities.data() : nullptr,
                                  pattern.data(),
                                  depth_mask.data()};
      cuda::clear_answers(mask.data(), height, width, edges.list(), int(levels.size()), answers, nullptr);
      CHECK(pattern == mask);
      CHECK(std::all_of(depth_mask.begin(), depth_mask.end(), [](int value) { return value == 0; }));
      if (all_levels)
        CHECK(std::all_of(level_probabilities.begin(), level_probabilities.end(), [](float p) { return p == 0; }));
      const std::vector<std::uint8_t> unchanged = pattern;
      cuda::clear_answers(pattern.data(), height, width, edges.list(), 23, answers, nullptr);
      CHECK(pattern == unchanged);

      std::vector<float> edge_probabilities(2 * n), blur_probabilities(levels.size() * n);
      for (std::size_t i = 0; i < n; ++i) {
        edge_probabilities[2 * i + 1] = i == 0 ? 0.5f : random_float();
        float sum = 0;
        float* row = blur_probabilities.data() + i * levels.size();
        for (std::size_t k = 0; k < levels.size(); ++k) sum += row[k] = std::pow(random_float(), 4.0f);
        for (std::size_t k = 0; k < levels.size(); ++k) row[k] /= sum;
        if (i % 5 == 0) row[7] = row[11] = 0.5f;  // a tie: the lower level
      }
      const int batch = 100;  // the last one is not full
      for (int first = 0; first < edges.count(); first += batch)
        cuda::classify(edge_probabilities.data() + 2 * first, width, threshold, edges.list(), edges.selection(), first,
                       batch, answers, nullptr);
      edges.selector.select_edges(edges.list(), 0, 0, height, width, depth.data(), threshold, nullptr);
      const int kept = edges.selection().count->kept;
      std::vector<std::int32_t> chosen(edges.selection().indices, edges.selection().indices + kept);
      for (int first = 0; first < kept; first += batch)
        cuda::estimate(blur_probabilities.data() + first * 23, levels, labels, edges.selection(), first, batch, answers,
                       nullptr);

      std::size_t row_index = 0;
      for (std::size_t i = 0; i < n; ++i) {
        const std::size_t at = std::size_t(edges.y(int(i)) * width + edges.x(int(i)));
        CHECK(depth[i] == edge_probabilities[2 * i + 1]);
        const bool is_depth = double(depth[i]) > threshold;
        CHECK(depth_mask[at] == int(is_depth));
        CHECK(pattern[at] == int(!is_depth));
        if (is_depth) {
          CHECK(radii[i] == 0.0f);
          CHECK(deviation[i] == 0.0f);
          CHECK(probability[i] == 0.0f);
          continue;
        }
        REQUIRE(std::size_t(chosen[row_index]) == i);
        const float* row = blur_probabilities.data() + row_index++ * levels.size();
        const float* best = std::max_element(row, row + levels.size());
        double mean = 0, square = 0;
        for (std::size_t k = 0; k < levels.size(); ++k) {
          mean += double(row[k]) * levels[k];
          square += double(row[k]) * levels[k] * levels[k];
        }
        CHECK(radii[i] == (labels == Labels::hard ? levels[std::size_t(best - row)] : float(mean)));
        CHECK(deviation[i] == float(std::sqrt(std::max(0.0, square - mean * mean))));
        CHECK(probability[i] == *best);
        if (all_levels) CHECK(std::equal(row, row + levels.size(), level_probabilities.data() + i * levels.size()));
      }
      CHECK(row_index == chosen.size());
    }
}
