// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <vector>

#include "kernels.hpp"
#include "model.hpp"
#include "tile_networks.hpp"

namespace defocus_fast::cpu {

template <class T>
struct HeadLayer {
  std::vector<std::ptrdiff_t> taps;  // in values, seen from an edge in the buffer read
  std::vector<T> weights;
  std::vector<float> bias;
  int inputs, outputs;
  std::ptrdiff_t pitch;  // in values, from edge to edge in the buffer read
};

/// The parts of both networks that run once per question, packed. T is float, or uint16_t for bf16.
template <class T>
struct HeadWeights {
  explicit HeadWeights(const Model& model);

  int channels;                         // as stored
  int edge_size;                        // values that a head reads per question: at 25 pixels, or of one cell
  int largest;                          // values per question in any buffer
  std::array<std::vector<T>, 2> conv2;  // by Head; of the architecture that has it
  std::array<std::vector<HeadLayer<T>>, 2> layers;  // by Head

  int pitch(Head head) const { return layers[std::size_t(head)].back().outputs; }
};

/// Their workspace.
template <class T>
class Heads {
 public:
  static constexpr int batch = winograd_batch;  // questions whose features stay in the second-level cache

  /// `slots`: how many threads may ask at once, each under a number of its own.
  Heads(const HeadWeights<T>& weights, const Kernels& kernels, int slots);

  /// Input of predict: (batch, edge_size).
  T* features(int slot) { return slots_[std::size_t(slot)].buffers[0].data(); }
  /// Probabilities of the first `count` questions; rows are pitch(head) of the weights apart. Spends the features.
  const float* predict(Head head, int count, int slot);

 private:
  struct Slot {
    std::array<std::vector<T>, 2> buffers;
    std::vector<T> transformed;
    std::vector<float> products, probabilities;
  };

  const HeadWeights<T>& weights_;
  const NetworkKernels<T>& network_kernels_;
  const Kernels& kernels_;
  std::vector<Slot> slots_;
  std::vector<std::int32_t> edges_, windows_;  // pixels at which layers are evaluated
};

}  // namespace defocus_fast::cpu
