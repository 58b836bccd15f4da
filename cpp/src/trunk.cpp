// SPDX-License-Identifier: Apache-2.0
// Features of both networks, computed once per picture instead of once per edge: every convolution of the networks is
// VALID and the pooled sizes divide evenly, so the features of overlapping patches are the same numbers (the pool
// becomes dense, the layers after it dilated by 3). Each layer is evaluated only where an edge looks at its output.
#include "defocus_fast/error.hpp"
#include "stages.hpp"

namespace defocus_fast::cpu {

namespace {

constexpr int pixels_per_task = 192;  // a multiple of every kernel's tile

/// Pixels of the tile with its margin at which a layer's output is needed.
struct Needed {
  std::vector<std::uint8_t> mask, rows;  // with `guard` bytes before and after; `rows` is scratch
  std::vector<std::int32_t> pixels;
};

}  // namespace

template <class T>
struct Trunk<T>::Impl {
  static constexpr int image_channels = 4;
  using Plane = std::vector<T>;

  /// Features that a convolution reads: `shift` px down and right of the pixel.
  struct Source {
    const Plane& plane;
    int shift;
  };
  struct Layer {
    std::vector<const T*> taps;
    std::vector<T> weights;
    int inputs;
    bool relu;
  };

  Impl(const Model& model, const TrunkKernels<T>& kernels_, Workers& workers_, int tile_height, int tile_width)
      : kernels(kernels_),
        workers(workers_),
        width(model.width),
        channels((model.width + feature_block - 1) / feature_block * feature_block),
        pitch(tile_width + 2 * margin),
        pixel_count((tile_height + 2 * margin) * pitch),
        shift(model.crop_offset) {
    image.resize(std::size_t(pixel_count) * image_channels);
    for (Plane* plane : {&even, &odd, &branch1, &branch2, &edge_branch1, &blur_u, &blur_v, &edge_u, &edge_v})
      plane->resize(std::size_t(pixel_count) * std::size_t(channels));

    const auto weights = read_weights(model.folder / "trunk.onnx");
    const auto conv = [&](const std::string& name, const std::vector<Source>& sources, int kernel, int dilation,
                          bool relu = true) { return layer(weights, name, sources, kernel, dilation, relu); };
    const auto pooled_branch = [&](const std::string& name) {
      return std::array{conv(name + ".conv1", {{image, 0}}, 3, 1), conv(name + ".conv2", {{odd, 0}}, 3, 3),
                        conv(name + ".conv3", {{even, 0}}, 3, 3), conv(name + ".conv4", {{odd, 0}}, 3, 3)};
    };
    branch1_convs = pooled_branch("branch1");
    edge_branch1_convs = pooled_branch("edge_branch1");
    branch2_convs = {conv("branch2.conv1", {{image, 0}}, 3, 1), conv("branch2.conv2", {{even, 0}}, 3, 1),
                     conv("branch2.conv3", {{odd, 0}}, 3, 1), conv("branch2.conv4", {{odd, 0}}, 1, 1)};
    branch3_convs = {conv("branch3.conv1", {{image, 0}}, 3, 1), conv("branch3.conv2", {{even, 0}}, 3, 1),
                     conv("branch3.conv3", {{odd, 0}}, 3, 1), conv("branch3.conv4", {{even, 0}}, 3, 1)};
    blur_v_conv = conv("blur.conv1.v", {{odd, shift}}, 3, 1, false);
    edge_v_conv = conv("edge.conv1.v", {{odd, shift}}, 3, 1, false);
    blur_u_conv = conv("blur.conv1.u", {{branch1, 0}, {branch2, shift}}, 3, 3, false);
    edge_u_conv = conv("edge.conv1.u", {{edge_branch1, 0}, {branch1, 0}, {branch2, shift}}, 3, 3, false);
  }

  /// Bytes beyond a mask that shifted reads may touch.
  int guard() const { return 6 * pitch + 6; }

