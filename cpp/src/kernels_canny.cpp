// SPDX-License-Identifier: Apache-2.0
// Compiled once per instruction set, with -ffp-contract=off: a fused multiply-add would round differently from
// ndimage, and edges must equal scikit-image's pixel for pixel.
#include "kernels_variant.hpp"

namespace defocus_fast::DEFOCUS_FAST_VARIANT {
namespace {

constexpr int block = 32;  // doubles whose sums stay in registers; rows are padded to it
static_assert(row_padding % block == 0);

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
inline float absolute(float x) { return __builtin_fabsf(x); }
inline double absolute(double x) { return __builtin_fabs(x); }

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

template <class T>
void thin(const T* above, const T* magnitude, const T* below, const T* gy, const T* gx, float low, T high, int n,
          std::uint8_t* out) {
  for (int begin = 0; begin < n; begin += block) {
    const int end = begin + block < n ? begin + block : n;
    bool any = false;
    for (int x = begin; x < end; ++x) any |= magnitude[x] >= low;
    if (!any) {  // most of most pictures
      for (int x = begin; x < end; ++x) out[x] = 0;
      continue;
    }
    for (int x = begin; x < end; ++x) {
      // All loads come before any choice, so that the compiler may make one vector of them.
      const T upper_left = above[x - 1], upper = above[x], upper_right = above[x + 1];
      const T left = magnitude[x - 1], m = magnitude[x], right = magnitude[x + 1];
      const T lower_left = below[x - 1], lower = below[x], lower_right = below[x + 1];
      const T y_gradient = gy[x], x_gradient = gx[x];
      const T ay = absolute(y_gradient), ax = absolute(x_gradient);
      // The gradient points into one of eight octants; its two opposite neighbours are interpolated between the
      // axis neighbour and the diagonal one. Same signs: the diagonal runs down-right.
      const bool same = (y_gradient > 0) == (x_gradient > 0);
      const bool steep = same ? ay > ax : ay >= ax;
      const T w = (steep ? ax : ay) / (steep ? ay : ax);
      const T diagonal1 = same ? lower_right : upper_right;
      const T diagonal2 = same ? upper_left : lower_left;
      const T vertical1 = same ? lower : upper, vertical2 = same ? upper : lower;
      const T axis1 = steep ? vertical1 : right;
      const T axis2 = steep ? vertical2 : left;
      const bool peak1 = double(diagonal1 * w) + axis1 * (1.0 - w) <= m;
      const bool peak2 = double(diagonal2 * w) + axis2 * (1.0 - w) <= m;
      out[x] = std::uint8_t((peak1 & peak2 & (m >= low)) ? 1 + (m >= high) : 0);
    }
  }
}

}  // namespace

extern constinit const CannyKernels<float> canny_float{smooth_columns<float>, smooth_row<float>, gradient<float>,
                                                       thin<float>};
extern constinit const CannyKernels<double> canny_double{smooth_columns<double>, smooth_row<double>, gradient<double>,
                                                         thin<double>};

}  // namespace defocus_fast::DEFOCUS_FAST_VARIANT
