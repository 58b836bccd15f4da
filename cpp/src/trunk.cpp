// SPDX-License-Identifier: Apache-2.0
// Features of both networks, computed once per image instead of once per edge: every convolution of the networks is
// VALID and the pooled sizes divide evenly, so the features of overlapping patches are the same numbers (the pool
// becomes dense, the layers after it dilated by 3). Each layer is evaluated only where an edge looks at its output.
#include "defocus_fast/error.hpp"
#include "pack_weights.hpp"
#include "stages.hpp"

namespace defocus_fast::cpu {

namespace {

constexpr int pixels_per_task = 192;  // a multiple of every kernel's tile

/// Pixels of the grid at which a layer's output is needed.
struct Needed {
  std::vector<std::uint8_t> mask, rows;  // with `guard` bytes before and after; `rows` is scratch
  std::vector<std::int32_t> pixels;
  std::vector<std::int32_t> squares;  // of Winograd's filtering, by their first pixels; of layers that have it
};

/// What a layer writes: values for the layers after it, or features, which are of the heads' type, with ReLU or
/// without.
enum class Output : std::uint8_t { hidden, features, sums };

/// Convolutions at listed pixels of one grid: a tile with a margin around it, rows `pitch` pixels apart. Hidden is what
/// the planes of all layers hold but the last ones, whose hold T.
template <class T, class Hidden>
class ListedConvolutions : public Trunk<T> {
 protected:
  using Plane = std::vector<Hidden>;
  using Winograd = WinogradConvolution<Hidden, 4>;
  using Features = std::vector<T>;

  /// What a convolution reads: the outputs of the layer `from`, `shift` px down and right of the pixel; `known` is null
  /// for the image, which is known everywhere.
  struct Source {
    const Plane* plane;
    const Needed* known;
    int shift;
    std::string from;
  };
  struct Layer {
    std::vector<const Hidden*> taps;
    std::vector<Weight<Hidden>> weights;
    std::vector<float> scales;  // of integers
    int inputs;
    bool relu;
    std::vector<Source> sources;
    int dilation;
    std::vector<Hidden> winograd_weights;  // of layers that have it
  };

  /// `image_inputs` values of the image at every pixel of the grid, stored as `image_channels`, an even number.
  ListedConvolutions(const Model& model_, const NetworkKernels<Hidden>& kernels_, Workers& workers_, int rows,
                     int pitch_, int guard_, int image_inputs_, int image_channels_)
      : kernels(kernels_),
        workers(workers_),
        width(model_.width),
        channels(padded_features(model_.width)),
        pitch(pitch_),
        pixel_count(rows * pitch_),
        guard(guard_),
        image_inputs(image_inputs_),
        image_channels(image_channels_),
        image(std::size_t(pixel_count) * std::size_t(image_channels_)),
        model(model_),
        zeros(std::size_t(channels)),
        scratch(std::size_t(workers_.count())) {}

  template <class Values>
  void make(Values& plane) const {
    plane.resize(std::size_t(pixel_count) * std::size_t(channels));
  }

