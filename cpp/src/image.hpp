// SPDX-License-Identifier: Apache-2.0
// Reading the caller's pixels.
#pragma once

#include <cstddef>
#include <initializer_list>

#include "defocus_fast/estimator.hpp"
#include "kernels.hpp"
#include "workers.hpp"

namespace defocus_fast::cpu {

constexpr int most_side = 1 << 30;  // px, of images

/// How many, and how many bytes apart.
struct Axis {
  int length;
  std::ptrdiff_t stride;
};
/// Throws InvalidArgument if offsets of values could overflow, or values of `size` bytes are not aligned.
void check_addresses(const char* name, const void* data, int size, std::initializer_list<Axis> axes);
void check_pointer(const void* data, const char* name);
/// Throws InvalidArgument unless `image` is a readable image of 1 or 3 channels; checks no pixel.
void check_layout(const ImageView& image, const char* name);
/// Throws InvalidArgument if a float image has values outside [least, most], which NaN is, or words of more than
/// the bits that they have.
void check_range(const ImageView& image, const char* name, float least, float most, Workers& workers);

/// Columns [x0, x0 + n) of row y in [0, 1], one array per channel; uint8 is divided by 255. Columns may lie outside
/// the image by any distance: they are reflected with the edge pixel repeated.
void load_row(const ImageView& image, int y, int x0, int n, float* const* channels);

/// Row y of V = max(R, G, B) in [0, 1].
template <class T>
void load_value_row(const ImageView& image, int y, const CannyKernels<T>& kernels, T* out);

/// Row y of an image of half the size, of `width` pixels: means of 2 x 2 pixels of the same type, interleaved. Its
/// first pixel begins `pad` before the image's, which is mirrored at its borders.
void reduce_row(const ImageView& image, Pixel pad, int y, int width, std::byte* out);

/// The index in [0, n) that i stands for under symmetric reflection (edge pixel repeated).
int reflect(int i, int n);

/// `rows` rows of `n` pixels from (y0, x0) on, red, green, blue at the start of every `stride` values of T, as stored.
template <class T>
void extract_pixels(const ImageView& image, int y0, int x0, int rows, int n, int stride, T* out);
/// A row of `n` cells from the pixel (y0, x0) on: the 27 values of a cell at the start of every `stride`.
template <class T>
void extract_cells(const ImageView& image, int y0, int x0, int n, int stride, T* out);

}  // namespace defocus_fast::cpu
