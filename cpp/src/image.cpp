// SPDX-License-Identifier: Apache-2.0
#include "image.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <sstream>

#include "defocus_fast/error.hpp"
#include "model.hpp"
#include "stored.hpp"

namespace defocus_fast::cpu {

namespace {

template <class T>
T value_at(const ImageView& image, int y, int x, int c) {
  const auto* bytes = static_cast<const std::byte*>(image.data);
  return *reinterpret_cast<const T*>(bytes + y * image.pitch_bytes + x * image.pixel_stride_bytes +
                                     c * image.channel_stride_bytes);
}

template <class T>
void load_row_of(const ImageView& image, int y, int x0, int n, float* const* channels) {
  const auto convert = [](T value) { return std::is_same_v<T, float> ? float(value) : float(value) / 255.0f; };
  const int begin = std::clamp(-x0, 0, n), end = std::clamp(image.width - x0, begin, n);
  for (int c = 0; c < image.channels; ++c) {
    float* out = channels[c];
    for (int i = 0; i < begin; ++i) out[i] = convert(value_at<T>(image, y, reflect(x0 + i, image.width), c));
    for (int i = begin; i < end; ++i) out[i] = convert(value_at<T>(image, y, x0 + i, c));
    for (int i = end; i < n; ++i) out[i] = convert(value_at<T>(image, y, reflect(x0 + i, image.width), c));
  }
}

/// Calls use(x, value of each channel) for `n` pixels of row y from column x0 on, a part of the row at a time.
template <class Use>
void for_pixels(const ImageView& image, int y, int x0, int n, const Use& use) {
  constexpr int part = 256;
  std::array<std::array<float, part>, 3> values;
  float* const channels[]{values[0].data(), values[1].data(), values[2].data()};
  const std::size_t green = image.channels == 1 ? 0 : 1, blue = image.channels == 1 ? 0 : 2;
  for (int begin = 0; begin < n; begin += part) {
    const int count = std::min(part, n - begin);
    load_row(image, reflect(y, image.height), x0 + begin, count, channels);
    for (int x = 0; x < count; ++x)
      use(begin + x,
          std::array{values[0][std::size_t(x)], values[green][std::size_t(x)], values[blue][std::size_t(x)]});
  }
}

}  // namespace

void check_pointer(const void* data, const char* name) {
  if (data == nullptr) throw InvalidArgument(std::string(name) + ": expected a pointer to pixels, got null");
}

void check_layout(const ImageView& image, const char* name) {
  const auto fail = [&](const std::string& what) {
    std::ostringstream message;
    message << name << ": expected " << what << ", got height " << image.height << ", width " << image.width
            << ", channels " << image.channels;
    throw InvalidArgument(message.str());
  };
  check_pointer(image.data, name);
  if (image.type != PixelType::uint8 && image.type != PixelType::float32)
    throw InvalidArgument(std::string(name) + ": expected PixelType::uint8 or PixelType::float32, got the value " +
                          std::to_string(int(image.type)));
  if (std::min(image.height, image.width) < 1 || std::max(image.height, image.width) > most_side)
    fail("sides of 1 to 1073741824 px");
  if (image.channels != 1 && image.channels != 3) fail("1 or 3 channels");
  if (std::int64_t{image.height} * image.width > std::numeric_limits<std::int32_t>::max())
    fail("at most 2147483647 pixels");
  check_addresses(name, image.data, image.type == PixelType::uint8 ? 1 : sizeof(float),
                  {{image.height, image.pitch_bytes},
                   {image.width, image.pixel_stride_bytes},
                   {image.channels, image.channel_stride_bytes}});
}

void check_addresses(const char* name, const void* data, int size, std::initializer_list<Axis> axes) {
  constexpr std::ptrdiff_t most = std::ptrdiff_t{1} << 48;  // more than any memory, and sums of it do not overflow
  bool aligned = reinterpret_cast<std::uintptr_t>(data) % std::uintptr_t(size) == 0;
  for (const auto& [length, stride] : axes) {
    if (length < 2) continue;
    if (stride > most / (length - 1) || stride < -most / (length - 1))
      throw InvalidArgument(std::string(name) + ": expected pixels within 2^48 bytes, got " + std::to_string(length) +
                            " that are " + std::to_string(stride) + " bytes apart");
    aligned &= stride % size == 0;
  }
  if (!aligned)
    throw InvalidArgument(std::string(name) + ": expected an address and strides that are multiples of " +
                          std::to_string(size) + " bytes, got others");
}

void check_range(const ImageView& image, const char* name, float least, float most, Workers& workers) {
  if (image.type != PixelType::float32) return;
  const bool packed = image.pixel_stride_bytes == image.channels * std::ptrdiff_t(sizeof(float)) &&
                      (image.channels == 1 || image.channel_stride_bytes == sizeof(float));
  std::atomic<bool> valid = true;
  workers.for_ranges(image.height, 32, [&](int begin, int end, int) {
    const auto outside = [&](float value) { return int(!(value >= least)) | int(!(value <= most)); };  // NaN is
    int any = 0;
    for (int y = begin; y < end; ++y)
      if (packed) {
        const auto* row =
            reinterpret_cast<const float*>(static_cast<const std::byte*>(image.data) + y * image.pitch_bytes);
        for (std::ptrdiff_t i = 0; i < std::ptrdiff_t{image.width} * image.channels; ++i) any |= outside(row[i]);
      } else {
        for (int x = 0; x < image.width; ++x)
          for (int c = 0; c < image.channels; ++c) any |= outside(value_at<float>(image, y, x, c));
      }
    if (any != 0) valid = false;
  });
  if (valid) return;
  float lowest = std::numeric_limits<float>::infinity(), highest = -lowest;
  bool finite = true;
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x)
      for (int c = 0; c < image.channels; ++c) {
        const float value = value_at<float>(image, y, x, c);
        finite &= std::isfinite(value);
        lowest = std::min(lowest, value);
        highest = std::max(highest, value);
      }
  std::ostringstream message;
  message.precision(std::numeric_limits<float>::max_digits10);
  message << name << ": expected float32 values in [" << least << ", " << most << "], got ";
  if (finite)
    message << "values from " << lowest << " to " << highest;
  else
    message << "NaN or infinity";
  throw InvalidArgument(message.str());
}

