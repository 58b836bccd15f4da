// SPDX-License-Identifier: Apache-2.0
// The network that says where radii may spread; see `learned` in formulas.hpp.
#pragma once

#include <memory>
#include <vector>

#include "formulas.hpp"
#include "kernels.hpp"
#include "model.hpp"
#include "workers.hpp"

namespace defocus_fast::cpu {

/// The layers' weights, packed; none of a model without the network. T is what they are computed in.
template <class T>
struct DistanceWeights {
  struct Layer {
    int inputs, kernel, dilation;
    std::vector<Weight<T>> weights;  // for learned::width outputs; the last layer's that are too many are 0
    std::vector<float> bias;
  };
  std::vector<Layer> layers;
  std::vector<float> context;  // (learned::context, learned::width)

  explicit DistanceWeights(const Model& model);
};

/// The network's workspace for images of one size, as seen in the octave in which radii are spread.
class LearnedDistances {
 public:
  LearnedDistances(int height, int width);
  virtual ~LearnedDistances() = default;

  int rows() const { return rows_; }
  int columns() const { return columns_; }
  /// Where the `learned::inputs` values of a region are to be written, for every call of factors() again.
  float* inputs(int row, int column) {
    return inputs_.data() + (std::ptrdiff_t{row} * columns_ + column) * learned::inputs;
  }
  virtual learned::Factors factors() = 0;

 protected:
  const int rows_, columns_;
  std::vector<float> inputs_, factors_;
};

template <class T>
std::unique_ptr<LearnedDistances> make_distances(const DistanceWeights<T>& weights, int height, int width,
                                                 const Kernels& kernels, Workers& workers);

}  // namespace defocus_fast::cpu
