// SPDX-License-Identifier: Apache-2.0
// Inner loops that are compiled once per instruction set and chosen at run time. The files that define them
// include nothing but this header, so no inline function of another library is ever emitted with wide instructions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace defocus_fast {

/// Rows that the kernels below read and write are padded to a multiple of this many elements.
inline constexpr int row_padding = 32;

/// Lines that lie side by side where `recursive_pass` runs along them. 16 rows of 1920 px, coefficients and three
/// signals, stay in the second-level cache.
inline constexpr int lanes = 16;

/// T is the type in which scikit-image would compute: double for uint8 images, float for float32 ones.
/// Every intermediate is rounded to T exactly where ndimage stores an array of T; sums run in double, in its order.
template <class T>
struct CannyKernels {
  /// out[x] = the largest of the 1 or 3 channels of pixel x, divided by 255.
  void (*brightest)(const std::uint8_t* pixels, int channels, int n, T* out);
  /// out[k][x] = sum of weights[j] * rows[k + j][x], j in [0, 2 * radius], of two rows k, which share what they read;
  /// weights are symmetric.
  void (*smooth_columns)(const T* const* rows, const double* weights, int radius, int n, const std::array<T*, 2>& out);
  /// out[x] = (sum of weights[j] * row[x + j - radius]) / bleed[x]; row[-radius .. n + radius) must be readable.
  void (*smooth_row)(const T* row, const double* weights, int radius, const T* bleed, int n, T* out);
  /// Sobel gradients along y and x and their magnitude. Entries [-1, n] of the three rows must be readable.
  void (*gradient)(const T* above, const T* row, const T* below, int n, T* gy, T* gx, T* magnitude);
  /// What interpolated non-maximum suppression leaves: bit x % 8 of byte x / 8 of `weak` where it is at least low, of
  /// `strong` at least high. Entries [-1, n] of the three rows must be readable.
  void (*thin)(const T* above, const T* magnitude, const T* below, const T* gy, const T* gx, float low, T high, int n,
               std::uint8_t* weak, std::uint8_t* strong);
};

/// Features of a pixel are padded with zeros to a multiple of this many channels.
inline constexpr int feature_block = 16;

/// How the values of a convolution are stored: float, bf16 in uint16_t, or, with int8 weights, integers in uint8_t.
template <class T>
using Weight = std::conditional_t<std::is_same_v<T, std::uint8_t>, std::int8_t, T>;

/// So many values of T lie side by side where the kernels read weights.
template <class T>
inline constexpr int group = 4 / int(sizeof(T));

/// One convolution at listed pixels p:
/// out[p * outputs + k] = bias[k] + sum of taps[t][p * pitch + c] * weight(t, c, k).
template <class T>
struct Convolution {
  const T* const* taps;  // (tap_count) where each tap reads, seen from pixel 0
  int tap_count;
  int inputs;                // channels of every tap; a multiple of group<T>
  std::ptrdiff_t pitch;      // values from pixel to pixel
  const Weight<T>* weights;  // (outputs / 16, tap_count, inputs / group<T>, 16, group<T>)
  const float* bias;         // (outputs); may be null
  int outputs;               // a multiple of feature_block
  bool relu;
  const float* scales = nullptr;  // (outputs) of integers only: what 1 in the sum, which has no bias, is in the output
};

/// Squares of Winograd's minimal filtering that are computed together.
inline constexpr int winograd_batch = 24;

/// A convolution of 3 x 3 taps at listed squares of `side` x `side` pixels, side 3 or 4, with fewer multiplications:
/// (side + 2)^2 in place of 9 * side^2 (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016).
/// Transformed inputs and weights are rounded to T, their products summed in float.
template <class T, int side>
struct WinogradConvolution {
  static constexpr int read = (side + 2) * (side + 2), computed = side * side;

  struct Source {
    const T* values;            // as it reads, seen from pixel 0
    const std::uint8_t* known;  // by pixel; the values of others count as 0; null: all are known
  };
  const Source* sources;
  int source_count;
  int inputs;                         // channels of every source; a multiple of feature_block
  const T* zeros;                     // (inputs)
  std::array<std::int32_t, read> in;  // pixels, seen from a square's listed one; by rows
  std::array<std::int32_t, computed> out;
  const T* weights;  // for each product as those of Convolution, with sources for taps; see winograd_weights
  int outputs;       // a multiple of feature_block
  bool relu;
  const std::uint8_t* wanted;  // by pixel; no others are written; null: all are
};

/// Values of memory for the inputs, or the outputs, of winograd_batch squares while they are transformed.
template <int side>
std::size_t winograd_memory(int channels) {
  return std::size_t((side + 2) * (side + 2)) * std::size_t(winograd_batch * channels + feature_block);
}

