// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "defocus_fast/error.hpp"

namespace defocus_fast {

namespace {

std::string size_text(int height, int width) { return std::to_string(height) + " x " + std::to_string(width); }

}  // namespace

const char* precision_name(Precision precision) {
  constexpr std::array names{"auto", "float32", "bfloat16", "float16", "int8"};
  return names[std::size_t(precision)];
}

void check_size(const void* data, int got_height, int got_width, const char* name, int height, int width) {
  if (data == nullptr) throw InvalidArgument(std::string(name) + ": expected a pointer to pixels, got null");
  if (got_height != height || got_width != width)
    throw InvalidArgument(std::string(name) + ": expected height x width " + size_text(height, width) + ", got " +
                          size_text(got_height, got_width));
}

void check_out(const MapView& out, const char* name, int height, int width) {
  check_size(out, name, height, width);
  const std::int64_t size = sizeof(float), row = std::abs(std::int64_t{out.pitch_bytes}),
                     pixel = std::abs(std::int64_t{out.pixel_stride_bytes});
  const bool apart =
      (width == 1 || pixel >= size) && (height == 1 || row >= size) &&
      (width == 1 || height == 1 || row >= pixel * (width - 1) + size || pixel >= row * (height - 1) + size);
  if (!apart)
    throw InvalidArgument(std::string(name) + ": expected pixels that do not overlap in memory, got strides of " +
                          std::to_string(out.pitch_bytes) + " and " + std::to_string(out.pixel_stride_bytes) +
                          " bytes");
}

void check_threads(int num_threads) {
  if (num_threads < 1 || num_threads > 1024)
    throw InvalidArgument("num_threads: expected 1 to 1024, got " + std::to_string(num_threads));
}

void check(const CannyOptions& options) {
  if (!(options.sigma > 0 && options.sigma <= 64))
    throw InvalidArgument("canny sigma: expected px in (0, 64], got " + std::to_string(options.sigma));
  if (!(options.low >= 0 && options.low <= options.high && std::isfinite(options.high)))
    throw InvalidArgument("canny thresholds: expected 0 <= low <= high, got low " + std::to_string(options.low) +
                          ", high " + std::to_string(options.high));
  const std::vector<double>& given = options.smoothing;
  if (!given.empty() &&
      (given.size() % 2 == 0 || given.size() > 513 || !std::equal(given.begin(), given.end(), given.rbegin()) ||
       !std::all_of(given.begin(), given.end(), [](double w) { return std::isfinite(w); })))
    throw InvalidArgument("canny smoothing: expected an odd number of at most 513 finite weights, symmetric, got " +
                          std::to_string(given.size()) + " that are not");
}

void check(const FilterOptions& options) {
  for (const auto& [name, value] : {std::pair{"sigma_s", options.sigma_s}, {"sigma_r", options.sigma_r}})
    if (!(value > 0 && std::isfinite(value)))
      throw InvalidArgument(std::string(name) + ": expected a finite number > 0, got " + std::to_string(value));
  if (options.iterations < 1 || options.iterations > 16)
    throw InvalidArgument("iterations: expected 1 to 16, got " + std::to_string(options.iterations));
}

void check(const GuideOptions& guide, const PropagationOptions& propagation) {
  if (!(propagation.psi >= 0 && std::isfinite(propagation.psi)))
    throw InvalidArgument("psi: expected a finite number >= 0, got " + std::to_string(propagation.psi));
  for (const auto& [name, value] : {std::pair{"guide_sigma_s", guide.sigma_s}, {"guide_sigma_r", guide.sigma_r}})
    if (!(value > 0 && std::isfinite(value)))
      throw InvalidArgument(std::string(name) + ": expected a finite number > 0, got " + std::to_string(value));
  check(FilterOptions{.sigma_s = propagation.sigma_s.value_or(1),
                      .sigma_r = propagation.sigma_r.value_or(1),
                      .iterations = propagation.iterations.value_or(1)});
}

void check(int height, int width, const Options& options) {
  constexpr int longest = 1 << 30;
  if (height < 1 || width < 1 || height > longest || width > longest ||
      std::int64_t{height} * width > std::numeric_limits<std::int32_t>::max())
    throw InvalidArgument("size: expected 1 to 2147483647 pixels and sides of at most 1073741824, got height x width " +
                          size_text(height, width));
  if (options.device != "auto" && options.device != "cpu" && options.device != "cuda")
    throw InvalidArgument("device: expected auto, cpu or cuda, got \"" + options.device + '"');
  if (options.depth_threshold && !(*options.depth_threshold >= 0 && *options.depth_threshold <= 1))
    throw InvalidArgument("depth_threshold: expected [0, 1], got " + std::to_string(*options.depth_threshold));
  if (options.max_edges && *options.max_edges < 1)
    throw InvalidArgument("max_edges: expected >= 1, got " + std::to_string(*options.max_edges));
  if (options.num_threads) check_threads(*options.num_threads);
  check(options.canny);
  check(options.guide, options.propagation);
}

void check(const FrameOptions& frame, int height, int width) {
  if (frame.edges.data) check_size(frame.edges, "edges", height, width);
  if (frame.edge_stride < 1 || frame.edge_stride > 16)
    throw InvalidArgument("edge_stride: expected 1 to 16, got " + std::to_string(frame.edge_stride));
}

}  // namespace defocus_fast
