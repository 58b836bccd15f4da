// SPDX-License-Identifier: Apache-2.0
#include "networks.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "defocus_fast/error.hpp"

namespace defocus_fast {

namespace {

constexpr int width = 5, hidden = 7;  // no multiples of anything
constexpr std::array<float, 4> bins{0.5f, 1.5f, 3.0f, 6.0f};

using Weights = std::map<std::string, std::vector<float>>;

/// Variance 2 / inputs (He), so that nothing fades or explodes with depth.
Weights random_weights() {
  std::mt19937 generator(7);
  Weights weights;
  const auto add = [&](const std::string& name, int outputs, int inputs) {
    std::normal_distribution<float> values(0, std::sqrt(2.0f / float(inputs)));
    for (int i = 0; i < outputs * inputs; ++i) weights[name].push_back(values(generator));
  };
  for (const std::string branch : {"branch1", "branch2", "branch3", "edge_branch1"})
    for (int i = 1; i <= 4; ++i)
      add(branch + ".conv" + std::to_string(i), width, i == 1 ? 27 : branch == "branch2" && i == 4 ? width : 9 * width);
  for (const std::string head : {"blur", "edge"}) {
    add(head + ".conv1.u", width, 9 * width * (head == "blur" ? 2 : 3));
    for (const char* name : {".conv1.v", ".conv2", ".conv3"}) add(head + name, width, 9 * width);
    add(head + ".conv4", width, width);
  }
  add("stem", width, 3 * 81);
  for (int i = 0; i < 2; ++i) add("convs." + std::to_string(i), width, 9 * width);
  return weights;
}

/// Two dense layers for either architecture: the number does not matter to what is tested here.
void add_dense(Weights& weights) {
  std::mt19937 generator(8);
  std::normal_distribution<float> values;
  for (const std::string head : {"blur", "edge"})
    for (const auto& [layer, in, out] :
         {std::tuple{".dense1", width, hidden}, {".dense2", hidden, head == "blur" ? int(bins.size()) : 2}}) {
      for (int i = 0; i < in * out; ++i) weights[head + layer + ".weight"].push_back(values(generator));
      for (int i = 0; i < out; ++i) weights[head + layer + ".bias"].push_back(0.1f * values(generator));
    }
}

const Weights& all_weights() {
  static const Weights weights = [] {
    Weights result = random_weights();
    add_dense(result);
    return result;
  }();
  return weights;
}

/// (channels, height, width)
struct Tensor {
  int channels, height, width;
  std::vector<float> values;
  Tensor(int c, int h, int w) : channels(c), height(h), width(w), values(std::size_t(c) * std::size_t(h * w)) {}
  float& at(int c, int y, int x) { return values[std::size_t((c * height + y) * width + x)]; }
};

Tensor convolve(Tensor in, const std::string& name, int kernel, int dilation = 1, int stride = 1, bool relu = true) {
  const std::vector<float>& weights = all_weights().at(name);
  const int outputs = int(weights.size()) / (in.channels * kernel * kernel), reach = (kernel - 1) * dilation;
  Tensor out(outputs, (in.height - reach - 1) / stride + 1, (in.width - reach - 1) / stride + 1);
  for (int o = 0; o < outputs; ++o)
    for (int y = 0; y < out.height; ++y)
      for (int x = 0; x < out.width; ++x) {
        const float* weight = weights.data() + o * in.channels * kernel * kernel;
        float sum = 0;
        for (int c = 0; c < in.channels; ++c)
          for (int i = 0; i < kernel; ++i)
            for (int j = 0; j < kernel; ++j)
              sum += *weight++ * in.at(c, y * stride + i * dilation, x * stride + j * dilation);
        out.at(o, y, x) = relu ? std::max(sum, 0.0f) : sum;
      }
  return out;
}

Tensor pool(Tensor in, int stride) {
  Tensor out(in.channels, (in.height - 3) / stride + 1, (in.width - 3) / stride + 1);
  for (int c = 0; c < out.channels; ++c)
    for (int y = 0; y < out.height; ++y)
      for (int x = 0; x < out.width; ++x) {
        float& most = out.at(c, y, x) = in.at(c, y * stride, x * stride);
        for (int i = 0; i < 9; ++i) most = std::max(most, in.at(c, y * stride + i / 3, x * stride + i % 3));
      }
  return out;
}

/// Without `before` rows and columns at the top left and `after` at the bottom right.
Tensor crop(Tensor in, int before, int after) {
  Tensor out(in.channels, in.height - before - after, in.width - before - after);
  for (int c = 0; c < out.channels; ++c)
    for (int y = 0; y < out.height; ++y)
      for (int x = 0; x < out.width; ++x) out.at(c, y, x) = in.at(c, y + before, x + before);
  return out;
}

Tensor concat(const std::vector<Tensor>& parts) {
  Tensor out(0, parts[0].height, parts[0].width);
  for (const Tensor& part : parts) {
    out.channels += part.channels;
    out.values.insert(out.values.end(), part.values.begin(), part.values.end());
  }
  return out;
}

// The branches of tip22 as model_io.py has them: `stride` 3 is the literal form, 1 the dense one.
Tensor branch1(const Tensor& image, const std::string& name, int stride) {
  Tensor x = pool(convolve(image, name + ".conv1", 3), stride);
  for (int i = 2; i <= 4; ++i) x = convolve(x, name + ".conv" + std::to_string(i), 3, 3 / stride);
  return x;
}
Tensor branch2(Tensor x, int stride) {
  for (int i = 1; i <= 3; ++i) x = convolve(x, "branch2.conv" + std::to_string(i), 3);
  return convolve(pool(x, stride), "branch2.conv4", 1);
}
Tensor branch3(Tensor x) {
  for (int i = 1; i <= 4; ++i) x = convolve(x, "branch3.conv" + std::to_string(i), 3);
  return x;
}

std::vector<Tensor> trunk(const Model& model, const Tensor& image) {
  if (model.architecture == Architecture::cells) {
    Tensor x = convolve(image, "stem", 9, 1, 3);
    for (int i = 0; i < model.depth; ++i) x = convolve(x, "convs." + std::to_string(i), 3);
    return {x};
  }
  const Tensor first = branch1(image, "branch1", 1), edge_first = branch1(image, "edge_branch1", 1);
  const Tensor second = branch2(crop(image, 7 + model.crop_offset, 7 - model.crop_offset), 1);
  const Tensor third = branch3(crop(image, 9 + model.crop_offset, 9 - model.crop_offset));
  return {convolve(concat({first, second}), "blur.conv1.u", 3, 3, 1, false),
          convolve(third, "blur.conv1.v", 3, 1, 1, false),
          convolve(concat({edge_first, first, second}), "edge.conv1.u", 3, 3, 1, false),
          convolve(third, "edge.conv1.v", 3, 1, 1, false)};
}

/// What a head reads, from the three crops of one edge.
Tensor fuse(const std::array<Tensor, 3>& crops, const std::string& head) {
  std::vector<Tensor> branches{branch1(crops[0], "branch1", 3), branch2(crops[1], 3)};
  if (head == "edge") branches.insert(branches.begin(), branch1(crops[0], "edge_branch1", 3));
  Tensor sum = convolve(concat(branches), head + ".conv1.u", 3, 1, 1, false);
  const Tensor v = convolve(branch3(crops[2]), head + ".conv1.v", 3, 1, 1, false);
  for (std::size_t i = 0; i < v.values.size(); ++i) sum.values[i] = std::max(sum.values[i] + v.values[i], 0.0f);
  return sum;
}

std::vector<float> predict(const Model& model, const std::string& head, Tensor x) {
  if (model.architecture == Architecture::tip22)
    x = convolve(convolve(convolve(x, head + ".conv2", 3), head + ".conv3", 3), head + ".conv4", 1);
  std::vector<float> values = x.values;
  for (const std::string layer : {".dense1", ".dense2"}) {
    std::vector<float> out = all_weights().at(head + layer + ".bias");
    const std::vector<float>& weights = all_weights().at(head + layer + ".weight");
    for (std::size_t o = 0; o < out.size(); ++o)
      for (std::size_t i = 0; i < values.size(); ++i)
        out[o] += (layer == ".dense1" ? values[i] : std::max(values[i], 0.0f)) * weights[i * out.size() + o];
    values = out;
  }
  float sum = 0;
  for (float& value : values) sum += value = std::exp(value);
  for (float& value : values) value /= sum;
  return values;
}

template <class T>
void evaluate(const Model& model, const cuda::NetworkShapes& shapes, cuda::Graph graph,
              std::span<void* const> tensors) {
  const auto read = [](const T*& from, Tensor to) {
    for (float& value : to.values) value = float(*from++);
    return to;
  };
  const T* in = static_cast<const T*>(tensors[0]);
  if (graph == cuda::Graph::trunk) {
    const std::vector<Tensor> outputs = trunk(model, read(in, Tensor(3, shapes.image_height, shapes.image_width)));
    if (outputs.size() + 1 != tensors.size()) throw Error("the trunk was not given a tensor for each output");
    for (std::size_t i = 0; i < outputs.size(); ++i)
      std::transform(outputs[i].values.begin(), outputs[i].values.end(), static_cast<T*>(tensors[i + 1]),
                     [](float value) { return T(value); });
    return;
  }
  const bool by_patch = shapes.evaluation == Evaluation::patch;
  if (tensors.size() != (by_patch ? 4 : 2)) throw Error("a network was not given a tensor for each input and output");
  const std::string head = std::string(cuda::graph_names[std::size_t(graph)]).substr(0, 4);  // edge or blur
  const int side = model.architecture == Architecture::tip22 ? 5 : 1;
  std::array<const T*, 3> crops{};
  for (std::size_t i = 0; by_patch && i < 3; ++i) crops[i] = static_cast<const T*>(tensors[i]);
  const auto read_crop = [&](std::size_t i) { return read(crops[i], {3, crop_sizes[i], crop_sizes[i]}); };
  T* out = static_cast<T*>(tensors.back());
  for (int k = 0; k < shapes.head_batch; ++k)
    for (const float p :
         predict(model, head,
                 by_patch ? fuse({read_crop(0), read_crop(1), read_crop(2)}, head) : read(in, {width, side, side})))
      *out++ = T(p);
}

}  // namespace

void test::HostNetworks::enqueue(cuda::Graph graph, std::span<void* const> tensors, cuda::Stream) {
  if (std::ranges::count(shapes_.graphs(), graph) == 0) throw Error("a graph that was not to be evaluated");
  for (void* tensor : tensors)
    if (reinterpret_cast<std::uintptr_t>(tensor) % 256 != 0) throw Error("a tensor is not on a 256-byte boundary");
  if (shapes_.type == cuda::TensorType::float32)
    evaluate<float>(model_, shapes_, graph, tensors);
  else
    evaluate<_Float16>(model_, shapes_, graph, tensors);
}

// In place of model.cpp and patch_networks.cpp, which read files and need OpenVINO.

Model load_model(const std::string& name) {
  Model model;
  model.folder = model.name = name;
  model.width = width;
  model.architecture = name == "cells" ? Architecture::cells : Architecture::tip22;
  model.depth = 2;
  model.crop_offset = 1;
  model.radius_bins.assign(bins.begin(), bins.end());
  model.error_floor = 0.25;
  model.error_slope = 2;
  return model;
}

Weights read_weights(const std::filesystem::path&) { return all_weights(); }

namespace cpu {

struct PatchNetworks::Impl {};
PatchNetworks::PatchNetworks(const Model&, Precision, int) { throw Error("no patch networks here"); }
PatchNetworks::~PatchNetworks() = default;
void PatchNetworks::check(const Model&) {}
std::array<float*, 3> PatchNetworks::crops(Head) { return {}; }
const float* PatchNetworks::predict(Head) { return nullptr; }

}  // namespace cpu
}  // namespace defocus_fast
