// SPDX-License-Identifier: Apache-2.0
#include "learned_distances.hpp"

#include <algorithm>
#include <bit>
#include <string>

#include "pack_weights.hpp"

namespace defocus_fast::cpu {

template <class T>
DistanceWeights<T>::DistanceWeights(const Model& model) {
  if (!model.learns_distances()) return;
  for (std::size_t i = 0; i <= learned::dilations.size(); ++i) {
    const bool last = i == learned::dilations.size();
    const std::string name = "propagation." + std::to_string(i);
    const auto values = model.weight(name + ".weight").values, bias = model.weight(name + ".bias").values;
    const std::size_t inputs = i == 0 ? learned::inputs : learned::width, taps = last ? 1 : 9;
    const int padded = (int(inputs) + group<T> - 1) / group<T> * group<T>;
    const auto value = [&](std::size_t o, std::size_t tap, std::size_t c) {
      return o < bias.size() ? values[(o * inputs + c) * taps + tap] : 0.0f;
    };
    layers.push_back({padded,
                      last ? 1 : 3,
                      last ? 1 : learned::dilations[i],
                      pack_weights<T>(learned::width, int(taps), int(inputs), padded, value),
                      {bias.begin(), bias.end()}});
    layers.back().bias.resize(learned::width);
  }
  const auto values = model.weight("propagation.context.weight").values;
  context.assign(values.begin(), values.end());
}

LearnedDistances::LearnedDistances(int height, int width)
    : rows_(learned::regions(height)),
      columns_(learned::regions(width)),
      inputs_(std::size_t(learned::inputs) * std::size_t(rows_) * std::size_t(columns_)),
      factors_(std::size_t(learned::outputs) * std::size_t(rows_) * std::size_t(columns_)) {}

namespace {

float as_float(float value) { return value; }
float as_float(std::uint16_t bf16) { return std::bit_cast<float>(std::uint32_t{bf16} << 16); }

template <class T>
class LearnedDistancesOf : public LearnedDistances {
 public:
  LearnedDistancesOf(const DistanceWeights<T>& weights, int height, int width, const Kernels& kernels, Workers& workers)
      : LearnedDistances(height, width),
        weights_(weights),
        kernels_(network_kernels<T>(kernels)),
        workers_(workers),
        margin_(*std::max_element(learned::dilations.begin(), learned::dilations.end())),
        grid_pitch_(columns_ + margin_) {  // a row's right margin is the next one's left
    for (int row = 0; row < rows_; ++row)
      for (int column = 0; column < columns_; ++column) regions_.push_back(region(row, column));
    pieces_.resize((regions_.size() + learned::piece - 1) / learned::piece);
    image_bias_.resize(learned::width);
    const std::size_t values = std::size_t(region(rows_ + margin_, 0)) * learned::width;
    for (auto& plane : planes_) plane.resize(values);
    answers_.resize(values);
    for (std::size_t i = 0; i < weights.layers.size(); ++i) {
      const auto& layer = weights.layers[i];
      std::vector<const T*>& taps = taps_.emplace_back();
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

  learned::Factors factors() override {
    constexpr int grain = learned::piece;  // a multiple of every kernel's tile
    const int count = int(regions_.size());
    workers_.for_ranges(count, grain, [&](int begin, int end, int) {
      for (int k = begin; k < end; ++k) {
        const float* const in = inputs_.data() + std::ptrdiff_t{k} * learned::inputs;
        T* const out = planes_[0].data() + std::ptrdiff_t{regions_[std::size_t(k)]} * learned::width;
        for (int c = 0; c < learned::inputs; ++c) out[c] = stored<T>(in[c]);
        std::fill(out + learned::inputs, out + learned::width, T{});
      }
    });
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      if (i == learned::context_layer) add_context();
      std::vector<T>& out = planes_[(i + 1) % 2];
      workers_.for_ranges(count, grain, [&](int begin, int end, int) {
        const std::int32_t* const regions = regions_.data() + begin;
        if (i + 1 == layers_.size())
          return kernels_.convolve_to_float(layers_[i], regions, end - begin, answers_.data());
        kernels_.convolve(layers_[i], regions, end - begin, out.data());
        if (i + 1 != learned::context_layer) return;
        auto& piece = pieces_[std::size_t(begin / grain)];
        piece = {};
        for (int k = begin; k < end; ++k)
          for (std::size_t c = 0; c < learned::width; ++c) {
            const float value = as_float(out[std::size_t(regions_[std::size_t(k)]) * learned::width + c]);
            piece[c].add({value, value});
          }
      });
    }
    workers_.for_ranges(count, grain, [&](int begin, int end, int) {
      for (std::size_t i = std::size_t(begin); i < std::size_t(end); ++i)
        for (std::size_t k = 0; k < learned::outputs; ++k)
          factors_[k * std::size_t(count) + i] =
              learned::factor(answers_[std::size_t(regions_[i]) * learned::width + k]);
    });
    return {factors_.data(), rows_, columns_};
  }

 private:
  std::int32_t region(int row, int column) const { return (row + margin_) * grid_pitch_ + margin_ + column; }

  /// Sets the image's biases from the pieces.
  void add_context() {
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

  const DistanceWeights<T>& weights_;
  const NetworkKernels<T>& kernels_;
  Workers& workers_;
  const int margin_, grid_pitch_;
  std::vector<std::int32_t> regions_;
  // What layers read and write in turn: `learned::width` values of each region, in a grid with zeros around the
  // regions; and the last one's answers.
  std::array<std::vector<T>, 2> planes_;
  std::vector<float> answers_;
  std::vector<std::vector<const T*>> taps_;  // by layer
  std::vector<Convolution<T>> layers_;
  std::vector<std::array<learned::Summary, learned::width>> pieces_;
  std::vector<float> image_bias_;  // of learned::context_layer
};

}  // namespace

template <class T>
std::unique_ptr<LearnedDistances> make_distances(const DistanceWeights<T>& weights, int height, int width,
                                                 const Kernels& kernels, Workers& workers) {
  return std::make_unique<LearnedDistancesOf<T>>(weights, height, width, kernels, workers);
}

template struct DistanceWeights<float>;
template struct DistanceWeights<std::uint16_t>;
template std::unique_ptr<LearnedDistances> make_distances(const DistanceWeights<float>&, int, int, const Kernels&,
                                                          Workers&);
template std::unique_ptr<LearnedDistances> make_distances(const DistanceWeights<std::uint16_t>&, int, int,
                                                          const Kernels&, Workers&);

}  // namespace defocus_fast::cpu
