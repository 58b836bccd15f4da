// SPDX-License-Identifier: Apache-2.0
// Views of pixels: those that lie inside a buffer work, whatever their strides, and those that cannot be read are
// refused before anything is.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>

#include "defocus_fast/error.hpp"
#include "defocus_fast/estimator.hpp"
#include "stages.hpp"

using namespace defocus_fast;

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

/// Of the pixels (n, stride); the buffer is as long as what they span, so that one more byte is outside.
struct Axes {
  std::ptrdiff_t low = 0, high = 0;
  void add(int n, std::ptrdiff_t stride) { (stride < 0 ? low : high) += (n - 1) * stride; }
};

/// Memory for values of `size` bytes; the first of them begins at data().
class Buffer {
 public:
  Buffer(const Axes& axes, std::size_t size)
      : offset_(std::size_t(-axes.low)),
        length_(std::size_t(axes.high - axes.low) + size),
        bytes_(new std::byte[length_]) {}
  void fill(FuzzedDataProvider& provider, bool floats) {
    const auto seed = provider.ConsumeBytes<std::uint8_t>(64);
    for (std::size_t i = 0; i < length_; ++i)
      bytes_[i] = std::byte(seed.empty() ? i * 7 % 256 : seed[i % seed.size()] + i / 64);
    if (!floats || provider.ConsumeIntegralInRange(0, 15) == 0) return;  // any bits, NaN too
    for (std::size_t i = 0; i + sizeof(float) <= length_; i += sizeof(float)) {
      const float value = float(bytes_[i]) / 255.0f;
      std::memcpy(bytes_.get() + i, &value, sizeof value);
    }
  }
  /// Leaves a tenth of the bytes: edges, which are slow.
  void thin() {
    for (std::size_t i = 0; i < length_; ++i)
      if (std::uint8_t(bytes_[i]) % 10 != 0) bytes_[i] = std::byte{0};
  }
  std::byte* data() const { return bytes_.get() + offset_; }

 private:
  std::size_t offset_, length_;
  std::unique_ptr<std::byte[]> bytes_;
};

std::ptrdiff_t stride(FuzzedDataProvider& provider, int size) {
  return provider.ConsumeIntegralInRange<std::ptrdiff_t>(-200, 200) * size;
}

/// A view of its own memory.
struct Image {
  ImageView view;
  Buffer buffer;

  static Image make(FuzzedDataProvider& provider, int height, int width, bool only_float = false) {
    ImageView view;
    view.type = only_float || provider.ConsumeBool() ? PixelType::float32 : PixelType::uint8;
    view.height = height;
    view.width = width;
    view.channels = provider.ConsumeBool() ? 3 : 1;
    const int size = view.type == PixelType::uint8 ? 1 : 4;
    view.channel_stride_bytes = stride(provider, size);
    view.pixel_stride_bytes = stride(provider, size);
    view.pitch_bytes = stride(provider, size) * 4;
    if (provider.ConsumeBool()) {  // what cameras have
      view = ImageView::interleaved(nullptr, view.type, height, width, view.channels, 0);
      view.pitch_bytes = width * view.pixel_stride_bytes + provider.ConsumeIntegralInRange(0, 9) * size;
    }
    Axes axes;
    axes.add(view.height, view.pitch_bytes);
    axes.add(view.width, view.pixel_stride_bytes);
    axes.add(view.channels, view.channel_stride_bytes);
    Buffer buffer(axes, std::size_t(size));
    buffer.fill(provider, view.type == PixelType::float32);
    view.data = buffer.data();
    return {view, std::move(buffer)};
  }
};

template <class T>
struct Plane {
  View<T> view;
  Buffer buffer;

  static Plane make(FuzzedDataProvider& provider, int height, int width) {
    View<T> view{nullptr, height, width, stride(provider, sizeof(T)) * 4, stride(provider, sizeof(T))};
    Axes axes;
    axes.add(height, view.pitch_bytes);
    axes.add(width, view.pixel_stride_bytes);
    Buffer buffer(axes, sizeof(T));
    buffer.fill(provider, sizeof(T) > 1);
    if (sizeof(T) == 1) buffer.thin();
    view.data = reinterpret_cast<T*>(buffer.data());
    return {view, std::move(buffer)};
  }
};

/// Whatever it says about itself.
ImageView any_view(FuzzedDataProvider& provider, const void* data) {
  const auto side = [&] {
    return provider.ConsumeBool() ? provider.ConsumeIntegral<int>() : provider.ConsumeIntegralInRange(-1, 40);
  };
  const auto step = [&] {
    return provider.ConsumeBool() ? provider.ConsumeIntegral<std::ptrdiff_t>()
                                  : provider.ConsumeIntegralInRange<std::ptrdiff_t>(-100, 100);
  };
  ImageView view;
  view.data = provider.ConsumeIntegralInRange(0, 9) == 0 ? nullptr : data;
  view.type = PixelType(provider.ConsumeIntegralInRange(0, 2));
  view.height = side();
  view.width = side();
  view.channels = provider.ConsumeBool() ? provider.ConsumeIntegralInRange(-1, 4) : 3;
  view.pitch_bytes = step();
  view.pixel_stride_bytes = step();
  view.channel_stride_bytes = step();
  return view;
}

