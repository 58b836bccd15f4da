// SPDX-License-Identifier: Apache-2.0
// The heads of both networks: valid convolutions and dense layers, all of them sums of taps as the trunk's.
#include <numeric>

#include "defocus_fast/error.hpp"
#include "pack_weights.hpp"
#include "stages.hpp"

namespace defocus_fast::cpu {

namespace {

constexpr int window = 5;  // px, side of the features that a head of the paper's networks reads
constexpr std::array<std::int32_t, 9> inner_3x3{6, 7, 8, 11, 12, 13, 16, 17, 18};  // its pixels but the outermost

}  // namespace

template <class T>
struct Heads<T>::Layer {
  std::vector<std::ptrdiff_t> taps;  // in values, seen from an edge in the buffer read
  std::vector<T> weights;
  std::vector<float> bias;
  int inputs = 0, outputs = 0;
  std::ptrdiff_t pitch = 0;
};

template <class T>
struct Heads<T>::Slot {
  std::array<std::vector<T>, 2> buffers;
  std::vector<T> transformed;
  std::vector<float> products, probabilities;
};

template <class T>
Heads<T>::Heads(const Model& model, const NetworkKernels<T>& network_kernels, const Kernels& kernels, int slots)
    : network_kernels_(network_kernels),
      kernels_(kernels),
      channels_(padded_features(model.width)),
      edge_size_(channels_ * (model.architecture == Architecture::tip22 ? window * window : 1)),
      levels_(int(model.radius_bins.size())),
      slots_(std::size_t(slots)),
      edges_(std::size_t(batch)) {
  std::iota(edges_.begin(), edges_.end(), 0);
  for (const int edge : edges_) windows_.push_back(edge * window * window);

  int largest = edge_size_;
  for (const Head head : {Head::edge, Head::blur}) {
    const std::string name = head == Head::edge ? "edge" : "blur";
    const auto values = [&](const std::string& key) { return model.weight(name + '.' + key).values; };
    /// Of a convolution whose filters have `taps` elements.
    const auto filters = [&](const std::string& key, std::size_t taps) {
      const std::size_t features = std::size_t(model.width);
      return [w = values(key), features, taps](std::size_t o, std::size_t tap, std::size_t c) {
        return w[(o * features + c) * taps + tap];
      };
    };
    std::vector<Layer>& layers = layers_[std::size_t(head)];
    int channels = model.width, pitch = edge_size_;  // that the layer reads, without padding, and from edge to edge
    const auto add = [&](int outputs, const std::vector<std::ptrdiff_t>& taps, const auto& value) -> Layer& {
      const int inputs = (channels + group<T> - 1) / group<T> * group<T>;
      layers.push_back({taps,
                        pack_weights<T>(outputs, int(taps.size()), channels, inputs, value),
                        {},
                        inputs,
                        padded_features(outputs),
                        pitch});
      channels = outputs;
      pitch = layers.back().outputs;
      largest = std::max(largest, pitch);
      return layers.back();
    };
    if (model.architecture == Architecture::tip22) {
      // 5 x 5 -> 3 x 3, left where it is in the 5 x 5 grid, -> the edge.
      const auto conv2 = filters("conv2", 9);
      conv2_[std::size_t(head)] = winograd_weights<T, 3>(
          model.width, 1, model.width, channels_,
          [&](std::size_t o, std::size_t, std::size_t k, std::size_t c) { return conv2(o, k, c); });
      std::vector<std::ptrdiff_t> inner;
      for (const std::int32_t pixel : inner_3x3) inner.push_back(std::ptrdiff_t{pixel} * channels_);
      add(model.width, inner, filters("conv3", inner.size()));
      add(model.width, {0}, filters("conv4", 1));
    }
    for (int i = 1; model.tensors.contains(name + ".dense" + std::to_string(i) + ".weight"); ++i) {
      const std::string key = "dense" + std::to_string(i);
      const auto bias = values(key + ".bias");
      const std::size_t outputs = bias.size();
      const auto w = values(key + ".weight");
      Layer& layer =
          add(int(outputs), {0}, [&](std::size_t o, std::size_t, std::size_t c) { return w[c * outputs + o]; });
      layer.bias.assign(bias.begin(), bias.end());
      layer.bias.resize(std::size_t(layer.outputs));
    }
    const int answers = head == Head::edge ? 2 : levels_;
    // Of no probability.
    std::fill(layers.back().bias.begin() + answers, layers.back().bias.end(), -1e30f);
    pitch_[std::size_t(head)] = layers.back().outputs;
  }
  for (Slot& slot : slots_) {
    for (auto& buffer : slot.buffers) buffer.resize(std::size_t(largest) * std::size_t(batch));
    slot.probabilities.resize(std::size_t(std::max(pitch_[0], pitch_[1])) * std::size_t(batch));
    if (model.architecture == Architecture::tip22) {
      slot.transformed.resize(winograd_memory<3>(channels_));
      slot.products.resize(winograd_memory<3>(channels_));
    }
  }
}

template <class T>
Heads<T>::~Heads() = default;

template <class T>
T* Heads<T>::features(int slot) {
  return slots_[std::size_t(slot)].buffers[0].data();
}

template <class T>
const float* Heads<T>::predict(Head head, int count, int slot_index) {
  Slot& slot = slots_[std::size_t(slot_index)];
  T *from = slot.buffers[0].data(), *to = slot.buffers[1].data();
  if (const std::vector<T>& conv2 = conv2_[std::size_t(head)]; !conv2.empty()) {
    const typename WinogradConvolution<T, 3>::Source source{from, nullptr};
    WinogradConvolution<T, 3> convolution{&source,      1,         channels_, nullptr, {}, inner_3x3,
                                          conv2.data(), channels_, true,      nullptr};
    std::iota(convolution.in.begin(), convolution.in.end(), 0);
    network_kernels_.convolve_3x3(convolution, windows_.data(), count, slot.transformed.data(), slot.products.data(),
                                  to);
    std::swap(from, to);
  }
  for (const Layer& layer : layers_[std::size_t(head)]) {
    std::array<const T*, inner_3x3.size()> taps;
    for (std::size_t t = 0; t < layer.taps.size(); ++t) taps[t] = from + layer.taps[t];
    const bool last = &layer == &layers_[std::size_t(head)].back();
    const Convolution<T> convolution{taps.data(),          int(layer.taps.size()),
                                     layer.inputs,         layer.pitch,
                                     layer.weights.data(), layer.bias.empty() ? nullptr : layer.bias.data(),
                                     layer.outputs,        !last};
    if (last)
      network_kernels_.convolve_to_float(convolution, edges_.data(), count, slot.probabilities.data());
    else
      network_kernels_.convolve(convolution, edges_.data(), count, to);
    std::swap(from, to);
  }
  const int pitch = pitch_[std::size_t(head)];
  for (int k = 0; k < count; ++k) kernels_.softmax(slot.probabilities.data() + k * pitch, pitch);
  return slot.probabilities.data();
}

template class Heads<float>;
template class Heads<std::uint16_t>;

}  // namespace defocus_fast::cpu
