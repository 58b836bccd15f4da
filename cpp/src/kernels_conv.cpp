// SPDX-License-Identifier: Apache-2.0
// Convolutions and pooling at listed pixels. Compiled once per instruction set; multiply-adds are fused. Every sum runs
// over taps and channels in the same order, so that its bits do not depend on which pixels stand beside it in the list.
#include "kernels_variant.hpp"

// What is narrower than float is multiplied and added in pairs or fours, by instructions that GCC has no vector type
// for.
#if defined(__AVX512BF16__) || defined(__AVX512VNNI__)
#define DEFOCUS_FAST_NARROW
#include <immintrin.h>
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define DEFOCUS_FAST_NARROW
#include <arm_neon.h>
#endif
#if defined(DEFOCUS_FAST_NARROW) && !defined(__AVX512VNNI__)
#define DEFOCUS_FAST_BF16
#endif

namespace defocus_fast::DEFOCUS_FAST_VARIANT {
namespace {

#if defined(__AVX512F__)
constexpr int tile_sums = 24, tile_blocks = 4;  // and 4 weights, 1 value: 29 of 32 registers
#elif defined(__AVX2__)
constexpr int tile_sums = 12, tile_blocks = 2;  // and 1 weight, 3 values: 16 of 16 registers
#elif defined(__aarch64__)
constexpr int tile_sums = 24, tile_blocks = 1;  // and 4 weights, 1 value: 29 of 32 registers
#else
constexpr int tile_sums = 12, tile_blocks = 1;
#endif

constexpr int vectors_per_block = feature_block / vector_floats;

/// The fewer outputs share a value, the more pixels share a weight.
constexpr int tile_pixels(int blocks) {
  const int pixels = tile_sums / (blocks * vectors_per_block);
  return pixels < 8 ? pixels : 8;
}

#ifndef __AVX512VNNI__
template <int pixels, int blocks>
void convolve_tile(const Convolution<float>& layer, int first_block, const std::int32_t* at, float* out) {
  constexpr int vectors = blocks * vectors_per_block;
  Floats sum[pixels][vectors] = {};
  if (layer.bias)
    for (int p = 0; p < pixels; ++p)
      for (int v = 0; v < vectors; ++v)
        sum[p][v] = *reinterpret_cast<const Floats*>(layer.bias + first_block * feature_block + v * vector_floats);
  const std::ptrdiff_t block_size = std::ptrdiff_t(layer.tap_count) * layer.inputs * feature_block;
  const float* weights = layer.weights + first_block * block_size;
  for (int t = 0; t < layer.tap_count; ++t) {
    const float* in[pixels];
    for (int p = 0; p < pixels; ++p) in[p] = layer.taps[t] + at[p] * layer.pitch;
    for (int c = 0; c < layer.inputs; ++c, weights += feature_block) {
      Floats w[vectors];
      for (int v = 0; v < vectors; ++v)
        w[v] = *reinterpret_cast<const Floats*>(weights + v / vectors_per_block * block_size +
                                                v % vectors_per_block * vector_floats);
      for (int p = 0; p < pixels; ++p)
        for (int v = 0; v < vectors; ++v) sum[p][v] += in[p][c] * w[v];
    }
  }
  for (int p = 0; p < pixels; ++p)
    for (int v = 0; v < vectors; ++v) {
      Floats value = sum[p][v];
      if (layer.relu) value = value > 0 ? value : Floats{};
      *reinterpret_cast<Floats*>(out + std::ptrdiff_t(at[p]) * layer.outputs + first_block * feature_block +
                                 v * vector_floats) = value;
    }
}
#endif

#ifdef DEFOCUS_FAST_NARROW
using Bits = std::uint32_t __attribute__((vector_size(sizeof(Floats))));

// A Group is group<Value> values of a pixel, for every output; Weights are what as many outputs as there are floats in
// a vector multiply them by.
#if defined(__AVX512F__)
using Group = __m512i;
using Weights = __m512i;
template <class Value>
inline Group load_group(const Value* in) {
  int few;
  __builtin_memcpy(&few, in, sizeof few);
  return _mm512_set1_epi32(few);
}
template <class Weight>
inline Weights load_weights(const Weight* weights) {
  return _mm512_loadu_si512(weights);
}
#endif

#if defined(__AVX512BF16__)
using Value = std::uint16_t;
using Sum = Floats;
inline Sum add_products(Sum sum, Group values, Weights weights) {
  return _mm512_dpbf16_ps(sum, __m512bh(values), __m512bh(weights));
}
inline void store(Floats values, std::uint16_t* out) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), __m256i(_mm512_cvtneps_pbh(values)));
}
#elif defined(DEFOCUS_FAST_BF16)
using Value = std::uint16_t;
using Sum = Floats;
using Group = bfloat16x4_t;
using Weights = bfloat16x8_t;
inline Group load_group(const Value* in) {
  float pair;
  __builtin_memcpy(&pair, in, sizeof pair);
  return vreinterpret_bf16_f32(float32x2_t{pair, 0});
}
inline Weights load_weights(const Value* weights) { return vreinterpretq_bf16_u16(vld1q_u16(weights)); }
inline Sum add_products(Sum sum, Group values, Weights weights) { return vbfdotq_lane_f32(sum, weights, values, 0); }
inline void store(Floats values, std::uint16_t* out) { vst1_u16(out, vreinterpret_u16_bf16(vcvt_bf16_f32(values))); }
#else
using Value = std::uint8_t;
using Sum = int __attribute__((vector_size(64)));
inline Sum start(const Convolution<Value>&, int) { return Sum{}; }
inline Sum add_products(Sum sum, Group values, Weights weights) {
  return Sum(_mm512_dpbusd_epi32(__m512i(sum), values, weights));
}
inline Floats finish(Sum sum, const Convolution<Value>& layer, int output) {
  return __builtin_convertvector(sum, Floats) * *reinterpret_cast<const Floats*>(layer.scales + output);
}
inline void store(Floats values, std::uint8_t* out) {
  const __m512i integers = _mm512_maskz_cvtps_epi32(0xffff, values);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_maskz_cvtusepi32_epi8(0xffff, integers));
}
inline void store(Floats values, std::uint16_t* out) {  // the nearest bf16, ties to even
  const Bits bits = Bits(values);
  const Bits rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_maskz_cvtepi32_epi16(0xffff, __m512i(rounded)));
}
#endif
#ifdef DEFOCUS_FAST_BF16
inline Sum start(const Convolution<Value>& layer, int output) {
  return layer.bias ? *reinterpret_cast<const Floats*>(layer.bias + output) : Floats{};
}
inline Floats finish(Sum sum, const Convolution<Value>&, int) { return sum; }
#endif
inline void store(Floats values, float* out) { *reinterpret_cast<Floats*>(out) = values; }

