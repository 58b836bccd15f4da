// SPDX-License-Identifier: Apache-2.0
// Frames on the device: the stages in order, as in cpp/src/cpu_estimator.cpp.
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
  const int rows = cells ? shapes.cell_rows : tile_height + 12, columns = cells ? shapes.cell_columns : tile_width + 12;
  // Networks::enqueue promises 256 bytes of alignment.
  const std::size_t bytes = std::size_t(model.width) * std::size_t(rows) * std::size_t(columns) * element(shapes.type);
  return {.down = (height - 1) / tile_height + 1,
          .across = (width - 1) / tile_width + 1,
          .height = tile_height,
          .width = tile_width,
          .margin = margin,
          .rows = rows,
          .columns = columns,
          .pitch = (bytes + 255) / 256 * 256};
}

}  // namespace

Estimator::Estimator(const DeviceSetup& setup)
    : height_(setup.height),
      width_(setup.width),
      options_(setup.options),
      model_(setup.model),
      depth_threshold_(setup.depth_threshold),
      propagation_(setup.propagation),
      shapes_(setup.shapes),
      networks_(setup.options.networks),
      bins_(model_->radius_bins),
      tiling_(tile(*model_, height_, width_, shapes_)),
      edge_detector_(height_, width_, options_.canny, arena_),
      domain_transform_(height_, width_, arena_) {
  const bool cells = model_->architecture == Architecture::cells, patch = shapes_.evaluation == Evaluation::patch;
  const std::size_t pixels = std::size_t(height_) * std::size_t(width_), size = element(shapes_.type);
  edges_.capacity = cells ? std::int32_t(pixels) : setup.max_edges;
  if (!cells) arena_.reserve(edges_.position, std::size_t(edges_.capacity));
  arena_.reserve(edges_.count, 1);
  arena_.reserve(edges_.before_block, blocks_for(std::int64_t(pixels)));

  answers_.height = height_;
  answers_.width = width_;
  answers_.side = cells ? cell : 1;
  for (std::uint8_t** mask : {&answers_.pattern_edges, &answers_.depth_edges}) arena_.reserve(*mask, pixels);
  for (float** values :
       {&answers_.depth_probability, &answers_.radius, &answers_.radius_std, &answers_.radius_probability})
    arena_.reserve(*values, std::size_t(answers_.down()) * std::size_t(answers_.across()));

  arena_.reserve(image_, 3 * std::size_t(shapes_.image_height) * std::size_t(shapes_.image_width) * size);
  for (std::size_t i = 0; !patch && i < (cells ? 1 : 4); ++i)
    arena_.reserve(trunk_outputs_[i], std::size_t(tiling_.down * tiling_.across) * tiling_.pitch);
  const std::size_t batch = std::size_t(shapes_.head_batch);
  for (std::size_t i = 0; patch && i < 3; ++i)
    arena_.reserve(inputs_[i], batch * 3 * std::size_t(crop_sizes[i] * crop_sizes[i]) * size);
  if (!patch && !cells) arena_.reserve(inputs_[0], batch * std::size_t(model_->width) * 25 * size);
  const std::size_t asked = cells ? std::size_t(tiling_.rows) * std::size_t(tiling_.columns) : batch;
  arena_.reserve(probabilities_, asked * std::max(model_->radius_bins.size(), std::size_t{2}) * size);
  arena_.allocate();
}

std::size_t Estimator::bin_rows() const {
  return by_cell() ? std::size_t(answers_.down()) * std::size_t(answers_.across()) : std::size_t(edges_.capacity);
}

void Estimator::run(const DeviceFrame& frame, Stream stream) {
  clock_.begin(Stage::detect_edges, stream);
  detect_edges(frame, stream);
  clock_.begin(Stage::extract_features, stream);
  extract_features(frame.image, stream);
  clock_.begin(Stage::classify_edges, stream);
  classify_edges(frame.image, stream);
  clock_.begin(Stage::estimate_radii, stream);
  estimate_radii(frame, stream);
  clock_.begin(Stage::propagate, stream);
  propagate(frame, stream);
  clock_.end(stream);
}

