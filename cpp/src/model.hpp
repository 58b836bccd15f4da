// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace defocus_fast {

/// tip22: the paper's networks. cells: one network that answers per cell of 3 x 3 pixels.
enum class Architecture : std::uint8_t { tip22, cells };
inline constexpr int cell = 3;  // px
/// px of the crops around an edge that tip22's whole networks read.
inline constexpr std::array<int, 3> crop_sizes{41, 27, 15};

/// Some of a model's weights, in row-major order: convolutions are (out, in, ky, kx), dense weights (in, out).
struct Tensor {
  std::vector<int> shape;
  std::span<const float> values;
};

/// A model folder (python/defocus_fast/model_io.py writes it). Everything in it has been checked: numbers are in their
/// ranges, the tensors are those that the architecture, width, depth and bins imply, and all weights are finite.
struct Model {
  Model() = default;
  Model(const Model&) = delete;  // tensors point into it
  Model& operator=(const Model&) = delete;

  std::filesystem::path folder;
  std::string name;
  int width = 0;  // channels of every convolution
  Architecture architecture = Architecture::tip22;
  int depth = 0;        // cells: 3 x 3 convolutions after the first
  int crop_offset = 0;  // tip22: px that the 27 and 15 px crops lie down and right of the 41 px crop's centre
  std::vector<float> radius_bins;  // px, ascending
  // Defaults with posterior labels.
  double depth_threshold = 0.5;
  double sigma_r = 0.5;
  int iterations = 3;
  double error_floor = 0, error_slope = 1;  // a and b of BlurMap::expected_error
  /// What the outputs of the trunk's layers, but for its last ones, reach after ReLU; for Precision::int8. May be
  /// empty.
  std::map<std::string, float> ranges;
  std::map<std::string, Tensor> tensors;
  std::vector<float> values;  // weights.bin, which the tensors point into

  const Tensor& weight(const std::string& tensor) const { return tensors.at(tensor); }
  /// Whether it has the network that says where radii may spread; see `learned` in formulas.hpp.
  bool learns_distances() const { return tensors.contains("propagation.0.weight"); }
};

/// Where this library lies, or the program that it is linked into.
std::filesystem::path library_folder();

/// Reads a model by name or folder. Throws ModelError, which names the file, what was got and what is accepted.
std::shared_ptr<const Model> load_model(const std::string& name_or_folder);

/// The same from memory: `text` is that of model.txt. Once it is accepted, `read` is asked to fill the memory for the
/// `size` bytes of weights.bin.
std::shared_ptr<const Model> parse_model(const std::filesystem::path& folder, std::string_view text, std::size_t size,
                                         const std::function<void(std::span<std::byte>)>& read);

/// Whether the networks are the same, whatever folder they were read from.
bool same_networks(const Model& a, const Model& b);

/// px that the trunk reads around what it is asked about.
inline int network_margin(const Model& model) {
  return model.architecture == Architecture::cells ? cell * (model.depth + 1) : 20;
}

/// px, of the square whose edges share an answer.
inline int question_side(const Model& model) { return model.architecture == Architecture::cells ? cell : 1; }

/// Rows and columns from an edge to the corner of its i-th crop.
inline int crop_corner(std::size_t i, int crop_offset) { return (i > 0 ? crop_offset : 0) - crop_sizes[i] / 2; }

/// Of tiles of equal size and at most `most` px that cover `length`; the last one may reach beyond it.
inline int tile_side(const Model& model, int length, int most) {
  const int tiles = (length + most - 1) / most, least = (length + tiles - 1) / tiles;
  return model.architecture == Architecture::cells ? (least + cell - 1) / cell * cell : least;
}

}  // namespace defocus_fast