template <int pixels, int blocks, class Out>
void convolve_tile(const Convolution<Value>& layer, int first_block, const std::int32_t* at, Out* out) {
  constexpr int vectors = blocks * vectors_per_block;
  const int first_output = first_block * feature_block;
  Sum sum[pixels][vectors];
#pragma GCC unroll 8
  for (int p = 0; p < pixels; ++p)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sum[p][v] = start(layer, first_output + v * vector_floats);
  const std::ptrdiff_t block_size = std::ptrdiff_t(layer.tap_count) * layer.inputs * feature_block;
  const Weight<Value>* weights = layer.weights + first_block * block_size;
  for (int t = 0; t < layer.tap_count; ++t) {
    const Value* in[pixels];
#pragma GCC unroll 8
    for (int p = 0; p < pixels; ++p) in[p] = layer.taps[t] + at[p] * layer.pitch;
    for (int c = 0; c < layer.inputs; c += group<Value>, weights += group<Value> * feature_block) {
      Weights w[vectors];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v)
        w[v] = load_weights(weights + v / vectors_per_block * block_size +
                            v % vectors_per_block * vector_floats * group<Value>);
#pragma GCC unroll 8
      for (int p = 0; p < pixels; ++p) {
        const Group values = load_group(in[p] + c);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sum[p][v] = add_products(sum[p][v], values, w[v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < pixels; ++p)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const int output = first_output + v * vector_floats;
      Floats value = finish(sum[p][v], layer, output);
      if (layer.relu) value = value > 0 ? value : Floats{};  // _mm512_max_ps warns in GCC 12
      store(value, out + std::ptrdiff_t(at[p]) * layer.outputs + output);
    }
}
#endif

/// Some blocks of outputs at all pixels.
template <int count, class T, class Out>
void convolve_blocks(const Convolution<T>& layer, int first, const std::int32_t* at, int n, Out* out) {
  constexpr int pixels = tile_pixels(count);
  int i = 0;
  for (; i + pixels <= n; i += pixels) convolve_tile<pixels, count>(layer, first, at + i, out);
  for (; i < n; ++i) convolve_tile<1, count>(layer, first, at + i, out);
}

template <class T, class Out>
void convolve(const Convolution<T>& layer, const std::int32_t* at, int n, Out* out) {
  const int blocks = layer.outputs / feature_block;
  int block = 0;
  for (; block + tile_blocks <= blocks; block += tile_blocks) convolve_blocks<tile_blocks>(layer, block, at, n, out);
  if constexpr (tile_blocks > 3)
    if (block + 3 == blocks) return convolve_blocks<3>(layer, block, at, n, out);
  if constexpr (tile_blocks > 2)
    if (block + 2 == blocks) return convolve_blocks<2>(layer, block, at, n, out);
  if (block < blocks) convolve_blocks<1>(layer, block, at, n, out);
}

/// As much of a block as a register holds: GCC compares and selects in longer vectors element by element.
template <class T>
struct Block {
  static constexpr int size = sizeof(T) * feature_block < sizeof(Floats) ? feature_block : sizeof(Floats) / sizeof(T);
  using type __attribute__((vector_size(size * sizeof(T)), aligned(alignof(T)), may_alias)) = T;
};

/// bf16 features after ReLU are not negative, and such numbers are ordered as their bits are.
template <class T>
void pool(const T* in, std::ptrdiff_t row, int channels, const std::int32_t* at, int n, T* out) {
  using Values = typename Block<T>::type;
  for (int i = 0; i < n; ++i)
    for (int k = 0; k < channels; k += Block<T>::size) {
      const T* centre = in + std::ptrdiff_t(at[i]) * channels + k;
      Values most = *reinterpret_cast<const Values*>(centre);
      for (std::ptrdiff_t dy = -1; dy <= 1; ++dy)
        for (std::ptrdiff_t dx = -1; dx <= 1; ++dx) {
          const Values other = *reinterpret_cast<const Values*>(centre + dy * row + dx * channels);
          most = most < other ? other : most;
        }
      *reinterpret_cast<Values*>(out + std::ptrdiff_t(at[i]) * channels + k) = most;
    }
}

#ifndef __AVX512VNNI__
inline Floats load_floats(const float* in) { return *reinterpret_cast<const Floats*>(in); }
#ifdef DEFOCUS_FAST_BF16
inline Floats load_floats(const std::uint16_t* in) {
#ifdef __aarch64__
  return Floats(vshll_n_u16(vld1_u16(in), 16));
#else
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in));
  return Floats(__m512i(Bits(_mm512_maskz_cvtepu16_epi32(0xffff, halves)) << 16));
#endif
}
inline void store_floats(Floats values, std::uint16_t* out) { store(values, out); }
#else
inline void store_floats(Floats values, float* out) { *reinterpret_cast<Floats*>(out) = values; }
#endif

