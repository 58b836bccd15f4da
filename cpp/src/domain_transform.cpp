// SPDX-License-Identifier: Apache-2.0
// The recursive domain transform (Gastal and Oliveira 2011, section 5 and equations 14, 21) and the propagation built
// on it (section III-C of the paper). Iteration i has sigma_i = sigma_s * sqrt(3) * 2^(n - i) / sqrt(4^n - 1), half
// of the one before; the feedback coefficient exp(-sqrt(2) / sigma_i)^d is therefore squared from one iteration
// to the next, and one exponential per pixel and direction serves all of them.
#include "domain_transform.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>
#include <numeric>

#include "image.hpp"

namespace defocus_fast::cpu {

namespace {

/// For rows that need no preparation and columns that need no finish.
constexpr auto as_they_are = [](auto...) {};

/// Of a row of a plane, padding included, which is 0. Side by side: each addition waits for the one before.
double sum(const float* row, std::ptrdiff_t pitch) {
  std::array<double, 8> sums{};
  static_assert(row_padding % sums.size() == 0);
  for (std::ptrdiff_t x = 0; x < pitch; x += std::ptrdiff_t(sums.size()))
    for (std::size_t k = 0; k < sums.size(); ++k) sums[k] += row[x + std::ptrdiff_t(k)];
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

/// |I'| is summed over red, green and blue; a grey image is three equal channels.
double slope_of(int channels, const FilterOptions& options) {
  return (channels == 1 ? 3 : 1) * options.sigma_s / options.sigma_r;
}

}  // namespace

// An odd number of blocks from row to row: with powers of two the rows of a column would share few sets of the cache.
Plane::Plane(int height, int width) : pitch_((((width + row_padding - 1) / row_padding) | 1) * row_padding) {
  const std::size_t count = std::size_t(row_padding) + std::size_t(height) * std::size_t(pitch_);
  // A pass along columns touches a page per row: with pages of 4 KB most of its time would go into finding them.
  constexpr std::size_t huge_page = 2 << 20, cache_line = 64;
  const std::size_t alignment = count * sizeof(float) < huge_page ? cache_line : huge_page;
  const std::size_t bytes = (count * sizeof(float) + alignment - 1) / alignment * alignment;
  data_.reset(static_cast<float*>(std::aligned_alloc(alignment, bytes)));
  if (!data_) throw std::bad_alloc();
#ifdef __linux__
  madvise(data_.get(), bytes, MADV_HUGEPAGE);  // where it is not granted, small pages serve
#endif
  // What lies beside the image is filtered with it. The image itself is left to the threads that write it: first
  // touches are slow.
  std::fill_n(data_.get(), row_padding, 0.0f);
  for (int y = 0; y < height; ++y) std::fill(row(y) + width, row(y) + pitch_, 0.0f);
}

void Plane::Free::operator()(float* data) const { std::free(data); }

DomainTransform::DomainTransform(int height, int width, const Kernels& kernels, Workers& workers)
    : height_(height),
      width_(width),
      kernels_(kernels),
      workers_(workers),
      vx_(height, width),
      vy_(height, width),
      sums_(std::size_t(height)) {
  for (int i = 0; i < 3; ++i) signals_.emplace_back(height, width);
  scratch_.resize(std::size_t(workers.slots(height, lanes)));
  static_assert(learned::weight <= lanes);  // rows of what the network answers for each pixel
  for (auto& scratch : scratch_) scratch.resize((1 + signals_.size()) * std::size_t(width) * lanes);
}

void DomainTransform::load_rows(const ImageView& image, int begin, int end) {
  for (int y = begin; y < end; ++y) {
    std::array<float*, 3> rows{};
    for (int c = 0; c < image.channels; ++c) rows[std::size_t(c)] = signal(c).row(y);
    load_row(image, y, 0, width_, rows.data());
  }
}

void DomainTransform::load(const ImageView& image) {
  workers_.for_ranges(height_, lanes, [&](int begin, int end, int) { load_rows(image, begin, end); });
}

void DomainTransform::set_feedback_rows(int begin, int end, const std::array<const float*, 3>& above, int channels,
                                        double slope, const FilterOptions& options, const std::uint8_t* depth,
                                        double psi, const learned::Factors& factors, float* scratch) {
  std::array<const float*, 3> row{}, last = above;
  const auto learned_row = [&](int y, learned::Output output) -> const float* {
    float* const out = scratch + std::ptrdiff_t{output} * width_;
    const Between rows = between(y, learned::region_octave, factors.rows);
    const float* const upper = factors.plane(output) + std::ptrdiff_t{rows.before} * factors.columns;
    const float* const lower = factors.plane(output) + std::ptrdiff_t{rows.after} * factors.columns;
    const auto value = [&](int column) { return upper[column] + rows.share * (lower[column] - upper[column]); };
    // From the centre of each region to that of the next one.
    for (int column = -1; column < factors.columns; ++column) {
      const int first = column * learned::region + learned::region / 2;
      const float from = value(std::max(column, 0)), to = value(std::min(column + 1, factors.columns - 1));
      for (int k = std::max(-first, 0), last_k = std::min(learned::region, width_ - first); k < last_k; ++k)
        out[first + k] = from + (float(2 * k + 1) / float(2 * learned::region)) * (to - from);
    }
    return out;
  };
  for (int y = begin; y < end; ++y, last = row) {
    for (int c = 0; c < channels; ++c) row[std::size_t(c)] = signal(c).row(y);
    LearnedRow by_pixel{};
    if (factors.values)
      by_pixel = {learned_row(y, learned::gain), learned_row(y, learned::fine_barrier),
                  learned_row(y, learned::coarse_barrier), learned_row(y, learned::across),
                  learned_row(y, learned::down)};
    kernels_.feedback(row.data(), y > 0 ? last.data() : nullptr, channels, float(log_feedback(options)), float(slope),
                      depth ? depth + std::ptrdiff_t(y) * width_ : nullptr, float(psi),
                      factors.values ? &by_pixel : nullptr, width_, vx_.row(y), vy_.row(y));
  }
}

void DomainTransform::set_feedback(int channels, double slope, const FilterOptions& options, const std::uint8_t* depth,
                                   double psi, const learned::Factors& factors) {
  workers_.for_ranges(height_, lanes, [&](int begin, int end, int slot) {
    std::array<const float*, 3> above{};
    for (int c = 0; c < channels && begin > 0; ++c) above[std::size_t(c)] = signal(c).row(begin - 1);
    set_feedback_rows(begin, end, above, channels, slope, options, depth, psi, factors,
                      scratch_[std::size_t(slot)].data());
  });
}

/// `lanes` rows at a time are transposed into scratch memory, filtered side by side, and put back.
template <class Prepare>
void DomainTransform::filter_rows(int count, int iteration, const Prepare& prepare) {
  workers_.for_ranges(height_, lanes, [&](int begin, int end, int slot) {
    prepare(begin, end, slot);
    float* const scratch = scratch_[std::size_t(slot)].data();
    const std::ptrdiff_t size = std::ptrdiff_t(width_) * lanes;
    std::array<float*, lanes> rows{};
    const auto rows_of = [&](Plane& plane) {
      for (int y = begin; y < end; ++y) rows[std::size_t(y - begin)] = plane.row(y);
      return rows.data();
    };
    float* const signals[]{scratch + size, scratch + 2 * size, scratch + 3 * size};
    kernels_.gather_lines(rows_of(vx_), width_, scratch);
    for (int s = 0; s < count; ++s) kernels_.gather_lines(rows_of(signal(s)), width_, signals[s]);
    kernels_.recursive_pass(scratch, iteration, signals, count, lanes, width_);
    for (int s = 0; s < count; ++s) kernels_.scatter_lines(signals[s], width_, rows_of(signal(s)));
  });
}

template <class Finish>
void DomainTransform::filter_columns(int count, int iteration, const Finish& finish) {
  static_assert(row_padding % (2 * lanes) == 0);
  workers_.for_ranges(width_, 2 * lanes, [&](int begin, int end, int) {
    std::array<float*, 3> signals{};
    for (int s = 0; s < count; ++s) signals[std::size_t(s)] = signal(s).row(0) + begin;
    kernels_.recursive_pass_twice(vy_.row(0) + begin, iteration, signals.data(), count, vy_.pitch(), height_);
    finish(begin, end);
  });
}

void DomainTransform::filter(int count, int iterations) {
  for (int i = 0; i < iterations; ++i) {
    filter_rows(count, i, as_they_are);
    filter_columns(count, i, as_they_are);
  }
}

void DomainTransform::make_guide(const ImageView& image, const Propagation& options) {
  // Rows are loaded where they are first filtered. The one above may have been filtered by then: it is loaded again.
  const auto prepare = [&](int begin, int end, int slot) {
    std::array<float*, 3> above{};
    for (std::size_t c = 0; c < above.size(); ++c)
      above[c] = scratch_[std::size_t(slot)].data() + std::ptrdiff_t(c) * width_;
    if (begin > 0) load_row(image, begin - 1, 0, width_, above.data());
    load_rows(image, begin, end);
    set_feedback_rows(begin, end, {above[0], above[1], above[2]}, image.channels,
                      slope_of(image.channels, options.guide), options.guide, nullptr, 0, {}, nullptr);
  };
  for (int i = 0; i < options.guide.iterations; ++i) {
    if (i == 0)
      filter_rows(image.channels, i, prepare);
    else
      filter_rows(image.channels, i, as_they_are);
    filter_columns(image.channels, i, as_they_are);
  }
}

void DomainTransform::propagate(int channels, const std::uint8_t* depth, const Propagation& options,
                                const learned::Factors& factors, const SeedRow& seed, const MapView& out,
                                float* deviation, float unknown) {
  set_feedback(channels, slope_of(channels, options.spread), options.spread, depth, options.psi, factors);
  const int count = deviation ? 3 : 2;
  const auto prepare = [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y) {
      const SeedRows rows{signal(1).row(y), signal(0).row(y), deviation ? signal(2).row(y) : nullptr};
      for (float* row : {rows.weights, rows.radii, rows.squares})
        if (row) std::fill_n(row, width_, 0.0f);
      seed(y, rows);
      for (int s = 0; s < count; ++s) sums_[std::size_t(y)][std::size_t(s)] = sum(signal(s).row(y), signal(s).pitch());
    }
  };
  Mixture of_all{};
  const auto finish = [&](int begin, int end) {
    for (int y = 0; y < height_; ++y) {
      const float *radii = signal(0).row(y), *weights = signal(1).row(y), *squares = signal(2).row(y);
      float* const deviations = deviation ? deviation + std::ptrdiff_t(y) * width_ : nullptr;
      for (int x = begin; x < end; ++x) {
        const bool reached = is_reached(weights[x]);
        const float mean = reached ? radii[x] / weights[x] : of_all.mean;
        *out.at(y, x) = mean;
        if (deviations)
          deviations[x] = reached ? deviation_at({weights[x], radii[x], squares[x]}, mean, options.doubt)
                                  : deviation_out_of_reach(of_all);
      }
    }
  };
  for (int i = 0; i < options.spread.iterations; ++i) {
    if (i > 0) {
      filter_rows(count, i, as_they_are);
    } else {
      filter_rows(count, i, prepare);
      std::array<double, 3> total{};
      for (const auto& row : sums_)
        for (std::size_t s = 0; s < total.size(); ++s) total[s] += row[s];
      of_all = mixture_of_all(total[1], total[0], total[2], unknown);
    }
    if (i + 1 < options.spread.iterations)
      filter_columns(count, i, as_they_are);
    else
      filter_columns(count, i, finish);
  }
}

}  // namespace defocus_fast::cpu
