// SPDX-License-Identifier: Apache-2.0
// The stages of a frame, as Estimator::Cpu::run calls them.
#include "estimator.hpp"

#include <algorithm>

#include "launch.hpp"

namespace defocus_fast::cuda {

namespace {

std::size_t element(TensorType type) { return type == TensorType::float32 ? 4 : 2; }

Tiling tile(const Model& model, int height, int width, const NetworkShapes& shapes) {
  if (shapes.evaluation == Evaluation::patch) return {};
  const bool cells = model.architecture == Architecture::cells;
  const int margin = network_margin(model);
  const int tile_height = shapes.image_height - 2 * margin, tile_width = shapes.image_width - 2 * margin;
  const int rows = cells ? tile_height / cell : tile_height + 12, columns = cells ? tile_width / cell : tile_width + 12;
  const int down = (height - 1) / tile_height + 1, across = (width - 1) / tile_width + 1;
  // Networks::enqueue promises 256 bytes of alignment: 128 elements of either type.
  const std::ptrdiff_t pitch = (std::ptrdiff_t(model.width) * rows * columns + 127) / 128 * 128;
  return {down,
          across,
          margin,
          cells ? std::size_t{1} : std::size_t{4},
          cells ? std::size_t{1} : std::size_t{25},
          {nullptr, nullptr, across, tile_height, tile_width, model.width, rows, columns, pitch}};
}

}  // namespace

Estimator::Estimator(const DeviceSetup& setup)
    : height_(setup.height),
      width_(setup.width),
      options_(setup.options),
      model_(setup.model),
      depth_threshold_(setup.depth_threshold),
      shapes_(setup.shapes),
      networks_(setup.options.networks),
      tiling_(tile(*setup.model, setup.height, setup.width, setup.shapes)),
      edge_detector_(height_, width_, options_.canny, options_.max_edges, arena_),
      domain_transform_(height_, width_, arena_) {
  if (model_->radius_bins.size() > most_bins)
    throw ModelError("model: device cuda reads at most " + std::to_string(most_bins) + " bins, got " +
                     std::to_string(model_->radius_bins.size()));
  const std::size_t pixels = std::size_t(height_) * std::size_t(width_), edges = std::size_t(options_.max_edges);
  const std::size_t size = element(shapes_.type), batch = std::size_t(shapes_.head_batch);
  for (float** values :
       {&answers_.depth_probability, &answers_.radii, &answers_.radius_std, &answers_.radius_probability})
    arena_.reserve(*values, edges);
  for (std::uint8_t** mask : {&answers_.pattern_edges, &answers_.depth_edges}) arena_.reserve(*mask, pixels);
  arena_.reserve(image_, 3 * std::size_t(shapes_.image_height) * std::size_t(shapes_.image_width) * size);
  for (std::size_t i = 0; i < tiling_.outputs; ++i)
    arena_.reserve(trunk_outputs_[i],
                   std::size_t(tiling_.down * tiling_.across) * std::size_t(tiling_.features.tile_pitch) * size);
  if (shapes_.evaluation == Evaluation::patch)
    for (std::size_t i = 0; i < 3; ++i)
      arena_.reserve(inputs_[i], batch * 3 * std::size_t(crop_sizes[i] * crop_sizes[i]) * size);
  else
    arena_.reserve(inputs_[0], batch * std::size_t(tiling_.features.channels) * tiling_.positions * size);
  arena_.reserve(probabilities_, batch * std::max(model_->radius_bins.size(), std::size_t{2}) * size);
  arena_.allocate();
}

void Estimator::run(const DeviceFrame& frame, Stream stream) {
  answers_.bin_probabilities = frame.bin_probabilities;
  clock_.begin(Stage::detect_edges, stream);
  detect_edges(frame, stream);
  clock_.begin(Stage::extract_features, stream);
  extract_features(frame.image, stream);
  clock_.begin(Stage::classify_edges, stream);
  if (depth_threshold_ < 1) classify(frame.image, stream);
  clock_.begin(Stage::estimate_radii, stream);
  estimate(frame.image, stream);
  clock_.begin(Stage::propagate, stream);
  propagate(frame, stream);
  clock_.end(stream);
}

void Estimator::detect_edges(const DeviceFrame& frame, Stream stream) {
  clear_answers(height_, width_, edges(), answers_, stream);
  if (frame.edges.data)
    edge_detector_.copy_edges(frame.edges, answers_.pattern_edges, stream);
  else
    edge_detector_.detect_edges(frame.image, answers_.pattern_edges, stream);
  if (options_.edge_stride > 1) edge_detector_.keep_grid(options_.edge_stride, answers_.pattern_edges, stream);
  edge_detector_.list_edges(answers_.pattern_edges, stream);
}

void Estimator::extract_features(const ImageView& image, Stream stream) {
  const std::size_t bytes = std::size_t(tiling_.features.tile_pitch) * element(shapes_.type);
  for (int i = 0; i < tiling_.down * tiling_.across; ++i) {
    const int y = i / tiling_.across * tiling_.features.tile_height,
              x = i % tiling_.across * tiling_.features.tile_width;
    extract_tile(image, y - tiling_.margin, x - tiling_.margin, shapes_.image_height, shapes_.image_width, shapes_.type,
                 image_, stream);
    std::array<void*, 5> tensors{image_};
    for (std::size_t k = 0; k < tiling_.outputs; ++k) tensors[k + 1] = trunk_outputs_[k] + std::size_t(i) * bytes;
    networks_->enqueue(Graph::trunk, std::span(tensors).first(1 + tiling_.outputs), stream);
  }
}

template <class Use>
void Estimator::evaluate(Graph network, const ImageView& image, Stream stream, const Use& use) {
  const bool by_patch = shapes_.evaluation == Evaluation::patch;
  Features features = tiling_.features;
  // tip22: blur_u, blur_v, edge_u, edge_v. cells: one for both. By patch there are none.
  const std::size_t first_output = tiling_.outputs == 4 && network == Graph::edge_head ? 2 : 0;
  features.u = trunk_outputs_[first_output];
  features.v = trunk_outputs_[first_output + 1];
  const std::size_t inputs = by_patch ? 3 : 1;
  std::array<void*, 4> tensors{};
  std::copy_n(inputs_.begin(), inputs, tensors.begin());
  tensors[inputs] = probabilities_;
  for (int first = 0; first < edges().capacity; first += shapes_.head_batch) {
    if (by_patch)
      extract_patches(image, model_->crop_offset, edges(), first, shapes_.head_batch, shapes_.type, inputs_, stream);
    else
      gather(model_->architecture, features, edges(), first, shapes_.head_batch, shapes_.type, inputs_[0], stream);
    networks_->enqueue(network, std::span(tensors).first(inputs + 1), stream);
    use(first);
  }
}

void Estimator::classify(const ImageView& image, Stream stream) {
  const Graph network = shapes_.evaluation == Evaluation::patch ? Graph::edge_patch : Graph::edge_head;
  evaluate(network, image, stream, [&](int first) {
    cuda::classify(probabilities_, shapes_.type, width_, depth_threshold_, edges(), first, shapes_.head_batch, answers_,
                   stream);
  });
}

void Estimator::estimate(const ImageView& image, Stream stream) {
  const Graph network = shapes_.evaluation == Evaluation::patch ? Graph::blur_patch : Graph::blur_head;
  evaluate(network, image, stream, [&](int first) {
    cuda::estimate(probabilities_, shapes_.type, model_->radius_bins, options_.labels, edges(), first,
                   shapes_.head_batch, answers_, stream);
  });
}

void Estimator::propagate(const DeviceFrame& frame, Stream stream) {
  const ExpectedError error{frame.expected_error, float(model_->error_floor), float(model_->error_slope),
                            model_->radius_bins.back()};
  cuda::propagate(domain_transform_, frame.image, options_.propagation, edges(), answers_, options_.labels, frame.out,
                  error, stream);
}

}  // namespace defocus_fast::cuda
