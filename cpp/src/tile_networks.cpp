// SPDX-License-Identifier: Apache-2.0
#include "tile_networks.hpp"

#include <pthread.h>

#include <mutex>

#include "heads.hpp"
#include "trunk.hpp"

namespace defocus_fast::cpu {

namespace {

/// T is what the heads compute in, Hidden the trunk.
template <class T, class Hidden>
class TileNetworksOf : public TileNetworks {
 public:
  TileNetworksOf(std::unique_ptr<Trunk<T>> trunk, const HeadWeights<T>& weights, const NetworkKernels<T>& head_kernels,
                 const Kernels& kernels, Workers& workers)
      : workers_(workers),
        trunk_(std::move(trunk)),
        weights_(weights),
        heads_(weights, head_kernels, kernels, workers.count()) {}

  void extract_features(const ImageView& image, int y0, int x0, const std::vector<Pixel>& edges) override {
    trunk_->extract_features(image, y0, x0, edges);
  }
  const std::vector<std::int32_t>& question_of_edge() const override { return trunk_->question_of_edge; }
  int question_count() const override { return int(trunk_->questions.size()); }

  void ask(Head head, const std::function<void(int, const float*)>& use) override {
    workers_.for_ranges(question_count(), heads_.batch, [&](int begin, int end, int slot) {
      T* const features = heads_.features(slot);
      for (int k = begin; k < end; ++k)
        trunk_->gather(head, k, features + std::ptrdiff_t{k - begin} * weights_.edge_size);
      const float* const probabilities = heads_.predict(head, end - begin, slot);
      for (int k = begin; k < end; ++k) use(k, probabilities + std::ptrdiff_t{k - begin} * weights_.pitch(head));
    });
  }

 private:
  Workers& workers_;
  const std::unique_ptr<Trunk<T>> trunk_;
  const HeadWeights<T>& weights_;
  Heads<T> heads_;
};

template <class T>
const NetworkKernels<T>& kernels_of(const Kernels& kernels) {
  if constexpr (std::is_same_v<T, float>)
    return *kernels.networks_float;
  else if constexpr (std::is_same_v<T, std::uint16_t>)
    return *bf16_networks(kernels);
  else
    return *int8_networks(kernels);
}

template <class T, class Hidden>
class NetworkWeightsOf : public NetworkWeights {
 public:
  explicit NetworkWeightsOf(const std::shared_ptr<const Model>& of)
      : NetworkWeights(of),
        trunk_(is_tip22() ? Tip22<T, Hidden>::pack(*of) : Cells<T, Hidden>::pack(*of)),
        heads_(*of) {}

  std::unique_ptr<TileNetworks> make_workspace(const Kernels& kernels, Workers& workers,
                                               const TileSize& tile) const override {
    const auto make = is_tip22() ? Tip22<T, Hidden>::make : Cells<T, Hidden>::make;
    return std::make_unique<TileNetworksOf<T, Hidden>>(
        make(*model, trunk_, kernels_of<Hidden>(kernels), kernels, workers, tile), heads_, kernels_of<T>(kernels),
        kernels, workers);
  }

 private:
  bool is_tip22() const { return model->architecture == Architecture::tip22; }

  const TrunkWeights<Hidden> trunk_;
  const HeadWeights<T> heads_;
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

std::shared_ptr<const NetworkWeights> pack(const std::shared_ptr<const Model>& model, Precision precision, bool bf16) {
  if (precision == Precision::int8 && bf16)
    return std::make_shared<NetworkWeightsOf<std::uint16_t, std::uint8_t>>(model);
  if (precision == Precision::int8) return std::make_shared<NetworkWeightsOf<float, std::uint8_t>>(model);
  if (precision == Precision::bfloat16) return std::make_shared<NetworkWeightsOf<std::uint16_t, std::uint16_t>>(model);
  return std::make_shared<NetworkWeightsOf<float, float>>(model);
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
  auto weights = pack(model, precision, bf16);
  shared.entries.push_back({precision, bf16, weights});
  return weights;
}

}  // namespace defocus_fast::cpu
