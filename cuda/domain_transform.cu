// SPDX-License-Identifier: Apache-2.0
// The recursive domain transform and the propagation built on it, as in cpp/src/domain_transform.cpp. A pass is the
// recurrence f[i] = (1 - v[i]) f[i] + v[i] f[i - 1]. A step is an affine map of f[i - 1]; maps compose, so a line is
// filtered by a parallel prefix over its maps: each thread composes the maps of a few steps, prefixes run across
// the block, then each thread repeats its steps from the value that reaches it.
#include <algorithm>

#include "pixels.hpp"
#include "stages.hpp"

namespace defocus_fast::cuda {

namespace {

template <class Pixel>
__global__ void load_channels(ImageView image, float* signal0, float* signal1, float* signal2) {
  int y, x;
  if (!pixel_of_thread(image.height, image.width, y, x)) return;
  const std::ptrdiff_t i = std::ptrdiff_t(y) * image.width + x;
  signal0[i] = unit_value(value_at<Pixel>(image, y, x, 0));
  if (image.channels == 1) return;
  signal1[i] = unit_value(value_at<Pixel>(image, y, x, 1));
  signal2[i] = unit_value(value_at<Pixel>(image, y, x, 2));
}

struct Signals {
  float* of[3];
};

/// 0 where the CPU's exponential is 0, so that both underflow at the same distance from the edges.
__device__ float exp_nonpositive(float x) { return x < -87.0f ? 0.0f : expf(x); }

__global__ void feedback(const __grid_constant__ Signals signals, int channels, int height, int width, float log_a,
                         float slope, const std::uint8_t* depth, float psi, learned::Factors factors, float* vx,
                         float* vy) {
  int y, x;
  if (!pixel_of_thread(height, width, y, x)) return;
  const std::ptrdiff_t i = std::ptrdiff_t(y) * width + x;
  float across = 0, down = 0;
  for (int c = 0; c < channels; ++c) {
    const float* signal = signals.of[c];
    if (x > 0) across += fabsf(signal[i] - signal[i - 1]);
    if (y > 0) down += fabsf(signal[i] - signal[i - width]);
  }
  float distance = depth && depth[i] ? 1.0f + psi : 1.0f, added_across = 0, added_down = 0;
  if (factors.values) {
    slope *= factors.at(learned::gain, y, x);
    if (depth)
      distance = 1.0f + psi * learned::factor_of_barrier(depth[i], factors.at(learned::fine_barrier, y, x),
                                                         factors.at(learned::coarse_barrier, y, x));
    added_across = factors.at(learned::across, y, x);
    added_down = factors.at(learned::down, y, x);
  }
  vx[i] = x > 0 ? exp_nonpositive(log_a * (slope * across + distance + added_across)) : 0.0f;
  vy[i] = y > 0 ? exp_nonpositive(log_a * (slope * down + distance + added_down)) : 0.0f;
}

/// f -> a f + b for each signal; the coefficient is common to all.
template <int count>
struct Map {
  float a;
  float b[count];

  __device__ static Map identity() { return {1, {}}; }
  __device__ void then(float v, const float (&f)[count]) {
    for (int s = 0; s < count; ++s) b[s] = (f[s] - v * f[s]) + v * b[s];
    a *= v;
  }
  __device__ void then(const Map& later) {
    for (int s = 0; s < count; ++s) b[s] = later.a * b[s] + later.b[s];
    a *= later.a;
  }
  __device__ void apply(float (&f)[count]) const {
    for (int s = 0; s < count; ++s) f[s] = a * f[s] + b[s];
  }
};

/// A line as a pass sees it: step p is element p forward and element n - 1 - p backward. The coefficient between
/// elements i - 1 and i belongs to i; there is none at the first step.
struct Line {
  std::ptrdiff_t base, stride;
  int n;
  bool backward;
  __device__ std::ptrdiff_t element(int p) const { return base + (backward ? n - 1 - p : p) * stride; }
  __device__ std::ptrdiff_t coefficient(int p) const { return base + (backward ? n - p : p) * stride; }
};

/// Some consecutive steps of a line, in registers.
template <int count, int steps>
struct Segment {
  float v[steps];
  float f[steps][count];

  /// Iteration i squares the first one's coefficients i times. Steps beyond the end change nothing.
  __device__ Map<count> load(const Line& line, int begin, const float* coefficients, int squarings,
                             const Signals& signals) {
    Map<count> map = Map<count>::identity();
    for (int k = 0; k < steps; ++k) {
      const int p = begin + k;
      v[k] = 0;
      if (p >= line.n) continue;
      if (p > 0) v[k] = coefficients[line.coefficient(p)];
      for (int i = 0; i < squarings; ++i) v[k] *= v[k];
      for (int s = 0; s < count; ++s) f[k][s] = signals.of[s][line.element(p)];
      map.then(v[k], f[k]);
    }
    return map;
  }

