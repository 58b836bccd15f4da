// SPDX-License-Identifier: Apache-2.0
// Compiled once per instruction set, with -ffp-contract=off: a fused multiply-add would round differently from
// ndimage, and edges must equal scikit-image's pixel for pixel.
#include "kernels_variant.hpp"

namespace defocus_fast::DEFOCUS_FAST_VARIANT {
namespace {

constexpr int block = 32;  // doubles whose sums stay in registers; rows are padded to it
static_assert(row_padding % block == 0);

template <class T>
void brightest(const std::uint8_t* __restrict rgb, int n, T* __restrict out) {
  for (int begin = 0; begin < n; begin += block) {
    const int count = begin + block < n ? block : n - begin;
    std::uint8_t most[block];
    for (int i = 0; i < count; ++i) {
      const std::uint8_t* pixel = rgb + 3 * (begin + i);
      const std::uint8_t more = pixel[0] > pixel[1] ? pixel[0] : pixel[1];
      most[i] = more > pixel[2] ? more : pixel[2];
    }
    for (int i = 0; i < count; ++i) out[begin + i] = T(most[i]) / T(255);
  }
}

template <class T>
void smooth_columns(const T* const* rows, const double* weights, int radius, int n, T* out) {
  for (int x = 0; x < n; x += block) {
    double sum[block];
    for (int i = 0; i < block; ++i) sum[i] = rows[radius][x + i] * weights[radius];
    for (int j = 0; j < radius; ++j) {
      const T* before = rows[j] + x;
      const T* after = rows[2 * radius - j] + x;
      for (int i = 0; i < block; ++i) sum[i] += (double(before[i]) + double(after[i])) * weights[j];
    }
    for (int i = 0; i < block; ++i) out[x + i] = T(sum[i]);
  }
}

template <class T>
void smooth_row(const T* row, const double* weights, int radius, const T* bleed, int n, T* out) {
  for (int x = 0; x < n; x += block) {
    double sum[block];
    for (int i = 0; i < block; ++i) sum[i] = row[x + i] * weights[radius];
    for (int j = 0; j < radius; ++j) {
      const T* before = row + x + j - radius;
      const T* after = row + x + radius - j;
      for (int i = 0; i < block; ++i) sum[i] += (double(before[i]) + double(after[i])) * weights[j];
    }
    for (int i = 0; i < block; ++i) out[x + i] = T(sum[i]) / bleed[x + i];
  }
}

inline float square_root(float x) { return __builtin_sqrtf(x); }
inline double square_root(double x) { return __builtin_sqrt(x); }
template <class T>
void gradient(const T* above, const T* row, const T* below, int n, T* __restrict gy, T* __restrict gx,
              T* __restrict magnitude) {
  for (int x = 0; x < n; ++x) {
    const T upper = above[x + 1] - above[x - 1], centre = row[x + 1] - row[x - 1], lower = below[x + 1] - below[x - 1];
    const T left = below[x - 1] - above[x - 1], middle = below[x] - above[x], right = below[x + 1] - above[x + 1];
    const T horizontal = T(double(centre) * 2.0 + (double(upper) + double(lower)));
    const T vertical = T(double(middle) * 2.0 + (double(left) + double(right)));
    gx[x] = horizontal;
    gy[x] = vertical;
    magnitude[x] = square_root(vertical * vertical + horizontal * horizontal);
  }
}

// Written in vectors: the compiler makes none of these choices by itself.
constexpr int width = 8;
template <class T>
struct Vectors;
template <>
struct Vectors<float> {
  using type = float __attribute__((vector_size(width * 4), aligned(4), may_alias));
  using mask = std::int32_t __attribute__((vector_size(width * 4)));
};
template <>
struct Vectors<double> {
  using type = double __attribute__((vector_size(width * 8), aligned(8), may_alias));
  using mask = std::int64_t __attribute__((vector_size(width * 8)));
};

template <class T>
inline const typename Vectors<T>::type& vector_at(const T* from) {
  return *reinterpret_cast<const typename Vectors<T>::type*>(from);
}

template <class T>
void thin(const T* above, const T* magnitude, const T* below, const T* gy, const T* gx, float low, T high, int n,
          std::uint8_t* out) {
  using Values = typename Vectors<T>::type;
  using Mask = typename Vectors<T>::mask;
  using Doubles = Vectors<double>::type;
  using DoubleMask = Vectors<double>::mask;
  for (int x = 0; x < n; x += width) {
    const Values m = vector_at(magnitude + x);
    std::uint8_t classes[width] = {};
    bool any = false;
    for (int i = 0; i < width; ++i) any |= m[i] >= low;
    if (any) {
      const Values y = vector_at(gy + x), x_gradient = vector_at(gx + x), zero{};
      const Values ay = y < zero ? -y : y, ax = x_gradient < zero ? -x_gradient : x_gradient;
      // The gradient points into one of eight octants; its two opposite neighbours are interpolated between the
      // axis neighbour and the diagonal one. Same signs: the diagonal runs down-right.
      const Mask same = ~((y > zero) ^ (x_gradient > zero));
      const Mask steep = (ay > ax) | (~same & (ay == ax));
      const Values w = (steep ? ax : ay) / (steep ? ay : ax);
      const Values diagonal1 = same ? vector_at(below + x + 1) : vector_at(above + x + 1);
      const Values diagonal2 = same ? vector_at(above + x - 1) : vector_at(below + x - 1);
      const Values upper = vector_at(above + x), lower = vector_at(below + x);
      const Values axis1 = steep ? (same ? lower : upper) : vector_at(magnitude + x + 1);
      const Values axis2 = steep ? (same ? upper : lower) : vector_at(magnitude + x - 1);
      const Doubles rest = 1.0 - __builtin_convertvector(w, Doubles), most = __builtin_convertvector(m, Doubles);
      const DoubleMask peak =
          (__builtin_convertvector(diagonal1 * w, Doubles) + __builtin_convertvector(axis1, Doubles) * rest <= most) &
          (__builtin_convertvector(diagonal2 * w, Doubles) + __builtin_convertvector(axis2, Doubles) * rest <= most);
      const DoubleMask is_low = __builtin_convertvector(Mask(m >= T(low)), DoubleMask);
      const DoubleMask is_high = __builtin_convertvector(Mask(m >= high), DoubleMask);
      const DoubleMask found = peak & is_low & (1 - is_high);  // true is -1
      for (int i = 0; i < width; ++i) classes[i] = std::uint8_t(found[i]);
    }
    const int count = n - x < width ? n - x : width;
    if (count == width)
      __builtin_memcpy(out + x, classes, width);
    else
      __builtin_memcpy(out + x, classes, std::size_t(count));
  }
}

}  // namespace

extern constinit const CannyKernels<float> canny_float{brightest<float>, smooth_columns<float>, smooth_row<float>,
                                                       gradient<float>, thin<float>};
extern constinit const CannyKernels<double> canny_double{brightest<double>, smooth_columns<double>, smooth_row<double>,
                                                         gradient<double>, thin<double>};

}  // namespace defocus_fast::DEFOCUS_FAST_VARIANT
