// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>

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

namespace {

/// The definitions of Rec. ITU-R BT.601 and BT.709 in doubles: red, green and blue, 0 to 1.
std::array<double, 3> colours(int bits, ColourRange range, ColourMatrix matrix, int luma, int u, int v) {
  const bool limited = range == ColourRange::limited;
  const double unit = std::pow(2, bits - 8), white = std::pow(2, bits) - 1, centre = std::pow(2, bits - 1);
  const double red = matrix == ColourMatrix::bt601 ? 0.299 : 0.2126,
               blue = matrix == ColourMatrix::bt601 ? 0.114 : 0.0722;
  const double y = limited ? (luma - 16 * unit) / (219 * unit) : luma / white;
  const double cb = (u - centre) / (limited ? 224 * unit : white), cr = (v - centre) / (limited ? 224 * unit : white);
  const double r = y + 2 * (1 - red) * cr, b = y + 2 * (1 - blue) * cb;
  std::array rgb{r, (y - red * r - blue * b) / (1 - red - blue), b};
  for (double& value : rgb) value = std::clamp(value, 0.0, 1.0);
  return rgb;
}

}  // namespace

TEST_CASE("YUV of 8 bits stands for the red, green and blue of its definition, for all numbers that there are") {
  constexpr int width = 512;  // a row: Y from 0 to 255, each with the same U and V
  std::vector<std::uint8_t> luma(2 * width), u(width / 2), v(width / 2);
  for (int i = 0; i < 2 * width; ++i) luma[std::size_t(i)] = std::uint8_t(i % 256);
  std::array<std::vector<float>, 3> rows{std::vector<float>(width), std::vector<float>(width),
                                         std::vector<float>(width)};
  float* const channels[]{rows[0].data(), rows[1].data(), rows[2].data()};
  for (const ColourRange range : {ColourRange::full, ColourRange::limited})
    for (const ColourMatrix matrix : {ColourMatrix::bt601, ColourMatrix::bt709}) {
      double largest = 0;
      int other = 0, total = 0;
      for (int blue = 0; blue < 256; blue += 3)
        for (int red = 0; red < 256; red += 3) {
          std::fill(u.begin(), u.end(), std::uint8_t(blue));
          std::fill(v.begin(), v.end(), std::uint8_t(red));
          const ImageView frame =
              ImageView::of(PixelFormat::i420, 2, width,
                            {{luma.data(), width}, {u.data(), width / 2}, {v.data(), width / 2}}, {range, matrix});
          cpu::load_row(frame, 0, 0, 256, channels);
          for (int y = 0; y < 256; ++y) {
            const auto expected = colours(8, range, matrix, y, blue, red);
            for (std::size_t c = 0; c < 3; ++c) {
              const double got = std::round(255 * double(rows[c][std::size_t(y)]));
              largest = std::max(largest, std::abs(got - 255 * expected[c]));
              other += got != std::round(255 * expected[c]);
              ++total;
            }
          }
        }
      CHECK(largest < 0.53);  // 0.5 is rounding to nearest
      CHECK(other < total / 50);
    }
}

TEST_CASE("a row of a camera's frame is read from any column on, whatever is outside") {
  // Numbers that tell where they are from; what is between the planes is never read under AddressSanitizer.
  const std::vector<std::uint8_t> luma{16, 50, 90, 130, 170, 235, 235, 170, 130, 90, 50, 16};  // 2 x 6
  const std::vector<std::uint8_t> uv{128, 128, 90, 200, 200, 60};
  const ImageView frame = ImageView::of(PixelFormat::nv12, 2, 6, {{luma.data(), 6}, {uv.data(), 6}, {}});
  const ImageView flipped = ImageView::of(PixelFormat::nv12, 2, 6, {{luma.data() + 6, -6}, {uv.data(), 6}, {}});
  std::array<std::array<float, 20>, 3> rows{};
  float* const channels[]{rows[0].data(), rows[1].data(), rows[2].data()};
  for (const int y : {0, 1})
    for (int x0 = -9; x0 < 9; ++x0)
      for (int n = 1; n < 12; ++n) {
        cpu::load_row(y == 0 ? frame : flipped, 0, x0, n, channels);
        for (int i = 0; i < n; ++i) {
          const int x = cpu::reflect(x0 + i, 6);
          const auto expected = colours(8, ColourRange::limited, ColourMatrix::bt601, luma[std::size_t(6 * y + x)],
                                        uv[std::size_t(x / 2 * 2)], uv[std::size_t(x / 2 * 2 + 1)]);
          for (std::size_t c = 0; c < 3; ++c) CHECK(std::abs(rows[c][std::size_t(i)] - expected[c]) < 0.53 / 255);
        }
      }
}

