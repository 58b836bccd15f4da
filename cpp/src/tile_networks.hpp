// SPDX-License-Identifier: Apache-2.0
// Both networks on one tile of the image. Their weights are immutable and shared by all estimators of a model; a tile's
// workspace belongs to one estimator.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "defocus_fast/estimator.hpp"
#include "kernels.hpp"
#include "learned_distances.hpp"
#include "model.hpp"
#include "workers.hpp"

namespace defocus_fast::cpu {

/// Of the parts in which an image is read; larger ones share more features and cost more memory.
struct TileSize {
  int height, width;
};

enum class Head : std::uint8_t { edge, blur };

class TileNetworks {
 public:
  virtual ~TileNetworks() = default;

  /// Features of the tile whose corner is (y0, x0), where its edges, seen from the corner, look at them.
  virtual void extract_features(const ImageView& image, int y0, int x0, const std::vector<Pixel>& edges) = 0;

  /// The questions that these edges are, by edge: each has its own, but those in one cell share one.
  const std::vector<std::int32_t>& question_of_edge() const { return question_of_edge_; }
  int question_count() const { return int(questions_.size()); }
  /// Calls use(question, probabilities) for every question, by several threads at once.
  virtual void ask(Head head, const std::function<void(int question, const float* probabilities)>& use) = 0;

 protected:
  std::vector<std::int32_t> questions_;  // where on the trunk's grid each looks
  std::vector<std::int32_t> question_of_edge_;
};

class NetworkWeights {
 public:
  virtual ~NetworkWeights() = default;
  virtual std::unique_ptr<TileNetworks> make_workspace(const Kernels& kernels, Workers& workers,
                                                       const TileSize& tile) const = 0;
  /// Of a model that has the network.
  virtual std::unique_ptr<LearnedDistances> make_distances(int height, int width, const Kernels& kernels,
                                                           Workers& workers) const = 0;

  const std::shared_ptr<const Model> model;

 protected:
  explicit NetworkWeights(std::shared_ptr<const Model> model_) : model(std::move(model_)) {}
};

/// The weights of a model, packed for this precision, which must not be automatic and which the kernels must have.
/// Estimators that live at the same time share them.
std::shared_ptr<const NetworkWeights> network_weights(const std::shared_ptr<const Model>& model, Precision precision,
                                                      const Kernels& kernels);

}  // namespace defocus_fast::cpu
