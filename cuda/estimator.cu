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
    : height_(setup.height + setup.period - 1),
      width_(setup.width + setup.period - 1),
      period_(setup.period),
      options_(setup.options),
      model_(setup.model),
      depth_threshold_(setup.depth_threshold),
      propagation_(setup.propagation),
      shapes_(setup.shapes),
      networks_(setup.options.networks),
      bins_(model_->radius_bins),
      domain_transform_(height_ >> propagation_.octave, width_ >> propagation_.octave, arena_) {
  const bool patch = shapes_.evaluation == Evaluation::patch;
  const std::size_t size = element(shapes_.type);
  const int octaves = octave_count(setup.height, setup.width, options_.octaves);
  for (int number = 0; number < octaves; ++number) {
    const int height = height_ >> number, width = width_ >> number;
    const std::size_t pixels = std::size_t(height) * std::size_t(width);
    Octave& octave = octaves_.emplace_back(number > 0 ? height : setup.height, number > 0 ? width : setup.width,
                                           canny_of(options_, number, setup.height, setup.width), arena_);
    if (number == 0 && period_ > 1) arena_.reserve(octave.pad, 1);
    if (number > 0) arena_.reserve(octave.pixels, pixels * 3 * sizeof(float));

    EdgeList& edges = octave.edges;
    edges.capacity = std::int32_t(by_cell() ? pixels : std::min(pixels, std::size_t(setup.max_edges)));
    if (!by_cell()) arena_.reserve(edges.position, std::size_t(edges.capacity));
    arena_.reserve(edges.count, 1);
    arena_.reserve(edges.before_block, blocks_for(std::int64_t(pixels)));

    Answers& answers = octave.answers;
    answers.height = height;
    answers.width = width;
    answers.side = question_side(*model_);
    for (std::uint8_t** mask : {&answers.pattern_edges, &answers.depth_edges}) arena_.reserve(*mask, pixels);
    if (number > 0) arena_.reserve(answers.said, pixels);
    for (float** values :
         {&answers.depth_probability, &answers.radius, &answers.radius_std, &answers.radius_probability})
      arena_.reserve(*values, std::size_t(answers.down()) * std::size_t(answers.across()));

    octave.tiling = tile(*model_, height, width, shapes_);
  }
  if (const int octave = propagation_.octave; octave > 0) {
    const std::size_t pixels = std::size_t(height_ >> octave) * std::size_t(width_ >> octave);
    arena_.reserve(barriers_, pixels);
    for (float** plane : {&spread_map_, &spread_error_}) arena_.reserve(*plane, pixels);
    if (setup.learns_distances)
      distances_.emplace(*model_, height_ >> octave, width_ >> octave,
                         learned::size(setup.height >> octave, setup.width >> octave), arena_);
  }

  arena_.reserve(image_, 3 * std::size_t(shapes_.image_height) * std::size_t(shapes_.image_width) * size);
  const std::size_t batch = std::size_t(shapes_.head_batch);
  for (std::size_t i = 0; patch && i < 3; ++i)
    arena_.reserve(inputs_[i], batch * 3 * std::size_t(crop_sizes[i] * crop_sizes[i]) * size);
  if (!patch && !by_cell()) arena_.reserve(inputs_[0], batch * std::size_t(model_->width) * 25 * size);
  const Tiling& tiling = octaves_.front().tiling;  // the largest
  for (std::size_t i = 0; !patch && i < (by_cell() ? 1 : 4); ++i)
    arena_.reserve(trunk_outputs_[i], std::size_t(tiling.down * tiling.across) * tiling.pitch);
  const std::size_t asked = by_cell() ? std::size_t(tiling.rows) * std::size_t(tiling.columns) : batch;
  arena_.reserve(probabilities_, asked * std::max(model_->radius_bins.size(), std::size_t{2}) * size);
  arena_.allocate();
  if (distances_) distances_->upload();
}

std::size_t Estimator::bin_rows(const Octave& octave) const {
  return by_cell() ? std::size_t(octave.answers.down()) * std::size_t(octave.answers.across())
                   : std::size_t(octave.edges.capacity);
}

