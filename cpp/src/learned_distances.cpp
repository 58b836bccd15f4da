// SPDX-License-Identifier: Apache-2.0
#include "learned_distances.hpp"

#include <string>

#include "pack_weights.hpp"

namespace defocus_fast::cpu {

DistanceWeights::DistanceWeights(const Model& model) {
  if (!model.learns_distances()) return;
  for (std::size_t i = 0; i <= learned::dilations.size(); ++i) {
    const bool last = i == learned::dilations.size();
    const std::string name = "propagation." + std::to_string(i);
    const auto values = model.weight(name + ".weight").values, bias = model.weight(name + ".bias").values;
    const std::size_t inputs = i == 0 ? learned::inputs : learned::width, taps = last ? 1 : 9;
    const auto value = [&](std::size_t o, std::size_t tap, std::size_t c) {
      return o < bias.size() ? values[(o * inputs + c) * taps + tap] : 0.0f;
    };
    layers.push_back({int(inputs),
                      last ? 1 : 3,
                      last ? 1 : learned::dilations[i],
                      pack_weights<float>(learned::width, int(taps), int(inputs), int(inputs), value),
                      {bias.begin(), bias.end()}});
    layers.back().bias.resize(learned::width);
  }
  const auto values = model.weight("propagation.context.weight").values;
  context.assign(values.begin(), values.end());
}

LearnedDistances::LearnedDistances(const DistanceWeights& weights, int height, int width, const Kernels& kernels,
                                   Workers& workers)
    : weights_(weights),
      kernels_(network_kernels<float>(kernels)),
      workers_(workers),
      rows_(learned::regions(height)),
      columns_(learned::regions(width)),
      margin_(*std::max_element(learned::dilations.begin(), learned::dilations.end())),
      grid_pitch_(columns_ + margin_),  // a row's right margin is the next one's left
      factors_(std::size_t(learned::outputs) * std::size_t(rows_) * std::size_t(columns_)) {
  for (int row = 0; row < rows_; ++row)
    for (int column = 0; column < columns_; ++column) regions_.push_back(region(row, column));
  pieces_.resize((regions_.size() + learned::piece - 1) / learned::piece);
  image_bias_.resize(learned::width);
  for (auto& plane : planes_) plane.resize(std::size_t(region(rows_ + margin_, 0)) * learned::width);
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    const DistanceWeights::Layer& layer = weights.layers[i];
    std::vector<const float*>& taps = taps_.emplace_back();
    for (int k = 0; k < layer.kernel * layer.kernel; ++k) {
      const int half = layer.kernel / 2, dy = k / layer.kernel - half, dx = k % layer.kernel - half;
      taps.push_back(planes_[i % 2].data() + std::ptrdiff_t(dy * grid_pitch_ + dx) * layer.dilation * learned::width);
    }
    layers_.push_back({.taps = taps.data(),
                       .tap_count = int(taps.size()),
                       .inputs = layer.inputs,
                       .pitch = learned::width,
                       .weights = layer.weights.data(),
                       .bias = i == learned::context_layer ? image_bias_.data() : layer.bias.data(),
                       .outputs = learned::width,
                       .relu = i + 1 < weights.layers.size()});
  }
}

/// Sets the image's biases from the pieces.
void LearnedDistances::add_context() {
  image_bias_ = weights_.layers[learned::context_layer].bias;
  std::array<float, learned::context> context;
  for (std::size_t c = 0; c < learned::width; ++c) {
    learned::Summary image{};
    for (const auto& piece : pieces_) image.add(piece[c]);
    context[c] = image.sum / float(regions_.size());
    context[learned::width + c] = image.most;
  }
  for (std::size_t c = 0; c < context.size(); ++c)
    for (std::size_t o = 0; o < learned::width; ++o)
      image_bias_[o] += context[c] * weights_.context[c * learned::width + o];
}

learned::Factors LearnedDistances::factors() {
  constexpr int grain = learned::piece;  // a multiple of every kernel's tile
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (i == learned::context_layer) add_context();
    std::vector<float>& out = planes_[(i + 1) % 2];
    workers_.for_ranges(int(regions_.size()), grain, [&](int begin, int end, int) {
      kernels_.convolve(layers_[i], regions_.data() + begin, end - begin, out.data());
      if (i + 1 != learned::context_layer) return;
      auto& piece = pieces_[std::size_t(begin / grain)];
      piece = {};
      for (int k = begin; k < end; ++k)
        for (std::size_t c = 0; c < learned::width; ++c) {
          const float value = out[std::size_t(regions_[std::size_t(k)]) * learned::width + c];
          piece[c].add({value, value});
        }
    });
  }
  const std::size_t count = regions_.size();
  const std::vector<float>& answers = planes_[layers_.size() % 2];
  workers_.for_ranges(int(count), grain, [&](int begin, int end, int) {
    for (std::size_t i = std::size_t(begin); i < std::size_t(end); ++i)
      for (std::size_t k = 0; k < learned::outputs; ++k)
        factors_[k * count + i] = learned::factor(answers[std::size_t(regions_[i]) * learned::width + k]);
  });
  return {factors_.data(), rows_, columns_};
}

}  // namespace defocus_fast::cpu