TEST_CASE("10 and 16 bits keep their precision") {
  std::array<std::array<float, 2>, 3> rows{};
  float* const channels[]{rows[0].data(), rows[1].data(), rows[2].data()};
  for (const ColourRange range : {ColourRange::full, ColourRange::limited})
    for (const int number : {0, 1, 64, 65, 500, 501, 940, 1023}) {
      const std::uint16_t low[]{std::uint16_t(number), 0}, high[]{std::uint16_t(number << 6), 63, 0, 0},
          colour[]{600 << 6, 400 << 6};
      cpu::load_row(ImageView::of(PixelFormat::gray10, 1, 2, {{low, 4}, {}, {}}, {range, {}}), 0, 0, 2, channels);
      CHECK(std::abs(rows[0][0] - colours(10, range, ColourMatrix::bt601, number, 512, 512)[0]) < 2e-4);
      if (range == ColourRange::full) CHECK(rows[0][0] == float(number) / 1023);
      cpu::load_row(ImageView::of(PixelFormat::p010, 2, 2, {{high, 4}, {colour, 4}, {}}, {range, {}}), 0, 0, 2,
                    channels);
      for (std::size_t c = 0; c < 3; ++c) {
        CHECK(std::abs(rows[c][0] - colours(10, range, ColourMatrix::bt601, number, 600, 400)[c]) < 2e-4);
        CHECK(std::abs(rows[c][1] - colours(10, range, ColourMatrix::bt601, 0, 600, 400)[c]) < 2e-4);
      }
    }
  for (const int number : {0, 1, 4096, 4097, 32767, 60160, 65535}) {
    const auto word = std::uint16_t(number);
    cpu::load_row(ImageView::of(PixelFormat::gray16, 1, 1, {{&word, 2}, {}, {}}), 0, 0, 1, channels);
    CHECK(rows[0][0] == float(number) / 65535);
    cpu::load_row(ImageView::of(PixelFormat::gray16, 1, 1, {{&word, 2}, {}, {}}, {ColourRange::limited, {}}), 0, 0, 1,
                  channels);
    CHECK(std::abs(rows[0][0] - colours(16, ColourRange::limited, ColourMatrix::bt601, number, 32768, 32768)[0]) <
          1e-4);
  }
}

