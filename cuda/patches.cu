// SPDX-License-Identifier: Apache-2.0
// From the image and the features to the networks' inputs, as cpp/src/image.cpp and tip22.hpp.
#include "pixels.hpp"
#include "stages.hpp"
#include "tensors.hpp"

namespace defocus_fast::cuda {

namespace {

constexpr int halo = 6;  // px around the tile in which tip22's features are computed
constexpr int positions = 25;

/// Red, green and blue of a pixel, which may lie outside the image, `plane` elements apart.
template <class Pixel, class Value>
__device__ void copy_pixel(const ImageView& image, int y, int x, std::ptrdiff_t plane, Value* out) {
  const int from_y = reflect(y, image.height), from_x = reflect(x, image.width);
  for (int c = 0; c < 3; ++c)
    store(unit_value(value_at<Pixel>(image, from_y, from_x, image.channels == 1 ? 0 : c)), out + c * plane);
}

template <class Pixel, class Value>
__global__ void copy_tile(ImageView image, Canvas canvas, int y0, int x0, int height, int width, Value* out) {
  int y, x;
  if (!pixel_of_thread(height, width, y, x)) return;
  const auto at = canvas.in_image(y0 + y, x0 + x);
  copy_pixel<Pixel>(image, at.y, at.x, std::ptrdiff_t(height) * width, out + std::ptrdiff_t(y) * width + x);
}

template <class Value>
struct Crops {
  int sides[3], corners[3];  // px; of the corners, from the edge
  Value* out[3];
};

/// One block per edge.
template <class Pixel, class Value>
__global__ void copy_patches(ImageView image, Canvas canvas, const __grid_constant__ Crops<Value> crops, Batch batch) {
  const int k = int(blockIdx.x);
  if (!batch.has(k)) return;
  const auto edge = canvas.in_image(batch.edge(k).y, batch.edge(k).x);
  for (int i = 0; i < 3; ++i) {
    const int side = crops.sides[i], plane = side * side;
    const int y = edge.y + crops.corners[i], x = edge.x + crops.corners[i];
    Value* const out = crops.out[i] + std::ptrdiff_t(k) * 3 * plane;
    for (int at = int(threadIdx.x); at < plane; at += block_size)
      copy_pixel<Pixel>(image, y + at / side, x + at % side, plane, out + at);
  }
}

/// One block per edge.
template <class Value>
__global__ void fuse(const Value* u, const Value* v, Features features, Batch batch, Value* out) {
  const int k = int(blockIdx.x);
  if (!batch.has(k)) return;
  const Pixel edge = batch.edge(k);
  const std::ptrdiff_t tile =
      (edge.y / features.tile_height * features.tiles_across + edge.x / features.tile_width) * features.tile_pitch;
  const std::ptrdiff_t pitch = features.columns;
  const int y = edge.y % features.tile_height + halo, x = edge.x % features.tile_width + halo;
  out += std::ptrdiff_t(k) * positions * features.channels;
  for (int i = int(threadIdx.x); i < positions * features.channels; i += block_size) {
    const int dy = i % positions / 5 - 2, dx = i % 5 - 2;
    const std::ptrdiff_t plane = tile + i / positions * (features.rows * pitch);
    const float sum = widen(u[plane + (y + 3 * dy) * pitch + x + 3 * dx]) + widen(v[plane + (y + dy) * pitch + x + dx]);
    store(sum > 0 ? sum : 0.0f, out + i);
  }
}

}  // namespace

void extract_tile(const ImageView& image, const Canvas& canvas, int y0, int x0, int height, int width, TensorType type,
                  void* out, Stream stream) {
  for_pixel_type(image, [&](auto pixel) {
    for_tensor_type(type, [&](auto value) {
      launch(copy_tile<decltype(pixel), decltype(value)>, blocks_for(std::int64_t{height} * width), block_size, stream,
             image, canvas, y0, x0, height, width, static_cast<decltype(value)*>(out));
    });
  });
}

void extract_patches(const ImageView& image, const Canvas& canvas, int crop_offset, const Batch& batch, TensorType type,
                     const std::array<std::byte*, 3>& crops, Stream stream) {
  for_pixel_type(image, [&]<class Of>(Of) {
    for_tensor_type(type, [&]<class Value>(Value) {
      Crops<Value> of_type{};
      for (std::size_t i = 0; i < 3; ++i) {
        of_type.sides[i] = crop_sizes[i];
        of_type.corners[i] = crop_corner(i, crop_offset);
        of_type.out[i] = reinterpret_cast<Value*>(crops[i]);
      }
      launch(copy_patches<Of, Value>, unsigned(batch.size), block_size, stream, image, canvas, of_type, batch);
    });
  });
}

void gather(const Features& features, const Batch& batch, TensorType type, void* out, Stream stream) {
  for_tensor_type(type, [&]<class Value>(Value) {
    launch(fuse<Value>, unsigned(batch.size), block_size, stream, static_cast<const Value*>(features.u),
           static_cast<const Value*>(features.v), features, batch, static_cast<Value*>(out));
  });
}

}  // namespace defocus_fast::cuda