  Layer layer(const std::string& name, const std::vector<Source>& sources, int kernel, int dilation,
              Output output = Output::hidden) {
    return layer(name, model.weight(name).values, sources, kernel, dilation, output);
  }
  Layer layer(const std::string& name, std::span<const float> values, const std::vector<Source>& sources, int kernel,
              int dilation, Output output) {
    const bool first = sources[0].plane == &image;
    const std::size_t real = std::size_t(first ? image_inputs : width);
    const std::size_t inputs = std::size_t(first ? image_channels : channels);
    const std::size_t area = std::size_t(kernel * kernel), outputs = std::size_t(width);
    Layer result{{}, {}, {}, int(inputs), output != Output::sums, sources, dilation, {}};
    for (const Source& source : sources)
      for (int k = 0; k < kernel * kernel; ++k) {
        const int dy = (k / kernel - kernel / 2) * dilation + source.shift;
        const int dx = (k % kernel - kernel / 2) * dilation + source.shift;
        result.taps.push_back(source.plane->data() + std::ptrdiff_t(dy * pitch + dx) * std::ptrdiff_t(inputs));
      }
    const auto weight = [&](std::size_t o, std::size_t tap, std::size_t c) {
      const std::size_t s = tap / area, k = tap % area;
      return values[((o * sources.size() + s) * real + c) * area + k];
    };
    const int taps = int(result.taps.size());
    if constexpr (std::is_same_v<Hidden, std::uint8_t>) {
      // Of every output the largest weight becomes 127; weights hold what 1 in their source stands for.
      std::vector<float> step;
      for (const Source& source : sources) step.push_back(range(source.from) / 255);
      std::vector<float> largest(outputs);
      for (std::size_t o = 0; o < outputs; ++o)
        for (std::size_t tap = 0; tap < std::size_t(taps); ++tap)
          for (std::size_t c = 0; c < real; ++c)
            largest[o] = std::max(largest[o], std::abs(weight(o, tap, c) * step[tap / area]));
      result.weights =
          pack_weights<Hidden>(width, taps, int(real), int(inputs), [&](std::size_t o, std::size_t tap, std::size_t c) {
            return largest[o] > 0 ? weight(o, tap, c) * step[tap / area] / largest[o] * 127 : 0.0f;
          });
      result.scales.resize(std::size_t(channels));
      const float of_output = output == Output::hidden ? range(name) / 255 : 1.0f;
      for (std::size_t o = 0; o < outputs; ++o) result.scales[o] = largest[o] / 127 / of_output;
    } else {
      result.weights = pack_weights<Hidden>(width, taps, int(real), int(inputs), weight);
      if (kernel == 3 && !first) {
        result.winograd_weights = winograd_weights<Hidden, 4>(
            width, int(sources.size()), int(real), int(inputs),
            [&](std::size_t o, std::size_t s, std::size_t k, std::size_t c) { return weight(o, s * area + k, c); });
        number_squares(dilation);
        for (auto& [transformed, products] : scratch) {
          transformed.resize(std::max(transformed.size(), winograd_memory<4>(int(sources.size()) * channels)));
          products.resize(winograd_memory<4>(channels));
        }
      }
    }
    return result;
  }

  /// To a Plane or to Features.
  template <class Out>
  void convolve(const Layer& layer, const Needed& at, std::vector<Out>& to) {
    if constexpr (has_winograd && std::is_same_v<Out, Hidden>)
      // A square takes about as long as 5 pixels by themselves.
      if (!layer.winograd_weights.empty() && 5 * at.squares.size() < at.pixels.size()) {
        std::array<typename Winograd::Source, 3> sources;
        const auto convolution = winograd(layer, at, sources);
        workers.for_ranges(int(at.squares.size()), winograd_batch, [&](int begin, int end, int slot) {
          auto& [transformed, products] = scratch[std::size_t(slot)];
          kernels.convolve_4x4(convolution, at.squares.data() + begin, end - begin, transformed.data(), products.data(),
                               to.data());
        });
        return;
      }
    const Convolution<Hidden> convolution{
        layer.taps.data(), int(layer.taps.size()), layer.inputs, layer.inputs, layer.weights.data(), nullptr, channels,
        layer.relu,        layer.scales.data()};
    const auto run = [&] {
      if constexpr (std::is_same_v<Out, Hidden>)
        return kernels.convolve;
      else if constexpr (std::is_same_v<Out, float>)
        return kernels.convolve_to_float;
      else
        return kernels.convolve_to_bf16;
    }();
    workers.for_ranges(int(at.pixels.size()), pixels_per_task, [&](int begin, int end, int) {
      run(convolution, at.pixels.data() + begin, end - begin, to.data());
    });
  }

  /// `sources` are filled, and must outlive the answer.
  Winograd winograd(const Layer& layer, const Needed& at, std::array<typename Winograd::Source, 3>& sources) const {
    const auto pixels = [&](int n) { return std::ptrdiff_t{n} * (pitch + 1); };
    for (std::size_t s = 0; s < layer.sources.size(); ++s) {
      const Source& source = layer.sources[s];
      sources[s] = {source.plane->data() + pixels(source.shift) * channels,
                    source.known->mask.data() + guard + pixels(source.shift)};
    }
    Winograd convolution{sources.data(),
                         int(layer.sources.size()),
                         channels,
                         zeros.data(),
                         {},
                         {},
                         layer.winograd_weights.data(),
                         channels,
                         layer.relu,
                         at.mask.data() + guard};
    for (int k = 0; k < Winograd::read; ++k)
      convolution.in[std::size_t(k)] = ((k / 6 - 1) * pitch + k % 6 - 1) * layer.dilation;
    for (int k = 0; k < Winograd::computed; ++k)
      convolution.out[std::size_t(k)] = (k / 4 * pitch + k % 4) * layer.dilation;
    return convolution;
  }