void load_row(const ImageView& image, int y, int x0, int n, float* const* channels) {
  (image.type == PixelType::uint8 ? load_row_of<std::uint8_t> : load_row_of<float>)(image, y, x0, n, channels);
}

template <class T>
void load_value_row(const ImageView& image, int y, const CannyKernels<T>& kernels, T* out) {
  const bool packed = image.type == PixelType::uint8 && image.pixel_stride_bytes == image.channels;
  if (packed && (image.channels == 1 || std::abs(image.channel_stride_bytes) == 1)) {
    const auto* row = static_cast<const std::uint8_t*>(image.data) + y * image.pitch_bytes;
    const std::ptrdiff_t last = (image.channels - 1) * image.channel_stride_bytes;
    kernels.brightest(row + std::min<std::ptrdiff_t>(0, last), image.channels, image.width, out);
    return;
  }
  const auto brightest = [&](auto pixel, T scale) {
    using Pixel = decltype(pixel);
    for (int x = 0; x < image.width; ++x) {
      Pixel value = value_at<Pixel>(image, y, x, 0);
      for (int c = 1; c < image.channels; ++c) value = std::max(value, value_at<Pixel>(image, y, x, c));
      out[x] = T(value) / scale;
    }
  };
  if (image.type == PixelType::uint8)
    brightest(std::uint8_t{}, T(255));
  else
    brightest(float{}, T(1));
}
template void load_value_row(const ImageView&, int, const CannyKernels<float>&, float*);
template void load_value_row(const ImageView&, int, const CannyKernels<double>&, double*);

