// SPDX-License-Identifier: Apache-2.0
// The paper's networks with the features of both at every pixel that a patch around an edge holds, computed once per
// image instead of once per edge: every convolution is VALID and the pooled sizes divide evenly, so the features of
// overlapping patches are the same numbers (the pool becomes dense, the layers after it dilated by 3). Each layer is
// evaluated only where an edge looks at its output.
#pragma once

#include "convolutions.hpp"
#include "image.hpp"
#include "tile_networks.hpp"

namespace defocus_fast::cpu {

template <class T, class Hidden>
class Tip22 : public TileNetworks {
  using Convolutions = ListedConvolutions<T, Hidden>;
  using Features = typename Convolutions::Features;
  using Layer = typename Convolutions::Layer;
  using Plane = typename Convolutions::Plane;

 public:
  static TrunkWeights<Hidden> pack(const Model& model) {
    TrunkWeights<Hidden> weights;
    for (const LayerSpec& spec : layers())
      weights[spec.name] = pack_layer<Hidden>(model, spec, model.weight(spec.name).values, image_values);
    return weights;
  }

  Tip22(const Model& model, const TrunkWeights<Hidden>& weights, const Kernels& kernels, Workers& workers,
        const TileSize& tile)
      : net_(weights, model.width, kernels, workers, tile.height + 2 * margin, padded(tile.width + 2 * margin),
             14 * (padded(tile.width + 2 * margin) + 1), image_values),
        shift_(model.crop_offset) {
    if constexpr (std::is_same_v<T, float>)
      fuse_ = kernels.fuse_float;
    else
      fuse_ = kernels.fuse_bf16;
    for (Plane* plane : {&even_, &odd_, &branch1_, &branch2_, &edge_branch1_}) net_.make(*plane);
    for (Features* features : {&blur_u_, &blur_v_, &edge_u_, &edge_v_}) net_.make(*features);
    for (std::size_t p = 0; p < u_offset_.size(); ++p) {
      v_offset_[p] = ((std::ptrdiff_t(p) / 5 - 2) * net_.pitch + std::ptrdiff_t(p) % 5 - 2) * net_.channels;
      u_offset_[p] = 3 * v_offset_[p];
    }

    // Layers 2 to 4 read `planes` at `known`.
    const auto branch = [&](const std::string& name, const std::array<const Plane*, 3>& planes,
                            const std::array<const Needed*, 3>& known, int dilation) {
      const auto next = [&](std::size_t i) {
        return net_.layer(conv(name, int(i) + 1), {{planes[i - 1], known[i - 1]}}, dilation);
      };
      return std::array{net_.layer(conv(name, 1), {{&net_.image, nullptr}}, 1), next(1), next(2), next(3)};
    };
    const std::array<const Needed*, 3> pooled{&at_branch1_pool_, &at_branch1_[1], &at_branch1_[2]};
    branch1_convs_ = branch("branch1", {&odd_, &even_, &odd_}, pooled, 3);
    edge_branch1_convs_ = branch("edge_branch1", {&odd_, &even_, &odd_}, pooled, 3);
    branch2_convs_ = branch("branch2", {&even_, &odd_, &odd_}, {&at_branch2_[0], &at_branch2_[1], &at_branch2_[3]}, 1);
    branch3_convs_ = branch("branch3", {&even_, &odd_, &even_}, {&at_branch3_[0], &at_branch3_[1], &at_branch3_[2]}, 1);
    const typename Convolutions::Source of_branch1{&branch1_, &at_branch1_[3]},
        of_branch2{&branch2_, &at_branch2_[3], shift_}, of_branch3{&odd_, &at_branch3_[3], shift_},
        of_edge_branch1{&edge_branch1_, &at_branch1_[3]};
    blur_v_conv_ = net_.layer("blur.conv1.v", {of_branch3}, 1);
    edge_v_conv_ = net_.layer("edge.conv1.v", {of_branch3}, 1);
    blur_u_conv_ = net_.layer("blur.conv1.u", {of_branch1, of_branch2}, 3);
    edge_u_conv_ = net_.layer("edge.conv1.u", {of_edge_branch1, of_branch1, of_branch2}, 3);
  }

