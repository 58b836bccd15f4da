// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "../../cpp/src/stages.hpp"
#include "edges.hpp"
#include "emulation.hpp"

using namespace defocus_fast;
using namespace defocus_fast::test;

namespace {

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
      // A canvas is begun further up and to the left.
      const Pixel pad{2, 5};
      cuda::extract_tile(image, {0, 0, &pad}, y0 + pad.y, x0 + pad.x, height, width, type_of<T>, tile.data(), nullptr);
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
  DeviceEdges edges(image.height, image.width, 1, image.height * image.width + 3);
  edges.scatter(percent);
  const int batch = 7, n = edges.list.count->kept;
  for (int first = 0; first <= n; first += batch) {
    std::array<std::vector<T>, 3> got, expected;
    std::array<std::byte*, 3> pointers{};
    for (std::size_t i = 0; i < 3; ++i) {
      const int side = crop_sizes[i], plane = side * side;
      got[i].assign(std::size_t(batch * 3 * plane), T(-9));
      pointers[i] = reinterpret_cast<std::byte*>(got[i].data());
      expected[i] = got[i];
      std::vector<float> of_edge(std::size_t(3 * plane));
      for (int k = 0; k < batch && first + k < n; ++k) {
        const auto [y, x] = edges.list.position[first + k];
        const int corner = crop_corner(i, crop_offset);
        cpu::extract_pixels(image, y + corner, x + corner, side, side, 3, of_edge.data());
        for (int at = 0; at < 3 * plane; ++at)
          expected[i][std::size_t(k * 3 * plane + at % 3 * plane + at / 3)] = T(of_edge[std::size_t(at)]);
      }
    }
    cuda::extract_patches(image, {}, crop_offset, {edges.list, first, batch}, type_of<T>, pointers, nullptr);
    CHECK(got == expected);
  }
}

/// Of two tiles down and three across.
template <class T>
void check_gather() {
  const int tile_height = 12, tile_width = 15, height = 20, width = 40, channels = 3;
  const int rows = tile_height + 12, columns = tile_width + 12;
  DeviceEdges edges(height, width, 1, height * width + 3);
  edges.scatter(30);
  const int pitch = channels * rows * columns + 7, n = edges.list.count->kept;
  std::vector<T> u(std::size_t(6 * pitch)), v(u.size());
  for (auto* values : {&u, &v})
    for (T& value : *values) value = T(random_float(-1, 1));
  const cuda::Features features{u.data(), v.data(), 3,       tile_height,       tile_width,
                                channels, rows,     columns, std::size_t(pitch)};
  const int batch = 50, row = channels * 25;
  for (int first = 0; first < n; first += batch) {
    std::vector<T> out(std::size_t(batch * row), T(-9)), expected = out;
    for (int k = 0; k < batch && first + k < n; ++k) {
      const auto [y, x] = edges.list.position[first + k];
      const int tile = y / tile_height * 3 + x / tile_width;
      const auto at = [&](const std::vector<T>& values, int c, int dy, int dx) {
        const int i = y % tile_height + 6 + dy, j = x % tile_width + 6 + dx;
        return float(values[std::size_t(tile * pitch + (c * rows + i) * columns + j)]);
      };
      for (int c = 0; c < channels; ++c)
        for (int p = 0; p < 25; ++p) {
          const int dy = p / 5 - 2, dx = p % 5 - 2;
          expected[std::size_t(k * row + c * 25 + p)] = T(std::max(0.0f, at(u, c, 3 * dy, 3 * dx) + at(v, c, dy, dx)));
        }
    }
    cuda::gather(features, {edges.list, first, batch}, type_of<T>, out.data(), nullptr);
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

TEST_CASE("frames of cameras are read as on the CPU, and so are their octaves, on canvases too") {
  for (const PixelFormat format : all_formats)
    for (const auto& [height, width] : std::vector<std::pair<int, int>>{{2, 2}, {2, 50}, {50, 2}, {22, 18}}) {
      CAPTURE(int(format));
      const CameraFrame frame(format, height, width, {.range = {}, .matrix = ColourMatrix(random_int(0, 1))});
      check_tiles<float>(frame.view);
      for (const Pixel& pad : {Pixel{0, 0}, {1, 0}, {2, 3}, {7, 6}}) {
        const int rows = (height + 7) / 2, columns = (width + 7) / 2;
        const std::ptrdiff_t row =
            columns * frame.view.channels * (frame.view.type == PixelType::uint8 ? 1 : std::ptrdiff_t{sizeof(float)});
        std::vector<std::byte> expected(std::size_t(rows * row)), got(expected.size());
        for (int y = 0; y < rows; ++y) cpu::reduce_row(frame.view, pad, y, columns, expected.data() + y * row);
        const ImageView half =
            ImageView::interleaved(got.data(), frame.view.type, rows, columns, frame.view.channels, row);
        cuda::reduce(frame.view, pad.y + pad.x > 0 ? &pad : nullptr, half, got.data(), nullptr);
        CHECK(got == expected);
      }
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
  check_gather<float>();
  check_gather<_Float16>();
}