  Layer layer(const std::map<std::string, std::vector<float>>& weights, const std::string& name,
              const std::vector<Source>& sources, int kernel, int dilation, bool relu) const {
    const bool first = &sources[0].plane == &image;
    const std::size_t real = std::size_t(first ? 3 : width), inputs = std::size_t(first ? image_channels : channels);
    const std::size_t area = std::size_t(kernel * kernel), outputs = std::size_t(width);
    const auto found = weights.find(name);
    if (found == weights.end() || found->second.size() != outputs * real * sources.size() * area)
      throw ModelError("model: \"" + name + "\" is missing or of the wrong size");

    Layer result{{}, std::vector<T>(std::size_t(channels) * inputs * sources.size() * area), int(inputs), relu};
    for (std::size_t s = 0; s < sources.size(); ++s)
      for (std::size_t k = 0; k < area; ++k) {
        const int dy = (int(k) / kernel - kernel / 2) * dilation + sources[s].shift;
        const int dx = (int(k) % kernel - kernel / 2) * dilation + sources[s].shift;
        const std::size_t tap = result.taps.size(), taps = sources.size() * area;
        result.taps.push_back(sources[s].plane.data() + std::ptrdiff_t(dy * pitch + dx) * std::ptrdiff_t(inputs));
        for (std::size_t o = 0; o < outputs; ++o)
          for (std::size_t c = 0; c < real; ++c) {
            const float value = found->second[((o * sources.size() + s) * real + c) * area + k];
            // Layouts of Convolution::weights.
            const std::size_t row = (o / feature_block * taps + tap) * inputs;
            const std::size_t lane = o % feature_block;
            const std::size_t at = std::is_same_v<T, float> ? (row + c) * feature_block + lane
                                                            : (row + c / 2 * 2) * feature_block + lane * 2 + c % 2;
            result.weights[at] = stored<T>(value);
          }
      }
    return result;
  }

  void convolve(const Layer& layer, const Needed& at, Plane& to) {
    const Convolution<T> convolution{
        layer.taps.data(), int(layer.taps.size()), layer.inputs, layer.weights.data(), channels, layer.relu};
    workers.for_ranges(int(at.pixels.size()), pixels_per_task, [&](int begin, int end, int) {
      kernels.convolve(convolution, at.pixels.data() + begin, end - begin, to.data());
    });
  }

  void pool(const Plane& from, const Needed& at, Plane& to) {
    workers.for_ranges(int(at.pixels.size()), pixels_per_task, [&](int begin, int end, int) {
      kernels.pool(from.data(), std::ptrdiff_t(pitch) * channels, channels, at.pixels.data() + begin, end - begin,
                   to.data());
    });
  }

  /// The pixels that are read where `from` is computed by a layer whose taps are `step` px apart, `reach` of them on
  /// each side, and `shift_px` down and right. The margin keeps all of them inside the tile, so rows never wrap.
  void widen(const Needed& from, int step, int reach, int shift_px, Needed& to) const {
    to.mask.assign(from.mask.size(), 0);
    to.rows.assign(from.mask.size(), 0);
    const std::uint8_t* in = from.mask.data() + guard() - shift_px * (pitch + 1);
    std::uint8_t* rows = to.rows.data() + guard();
    std::uint8_t* out = to.mask.data() + guard();
    for (int k = -reach; k <= reach; ++k)
      for (int i = 0; i < pixel_count; ++i) rows[i] |= in[i + k * step];
    for (int k = -reach; k <= reach; ++k)
      for (int i = 0; i < pixel_count; ++i) out[i] |= rows[i + k * step * pitch];
    to.pixels.clear();
    for (int i = 0; i < pixel_count; ++i)
      if (out[i]) to.pixels.push_back(i);
  }

