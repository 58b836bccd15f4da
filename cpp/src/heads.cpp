// SPDX-License-Identifier: Apache-2.0
// The heads of both networks: valid convolutions and dense layers, all of them sums of taps as the trunk's.
#include <numeric>

#include "defocus_fast/error.hpp"
#include "pack_weights.hpp"
#include "stages.hpp"

namespace defocus_fast::cpu {

template <class T>
struct Heads<T>::Layer {
  std::vector<std::ptrdiff_t> taps;  // in values, seen from an output's pixel in the buffer read
  std::vector<T> weights;
  std::vector<float> bias;
  int inputs = 0, outputs = 0;
  std::ptrdiff_t pitch = 0;
  const std::vector<std::int32_t>* pixels = nullptr;
  std::size_t pixels_per_edge = 1;
};

template <class T>
struct Heads<T>::Slot {
  std::array<std::vector<T>, 2> buffers;
  std::vector<float> probabilities;
};

template <class T>
Heads<T>::Heads(const Model& model, const NetworkKernels<T>& network_kernels, const Kernels& kernels, int slots)
    : network_kernels_(network_kernels),
      kernels_(kernels),
      positions_(model.architecture == Architecture::tip22 ? 25 : 1),
      levels_(int(model.levels.size())),
      slots_(std::size_t(slots)),
      one_per_edge_(std::size_t(batch)) {
  std::iota(one_per_edge_.begin(), one_per_edge_.end(), 0);
  for (int k = 0; k < batch; ++k)
    for (const int inner : {6, 7, 8, 11, 12, 13, 16, 17, 18}) inner_3x3_.push_back(25 * k + inner);

  std::size_t largest = std::size_t(positions_) * std::size_t(model.width) + 1;
  for (const Head head : {Head::edge, Head::blur}) {
    const std::string name = head == Head::edge ? "edge" : "blur";
    const auto weights = read_weights(model.folder / (name + "_head.onnx"));
    const auto values = [&](const std::string& key, std::size_t count) -> const std::vector<float>& {
      const auto found = weights.find(name + '.' + key);
      if (found == weights.end() || (count != 0 && found->second.size() != count))
        throw ModelError("model: \"" + name + '.' + key + "\" is missing or of the wrong size");
      return found->second;
    };
    std::vector<Layer>& layers = layers_[std::size_t(head)];
    int channels = model.width;  // that the layer's inputs hold, without padding
    std::ptrdiff_t pitch = model.width;
    const auto add = [&](int outputs, const std::vector<std::ptrdiff_t>& positions, std::ptrdiff_t pixel_pitch,
                         const auto& value) -> Layer& {
      Layer& layer = layers.emplace_back();
      for (const std::ptrdiff_t position : positions) layer.taps.push_back(position * pitch);
      layer.inputs = (channels + group<T> - 1) / group<T> * group<T>;
      layer.outputs = padded_features(outputs);
      layer.pitch = pixel_pitch * pitch;
      layer.pixels = &one_per_edge_;
      layer.weights = pack_weights<T>(outputs, int(positions.size()), channels, layer.inputs, value);
      channels = outputs;
      pitch = layer.outputs;
      return layer;
    };
    const auto convolution = [&](const std::string& key, const std::vector<std::ptrdiff_t>& positions,
                                 std::ptrdiff_t pixel_pitch) -> Layer& {
      const std::size_t area = positions.size(), inputs = std::size_t(channels);
      const auto& w = values(key, std::size_t(model.width) * inputs * area);
      return add(model.width, positions, pixel_pitch, [&, area, inputs](std::size_t o, std::size_t tap, std::size_t c) {
        return w[(o * inputs + c) * area + tap];
      });
    };
    const auto dense = [&](const std::string& key) {
      const auto& bias = values(key + ".bias", 0);
      const std::size_t outputs = bias.size();
      const auto& w = values(key + ".weight", std::size_t(channels) * outputs);
      Layer& layer =
          add(int(outputs), {0}, 1, [&](std::size_t o, std::size_t, std::size_t c) { return w[c * outputs + o]; });
      layer.bias.assign(bias.begin(), bias.end());
      layer.bias.resize(std::size_t(layer.outputs));
    };

    if (model.architecture == Architecture::tip22) {
      // 5 x 5 -> 3 x 3, left where it is in the 5 x 5 grid, -> the edge.
      const std::vector<std::ptrdiff_t> around{-6, -5, -4, -1, 0, 1, 4, 5, 6}, inner{6, 7, 8, 11, 12, 13, 16, 17, 18};
      Layer& conv2 = convolution("conv2", around, 1);
      conv2.pixels = &inner_3x3_;
      conv2.pixels_per_edge = inner.size();
      largest = std::max(largest, std::size_t(25 * conv2.outputs));
      convolution("conv3", inner, 25);
      convolution("conv4", {0}, 1);
    }
    for (int i = 1; weights.contains(name + ".dense" + std::to_string(i) + ".weight"); ++i)
      dense("dense" + std::to_string(i));
    const int answers = head == Head::edge ? 2 : levels_;
    if (layers.empty() || channels != answers)
      throw ModelError("model: expected " + std::to_string(answers) + " answers of \"" + name + "_head\", got " +
                       std::to_string(channels));
    // Of no probability.
    std::fill(layers.back().bias.begin() + answers, layers.back().bias.end(), -1e30f);
    for (const Layer& layer : layers) largest = std::max(largest, std::size_t(layer.outputs));
    pitch_[std::size_t(head)] = layers.back().outputs;
  }
  for (Slot& slot : slots_) {
    for (auto& buffer : slot.buffers) buffer.resize(largest * std::size_t(batch));
    slot.probabilities.resize(std::size_t(std::max(pitch_[0], pitch_[1])) * std::size_t(batch));
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
  const std::vector<Layer>& layers = layers_[std::size_t(head)];
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const Layer& layer = layers[i];
    std::array<const T*, 9> taps;
    for (std::size_t t = 0; t < layer.taps.size(); ++t) taps[t] = slot.buffers[i % 2].data() + layer.taps[t];
    const bool last = i + 1 == layers.size();
    const Convolution<T> convolution{taps.data(),          int(layer.taps.size()),
                                     layer.inputs,         layer.pitch,
                                     layer.weights.data(), layer.bias.empty() ? nullptr : layer.bias.data(),
                                     layer.outputs,        !last};
    const int pixels = count * int(layer.pixels_per_edge);
    if (last)
      network_kernels_.convolve_to_float(convolution, layer.pixels->data(), pixels, slot.probabilities.data());
    else
      network_kernels_.convolve(convolution, layer.pixels->data(), pixels, slot.buffers[(i + 1) % 2].data());
  }
  const int pitch = pitch_[std::size_t(head)];
  for (int k = 0; k < count; ++k) kernels_.softmax(slot.probabilities.data() + k * pitch, pitch);
  return slot.probabilities.data();
}

template class Heads<float>;
template class Heads<std::uint16_t>;

}  // namespace defocus_fast::cpu
