// SPDX-License-Identifier: Apache-2.0
// The network that says where radii may spread, as cpp/src/learned_distances.cpp; one thread per region, or per region
// and output. Next to the other networks it is small.
#define DEFOCUS_FAST_WAITS_FOR_DEVICE  // where an estimator is made
#include "pixels.hpp"
#include "stages.hpp"

namespace defocus_fast::cuda {

namespace {

__device__ int clipped(int value, int most) { return value < most ? value : most; }

struct Guide {
  const float* signals[3];
};

/// One thread per region and group of octaves.
__global__ void describe_edges(const __grid_constant__ Octaves octaves, int spread, int rows, int columns, float* out) {
  const std::int64_t thread = thread_index();
  if (thread >= std::int64_t{rows} * columns * learned::groups) return;
  const int group = int(thread % learned::groups), region = int(thread / learned::groups);
  const int height = octaves.answers[spread].height, width = octaves.answers[spread].width;
  const int top = region / columns * learned::region, left = region % columns * learned::region;
  learned::EdgeSums sums{};
  for (int at_y = top; at_y < clipped(top + learned::region, height); ++at_y)
    for (int o = 0; o < octaves.count; ++o) {
      if (learned::group(o, spread) != group) continue;
      const Answers& answers = octaves.answers[o];
      const Range own_rows = put_into(at_y, height, spread, answers.height, o);
      for (int y = own_rows.begin; y < own_rows.end; ++y)
        for (int at_x = left; at_x < clipped(left + learned::region, width); ++at_x) {
          const Range own_columns = put_into(at_x, width, spread, answers.width, o);
          for (int x = own_columns.begin; x < own_columns.end; ++x) {
            const bool depth = answers.depth_edges[answers.pixel(y, x)] != 0;
            if (!depth && !answers.pattern_edges[answers.pixel(y, x)]) continue;
            const std::ptrdiff_t at = answers.question(y, x);
            sums.add(o, spread, depth, answers.radius[at], answers.radius_std[at], answers.depth_probability[at]);
          }
        }
    }
  sums.write(out + std::ptrdiff_t(region) * learned::width + group * learned::of_group);
}

template <class Value>
__global__ void describe_pixels(const __grid_constant__ ImageView image, const std::uint8_t* barriers,
                                const __grid_constant__ Guide guide, int rows, int columns, float size, float* out) {
  int row, column;
  if (!pixel_of_thread(rows, columns, row, column)) return;
  float* const inputs = out + (std::ptrdiff_t(row) * columns + column) * learned::width;
  const int height = image.height, width = image.width;
  const int top = row * learned::region, left = column * learned::region;
  const int bottom = clipped(top + learned::region, height), right = clipped(left + learned::region, width);
  // The last regions may reach beyond the image, whose last row and column are repeated there.
  const auto grey = [&](int y, int x) {
    float sum = 0;
    for (int c = 0; c < image.channels; ++c)
      sum += unit_value(value_at<Value>(image, clipped(top + y, height - 1), clipped(left + x, width - 1), c));
    return sum / float(image.channels);
  };
  for (int band = 0; band < learned::bands; ++band) inputs[learned::edge_inputs + band] = learned::contrast(band, grey);
  float fine = 0, coarse = 0, across = 0, down = 0;
  for (int y = top; y < bottom; ++y)
    for (int x = left; x < right; ++x) {
      const std::uint8_t bits = barriers[std::ptrdiff_t(y) * width + x];
      fine += float((bits & learned::is_fine_barrier) != 0);
      coarse += float((bits & learned::is_coarse_barrier) != 0);
    }
  for (int c = 0; c < image.channels; ++c)
    for (int y = top; y < bottom; ++y)
      for (int x = left; x < right; ++x) {
        const float* const here = guide.signals[c] + std::ptrdiff_t(y) * width + x;
        if (x > 0) across += fabsf(here[0] - here[-1]);
        if (y > 0) down += fabsf(here[0] - here[-width]);
      }
  const float pixels = float((bottom - top) * (right - left));
  learned::write_rest(fine / pixels, coarse / pixels, size, (image.channels == 1 ? 3.0f : 1.0f) / pixels * across,
                      (image.channels == 1 ? 3.0f : 1.0f) / pixels * down, inputs);
}

/// 3 x 3 taps and ReLU; zeros around the regions. Weights: (taps, inputs, outputs).
__global__ void convolve(const float* in, int inputs, int dilation, const float* weights, const float* bias, int rows,
                         int columns, float* out) {
  const std::int64_t thread = thread_index();
  if (thread >= std::int64_t{rows} * columns * learned::width) return;
  const int output = int(thread % learned::width), region = int(thread / learned::width);
  const int row = region / columns, column = region % columns;
  float sum = bias[output];
  for (int tap = 0; tap < 9; ++tap) {
    const int y = row + (tap / 3 - 1) * dilation, x = column + (tap % 3 - 1) * dilation;
    if (y < 0 || y >= rows || x < 0 || x >= columns) continue;
    const float* const read = in + (std::ptrdiff_t(y) * columns + x) * learned::width;
    const float* const of_tap = weights + tap * inputs * learned::width + output;
    for (int c = 0; c < inputs; ++c) sum += read[c] * of_tap[c * learned::width];
  }
  out[thread] = fmaxf(sum, 0.0f);
}

/// One thread per piece and value of its regions.
__global__ void summarize(const float* in, int regions, int pieces, learned::Summary* out) {
  const std::int64_t thread = thread_index();
  if (thread >= std::int64_t{pieces} * learned::width) return;
  const int begin = int(thread / learned::width) * learned::piece;
  learned::Summary piece{};
  for (int region = begin; region < clipped(begin + learned::piece, regions); ++region) {
    const float value = in[std::ptrdiff_t(region) * learned::width + thread % learned::width];
    piece.add({value, value});
  }
  out[thread] = piece;
}

/// One block of learned::width threads: the biases of an image.
__global__ void add_context(const learned::Summary* pieces, int count, int regions, const float* weights,
                            const float* bias, float* image_bias) {
  __shared__ float context[learned::context];
  const unsigned own = threadIdx.x;
  learned::Summary image{};
  for (int i = 0; i < count; ++i) image.add(pieces[std::ptrdiff_t(i) * learned::width + own]);
  context[own] = image.sum / float(regions);
  context[learned::width + own] = image.most;
  __syncthreads();
  float sum = bias[own];
  for (int c = 0; c < learned::context; ++c) sum += context[c] * weights[c * learned::width + own];
  image_bias[own] = sum;
}

/// The last layer, of 1 x 1, and what its outputs stand for: planes.
__global__ void answer(const float* in, const float* weights, int regions, float* factors) {
  const std::int64_t thread = thread_index();
  if (thread >= std::int64_t{regions} * learned::outputs) return;
  const int output = int(thread % learned::outputs), region = int(thread / learned::outputs);
  float sum = weights[learned::width * learned::outputs + output];
  for (int c = 0; c < learned::width; ++c)
    sum += in[std::ptrdiff_t(region) * learned::width + c] * weights[c * learned::outputs + output];
  factors[std::ptrdiff_t(output) * regions + region] = learned::factor(sum);
}

}  // namespace

LearnedDistances::LearnedDistances(const Model& model, int height, int width, float size, Arena& arena)
    : rows_(learned::regions(height)), columns_(learned::regions(width)), size_(size) {
  for (std::size_t i = 0; i <= learned::dilations.size(); ++i) {
    const std::string name = "propagation." + std::to_string(i);
    const Tensor& weight = model.weight(name + ".weight");
    const auto bias = model.weight(name + ".bias").values;
    const std::size_t outputs = bias.size(), inputs = std::size_t(weight.shape[1]);
    const std::size_t taps = weight.values.size() / outputs / inputs;
    layers_.push_back(weights_.size());
    for (std::size_t tap = 0; tap < taps; ++tap)
      for (std::size_t c = 0; c < inputs; ++c)
        for (std::size_t o = 0; o < outputs; ++o) weights_.push_back(weight.values[(o * inputs + c) * taps + tap]);
    weights_.insert(weights_.end(), bias.begin(), bias.end());
  }
  layers_.push_back(weights_.size());
  const auto context = model.weight("propagation.context.weight").values;
  weights_.insert(weights_.end(), context.begin(), context.end());
  const std::size_t regions = std::size_t(rows_) * std::size_t(columns_);
  arena.reserve(on_device_, weights_.size());
  for (float*& plane : planes_) arena.reserve(plane, regions * learned::width);
  arena.reserve(pieces_, blocks_for(std::int64_t(regions), learned::piece) * learned::width);
  arena.reserve(image_bias_, learned::width);
  arena.reserve(factors_, regions * learned::outputs);
}

void LearnedDistances::upload() {
  check(cudaMemcpy(on_device_, weights_.data(), weights_.size() * sizeof(float), cudaMemcpyHostToDevice), "cudaMemcpy");
}

learned::Factors LearnedDistances::factors(const Octaves& octaves, int spread, const ImageView& image,
                                           const std::uint8_t* barriers, const std::array<float*, 3>& guide,
                                           Stream stream) {
  const std::int64_t regions = std::int64_t{rows_} * columns_;
  launch(describe_edges, blocks_for(regions * learned::groups), block_size, stream, octaves, spread, rows_, columns_,
         planes_[0]);
  for_pixel_type(image, [&](auto value) {
    launch(describe_pixels<decltype(value)>, blocks_for(regions), block_size, stream, image, barriers,
           Guide{{guide[0], guide[1], guide[2]}}, rows_, columns_, size_, planes_[0]);
  });
  constexpr std::size_t last = learned::dilations.size();
  std::size_t from = 0;
  for (std::size_t i = 0; i < last; ++i, from = 1 - from) {
    const int inputs = i == 0 ? learned::inputs : learned::width;
    const float* const weights = on_device_ + layers_[i];
    const float* bias = weights + 9 * inputs * learned::width;
    if (i == learned::context_layer) {
      const int pieces = int(blocks_for(regions, learned::piece));
      launch(summarize, blocks_for(std::int64_t{pieces} * learned::width), block_size, stream, planes_[from],
             int(regions), pieces, pieces_);
      launch(add_context, 1, learned::width, stream, pieces_, pieces, int(regions), on_device_ + layers_[last + 1],
             bias, image_bias_);
      bias = image_bias_;
    }
    launch(convolve, blocks_for(regions * learned::width), block_size, stream, planes_[from], inputs,
           learned::dilations[i], weights, bias, rows_, columns_, planes_[1 - from]);
  }
  launch(answer, blocks_for(regions * learned::outputs), block_size, stream, planes_[from], on_device_ + layers_[last],
         int(regions), factors_);
  return {factors_, rows_, columns_};
}

}  // namespace defocus_fast::cuda