// Winograd's transforms for points (see winograd_weights) that keep rounding small.
constexpr float a = 0.70710678f, b = 1.41421356f;

/// Of side + 2 inputs, `step` apart, as many products.
template <int side>
inline void transform_inputs(const Floats* x, int step, Floats* y) {
  const Floats x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step], x4 = x[4 * step];
  if constexpr (side == 3) {
    const Floats even_a = 0.5f * x2 - 1.125f * x0, odd_a = x3 - 2.25f * x1;
    const Floats even_b = 1.5f * x2 - 0.375f * x0, odd_b = x3 - 0.25f * x1;
    y[0] = odd_a + even_a;
    y[step] = odd_a - even_a;
    y[2 * step] = odd_b + even_b;
    y[3 * step] = odd_b - even_b;
    y[4 * step] = 0.5625f * x0 - 2.5f * x2 + x4;
  } else {
    const Floats x5 = x[5 * step];
    const Floats even_a = x4 - 2.0f * x2, odd_a = a * x3 - b * x1, even_b = x4 - 0.5f * x2, odd_b = b * x3 - a * x1;
    y[0] = x0 - 2.5f * x2 + x4;
    y[step] = even_a + odd_a;
    y[2 * step] = even_a - odd_a;
    y[3 * step] = even_b + odd_b;
    y[4 * step] = even_b - odd_b;
    y[5 * step] = x1 - 2.5f * x3 + x5;
  }
}

/// Of side + 2 products `side` outputs, `step` apart.
template <int side>
inline void transform_outputs(const Floats* m, Floats* y, int step) {
  if constexpr (side == 3) {
    const Floats sum_a = m[0] + m[1], difference_a = m[0] - m[1], sum_b = m[2] + m[3], difference_b = m[2] - m[3];
    y[0] = sum_a + sum_b;
    y[step] = 0.5f * difference_a + 1.5f * difference_b;
    y[2 * step] = 0.25f * sum_a + 2.25f * sum_b + m[4];
  } else {
    const Floats sum_a = m[1] + m[2], difference_a = m[1] - m[2], sum_b = m[3] + m[4], difference_b = m[3] - m[4];
    y[0] = m[0] + sum_a + sum_b;
    y[step] = a * difference_a + b * difference_b;
    y[2 * step] = 0.5f * sum_a + 2.0f * sum_b;
    y[3 * step] = a * a * a * difference_a + b * b * b * difference_b + m[5];
  }
}

