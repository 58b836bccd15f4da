// SPDX-License-Identifier: Apache-2.0
// The heads of both networks: valid convolutions and dense layers, all of them sums of taps as the trunk's.
#include "heads.hpp"

#include <algorithm>
#include <numeric>

#include "pack_weights.hpp"

namespace defocus_fast::cpu {

namespace {

constexpr int window = 5;  // px, side of the features that a head of the paper's networks reads
constexpr std::array<std::int32_t, 9> inner_3x3{6, 7, 8, 11, 12, 13, 16, 17, 18};  // its pixels but the outermost

}  // namespace

template <class T>
HeadWeights<T>::HeadWeights(const Model& model)
    : channels(padded_features(model.width)),
      edge_size(channels * (model.architecture == Architecture::tip22 ? window * window : 1)),
      largest(edge_size) {
  for (const Head head : {Head::edge, Head::blur}) {
    const std::string name = head == Head::edge ? "edge" : "blur";
    /// Of a convolution whose filters have `taps` elements.
    const auto filters = [&](const std::string& key, std::size_t taps) {
      const std::size_t features = std::size_t(model.width);
      return [w = model.weight(name + '.' + key).values, features, taps](
                 std::size_t o, std::size_t tap, std::size_t c) { return w[(o * features + c) * taps + tap]; };
    };
    std::vector<HeadLayer<T>>& to = layers[std::size_t(head)];
    int read = model.width, pitch = edge_size;  // channels that the layer reads, without padding; from edge to edge
    const auto add = [&](int outputs, const std::vector<std::ptrdiff_t>& taps, const auto& value) -> HeadLayer<T>& {
      const int inputs = (read + group<T> - 1) / group<T> * group<T>;
      to.push_back({taps,
                    pack_weights<T>(outputs, int(taps.size()), read, inputs, value),
                    {},
                    inputs,
                    padded_features(outputs),
                    pitch});
      read = outputs;
      pitch = to.back().outputs;
      largest = std::max(largest, pitch);
      return to.back();
    };
    if (model.architecture == Architecture::tip22) {
      // 5 x 5 -> 3 x 3, left where it is in the 5 x 5 grid, -> the edge.
      conv2[std::size_t(head)] =
          winograd_weights<T, 3>(model.width, 1, model.width, channels,
                                 [value = filters("conv2", 9)](std::size_t o, std::size_t, std::size_t k,
                                                               std::size_t c) { return value(o, k, c); });
      std::vector<std::ptrdiff_t> inner;
      for (const std::int32_t pixel : inner_3x3) inner.push_back(std::ptrdiff_t{pixel} * channels);
      add(model.width, inner, filters("conv3", inner.size()));
      add(model.width, {0}, filters("conv4", 1));
    }
    const int dense = model.architecture == Architecture::tip22 ? 3 : 2;
    for (int i = 1; i <= dense; ++i) {
      const std::string key = name + ".dense" + std::to_string(i);
      const auto bias = model.weight(key + ".bias").values, w = model.weight(key + ".weight").values;
      const std::size_t outputs = bias.size();
      HeadLayer<T>& layer =
          add(int(outputs), {0}, [&](std::size_t o, std::size_t, std::size_t c) { return w[c * outputs + o]; });
      layer.bias.assign(bias.begin(), bias.end());
      layer.bias.resize(std::size_t(layer.outputs));
    }
    // The softmax gives 0 to the outputs that only fill a block.
    std::fill(to.back().bias.begin() + read, to.back().bias.end(), -1e30f);
  }
}

template <class T>
Heads<T>::Heads(const HeadWeights<T>& weights, const Kernels& kernels, int slots)
    : weights_(weights),
      network_kernels_(network_kernels<T>(kernels)),
      kernels_(kernels),
      slots_(std::size_t(slots)),
      edges_(std::size_t(batch)) {
  std::iota(edges_.begin(), edges_.end(), 0);
  for (const int edge : edges_) windows_.push_back(edge * window * window);
  for (Slot& slot : slots_) {
    for (auto& buffer : slot.buffers) buffer.resize(std::size_t(weights.largest) * std::size_t(batch));
    slot.probabilities.resize(std::size_t(std::max(weights.pitch(Head::edge), weights.pitch(Head::blur))) *
                              std::size_t(batch));
    if (!weights.conv2[0].empty()) {
      slot.transformed.resize(winograd_memory<3>(weights.channels));
      slot.products.resize(winograd_memory<3>(weights.channels));
    }
  }
}

template <class T>
const float* Heads<T>::predict(Head head, int count, int slot_index) {
  Slot& slot = slots_[std::size_t(slot_index)];
  T *from = slot.buffers[0].data(), *to = slot.buffers[1].data();
  if (const std::vector<T>& conv2 = weights_.conv2[std::size_t(head)]; !conv2.empty()) {
    const typename WinogradConvolution<T, 3>::Source source{from, nullptr};
    WinogradConvolution<T, 3> convolution{.sources = &source,
                                          .source_count = 1,
                                          .inputs = weights_.channels,
                                          .zeros = nullptr,
                                          .in = {},
                                          .out = inner_3x3,
                                          .weights = conv2.data(),
                                          .outputs = weights_.channels,
                                          .relu = true,
                                          .wanted = nullptr};
    std::iota(convolution.in.begin(), convolution.in.end(), 0);
    network_kernels_.convolve_3x3(convolution, windows_.data(), count, slot.transformed.data(), slot.products.data(),
                                  to);
    std::swap(from, to);
  }
  const std::vector<HeadLayer<T>>& layers = weights_.layers[std::size_t(head)];
  for (const HeadLayer<T>& layer : layers) {
    std::array<const T*, inner_3x3.size()> taps;
    for (std::size_t t = 0; t < layer.taps.size(); ++t) taps[t] = from + layer.taps[t];
    const bool last = &layer == &layers.back();
    const Convolution<T> convolution{.taps = taps.data(),
                                     .tap_count = int(layer.taps.size()),
                                     .inputs = layer.inputs,
                                     .pitch = layer.pitch,
                                     .weights = layer.weights.data(),
                                     .bias = layer.bias.empty() ? nullptr : layer.bias.data(),
                                     .outputs = layer.outputs,
                                     .relu = !last};
    if (last)
      network_kernels_.convolve_to_float(convolution, edges_.data(), count, slot.probabilities.data());
    else
      network_kernels_.convolve(convolution, edges_.data(), count, to);
    std::swap(from, to);
  }
  const int pitch = weights_.pitch(head);
  for (int k = 0; k < count; ++k) kernels_.softmax(slot.probabilities.data() + k * pitch, pitch);
  return slot.probabilities.data();
}

template struct HeadWeights<float>;
template struct HeadWeights<std::uint16_t>;
template class Heads<float>;
template class Heads<std::uint16_t>;

}  // namespace defocus_fast::cpu
