// SPDX-License-Identifier: Apache-2.0
// The trunk's convolutions, evaluated at listed pixels of a tile: the weights, which all estimators of a model share,
// and the workspace of one estimator.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "defocus_fast/error.hpp"
#include "kernels.hpp"
#include "marked.hpp"
#include "model.hpp"
#include "pack_weights.hpp"
#include "workers.hpp"

namespace defocus_fast::cpu {

/// What a layer writes: values for the layers after it, or features, which are of the heads' type, with ReLU or
/// without.
enum class Output : std::uint8_t { hidden, features, sums };

/// One convolution of an architecture.
struct LayerSpec {
  std::string name;                // of its tensor
  std::vector<std::string> reads;  // layers, or "image"
  int kernel;                      // taps along each side
  Output output = Output::hidden;
};

/// What the first layers read: values of the image per pixel of the grid, and as how many they are stored.
struct ImageValues {
  int count, channels;
};

/// Hidden is what all layers of the trunk hold but the last ones.
template <class Hidden>
struct LayerWeights {
  int kernel;  // taps along each side
  int inputs;  // channels of every layer read
  bool relu;
  std::vector<Weight<Hidden>> weights;
  std::vector<float> scales;     // of integers
  std::vector<Hidden> winograd;  // of layers that have it
};

template <class Hidden>
using TrunkWeights = std::map<std::string, LayerWeights<Hidden>>;

/// `values`: (width, count * reads, kernel, kernel) of what is read.
template <class Hidden>
LayerWeights<Hidden> pack_layer(const Model& model, const LayerSpec& spec, std::span<const float> values,
                                const ImageValues& image) {
  const bool first = spec.reads[0] == "image";
  const std::size_t real = std::size_t(first ? image.count : model.width), sources = spec.reads.size();
  const std::size_t area = std::size_t(spec.kernel * spec.kernel), outputs = std::size_t(model.width);
  const int taps = int(sources * area);
  LayerWeights<Hidden> packed{
      spec.kernel, first ? image.channels : padded_features(model.width), spec.output != Output::sums, {}, {}, {}};
  const auto weight = [&](std::size_t o, std::size_t tap, std::size_t c) {
    const std::size_t s = tap / area, k = tap % area;
    return values[((o * sources + s) * real + c) * area + k];
  };
  if constexpr (std::is_same_v<Hidden, std::uint8_t>) {
    // Of every output the largest weight becomes 127; weights hold what 1 in their source stands for.
    const auto range = [&](const std::string& layer) { return layer == "image" ? 1.0f : model.ranges.at(layer); };
    std::vector<float> step, largest(outputs);
    for (const std::string& layer : spec.reads) step.push_back(range(layer) / 255);
    for (std::size_t o = 0; o < outputs; ++o)
      for (std::size_t tap = 0; tap < std::size_t(taps); ++tap)
        for (std::size_t c = 0; c < real; ++c)
          largest[o] = std::max(largest[o], std::abs(weight(o, tap, c) * step[tap / area]));
    packed.weights = pack_weights<Hidden>(
        model.width, taps, int(real), packed.inputs, [&](std::size_t o, std::size_t tap, std::size_t c) {
          return largest[o] > 0 ? weight(o, tap, c) * step[tap / area] / largest[o] * 127 : 0.0f;
        });
    packed.scales.resize(std::size_t(padded_features(model.width)));
    const float of_output = spec.output == Output::hidden ? range(spec.name) / 255 : 1.0f;
    for (std::size_t o = 0; o < outputs; ++o) packed.scales[o] = largest[o] / 127 / of_output;
  } else {
    packed.weights = pack_weights<Hidden>(model.width, taps, int(real), packed.inputs, weight);
    if (spec.kernel == 3 && !first)
      packed.winograd = winograd_weights<Hidden, 4>(
          model.width, int(sources), int(real), packed.inputs,
          [&](std::size_t o, std::size_t s, std::size_t k, std::size_t c) { return weight(o, s * area + k, c); });
  }
  return packed;
}

/// Pixels of the grid at which a layer's output is needed.
struct Needed {
  std::vector<std::uint8_t> mask, rows;  // with `guard` bytes before and after; `rows` is scratch
  std::vector<std::int32_t> pixels;
  std::vector<std::int32_t> squares;  // of Winograd's filtering, by their first pixels; of layers that have it
};

/// The workspace: a grid that covers a tile with a margin around it, rows `pitch` pixels apart. Planes of layers hold
/// Hidden, features T.
template <class T, class Hidden>
class ListedConvolutions {
 public:
  using Plane = std::vector<Hidden>;
  using Features = std::vector<T>;

