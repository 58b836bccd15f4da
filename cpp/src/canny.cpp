// SPDX-License-Identifier: Apache-2.0
// Canny's detector as scikit-image computes it (skimage.feature.canny with its default constant border): Gaussian
// smoothing that ignores what lies outside, Sobel gradients, interpolated non-maximum suppression, hysteresis over
// 8-connected pixels. Edges are equal pixel for pixel, so every rounding happens where it happens there.
#include "canny.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "image.hpp"

namespace defocus_fast::cpu {

namespace {

/// numpy.sum's order (pairwise in blocks of 128, eight partial sums in a block).
double numpy_sum(const double* values, std::ptrdiff_t n) {
  if (n < 8) return std::accumulate(values, values + n, 0.0);
  if (n > 128) {
    const std::ptrdiff_t half = n / 2 - n / 2 % 8;
    return numpy_sum(values, half) + numpy_sum(values + half, n - half);
  }
  std::array<double, 8> part;
  std::copy_n(values, 8, part.begin());
  std::ptrdiff_t i = 8;
  for (; i < n - n % 8; i += 8)
    for (std::size_t k = 0; k < 8; ++k) part[k] += values[i + std::ptrdiff_t(k)];
  double sum = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
  for (; i < n; ++i) sum += values[i];
  return sum;
}

/// ndimage's Gaussian kernel, truncated at 4 sigma.
std::vector<double> gaussian(double sigma) {
  const int radius = int(4.0 * sigma + 0.5);
  if (radius == 0) return {1.0};  // below, the square of a tiny sigma would be 0
  std::vector<double> weights(std::size_t(2 * radius + 1));
  for (int i = -radius; i <= radius; ++i) weights[std::size_t(i + radius)] = std::exp(-0.5 / (sigma * sigma) * (i * i));
  const double sum = numpy_sum(weights.data(), std::ptrdiff_t(weights.size()));
  for (double& weight : weights) weight /= sum;
  return weights;
}

constexpr int word_bits = 64;
static_assert(std::endian::native == std::endian::little);  // bytes of a word are read in the order of pixels

std::uint64_t bit(int i) { return std::uint64_t{1} << i % word_bits; }

/// The pixels of `candidates` to which a run of them leads from `seeds`, which are among them.
std::uint64_t runs_from(std::uint64_t seeds, std::uint64_t candidates) {
  std::uint64_t up = seeds, down = seeds, above = candidates, below = candidates;
  for (int shift = 1; shift < word_bits; shift *= 2) {
    up |= above & (up << shift);
    down |= below & (down >> shift);
    above &= above << shift;
    below &= below >> shift;
  }
  return up | down;
}

int padded(int n) { return (n + row_padding - 1) / row_padding * row_padding; }

}  // namespace

/// Buffers in which one worker takes a strip from pixels to thinned edges, a row at a time: of every stage the rows
/// that the next one reads are kept, few enough to stay in the second-level cache.
template <class T>
struct EdgeDetector::Strip {
  /// The last `count` rows of T, with at least `margin` readable elements on both sides; rows begin on cache lines.
  struct Rows {
    Rows(int count_, int width, int margin_)
        : count(count_),
          margin(padded(margin_)),
          pitch(padded(width) + 2 * margin),
          data(std::size_t(count) * std::size_t(pitch) / line) {}
    T* row(int y) { return reinterpret_cast<T*>(data.data()) + std::ptrdiff_t(y % count) * pitch + margin; }

    static constexpr std::size_t line = 64 / sizeof(T);
    struct alignas(64) CacheLine {
      std::array<T, line> values;
    };
    static_assert(row_padding % line == 0);
    int count, margin;
    std::ptrdiff_t pitch;
    std::vector<CacheLine> data;
  };

  Strip(int width, int radius)
      : value(2 * radius + 2, width, 0),
        outside(1, width, 0),
        columns(3, width, radius),
        bleed(2, width, 0),
        ones(1, width, 0),
        smooth(4, width, 1),
        gy(2, width, 0),
        gx(2, width, 0),
        magnitude(3, width, 1),
        taps(std::size_t(2 * radius + 2)) {
    std::fill_n(ones.row(0), ones.pitch, T(1));
  }