template <class T, int side>
using ConvolveSquares = void (*)(const WinogradConvolution<T, side>& layer, const std::int32_t* squares, int n,
                                 T* transformed, float* products, T* out);

/// T is float, uint16_t for bf16, or uint8_t for integers, to which outputs of convolve are rounded.
template <class T>
struct NetworkKernels {
  void (*convolve)(const Convolution<T>& layer, const std::int32_t* pixels, int n, T* out);
  /// The same with the sums as they are, not rounded to T.
  void (*convolve_to_float)(const Convolution<T>& layer, const std::int32_t* pixels, int n, float* out);
  /// Maximum over the 3 x 3 pixels around each listed one; values are not negative; `row` elements from row to row.
  void (*pool)(const T* in, std::ptrdiff_t row, int channels, const std::int32_t* pixels, int n, T* out);
  /// Not of integers: at most winograd_batch squares. See winograd_memory for `transformed`, of all sources, and
  /// `products`.
  ConvolveSquares<T, 3> convolve_3x3 = nullptr;
  ConvolveSquares<T, 4> convolve_4x4 = nullptr;
  /// Of integers only.
  void (*convolve_to_bf16)(const Convolution<T>& layer, const std::int32_t* pixels, int n,
                           std::uint16_t* out) = nullptr;
};

/// What a network makes of the distances along a row, by pixel: factors of the slope and, where bit 0 or bit 1 of the
/// pixel of a depth edge is set, of psi, and what is added to the distance to the left and to the upper neighbour.
struct LearnedRow {
  const float *gain, *fine_barrier, *coarse_barrier, *across, *down;
};

struct Kernels {
  const char* name;
  const CannyKernels<float>* canny_float;
  const CannyKernels<double>* canny_double;

  /// Feedback coefficients of the first iteration towards the left and the upper neighbour:
  /// exp(log_a * (1 + slope * sum_c |row_c[x] - neighbour_c[x]| + psi * (depth[x] != 0))). log_a < 0, `channels` 1
  /// or 3. `above` may be null (first row: coefficients 0), and so may `depth` and `learned`. row[c][-1] must be
  /// readable; vx[0] is 0.
  void (*feedback)(const float* const* row, const float* const* above, int channels, float log_a, float slope,
                   const std::uint8_t* depth, float psi, const LearnedRow* learned, int n, float* vx, float* vy);
  /// Filters `signals` planes (1 to 3) along a line, forward and backward, for `lanes` lines side by side, with the
  /// feedback coefficients `v` squared `squarings` times. Element i of lane k is at [i * stride + k].
  void (*recursive_pass)(const float* v, int squarings, float* const* f, int signals, std::ptrdiff_t stride, int n);
  /// The same for twice as many, and asking for elements ahead: where these lie far apart in memory.
  void (*recursive_pass_twice)(const float* v, int squarings, float* const* f, int signals, std::ptrdiff_t stride,
                               int n);
  /// out[i * lanes + k] = rows[k][i] and back; rows that are null are read as 0 and not written.
  void (*gather_lines)(const float* const* rows, int n, float* out);
  void (*scatter_lines)(const float* in, int n, float* const* rows);

  /// out[p * channels + k] = max(0, u[u_offset[p] + k] + v[v_offset[p] + k]) for the 25 positions p.
  /// bf16 values are the upper halves of floats; sums are rounded to nearest even.
  void (*fuse_float)(const float* u, const float* v, const std::ptrdiff_t* u_offset, const std::ptrdiff_t* v_offset,
                     int channels, float* out);
  void (*fuse_bf16)(const std::uint16_t* u, const std::uint16_t* v, const std::ptrdiff_t* u_offset,
                    const std::ptrdiff_t* v_offset, int channels, std::uint16_t* out);

  /// values[i] = exp(values[i]) / sum of exp(values); n is a multiple of feature_block.
  void (*softmax)(float* values, int n);

  const NetworkKernels<float>* networks_float;
};

/// The variant of that name, or the widest that this CPU runs for "auto". Throws InvalidArgument for an unknown name,
/// BackendUnavailable for one that this CPU or build lacks.
const Kernels& select_kernels(const char* name);

/// The networks in bf16, or null if these kernels or this CPU have no instruction for it.
const NetworkKernels<std::uint16_t>* bf16_networks(const Kernels& kernels);
/// The trunk in integers, or null as above.
const NetworkKernels<std::uint8_t>* int8_networks(const Kernels& kernels);
/// Those of T, which must be there.
template <class T>
const NetworkKernels<T>& network_kernels(const Kernels& kernels) {
  if constexpr (std::is_same_v<T, float>)
    return *kernels.networks_float;
  else if constexpr (std::is_same_v<T, std::uint16_t>)
    return *bf16_networks(kernels);
  else
    return *int8_networks(kernels);
}

}  // namespace defocus_fast