std::size_t Estimator::bin_rows() const {
  std::size_t rows = 0;
  for (const Octave& octave : octaves_) rows += bin_rows(octave);
  return rows;
}

float* Estimator::bin_probabilities(const DeviceFrame& frame, std::size_t octave) const {
  if (!frame.bin_probabilities) return nullptr;
  std::size_t row = 0;
  for (std::size_t i = 0; i < octave; ++i) row += bin_rows(octaves_[i]);
  return frame.bin_probabilities + row * std::size_t(bins_.count);
}

void Estimator::run(const DeviceFrame& frame, Stream stream) {
  for (std::size_t step = 0; step < count(frame); ++step) {
    const std::size_t i = std::size_t(octave_of_step(int(step), int(count(frame))));
    Octave& octave = octaves_[i];
    clock_.begin(step, Stage::detect_edges, stream);
    if (step == 0) {
      octaves_[0].image = frame.image;
      detect_first_edges(frame, stream);
      reduce(frame, stream);
    }
    detect_edges(frame, i, stream);
    clock_.begin(step, Stage::extract_features, stream);
    extract_features(octave, stream);
    clock_.begin(step, Stage::classify_edges, stream);
    classify_edges(octave, stream);
    clock_.begin(step, Stage::estimate_radii, stream);
    estimate_radii(frame, i, stream);
  }
  clock_.begin(0, Stage::propagate, stream);
  propagate(frame, stream);
  clock_.end(stream);
}

void Estimator::reduce(const DeviceFrame& frame, Stream stream) {
  for (std::size_t i = 1; i < std::max(count(frame), std::size_t(propagation_.octave) + 1); ++i) {
    Octave& octave = octaves_[i];
    const ImageView& image = octaves_[i - 1].image;
    const std::ptrdiff_t size = image.type == PixelType::uint8 ? 1 : sizeof(float);
    octave.image = ImageView::interleaved(octave.pixels, image.type, octave.answers.height, octave.answers.width,
                                          image.channels, octave.answers.width * image.channels * size);
    cuda::reduce(image, octaves_[i - 1].pad, octave.image, octave.pixels, stream);
  }
}

/// Those of the first octave, by which the others are placed. Until edges are classified, all of them stand in the mask
/// of pattern edges.
void Estimator::detect_first_edges(const DeviceFrame& frame, Stream stream) {
  Octave& octave = octaves_[0];
  std::uint8_t* const mask = octave.answers.pattern_edges;
  if (frame.edges.data) {
    if (octave.pad) check(cudaMemsetAsync(octave.pad, 0, sizeof *octave.pad, stream), "cudaMemsetAsync");
    copy_edges(frame.edges, octave.canvas(), mask, stream);
  } else {
    octave.detector.detect_edges(octave.image, stream);
    if (octave.pad) octave.detector.place(period_, octave.pad, stream);
    octave.detector.write_mask(octave.canvas(), mask, stream);
  }
  if (frame.edge_stride > 1) keep_grid(frame.edge_stride, octave.canvas(), mask, stream);
}

void Estimator::detect_edges(const DeviceFrame& frame, std::size_t number, Stream stream) {
  Octave& octave = octaves_[number];
  if (number > 0) {
    octave.detector.detect_edges(octave.image, stream);
    octave.detector.write_mask(octave.canvas(), octave.answers.pattern_edges, stream);
  }
  const int octaves = int(count(frame)), own = int(number);
  if (own != first_read(octaves))
    drop_edges(octaves_[std::size_t(told_by(own, octaves))].answers, octave.answers, stream);
  list_edges(octave.answers, octave.edges, stream);
}

void Estimator::extract_features(const Octave& octave, Stream stream) {
  const Tiling& tiling = octave.tiling;
  for (int i = 0; i < tiling.down * tiling.across; ++i) {
    const int y = i / tiling.across * tiling.height, x = i % tiling.across * tiling.width;
    extract_tile(octave.image, octave.canvas(), y - tiling.margin, x - tiling.margin, shapes_.image_height,
                 shapes_.image_width, shapes_.type, image_, stream);
    std::array<void*, 5> tensors{image_};
    std::size_t count = 1;
    for (std::byte* output : trunk_outputs_)
      if (output) tensors[count++] = output + std::size_t(i) * tiling.pitch;
    networks_->enqueue(Graph::trunk, {tensors.data(), count}, stream);
  }
}