  /// The squares of 4 x 4 pixels, `step` px apart, that hold any of the pixels.
  void list_squares(Needed& at, int step) const {
    if constexpr (has_winograd) {
      const std::vector<std::int32_t>& first = first_of_square[std::size_t(step)];
      at.squares.clear();
      at.rows.assign(at.rows.size(), 0);
      for (const std::int32_t pixel : at.pixels)
        if (auto& listed = at.rows[std::size_t(first[std::size_t(pixel)])]; !listed) {
          listed = 1;
          at.squares.push_back(first[std::size_t(pixel)]);
        }
    }
  }

  void number_squares(int step) {
    std::vector<std::int32_t>& first = first_of_square[std::size_t(step)];
    if (!first.empty()) return;
    const auto begin = [step](int i) { return i / (4 * step) * (4 * step) + i % step; };
    for (int pixel = 0; pixel < pixel_count; ++pixel)
      first.push_back(begin(pixel / pitch) * pitch + begin(pixel % pitch));
  }

  void pool(const Plane& from, const Needed& at, Plane& to) {
    workers.for_ranges(int(at.pixels.size()), pixels_per_task, [&](int begin, int end, int) {
      kernels.pool(from.data(), std::ptrdiff_t(pitch) * channels, channels, at.pixels.data() + begin, end - begin,
                   to.data());
    });
  }

  /// The pixels of the edges.
  void mark(const std::vector<std::int32_t>& pixels, Needed& to) const {
    to.mask.assign(std::size_t(pixel_count + 2 * guard), 0);
    for (const std::int32_t pixel : pixels) to.mask[std::size_t(guard + pixel)] = 1;
  }

  /// The pixels that are read where `from` is computed by a layer whose taps are `step` px apart, `reach` of them on
  /// each side, and `shift_px` down and right. The margin keeps all of them inside the tile, so rows never wrap.
  void widen(const Needed& from, int step, int reach, int shift_px, Needed& to) const {
    to.mask.assign(from.mask.size(), 0);
    to.rows.assign(from.mask.size(), 0);
    const std::uint8_t* in = from.mask.data() + guard - shift_px * (pitch + 1);
    std::uint8_t* rows = to.rows.data() + guard;
    std::uint8_t* out = to.mask.data() + guard;
    for (int k = -reach; k <= reach; ++k)
      for (int i = 0; i < pixel_count; ++i) rows[i] |= in[i + k * step];
    for (int k = -reach; k <= reach; ++k)
      for (int i = 0; i < pixel_count; ++i) out[i] |= rows[i + k * step * pitch];
    to.pixels.clear();
    for (int i = 0; i < pixel_count; ++i)
      if (out[i]) to.pixels.push_back(i);
  }

  float range(const std::string& of_layer) const { return of_layer == "image" ? 1.0f : model.ranges.at(of_layer); }

  const NetworkKernels<Hidden>& kernels;
  Workers& workers;
  const int width, channels, pitch, pixel_count;
  const int guard;  // bytes beyond a mask that shifted reads may touch
  const int image_inputs, image_channels;
  Plane image;
  const Model& model;

 private:
  static constexpr bool has_winograd = !std::is_same_v<Hidden, std::uint8_t>;
  std::vector<Hidden> zeros;
  std::array<std::vector<std::int32_t>, 4> first_of_square;  // by dilation, for each pixel
  struct Scratch {
    std::vector<Hidden> transformed;
    std::vector<float> products;
  };
  std::vector<Scratch> scratch;  // one per worker
};

/// The paper's networks: features of both at every pixel that a patch around an edge holds.
template <class T, class Hidden>
class Tip22Trunk : public ListedConvolutions<T, Hidden> {
  using Base = ListedConvolutions<T, Hidden>;
  using Base::channels, Base::convolve, Base::image, Base::image_channels, Base::layer, Base::list_squares, Base::mark,
      Base::pitch, Base::pool, Base::widen, Base::workers;
  using typename Base::Features;
  using typename Base::Layer;
  using typename Base::Plane;

  static constexpr int margin = 20;  // px that a patch reaches beyond its centre

