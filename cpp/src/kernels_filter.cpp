// SPDX-License-Identifier: Apache-2.0
// Compiled once per instruction set; multiply-adds may be fused here.
#include "kernels_variant.hpp"

namespace defocus_fast::DEFOCUS_FAST_VARIANT {
namespace {

/// exp(x) for x <= 0 within 2 ulp; 0 below the smallest normal number.
inline float exp_nonpositive(float x) {
  const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum's low bits are the rounded quotient
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, Cody and Waite
  float p = 1.9875691500e-4f;                                   // minimax on [-ln 2 / 2, ln 2 / 2] (Cephes expf)
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  std::uint32_t bits, scale;  // they wrap where x is far below -87
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  scale = (bits - 0x4b400000u + 127u) << 23;
  float power;
  __builtin_memcpy(&power, &scale, sizeof power);
  return x < -87.0f ? 0.0f : p * power;
}

inline float absolute(float x) { return __builtin_fabsf(x); }

template <int channels>
void feedback_of(const float* const* row, const float* const* above, float log_a, float slope,
                 const std::uint8_t* depth, float psi, const LearnedRow* learned, int n, float* __restrict vx,
                 float* __restrict vy) {
  const float *here[channels], *up[channels];
  for (int c = 0; c < channels; ++c) {
    here[c] = row[c];
    up[c] = above[c];
  }
  for (int x = 0; x < n; ++x) {
    float across = 0;
    float down = 0;
    for (int c = 0; c < channels; ++c) {
      across += absolute(here[c][x] - here[c][x - 1]);
      down += absolute(here[c][x] - up[c][x]);
    }
    vx[x] = slope * across + 1.0f;
    vy[x] = slope * down + 1.0f;
  }
  if (learned)
    for (int x = 0; x < n; ++x) {
      vx[x] = learned->gain[x] * (vx[x] - 1.0f) + (1.0f + learned->across[x]);
      vy[x] = learned->gain[x] * (vy[x] - 1.0f) + (1.0f + learned->down[x]);
    }
  if (depth && learned) {
    for (int x = 0; x < n; ++x) {
      const float fine = learned->fine_barrier[x] * float(depth[x] & 1),
                  coarse = learned->coarse_barrier[x] * float(depth[x] >> 1);
      const float barrier = psi * (fine > coarse ? fine : coarse);
      vx[x] += barrier;
      vy[x] += barrier;
    }
  } else if (depth) {
    for (int x = 0; x < n; ++x) {
      vx[x] += psi * float(depth[x] != 0);
      vy[x] += psi * float(depth[x] != 0);
    }
  }
  for (int x = 0; x < n; ++x) {
    vx[x] = exp_nonpositive(log_a * vx[x]);
    vy[x] = exp_nonpositive(log_a * vy[x]);
  }
}

void feedback(const float* const* row, const float* const* above, int channels, float log_a, float slope,
              const std::uint8_t* depth, float psi, const LearnedRow* learned, int n, float* vx, float* vy) {
  const auto run = channels == 1 ? feedback_of<1> : feedback_of<3>;
  run(row, above ? above : row, log_a, slope, depth, psi, learned, n, vx, vy);
  if (!above)
    for (int x = 0; x < n; ++x) vy[x] = 0;
  vx[0] = 0;
}

/// Vectors are spelled out: of loops over 16 numbers GCC 12 makes code that takes several times as long.
template <int signals, int vectors, int ahead>
void recursive_pass_of(const float* v, int squarings, float* const* f, std::ptrdiff_t stride, int n) {
  constexpr int lines = vectors * vector_floats, cache_line = 16;
  // (1 - v) * f does not wait for the previous element, so the recurrence is one multiply-add deep.
  Floats last[signals][vectors], vi[vectors];
  const auto step = [&](int i, int at, int next) {
    // In here, since GCC drops calls of functions that do nothing but this.
    if (ahead != 0 && next >= 0 && next < n)
      for (int k = 0; k < lines; k += cache_line) {
        __builtin_prefetch(v + next * stride + k, 0, 2);
        for (int s = 0; s < signals; ++s) __builtin_prefetch(f[s] + next * stride + k, 0, 2);
      }
    // Squared here rather than in memory: reading and writing it back would cost more.
    for (int k = 0; k < vectors; ++k) vi[k] = *reinterpret_cast<const Floats*>(v + at * stride + k * vector_floats);
    for (int s = 0; s < squarings; ++s)
      for (int k = 0; k < vectors; ++k) vi[k] *= vi[k];
    for (int s = 0; s < signals; ++s)
      for (int k = 0; k < vectors; ++k) {
        Floats& fi = *reinterpret_cast<Floats*>(f[s] + i * stride + k * vector_floats);
        fi = last[s][k] = (fi - vi[k] * fi) + vi[k] * last[s][k];
      }
  };
  for (int s = 0; s < signals; ++s)
    for (int k = 0; k < vectors; ++k) last[s][k] = *reinterpret_cast<const Floats*>(f[s] + k * vector_floats);
  for (int i = 1; i < n; ++i) step(i, i, i + ahead);
  for (int i = n - 2; i >= 0; --i) step(i, i + 1, i - ahead);
}

template <int lines, int ahead>
void recursive_pass(const float* v, int squarings, float* const* f, int signals, std::ptrdiff_t stride, int n) {
  constexpr int vectors = lines / vector_floats;
  const auto run = signals == 1   ? recursive_pass_of<1, vectors, ahead>
                   : signals == 2 ? recursive_pass_of<2, vectors, ahead>
                                  : recursive_pass_of<3, vectors, ahead>;
  run(v, squarings, f, stride, n);
}

/// Lines are transposed in squares of so many: as a register holds, but for those that cost more than they save.
constexpr int square = vector_floats < 8 ? vector_floats : 8;
using Row __attribute__((vector_size(square * sizeof(float)), aligned(4), may_alias)) = float;

/// Transposes a square of values: pairs, then pairs of pairs, then halves.
template <int side>
inline void transpose(Row (&r)[side]) {
  Row t[side];
  if constexpr (side == 4) {
    for (int i = 0; i < 4; i += 2) {
      t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 4, 2, 6);
      t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 1, 5, 3, 7);
    }
    for (int i = 0; i < 2; ++i) {
      r[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 4, 5);
      r[i + 2] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 6, 7);
    }
  } else {
    Row u[side];
    for (int i = 0; i < 8; i += 2) {
      t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
      t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
      for (int k = 0; k < 2; ++k) {
        u[i + 2 * k] = __builtin_shufflevector(t[i + k], t[i + k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        u[i + 2 * k + 1] = __builtin_shufflevector(t[i + k], t[i + k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
      }
    for (int i = 0; i < 4; ++i) {
      r[i] = __builtin_shufflevector(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
      r[i + 4] = __builtin_shufflevector(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
  }
}

void gather_lines(const float* const* rows, int n, float* out) {
  int i = 0;
  for (; i + square <= n; i += square)
    for (int k = 0; k < lanes; k += square) {
      Row tile[square];
      if (i % 16 == 0)  // a cache line; so many rows at once are more than the processor foresees
        for (int j = 0; j < square; ++j)
          if (rows[k + j] && i + 64 < n) __builtin_prefetch(rows[k + j] + i + 64, 0, 2);
      for (int j = 0; j < square; ++j) tile[j] = rows[k + j] ? *reinterpret_cast<const Row*>(rows[k + j] + i) : Row{};
      transpose(tile);
      for (int j = 0; j < square; ++j) *reinterpret_cast<Row*>(out + (i + j) * lanes + k) = tile[j];
    }
  for (; i < n; ++i)
    for (int k = 0; k < lanes; ++k) out[i * lanes + k] = rows[k] ? rows[k][i] : 0.0f;
}

void scatter_lines(const float* in, int n, float* const* rows) {
  int i = 0;
  for (; i + square <= n; i += square)
    for (int k = 0; k < lanes; k += square) {
      Row tile[square];
      for (int j = 0; j < square; ++j) tile[j] = *reinterpret_cast<const Row*>(in + (i + j) * lanes + k);
      transpose(tile);
      for (int j = 0; j < square; ++j)
        if (rows[k + j]) *reinterpret_cast<Row*>(rows[k + j] + i) = tile[j];
    }
  for (; i < n; ++i)
    for (int k = 0; k < lanes; ++k)
      if (rows[k]) rows[k][i] = in[i * lanes + k];
}

constexpr int positions = 25;

inline float widen(float x) { return x; }
inline float widen(std::uint16_t x) {
  const std::uint32_t bits = std::uint32_t(x) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

inline void narrow(float value, float& out) { out = value; }
inline void narrow(float value, std::uint16_t& out) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  out = std::uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <class T>
void fuse(const T* u, const T* v, const std::ptrdiff_t* u_offset, const std::ptrdiff_t* v_offset, int channels,
          T* out) {
  for (int p = 0; p < positions; ++p) {
    const T* up = u + u_offset[p];
    const T* vp = v + v_offset[p];
    for (int k = 0; k < channels; ++k) {
      const float sum = widen(up[k]) + widen(vp[k]);
      narrow(sum > 0 ? sum : 0, out[p * channels + k]);
    }
  }
}

void softmax(float* values, int n) {
  float most = values[0];
  for (int i = 1; i < n; ++i) most = values[i] > most ? values[i] : most;
  float sum = 0;
  for (int i = 0; i < n; ++i) values[i] = exp_nonpositive(values[i] - most);
  for (int i = 0; i < n; ++i) sum += values[i];
  for (int i = 0; i < n; ++i) values[i] /= sum;
}

#define DEFOCUS_FAST_QUOTE_(x) #x
#define DEFOCUS_FAST_QUOTE(x) DEFOCUS_FAST_QUOTE_(x)

}  // namespace

// Addresses only: constants need no code at load time, which would run these instructions on any CPU.
extern constinit const Kernels kernels{DEFOCUS_FAST_QUOTE(DEFOCUS_FAST_VARIANT),
                                       &canny_float,
                                       &canny_double,
                                       feedback,
                                       recursive_pass<lanes, 0>,
                                       recursive_pass<2 * lanes, 16>,
                                       gather_lines,
                                       scatter_lines,
                                       fuse<float>,
                                       fuse<std::uint16_t>,
                                       softmax,
                                       &networks_float};

}  // namespace defocus_fast::DEFOCUS_FAST_VARIANT
