// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "../../cpp/src/stages.hpp"
#include "../../cuda/stages.hpp"
#include "emulation.hpp"
#include "images.hpp"

using namespace defocus_fast;
using namespace defocus_fast::test;

namespace {

/// A list of edges with room for three more.
struct Edges {
  Edges(int height, int width, int percent) : detector(height, width, {}, height * width + 3, arena) {
    arena.allocate();
    std::vector<std::uint8_t> mask(std::size_t(height) * std::size_t(width));
    for (auto& value : mask) value = random_int(0, 99) < percent;
    detector.list_edges(mask.data(), nullptr);
  }
  const cuda::EdgeList& list() const { return detector.edges(); }
  int count() const { return list().count->kept; }
  int y(int i) const { return list().edges[2 * i]; }
  int x(int i) const { return list().edges[2 * i + 1]; }

  cuda::Arena arena;
  cuda::EdgeDetector detector;
};

template <class T>
constexpr cuda::TensorType type_of = std::is_same_v<T, float> ? cuda::TensorType::float32 : cuda::TensorType::float16;

template <class T>
void check_tiles(const ImageView& image) {
  const int height = 23, width = 17;
  for (const int y0 : {-20, image.height - 3})
    for (const int x0 : {-9, image.width - 8}) {
      std::vector<float> expected(std::size_t(3 * height * width));
      std::vector<T> tile(expected.size(), T(-1));
      cpu::extract_pixels(image, y0, x0, height, width, 3, expected.data());
      cuda::extract_tile(image, y0, x0, height, width, type_of<T>, tile.data(), nullptr);
      bool equal = true;
      for (int i = 0; i < height * width; ++i)
        for (int c = 0; c < 3; ++c)
          equal &= tile[std::size_t(c * height * width + i)] == T(expected[std::size_t(3 * i + c)]);
      CHECK(equal);
    }
}

/// Batches of 7, the last of which reaches beyond the end of the list.
template <class T>
void check_patches(const ImageView& image, int percent, int crop_offset) {
  const Edges edges(image.height, image.width, percent);
  const int batch = 7;
  for (int first = 0; first <= edges.count(); first += batch) {
    std::array<std::vector<T>, 3> got, expected;
    std::array<std::vector<float>, 3> of_edge;
    std::array<std::byte*, 3> pointers{};
    std::array<float*, 3> of_edge_pointers{};
    for (std::size_t i = 0; i < 3; ++i) {
      of_edge[i].resize(std::size_t(3 * crop_sizes[i] * crop_sizes[i]));
      got[i].assign(batch * of_edge[i].size(), T(-9));
      expected[i] = got[i];
      pointers[i] = reinterpret_cast<std::byte*>(got[i].data());
      of_edge_pointers[i] = of_edge[i].data();
    }
    for (int k = 0; k < batch && first + k < edges.count(); ++k) {
      cpu::extract_patches(image, edges.y(first + k), edges.x(first + k), crop_offset, of_edge_pointers);
      for (std::size_t i = 0; i < 3; ++i) {
        const std::size_t plane = of_edge[i].size() / 3;
        for (std::size_t at = 0; at < of_edge[i].size(); ++at)
          expected[i][std::size_t(k) * 3 * plane + at % 3 * plane + at / 3] = T(of_edge[i][at]);
      }
    }
    cuda::extract_patches(image, crop_offset, edges.list(), first, batch, type_of<T>, pointers, nullptr);
    CHECK(got == expected);
  }
}

/// Of two tiles down and three across.
template <class T>
void check_gather(Architecture architecture) {
  const bool cells = architecture == Architecture::cells;
  const int tile_height = 12, tile_width = 15, height = 20, width = 40, channels = 3;
  const int rows = cells ? 4 : tile_height + 12, columns = cells ? 5 : tile_width + 12;
  const Edges edges(height, width, 30);
  const int pitch = channels * rows * columns + 7;
  std::vector<T> u(std::size_t(6 * pitch)), v(u.size());
  for (auto* values : {&u, &v})
    for (T& value : *values) value = T(random_float(-1, 1));
  const cuda::Features features{u.data(), v.data(), 3, tile_height, tile_width, channels, rows, columns, pitch};
  const int positions = cells ? 1 : 25, batch = 50, row = channels * positions;
  for (int first = 0; first < edges.count(); first += batch) {
    std::vector<T> out(std::size_t(batch * row), T(-9)), expected = out;
    for (int k = 0; k < batch && first + k < edges.count(); ++k) {
      const int y = edges.y(first + k), x = edges.x(first + k);
      const auto at = [&](const std::vector<T>& values, int c, int dy, int dx) {
        const int tile = y / tile_height * 3 + x / tile_width, inner_y = y % tile_height, inner_x = x % tile_width;
        const int i = cells ? inner_y / 3 : inner_y + 6 + dy, j = cells ? inner_x / 3 : inner_x + 6 + dx;
        return values[std::size_t(tile * pitch + (c * rows + i) * columns + j)];
      };
      for (int c = 0; c < channels; ++c)
        for (int p = 0; p < positions; ++p) {
          const int dy = p / 5 - 2, dx = p % 5 - 2;
          T& value = expected[std::size_t(k * row + c * positions + p)];
          value = cells ? at(u, c, 0, 0) : T(std::max(0.0f, float(at(u, c, 3 * dy, 3 * dx)) + float(at(v, c, dy, dx))));
        }
    }
    cuda::gather(architecture, features, edges.list(), first, batch, type_of<T>, out.data(), nullptr);
    CHECK(out == expected);
  }
}

}  // namespace

TEST_CASE("tiles equal the CPU's, rounded in half precision") {
  for (const PixelType type : {PixelType::uint8, PixelType::float32})
    for (const int channels : {1, 3})
      for (const auto& [height, width] : std::vector<std::pair<int, int>>{{1, 1}, {1, 50}, {50, 1}, {7, 5}, {63, 65}}) {
        const Picture image = scene(type, height, width, channels, Layout(random_int(0, 3)));
        check_tiles<float>(image.view);
        check_tiles<_Float16>(image.view);
      }
}

TEST_CASE("patches equal the CPU's, rounded in half precision") {
  for (const PixelType type : {PixelType::uint8, PixelType::float32})
    for (const int channels : {1, 3})
      for (const auto& [height, width] : std::vector<std::pair<int, int>>{{1, 1}, {1, 50}, {50, 1}, {7, 5}, {45, 43}})
        for (const int percent : {0, height * width > 1000 ? 1 : 40}) {
          const Picture image = scene(type, height, width, channels, Layout(random_int(0, 3)));
          check_patches<float>(image.view, percent, 1);
          check_patches<_Float16>(image.view, percent, 0);
        }
}

TEST_CASE("heads get the features around their edges, of the right tile") {
  for (const Architecture architecture : {Architecture::tip22, Architecture::cells}) {
    check_gather<float>(architecture);
    check_gather<_Float16>(architecture);
  }
}

TEST_CASE("of equally probable bins the lowest is the most probable") {
  const Edges edges(1, 1, 100);
  const std::vector<float> probabilities{0.1f, 0.4f, 0.4f, 0.1f}, bins{1, 2, 3, 4};
  float radius = 0, deviation = 0, probability = 0;
  cuda::Answers answers;
  answers.radii = &radius;
  answers.radius_std = &deviation;
  answers.radius_probability = &probability;
  cuda::estimate(probabilities.data(), cuda::TensorType::float32, bins, Labels::hard, edges.list(), 0, 1, answers,
                 nullptr);
  CHECK(radius == 2.0f);
  CHECK(probability == 0.4f);
}