  /// To whole squares of layers that are dilated by 3.
  static int padded(int side) { return (side + 11) / 12 * 12; }

 public:
  Tip22Trunk(const Model& model, const NetworkKernels<Hidden>& trunk_kernels, const Kernels& kernels, Workers& workers_,
             const TileSize& tile)
      : Base(model, trunk_kernels, workers_, tile.height + 2 * margin, padded(tile.width + 2 * margin),
             14 * (padded(tile.width + 2 * margin) + 1), 3, 4),
        tile_(tile),
        shift_(model.crop_offset) {
    if constexpr (std::is_same_v<T, float>)
      fuse_ = kernels.fuse_float;
    else
      fuse_ = kernels.fuse_bf16;
    for (Plane* plane : {&even, &odd, &branch1, &branch2, &edge_branch1}) this->make(*plane);
    for (Features* features : {&blur_u, &blur_v, &edge_u, &edge_v}) this->make(*features);
    for (std::size_t p = 0; p < u_offset_.size(); ++p) {
      v_offset_[p] = ((std::ptrdiff_t(p) / 5 - 2) * pitch + std::ptrdiff_t(p) % 5 - 2) * channels;
      u_offset_[p] = 3 * v_offset_[p];
    }

    // Layers 2 to 4 read `planes` at `known`; a pool keeps the range of what it reads.
    const auto branch = [&](const std::string& name, const std::array<const Plane*, 3>& planes,
                            const std::array<const Needed*, 3>& known, int dilation, int last_kernel) {
      const auto conv = [&](std::size_t i, int kernel) {
        const std::string from = name + ".conv" + std::to_string(i);
        return layer(name + ".conv" + std::to_string(i + 1), {{planes[i - 1], known[i - 1], 0, from}}, kernel,
                     dilation);
      };
      return std::array{layer(name + ".conv1", {{&image, nullptr, 0, "image"}}, 3, 1), conv(1, 3), conv(2, 3),
                        conv(3, last_kernel)};
    };
    const std::array<const Needed*, 3> pooled{&at_branch1_pool, &at_branch1[1], &at_branch1[2]};
    branch1_convs = branch("branch1", {&odd, &even, &odd}, pooled, 3, 3);
    edge_branch1_convs = branch("edge_branch1", {&odd, &even, &odd}, pooled, 3, 3);
    branch2_convs = branch("branch2", {&even, &odd, &odd}, {&at_branch2[0], &at_branch2[1], &at_branch2[3]}, 1, 1);
    branch3_convs = branch("branch3", {&even, &odd, &even}, {&at_branch3[0], &at_branch3[1], &at_branch3[2]}, 1, 3);
    const typename Base::Source of_branch1{&branch1, &at_branch1[3], 0, "branch1.conv4"},
        of_branch2{&branch2, &at_branch2[3], shift_, "branch2.conv4"},
        of_branch3{&odd, &at_branch3[3], shift_, "branch3.conv4"},
        of_edge_branch1{&edge_branch1, &at_branch1[3], 0, "edge_branch1.conv4"};
    blur_v_conv = layer("blur.conv1.v", {of_branch3}, 3, 1, Output::sums);
    edge_v_conv = layer("edge.conv1.v", {of_branch3}, 3, 1, Output::sums);
    blur_u_conv = layer("blur.conv1.u", {of_branch1, of_branch2}, 3, 3, Output::sums);
    edge_u_conv = layer("edge.conv1.u", {of_edge_branch1, of_branch1, of_branch2}, 3, 3, Output::sums);
  }

  void load(const ImageView& picture, int y0, int x0) override {
    const int rows = tile_.height + 2 * margin;
    workers.for_ranges(rows, 16, [&](int begin, int end, int) {
      extract_pixels(picture, y0 - margin + begin, x0 - margin, end - begin, pitch, image_channels,
                     image.data() + std::ptrdiff_t(begin) * pitch * image_channels);
    });
  }