  /// From the edges back to the picture: where every layer is needed.
  void plan(const std::vector<std::int32_t>& edges) {
    at_edges.mask.assign(std::size_t(pixel_count + 2 * guard()), 0);
    for (const std::int32_t edge : edges) at_edges.mask[std::size_t(guard() + edge)] = 1;
    workers.for_ranges(2, 1,
                       [&](int i, int, int) { i ? widen(at_edges, 1, 2, 0, at_v) : widen(at_edges, 3, 2, 0, at_u); });
    workers.for_ranges(3, 1, [&](int branch, int, int) {
      if (branch == 0) {
        widen(at_u, 3, 1, 0, at_branch1[3]);
        for (std::size_t i = 3; i > 1; --i) widen(at_branch1[i], 3, 1, 0, at_branch1[i - 1]);
        widen(at_branch1[1], 3, 1, 0, at_branch1_pool);
        widen(at_branch1_pool, 1, 1, 0, at_branch1[0]);
      } else {
        auto& at = branch == 1 ? at_branch2 : at_branch3;
        widen(branch == 1 ? at_u : at_v, branch == 1 ? 3 : 1, 1, shift, at[3]);
        for (std::size_t i = 3; i > 0; --i) widen(at[i], 1, 1, 0, at[i - 1]);
      }
    });
  }

  void extract_features(const std::vector<std::int32_t>& edges) {
    plan(edges);
    convolve(branch3_convs[0], at_branch3[0], even);
    convolve(branch3_convs[1], at_branch3[1], odd);
    convolve(branch3_convs[2], at_branch3[2], even);
    convolve(branch3_convs[3], at_branch3[3], odd);
    convolve(blur_v_conv, at_v, blur_v);
    convolve(edge_v_conv, at_v, edge_v);
    convolve(branch2_convs[0], at_branch2[0], even);
    convolve(branch2_convs[1], at_branch2[1], odd);
    convolve(branch2_convs[2], at_branch2[2], even);
    pool(even, at_branch2[3], odd);
    convolve(branch2_convs[3], at_branch2[3], branch2);
    const auto pooled_branch = [&](const std::array<Layer, 4>& convs, Plane& to) {
      convolve(convs[0], at_branch1[0], even);
      pool(even, at_branch1_pool, odd);
      convolve(convs[1], at_branch1[1], even);
      convolve(convs[2], at_branch1[2], odd);
      convolve(convs[3], at_branch1[3], to);
    };
    pooled_branch(branch1_convs, branch1);
    pooled_branch(edge_branch1_convs, edge_branch1);
    convolve(blur_u_conv, at_u, blur_u);
    convolve(edge_u_conv, at_u, edge_u);
  }

  const TrunkKernels<T>& kernels;
  Workers& workers;
  const int width, channels, pitch, pixel_count, shift;
  Plane image, even, odd, branch1, branch2, edge_branch1, blur_u, blur_v, edge_u, edge_v;
  std::array<Layer, 4> branch1_convs, branch2_convs, branch3_convs, edge_branch1_convs;
  Layer blur_u_conv, blur_v_conv, edge_u_conv, edge_v_conv;
  Needed at_edges, at_u, at_v, at_branch1_pool;
  std::array<Needed, 4> at_branch1, at_branch2, at_branch3;  // by convolution; branch 2 pools where its last one is
};

template <class T>
Trunk<T>::Trunk(const Model& model, const TrunkKernels<T>& kernels, Workers& workers, int tile_height, int tile_width)
    : impl_(std::make_unique<Impl>(model, kernels, workers, tile_height, tile_width)) {}
template <class T>
Trunk<T>::~Trunk() = default;
template <class T>
int Trunk<T>::channels() const {
  return impl_->channels;
}
template <class T>
T* Trunk<T>::tile() {
  return impl_->image.data();
}
template <class T>
void Trunk<T>::extract_features(const std::vector<std::int32_t>& edges) {
  impl_->extract_features(edges);
}
template <class T>
const T* Trunk<T>::u(Head head) const {
  return (head == Head::blur ? impl_->blur_u : impl_->edge_u).data();
}
template <class T>
const T* Trunk<T>::v(Head head) const {
  return (head == Head::blur ? impl_->blur_v : impl_->edge_v).data();
}

template class Trunk<float>;
template class Trunk<std::uint16_t>;

}  // namespace defocus_fast::cpu