  __device__ void run(const Line& line, int begin, float (&last)[count], const Signals& signals) {
    for (int k = 0; k < steps; ++k) {
      const int p = begin + k;
      if (p >= line.n) return;
      for (int s = 0; s < count; ++s) {
        last[s] = (f[k][s] - v[k] * f[k][s]) + v[k] * last[s];
        signals.of[s][line.element(p)] = last[s];
      }
    }
  }
};

// Steps per thread and pass: enough that the prefix is the smaller part of the work, few enough for registers.
// Unmeasured, as all sizes here.
constexpr int row_steps = 4, column_steps = 8;

/// One block per row; blockDim.x is a multiple of 32 up to 256.
template <int count>
__global__ void filter_rows(const float* vx, int squarings, int width, Signals signals) {
  constexpr unsigned all = 0xffffffffu;
  __shared__ Map<count> warp_maps[2][block_size / 32];
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32), warps = int(blockDim.x / 32);
  const int chunk = int(blockDim.x) * row_steps;
  int buffer = 0;  // two: the maps of a chunk are read while the next chunk's are written, one barrier between
  for (int backward = 0; backward < 2; ++backward) {
    const Line line{std::ptrdiff_t(blockIdx.x) * width, 1, width, backward != 0};
    if (backward) __syncthreads();  // rows written forward are read backward by other threads
    float carry[count] = {};
    for (int begin = 0; begin < width; begin += chunk, buffer ^= 1) {
      const int first = begin + int(threadIdx.x) * row_steps;
      Segment<count, row_steps> segment;
      Map<count> prefix = segment.load(line, first, vx, squarings, signals);
      for (int distance = 1; distance < 32; distance *= 2) {
        Map<count> earlier;
        earlier.a = __shfl_up_sync(all, prefix.a, unsigned(distance));
        for (int s = 0; s < count; ++s) earlier.b[s] = __shfl_up_sync(all, prefix.b[s], unsigned(distance));
        if (lane >= distance) {
          earlier.then(prefix);
          prefix = earlier;
        }
      }
      if (lane == 31) warp_maps[buffer][warp] = prefix;
      Map<count> before;  // of the lanes before this one
      before.a = __shfl_up_sync(all, prefix.a, 1);
      for (int s = 0; s < count; ++s) before.b[s] = __shfl_up_sync(all, prefix.b[s], 1);
      __syncthreads();
      float last[count] = {};
      for (int w = 0; w < warps; ++w) {
        if (w == warp)
          for (int s = 0; s < count; ++s) last[s] = carry[s];
        warp_maps[buffer][w].apply(carry);
      }
      if (lane > 0) before.apply(last);
      segment.run(line, first, last, signals);
    }
  }
}

constexpr int columns_per_block = 32;  // a warp reads along a row
constexpr int segments = block_size / columns_per_block;

/// One block per 32 columns, one thread per column and segment.
template <int count>
__global__ void filter_columns(const float* vy, int squarings, int height, int width, Signals signals) {
  __shared__ Map<count> maps[2][segments][columns_per_block];
  const int lane = int(threadIdx.x) % columns_per_block, mine = int(threadIdx.x) / columns_per_block;
  const std::int64_t x = std::int64_t{blockIdx.x} * columns_per_block + lane;
  int buffer = 0;
  for (int backward = 0; backward < 2; ++backward) {
    // Threads beyond the last column have lines without elements: they take part in the barriers.
    const Line line{std::ptrdiff_t(x), width, x < width ? height : 0, backward != 0};
    if (backward) __syncthreads();
    float carry[count] = {};
    for (int begin = 0; begin < height; begin += segments * column_steps, buffer ^= 1) {
      const int first = begin + mine * column_steps;
      Segment<count, column_steps> segment;
      maps[buffer][mine][lane] = segment.load(line, first, vy, squarings, signals);
      __syncthreads();
      float last[count] = {};
      for (int k = 0; k < segments; ++k) {
        if (k == mine)
          for (int s = 0; s < count; ++s) last[s] = carry[s];
        maps[buffer][k][lane].apply(carry);
      }
      segment.run(line, first, last, signals);
    }
  }
}

/// Adds up what the block's threads hold; the sums are in values[.][0], for thread 0.
__device__ void add_up(double (&values)[3][block_size]) {
  for (unsigned half = block_size / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half)
      for (auto& of_threads : values) of_threads[threadIdx.x] += of_threads[threadIdx.x + half];
  }
}