  void extract_features(const ImageView& image, int y0, int x0, const std::vector<Pixel>& edges) override {
    net_.workers.for_ranges(net_.rows, 16, [&](int begin, int end, int) {
      extract_pixels(image, y0 - margin + begin, x0 - margin, end - begin, net_.pitch, net_.image_channels,
                     net_.image.data() + std::ptrdiff_t(begin) * net_.pitch * net_.image_channels);
    });
    questions_.clear();
    question_of_edge_.clear();
    for (const Pixel edge : edges) {
      question_of_edge_.push_back(std::int32_t(questions_.size()));
      questions_.push_back((edge.y + margin) * net_.pitch + edge.x + margin);
    }
    plan();

    net_.convolve(branch3_convs_[0], at_branch3_[0], even_);
    net_.convolve(branch3_convs_[1], at_branch3_[1], odd_);
    net_.convolve(branch3_convs_[2], at_branch3_[2], even_);
    net_.convolve(branch3_convs_[3], at_branch3_[3], odd_);
    net_.convolve(blur_v_conv_, at_v_, blur_v_);
    net_.convolve(edge_v_conv_, at_v_, edge_v_);
    net_.convolve(branch2_convs_[0], at_branch2_[0], even_);
    net_.convolve(branch2_convs_[1], at_branch2_[1], odd_);
    net_.convolve(branch2_convs_[2], at_branch2_[2], even_);
    net_.pool(even_, at_branch2_[3], odd_);
    net_.convolve(branch2_convs_[3], at_branch2_[3], branch2_);
    const auto pooled_branch = [&](const std::array<Layer, 4>& convs, Plane& to) {
      net_.convolve(convs[0], at_branch1_[0], even_);
      net_.pool(even_, at_branch1_pool_, odd_);
      net_.convolve(convs[1], at_branch1_[1], even_);
      net_.convolve(convs[2], at_branch1_[2], odd_);
      net_.convolve(convs[3], at_branch1_[3], to);
    };
    pooled_branch(branch1_convs_, branch1_);
    pooled_branch(edge_branch1_convs_, edge_branch1_);
    net_.convolve(blur_u_conv_, at_u_, blur_u_);
    net_.convolve(edge_u_conv_, at_u_, edge_u_);
  }

  /// Writes the input of a head for one question: (positions, width).
  void gather(Head head, int question, T* out) const {
    const T* u = (head == Head::blur ? blur_u_ : edge_u_).data();
    const T* v = (head == Head::blur ? blur_v_ : edge_v_).data();
    const std::ptrdiff_t at = std::ptrdiff_t{questions_[std::size_t(question)]} * net_.channels;
    fuse_(u + at, v + at, u_offset_.data(), v_offset_.data(), net_.channels, out);
  }

 private:
  static constexpr int margin = 20;  // px that a patch reaches beyond its centre
  static constexpr ImageValues image_values{3, 4};

  static std::string conv(const std::string& branch, int i) { return branch + ".conv" + std::to_string(i); }

  static std::vector<LayerSpec> layers() {
    std::vector<LayerSpec> specs;
    for (const std::string branch : {"branch1", "edge_branch1", "branch2", "branch3"}) {
      specs.push_back({conv(branch, 1), {"image"}, 3});
      for (int i = 2; i <= 4; ++i)
        specs.push_back({conv(branch, i), {conv(branch, i - 1)}, branch == "branch2" && i == 4 ? 1 : 3});
    }
    // The first layer of the heads, split into what lies 3 px apart and what lies side by side.
    specs.push_back({"blur.conv1.u", {"branch1.conv4", "branch2.conv4"}, 3, Output::sums});
    specs.push_back({"edge.conv1.u", {"edge_branch1.conv4", "branch1.conv4", "branch2.conv4"}, 3, Output::sums});
    for (const std::string head : {"blur", "edge"})
      specs.push_back({head + ".conv1.v", {"branch3.conv4"}, 3, Output::sums});
    return specs;
  }

  /// To whole squares of layers that are dilated by 3.
  static int padded(int side) { return (side + 11) / 12 * 12; }

  /// From the edges back to the image: where every layer is needed.
  void plan() {
    net_.mark(questions_, at_edges_);
    net_.workers.for_ranges(2, 1, [&](int i, int, int) {
      Needed& at = i ? at_v_ : at_u_;
      net_.widen(at_edges_, i ? 1 : 3, 2, 0, at);
      net_.list_squares(at, i ? 1 : 3);
    });
    net_.workers.for_ranges(3, 1, [&](int branch, int, int) {
      auto& at = branch == 0 ? at_branch1_ : branch == 1 ? at_branch2_ : at_branch3_;
      if (branch == 0) {
        net_.widen(at_u_, 3, 1, 0, at[3]);
        for (std::size_t i = 3; i > 1; --i) net_.widen(at[i], 3, 1, 0, at[i - 1]);
        net_.widen(at[1], 3, 1, 0, at_branch1_pool_);
        net_.widen(at_branch1_pool_, 1, 1, 0, at[0]);
      } else {
        net_.widen(branch == 1 ? at_u_ : at_v_, branch == 1 ? 3 : 1, 1, shift_, at[3]);
        for (std::size_t i = 3; i > 0; --i) net_.widen(at[i], 1, 1, 0, at[i - 1]);
      }
      for (std::size_t i = 1; i < 4; ++i) net_.list_squares(at[i], branch == 0 ? 3 : 1);
    });
  }

  Convolutions net_;
  const int shift_;
  void (*fuse_)(const T* u, const T* v, const std::ptrdiff_t* u_offset, const std::ptrdiff_t* v_offset, int channels,
                T* out);
  std::array<std::ptrdiff_t, 25> u_offset_, v_offset_;
  Plane even_, odd_, branch1_, branch2_, edge_branch1_;
  Features blur_u_, blur_v_, edge_u_, edge_v_;
  std::array<Layer, 4> branch1_convs_, branch2_convs_, branch3_convs_, edge_branch1_convs_;
  Layer blur_u_conv_, blur_v_conv_, edge_u_conv_, edge_v_conv_;
  Needed at_edges_, at_u_, at_v_, at_branch1_pool_;
  std::array<Needed, 4> at_branch1_, at_branch2_, at_branch3_;  // by convolution; branch 2 pools where its last one is
};

}  // namespace defocus_fast::cpu
