// SPDX-License-Identifier: Apache-2.0
// The layers of both networks that edges share, of either architecture.
#pragma once

#include "convolutions.hpp"
#include "tile_networks.hpp"

namespace defocus_fast::cpu {

/// The workspace. T is float, or uint16_t for bf16.
template <class T>
class Trunk {
 public:
  virtual ~Trunk() = default;
  virtual void extract_features(const ImageView& image, int y0, int x0, const std::vector<Pixel>& edges) = 0;
  /// Writes the input of a head for one question: (positions, width).
  virtual void gather(Head head, int question, T* out) const = 0;

  std::vector<std::int32_t> questions;         // where on the grid each looks
  std::vector<std::int32_t> question_of_edge;  // by edge
};

/// The two architectures.
template <class T, class Hidden>
struct Tip22 {
  static TrunkWeights<Hidden> pack(const Model& model);
  static std::unique_ptr<Trunk<T>> make(const Model& model, const TrunkWeights<Hidden>& weights,
                                        const NetworkKernels<Hidden>& network_kernels, const Kernels& kernels,
                                        Workers& workers, const TileSize& tile);
};
template <class T, class Hidden>
struct Cells {
  static TrunkWeights<Hidden> pack(const Model& model);
  static std::unique_ptr<Trunk<T>> make(const Model& model, const TrunkWeights<Hidden>& weights,
                                        const NetworkKernels<Hidden>& network_kernels, const Kernels& kernels,
                                        Workers& workers, const TileSize& tile);
};

}  // namespace defocus_fast::cpu
