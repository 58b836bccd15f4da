// SPDX-License-Identifier: Apache-2.0
// The recursive domain transform (Gastal and Oliveira 2011, section 5 and equations 14, 21) and the propagation built
// on it (section III-C of the paper). Iteration i has sigma_i = sigma_s * sqrt(3) * 2^(n - i) / sqrt(4^n - 1), half
// of the one before; the feedback coefficient exp(-sqrt(2) / sigma_i)^d is therefore squared from one iteration
// to the next, and one exponential per pixel and direction serves all of them.
#include <cmath>
#include <limits>
#include <new>

#include "defocus_fast/error.hpp"
#include "formulas.hpp"
#include "stages.hpp"

namespace defocus_fast::cpu {

namespace {

constexpr std::align_val_t alignment{64};

}  // namespace

void check(const FilterOptions& options, const std::string& prefix) {
  for (const auto& [name, value] : {std::pair{"sigma_s", options.sigma_s}, {"sigma_r", options.sigma_r}})
    if (!(value > 0 && std::isfinite(value)))
      throw InvalidArgument(prefix + name + ": expected a finite number > 0, got " + std::to_string(value));
  if (options.iterations < 1 || options.iterations > 16)
    throw InvalidArgument("iterations: expected 1 to 16, got " + std::to_string(options.iterations));
}

void check(const PropagationOptions& options, int height, int width) {
  if (!(options.psi >= 0 && std::isfinite(options.psi)))
    throw InvalidArgument("psi: expected a finite number >= 0, got " + std::to_string(options.psi));
  const auto [guide, filter] = filters(options, height, width);
  check(guide, "guide_");
  check(filter);
}

Plane::Plane(int height, int width) : pitch_((width + row_padding - 1) / row_padding * row_padding) {
  const std::size_t count = std::size_t(row_padding) + std::size_t(height) * std::size_t(pitch_);
  data_.reset(static_cast<float*>(::operator new[](count * sizeof(float), alignment)));
  std::fill_n(data_.get(), count, 0.0f);
}

void Plane::Free::operator()(float* data) const { ::operator delete[](data, alignment); }

DomainTransform::DomainTransform(int height, int width, const Kernels& kernels, Workers& workers)
    : height_(height), width_(width), kernels_(kernels), workers_(workers), vx_(height, width), vy_(height, width) {
  for (int i = 0; i < 3; ++i) signals_.emplace_back(height, width);
  scratch_.resize(std::size_t(workers.count()));
  for (auto& scratch : scratch_) scratch.resize((1 + signals_.size()) * std::size_t(width) * lanes);
}

void DomainTransform::load(const ImageView& image) {
  workers_.for_ranges(height_, 32, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y) {
      std::array<float*, 3> rows{};
      for (int c = 0; c < image.channels; ++c) rows[std::size_t(c)] = signal(c).row(y);
      load_row(image, y, 0, width_, rows.data());
    }
  });
}

void DomainTransform::set_feedback(int channels, double slope, const FilterOptions& options, const std::uint8_t* depth,
                                   double psi) {
  const float log_a = float(log_feedback(options));
  workers_.for_ranges(height_, 32, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y) {
      std::array<const float*, 3> row{}, above{};
      for (int c = 0; c < channels; ++c) {
        row[std::size_t(c)] = signal(c).row(y);
        above[std::size_t(c)] = signal(c).row(std::max(y - 1, 0));
      }
      kernels_.feedback(row.data(), y > 0 ? above.data() : nullptr, channels, log_a, float(slope),
                        depth ? depth + std::ptrdiff_t(y) * width_ : nullptr, float(psi), width_, vx_.row(y),
                        vy_.row(y));
    }
  });
}