TEST_CASE("frames that cannot be read are refused, and the message says why") {
  alignas(2) std::array<std::uint8_t, 400> bytes{};
  const std::uint8_t *y = bytes.data(), *uv = y + 200, *v = y + 300;
  const auto message = [&](PixelFormat format, int height, int width, const FramePlanes& planes,
                           const Colour& colour = {}) -> std::string {
    try {
      ImageView::of(format, height, width, planes, colour);
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "";
  };
  using enum PixelFormat;
  constexpr std::ptrdiff_t far = std::ptrdiff_t{1} << 62, least = std::numeric_limits<std::ptrdiff_t>::min();
  CHECK(message(nv12, 4, 6, {{y, 6}, {uv, 6}, {}}) == "");
  CHECK(message(nv12, 4, 6, {{y, 200}, {y + 6, 200}, {}}) == "");  // beside each other
  CHECK(message(i420, 4, 6, {{y, 6}, {uv, 6}, {uv + 3, 6}}) == "");
  CHECK(message(nv12, 4, 6, {{y + 18, -6}, {uv + 6, -6}, {}}) == "");
  CHECK(message(nv12, 4, 6, {{y, 6}, {}, {}}) == "nv12: expected planes: 2, got null as plane 2");
  CHECK(message(nv12, 4, 6, {{nullptr, 6}, {uv, 6}, {}}) == "nv12: expected planes: 2, got null as plane 1");
  CHECK(message(nv12, 4, 6, {{y, 6}, {uv, 6}, {v, 6}}) == "nv12: expected planes: 2, got a pointer to plane 3");
  CHECK(message(i420, 4, 6, {{y, 6}, {uv, 3}, {}}) == "i420: expected planes: 3, got null as plane 3");
  CHECK(message(nv12, 4, 5, {{y, 6}, {uv, 6}, {}}) == "nv12: expected an even width and height, got 5x4");
  CHECK(message(p010, 3, 6, {{y, 12}, {uv, 12}, {}}) == "p010: expected an even width and height, got 6x3");
  CHECK(message(yuyv, 3, 6, {{y, 12}, {}, {}}) == "");
  CHECK(message(yuyv, 3, 5, {{y, 12}, {}, {}}) == "yuyv: expected an even width, got 5x3");
  CHECK(message(nv12, 4, 6, {{y, 5}, {uv, 6}, {}}) ==
        "nv12: expected a pitch of at least the 6 bytes of a row of plane 1, got 5");
  CHECK(message(nv12, 4, 6, {{y, 6}, {uv, -5}, {}}) ==
        "nv12: expected a pitch of at least the 6 bytes of a row of plane 2, got -5");
  CHECK(message(bgrx, 4, 6, {{y, 18}, {}, {}}) ==
        "bgrx: expected a pitch of at least the 24 bytes of a row of plane 1, got 18");
  CHECK(message(gray8, 4, 6, {{y, 0}, {}, {}}) ==
        "gray8: expected a pitch of at least the 6 bytes of a row of plane 1, got 0");
  CHECK(message(nv12, 4, 6, {{y, 6}, {y + 23, 6}, {}}) ==
        "nv12: expected planes apart from each other, got planes 1 and 2 that overlap");
  CHECK(message(i420, 4, 6, {{y, 6}, {uv, 3}, {uv + 5, 3}}) ==
        "i420: expected planes apart from each other, got planes 2 and 3 that overlap");
  CHECK(message(i420, 4, 6, {{y, 6}, {uv, 6}, {uv + 2, 6}}) ==
        "i420: expected planes apart from each other, got planes 2 and 3 that overlap");
  CHECK(message(i420, 4, 6, {{y, 6}, {uv, 3}, {v, 4}}) ==
        "i420: expected the same pitch of planes 2 and 3, got 3 and 4 bytes");
  CHECK(message(gray16, 4, 6, {{y + 1, 12}, {}, {}}) ==
        "gray16: expected an address and strides that are multiples of 2 bytes, got others");
  CHECK(message(rgb, 4, 6, {{y, 18}, {}, {}}, {ColourRange::limited, {}}) ==
        "rgb: expected full range, got limited, which is of grey and YUV");
  for (const std::ptrdiff_t pitch : {far, -far, least, std::ptrdiff_t{1} << 48})
    for (const PixelFormat format : {gray8, nv12})
      CHECK(message(format, 4, 6, {{y, pitch}, {format == nv12 ? uv : nullptr, pitch}, {}}).find("within 2^48 bytes") !=
            std::string::npos);
  CHECK(message(nv12, 2, 6, {{y, 6}, {uv, least}, {}}) == "");  // its only row
  for (const auto& [height, width] :
       {std::pair{0, 6}, {-2, 6}, {4, 0}, {4, -6}, {cpu::most_side + 2, 2}, {1 << 16, 1 << 16}})
    CHECK(message(nv12, height, width, {{y, 1 << 30}, {uv, 1 << 30}, {}}) != "");
  CHECK(message(PixelFormat(14), 4, 6, {{y, 6}, {}, {}}) == "format: expected one of PixelFormat's 14 values, got 14");
  CHECK(pixel_format("p010") == p010);
  CHECK(pixel_format("bgrx") == bgrx);
  CHECK_THROWS_WITH_AS(pixel_format("nv16"),
                       "format: expected one of gray8, gray10, gray16, rgb, bgr, rgba, bgra, rgbx, bgrx, nv12, nv21, "
                       "i420, yuyv, p010, got nv16",
                       InvalidArgument);
}

TEST_CASE("views of YUV that ImageView::of did not make are refused where they cannot be read") {
  std::array<std::uint8_t, 64> bytes{};
  const ImageView good = ImageView::of(PixelFormat::nv12, 4, 6, {{bytes.data(), 6}, {bytes.data() + 24, 6}, {}});
  CHECK_NOTHROW(cpu::check_layout(good, "image"));
  const auto refused = [&](const auto& change) {
    ImageView view = good;
    change(view);
    CHECK_THROWS_AS(cpu::check_layout(view, "image"), InvalidArgument);
  };
  refused([](ImageView& view) { view.chroma.u = nullptr; });
  refused([](ImageView& view) { view.chroma.v = nullptr; });
  refused([](ImageView& view) { view.coding = {}; });
  refused([](ImageView& view) { view.coding.white = 1023; });
  refused([](ImageView& view) { view.coding.red_v = 1 << 30; });
  refused([](ImageView& view) { view.type = PixelType::float32; });
  refused([](ImageView& view) { view.channels = 1; });
  refused([](ImageView& view) { view.width = 5; });
  refused([](ImageView& view) { view.height = 3; });
  refused([](ImageView& view) { view.chroma.rows = 0; });
  refused([](ImageView& view) { view.chroma.rows = 4; });
  refused([](ImageView& view) { view.chroma.pitch_bytes = std::ptrdiff_t{1} << 60; });
  refused([](ImageView& view) { view.chroma.stride_bytes = std::numeric_limits<std::ptrdiff_t>::min(); });
}

TEST_CASE("words of gray10 have no more than 10 bits") {
  Workers workers{ThreadPool(2)};
  std::vector<std::uint16_t> words(300 * 300, 1023);
  const ImageView image = ImageView::of(PixelFormat::gray10, 300, 300, {{words.data(), 600}, {}, {}});
  CHECK_NOTHROW(cpu::check_range(image, "image", 0, 1, workers));
  words[89999] = 1024;
  CHECK_THROWS_WITH_AS(cpu::check_range(image, "image", 0, 1, workers),
                       "image: expected words of at most 1023, got 1024", InvalidArgument);
}

TEST_CASE("float images must lie in [0, 1]") {
  Workers workers{ThreadPool(2)};
  std::vector<float> pixels(100 * 100, 0.5f);
  const ImageView image = ImageView::interleaved(pixels.data(), PixelType::float32, 100, 100, 1, 400);
  CHECK_NOTHROW(cpu::check_range(image, "image", 0, 1, workers));
  for (const float bad : {-1e-6f, 1.000001f, std::nanf(""), std::numeric_limits<float>::infinity()}) {
    pixels[9999] = bad;
    CHECK_THROWS_AS(cpu::check_range(image, "image", 0, 1, workers), InvalidArgument);
  }
}
