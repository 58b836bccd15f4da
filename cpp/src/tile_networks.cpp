// SPDX-License-Identifier: Apache-2.0
#include "tile_networks.hpp"

#include <pthread.h>

#include <mutex>

#include "cells.hpp"
#include "heads.hpp"
#include "tip22.hpp"

namespace defocus_fast::cpu {

namespace {

/// `Trunk` is an architecture: the layers that edges share. T is what the heads compute in, Hidden the trunk.
template <template <class T, class Hidden> class Trunk, class T, class Hidden>
class TileNetworksOf : public Trunk<T, Hidden> {
 public:
  TileNetworksOf(const Model& model, const TrunkWeights<Hidden>& trunk, const HeadWeights<T>& heads,
                 const Kernels& kernels, Workers& workers, const TileSize& tile)
      : Trunk<T, Hidden>(model, trunk, kernels, workers, tile),
        workers_(workers),
        weights_(heads),
        heads_(heads, kernels, workers.count()) {}

  void ask(Head head, const std::function<void(int, const float*)>& use) override {
    workers_.for_ranges(this->question_count(), heads_.batch, [&](int begin, int end, int slot) {
      T* const features = heads_.features(slot);
      for (int k = begin; k < end; ++k)
        this->gather(head, k, features + std::ptrdiff_t{k - begin} * weights_.edge_size);
      const float* const probabilities = heads_.predict(head, end - begin, slot);
      for (int k = begin; k < end; ++k) use(k, probabilities + std::ptrdiff_t{k - begin} * weights_.pitch(head));
    });
  }

 private:
  Workers& workers_;
  const HeadWeights<T>& weights_;
  Heads<T> heads_;
};

template <template <class T, class Hidden> class Trunk, class T, class Hidden>
class NetworkWeightsOf : public NetworkWeights {
 public:
  explicit NetworkWeightsOf(const std::shared_ptr<const Model>& of)
      : NetworkWeights(of), trunk_(Trunk<T, Hidden>::pack(*of)), heads_(*of), distances_(*of) {}

  std::unique_ptr<TileNetworks> make_workspace(const Kernels& kernels, Workers& workers,
                                               const TileSize& tile) const override {
    return std::make_unique<TileNetworksOf<Trunk, T, Hidden>>(*model, trunk_, heads_, kernels, workers, tile);
  }

  std::unique_ptr<LearnedDistances> make_distances(int height, int width, const Kernels& kernels,
                                                   Workers& workers) const override {
    return cpu::make_distances(distances_, height, width, kernels, workers);
  }

 private:
  const TrunkWeights<Hidden> trunk_;
  const HeadWeights<T> heads_;
  const DistanceWeights<T> distances_;
};

/// All weights that estimators use at the moment. A process that is forked finds the lock open.
struct Shared {
  struct Entry {
    Precision precision;
    bool bf16;  // what the heads of int8 compute in
    std::weak_ptr<const NetworkWeights> weights;
  };
  std::mutex mutex;
  std::vector<Entry> entries;

  Shared() {
    pthread_atfork([] { all().mutex.lock(); }, [] { all().mutex.unlock(); }, [] { all().mutex.unlock(); });
  }
  /// Lives until the process ends: threads may be at work then.
  static Shared& all() {
    static Shared* const shared = new Shared;
    return *shared;
  }
};

template <template <class T, class Hidden> class Trunk>
std::shared_ptr<const NetworkWeights> pack(const std::shared_ptr<const Model>& model, Precision precision, bool bf16) {
  using bf16_t = std::uint16_t;
  if (precision == Precision::int8 && bf16)
    return std::make_shared<NetworkWeightsOf<Trunk, bf16_t, std::uint8_t>>(model);
  if (precision == Precision::int8) return std::make_shared<NetworkWeightsOf<Trunk, float, std::uint8_t>>(model);
  if (precision == Precision::bfloat16) return std::make_shared<NetworkWeightsOf<Trunk, bf16_t, bf16_t>>(model);
  return std::make_shared<NetworkWeightsOf<Trunk, float, float>>(model);
}

}  // namespace

std::shared_ptr<const NetworkWeights> network_weights(const std::shared_ptr<const Model>& model, Precision precision,
                                                      const Kernels& kernels) {
  const bool bf16 = bf16_networks(kernels) != nullptr;
  Shared& shared = Shared::all();
  const std::lock_guard lock(shared.mutex);
  std::erase_if(shared.entries, [](const Shared::Entry& entry) { return entry.weights.expired(); });
  for (const Shared::Entry& entry : shared.entries)
    if (auto weights = entry.weights.lock();
        weights && entry.precision == precision && entry.bf16 == bf16 && same_networks(*weights->model, *model))
      return weights;
  const auto pack_of = model->architecture == Architecture::tip22 ? pack<Tip22> : pack<Cells>;
  auto weights = pack_of(model, precision, bf16);
  shared.entries.push_back({precision, bf16, weights});
  return weights;
}

}  // namespace defocus_fast::cpu
