// SPDX-License-Identifier: Apache-2.0
// An image at several sizes, as Estimator::Cpu reads it.
#include "pixels.hpp"
#include "stages.hpp"

namespace defocus_fast::cuda {

namespace {

__device__ float mean(float a, float b, float c, float d) { return (a + b + c + d) * 0.25f; }
__device__ std::uint8_t mean(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) {
  return std::uint8_t((a + b + c + d + 2) / 4);
}

template <class Value>
__global__ void reduce_pixels(ImageView image, const Pixel* pad, ImageView half, Value* out) {
  int y, x;
  if (!pixel_of_thread(half.height, half.width, y, x)) return;
  const Pixel before = pad ? *pad : Pixel{0, 0};
  Value* const to = out + (std::ptrdiff_t(y) * half.width + x) * half.channels;
  for (int c = 0; c < half.channels; ++c) {
    const auto at = [&](int dy, int dx) {
      return value_at<Value>(image, reflect(2 * y + dy - before.y, image.height),
                             reflect(2 * x + dx - before.x, image.width), c);
    };
    to[c] = mean(at(0, 0), at(0, 1), at(1, 0), at(1, 1));
  }
}

__global__ void drop(Answers neighbour, bool finer, Answers answers) {
  int y, x;
  if (!pixel_of_thread(answers.height, answers.width, y, x)) return;
  const std::ptrdiff_t i = answers.pixel(y, x);
  if (answers.said) answers.said[i] = 0;
  if (!answers.pattern_edges[i]) return;
  std::uint8_t said = 0;
  const Range rows = beside(y, finer), columns = beside(x, finer);
  for (int v = rows.begin; v < rows.end; ++v)
    for (int u = columns.begin; u < columns.end; ++u)
      if (v >= 0 && v < neighbour.height && u >= 0 && u < neighbour.width)
        said |= neighbour.said[neighbour.pixel(v, u)];
  if (!said || (said & (finer ? asks_coarser : asks_finer))) return;
  answers.pattern_edges[i] = 0;
  if (answers.said) answers.said[i] = passes_on(said, finer);
}

__global__ void note(Answers answers, int octave, bool first) {
  int y, x;
  if (!pixel_of_thread(answers.height, answers.width, y, x)) return;
  const std::ptrdiff_t i = answers.pixel(y, x), at = answers.question(y, x);
  if (answers.pattern_edges[i] || answers.depth_edges[i])
    answers.said[i] = asks(answers.radius[at], answers.radius_std[at], octave);
  else if (first)
    answers.said[i] = 0;
}

/// Gathered: edges of several octaves may have their barriers in the same pixel.
__global__ void gather_barriers(const __grid_constant__ Octaves octaves, int spread_octave, std::uint8_t* barriers) {
  const Answers& spread = octaves.answers[spread_octave];
  int at_y, at_x;
  if (!pixel_of_thread(spread.height, spread.width, at_y, at_x)) return;
  std::uint8_t bits = 0;
  for (int o = 0; o < octaves.count; ++o) {
    const Answers& answers = octaves.answers[o];
    if (!has_centres(at_y, spread_octave, o) && !has_centres(at_x, spread_octave, o)) continue;  // as for_barrier
    const Range rows = shared_with(at_y, spread.height, spread_octave, answers.height, o);
    const Range columns = shared_with(at_x, spread.width, spread_octave, answers.width, o);
    for (int y = rows.begin; y < rows.end; ++y)
      for (int x = columns.begin; x < columns.end; ++x)
        if (answers.depth_edges[answers.pixel(y, x)] && (o == 0 || is_barrier(answers.radius[answers.question(y, x)])))
          bits |= learned::barrier_bit(learned::group(o, spread_octave));
  }
  barriers[spread.pixel(at_y, at_x)] = bits;
}

unsigned blocks_of(const Answers& answers) { return blocks_for(std::int64_t{answers.height} * answers.width); }

}  // namespace

void reduce(const ImageView& image, const Pixel* pad, const ImageView& half, void* out, Stream stream) {
  for_pixel_type(image, [&](auto pixel) {
    using Value = decltype(pixel);
    launch(reduce_pixels<Value>, blocks_for(std::int64_t{half.height} * half.width), block_size, stream, image, pad,
           half, static_cast<Value*>(out));
  });
}

void drop_edges(const Answers& neighbour, const Answers& answers, Stream stream) {
  launch(drop, blocks_of(answers), block_size, stream, neighbour, neighbour.height > answers.height, answers);
}

void note_answers(const Answers& answers, int octave, bool first, Stream stream) {
  launch(note, blocks_of(answers), block_size, stream, answers, octave, first);
}

void mark_barriers(const Octaves& octaves, int spread_octave, std::uint8_t* barriers, Stream stream) {
  launch(gather_barriers, blocks_of(octaves.answers[spread_octave]), block_size, stream, octaves, spread_octave,
         barriers);
}

}  // namespace defocus_fast::cuda
