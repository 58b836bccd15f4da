// SPDX-License-Identifier: Apache-2.0
// One network for both questions, asked once per cell of 3 x 3 pixels: a pixel of the grid is a cell here, its values
// those of its pixels. Each layer is evaluated only where a cell with an edge looks at its output.
#pragma once

#include "convolutions.hpp"
#include "image.hpp"
#include "tile_networks.hpp"

namespace defocus_fast::cpu {

template <class T, class Hidden>
class Cells : public TileNetworks {
  using Convolutions = ListedConvolutions<T, Hidden>;

 public:
  static TrunkWeights<Hidden> pack(const Model& model) {
    TrunkWeights<Hidden> weights;
    for (const LayerSpec& spec : layers(model.depth)) {
      const std::span<const float> values = model.weight(spec.name).values;
      weights[spec.name] = spec.name == "stem" ? pack_layer<Hidden>(model, spec, by_cell(values), image_values)
                                               : pack_layer<Hidden>(model, spec, values, image_values);
    }
    return weights;
  }

  Cells(const Model& model, const TrunkWeights<Hidden>& weights, const Kernels& kernels, Workers& workers,
        const TileSize& tile)
      : margin_(model.depth + 1),
        net_(weights, model.width, kernels, workers, tile.height / cell + 2 * margin_,
             padded(tile.width / cell + 2 * margin_), 5 * (padded(tile.width / cell + 2 * margin_) + 1), image_values),
        question_at_(std::size_t(net_.pixel_count), -1),
        at_(std::size_t(model.depth + 1)) {
    for (auto& plane : planes_) net_.make(plane);
    net_.make(features_);
    const std::vector<LayerSpec> specs = layers(model.depth);
    for (std::size_t i = 0; i < specs.size(); ++i) {
      const typename Convolutions::Source read =
          i == 0 ? typename Convolutions::Source{&net_.image, nullptr}
                 : typename Convolutions::Source{&planes_[(i + 1) % 2], &at_[i - 1]};
      layers_.push_back(net_.layer(specs[i].name, {read}, 1));
    }
  }

  void extract_features(const ImageView& image, int y0, int x0, const std::vector<Pixel>& edges) override {
    list_questions(edges);
    net_.mark(questions_, at_questions_);
    net_.widen(at_questions_, 1, 0, 0, at_.back());
    for (std::size_t i = at_.size() - 1; i > 0; --i) {
      net_.list_squares(at_[i], 1);
      net_.widen(at_[i], 1, 1, 0, at_[i - 1]);
    }
    // Of the image the rows that the stem reads.
    const std::vector<std::int32_t>& stem = at_.front().pixels;
    const int first = stem.front() / net_.pitch - 1, last = stem.back() / net_.pitch + 1;
    net_.workers.for_ranges(last - first + 1, 8, [&](int begin, int end, int) {
      for (int row = first + begin; row < first + end; ++row)
        extract_cells(image, y0 + (row - margin_) * cell, x0 - margin_ * cell, net_.pitch, net_.image_channels,
                      net_.image.data() + std::ptrdiff_t(row) * net_.pitch * net_.image_channels);
    });
    for (std::size_t i = 0; i + 1 < layers_.size(); ++i) net_.convolve(layers_[i], at_[i], planes_[i % 2]);
    net_.convolve(layers_.back(), at_.back(), features_);
  }

  /// Writes the input of either head for one question: (width).
  void gather(Head, int question, T* out) const {
    const std::ptrdiff_t at = std::ptrdiff_t{questions_[std::size_t(question)]} * net_.channels;
    std::copy_n(features_.data() + at, net_.channels, out);
  }

 private:
  static constexpr ImageValues image_values{27, 28};

  static std::string conv(int i) { return "convs." + std::to_string(i); }

  static std::vector<LayerSpec> layers(int depth) {
    std::vector<LayerSpec> specs{{"stem", {"image"}, 3}};
    for (int i = 0; i < depth; ++i) specs.push_back({conv(i), {specs.back().name}, 3});
    specs.back().output = Output::features;
    return specs;
  }

  /// A convolution over 9 x 9 pixels of 3 channels as one over 3 x 3 cells of 27 values.
  static std::vector<float> by_cell(std::span<const float> pixels) {
    constexpr std::size_t side = 3 * cell, area = side * side;
    std::vector<float> cells(pixels.size());
    for (std::size_t i = 0; i < pixels.size(); ++i) {
      const std::size_t output = i / (3 * area), channel = i / area % 3, y = i / side % side, x = i % side;
      const std::size_t value = (y % cell * cell + x % cell) * 3 + channel;
      cells[(output * 27 + value) * 9 + y / cell * 3 + x / cell] = pixels[i];
    }
    return cells;
  }

  /// To whole squares.
  static int padded(int side) { return (side + 3) / 4 * 4; }

  /// One question for all edges in a cell.
  void list_questions(const std::vector<Pixel>& edges) {
    for (const std::int32_t question : questions_) question_at_[std::size_t(question)] = -1;  // the last tile's
    questions_.clear();
    question_of_edge_.clear();
    for (const Pixel edge : edges) {
      const std::int32_t at = (edge.y / cell + margin_) * net_.pitch + edge.x / cell + margin_;
      std::int32_t& question = question_at_[std::size_t(at)];
      if (question < 0) {
        question = std::int32_t(questions_.size());
        questions_.push_back(at);
      }
      question_of_edge_.push_back(question);
    }
  }

  const int margin_;
  Convolutions net_;
  std::vector<std::int32_t> question_at_;  // by cell of the grid; -1: none
  std::array<typename Convolutions::Plane, 2> planes_;
  typename Convolutions::Features features_;
  std::vector<typename Convolutions::Layer> layers_;
  Needed at_questions_;
  std::vector<Needed> at_;  // by layer
};

}  // namespace defocus_fast::cpu