  Rows value;    // max(R, G, B)
  Rows outside;  // zeros
  Rows columns;  // two rows smoothed along y, and one for `bleed`
  Rows bleed;    // how much of the kernel lies inside the image: of this row, of any row away from the border
  Rows ones;
  Rows smooth, gy, gx, magnitude;
  std::vector<const T*> taps;
  bool interior_bleed_known = false;
};

std::vector<double> smoothing_kernel(const CannyOptions& options) {
  const std::vector<double>& given = options.smoothing;
  return given.empty() ? gaussian(options.sigma) : given;
}

EdgeDetector::EdgeDetector(int height, int width, const CannyOptions& options, const Kernels& kernels, Workers& workers)
    : height_(height),
      width_(width),
      options_(options),
      kernels_(kernels),
      workers_(workers),
      weights_(smoothing_kernel(options)),
      // A strip computes what its first and last rows need of its neighbours'; four for each worker keep all busy.
      rows_per_strip_(std::max(64, height / (4 * workers.count()) + 1)),
      strongest_(std::size_t((height - 1) / rows_per_strip_ + 1)),
      words_((width + word_bits - 1) / word_bits),
      candidates_(std::size_t(height) * std::size_t(words_ + 2)),
      edges_(candidates_.size()),
      waiting_words_(std::size_t((words_ + word_bits - 1) / word_bits)),
      waiting_(std::size_t(height) * waiting_words_) {}

EdgeDetector::~EdgeDetector() = default;

Pixel EdgeDetector::detect_edges(const ImageView& image) {
  if (image.type == PixelType::uint8)
    find_chains<double>(image, double_strips_);
  else
    find_chains<float>(image, float_strips_);
  // Chains from strip to strip.
  for (int y = rows_per_strip_; y < height_; y += rows_per_strip_)
    for (const int row : {y - 1, y}) await_row(row);
  follow_chains(0, height_);
  return std::max_element(strongest_.begin(), strongest_.end(),
                          [](const Strongest& a, const Strongest& b) { return a.magnitude < b.magnitude; })
      ->at;
}

template <class T>
void EdgeDetector::find_chains(const ImageView& image, std::vector<Strip<T>>& strips) {
  const int radius = int(weights_.size() / 2);
  const CannyKernels<T>& kernel = *[&] {
    if constexpr (std::is_same_v<T, double>)
      return kernels_.canny_double;
    else
      return kernels_.canny_float;
  }();
  while (int(strips.size()) < workers_.slots(height_, rows_per_strip_)) strips.emplace_back(width_, radius);

  // scikit-image's low threshold is a C float in the thinning, the high one has the type of the array.
  const float low = options_.low == 0 ? 1e-14f : float(options_.low);
  const T high = T(options_.high);

  workers_.for_ranges(height_, rows_per_strip_, [&](int begin, int end, int slot) {
    Strip<T>& s = strips[std::size_t(slot)];
    Strongest& strongest = strongest_[std::size_t(begin / rows_per_strip_)];
    strongest = {};
    const auto smooth_bleed = [&](int y, T* out) {
      double sum = weights_[std::size_t(radius)];
      for (int j = 0; j < radius; ++j) {
        const double before = y - radius + j >= 0 ? 1.0 : 0.0, after = y + radius - j < height_ ? 1.0 : 0.0;
        sum += (before + after) * weights_[std::size_t(j)];
      }
      T* columns = s.columns.row(2);
      std::fill_n(columns, width_, T(sum));
      std::fill(columns + width_, columns + padded(width_), T(0));
      kernel.smooth_row(columns, weights_.data(), radius, s.ones.row(0), width_, out);
      for (int x = 0; x < width_; ++x) out[x] += std::numeric_limits<T>::epsilon();
    };
    const auto smooth_row = [&](int y) {
      const bool interior = y >= radius && y < height_ - radius;
      T* bleed = s.bleed.row(interior ? 1 : 0);
      if (!interior || !s.interior_bleed_known) smooth_bleed(y, bleed);
      s.interior_bleed_known |= interior;
      T* columns = s.columns.row(y % 2);
      std::fill(columns + width_, columns + padded(width_), T(0));
      T* smooth = s.smooth.row(y);
      kernel.smooth_row(columns, weights_.data(), radius, bleed, width_, smooth);
      smooth[-1] = smooth[0];  // ndimage's "reflect" for the Sobel operators
      smooth[width_] = smooth[width_ - 1];
    };
    const auto smooth_two_rows = [&](int y) {
      for (int j = -radius; j <= radius + 1; ++j)
        s.taps[std::size_t(j + radius)] = y + j < 0 || y + j >= height_ ? s.outside.row(0) : s.value.row(y + j);
      kernel.smooth_columns(s.taps.data(), weights_.data(), radius, width_,
                            {s.columns.row(y % 2), s.columns.row((y + 1) % 2)});
      smooth_row(y);
      if (y + 1 < height_) smooth_row(y + 1);
    };

    int next_value = std::max(0, begin - 2 - radius), next_smooth = std::max(0, begin - 2),
        next_gradient = std::max(0, begin - 1);
    for (int y = begin; y < end; ++y) {
      for (; next_gradient < std::min(height_, y + 2); ++next_gradient) {
        for (; next_smooth < std::min(height_, next_gradient + 2); next_smooth += 2) {
          for (; next_value < std::min(height_, next_smooth + radius + 2); ++next_value)
            load_value_row(image, next_value, kernel, s.value.row(next_value));
          smooth_two_rows(next_smooth);
        }
        const auto smooth = [&](int row) { return s.smooth.row(std::clamp(row, 0, height_ - 1)); };
        const int g = next_gradient;
        kernel.gradient(smooth(g - 1), smooth(g), smooth(g + 1), width_, s.gy.row(g), s.gx.row(g), s.magnitude.row(g));
      }
      if (y == 0 || y == height_ - 1) continue;
      std::uint64_t *candidates = row_of(candidates_, y), *edges = row_of(edges_, y);
      kernel.thin(s.magnitude.row(y - 1), s.magnitude.row(y), s.magnitude.row(y + 1), s.gy.row(y), s.gx.row(y), low,
                  high, width_, reinterpret_cast<std::uint8_t*>(candidates), reinterpret_cast<std::uint8_t*>(edges));
      const int last = (width_ - 1) / word_bits;
      candidates[0] &= ~bit(0);
      candidates[last] &= ~bit(width_ - 1);
      edges[0] &= candidates[0];
      edges[last] &= candidates[last];
      for (int w = 0; w < words_; ++w)
        for (std::uint64_t rest = edges[w]; rest != 0; rest &= rest - 1) {
          const int x = w * word_bits + std::countr_zero(rest);
          if (const auto magnitude = float(s.magnitude.row(y)[x]); magnitude > strongest.magnitude)
            strongest = {magnitude, {y, x}};
        }
      await_row(y);
    }
    follow_chains(begin, end);
  });
}

std::uint64_t* EdgeDetector::row_of(std::vector<std::uint64_t>& bits, int y) const {
  return bits.data() + std::ptrdiff_t(y) * (words_ + 2) + 1;
}

/// Word w of row y is to be looked at if one of `pixels` may still become an edge.
void EdgeDetector::await(int y, int w, std::uint64_t pixels) {
  if ((row_of(candidates_, y)[w] & ~row_of(edges_, y)[w] & pixels) != 0)
    waiting_[std::size_t(y) * waiting_words_ + std::size_t(w / word_bits)] |= bit(w);
}

void EdgeDetector::await_row(int y) {
  for (int w = 0; w < words_; ++w) await(y, w, ~std::uint64_t{0});
}

/// Hysteresis: candidates become edges where a chain of them leads to one, in the words that wait and in those to which
/// it leads, inside the rows [first, last). Down and up in turns: few chains turn often.
void EdgeDetector::follow_chains(int first, int last) {
  bool down = true;
  for (bool again = true; again; down = !down) {
    again = false;
    for (int i = first; i < last; ++i) {
      const int y = down ? i : first + last - 1 - i;
      for (std::size_t k = 0; k < waiting_words_; ++k)
        for (std::uint64_t& waiting = waiting_[std::size_t(y) * waiting_words_ + k]; waiting != 0;) {
          const int w = int(k) * word_bits + std::countr_zero(waiting);
          waiting &= waiting - 1;
          again |= extend_chains(y, w, first, last);
        }
    }
  }
}

/// One word; whether it gained edges. What these touch waits then.
bool EdgeDetector::extend_chains(int y, int w, int first, int last) {
  const int begin = std::max(y - 1, first), end = std::min(y + 2, last);
  std::uint64_t left = 0, here = 0, right = 0;
  for (int row = begin; row < end; ++row) {
    const std::uint64_t* edges = row_of(edges_, row) + w;
    left |= edges[-1];
    here |= edges[0];
    right |= edges[1];
  }
  std::uint64_t& edges = row_of(edges_, y)[w];
  const std::uint64_t candidates = row_of(candidates_, y)[w] & ~edges;
  const std::uint64_t near = here | here << 1 | here >> 1 | left >> (word_bits - 1) | right << (word_bits - 1);
  if ((near & candidates) == 0) return false;
  const std::uint64_t gained = runs_from(near & candidates, candidates);
  edges |= gained;
  for (int row = begin; row < end; ++row) {
    await(row, w - 1, gained << (word_bits - 1));
    await(row, w, gained | gained << 1 | gained >> 1);
    await(row, w + 1, gained >> (word_bits - 1));
  }
  return true;
}

void EdgeDetector::write_mask(std::uint8_t* mask, std::ptrdiff_t pitch) {
  workers_.for_ranges(height_, 64, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y) {
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(row_of(edges_, y));
      std::uint8_t* const out = mask + y * pitch;
      int x = 0;
      for (; x < width_ - 7; x += 8) {
        // Bit k is left alone in byte k, and carries into its highest bit.
        const std::uint64_t bits = bytes[x / 8] * std::uint64_t{0x0101010101010101} & 0x8040201008040201;
        const std::uint64_t pixels = (bits + 0x7f7f7f7f7f7f7f7f) >> 7 & 0x0101010101010101;
        std::memcpy(out + x, &pixels, sizeof pixels);
      }
      for (; x < width_; ++x) out[x] = bytes[x / 8] >> x % 8 & 1;
    }
  });
}

}  // namespace defocus_fast::cpu
