// SPDX-License-Identifier: Apache-2.0
// Canny's detector as in cpp/src/canny.cpp, rounding where that rounds. Compiled with -fmad=false: a fused
// multiply-add would round once where ndimage rounds twice, and edges must be equal pixel for pixel.
#include <cstring>
#include <limits>

#include "compaction.hpp"
#include "pixels.hpp"

namespace defocus_fast::cuda {

namespace {

/// Half of the symmetric smoothing kernel, weights[radius] its centre. Passed by value: all threads read the same
/// weight at a time, which is what the constant memory of kernel parameters serves.
struct Weights {
  int radius;
  double values[257];
};

template <class Pixel, class T>
__global__ void read_values(ImageView image, T* out) {
  int y, x;
  if (!pixel_of_thread(image.height, image.width, y, x)) return;
  Pixel value = value_at<Pixel>(image, y, x, 0);
  for (int c = 1; c < image.channels; ++c) {
    const Pixel other = value_at<Pixel>(image, y, x, c);
    if (value < other) value = other;
  }
  out[std::ptrdiff_t(y) * image.width + x] = T(value) / (sizeof(Pixel) == 1 ? T(255) : T(1));
}

template <class T>
__global__ void smooth_columns(const T* values, int height, int width, const __grid_constant__ Weights weights,
                               T* out) {
  int y, x;
  if (!pixel_of_thread(height, width, y, x)) return;
  const auto at = [&](int row) {
    return row < 0 || row >= height ? 0.0 : double(values[std::ptrdiff_t(row) * width + x]);
  };
  const int radius = weights.radius;
  double sum = at(y) * weights.values[radius];
  for (int j = 0; j < radius; ++j) sum += (at(y - radius + j) + at(y + radius - j)) * weights.values[j];
  out[std::ptrdiff_t(y) * width + x] = T(sum);
}

/// The smoothing kernel's sum around i over a line of n elements that are all `value`.
__host__ __device__ double sum_inside(const Weights& weights, int i, int n, double value) {
  const int radius = weights.radius;
  double sum = value * weights.values[radius];
  for (int j = 0; j < radius; ++j)
    sum += ((i - radius + j >= 0 ? value : 0.0) + (i + radius - j < n ? value : 0.0)) * weights.values[j];
  return sum;
}

template <class T>
constexpr T epsilon = std::numeric_limits<T>::epsilon();

/// How much of the smoothing kernel lies inside the image.
template <class T>
__host__ __device__ T bleed_at(const Weights& weights, int y, int x, int height, int width) {
  const T columns = T(sum_inside(weights, y, height, 1.0));
  return T(sum_inside(weights, x, width, double(columns))) + epsilon<T>;
}

template <class T>
__global__ void smooth_rows(const T* columns, int height, int width, const __grid_constant__ Weights weights,
                            T interior_bleed, T* out) {
  int y, x;
  if (!pixel_of_thread(height, width, y, x)) return;
  const T* row = columns + std::ptrdiff_t(y) * width;
  const auto at = [&](int column) { return column < 0 || column >= width ? 0.0 : double(row[column]); };
  const int radius = weights.radius;
  double sum = at(x) * weights.values[radius];
  for (int j = 0; j < radius; ++j) sum += (at(x - radius + j) + at(x + radius - j)) * weights.values[j];
  const bool interior = y >= radius && y < height - radius && x >= radius && x < width - radius;
  out[std::ptrdiff_t(y) * width + x] = T(sum) / (interior ? interior_bleed : bleed_at<T>(weights, y, x, height, width));
}

template <class T>
struct Gradient {
  T y, x, magnitude;
};

/// Sobel's gradient; the image's border is repeated.
template <class T>
__device__ Gradient<T> gradient_at(const T* smooth, int height, int width, int y, int x) {
  const int y0 = y > 0 ? y - 1 : 0, y2 = y < height - 1 ? y + 1 : y;
  const int x0 = x > 0 ? x - 1 : 0, x2 = x < width - 1 ? x + 1 : x;
  const T* above = smooth + std::ptrdiff_t(y0) * width;
  const T* row = smooth + std::ptrdiff_t(y) * width;
  const T* below = smooth + std::ptrdiff_t(y2) * width;
  const T upper = above[x2] - above[x0], centre = row[x2] - row[x0], lower = below[x2] - below[x0];
  const T left = below[x0] - above[x0], middle = below[x] - above[x], right = below[x2] - above[x2];
  const T gx = T(double(centre) * 2.0 + (double(upper) + double(lower)));
  const T gy = T(double(middle) * 2.0 + (double(left) + double(right)));
  return {gy, gx, T(sqrt(gy * gy + gx * gx))};
}

// A forest over the pixels finds the chains of hysteresis in one pass of any length: node i + 1 is pixel i, node 0 is
// joined to every strong pixel. Parents only ever decrease, so node 0 is the root of all that is connected to it.
constexpr int no_node = -1;
constexpr int tile_height = 8, tile_width = 32;  // a warp reads along a row
static_assert(tile_height * tile_width == block_size);

/// Larger for a stronger edge, and for the first one of equals; 0 stands for none.
__device__ unsigned long long key_of(float magnitude, int pixel) {
  unsigned bits;  // of numbers that are not negative these have their order
  memcpy(&bits, &magnitude, sizeof bits);
  return (static_cast<unsigned long long>(bits) << 32) | (~0u - unsigned(pixel));
}

/// Interpolated non-maximum suppression and both thresholds: a node per pixel of at least `low`, strong ones joined
/// to node 0. `strongest` becomes the largest key of a strong one.
template <class T>
__global__ void suppress(const T* smooth, int height, int width, float low, T high, int* parents,
                         unsigned long long* strongest) {
  constexpr int rows = tile_height + 2, columns = tile_width + 2;
  __shared__ T magnitudes[rows][columns];
  __shared__ unsigned long long of_block;
  if (threadIdx.x == 0) of_block = 0;
  const int tiles = (width - 1) / tile_width + 1;
  const int y0 = int(blockIdx.x) / tiles * tile_height, x0 = int(blockIdx.x) % tiles * tile_width;
  for (int i = int(threadIdx.x); i < rows * columns; i += block_size) {
    const int y = y0 + i / columns - 1, x = x0 + i % columns - 1;
    const bool inside = y >= 0 && y < height && x >= 0 && x < width;
    magnitudes[i / columns][i % columns] = inside ? gradient_at(smooth, height, width, y, x).magnitude : T(0);
  }
  __syncthreads();
  const int row = int(threadIdx.x) / tile_width, column = int(threadIdx.x) % tile_width;
  const int y = y0 + row, x = x0 + column;
  const bool inside = y < height && x < width;
  const int pixel = inside ? y * width + x : 0;
  if (threadIdx.x == 0 && blockIdx.x == 0) parents[0] = 0;
  int parent = no_node;
  const T m = magnitudes[row + 1][column + 1];
  if (inside && y > 0 && y < height - 1 && x > 0 && x < width - 1 && m >= low) {
    const Gradient<T> gradient = gradient_at(smooth, height, width, y, x);
    const T ay = fabs(gradient.y), ax = fabs(gradient.x);
    // The gradient points into one of eight octants; its two opposite neighbours are interpolated between the
    // axis neighbour and the diagonal one. Same signs: the diagonal runs down-right.
    const bool same = (gradient.y > 0) == (gradient.x > 0);
    const bool steep = same ? ay > ax : ay >= ax;
    const T w = (steep ? ax : ay) / (steep ? ay : ax);
    const int down = same ? 1 : -1;  // the row of the neighbours on the right
    const T diagonal1 = magnitudes[row + 1 + down][column + 2], diagonal2 = magnitudes[row + 1 - down][column];
    const T axis1 = steep ? magnitudes[row + 1 + down][column + 1] : magnitudes[row + 1][column + 2];
    const T axis2 = steep ? magnitudes[row + 1 - down][column + 1] : magnitudes[row + 1][column];
    const bool peak1 = double(diagonal1 * w) + axis1 * (1.0 - w) <= m;
    const bool peak2 = double(diagonal2 * w) + axis2 * (1.0 - w) <= m;
    if (peak1 && peak2) parent = m >= high ? 0 : pixel + 1;
    if (parent == 0) atomicMax(&of_block, key_of(float(m), pixel));
  }
  if (inside) parents[pixel + 1] = parent;
  __syncthreads();
  if (threadIdx.x == 0 && of_block > 0) atomicMax(strongest, of_block);
}

/// The root above `node`, shortening the path on the way: a parent is replaced by one further up, never by another
/// tree's, so it does not matter which of several threads comes first.
__device__ int find_root(int* parents, int node) {
  for (;;) {
    const int parent = atomic_load(parents + node);
    if (parent == node) return node;
    const int grandparent = atomic_load(parents + parent);
    if (grandparent != parent) atomicMin(parents + node, grandparent);
    node = grandparent;
  }
}

__device__ void unite(int* parents, int a, int b) {
  for (;;) {
    a = find_root(parents, a);
    b = find_root(parents, b);
    if (a == b) return;
    const int upper = a < b ? a : b, lower = a < b ? b : a;
    const int previous = atomicMin(parents + lower, upper);
    if (previous == lower) return;
    // Another thread has hung `lower` below `previous` meanwhile: those two trees are still to be joined.
    a = previous;
    b = upper;
  }
}

__global__ void link_neighbours(int height, int width, int* parents) {
  int y, x;
  if (!pixel_of_thread(height, width, y, x)) return;
  const int node = y * width + x + 1;
  if (atomic_load(parents + node) == no_node) return;
  // Nodes are never on the border, so all neighbours exist; the other four find this one.
  const int neighbours[]{node - 1, node - width - 1, node - width, node - width + 1};
  for (const int neighbour : neighbours)
    if (atomic_load(parents + neighbour) != no_node) unite(parents, node, neighbour);
}

/// One thread.
__global__ void find_pad(const unsigned long long* strongest, int width, int period, Pixel* pad) {
  const int pixel = *strongest > 0 ? int(~0u - unsigned(*strongest)) : 0;
  *pad = pad_of({pixel / width, pixel % width}, period);
}

/// Sets the canvas's mask at this thread's pixel: is_edge(pixel) where it is one of the image, else 0.
template <class IsEdge>
__device__ void mark(const Canvas& canvas, int height, int width, std::uint8_t* mask, const IsEdge& is_edge) {
  int y, x;
  if (!pixel_of_thread(canvas.height, canvas.width, y, x)) return;
  const Pixel at = canvas.in_image(y, x);
  const bool in_image = at.y >= 0 && at.y < height && at.x >= 0 && at.x < width;
  mask[std::ptrdiff_t(y) * canvas.width + x] = in_image && is_edge(at);
}

__global__ void keep_strong(int height, int width, int* parents, Canvas canvas, std::uint8_t* mask) {
  mark(canvas, height, width, mask, [&](Pixel at) {
    const int node = at.y * width + at.x + 1;
    return atomic_load(parents + node) != no_node && find_root(parents, node) == 0;
  });
}

__global__ void read_mask(MaskView edges, Canvas canvas, std::uint8_t* mask) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(edges.data);
  mark(canvas, edges.height, edges.width, mask,
       [&](Pixel at) { return bytes[at.y * edges.pitch_bytes + at.x * edges.pixel_stride_bytes] != 0; });
}

__global__ void clear_off_grid(Canvas canvas, int stride, std::uint8_t* mask) {
  int y, x;
  if (!pixel_of_thread(canvas.height, canvas.width, y, x)) return;
  const Pixel at = canvas.in_image(y, x);
  if (at.y % stride != 0 || at.x % stride != 0) mask[std::ptrdiff_t(y) * canvas.width + x] = 0;
}

struct InMask {
  const std::uint8_t* mask;
  __device__ bool operator()(std::int64_t i) const { return mask[i] != 0; }
};

struct ListEdge {
  int width;
  EdgeList edges;
  std::uint8_t* mask;
  __device__ void operator()(int position, std::int64_t i) const {
    if (position < edges.capacity)
      edges.position[position] = {std::int32_t(i / width), std::int32_t(i % width)};
    else
      mask[i] = 0;
  }
};

}  // namespace