/// `seed_blocks` blocks, whatever the number of pixels, so that the sums have one order.
__global__ void seed_pixels(const __grid_constant__ Octaves octaves, int spread, Labels labels,
                            learned::Factors factors, float* radii, float* weights, float* squares, SeedSums* sums) {
  __shared__ double values[3][block_size];
  double weight_sum = 0, radius_sum = 0, square_sum = 0;
  const int height = octaves.answers[spread].height, width = octaves.answers[spread].width;
  const bool is_learned = factors.values != nullptr;
  for (std::int64_t i = thread_index(); i < std::int64_t{height} * width; i += seed_blocks * block_size) {
    const int at_y = int(i / width), at_x = int(i % width);
    Seed seed{};
    for (int o = 0; o < octaves.count; ++o) {
      const Answers& answers = octaves.answers[o];
      // The edges of those that are put into this pixel.
      const auto add = [&](int own_y, int own_x, Side side) {
        const bool beside = side != Side::here;
        const Range rows = put_into(own_y, height, spread, answers.height, o);
        const Range columns = put_into(own_x, width, spread, answers.width, o);
        for (int y = rows.begin; y < rows.end; ++y)
          for (int x = columns.begin; x < columns.end; ++x) {
            const bool depth = answers.depth_edges[answers.pixel(y, x)] != 0;
            if (beside != is_beside_barrier(depth, o, is_learned)) continue;
            if (!depth && answers.pattern_edges[answers.pixel(y, x)] == 0) continue;
            const std::ptrdiff_t at = answers.question(y, x);
            const float radius = answers.radius[at], radius_std = answers.radius_std[at];
            float weight = edge_weight(labels, depth, answers.depth_probability[at], radius_std, o) *
                           octave_weight(radius, octaves.largest_radius, o, o + 1 == octaves.count);
            if (!(weight > 0)) continue;
            if (is_learned) weight *= factors.at(learned::kind(learned::group(o, spread), side), at_y, at_x);
            const float scale = float(1 << o);
            const Seed of_edge = make_seed(beside ? weight / 4 : weight, scale * radius, scale * radius_std);
            seed = {seed.weight + of_edge.weight, seed.radius + of_edge.radius, seed.square + of_edge.square};
          }
      };
      add(at_y, at_x, Side::here);
      if (!is_beside_barrier(true, o, is_learned)) continue;
      const int aside = beside_barrier(o, spread, is_learned);
      add(at_y, at_x - aside, Side::right);
      add(at_y, at_x + aside, Side::left);
      add(at_y - aside, at_x, Side::below);
      add(at_y + aside, at_x, Side::above);
    }
    weights[i] = seed.weight;
    radii[i] = seed.radius;
    if (squares) squares[i] = seed.square;
    weight_sum += seed.weight;
    radius_sum += seed.radius;
    square_sum += seed.square;
  }
  values[0][threadIdx.x] = weight_sum;
  values[1][threadIdx.x] = radius_sum;
  values[2][threadIdx.x] = square_sum;
  add_up(values);
  if (threadIdx.x == 0) sums[blockIdx.x] = {values[0][0], values[1][0], values[2][0]};
}

/// One block, a thread per block of seed_pixels.
__global__ void average_seeds(const SeedSums* sums, float unknown, Mixture* of_all) {
  static_assert(seed_blocks == block_size);
  __shared__ double values[3][block_size];
  const SeedSums& of_block = sums[threadIdx.x];
  values[0][threadIdx.x] = of_block.weight;
  values[1][threadIdx.x] = of_block.radius;
  values[2][threadIdx.x] = of_block.square;
  add_up(values);
  if (threadIdx.x == 0) *of_all = mixture_of_all(values[0][0], values[1][0], values[2][0], unknown);
}

__device__ float& value_at(const MapView& map, int y, int x) {
  auto* bytes = reinterpret_cast<unsigned char*>(map.data) + y * map.pitch_bytes + x * map.pixel_stride_bytes;
  return *reinterpret_cast<float*>(bytes);
}

__global__ void divide(const float* radii, const float* weights, const float* squares, const Mixture* of_all,
                       float doubt, learned::Factors factors, MapView out, ExpectedError error) {
  int y, x;
  if (!pixel_of_thread(out.height, out.width, y, x)) return;
  const std::ptrdiff_t i = std::ptrdiff_t(y) * out.width + x;
  const bool reached = is_reached(weights[i]);
  const float mean = reached ? radii[i] / weights[i] : of_all->mean;
  value_at(out, y, x) = mean;
  if (!error.out.data) return;
  const float deviation =
      reached ? deviation_at({weights[i], radii[i], squares[i]}, mean, doubt) : deviation_out_of_reach(*of_all);
  const float factor = factors.values ? factors.at(learned::error, y, x) : 1.0f;
  value_at(error.out, y, x) = factor * expected_error(error.floor, error.slope, deviation);
}

