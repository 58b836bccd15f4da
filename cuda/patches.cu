// SPDX-License-Identifier: Apache-2.0
// From the picture and the features to the networks' inputs, as in cpp/src/patches.cpp, and from their outputs to the
// edges, as in Estimator::Impl. Compiled with -fmad=false: the sums of estimate() equal the CPU's.
#include "compaction.hpp"
#include "pixels.hpp"

namespace defocus_fast::cuda {

namespace {

constexpr int margin = 20;  // px that a patch reaches beyond its centre
constexpr int halo = 6;     // px around the tile in which features are computed
constexpr int positions = 25;

struct InTile {
  EdgeList edges;
  int y0, x0, height, width;
  const float* depth_probability;
  double depth_threshold;
  __device__ bool operator()(std::int64_t i) const {
    if (i >= edges.count->kept) return false;
    const int y = edges.edges[2 * i] - y0, x = edges.edges[2 * i + 1] - x0;
    return y >= 0 && y < height && x >= 0 && x < width &&
           !(depth_probability && double(depth_probability[i]) > depth_threshold);
  }
};

struct WriteIndex {
  std::int32_t* indices;
  __device__ void operator()(int position, std::int64_t i) const { indices[position] = std::int32_t(i); }
};

/// Rows [first, first + batch) of a selection; row k of a network's batch belongs to edge(k).
struct Batch {
  Selection selection;
  int first, size;
  __device__ bool has(std::int64_t k) const { return k < size && first + k < selection.count->kept; }
  __device__ std::int32_t edge(std::int64_t k) const { return selection.indices[first + k]; }
};

template <class Pixel>
__device__ void copy_pixel(const ImageView& image, int y, int x, float* out) {
  y = reflect(y, image.height);
  x = reflect(x, image.width);
  for (int c = 0; c < 3; ++c) out[c] = unit_value(value_at<Pixel>(image, y, x, image.channels == 1 ? 0 : c));
}

template <class Pixel>
__global__ void copy_tile(ImageView image, int y0, int x0, int height, int width, float* tile) {
  int y, x;
  if (pixel_of_thread(height, width, y, x))
    copy_pixel<Pixel>(image, y0 + y, x0 + x, tile + (std::ptrdiff_t(y) * width + x) * 3);
}

/// One block per edge.
template <class Pixel>
__global__ void copy_patches(ImageView image, EdgeList edges, Batch batch, int crop_offset, float* large, float* medium,
                             float* small) {
  const int k = int(blockIdx.x);
  if (!batch.has(k)) return;
  const std::int32_t edge = batch.edge(k);
  const int y = edges.edges[2 * std::ptrdiff_t(edge)], x = edges.edges[2 * std::ptrdiff_t(edge) + 1];
  const auto copy = [&](int n, int offset, float* crops) {
    float* crop = crops + std::ptrdiff_t(k) * n * n * 3;
    for (int i = int(threadIdx.x); i < n * n; i += block_size)
      copy_pixel<Pixel>(image, y - n / 2 + offset + i / n, x - n / 2 + offset + i % n, crop + 3 * i);
  };
  copy(41, 0, large);
  copy(27, crop_offset, medium);
  copy(15, crop_offset, small);
}

__device__ void store(float value, float* out) { *out = value; }
__device__ void store(float value, __half* out) { *out = __float2half_rn(value); }
__device__ float widen(float value) { return value; }
__device__ float widen(__half value) { return __half2float(value); }

/// One block per edge; neighbouring threads read neighbouring channels.
template <class Value>
__global__ void fuse(const Value* u, const Value* v, int pitch, int channels, int y0, int x0, EdgeList edges,
                     Batch batch, Value* out) {
  const int k = int(blockIdx.x);
  if (!batch.has(k)) return;
  const std::int32_t edge = batch.edge(k);
  const int y = edges.edges[2 * std::ptrdiff_t(edge)] - y0 + halo;
  const int x = edges.edges[2 * std::ptrdiff_t(edge) + 1] - x0 + halo;
  out += std::ptrdiff_t(k) * positions * channels;
  for (int i = int(threadIdx.x); i < positions * channels; i += block_size) {
    const int position = i / channels, channel = i % channels;
    const int dy = position / 5 - 2, dx = position % 5 - 2;
    const std::ptrdiff_t at_u = std::ptrdiff_t(y + 3 * dy) * pitch + x + 3 * dx;
    const std::ptrdiff_t at_v = std::ptrdiff_t(y + dy) * pitch + x + dx;
    const float sum = widen(u[at_u * channels + channel]) + widen(v[at_v * channels + channel]);
    store(sum > 0 ? sum : 0.0f, out + i);
  }
}

template <class Value>
void launch_fuse(const Features& features, int y0, int x0, const EdgeList& edges, const Batch& batch, void* out,
                 Stream stream) {
  launch(fuse<Value>, unsigned(batch.size), block_size, stream, static_cast<const Value*>(features.u),
         static_cast<const Value*>(features.v), features.tile_width + 2 * halo, features.channels, y0, x0, edges, batch,
         static_cast<Value*>(out));
}

__global__ void split_edges(const float* probabilities, int width, double depth_threshold, EdgeList edges, Batch batch,
                            Answers answers) {
  const std::int64_t k = thread_index();
  if (!batch.has(k)) return;
  const std::ptrdiff_t edge = batch.edge(k);
  const float depth = probabilities[2 * k + 1];
  answers.depth_probability[edge] = depth;
  if (double(depth) > depth_threshold) {
    const std::ptrdiff_t at = std::ptrdiff_t(edges.edges[2 * edge]) * width + edges.edges[2 * edge + 1];
    answers.pattern_edges[at] = 0;
    answers.depth_edges[at] = 1;
  }
}

struct Levels {
  int count;
  float radii[64];  // px
};

__global__ void read_levels(const float* probabilities, const __grid_constant__ Levels levels, Labels labels,
                            Batch batch, Answers answers) {
  const std::int64_t k = thread_index();
  if (!batch.has(k)) return;
  const std::ptrdiff_t edge = batch.edge(k);
  const float* row = probabilities + k * levels.count;
  int best = 0;
  double mean = 0, square = 0;
  for (int i = 0; i < levels.count; ++i) {
    const float probability = row[i];
    if (row[best] < probability) best = i;  // the first of equals
    mean += double(probability) * levels.radii[i];
    square += double(probability) * levels.radii[i] * levels.radii[i];
    if (answers.level_probabilities) answers.level_probabilities[edge * levels.count + i] = probability;
  }
  const double variance = square - mean * mean;
  answers.radii[edge] = labels == Labels::hard ? levels.radii[best] : float(mean);
  answers.radius_deviation[edge] = float(sqrt(variance > 0 ? variance : 0.0));
  answers.radius_probability[edge] = row[best];
}

}  // namespace

TileSelector::TileSelector(std::int32_t edge_capacity, std::int32_t tile_capacity, Arena& arena) {
  selection_.capacity = tile_capacity;
  arena.reserve(counts_, blocks_for(edge_capacity));
  arena.reserve(selection_.indices, std::size_t(tile_capacity));
  arena.reserve(selection_.count, 1);
}

void TileSelector::select_edges(const EdgeList& edges, int y0, int x0, int tile_height, int tile_width,
                                const float* depth_probability, double depth_threshold, Stream stream) {
  compact(InTile{edges, y0, x0, tile_height, tile_width, depth_probability, depth_threshold},
          WriteIndex{selection_.indices}, edges.capacity, selection_.capacity, counts_, selection_.count, stream);
}

void clear_answers(const std::uint8_t* mask, int height, int width, const EdgeList& edges, int levels,
                   const Answers& answers, Stream stream) {
  const std::size_t pixels = std::size_t(height) * std::size_t(width), count = std::size_t(edges.capacity);
  for (float* values : {answers.depth_probability, answers.radii, answers.radius_deviation, answers.radius_probability})
    check(cudaMemsetAsync(values, 0, count * sizeof(float), stream), "cudaMemsetAsync");
  if (answers.level_probabilities)
    check(cudaMemsetAsync(answers.level_probabilities, 0, count * std::size_t(levels) * sizeof(float), stream),
          "cudaMemsetAsync");
  check(cudaMemsetAsync(answers.depth_edges, 0, pixels, stream), "cudaMemsetAsync");
  if (mask != answers.pattern_edges)
    check(cudaMemcpyAsync(answers.pattern_edges, mask, pixels, cudaMemcpyDeviceToDevice, stream), "cudaMemcpyAsync");
}

void extract_tile(const ImageView& image, int y0, int x0, int tile_height, int tile_width, float* tile, Stream stream) {
  const int height = tile_height + 2 * margin, width = tile_width + 2 * margin;
  for_pixel_type(image, [&](auto pixel) {
    launch(copy_tile<decltype(pixel)>, blocks_for(std::int64_t{height} * width), block_size, stream, image, y0 - margin,
           x0 - margin, height, width, tile);
  });
}

void extract_patches(const ImageView& image, const EdgeList& edges, const Selection& selection, int first, int batch,
                     int crop_offset, const std::array<float*, 3>& crops, Stream stream) {
  for_pixel_type(image, [&](auto pixel) {
    launch(copy_patches<decltype(pixel)>, unsigned(batch), block_size, stream, image, edges,
           Batch{selection, first, batch}, crop_offset, crops[0], crops[1], crops[2]);
  });
}

void fuse_float(const Features& features, int y0, int x0, const EdgeList& edges, const Selection& selection, int first,
                int batch, float* out, Stream stream) {
  launch_fuse<float>(features, y0, x0, edges, {selection, first, batch}, out, stream);
}

void fuse_half(const Features& features, int y0, int x0, const EdgeList& edges, const Selection& selection, int first,
               int batch, void* out, Stream stream) {
  launch_fuse<__half>(features, y0, x0, edges, {selection, first, batch}, out, stream);
}

void classify(const float* probabilities, int width, double depth_threshold, const EdgeList& edges,
              const Selection& selection, int first, int batch, const Answers& answers, Stream stream) {
  launch(split_edges, blocks_for(batch), block_size, stream, probabilities, width, depth_threshold, edges,
         Batch{selection, first, batch}, answers);
}

void estimate(const float* probabilities, const std::vector<float>& levels, Labels labels, const Selection& selection,
              int first, int batch, const Answers& answers, Stream stream) {
  Levels table{int(levels.size()), {}};
  for (std::size_t i = 0; i < levels.size(); ++i) table.radii[i] = levels[i];
  launch(read_levels, blocks_for(batch), block_size, stream, probabilities, table, labels,
         Batch{selection, first, batch}, answers);
}

}  // namespace defocus_fast::cuda