void find_kernels() {
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, keep_strong), "cudaFuncGetAttributes");  // all are for the same GPUs
}

EdgeDetector::EdgeDetector(int height, int width, const CannyOptions& options, Arena& arena)
    : height_(height), width_(width), weights_(options.smoothing), low_(options.low), high_(options.high) {
  const std::size_t pixels = std::size_t(height) * std::size_t(width);
  arena.reserve(values_, pixels);
  arena.reserve(columns_, pixels + 1);
  arena.reserve(strongest_, 1);
}

void EdgeDetector::detect_edges(const ImageView& image, Stream stream) {
  check(cudaMemsetAsync(strongest_, 0, sizeof *strongest_, stream), "cudaMemsetAsync");
  if (image.type == PixelType::uint8)
    thin<double>(image, stream);
  else
    thin<float>(image, stream);
  const std::int64_t pixels = std::int64_t{height_} * width_;
  int* parents = reinterpret_cast<int*>(columns_);
  launch(link_neighbours, blocks_for(pixels), block_size, stream, height_, width_, parents);
}

void EdgeDetector::place(int period, Pixel* pad, Stream stream) {
  launch(find_pad, 1, 1, stream, strongest_, width_, period, pad);
}

void EdgeDetector::write_mask(const Canvas& canvas, std::uint8_t* mask, Stream stream) {
  launch(keep_strong, blocks_for(std::int64_t{canvas.height} * canvas.width), block_size, stream, height_, width_,
         reinterpret_cast<int*>(columns_), canvas, mask);
}