/// Refused if they are wrong; those that are taken have offsets that can be computed.
void describe(FuzzedDataProvider& provider) {
  const float value = 0;
  const ImageView view = any_view(provider, &value);
  const bool sensible = view.data && view.type <= PixelType::float32 && view.height > 0 && view.width > 0 &&
                        view.height <= 1 << 30 && view.width <= 1 << 30 && (view.channels == 1 || view.channels == 3) &&
                        double(view.height) * view.width < 2147483648.0;
  __extension__ using Wide = __int128;
  const auto span = [](int n, std::ptrdiff_t step) { return n > 1 ? std::abs(double(Wide(n - 1) * step)) : 0.0; };
  const double bytes = span(view.height, view.pitch_bytes) + span(view.width, view.pixel_stride_bytes) +
                       span(view.channels, view.channel_stride_bytes);
  try {
    cpu::check_layout(view, "image");
    require(sensible && bytes < 0x1p62, "a view that cannot be read was taken");
  } catch (const InvalidArgument&) {
    require(!(sensible && view.type == PixelType::uint8 && bytes < 0x1p48), "a view that can be read was refused");
    // The functions refuse it, too, before they take memory.
    std::uint8_t mask = 0;
    float out = 0;
    int refused = 0;
    try {
      detect_edges(view, {}, &mask, 1);
    } catch (const InvalidArgument&) {
      ++refused;
    }
    try {
      domain_transform_filter(view, view, {}, &out, 1);
    } catch (const InvalidArgument&) {
      ++refused;
    }
    require(refused == 2, "a function took what cannot be read");
  }
}

/// Planes anywhere: refused, or a view whose offsets can be computed.
void describe_frame(FuzzedDataProvider& provider) {
  alignas(2) static const std::array<std::byte, 4096> memory{};
  FramePlanes planes;
  for (FramePlane* plane : {&planes.first, &planes.second, &planes.third}) {
    const auto at = provider.ConsumeIntegralInRange<std::size_t>(0, memory.size());
    plane->data = at == memory.size() ? nullptr : &memory[at];
    plane->pitch_bytes = provider.ConsumeBool() ? provider.ConsumeIntegral<std::ptrdiff_t>()
                                                : provider.ConsumeIntegralInRange<std::ptrdiff_t>(-100, 100);
  }
  Colour colour;
  if (provider.ConsumeBool()) colour.range = ColourRange(provider.ConsumeBool());
  const auto side = [&] {
    return provider.ConsumeBool() ? provider.ConsumeIntegral<int>() : provider.ConsumeIntegralInRange(-1, 40);
  };
  const int height = side(), width = side();
  try {
    const ImageView view =
        ImageView::of(PixelFormat(provider.ConsumeIntegralInRange(0, 14)), height, width, planes, colour);
    cpu::check_layout(view, "image");
  } catch (const InvalidArgument&) {
    return;
  }
  require(height > 0 && width > 0 && planes.first.data, "a frame that cannot be read was taken");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider provider(data, size);
  enum { description, edges_of, filtered, spread, frame };
  // A frame takes as long as a hundred descriptions. libFuzzer prefers what is slow, as there is more to see: so only
  // one of so many inputs is taken for what it says, and the others for descriptions.
  constexpr std::array one_of{1, 4, 12, 12, 60};
  const auto what = provider.ConsumeIntegralInRange<std::size_t>(description, frame);
  const std::size_t choice = std::hash<std::string_view>()(std::string_view(reinterpret_cast<const char*>(data), size));
  if (what == description || choice % std::size_t(one_of[what]) != 0) {
    describe(provider);
    describe_frame(provider);
    return 0;
  }
  // The estimator's size is always the same, so that there is one for all inputs.
  constexpr int estimator_height = 17, estimator_width = 23;
  const int height = what == frame ? estimator_height : provider.ConsumeIntegralInRange(1, 33);
  const int width = what == frame ? estimator_width : provider.ConsumeIntegralInRange(1, 33);
  const std::size_t pixels = std::size_t(height) * std::size_t(width);
  try {
    if (what == edges_of) {
      const Image image = Image::make(provider, height, width);
      std::vector<std::uint8_t> mask(pixels, 7);
      CannyOptions options;
      options.sigma = provider.ConsumeFloatingPointInRange(0.1, 4.0);
      detect_edges(image.view, options, mask.data(), 1);
      require(std::ranges::all_of(mask, [](std::uint8_t value) { return value <= 1; }), "the mask is not of 0 and 1");
    } else if (what == filtered) {
      const Image image = Image::make(provider, height, width, true),
                  guide = Image::make(provider, height, width, true);
      std::vector<float> out(pixels * std::size_t(image.view.channels), NAN);
      domain_transform_filter(image.view, guide.view, {}, out.data(), 1);
      require(std::ranges::none_of(out, [](float value) { return std::isnan(value); }), "the answer has NaN");
    } else {
      const Image image = Image::make(provider, height, width);
      const auto radii = Plane<const float>::make(provider, height, width);
      const auto edges = Plane<const std::uint8_t>::make(provider, height, width);
      const auto depth = Plane<const std::uint8_t>::make(provider, height, width);
      const auto out = Plane<float>::make(provider, height, width);
      if (what == spread) {
        propagate(image.view, radii.view, edges.view, depth.view, {}, {}, out.view, 1);
      } else {
        static Estimator estimator(estimator_height, estimator_width, [] {
          Options options;
          options.model = "cells";  // in $DEFOCUS_FAST_MODELS
          options.device = "cpu";
          options.num_threads = 1;
          return options;
        }());
        BlurMap result;
        estimator.estimate(image.view, result, {.edges = edges.view});
        require(std::ranges::all_of(result.map, [](float value) { return value >= 0; }), "the map is no radius");
        estimator.estimate_into(image.view, out.view);
      }
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) require(*out.view.at(y, x) >= 0, "the map is no radius");
    }
  } catch (const InvalidArgument&) {  // values out of range, or pixels of `out` that overlap
  }
  return 0;
}
