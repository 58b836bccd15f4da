// SPDX-License-Identifier: Apache-2.0
// The stages on their own. A call leaves its workspace to the next one of the same size: threads, and memory whose
// first touch takes as long as the work.
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <tuple>

#include "defocus_fast/error.hpp"
#include "defocus_fast/estimator.hpp"
#include "options.hpp"
#include "stages.hpp"

namespace defocus_fast {

namespace {

/// Larger workspaces are freed.
constexpr std::int64_t largest_kept = 16'000'000;  // pixels

/// One stage with its threads; `Settings` are what else it was made with.
template <class Stage, class... Settings>
class Workspace {
 public:
  using Key = std::tuple<int, int, const Kernels*, std::optional<int>, std::uint32_t, Settings...>;

  Workspace(const Key& key, int height, int width, const Kernels& kernels, const std::optional<int>& threads,
            const Settings&... settings)
      : key_(key), workers(ThreadPool(threads)), stage(height, width, settings..., kernels, workers) {}

  /// The last call's, if it fits.
  static std::unique_ptr<Workspace> take(int height, int width, const std::string& kernels,
                                         const std::optional<int>& threads, const Settings&... settings) {
    check_running(threads, kernels);
    const Kernels& selected = select_kernels(kernels.c_str());
    const Key key{height, width, &selected, threads, forks(), settings...};
    std::unique_ptr<Workspace> last(kept.exchange(nullptr));
    if (last && last->key_ == key) return last;
    last.reset();
    return std::make_unique<Workspace>(key, height, width, selected, threads, settings...);
  }
  static void keep(std::unique_ptr<Workspace> workspace) {
    if (std::int64_t{std::get<0>(workspace->key_)} * std::get<1>(workspace->key_) <= largest_kept)
      workspace.reset(kept.exchange(workspace.release()));
  }

 private:
  static inline std::atomic<Workspace*> kept = nullptr;
  const Key key_;

 public:
  Workers workers;
  Stage stage;
  std::vector<std::uint8_t> barrier;  // of propagate
};

}  // namespace

void detect_edges(const ImageView& image, const CannyOptions& options, std::uint8_t* mask,
                  std::optional<int> num_threads, const std::string& kernels) {
  cpu::check_layout(image, "image");
  check(options);
  cpu::check_pointer(mask, "mask");
  auto workspace =
      Workspace<cpu::EdgeDetector, CannyOptions>::take(image.height, image.width, kernels, num_threads, options);
  cpu::check_range(image, "image", 0, 1, workspace->workers);
  workspace->stage.detect_edges(image);
  workspace->stage.write_mask(mask, image.width);
  workspace->keep(std::move(workspace));
}

void domain_transform_filter(const ImageView& image, const ImageView& guide, const FilterOptions& options, float* out,
                             std::optional<int> num_threads, const std::string& kernels) {
  for (const auto& [view, name] : {std::pair{&image, "image"}, {&guide, "guide"}}) {
    cpu::check_layout(*view, name);
    if (view->type != PixelType::float32) throw InvalidArgument(std::string(name) + ": expected float32, got uint8");
  }
  check_size(guide, "guide", image.height, image.width);
  check(options);
  cpu::check_pointer(out, "out");
  auto workspace = Workspace<cpu::DomainTransform>::take(image.height, image.width, kernels, num_threads);
  constexpr float most = std::numeric_limits<float>::max();
  cpu::check_range(image, "image", -most, most, workspace->workers);
  cpu::check_range(guide, "guide", -most, most, workspace->workers);
  cpu::DomainTransform& transform = workspace->stage;
  transform.load(guide);
  transform.set_feedback(guide.channels, options.sigma_s / options.sigma_r, options, nullptr, 0);
  transform.load(image);
  transform.filter(image.channels, options.iterations);
  workspace->workers.for_ranges(image.height, 64, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y)
      for (int c = 0; c < image.channels; ++c) {
        const float* row = transform.signal(c).row(y);
        float* to = out + std::ptrdiff_t(y) * image.width * image.channels + c;
        for (int x = 0; x < image.width; ++x) to[std::ptrdiff_t(x) * image.channels] = row[x];
      }
  });
  workspace->keep(std::move(workspace));
}

void propagate(const ImageView& image, const RadiiView& radii, const MaskView& pattern, const MaskView& depth,
               const GuideOptions& guide, const PropagationOptions& options, const MapView& out,
               std::optional<int> num_threads, const std::string& kernels) {
  cpu::check_layout(image, "image");
  check(guide, options);
  check_size(radii, "radii", image.height, image.width);
  check_size(pattern, "pattern_edges", image.height, image.width);
  check_size(depth, "depth_edges", image.height, image.width);
  check_out(out, "out", image.height, image.width);
  auto workspace = Workspace<cpu::DomainTransform>::take(image.height, image.width, kernels, num_threads);
  cpu::check_range(image, "image", 0, 1, workspace->workers);
  std::vector<std::uint8_t>& barrier = workspace->barrier;
  barrier.resize(std::size_t(image.height) * std::size_t(image.width));
  workspace->workers.for_ranges(image.height, 64, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y)
      for (int x = 0; x < image.width; ++x) {
        barrier[std::size_t(y) * std::size_t(image.width) + std::size_t(x)] = *depth.at(y, x) != 0;
        if (const float radius = *radii.at(y, x); *pattern.at(y, x) && !(radius >= 0 && std::isfinite(radius)))
          throw InvalidArgument("radii: expected finite px >= 0 at pattern edges, got " + std::to_string(radius) +
                                " at row " + std::to_string(y) + ", column " + std::to_string(x));
      }
  });
  const auto seed = [&](int y, const cpu::SeedRows& rows) {
    for (int x = 0; x < image.width; ++x)
      if (*pattern.at(y, x)) rows.add(x, make_seed(1, *radii.at(y, x), 0));
  };
  const Propagation as_in_paper = resolve(guide, options, 3.75, 5, image.height, image.width, 1);
  workspace->stage.make_guide(image, as_in_paper);
  workspace->stage.propagate(image.channels, barrier.data(), as_in_paper, {}, std::ref(seed), out);
  workspace->keep(std::move(workspace));
}

}  // namespace defocus_fast
