// SPDX-License-Identifier: Apache-2.0
#include "frame_budget.hpp"

#include <algorithm>
#include <numeric>

namespace defocus_fast::cpu {

namespace {

constexpr double late = 0.005;                     // share of the frames that may be
constexpr double at_first = 0.05, most = 0.3;      // of the budget, in reserve
constexpr double more = 0.02, less = more * late;  // of it after a late frame, and after one that was not
constexpr int of_any_frame = 2000;                 // edges whose time a frame takes without any
constexpr float of_change = 8;                     // frames that a region waits less where all of it has changed

/// Follows what frames take, upwards faster. One that was held up by others counts little.
void follow(double& estimate, double ms) {
  constexpr double most_growth = 1.5, upwards = 0.5, downwards = 0.125;
  if (estimate <= 0)
    estimate = ms;
  else
    estimate += (ms > estimate ? upwards : downwards) * (std::min(ms, most_growth * estimate) - estimate);
}

}  // namespace

FrameBudget::FrameBudget(double ms, int height, int width)
    : ms_(ms),
      rows_(((height - 1) >> region_octave) + 1),
      columns_(((width - 1) >> region_octave) + 1),
      regions_(std::size_t(rows_) * std::size_t(columns_)),
      order_(regions_.size()),
      reserve_(at_first * ms) {}

void FrameBudget::choose(double now) {
  const double left = ms_ - reserve_ - now - rest_;
  const double edges = per_edge_ > 0 ? left / per_edge_ - of_any_frame : 1e18;
  std::iota(order_.begin(), order_.end(), 0);
  const auto urgency = [&](std::int32_t i) {
    const Region& region = regions_[std::size_t(i)];
    return float(region.waited) * (1 + of_change * region.changed);
  };
  std::sort(order_.begin(), order_.end(), [&](std::int32_t a, std::int32_t b) {
    const float of_a = urgency(a), of_b = urgency(b);
    return of_a != of_b ? of_a > of_b : a < b;  // neighbours together: their patches overlap
  });
  // Without any region.
  const double least = std::accumulate(regions_.begin(), regions_.end(), 0.0, [](double sum, const Region& region) {
    return sum + (region.holds() ? 0 : region.coarse);
  });
  double sum = least;
  for (const std::int32_t i : order_) {
    Region& region = regions_[std::size_t(i)];
    const double all = double(region.share) * (region.fine + region.coarse);
    const double more = std::max(all - (region.holds() ? 0 : region.coarse), 0.0);
    // The most urgent one is read in any case, else it might never be.
    region.is_read = sum == least || sum + more <= edges;
    if (region.is_read) sum += more;
  }
}

void FrameBudget::learn(double began_to_ask, double had_asked, double end) {
  double asked = of_any_frame;
  for (Region& region : regions_) {
    asked += region.asked;
    region.waited = region.is_read ? 1 : region.waited + 1;
    const int found = region.fine + region.coarse;
    if (region.is_read) region.share = found > 0 ? float(region.asked) / float(found) : 1;
  }
  follow(per_edge_, (had_asked - began_to_ask) / asked);
  follow(rest_, end - had_asked);
  reserve_ = std::clamp(reserve_ + (end > ms_ ? more : -less) * ms_, 0.0, most * ms_);
}

float FrameBudget::read() const {
  const auto count = std::count_if(regions_.begin(), regions_.end(), [](const Region& each) { return each.is_read; });
  return float(count) / float(regions_.size());
}

}  // namespace defocus_fast::cpu