  /// What a convolution reads: the outputs of a layer, `shift` px down and right of the pixel; `known` is null for the
  /// image, which is known everywhere.
  struct Source {
    const Plane* plane;
    const Needed* known;
    int shift = 0;
  };
  struct Layer {
    const LayerWeights<Hidden>* packed;
    std::vector<const Hidden*> taps;
    std::vector<Source> sources;
    int dilation;
  };

  ListedConvolutions(const TrunkWeights<Hidden>& weights_, int features, const Kernels& kernels_, Workers& workers_,
                     int rows_, int pitch_, int guard_, const ImageValues& image_values_)
      : kernels(network_kernels<Hidden>(kernels_)),
        workers(workers_),
        channels(padded_features(features)),
        rows(rows_),
        pitch(pitch_),
        pixel_count(rows_ * pitch_),
        guard(guard_),
        image_channels(image_values_.channels),
        image(std::size_t(pixel_count) * std::size_t(image_channels)),
        weights(weights_),
        zeros(std::size_t(channels)),
        scratch(std::size_t(workers_.count())) {}

  template <class Values>
  void make(Values& plane) const {
    plane.resize(std::size_t(pixel_count) * std::size_t(channels));
  }

  Layer layer(const std::string& name, const std::vector<Source>& sources, int dilation) {
    Layer result{&weights.at(name), {}, sources, dilation};
    const int kernel = result.packed->kernel;
    for (const Source& source : sources)
      for (int k = 0; k < kernel * kernel; ++k) {
        const int dy = (k / kernel - kernel / 2) * dilation + source.shift;
        const int dx = (k % kernel - kernel / 2) * dilation + source.shift;
        result.taps.push_back(source.plane->data() + std::ptrdiff_t(dy * pitch + dx) * result.packed->inputs);
      }
    if constexpr (has_winograd)
      if (!result.packed->winograd.empty()) {
        number_squares(dilation);
        for (auto& [transformed, products] : scratch) {
          transformed.resize(std::max(transformed.size(), winograd_memory<4>(int(sources.size()) * channels)));
          products.resize(winograd_memory<4>(channels));
        }
      }
    return result;
  }

  /// To a Plane or to Features.
  template <class Out>
  void convolve(const Layer& layer, const Needed& at, std::vector<Out>& to) {
    if constexpr (has_winograd && std::is_same_v<Out, Hidden>)
      // A square takes about as long as 5 pixels by themselves.
      if (!layer.packed->winograd.empty() && 5 * at.squares.size() < at.pixels.size()) {
        std::array<typename Winograd::Source, 3> sources;
        const auto convolution = winograd(layer, at, sources);
        workers.for_ranges(int(at.squares.size()), winograd_batch, [&](int begin, int end, int slot) {
          auto& [transformed, products] = scratch[std::size_t(slot)];
          kernels.convolve_4x4(convolution, at.squares.data() + begin, end - begin, transformed.data(), products.data(),
                               to.data());
        });
        return;
      }
    const Convolution<Hidden> convolution{.taps = layer.taps.data(),
                                          .tap_count = int(layer.taps.size()),
                                          .inputs = layer.packed->inputs,
                                          .pitch = layer.packed->inputs,
                                          .weights = layer.packed->weights.data(),
                                          .bias = nullptr,
                                          .outputs = channels,
                                          .relu = layer.packed->relu,
                                          .scales = layer.packed->scales.data()};
    const auto run = [&] {
      if constexpr (std::is_same_v<Out, Hidden>)
        return kernels.convolve;
      else if constexpr (std::is_same_v<Out, float>)
        return kernels.convolve_to_float;
      else
        return kernels.convolve_to_bf16;
    }();
    workers.for_ranges(int(at.pixels.size()), pixels_per_task, [&](int begin, int end, int) {
      run(convolution, at.pixels.data() + begin, end - begin, to.data());
    });
  }

  void pool(const Plane& from, const Needed& at, Plane& to) {
    workers.for_ranges(int(at.pixels.size()), pixels_per_task, [&](int begin, int end, int) {
      kernels.pool(from.data(), std::ptrdiff_t(pitch) * channels, channels, at.pixels.data() + begin, end - begin,
                   to.data());
    });
  }

  void mark(const std::vector<std::int32_t>& pixels, Needed& to) const {
    to.mask.assign(std::size_t(pixel_count + 2 * guard), 0);
    for (const std::int32_t pixel : pixels) to.mask[std::size_t(guard + pixel)] = 1;
  }

