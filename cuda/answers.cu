// SPDX-License-Identifier: Apache-2.0
// From the networks' outputs to the edges, as Estimator::Cpu. Compiled with -fmad=false: the sums of read_bins equal
// the CPU's.
#include <algorithm>

#include "compaction.hpp"
#include "pixels.hpp"
#include "stages.hpp"
#include "tensors.hpp"

namespace defocus_fast::cuda {

namespace {

// Which question, and which row of bin_probabilities, the k-th that a network was asked about has; -1: none.
struct Row {
  std::ptrdiff_t question, bins;
};
__device__ Row row_of(const Batch& asked, const Answers& answers, std::int64_t k) {
  if (!asked.has(k)) return {-1, -1};
  return {answers.question(asked.edge(k).y, asked.edge(k).x), asked.first + std::ptrdiff_t(k)};
}
__device__ Row row_of(const CellTile& asked, const Answers& answers, std::int64_t k) {
  const int y = asked.y + int(k / asked.columns), x = asked.x + int(k % asked.columns);
  if (k >= std::int64_t{asked.rows} * asked.columns || y >= answers.down() || x >= answers.across()) return {-1, -1};
  const std::ptrdiff_t question = std::ptrdiff_t(y) * answers.across() + x;
  return {question, question};
}

std::int64_t size(const Batch& asked) { return asked.size; }
std::int64_t size(const CellTile& asked) { return std::int64_t{asked.rows} * asked.columns; }

template <class Value, class Asked>
__global__ void read_depths(const Value* probabilities, Asked asked, Answers answers) {
  const std::int64_t k = thread_index();
  const Row row = row_of(asked, answers, k);
  if (row.question >= 0) answers.depth_probability[row.question] = widen(probabilities[2 * k + 1]);
}

__global__ void split(double depth_threshold, Answers answers) {
  int y, x;
  if (!pixel_of_thread(answers.height, answers.width, y, x)) return;
  const std::ptrdiff_t i = answers.pixel(y, x);
  const bool depth =
      answers.pattern_edges[i] && is_depth_edge(answers.depth_probability[answers.question(y, x)], depth_threshold);
  answers.depth_edges[i] = depth;
  if (depth) answers.pattern_edges[i] = 0;
}

template <class Value>
struct Probability {
  const Value* of_bins;
  DEFOCUS_FAST_HOST_DEVICE float operator()(int bin) const { return widen(of_bins[bin]); }
};

template <class Value, class Asked>
__global__ void read_all_bins(const Value* probabilities, const __grid_constant__ RadiusBins bins, Labels labels,
                              Asked asked, Answers answers, float* bin_probabilities) {
  const std::int64_t k = thread_index();
  const Row row = row_of(asked, answers, k);
  if (row.question < 0) return;
  const Probability<Value> probability{probabilities + k * bins.count};
  const Reading reading = read_bins(probability, bins.radii, bins.count, labels);
  answers.radius[row.question] = reading.radius;
  answers.radius_std[row.question] = reading.radius_std;
  answers.radius_probability[row.question] = reading.radius_probability;
  if (!bin_probabilities) return;
  for (int bin = 0; bin < bins.count; ++bin) bin_probabilities[row.bins * bins.count + bin] = probability(bin);
}

struct IsEdge {
  const std::uint8_t *pattern, *depth;
  __device__ bool operator()(std::int64_t i) const { return pattern[i] || depth[i]; }
};

struct CollectEdge {
  Answers answers;
  const float* bin_probabilities;
  int bins;
  EdgeArrays to;
  __device__ void operator()(int position, std::int64_t i) const {
    const int y = int(i / answers.width), x = int(i % answers.width);
    const std::ptrdiff_t question = answers.question(y, x);
    to.position[position] = {y, x};
    to.depth_probability[position] = answers.depth_probability[question];
    to.radius[position] = answers.radius[question];
    to.radius_std[position] = answers.radius_std[question];
    to.radius_probability[position] = answers.radius_probability[question];
    if (!bin_probabilities) return;
    const float* from = bin_probabilities + (answers.side > 1 ? question : position) * bins;
    for (int bin = 0; bin < bins; ++bin) to.bin_probabilities[std::ptrdiff_t(position) * bins + bin] = from[bin];
  }
};

}  // namespace

template <class Asked>
void read_depth(const void* probabilities, TensorType type, const Asked& asked, const Answers& answers, Stream stream) {
  for_tensor_type(type, [&]<class Value>(Value) {
    launch(read_depths<Value, Asked>, blocks_for(size(asked)), block_size, stream,
           static_cast<const Value*>(probabilities), asked, answers);
  });
}

void split_edges(double depth_threshold, const Answers& answers, Stream stream) {
  launch(split, blocks_for(std::int64_t{answers.height} * answers.width), block_size, stream, depth_threshold, answers);
}

RadiusBins::RadiusBins(const std::vector<float>& bins) : count(int(bins.size())) {
  if (bins.size() > most)
    throw ModelError("model: device cuda reads at most " + std::to_string(most) + " bins, got " +
                     std::to_string(bins.size()));
  std::copy(bins.begin(), bins.end(), radii);
}

template <class Asked>
void read_radii(const void* probabilities, TensorType type, const RadiusBins& bins, Labels labels, const Asked& asked,
                const Answers& answers, float* bin_probabilities, Stream stream) {
  for_tensor_type(type, [&]<class Value>(Value) {
    launch(read_all_bins<Value, Asked>, blocks_for(size(asked)), block_size, stream,
           static_cast<const Value*>(probabilities), bins, labels, asked, answers, bin_probabilities);
  });
}

void collect_edges(const Answers& answers, const EdgeList& edges, const float* bin_probabilities, int bins,
                   const EdgeArrays& to, Stream stream) {
  write(IsEdge{answers.pattern_edges, answers.depth_edges}, CollectEdge{answers, bin_probabilities, bins, to},
        std::int64_t{answers.height} * answers.width, edges.before_block, stream);
}

template void read_depth(const void*, TensorType, const Batch&, const Answers&, Stream);
template void read_depth(const void*, TensorType, const CellTile&, const Answers&, Stream);
template void read_radii(const void*, TensorType, const RadiusBins&, Labels, const Batch&, const Answers&, float*,
                         Stream);
template void read_radii(const void*, TensorType, const RadiusBins&, Labels, const CellTile&, const Answers&, float*,
                         Stream);

}  // namespace defocus_fast::cuda
