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