__global__ void enlarge_pixels(MapView values, int octave, const Pixel* pad, MapView out) {
  int y, x;
  if (!pixel_of_thread(out.height, out.width, y, x)) return;
  const Between rows = between(y + (pad ? pad->y : 0), octave, values.height),
                columns = between(x + (pad ? pad->x : 0), octave, values.width);
  const auto mean = [&](int column) {
    const float above = value_at(values, rows.before, column), below = value_at(values, rows.after, column);
    return above + rows.share * (below - above);
  };
  const float left = mean(columns.before), right = mean(columns.after);
  value_at(out, y, x) = left + columns.share * (right - left);
}

}  // namespace

void enlarge(const MapView& values, int octave, const Pixel* pad, const MapView& out, Stream stream) {
  launch(enlarge_pixels, blocks_for(std::int64_t{out.height} * out.width), block_size, stream, values, octave, pad,
         out);
}

DomainTransform::DomainTransform(int height, int width, Arena& arena) : height_(height), width_(width) {
  const std::size_t pixels = std::size_t(height) * std::size_t(width);
  for (float** plane : {&vx_, &vy_, &signals_[0], &signals_[1], &signals_[2]}) arena.reserve(*plane, pixels);
  arena.reserve(seed_sums_, seed_blocks);
  arena.reserve(of_all_, 1);
}

void DomainTransform::load(const ImageView& image, Stream stream) {
  for_pixel_type(image, [&](auto pixel) {
    launch(load_channels<decltype(pixel)>, blocks_for(std::int64_t{height_} * width_), block_size, stream, image,
           signals_[0], signals_[1], signals_[2]);
  });
}

void DomainTransform::set_feedback(int channels, double slope, const FilterOptions& options, const std::uint8_t* depth,
                                   double psi, const learned::Factors& factors, Stream stream) {
  launch(feedback, blocks_for(std::int64_t{height_} * width_), block_size, stream,
         Signals{{signals_[0], signals_[1], signals_[2]}}, channels, height_, width_, float(log_feedback(options)),
         float(slope), depth, float(psi), factors, vx_, vy_);
}

void DomainTransform::filter(int count, int iterations, Stream stream) {
  const auto rows = count == 1 ? filter_rows<1> : count == 2 ? filter_rows<2> : filter_rows<3>;
  const auto columns = count == 1 ? filter_columns<1> : count == 2 ? filter_columns<2> : filter_columns<3>;
  // Short rows do not occupy threads that have nothing to do.
  const int row_threads = int(std::min<unsigned>(block_size, 32 * blocks_for(width_, 32 * row_steps)));
  const Signals signals{{signals_[0], signals_[1], signals_[2]}};
  for (int i = 0; i < iterations; ++i) {
    launch(rows, unsigned(height_), row_threads, stream, vx_, i, width_, signals);
    launch(columns, blocks_for(width_, columns_per_block), block_size, stream, vy_, i, height_, width_, signals);
  }
}

void DomainTransform::propagate(const ImageView& image, const Propagation& options, const Octaves& octaves,
                                const std::uint8_t* barriers, LearnedDistances* distances, Labels labels,
                                const MapView& out, const ExpectedError& error, Stream stream) {
  // The guide: the image filtered by itself. |I'| is summed over red, green and blue; a grey image is three equal
  // channels.
  const double channels = image.channels == 1 ? 3 : 1;
  const auto& [octave, guide, spread, psi, doubt] = options;
  load(image, stream);
  set_feedback(image.channels, channels * guide.sigma_s / guide.sigma_r, guide, nullptr, 0, {}, stream);
  filter(image.channels, guide.iterations, stream);
  learned::Factors factors;
  if (distances) factors = distances->factors(octaves, octave, image, barriers, signals_, stream);
  set_feedback(image.channels, channels * spread.sigma_s / spread.sigma_r, spread, barriers, psi, factors, stream);
  // Radii into signal 0, weights into signal 1, squares, if they are wanted, into signal 2.
  launch(seed_pixels, seed_blocks, block_size, stream, octaves, octave, labels, factors, signals_[0], signals_[1],
         error.out.data ? signals_[2] : nullptr, seed_sums_);
  launch(average_seeds, 1, block_size, stream, seed_sums_, error.unknown, of_all_);
  filter(error.out.data ? 3 : 2, spread.iterations, stream);
  launch(divide, blocks_for(std::int64_t{height_} * width_), block_size, stream, signals_[0], signals_[1], signals_[2],
         of_all_, doubt, factors, out, error);
}

}  // namespace defocus_fast::cuda