void DomainTransform::filter(int count, int iterations) {
  const int row_blocks = (height_ + lanes - 1) / lanes, column_blocks = (width_ + lanes - 1) / lanes;
  for (int i = 0; i < iterations; ++i) {
    // Rows: `lanes` of them are transposed into scratch memory, filtered side by side, and put back.
    workers_.for_ranges(row_blocks, 1, [&](int block, int, int slot) {
      float* const scratch = scratch_[std::size_t(slot)].data();
      const std::ptrdiff_t size = std::ptrdiff_t(width_) * lanes;
      const auto for_planes = [&](const auto& transfer) {
        for (int p = 0; p <= count; ++p) {
          Plane& plane = p == 0 ? vx_ : signal(p - 1);
          std::array<float*, lanes> rows{};
          for (int k = 0; k < lanes && block * lanes + k < height_; ++k)
            rows[std::size_t(k)] = plane.row(block * lanes + k);
          transfer(rows.data(), scratch + p * size);
        }
      };
      for_planes([&](float* const* rows, float* lines) { kernels_.gather_lines(rows, width_, lines); });
      float* const signals[]{scratch + size, scratch + 2 * size, scratch + 3 * size};
      kernels_.recursive_pass(scratch, signals, count, lanes, width_);
      for_planes([&](float* const* rows, float* lines) { kernels_.scatter_lines(lines, width_, rows); });
    });
    workers_.for_ranges(column_blocks, 1, [&](int block, int, int) {
      std::array<float*, 3> signals{};
      for (int s = 0; s < count; ++s) signals[std::size_t(s)] = signal(s).row(0) + block * lanes;
      kernels_.recursive_pass(vy_.row(0) + block * lanes, signals.data(), count, vy_.pitch(), height_);
    });
  }
}

void DomainTransform::guide(const ImageView& image, const std::uint8_t* depth, const PropagationOptions& options) {
  // |I'| is summed over red, green and blue; a grey picture is three equal channels.
  const double channels = image.channels == 1 ? 3 : 1;
  load(image);
  const auto [guide, final] = filters(options, height_, width_);
  set_feedback(image.channels, channels * guide.sigma_s / guide.sigma_r, guide, nullptr, 0);
  filter(image.channels, guide.iterations);
  set_feedback(image.channels, channels * final.sigma_s / final.sigma_r, final, depth, options.psi);
}

void DomainTransform::spread(const PropagationOptions& options, float fallback, float fallback_deviation,
                             const MapView& out, float* deviation) {
  filter(deviation ? 3 : 2, options.iterations);
  workers_.for_ranges(height_, 32, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y) {
      const float *radii = signal(0).row(y), *weights = signal(1).row(y), *squares = signal(2).row(y);
      float* const deviations = deviation ? deviation + std::ptrdiff_t(y) * width_ : nullptr;
      for (int x = 0; x < width_; ++x) {
        const bool reached = weights[x] >= std::numeric_limits<float>::min();
        const float mean = reached ? radii[x] / weights[x] : fallback;
        *out.at(y, x) = mean;
        if (deviations)
          deviations[x] =
              reached ? std::sqrt(std::max(0.0f, squares[x] / weights[x] - mean * mean)) : fallback_deviation;
      }
    }
  });
}

void propagate(DomainTransform& transform, const ImageView& image, const std::uint8_t* depth,
               const PropagationOptions& options, const std::function<void(int, const SeedRows&)>& seed,
               const MapView& out, float* deviation, float unknown) {
  transform.guide(image, depth, options);
  double sum = 0, total = 0, square = 0;
  for (int y = 0; y < image.height; ++y) {
    const SeedRows rows{transform.signal(1).row(y), transform.signal(0).row(y),
                        deviation ? transform.signal(2).row(y) : nullptr};
    for (float* row : {rows.weights, rows.radii, rows.squares})
      if (row) std::fill_n(row, image.width, 0.0f);
    seed(y, rows);
    for (int x = 0; x < image.width; ++x) {
      sum += rows.radii[x];
      total += rows.weights[x];
      if (deviation) square += rows.squares[x];
    }
  }
  const double mean = total > 0 ? sum / total : 0;
  const double spread = total > 0 ? std::sqrt(std::max(0.0, square / total - mean * mean)) : double(unknown);
  transform.spread(options, float(mean), float(spread), out, deviation);
}

}  // namespace defocus_fast::cpu