void Estimator::detect_edges(const DeviceFrame& frame, Stream stream) {
  // Until the edges are classified, all of them stand in the mask of pattern edges.
  std::uint8_t* const mask = answers_.pattern_edges;
  if (frame.edges.data)
    edge_detector_.copy_edges(frame.edges, mask, stream);
  else
    edge_detector_.detect_edges(frame.image, mask, stream);
  if (frame.edge_stride > 1) edge_detector_.keep_grid(frame.edge_stride, mask, stream);
  list_edges(answers_, edges_, stream);
}

void Estimator::extract_features(const ImageView& image, Stream stream) {
  for (int i = 0; i < tiling_.down * tiling_.across; ++i) {
    const int y = i / tiling_.across * tiling_.height, x = i % tiling_.across * tiling_.width;
    extract_tile(image, y - tiling_.margin, x - tiling_.margin, shapes_.image_height, shapes_.image_width, shapes_.type,
                 image_, stream);
    std::array<void*, 5> tensors{image_};
    std::size_t count = 1;
    for (std::byte* output : trunk_outputs_)
      if (output) tensors[count++] = output + std::size_t(i) * tiling_.pitch;
    networks_->enqueue(Graph::trunk, std::span(tensors).first(count), stream);
  }
}

template <class Read>
void Estimator::ask(Head head, const ImageView& image, Stream stream, const Read& read) {
  const bool edge = head == Head::edge;
  if (by_cell()) {
    for (int i = 0; i < tiling_.down * tiling_.across; ++i) {
      const std::array<void*, 2> tensors{trunk_outputs_[0] + std::size_t(i) * tiling_.pitch, probabilities_};
      networks_->enqueue(edge ? Graph::edge_head : Graph::blur_head, tensors, stream);
      read(CellTile{i / tiling_.across * tiling_.rows, i % tiling_.across * tiling_.columns, tiling_.rows,
                    tiling_.columns});
    }
    return;
  }
  const std::size_t first_output = edge ? 2 : 0;
  const Features features{.u = trunk_outputs_[first_output],
                          .v = trunk_outputs_[first_output + 1],
                          .tiles_across = tiling_.across,
                          .tile_height = tiling_.height,
                          .tile_width = tiling_.width,
                          .channels = model_->width,
                          .rows = tiling_.rows,
                          .columns = tiling_.columns,
                          .tile_pitch = tiling_.pitch / element(shapes_.type)};
  for (int first = 0; first < edges_.capacity; first += shapes_.head_batch) {
    const Batch batch{edges_, first, shapes_.head_batch};
    if (shapes_.evaluation == Evaluation::patch) {
      extract_patches(image, model_->crop_offset, batch, shapes_.type, inputs_, stream);
      const std::array<void*, 4> tensors{inputs_[0], inputs_[1], inputs_[2], probabilities_};
      networks_->enqueue(edge ? Graph::edge_patch : Graph::blur_patch, tensors, stream);
    } else {
      gather(features, batch, shapes_.type, inputs_[0], stream);
      const std::array<void*, 2> tensors{inputs_[0], probabilities_};
      networks_->enqueue(edge ? Graph::edge_head : Graph::blur_head, tensors, stream);
    }
    read(batch);
  }
}

void Estimator::classify_edges(const ImageView& image, Stream stream) {
  if (depth_threshold_ >= 1) return;  // no edge is a depth edge, and the arena's zeros are the answers
  ask(Head::edge, image, stream,
      [&](const auto& asked) { read_depth(probabilities_, shapes_.type, asked, answers_, stream); });
  split_edges(depth_threshold_, answers_, stream);
}

void Estimator::estimate_radii(const DeviceFrame& frame, Stream stream) {
  ask(Head::blur, frame.image, stream, [&](const auto& asked) {
    read_radii(probabilities_, shapes_.type, bins_, options_.labels, asked, answers_, frame.bin_probabilities, stream);
  });
}

void Estimator::propagate(const DeviceFrame& frame, Stream stream) {
  const ExpectedError error{frame.expected_error, float(model_->error_floor), float(model_->error_slope),
                            model_->radius_bins.back()};
  domain_transform_.propagate(frame.image, propagation_, answers_, options_.labels, frame.out, error, stream);
}

}  // namespace defocus_fast::cuda