template <class T, int side>
void convolve_squares(const WinogradConvolution<T, side>& layer, const std::int32_t* squares, int n, T* transformed,
                      float* products, T* out) {
  constexpr int wide = side + 2, kinds = wide * wide;
  // Products of one kind stand together; their distance is no multiple of many cache lines.
  const std::ptrdiff_t inputs = std::ptrdiff_t(layer.source_count) * layer.inputs;
  const std::ptrdiff_t in_pitch = n * inputs + feature_block,
                       out_pitch = n * std::ptrdiff_t(layer.outputs) + feature_block;

  for (int i = 0; i < n; ++i)
    for (int s = 0; s < layer.source_count; ++s) {
      const auto& source = layer.sources[s];
      const T* in[kinds];
      for (int k = 0; k < kinds; ++k) {
        const std::ptrdiff_t pixel = squares[i] + layer.in[std::size_t(k)];
        in[k] = !source.known || source.known[pixel] ? source.values + pixel * layer.inputs : layer.zeros;
      }
      for (int c = 0; c < layer.inputs; c += vector_floats) {
        Floats x[kinds];
#pragma GCC unroll 6
        for (int column = 0; column < wide; ++column) {
#pragma GCC unroll 6
          for (int row = 0; row < wide; ++row) x[wide * row + column] = load_floats(in[wide * row + column] + c);
          transform_inputs<side>(x + column, wide, x + column);
        }
        T* to = transformed + i * inputs + s * layer.inputs + c;
#pragma GCC unroll 6
        for (int row = 0; row < wide; ++row) {
          Floats y[wide];
          transform_inputs<side>(x + wide * row, 1, y);
#pragma GCC unroll 6
          for (int column = 0; column < wide; ++column) store_floats(y[column], to + (wide * row + column) * in_pitch);
        }
      }
    }

  std::int32_t at[winograd_batch];
  for (int i = 0; i < n; ++i) at[i] = i;
  for (int k = 0; k < kinds; ++k) {
    const T* taps[4];
    for (int s = 0; s < layer.source_count; ++s) taps[s] = transformed + k * in_pitch + s * layer.inputs;
    const Convolution<T> product{
        taps,    layer.source_count, layer.inputs, inputs, layer.weights + k * inputs * layer.outputs,
        nullptr, layer.outputs,      false};
    convolve(product, at, n, products + k * out_pitch);
  }

  for (int i = 0; i < n; ++i)
    for (int c = 0; c < layer.outputs; c += vector_floats) {
      const float* from = products + i * std::ptrdiff_t(layer.outputs) + c;
      Floats y[side * wide];
#pragma GCC unroll 6
      for (int column = 0; column < wide; ++column) {
        Floats m[wide];
#pragma GCC unroll 6
        for (int row = 0; row < wide; ++row) m[row] = load_floats(from + (wide * row + column) * out_pitch);
        transform_outputs<side>(m, y + column, wide);
      }
#pragma GCC unroll 4
      for (int row = 0; row < side; ++row) {
        Floats z[side];
        transform_outputs<side>(y + wide * row, z, 1);
#pragma GCC unroll 4
        for (int column = 0; column < side; ++column) {
          const std::ptrdiff_t pixel = squares[i] + layer.out[std::size_t(side * row + column)];
          Floats value = z[column];
          if (layer.relu) value = value > 0 ? value : Floats{};
          if (!layer.wanted || layer.wanted[pixel]) store_floats(value, out + pixel * layer.outputs + c);
        }
      }
    }
}
#endif

}  // namespace

#if defined(DEFOCUS_FAST_BF16)
extern constinit const NetworkKernels<std::uint16_t> networks_bf16{
    convolve<std::uint16_t, std::uint16_t>, convolve<std::uint16_t, float>, pool<std::uint16_t>,
    convolve_squares<std::uint16_t, 3>, convolve_squares<std::uint16_t, 4>};
#elif defined(__AVX512VNNI__)
extern constinit const NetworkKernels<std::uint8_t> networks_int8{
    .convolve = convolve<std::uint8_t, std::uint8_t>,
    .convolve_to_float = convolve<std::uint8_t, float>,
    .pool = pool<std::uint8_t>,
    .convolve_to_bf16 = convolve<std::uint8_t, std::uint16_t>};
#else
extern constinit const NetworkKernels<float> networks_float{convolve<float, float>, convolve<float, float>, pool<float>,
                                                            convolve_squares<float, 3>, convolve_squares<float, 4>};
#endif

}  // namespace defocus_fast::DEFOCUS_FAST_VARIANT
