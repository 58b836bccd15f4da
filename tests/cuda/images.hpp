// SPDX-License-Identifier: Apache-2.0
// Images of any memory layout, and the CPU side of a comparison.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "defocus_fast/image.hpp"

namespace defocus_fast::test {

// Under ThreadSanitizer every CUDA thread is a thread: images are small there.
#ifdef __SANITIZE_THREAD__
inline constexpr bool small_pictures = true;
#else
inline constexpr bool small_pictures = false;
#endif

inline std::mt19937 generator(1);
inline float random_float(float low = 0, float high = 1) {
  return std::uniform_real_distribution<float>(low, high)(generator);
}
inline int random_int(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }

enum class Layout : unsigned char { packed, odd_pitch, planar, flipped };

struct Picture {
  std::vector<std::byte> bytes;  // of the exact size, so that any read outside is found
  ImageView view;
};

/// `value(y, x, c)` in [0, 1].
template <class Value>
Picture picture(PixelType type, int height, int width, int channels, Layout layout, const Value& value) {
  Picture result;
  const std::ptrdiff_t element = type == PixelType::uint8 ? 1 : 4;
  ImageView& view = result.view =
      ImageView::interleaved(nullptr, type, height, width, channels, element * channels * width);
  if (layout == Layout::odd_pitch) {  // in elements: float pixels stay aligned
    view.pixel_stride_bytes += element;
    view.pitch_bytes = view.pixel_stride_bytes * width + 3 * element;
  } else if (layout == Layout::planar) {
    view.pixel_stride_bytes = element;
    view.pitch_bytes = element * width;
    view.channel_stride_bytes = view.pitch_bytes * height;
  }
  const std::ptrdiff_t last = (height - 1) * view.pitch_bytes + (width - 1) * view.pixel_stride_bytes +
                              (channels - 1) * view.channel_stride_bytes;
  result.bytes.resize(std::size_t(last + element));
  std::byte* first = result.bytes.data();
  if (layout == Layout::flipped) {
    first += last;
    view.pitch_bytes = -view.pitch_bytes;
    view.pixel_stride_bytes = -view.pixel_stride_bytes;
    view.channel_stride_bytes = -view.channel_stride_bytes;
  }
  view.data = first;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c) {
        std::byte* at = first + y * view.pitch_bytes + x * view.pixel_stride_bytes + c * view.channel_stride_bytes;
        const float v = value(y, x, c);
        if (type == PixelType::uint8)
          *at = std::byte(std::lround(v * 255));
        else
          std::memcpy(at, &v, sizeof v);
      }
  return result;
}

/// Shapes of several contrasts over a gradient, with noise.
inline Picture scene(PixelType type, int height, int width, int channels, Layout layout = Layout::packed) {
  struct Disk {
    float y, x, radius, colour[3];
  };
  std::vector<Disk> disks(12);
  for (Disk& disk : disks)
    disk = {random_float(0, float(height)),
            random_float(0, float(width)),
            random_float(2, 30),
            {random_float(), random_float(), random_float()}};
  return picture(type, height, width, channels, layout, [&](int y, int x, int c) {
    float value = 0.3f + 0.2f * float(y + x) / float(height + width);
    for (const Disk& disk : disks)
      if (std::hypot(float(y) - disk.y, float(x) - disk.x) < disk.radius) value = disk.colour[c];
    return std::clamp(value + random_float(-0.02f, 0.02f), 0.0f, 1.0f);
  });
}

inline constexpr std::array all_formats{PixelFormat::gray8, PixelFormat::gray10, PixelFormat::gray16, PixelFormat::rgb,
                                        PixelFormat::bgr,   PixelFormat::rgba,   PixelFormat::bgra,   PixelFormat::rgbx,
                                        PixelFormat::bgrx,  PixelFormat::nv12,   PixelFormat::nv21,   PixelFormat::i420,
                                        PixelFormat::yuyv,  PixelFormat::p010};

/// A camera's frame of random numbers of an even size, its planes of the exact size, with a gap after each row.
struct CameraFrame {
  std::array<std::vector<std::byte>, 3> planes;
  ImageView view;

  CameraFrame(PixelFormat format, int height, int width, const Colour& colour = {}, int gap = 6) {
    const bool words = format == PixelFormat::gray10 || format == PixelFormat::gray16 || format == PixelFormat::p010;
    const int size = words ? 2 : 1;
    int numbers = 1, count = 1;  // of a pixel in the first plane; planes
    if (format == PixelFormat::rgb || format == PixelFormat::bgr)
      numbers = 3;
    else if (format >= PixelFormat::rgba && format <= PixelFormat::bgrx)
      numbers = 4;
    else if (format == PixelFormat::yuyv)
      numbers = 2;
    else if (format == PixelFormat::i420)
      count = 3;
    else if (format >= PixelFormat::nv12)
      count = 2;
    FramePlanes where;
    FramePlane* const all[]{&where.first, &where.second, &where.third};
    for (int i = 0; i < count; ++i) {
      const int rows = i == 0 ? height : height / 2, row = size * (i == 0       ? numbers * width
                                                                   : count == 3 ? width / 2
                                                                                : width);
      std::vector<std::byte>& bytes = planes[std::size_t(i)];
      bytes.resize(std::size_t((rows - 1) * (row + gap) + row));
      for (std::byte& byte : bytes) byte = std::byte(random_int(0, 255));
      if (format == PixelFormat::gray10)
        for (std::size_t k = 1; k < bytes.size(); k += 2) bytes[k] &= std::byte{3};
      *all[i] = {bytes.data(), row + gap};
    }
    view = ImageView::of(format, height, width, where, colour);
  }
};

/// Symmetric weights of sum 1 (how exactly they are those of a Gaussian does not matter here).
inline std::vector<double> smoothing(double sigma) {
  const int radius = int(4 * sigma + 0.5);
  std::vector<double> weights;
  double sum = 0;
  for (int i = -radius; i <= radius; ++i) sum += weights.emplace_back(std::exp(-0.5 / (sigma * sigma) * (i * i)));
  for (double& weight : weights) weight /= sum;
  return weights;
}

}  // namespace defocus_fast::test