template <class Read>
void Estimator::ask(Head head, const Octave& octave, Stream stream, const Read& read) {
  const Tiling& tiling = octave.tiling;
  const bool edge = head == Head::edge;
  if (by_cell()) {
    for (int i = 0; i < tiling.down * tiling.across; ++i) {
      const std::array<void*, 2> tensors{trunk_outputs_[0] + std::size_t(i) * tiling.pitch, probabilities_};
      networks_->enqueue(edge ? Graph::edge_head : Graph::blur_head, tensors, stream);
      read(CellTile{i / tiling.across * tiling.rows, i % tiling.across * tiling.columns, tiling.rows, tiling.columns});
    }
    return;
  }
  const std::size_t first_output = edge ? 2 : 0;
  const Features features{.u = trunk_outputs_[first_output],
                          .v = trunk_outputs_[first_output + 1],
                          .tiles_across = tiling.across,
                          .tile_height = tiling.height,
                          .tile_width = tiling.width,
                          .channels = model_->width,
                          .rows = tiling.rows,
                          .columns = tiling.columns,
                          .tile_pitch = tiling.pitch / element(shapes_.type)};
  for (int first = 0; first < octave.edges.capacity; first += shapes_.head_batch) {
    const Batch batch{octave.edges, first, shapes_.head_batch};
    if (shapes_.evaluation == Evaluation::patch) {
      extract_patches(octave.image, octave.canvas(), model_->crop_offset, batch, shapes_.type, inputs_, stream);
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

void Estimator::classify_edges(const Octave& octave, Stream stream) {
  if (depth_threshold_ >= 1) return;  // no edge is a depth edge, and the arena's zeros are the answers
  ask(Head::edge, octave, stream,
      [&](const auto& asked) { read_depth(probabilities_, shapes_.type, asked, octave.answers, stream); });
  split_edges(depth_threshold_, octave.answers, stream);
}

void Estimator::estimate_radii(const DeviceFrame& frame, std::size_t number, Stream stream) {
  const Octave& octave = octaves_[number];
  float* const kept = bin_probabilities(frame, number);
  ask(Head::blur, octave, stream, [&](const auto& asked) {
    read_radii(probabilities_, shapes_.type, bins_, options_.labels, asked, octave.answers, kept, stream);
  });
  if (number > 0) note_answers(octave.answers, int(number), int(number) == first_read(int(count(frame))), stream);
}

void Estimator::propagate(const DeviceFrame& frame, Stream stream) {
  Octaves octaves;
  octaves.count = int(count(frame));
  octaves.largest_radius = model_->radius_bins.back();
  for (std::size_t i = 0; i < octaves_.size(); ++i) octaves.answers[i] = octaves_[i].answers;
  const Octave& spread = octaves_[std::size_t(propagation_.octave)];
  const bool enlarged = propagation_.octave > 0;
  const auto view = [&](float* data) {
    return MapView{data, spread.answers.height, spread.answers.width,
                   spread.answers.width * std::ptrdiff_t{sizeof(float)}};
  };
  ExpectedError error{frame.expected_error, float(model_->error_floor), float(model_->error_slope),
                      model_->radius_bins.back() * float(1 << (octaves.count - 1))};
  if (enlarged) {
    mark_barriers(octaves, propagation_.octave, barriers_, stream);
    if (error.out.data) error.out = view(spread_error_);
  }
  domain_transform_.propagate(spread.image, propagation_, octaves, enlarged ? barriers_ : spread.answers.depth_edges,
                              distances_ && !frame.edges.data ? &*distances_ : nullptr, options_.labels,
                              enlarged ? view(spread_map_) : frame.out, error, stream);
  if (!enlarged) return;
  const Pixel* const pad = octaves_[0].pad;
  enlarge(view(spread_map_), propagation_.octave, pad, frame.out, stream);
  if (error.out.data) enlarge(error.out, propagation_.octave, pad, frame.expected_error, stream);
}

}  // namespace defocus_fast::cuda
