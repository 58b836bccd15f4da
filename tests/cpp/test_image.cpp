// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "defocus_fast/error.hpp"
#include "stages.hpp"

using namespace defocus_fast;

TEST_CASE("indices outside are reflected with the edge pixel repeated, however far away") {
  CHECK(cpu::reflect(-1, 4) == 0);
  CHECK(cpu::reflect(-4, 4) == 3);
  CHECK(cpu::reflect(-5, 4) == 3);
  CHECK(cpu::reflect(4, 4) == 3);
  CHECK(cpu::reflect(8, 4) == 0);
  for (int i = -50; i < 50; ++i) {
    CHECK(cpu::reflect(i, 1) == 0);
    CHECK(cpu::reflect(i, 7) == cpu::reflect(i + 14, 7));
    CHECK(cpu::reflect(i, 7) == cpu::reflect(-1 - i, 7));
  }
}

TEST_CASE("sides whose double is no int are reflected, too") {
  constexpr int side = cpu::most_side;
  CHECK(cpu::reflect(side, side) == side - 1);
  CHECK(cpu::reflect(-1, side) == 0);
}

TEST_CASE("views whose addresses cannot be computed are refused") {
  std::uint8_t pixel = 0;
  constexpr std::ptrdiff_t far = std::ptrdiff_t{1} << 62, least = std::numeric_limits<std::ptrdiff_t>::min();
  const auto view = [&](int height, int width, std::ptrdiff_t pitch, std::ptrdiff_t step, std::ptrdiff_t plane) {
    return ImageView{&pixel, PixelType::uint8, height, width, 3, pitch, step, plane};
  };
  CHECK_NOTHROW(cpu::check_layout(view(5, 6, -7, 0, 1), "image"));
  CHECK_NOTHROW(cpu::check_layout(view(1, 1, far, least, 1), "image"));  // nothing is that far away
  for (const std::ptrdiff_t stride : {far, -far, least, std::ptrdiff_t{1} << 48}) {
    CHECK_THROWS_AS(cpu::check_layout(view(5, 1, stride, 0, 0), "image"), InvalidArgument);
    CHECK_THROWS_AS(cpu::check_layout(view(1, 5, 0, stride, 0), "image"), InvalidArgument);
    CHECK_THROWS_AS(cpu::check_layout(view(1, 1, 0, 0, stride), "image"), InvalidArgument);
  }
  const std::array<float, 8> floats{};
  const auto* bytes = reinterpret_cast<const std::byte*>(floats.data());
  for (const auto& [offset, pitch] : {std::pair{0, 9}, {1, 8}, {2, 8}})
    CHECK_THROWS_AS(cpu::check_layout({bytes + offset, PixelType::float32, 2, 1, 1, pitch, 4, 4}, "image"),
                    InvalidArgument);
  for (const int side : {0, -1, cpu::most_side + 1}) {
    CHECK_THROWS_AS(cpu::check_layout(view(side, 1, 0, 0, 0), "image"), InvalidArgument);
    CHECK_THROWS_AS(cpu::check_layout(view(1, side, 0, 0, 0), "image"), InvalidArgument);
  }
}

TEST_CASE("pixels of no known type are refused") {
  const float pixel = 0;
  for (const int type : {2, 255}) {
    const ImageView image = ImageView::interleaved(&pixel, PixelType(type), 1, 1, 1, 4);
    CHECK_THROWS_WITH_AS(
        cpu::check_layout(image, "image"),
        ("image: expected PixelType::uint8 or PixelType::float32, got the value " + std::to_string(type)).c_str(),
        InvalidArgument);
  }
}

TEST_CASE("rows are read through any strides") {
  const std::array<std::uint8_t, 12> bgr{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};  // 2 x 2
  const ImageView flipped{bgr.data() + 8, PixelType::uint8, 2, 2, 3, -6, 3, -1};
  std::array<float, 6> r{}, g{}, b{};
  float* const channels[]{r.data(), g.data(), b.data()};
  cpu::load_row(flipped, 0, -2, 6, channels);
  const std::array<int, 6> red{12, 9, 9, 12, 12, 9}, blue{10, 7, 7, 10, 10, 7};
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(r[i] == float(red[i]) / 255.0f);
    CHECK(b[i] == float(blue[i]) / 255.0f);
  }
  std::array<double, 2> value{};
  cpu::load_value_row(flipped, 1, *select_kernels("auto").canny_double, value.data());
  CHECK(value[0] == 3 / 255.0);
  CHECK(value[1] == 6 / 255.0);
}

TEST_CASE("float images must lie in [0, 1]") {
  Workers workers(2);
  std::vector<float> pixels(100 * 100, 0.5f);
  const ImageView image = ImageView::interleaved(pixels.data(), PixelType::float32, 100, 100, 1, 400);
  CHECK_NOTHROW(cpu::check_range(image, "image", 0, 1, workers));
  for (const float bad : {-1e-6f, 1.000001f, std::nanf(""), std::numeric_limits<float>::infinity()}) {
    pixels[9999] = bad;
    CHECK_THROWS_AS(cpu::check_range(image, "image", 0, 1, workers), InvalidArgument);
  }
}