  void extract_features(const std::vector<Pixel>& edges) override {
    plan(edges);
    convolve(branch3_convs[0], at_branch3[0], even);
    convolve(branch3_convs[1], at_branch3[1], odd);
    convolve(branch3_convs[2], at_branch3[2], even);
    convolve(branch3_convs[3], at_branch3[3], odd);
    convolve(blur_v_conv, at_v, blur_v);
    convolve(edge_v_conv, at_v, edge_v);
    convolve(branch2_convs[0], at_branch2[0], even);
    convolve(branch2_convs[1], at_branch2[1], odd);
    convolve(branch2_convs[2], at_branch2[2], even);
    pool(even, at_branch2[3], odd);
    convolve(branch2_convs[3], at_branch2[3], branch2);
    const auto pooled_branch = [&](const std::array<Layer, 4>& convs, Plane& to) {
      convolve(convs[0], at_branch1[0], even);
      pool(even, at_branch1_pool, odd);
      convolve(convs[1], at_branch1[1], even);
      convolve(convs[2], at_branch1[2], odd);
      convolve(convs[3], at_branch1[3], to);
    };
    pooled_branch(branch1_convs, branch1);
    pooled_branch(edge_branch1_convs, edge_branch1);
    convolve(blur_u_conv, at_u, blur_u);
    convolve(edge_u_conv, at_u, edge_u);
  }

  void gather(Head head, Pixel edge, T* out) const override {
    const T* u = (head == Head::blur ? blur_u : edge_u).data();
    const T* v = (head == Head::blur ? blur_v : edge_v).data();
    const std::ptrdiff_t at = std::ptrdiff_t{index(edge)} * channels;
    fuse_(u + at, v + at, u_offset_.data(), v_offset_.data(), channels, out);
  }

 private:
  std::int32_t index(Pixel pixel) const { return (pixel.y + margin) * pitch + pixel.x + margin; }

  /// From the edges back to the image: where every layer is needed.
  void plan(const std::vector<Pixel>& edges) {
    indices_.clear();
    for (const Pixel edge : edges) indices_.push_back(index(edge));
    mark(indices_, at_edges);
    workers.for_ranges(2, 1, [&](int i, int, int) {
      Needed& at = i ? at_v : at_u;
      widen(at_edges, i ? 1 : 3, 2, 0, at);
      list_squares(at, i ? 1 : 3);
    });
    workers.for_ranges(3, 1, [&](int branch, int, int) {
      if (branch == 0) {
        widen(at_u, 3, 1, 0, at_branch1[3]);
        for (std::size_t i = 3; i > 1; --i) widen(at_branch1[i], 3, 1, 0, at_branch1[i - 1]);
        widen(at_branch1[1], 3, 1, 0, at_branch1_pool);
        widen(at_branch1_pool, 1, 1, 0, at_branch1[0]);
      } else {
        auto& at = branch == 1 ? at_branch2 : at_branch3;
        widen(branch == 1 ? at_u : at_v, branch == 1 ? 3 : 1, 1, shift_, at[3]);
        for (std::size_t i = 3; i > 0; --i) widen(at[i], 1, 1, 0, at[i - 1]);
      }
      for (std::size_t i = 1; i < 4; ++i)
        list_squares((branch == 0 ? at_branch1 : branch == 1 ? at_branch2 : at_branch3)[i], branch == 0 ? 3 : 1);
    });
  }

  const TileSize tile_;
  const int shift_;
  void (*fuse_)(const T* u, const T* v, const std::ptrdiff_t* u_offset, const std::ptrdiff_t* v_offset, int channels,
                T* out);
  std::array<std::ptrdiff_t, 25> u_offset_, v_offset_;
  Plane even, odd, branch1, branch2, edge_branch1;
  Features blur_u, blur_v, edge_u, edge_v;
  std::array<Layer, 4> branch1_convs, branch2_convs, branch3_convs, edge_branch1_convs;
  Layer blur_u_conv, blur_v_conv, edge_u_conv, edge_v_conv;
  std::vector<std::int32_t> indices_;
  Needed at_edges, at_u, at_v, at_branch1_pool;
  std::array<Needed, 4> at_branch1, at_branch2, at_branch3;  // by convolution; branch 2 pools where its last one is
};

/// One network for both questions, asked once per cell of 3 x 3 pixels: a pixel of the grid is a cell here, its values
/// those of its pixels.
template <class T, class Hidden>
class CellTrunk : public ListedConvolutions<T, Hidden> {
  using Base = ListedConvolutions<T, Hidden>;
  using Base::channels, Base::convolve, Base::image, Base::image_channels, Base::layer, Base::list_squares, Base::mark,
      Base::pitch, Base::widen, Base::workers;
  using typename Base::Features;
  using typename Base::Layer;
  using typename Base::Plane;

