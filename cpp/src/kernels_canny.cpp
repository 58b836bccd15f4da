// SPDX-License-Identifier: Apache-2.0
// Compiled once per instruction set, with -ffp-contract=off: a fused multiply-add would round differently from
// ndimage, and edges must equal scikit-image's pixel for pixel.
#include "kernels_variant.hpp"

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are handed over within this file only

namespace defocus_fast::DEFOCUS_FAST_VARIANT {
namespace {

constexpr int block = 32;  // doubles whose sums stay in registers; rows are padded to it
static_assert(row_padding % block == 0);

/// pixel / 255, rounded as a division would: pixel times the first bits of 1 / 255 is exact, and what the rest of them
/// adds is rounded once.
template <class T>
inline T fraction(std::uint8_t pixel) {
  constexpr T inverse = T(1) / 255, first = inverse * 257 - (inverse * 257 - inverse), rest = (1 - 255 * first) / 255;
  return T(pixel) * first + T(pixel) * rest;
}

template <int channels, class T>
void brightest_of(const std::uint8_t* __restrict pixels, int n, T* __restrict out) {
  for (int begin = 0; begin < n; begin += block) {
    const int count = begin + block < n ? block : n - begin;
    std::uint8_t most[block];
    for (int i = 0; i < count; ++i) {
      const std::uint8_t* pixel = pixels + channels * (begin + i);
      most[i] = pixel[0];
      for (int c = 1; c < channels; ++c) most[i] = pixel[c] > most[i] ? pixel[c] : most[i];
    }
    for (int i = 0; i < count; ++i) out[begin + i] = fraction<T>(most[i]);
  }
}

template <class T>
void brightest(const std::uint8_t* pixels, int channels, int n, T* out) {
  (channels == 1 ? brightest_of<1, T> : brightest_of<3, T>)(pixels, n, out);
}

// What follows is written in vectors: the compiler finds none of it by itself. They are no longer than a register of
// doubles: GCC compares and selects in longer ones element by element.
constexpr int width = vector_floats / 2;
template <class T>
struct Vectors {
  using type __attribute__((vector_size(width * sizeof(T)))) = T;
  using mask __attribute__((vector_size(width * sizeof(T)))) =
      std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
};

template <class T>
inline typename Vectors<T>::type load(const T* from) {
  typename Vectors<T>::type values;
  __builtin_memcpy(&values, from, sizeof values);
  return values;
}
template <class T>
inline void store(const typename Vectors<T>::type& values, T* to) {
  __builtin_memcpy(to, &values, sizeof values);
}

using Doubles = Vectors<double>::type;
/// Weighted sums of a block of pixels; tap(j) is where tap j of the first of them is read.
template <class Tap>
inline void weigh(const Tap& tap, const double* weights, int radius, Doubles (&sum)[block / width]) {
  for (int v = 0; v < block / width; ++v)
    sum[v] = __builtin_convertvector(load(tap(radius) + v * width), Doubles) * weights[radius];
  for (int j = 0; j < radius; ++j) {
    const auto *before = tap(j), *after = tap(2 * radius - j);
    for (int v = 0; v < block / width; ++v)
      sum[v] += (__builtin_convertvector(load(before + v * width), Doubles) +
                 __builtin_convertvector(load(after + v * width), Doubles)) *
                weights[j];
  }
}

template <class T>
void smooth_columns(const T* const* rows, const double* weights, int radius, int n, const std::array<T*, 2>& out) {
  for (int x = 0; x < n; x += block) {
    for (int k = 0; k < 2; ++k) {
      Doubles sum[block / width];
      weigh([&](int j) { return rows[k + j] + x; }, weights, radius, sum);
      for (int v = 0; v < block / width; ++v)
        store<T>(__builtin_convertvector(sum[v], typename Vectors<T>::type), out[k] + x + v * width);
    }
  }
}

template <class T>
void smooth_row(const T* row, const double* weights, int radius, const T* bleed, int n, T* out) {
  for (int x = 0; x < n; x += block) {
    Doubles sum[block / width];
    weigh([&](int j) { return row + x + j - radius; }, weights, radius, sum);
    for (int v = 0; v < block / width; ++v) {
      const int at = x + v * width;
      store<T>(__builtin_convertvector(sum[v], typename Vectors<T>::type) / load(bleed + at), out + at);
    }
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

/// Bit k is set where lane k is.
template <class Mask>
inline int bits_of(const Mask& lanes) {
  using Bytes = std::int8_t __attribute__((vector_size(width)));
  const Bytes bytes = __builtin_convertvector(lanes, Bytes);
  std::uint64_t word = 0;
  __builtin_memcpy(&word, &bytes, sizeof bytes);
  return int((word & 0x0101010101010101) * 0x0102040810204080 >> 56);
}

template <class T>
void thin(const T* above, const T* magnitude, const T* below, const T* gy, const T* gx, float low, T high, int n,
          std::uint8_t* weak, std::uint8_t* strong) {
  using Values = typename Vectors<T>::type;
  using Mask = typename Vectors<T>::mask;
  for (int begin = 0; begin < n; begin += 8) {
    int is_low = 0, is_peak = 0, is_high = 0;
    for (int v = 0; v < 8; v += width) is_low |= bits_of(load(magnitude + begin + v) >= T(low)) << v;
    for (int v = 0; is_low != 0 && v < 8; v += width) {
      const int x = begin + v;
      const Values m = load(magnitude + x), y = load(gy + x), x_gradient = load(gx + x), zero{};
      const Values ay = y < zero ? -y : y, ax = x_gradient < zero ? -x_gradient : x_gradient;
      // The gradient points into one of eight octants; its two opposite neighbours are interpolated between the
      // axis neighbour and the diagonal one. Same signs: the diagonal runs down-right.
      const Mask same = ~((y > zero) ^ (x_gradient > zero));
      const Mask steep = (ay > ax) | (~same & (ay == ax));
      const Values w = (steep ? ax : ay) / (steep ? ay : ax);
      const Values diagonal1 = same ? load(below + x + 1) : load(above + x + 1);
      const Values diagonal2 = same ? load(above + x - 1) : load(below + x - 1);
      const Values upper = load(above + x), lower = load(below + x);
      const Values axis1 = steep ? (same ? lower : upper) : load(magnitude + x + 1);
      const Values axis2 = steep ? (same ? upper : lower) : load(magnitude + x - 1);
      const Doubles rest = 1.0 - __builtin_convertvector(w, Doubles), most = __builtin_convertvector(m, Doubles);
      is_peak |=
          bits_of((__builtin_convertvector(diagonal1 * w, Doubles) + __builtin_convertvector(axis1, Doubles) * rest <=
                   most) &
                  (__builtin_convertvector(diagonal2 * w, Doubles) + __builtin_convertvector(axis2, Doubles) * rest <=
                   most))
          << v;
      is_high |= bits_of(m >= high) << v;
    }
    const int inside = n - begin < 8 ? (1 << (n - begin)) - 1 : 0xff;
    weak[begin / 8] = std::uint8_t(is_low & is_peak & inside);
    strong[begin / 8] = std::uint8_t(weak[begin / 8] & is_high);
  }
}

}  // namespace

extern constinit const CannyKernels<float> canny_float{brightest<float>, smooth_columns<float>, smooth_row<float>,
                                                       gradient<float>, thin<float>};
extern constinit const CannyKernels<double> canny_double{brightest<double>, smooth_columns<double>, smooth_row<double>,
                                                         gradient<double>, thin<double>};

}  // namespace defocus_fast::DEFOCUS_FAST_VARIANT
