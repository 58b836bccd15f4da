// SPDX-License-Identifier: Apache-2.0
// From the image and the features to the networks' inputs, as in cpp/src/patches.cpp and trunk.cpp, and from their
// outputs to the edges, as in Estimator::Cpu. Compiled with -fmad=false: the sums of estimate() equal the CPU's.
#include "pixels.hpp"
#include "stages.hpp"

namespace defocus_fast::cuda {

namespace {

constexpr int halo = 6;  // px around the tile in which tip22's features are computed
constexpr int positions = 25;

/// Rows of a head's batch: row k belongs to edge first + k.
struct Batch {
  EdgeList edges;
  int first, size;
  __device__ bool has(std::int64_t k) const { return k < size && first + k < edges.count->kept; }
  __device__ int y(std::int64_t k) const { return edges.edges[2 * (first + k)]; }
  __device__ int x(std::int64_t k) const { return edges.edges[2 * (first + k) + 1]; }
};

__device__ void store(float value, float* out) { *out = value; }
__device__ void store(float value, __half* out) { *out = __float2half_rn(value); }
__device__ float widen(float value) { return value; }
__device__ float widen(__half value) { return __half2float(value); }

/// Calls use(Value{}) with the type of the tensors' elements.
template <class Use>
void for_tensor_type(TensorType type, const Use& use) {
  if (type == TensorType::float32)
    use(float{});
  else
    use(__half{});
}

/// Red, green and blue of a pixel, which may lie outside the image, `plane` elements apart.
template <class Pixel, class Value>
__device__ void copy_pixel(const ImageView& image, int y, int x, std::ptrdiff_t plane, Value* out) {
  const int from_y = reflect(y, image.height), from_x = reflect(x, image.width);
  for (int c = 0; c < 3; ++c)
    store(unit_value(value_at<Pixel>(image, from_y, from_x, image.channels == 1 ? 0 : c)), out + c * plane);
}

template <class Pixel, class Value>
__global__ void copy_tile(ImageView image, int y0, int x0, int height, int width, Value* out) {
  int y, x;
  if (!pixel_of_thread(height, width, y, x)) return;
  copy_pixel<Pixel>(image, y0 + y, x0 + x, std::ptrdiff_t(height) * width, out + std::ptrdiff_t(y) * width + x);
}

template <class Value>
struct Crops {
  int sides[3], corners[3];  // px; of the corners, from the edge
  Value* out[3];
};

/// One block per edge.
template <class Pixel, class Value>
__global__ void copy_patches(ImageView image, const __grid_constant__ Crops<Value> crops, Batch batch) {
  const int k = int(blockIdx.x);
  if (!batch.has(k)) return;
  for (int i = 0; i < 3; ++i) {
    const int side = crops.sides[i], plane = side * side;
    const int y = batch.y(k) + crops.corners[i], x = batch.x(k) + crops.corners[i];
    Value* const out = crops.out[i] + std::ptrdiff_t(k) * 3 * plane;
    for (int at = int(threadIdx.x); at < plane; at += block_size)
      copy_pixel<Pixel>(image, y + at / side, x + at % side, plane, out + at);
  }
}

/// Where the features of a pixel's tile begin.
__device__ std::ptrdiff_t tile_of(const Features& features, int y, int x) {
  return (y / features.tile_height * features.tiles_across + x / features.tile_width) * features.tile_pitch;
}

/// One block per edge.
template <class Value>
__global__ void fuse(const Value* u, const Value* v, Features features, Batch batch, Value* out) {
  const int k = int(blockIdx.x);
  if (!batch.has(k)) return;
  const std::ptrdiff_t tile = tile_of(features, batch.y(k), batch.x(k)), pitch = features.columns;
  const int y = batch.y(k) % features.tile_height + halo, x = batch.x(k) % features.tile_width + halo;
  out += std::ptrdiff_t(k) * positions * features.channels;
  for (int i = int(threadIdx.x); i < positions * features.channels; i += block_size) {
    const int dy = i % positions / 5 - 2, dx = i % 5 - 2;
    const std::ptrdiff_t plane = tile + i / positions * (features.rows * pitch);
    const float sum = widen(u[plane + (y + 3 * dy) * pitch + x + 3 * dx]) + widen(v[plane + (y + dy) * pitch + x + dx]);
    store(sum > 0 ? sum : 0.0f, out + i);
  }
}

/// One thread per edge and channel.
template <class Value>
__global__ void copy_cells(const Value* cells, Features features, Batch batch, Value* out) {
  const std::int64_t i = thread_index(), k = i / features.channels;
  if (!batch.has(k)) return;
  const int row = batch.y(k) % features.tile_height / cell, column = batch.x(k) % features.tile_width / cell;
  const std::ptrdiff_t plane = tile_of(features, batch.y(k), batch.x(k)) +
                               i % features.channels * (std::ptrdiff_t(features.rows) * features.columns);
  out[i] = cells[plane + std::ptrdiff_t(row) * features.columns + column];
}

template <class Value>
__global__ void split_edges(const Value* probabilities, int width, double depth_threshold, Batch batch,
                            Answers answers) {
  const std::int64_t k = thread_index();
  if (!batch.has(k)) return;
  const float depth = widen(probabilities[2 * k + 1]);
  answers.depth_probability[batch.first + k] = depth;
  if (double(depth) > depth_threshold) {
    const std::ptrdiff_t at = std::ptrdiff_t(batch.y(k)) * width + batch.x(k);
    answers.pattern_edges[at] = 0;
    answers.depth_edges[at] = 1;
  }
}

struct Levels {
  int count;
  float radii[most_bins];  // px
};

template <class Value>
__global__ void read_levels(const Value* probabilities, const __grid_constant__ Levels bins, Labels labels, Batch batch,
                            Answers answers) {
  const std::int64_t k = thread_index();
  if (!batch.has(k)) return;
  const std::ptrdiff_t edge = batch.first + k;
  const Value* row = probabilities + k * bins.count;
  int best = 0;
  float highest = widen(row[0]);
  double mean = 0, square = 0;
  for (int i = 0; i < bins.count; ++i) {
    const float probability = widen(row[i]);
    if (highest < probability) {  // the first of equals
      highest = probability;
      best = i;
    }
    mean += double(probability) * bins.radii[i];
    square += double(probability) * bins.radii[i] * bins.radii[i];
    if (answers.bin_probabilities) answers.bin_probabilities[edge * bins.count + i] = probability;
  }
  const double variance = square - mean * mean;
  answers.radii[edge] = labels == Labels::hard ? bins.radii[best] : float(mean);
  answers.radius_std[edge] = float(sqrt(variance > 0 ? variance : 0.0));
  answers.radius_probability[edge] = highest;
}

}  // namespace

void clear_answers(int height, int width, const EdgeList& edges, const Answers& answers, Stream stream) {
  check(cudaMemsetAsync(answers.depth_probability, 0, std::size_t(edges.capacity) * sizeof(float), stream),
        "cudaMemsetAsync");
  check(cudaMemsetAsync(answers.depth_edges, 0, std::size_t(height) * std::size_t(width), stream), "cudaMemsetAsync");
}

void extract_tile(const ImageView& image, int y0, int x0, int height, int width, TensorType type, void* out,
                  Stream stream) {
  for_pixel_type(image, [&](auto pixel) {
    for_tensor_type(type, [&](auto value) {
      launch(copy_tile<decltype(pixel), decltype(value)>, blocks_for(std::int64_t{height} * width), block_size, stream,
             image, y0, x0, height, width, static_cast<decltype(value)*>(out));
    });
  });
}

void extract_patches(const ImageView& image, int crop_offset, const EdgeList& edges, int first, int batch,
                     TensorType type, const std::array<std::byte*, 3>& crops, Stream stream) {
  for_pixel_type(image, [&]<class Pixel>(Pixel) {
    for_tensor_type(type, [&]<class Value>(Value) {
      Crops<Value> of_type{};
      for (std::size_t i = 0; i < 3; ++i) {
        of_type.sides[i] = crop_sizes[i];
        of_type.corners[i] = crop_corner(i, crop_offset);
        of_type.out[i] = reinterpret_cast<Value*>(crops[i]);
      }
      launch(copy_patches<Pixel, Value>, unsigned(batch), block_size, stream, image, of_type,
             Batch{edges, first, batch});
    });
  });
}

void gather(Architecture architecture, const Features& features, const EdgeList& edges, int first, int batch,
            TensorType type, void* out, Stream stream) {
  for_tensor_type(type, [&]<class Value>(Value) {
    const auto* u = static_cast<const Value*>(features.u);
    const Batch rows{edges, first, batch};
    if (architecture == Architecture::tip22)
      launch(fuse<Value>, unsigned(batch), block_size, stream, u, static_cast<const Value*>(features.v), features, rows,
             static_cast<Value*>(out));
    else
      launch(copy_cells<Value>, blocks_for(std::int64_t{batch} * features.channels), block_size, stream, u, features,
             rows, static_cast<Value*>(out));
  });
}

void classify(const void* probabilities, TensorType type, int width, double depth_threshold, const EdgeList& edges,
              int first, int batch, const Answers& answers, Stream stream) {
  for_tensor_type(type, [&]<class Value>(Value) {
    launch(split_edges<Value>, blocks_for(batch), block_size, stream, static_cast<const Value*>(probabilities), width,
           depth_threshold, Batch{edges, first, batch}, answers);
  });
}

void estimate(const void* probabilities, TensorType type, const std::vector<float>& bins, Labels labels,
              const EdgeList& edges, int first, int batch, const Answers& answers, Stream stream) {
  Levels table{int(bins.size()), {}};
  for (std::size_t i = 0; i < bins.size(); ++i) table.radii[i] = bins[i];
  for_tensor_type(type, [&]<class Value>(Value) {
    launch(read_levels<Value>, blocks_for(batch), block_size, stream, static_cast<const Value*>(probabilities), table,
           labels, Batch{edges, first, batch}, answers);
  });
}

}  // namespace defocus_fast::cuda