namespace {

/// at(row, pixel, channel) is a value of the two rows to be reduced.
template <class T, class Channels, class At>
void reduce_row_of(int width, Channels channels, const At& at, T* out) {
  for (int x = 0; x < width; ++x)
    for (int c = 0; c < channels; ++c) {
      const auto sum = at(0, 2 * x, c) + at(0, 2 * x + 1, c) + at(1, 2 * x, c) + at(1, 2 * x + 1, c);
      *out++ = std::is_same_v<T, float> ? T(sum * 0.25f) : T((int(sum) + 2) / 4);
    }
}

template <class T>
void reduce_row_of(const ImageView& image, int y, T* out) {
  constexpr auto size = std::ptrdiff_t{sizeof(T)};
  const int width = image.width / 2;
  if (image.channel_stride_bytes != size || image.pixel_stride_bytes != size * image.channels)
    return reduce_row_of(
        width, image.channels, [&](int dy, int x, int c) { return value_at<T>(image, 2 * y + dy, x, c); }, out);
  // Without gaps the compiler sees where the values are.
  const auto row = [&](int dy) {
    return reinterpret_cast<const T*>(static_cast<const std::byte*>(image.data) + (2 * y + dy) * image.pitch_bytes);
  };
  const T* const rows[]{row(0), row(1)};
  const auto without_gaps = [&](auto channels) {
    reduce_row_of(width, channels, [&](int dy, int x, int c) { return rows[dy][x * channels + c]; }, out);
  };
  if (image.channels == 1)
    without_gaps(std::integral_constant<int, 1>{});
  else
    without_gaps(std::integral_constant<int, 3>{});
}

}  // namespace

void reduce_row(const ImageView& image, int y, std::byte* out) {
  if (image.type == PixelType::uint8)
    reduce_row_of(image, y, reinterpret_cast<std::uint8_t*>(out));
  else
    reduce_row_of(image, y, reinterpret_cast<float*>(out));
}

int reflect(int i, int n) {
  if (i >= 0 && i < n) return i;
  const std::int64_t period = std::int64_t{2} * n;  // d c b a | a b c d | d c b a
  const std::int64_t k = (i % period + period) % period;
  return int(k < n ? k : period - 1 - k);
}

template <class T>
void extract_pixels(const ImageView& image, int y0, int x0, int rows, int n, int stride, T* out) {
  for (int y = 0; y < rows; ++y, out += std::ptrdiff_t(n) * stride)
    for_pixels(image, y0 + y, x0, n, [&](int x, const std::array<float, 3>& pixel) {
      for (std::size_t c = 0; c < 3; ++c) out[std::ptrdiff_t(x) * stride + std::ptrdiff_t(c)] = stored<T>(pixel[c]);
    });
}
template void extract_pixels(const ImageView&, int, int, int, int, int, float*);
template void extract_pixels(const ImageView&, int, int, int, int, int, std::uint16_t*);
template void extract_pixels(const ImageView&, int, int, int, int, int, std::uint8_t*);

template <class T>
void extract_cells(const ImageView& image, int y0, int x0, int n, int stride, T* out) {
  for (int y = 0; y < cell; ++y)
    for_pixels(image, y0 + y, x0, n * cell, [&](int x, const std::array<float, 3>& pixel) {
      T* to = out + std::ptrdiff_t(x / cell) * stride + (y * cell + x % cell) * 3;
      for (std::size_t c = 0; c < 3; ++c) to[c] = stored<T>(pixel[c]);
    });
}
template void extract_cells(const ImageView&, int, int, int, int, float*);
template void extract_cells(const ImageView&, int, int, int, int, std::uint16_t*);
template void extract_cells(const ImageView&, int, int, int, int, std::uint8_t*);

}  // namespace defocus_fast::cpu
