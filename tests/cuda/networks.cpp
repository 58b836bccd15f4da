// SPDX-License-Identifier: Apache-2.0
#include "networks.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <random>
#include <sstream>

#include "defocus_fast/error.hpp"

namespace defocus_fast {

namespace {

constexpr int width = 5, hidden = 7;  // no multiples of anything
constexpr std::array<float, 4> bins{0.5f, 1.5f, 3.0f, 6.0f};

/// Model folders of random weights, which load_model takes for the shipped ones: "tip22", "cells", and "learned", which
/// is "cells" with a network that says where radii may spread.
class ModelFolders {
 public:
  ModelFolders()
      : folder_(std::filesystem::temp_directory_path() / ("defocus_fast_emulation." + std::to_string(getpid()))) {
    for (const char* name : {"tip22", "cells", "learned"}) write(name);
    setenv("DEFOCUS_FAST_MODELS", folder_.c_str(), 1);
  }
  ~ModelFolders() { std::filesystem::remove_all(folder_); }
  ModelFolders(const ModelFolders&) = delete;
  ModelFolders& operator=(const ModelFolders&) = delete;

 private:
  void write(const std::string& name) const {
    const bool cells = name != "tip22";
    std::mt19937 generator(7);
    std::ostringstream text;
    std::vector<float> values;
    text << "format: 3\nname: " << name << "\nwidth: " << width
         << "\narchitecture: " << (cells ? "cells\ndepth: 2" : "tip22\ncrop_offset: 1")
         << "\ndepth_threshold: 0.5\nsigma_r: 0.5\niterations: 3\nerror_floor: 0.25\nerror_slope: 2\nradius_bins:";
    for (const float bin : bins) text << ' ' << bin;
    text << "\ntrained: not\n";
    const auto add = [&](const std::string& tensor, std::vector<int> shape, float deviation) {
      values.resize((values.size() + 15) / 16 * 16);
      text << "tensor " << tensor << ": " << values.size() * sizeof(float);
      int count = 1;
      for (const int side : shape) {
        text << ' ' << side;
        count *= side;
      }
      text << '\n';
      std::normal_distribution<float> distribution(0, deviation);
      for (int i = 0; i < count; ++i) values.push_back(distribution(generator));
    };
    // Variance 2 / inputs (He), so that nothing fades or explodes with depth.
    const auto convolution = [&](const std::string& tensor, int inputs, int kernel) {
      add(tensor, {width, inputs, kernel, kernel}, std::sqrt(2.0f / float(inputs * kernel * kernel)));
    };
    if (cells) {
      convolution("stem", 3, 9);
      for (int i = 0; i < 2; ++i) convolution("convs." + std::to_string(i), width, 3);
    } else {
      for (const std::string branch : {"branch1", "branch2", "branch3", "edge_branch1"})
        for (int i = 1; i <= 4; ++i)
          convolution(branch + ".conv" + std::to_string(i), i == 1 ? 3 : width, branch == "branch2" && i == 4 ? 1 : 3);
    }
    for (const std::string head : {"blur", "edge"}) {
      if (!cells) {
        convolution(head + ".conv1.u", (head == "blur" ? 2 : 3) * width, 3);
        for (const char* layer : {".conv1.v", ".conv2", ".conv3"}) convolution(head + layer, width, 3);
        convolution(head + ".conv4", width, 1);
      }
      std::vector<int> sizes{width, hidden, head == "blur" ? int(bins.size()) : 2};
      if (!cells) sizes.insert(sizes.begin() + 1, hidden + 2);
      for (std::size_t i = 1; i < sizes.size(); ++i) {
        const std::string layer = head + ".dense" + std::to_string(i);
        add(layer + ".weight", {sizes[i - 1], sizes[i]}, 1);
        add(layer + ".bias", {sizes[i]}, 0.1f);
      }
    }
    for (int i = 0, layers = int(learned::dilations.size()); name == "learned" && i <= layers; ++i) {
      const std::string layer = "propagation." + std::to_string(i);
      const int inputs = i == 0 ? learned::inputs : learned::width,
                outputs = i < layers ? learned::width : learned::outputs;
      const int side = i < layers ? 3 : 1;
      add(layer + ".weight", {outputs, inputs, side, side}, std::sqrt(2.0f / float(inputs * side * side)));
      add(layer + ".bias", {outputs}, 0.3f);
    }
    if (name == "learned") add("propagation.context.weight", {learned::context, learned::width}, 0.1f);
    std::filesystem::create_directories(folder_ / name);
    std::ofstream(folder_ / name / "model.txt") << text.str();
    std::ofstream(folder_ / name / "weights.bin", std::ios::binary)
        .write(reinterpret_cast<const char*>(values.data()), std::streamsize(values.size() * sizeof(float)));
  }