  /// The pixels that are read where `from` is computed by a layer whose taps are `step` px apart, `reach` of them on
  /// each side, and `shift_px` down and right. The margin keeps all of them inside the tile, so rows never wrap.
  void widen(const Needed& from, int step, int reach, int shift_px, Needed& to) const {
    to.mask.assign(from.mask.size(), 0);
    to.rows.assign(from.mask.size(), 0);
    // Bytes may be any object's: without restrict and a copy of the count nothing here is vectorized.
    const int n = pixel_count;
    const auto spread = [n, reach](const std::uint8_t* from_bytes, std::ptrdiff_t apart, std::uint8_t* to_bytes) {
      std::uint8_t* const __restrict out = to_bytes;
      for (int k = -reach; k <= reach; ++k) {
        const std::uint8_t* const __restrict in = from_bytes + k * apart;
        for (int i = 0; i < n; ++i) out[i] |= in[i];
      }
    };
    std::uint8_t *const across = to.rows.data() + guard, *const out = to.mask.data() + guard;
    spread(from.mask.data() + guard - shift_px * (pitch + 1), step, across);
    spread(across, std::ptrdiff_t{step} * pitch, out);
    to.pixels.clear();
    for_marked(out, n, [&to](int i) { to.pixels.push_back(i); });
  }

  /// The squares of 4 x 4 pixels, `step` px apart, that hold any of the pixels.
  void list_squares(Needed& at, int step) const {
    if constexpr (has_winograd) {
      const std::vector<std::int32_t>& first = first_of_square[std::size_t(step)];
      at.squares.clear();
      at.rows.assign(at.rows.size(), 0);
      for (const std::int32_t pixel : at.pixels)
        if (auto& listed = at.rows[std::size_t(first[std::size_t(pixel)])]; !listed) {
          listed = 1;
          at.squares.push_back(first[std::size_t(pixel)]);
        }
    }
  }

  const NetworkKernels<Hidden>& kernels;
  Workers& workers;
  const int channels, rows, pitch, pixel_count;
  const int guard;  // bytes beyond a mask that shifted reads may touch
  const int image_channels;
  Plane image;

 private:
  static constexpr int pixels_per_task = 192;  // a multiple of every kernel's tile
  static constexpr bool has_winograd = !std::is_same_v<Hidden, std::uint8_t>;
  using Winograd = WinogradConvolution<Hidden, 4>;

  /// `sources` are filled, and must outlive the answer.
  Winograd winograd(const Layer& layer, const Needed& at, std::array<typename Winograd::Source, 3>& sources) const {
    const auto pixels = [&](int n) { return std::ptrdiff_t{n} * (pitch + 1); };
    for (std::size_t s = 0; s < layer.sources.size(); ++s) {
      const Source& source = layer.sources[s];
      sources[s] = {source.plane->data() + pixels(source.shift) * channels,
                    source.known->mask.data() + guard + pixels(source.shift)};
    }
    Winograd convolution{.sources = sources.data(),
                         .source_count = int(layer.sources.size()),
                         .inputs = channels,
                         .zeros = zeros.data(),
                         .in = {},
                         .out = {},
                         .weights = layer.packed->winograd.data(),
                         .outputs = channels,
                         .relu = layer.packed->relu,
                         .wanted = at.mask.data() + guard};
    for (int k = 0; k < Winograd::read; ++k)
      convolution.in[std::size_t(k)] = ((k / 6 - 1) * pitch + k % 6 - 1) * layer.dilation;
    for (int k = 0; k < Winograd::computed; ++k)
      convolution.out[std::size_t(k)] = (k / 4 * pitch + k % 4) * layer.dilation;
    return convolution;
  }

  void number_squares(int step) {
    std::vector<std::int32_t>& first = first_of_square[std::size_t(step)];
    if (!first.empty()) return;
    const auto begin = [step](int i) { return i / (4 * step) * (4 * step) + i % step; };
    for (int pixel = 0; pixel < pixel_count; ++pixel)
      first.push_back(begin(pixel / pitch) * pitch + begin(pixel % pitch));
  }

  const TrunkWeights<Hidden>& weights;
  std::vector<Hidden> zeros;
  std::array<std::vector<std::int32_t>, 4> first_of_square;  // by dilation, for each pixel
  struct Scratch {
    std::vector<Hidden> transformed;
    std::vector<float> products;
  };
  std::vector<Scratch> scratch;  // one per slot
};

}  // namespace defocus_fast::cpu
