// SPDX-License-Identifier: Apache-2.0
// The network that says where radii may spread; see `learned` in formulas.hpp.
#pragma once

#include <vector>

#include "formulas.hpp"
#include "kernels.hpp"
#include "model.hpp"
#include "workers.hpp"

namespace defocus_fast::cpu {

/// The layers' weights, packed; none of a model without the network. In float, whatever the precision of the others.
struct DistanceWeights {
  struct Layer {
    int inputs, kernel, dilation;
    std::vector<float> weights, bias;  // for learned::width outputs; the last layer's that are too many are 0
  };
  std::vector<Layer> layers;
  std::vector<float> context;  // (learned::context, learned::width)

  explicit DistanceWeights(const Model& model);
};

/// The network's workspace for images of one size, as seen in the octave in which radii are spread.
class LearnedDistances {
 public:
  LearnedDistances(const DistanceWeights& weights, int height, int width, const Kernels& kernels, Workers& workers);

  int rows() const { return rows_; }
  int columns() const { return columns_; }
  /// Where the `learned::inputs` values of a region are to be written, for every call of factors() again.
  float* inputs(int row, int column) {
    return planes_[0].data() + std::ptrdiff_t{region(row, column)} * learned::width;
  }
  learned::Factors factors();

 private:
  std::int32_t region(int row, int column) const { return (row + margin_) * grid_pitch_ + margin_ + column; }
  void add_context();

  const DistanceWeights& weights_;
  const NetworkKernels<float>& kernels_;
  Workers& workers_;
  const int rows_, columns_, margin_, grid_pitch_;
  std::vector<std::int32_t> regions_;
  // What layers read and write in turn: `learned::width` values of each region, in a grid with zeros around the
  // regions.
  std::array<std::vector<float>, 2> planes_;
  std::vector<std::vector<const float*>> taps_;  // by layer
  std::vector<Convolution<float>> layers_;
  std::vector<std::array<learned::Summary, learned::width>> pieces_;
  std::vector<float> image_bias_;  // of learned::context_layer
  std::vector<float> factors_;
};

}  // namespace defocus_fast::cpu