template <class T>
void EdgeDetector::thin(const ImageView& image, Stream stream) {
  Weights weights{int(weights_.size() / 2), {}};
  std::memcpy(weights.values, weights_.data(), std::size_t(weights.radius + 1) * sizeof(double));
  // What a pixel away from the border sees: an image of 2 * radius + 1 pixels has one such.
  const int side = int(weights_.size());
  const T interior_bleed = bleed_at<T>(weights, weights.radius, weights.radius, side, side);
  // scikit-image's low threshold is a C float in the thinning, the high one has the type of the array.
  const float low = low_ == 0 ? 1e-14f : float(low_);

  T* values = reinterpret_cast<T*>(values_);
  T* columns = reinterpret_cast<T*>(columns_);
  T* smooth = values;  // the values have been read by then, and so have the columns when `parents` is written
  int* parents = reinterpret_cast<int*>(columns_);
  const unsigned blocks = blocks_for(std::int64_t{height_} * width_);
  using Pixel = std::conditional_t<std::is_same_v<T, double>, std::uint8_t, float>;
  launch(read_values<Pixel, T>, blocks, block_size, stream, image, values);
  launch(smooth_columns<T>, blocks, block_size, stream, values, height_, width_, weights, columns);
  launch(smooth_rows<T>, blocks, block_size, stream, columns, height_, width_, weights, interior_bleed, smooth);
  const unsigned tiles = blocks_for(height_, tile_height) * blocks_for(width_, tile_width);
  launch(suppress<T>, tiles, block_size, stream, smooth, height_, width_, low, T(high_), parents, strongest_);
}

void copy_edges(const MaskView& edges, const Canvas& canvas, std::uint8_t* mask, Stream stream) {
  launch(read_mask, blocks_for(std::int64_t{canvas.height} * canvas.width), block_size, stream, edges, canvas, mask);
}

void keep_grid(int stride, const Canvas& canvas, std::uint8_t* mask, Stream stream) {
  launch(clear_off_grid, blocks_for(std::int64_t{canvas.height} * canvas.width), block_size, stream, canvas, stride,
         mask);
}

void list_edges(const Answers& answers, const EdgeList& edges, Stream stream) {
  const InMask keep{answers.pattern_edges};
  const std::int64_t pixels = std::int64_t{answers.height} * answers.width;
  count(keep, pixels, edges.capacity, edges.before_block, edges.count, stream);
  if (edges.position)
    write(keep, ListEdge{answers.width, edges, answers.pattern_edges}, pixels, edges.before_block, stream);
}

}  // namespace defocus_fast::cuda
