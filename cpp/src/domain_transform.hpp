// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "formulas.hpp"
#include "kernels.hpp"
#include "workers.hpp"

namespace defocus_fast::cpu {

/// A float image in memory that the recursive passes can read beyond the right border.
class Plane {
 public:
  Plane(int height, int width);
  float* row(int y) { return data_.get() + row_padding + y * pitch_; }
  const float* row(int y) const { return data_.get() + row_padding + y * pitch_; }
  std::ptrdiff_t pitch() const { return pitch_; }  // in floats

 private:
  struct Free {
    void operator()(float* data) const;
  };
  std::ptrdiff_t pitch_;
  std::unique_ptr<float[], Free> data_;
};

/// What seeds are added to: rows of Seed's members; the squares may be null.
struct SeedRows {
  float *weights, *radii, *squares;

  void add(int x, const Seed& seed) const {
    weights[x] += seed.weight;
    radii[x] += seed.radius;
    if (squares) squares[x] += seed.square;
  }
};
/// Called once for every row, by several threads at once.
using SeedRow = std::function<void(int y, const SeedRows& rows)>;

/// The recursive filter of images of one size, and the propagation built on it.
class DomainTransform {
 public:
  DomainTransform(int height, int width, const Kernels& kernels, Workers& workers);

  /// Three planes, of which filter() takes the first few.
  Plane& signal(int i) { return signals_[static_cast<std::size_t>(i)]; }
  /// Loads the image's channels into the signals: uint8 divided by 255, float as it is.
  void load(const ImageView& image);
  /// Sets the coefficients from the first `channels` (1 or 3) signals. `slope` multiplies the sum over channels of
  /// |I'|; `depth` (height, width) may be null.
  void set_feedback(int channels, double slope, const FilterOptions& options, const std::uint8_t* depth, double psi,
                    const learned::Factors& factors = {});
  /// Filters the first `count` signals in place.
  void filter(int count, int iterations);

  /// Leaves the guide in the signals: the image filtered by itself.
  void make_guide(const ImageView& image, const Propagation& options);
  /// Means over the regions in their row `row` of the guide's differences to the left and to the upper neighbour: of
  /// |I'|, summed over three channels, out(column, to the left, to the upper). By several threads at once.
  template <class Out>
  void measure_guide(int row, int channels, const Out& out) const;
  /// Section III-C: out = F(radii) / F(weights) of the seeds, F with the coefficients of the guide, which is lost, and
  /// of `depth` (height, width) and, unless null, deviation (height, width) of the mixture. Pixels that no seed reaches
  /// get those of all seeds; 0 and `unknown` without any.
  void propagate(int channels, const std::uint8_t* depth, const Propagation& options, const learned::Factors& factors,
                 const SeedRow& seed, const MapView& out, float* deviation = nullptr, float unknown = 0);

 private:
  void load_rows(const ImageView& image, int begin, int end);
  /// `above`: the signals' row before `begin`.
  void set_feedback_rows(int begin, int end, const std::array<const float*, 3>& above, int channels, double slope,
                         const FilterOptions& options, const std::uint8_t* depth, double psi,
                         const learned::Factors& factors, float* scratch);
  /// prepare(begin, end, slot) is called for rows before they are read, finish(begin, end) for columns that are done.
  template <class Prepare>
  void filter_rows(int count, int iteration, const Prepare& prepare);
  template <class Finish>
  void filter_columns(int count, int iteration, const Finish& finish);

  int height_, width_;
  const Kernels& kernels_;
  Workers& workers_;
  Plane vx_, vy_;
  std::vector<Plane> signals_;
  std::vector<std::vector<float>> scratch_;  // one per slot
  std::vector<std::array<double, 3>> sums_;  // of the seeds in each row
};

template <class Out>
void DomainTransform::measure_guide(int row, int channels, const Out& out) const {
  const int top = row * learned::region, bottom = std::min(top + learned::region, height_);
  for (int left = 0; left < width_; left += learned::region) {
    const int right = std::min(left + learned::region, width_);
    float across = 0, down = 0;
    for (int c = 0; c < channels; ++c)
      for (int y = top; y < bottom; ++y) {
        const float *here = signals_[std::size_t(c)].row(y), *above = signals_[std::size_t(c)].row(std::max(y - 1, 0));
        for (int x = left; x < right; ++x) {
          across += std::abs(here[x] - here[std::max(x - 1, 0)]);
          down += std::abs(here[x] - above[x]);
        }
      }
    const float share = (channels == 1 ? 3.0f : 1.0f) / float((bottom - top) * (right - left));
    out(left / learned::region, share * across, share * down);
  }
}

}  // namespace defocus_fast::cpu