  const std::filesystem::path folder_;
};
const ModelFolders folders;

/// (channels, height, width)
struct Volume {
  int channels, height, width;
  std::vector<float> values;
  Volume(int c, int h, int w) : channels(c), height(h), width(w), values(std::size_t(c) * std::size_t(h * w)) {}
  float& at(int c, int y, int x) { return values[std::size_t((c * height + y) * width + x)]; }
};

Volume convolve(const Model& model, Volume in, const std::string& name, int kernel, int dilation = 1, int stride = 1,
                bool relu = true) {
  const std::span<const float> weights = model.weight(name).values;
  const int outputs = int(weights.size()) / (in.channels * kernel * kernel), reach = (kernel - 1) * dilation;
  Volume out(outputs, (in.height - reach - 1) / stride + 1, (in.width - reach - 1) / stride + 1);
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

Volume pool(Volume in, int stride) {
  Volume out(in.channels, (in.height - 3) / stride + 1, (in.width - 3) / stride + 1);
  for (int c = 0; c < out.channels; ++c)
    for (int y = 0; y < out.height; ++y)
      for (int x = 0; x < out.width; ++x) {
        float& most = out.at(c, y, x) = in.at(c, y * stride, x * stride);
        for (int i = 0; i < 9; ++i) most = std::max(most, in.at(c, y * stride + i / 3, x * stride + i % 3));
      }
  return out;
}

/// Without `before` rows and columns at the top left and `after` at the bottom right.
Volume crop(Volume in, int before, int after) {
  Volume out(in.channels, in.height - before - after, in.width - before - after);
  for (int c = 0; c < out.channels; ++c)
    for (int y = 0; y < out.height; ++y)
      for (int x = 0; x < out.width; ++x) out.at(c, y, x) = in.at(c, y + before, x + before);
  return out;
}

Volume concat(const std::vector<Volume>& parts) {
  Volume out(0, parts[0].height, parts[0].width);
  for (const Volume& part : parts) {
    out.channels += part.channels;
    out.values.insert(out.values.end(), part.values.begin(), part.values.end());
  }
  return out;
}

// The branches of tip22 as model_io.py has them: `stride` 3 is the literal form, 1 the dense one.
Volume branch1(const Model& model, const Volume& image, const std::string& name, int stride) {
  Volume x = pool(convolve(model, image, name + ".conv1", 3), stride);
  for (int i = 2; i <= 4; ++i) x = convolve(model, x, name + ".conv" + std::to_string(i), 3, 3 / stride);
  return x;
}
Volume branch2(const Model& model, Volume x, int stride) {
  for (int i = 1; i <= 3; ++i) x = convolve(model, x, "branch2.conv" + std::to_string(i), 3);
  return convolve(model, pool(x, stride), "branch2.conv4", 1);
}
Volume branch3(const Model& model, Volume x) {
  for (int i = 1; i <= 4; ++i) x = convolve(model, x, "branch3.conv" + std::to_string(i), 3);
  return x;
}

std::vector<Volume> trunk(const Model& model, const Volume& image) {
  if (model.architecture == Architecture::cells) {
    Volume x = convolve(model, image, "stem", 9, 1, 3);
    for (int i = 0; i < model.depth; ++i) x = convolve(model, x, "convs." + std::to_string(i), 3);
    return {x};
  }
  const Volume first = branch1(model, image, "branch1", 1), edge_first = branch1(model, image, "edge_branch1", 1);
  const Volume second = branch2(model, crop(image, 7 + model.crop_offset, 7 - model.crop_offset), 1);
  const Volume third = branch3(model, crop(image, 9 + model.crop_offset, 9 - model.crop_offset));
  return {convolve(model, concat({first, second}), "blur.conv1.u", 3, 3, 1, false),
          convolve(model, third, "blur.conv1.v", 3, 1, 1, false),
          convolve(model, concat({edge_first, first, second}), "edge.conv1.u", 3, 3, 1, false),
          convolve(model, third, "edge.conv1.v", 3, 1, 1, false)};
}

/// What a head reads, from the three crops of one edge.
Volume fuse(const Model& model, const std::array<Volume, 3>& crops, const std::string& head) {
  std::vector<Volume> branches{branch1(model, crops[0], "branch1", 3), branch2(model, crops[1], 3)};
  if (head == "edge") branches.insert(branches.begin(), branch1(model, crops[0], "edge_branch1", 3));
  Volume sum = convolve(model, concat(branches), head + ".conv1.u", 3, 1, 1, false);
  const Volume v = convolve(model, branch3(model, crops[2]), head + ".conv1.v", 3, 1, 1, false);
  for (std::size_t i = 0; i < v.values.size(); ++i) sum.values[i] = std::max(sum.values[i] + v.values[i], 0.0f);
  return sum;
}

std::vector<float> predict(const Model& model, const std::string& head, Volume x) {
  if (model.architecture == Architecture::tip22)
    x = convolve(model, convolve(model, convolve(model, x, head + ".conv2", 3), head + ".conv3", 3), head + ".conv4",
                 1);
  std::vector<float> values = x.values;
  for (int i = 1; model.tensors.contains(head + ".dense" + std::to_string(i) + ".bias"); ++i) {
    const std::string layer = ".dense" + std::to_string(i);
    const std::span<const float> bias = model.weight(head + layer + ".bias").values;
    const std::span<const float> weights = model.weight(head + layer + ".weight").values;
    std::vector<float> out(bias.begin(), bias.end());
    for (std::size_t o = 0; o < out.size(); ++o)
      for (std::size_t k = 0; k < values.size(); ++k)
        out[o] += (i == 1 ? values[k] : std::max(values[k], 0.0f)) * weights[k * out.size() + o];
    values = out;
  }
  float sum = 0;
  for (float& value : values) sum += value = std::exp(value);
  for (float& value : values) value /= sum;
  return values;
}

template <class T>
void evaluate(const Model& model, const cuda::NetworkShapes& shapes, cuda::Graph graph, Span<void* const> tensors) {
  const auto read = [](const T*& from, Volume to) {
    for (float& value : to.values) value = float(*from++);
    return to;
  };
  const T* in = static_cast<const T*>(tensors[0]);
  if (graph == cuda::Graph::trunk) {
    const std::vector<Volume> outputs = trunk(model, read(in, Volume(3, shapes.image_height, shapes.image_width)));
    if (outputs.size() + 1 != tensors.size()) throw Error("the trunk was not given a tensor for each output");
    for (std::size_t i = 0; i < outputs.size(); ++i)
      std::transform(outputs[i].values.begin(), outputs[i].values.end(), static_cast<T*>(tensors[i + 1]),
                     [](float value) { return T(value); });
    return;
  }
  const bool by_patch = shapes.evaluation == Evaluation::patch;
  if (tensors.size() != (by_patch ? 4 : 2)) throw Error("a network was not given a tensor for each input and output");
  const std::string head = std::string(cuda::graph_names[std::size_t(graph)]).substr(0, 4);  // edge or blur
  T* out = static_cast<T*>(tensors.back());
  const auto answer = [&](const Volume& features) {
    for (const float p : predict(model, head, features)) *out++ = T(p);
  };
  if (model.architecture == Architecture::cells) {
    Volume cells = read(in, Volume(model.width, shapes.cell_rows, shapes.cell_columns));
    for (int y = 0; y < cells.height; ++y)
      for (int x = 0; x < cells.width; ++x) {
        Volume of_cell(model.width, 1, 1);
        for (int c = 0; c < model.width; ++c) of_cell.at(c, 0, 0) = cells.at(c, y, x);
        answer(of_cell);
      }
    return;
  }
  std::array<const T*, 3> crops{};
  for (std::size_t i = 0; by_patch && i < 3; ++i) crops[i] = static_cast<const T*>(tensors[i]);
  const auto read_crop = [&](std::size_t i) { return read(crops[i], {3, crop_sizes[i], crop_sizes[i]}); };
  for (int k = 0; k < shapes.head_batch; ++k)
    answer(by_patch ? fuse(model, {read_crop(0), read_crop(1), read_crop(2)}, head) : read(in, {model.width, 5, 5}));
}

}  // namespace

void test::HostNetworks::enqueue(cuda::Graph graph, Span<void* const> tensors, cuda::Stream) {
  if (std::ranges::count(shapes_.graphs(), graph) == 0) throw Error("a graph that was not to be evaluated");
  for (void* tensor : tensors)
    if (reinterpret_cast<std::uintptr_t>(tensor) % 256 != 0) throw Error("a tensor is not on a 256-byte boundary");
  if (shapes_.type == cuda::TensorType::float32)
    evaluate<float>(*model_, shapes_, graph, tensors);
  else
    evaluate<_Float16>(*model_, shapes_, graph, tensors);
}

}  // namespace defocus_fast