 public:
  CellTrunk(const Model& model, const NetworkKernels<Hidden>& kernels, Workers& workers_, const TileSize& tile)
      : Base(model, kernels, workers_, tile.height / cell + 2 * (model.depth + 1),
             padded(tile.width / cell + 2 * (model.depth + 1)),
             5 * (padded(tile.width / cell + 2 * (model.depth + 1)) + 1), 27, 28),
        rows_(tile.height / cell + 2 * (model.depth + 1)),
        margin_(model.depth + 1),
        at_(std::size_t(model.depth + 2)) {
    for (Plane& plane : planes_) this->make(plane);
    this->make(features_);
    const std::vector<float> stem = by_cell(model.weight("stem").values);
    std::string from = "image", name = "stem";
    for (int i = 0; i <= model.depth; ++i) {
      const typename Base::Source read =
          i == 0 ? typename Base::Source{&image, nullptr, 0, from}
                 : typename Base::Source{&planes_[std::size_t(i + 1) % 2], &at_[std::size_t(i) - 1], 0, from};
      layers_.push_back(layer(name, i == 0 ? stem : model.weight(name).values, {read}, 3, 1,
                              i == model.depth ? Output::features : Output::hidden));
      from = name;
      name = "convs." + std::to_string(i);
    }
  }

  void load(const ImageView& picture, int y0, int x0) override {
    workers.for_ranges(rows_, 8, [&](int begin, int end, int) {
      for (int row = begin; row < end; ++row)
        extract_cells(picture, y0 + (row - margin_) * cell, x0 - margin_ * cell, pitch, image_channels,
                      image.data() + std::ptrdiff_t(row) * pitch * image_channels);
    });
  }

  void extract_features(const std::vector<Pixel>& edges) override {
    indices_.clear();
    for (const Pixel edge : edges) indices_.push_back(index(edge));
    mark(indices_, at_.back());
    widen(at_.back(), 1, 0, 0, at_[at_.size() - 2]);
    for (std::size_t i = at_.size() - 2; i > 0; --i) {
      widen(at_[i], 1, 1, 0, at_[i - 1]);
      list_squares(at_[i], 1);
    }
    for (std::size_t i = 0; i < layers_.size() - 1; ++i) convolve(layers_[i], at_[i], planes_[i % 2]);
    convolve(layers_.back(), at_[layers_.size() - 1], features_);
  }

  void gather(Head, Pixel edge, T* out) const override {
    std::copy_n(features_.data() + std::ptrdiff_t{index(edge)} * channels, channels, out);
  }

 private:
  /// To whole squares.
  static int padded(int side) { return (side + 3) / 4 * 4; }

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

  std::int32_t index(Pixel pixel) const { return (pixel.y / cell + margin_) * pitch + pixel.x / cell + margin_; }

  const int rows_, margin_;
  std::array<Plane, 2> planes_;
  Features features_;
  std::vector<Layer> layers_;
  std::vector<std::int32_t> indices_;
  std::vector<Needed> at_;  // by layer; then the edges
};

}  // namespace

template <class T, class Hidden>
std::unique_ptr<Trunk<T>> make_trunk(const Model& model, const NetworkKernels<Hidden>& trunk_kernels,
                                     const Kernels& kernels, Workers& workers, const TileSize& tile) {
  if (model.architecture == Architecture::cells)
    return std::make_unique<CellTrunk<T, Hidden>>(model, trunk_kernels, workers, tile);
  return std::make_unique<Tip22Trunk<T, Hidden>>(model, trunk_kernels, kernels, workers, tile);
}
template std::unique_ptr<Trunk<float>> make_trunk(const Model&, const NetworkKernels<float>&, const Kernels&, Workers&,
                                                  const TileSize&);
template std::unique_ptr<Trunk<std::uint16_t>> make_trunk(const Model&, const NetworkKernels<std::uint16_t>&,
                                                          const Kernels&, Workers&, const TileSize&);
template std::unique_ptr<Trunk<float>> make_trunk(const Model&, const NetworkKernels<std::uint8_t>&, const Kernels&,
                                                  Workers&, const TileSize&);
template std::unique_ptr<Trunk<std::uint16_t>> make_trunk(const Model&, const NetworkKernels<std::uint8_t>&,
                                                          const Kernels&, Workers&, const TileSize&);

}  // namespace defocus_fast::cpu
