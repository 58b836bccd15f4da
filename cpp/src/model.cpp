// SPDX-License-Identifier: Apache-2.0
#include "model.hpp"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>

#include "defocus_fast/error.hpp"
#include "formulas.hpp"

namespace defocus_fast {

namespace {

static_assert(std::endian::native == std::endian::little, "weights.bin is read as it is");

constexpr std::size_t most_text = std::size_t{1} << 20, most_weights = std::size_t{1} << 28;  // bytes
constexpr int alignment = 64;                                                                 // of tensors, in bytes
constexpr int most_bins = 64, most_width = 1024, most_depth = 64, most_dense = 4096;
constexpr double most_radius = 1000;  // px
/// Of the networks' answers before the softmax. Sums of weights of sense stay far below it; float ends at 3e38, and
/// filtering by Winograd's method passes through larger numbers than its answers.
constexpr double most_answer = 1e25;

/// As it may stand in a message, whatever it is.
std::string quote(std::string_view text) {
  std::string result(text.substr(0, 60));
  for (char& c : result)
    if (c < ' ' || c > '~') c = '?';
  return '"' + result + (text.size() > 60 ? "\"..." : "\"");
}

std::string shape_text(const std::vector<int>& shape) {
  std::string text;
  for (const int side : shape) text += (text.empty() ? "" : " x ") + std::to_string(side);
  return text;
}

/// What stands between single spaces.
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> words;
  for (std::size_t end = 0; end != std::string_view::npos; text.remove_prefix(std::min(end + 1, text.size()))) {
    end = text.find(' ');
    words.push_back(text.substr(0, end));
  }
  return words;
}

/// The `key: value` lines of model.txt.
class Metadata {
 public:
  Metadata(std::filesystem::path file, std::string_view text) : file_(std::move(file)) {
    if (text.starts_with("\xEF\xBB\xBF") || text.find('\r') != std::string_view::npos)
      fail("expected lines that end with LF, and no byte order mark, got CR or such a mark");
    while (!text.empty()) {
      const std::string_view line = text.substr(0, text.find('\n'));
      text.remove_prefix(std::min(line.size() + 1, text.size()));
      const std::size_t colon = line.find(": ");
      if (colon == std::string_view::npos) fail("expected lines \"key: value\", got " + quote(line));
      if (!values_.emplace(line.substr(0, colon), line.substr(colon + 2)).second)
        fail("expected each key once, got " + quote(line.substr(0, colon)) + " twice");
    }
  }

  [[noreturn]] void fail(const std::string& what) const { throw ModelError(file_.string() + ": " + what); }

  /// The value of a key, which is then done with.
  std::string_view take(const std::string& key) {
    known_ += (known_.empty() ? "" : ", ") + key;
    const auto found = values_.find(key);
    if (found == values_.end()) fail("expected a line \"" + key + ": ...\", got none");
    return values_.extract(found).mapped();
  }
  /// The keys that begin with `prefix`, without it, and their values.
  std::map<std::string, std::string_view> take_all(std::string_view prefix) {
    known_ += ", " + std::string(prefix) + "<name>";
    std::map<std::string, std::string_view> taken;
    for (auto i = values_.lower_bound(prefix); i != values_.end() && i->first.starts_with(prefix); i = values_.erase(i))
      taken.emplace(i->first.substr(prefix.size()), i->second);
    return taken;
  }
  bool contains(std::string_view key) const { return values_.contains(key); }
  /// Fails unless all keys were taken.
  void finish() const {
    if (!values_.empty()) fail("unknown key " + quote(values_.begin()->first) + "; accepted: " + known_);
  }

  template <class T>
  T number(const std::string& key, std::string_view text, T least, T most) const {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || !(value >= least && value <= most)) {
      std::ostringstream message;
      message << key << ": expected " << (std::is_integral_v<T> ? "an integer" : "a number") << " in [" << least << ", "
              << most << "], got " << quote(text);
      fail(message.str());
    }
    return value;
  }
  template <class T>
  T take_number(const std::string& key, T least, T most) {
    return number(key, take(key), least, most);
  }

 private:
  std::filesystem::path file_;
  std::map<std::string_view, std::string_view, std::less<>> values_;
  std::string known_;
};

std::vector<float> parse_bins(Metadata& metadata) {
  const auto words = split(metadata.take("radius_bins"));
  if (words.size() > most_bins)
    metadata.fail("radius_bins: expected at most " + std::to_string(most_bins) + ", got " +
                  std::to_string(words.size()));
  std::vector<float> bins;
  for (const std::string_view word : words) {
    bins.push_back(metadata.number("radius_bins", word, 0.0f, float(most_radius)));
    if (bins.size() > 1 && !(bins.back() > bins[bins.size() - 2]))
      metadata.fail("radius_bins: expected ascending radii, got " + quote(word) + " behind a larger or equal one");
  }
  return bins;
}

/// The tensors of a model, by name; of dense layers' widths those that `found` has.
std::map<std::string, std::vector<int>> expected_shapes(const Model& model,
                                                        const std::map<std::string, Tensor>& found) {
  const int width = model.width;
  const bool cells = model.architecture == Architecture::cells;
  std::map<std::string, std::vector<int>> shapes;
  if (cells) {
    shapes["stem"] = {width, 3, 3 * cell, 3 * cell};
    for (int i = 0; i < model.depth; ++i) shapes["convs." + std::to_string(i)] = {width, width, 3, 3};
  } else {
    for (const std::string branch : {"branch1", "branch2", "branch3", "edge_branch1"})
      for (int i = 1; i <= 4; ++i) {
        const int kernel = branch == "branch2" && i == 4 ? 1 : 3;
        shapes[branch + ".conv" + std::to_string(i)] = {width, i == 1 ? 3 : width, kernel, kernel};
      }
  }
  for (const std::string head : {"blur", "edge"}) {
    if (!cells) {
      shapes[head + ".conv1.u"] = {width, (head == "blur" ? 2 : 3) * width, 3, 3};
      for (const char* layer : {".conv1.v", ".conv2", ".conv3"}) shapes[head + layer] = {width, width, 3, 3};
      shapes[head + ".conv4"] = {width, width, 1, 1};
    }
    int inputs = width;
    for (int i = 1, layers = cells ? 2 : 3; i <= layers; ++i) {
      const std::string layer = head + ".dense" + std::to_string(i);
      const auto bias = found.find(layer + ".bias");
      int outputs = head == "blur" ? int(model.radius_bins.size()) : 2;
      if (i < layers) outputs = bias == found.end() ? 1 : std::min(bias->second.shape[0], most_dense);
      shapes[layer + ".weight"] = {inputs, outputs};
      shapes[layer + ".bias"] = {outputs};
      inputs = outputs;
    }
  }
  if (found.contains("propagation.0.weight")) {
    for (int i = 0, layers = int(learned::dilations.size()); i <= layers; ++i) {
      const std::string layer = "propagation." + std::to_string(i);
      const int outputs = i < layers ? learned::width : int(learned::outputs), side = i < layers ? 3 : 1;
      shapes[layer + ".weight"] = {outputs, i == 0 ? learned::inputs : learned::width, side, side};
      shapes[layer + ".bias"] = {outputs};
    }
    shapes["propagation.context.weight"] = {learned::context, learned::width};
  }
  return shapes;
}

/// Where every tensor begins, in bytes.
std::map<std::string, std::size_t> parse_index(Metadata& metadata, Model& model) {
  std::map<std::string, std::size_t> offsets;
  for (const auto& [name, value] : metadata.take_all("tensor ")) {
    const std::string key = "tensor " + quote(name);
    const auto words = split(value);
    if (words.size() < 2 || words.size() > 5)
      metadata.fail(key + ": expected an offset and 1 to 4 sides, got " + quote(value));
    offsets[name] = metadata.number(key, words[0], std::size_t{0}, most_weights);
    for (std::size_t i = 1; i < words.size(); ++i)
      model.tensors[name].shape.push_back(metadata.number(key, words[i], 1, std::numeric_limits<int>::max()));
  }
  const auto shapes = expected_shapes(model, model.tensors);
  for (const auto& [name, shape] : shapes)
    if (const auto found = model.tensors.find(name); found == model.tensors.end() || found->second.shape != shape)
      metadata.fail("tensor \"" + name + "\": expected shape " + shape_text(shape) + ", got " +
                    (found == model.tensors.end() ? "none" : shape_text(found->second.shape)));
  for (const auto& [name, tensor] : model.tensors)
    if (!shapes.contains(name)) metadata.fail("tensor " + quote(name) + ": expected none of this name, got one");
  return offsets;
}

/// The layers whose ranges Precision::int8 needs.
std::set<std::string> ranged_layers(const Model& model) {
  std::set<std::string> layers;
  for (const auto& [name, tensor] : model.tensors)
    if (name == "stem" || name.starts_with("convs.") || name.find("branch") != std::string::npos) layers.insert(name);
  if (model.architecture == Architecture::cells)
    layers.erase(model.depth == 0 ? "stem" : "convs." + std::to_string(model.depth - 1));
  return layers;
}

void parse_ranges(Metadata& metadata, Model& model) {
  const auto words = split(metadata.take("int8_ranges"));
  const std::set<std::string> layers = ranged_layers(model);
  for (std::size_t i = 0; i + 1 < words.size(); i += 2)
    if (const std::string layer(words[i]); layers.contains(layer))
      model.ranges[layer] = metadata.number("int8_ranges: " + layer, words[i + 1], 1e-6f, 1e6f);
  if (model.ranges.size() == layers.size() && words.size() == 2 * layers.size()) return;
  std::string names;
  for (const std::string& layer : layers) names += ' ' + layer;
  metadata.fail("int8_ranges: expected a number for each of" + names + ", got " + std::to_string(words.size()) +
                " words");
}

/// Points the tensors into memory as model_io.py writes weights.bin: one behind the other, each on the next multiple of
/// `alignment`.
void allocate(const Metadata& metadata, const std::map<std::string, std::size_t>& offsets, std::size_t size,
              Model& model) {
  std::vector<std::pair<std::size_t, std::string>> order;
  for (const auto& [name, offset] : offsets) order.emplace_back(offset, name);
  std::ranges::sort(order);
  std::size_t end = 0;
  std::map<std::string, std::size_t> counts;
  for (const auto& [offset, name] : order) {
    const std::size_t begin = (end + alignment - 1) / alignment * alignment;
    if (offset != begin)
      metadata.fail("tensor \"" + name + "\": expected offset " + std::to_string(begin) + ", got " +
                    std::to_string(offset));
    counts[name] = 1;
    for (const int side : model.tensors[name].shape) counts[name] *= std::size_t(side);
    end = begin + counts[name] * sizeof(float);
  }
  if (size != end)
    throw ModelError((model.folder / "weights.bin").string() + ": expected " + std::to_string(end) + " bytes, got " +
                     std::to_string(size));
  model.values.resize(size / sizeof(float));
  for (const auto& [offset, name] : order)
    model.tensors[name].values = std::span(model.values).subspan(offset / sizeof(float), counts[name]);
}

/// Throws ModelError unless all weights are finite, and so small that no image can make a sum overflow: the networks
/// would answer NaN.
void check_weights(const Model& model) {
  const std::string file = (model.folder / "weights.bin").string();
  std::map<std::string, double> gains{{"blur", 1}, {"edge", 1}, {"propagation", 1}};  // of chains of layers
  for (const auto& [name, tensor] : model.tensors) {
    const bool convolution = tensor.shape.size() == 4;
    const std::size_t outputs = std::size_t(convolution ? tensor.shape.front() : tensor.shape.back());
    const std::size_t inputs = tensor.values.size() / outputs;
    double gain = 0;  // an output is at most that times the largest input; biases are counted as factors, too
    for (std::size_t o = 0; o < outputs; ++o) {
      double sum = 0;
      for (std::size_t i = 0; i < inputs; ++i)
        sum += std::abs(double(tensor.values[convolution ? o * inputs + i : i * outputs + o]));
      if (!std::isfinite(sum)) throw ModelError(file + ": expected finite weights, got others in " + name);
      gain = std::max(gain, sum);
    }
    const std::string chain = name == "stem" ? "convs" : name.substr(0, name.find('.'));
    gains.try_emplace(chain, 1).first->second *= 1 + gain;
  }
  double trunk = 0;
  for (const auto& [chain, gain] : gains)
    if (chain != "blur" && chain != "edge" && chain != "propagation") trunk = std::max(trunk, gain);
  const double answer = std::max(trunk * std::max(gains["blur"], gains["edge"]), gains["propagation"]);
  if (!(answer <= most_answer)) {
    std::ostringstream message;
    message << file << ": expected weights with which no answer can exceed " << most_answer << ", got up to " << answer;
    throw ModelError(message.str());
  }
}

/// Where the models lie that are installed with this library.
std::filesystem::path shipped_models() {
  if (const char* folder = std::getenv("DEFOCUS_FAST_MODELS"); folder && *folder) return folder;
  return library_folder() / DEFOCUS_FAST_SHIPPED_MODELS;  // which is absolute in a static library
}

/// A regular file of at most `most` bytes: nothing that could make a reader wait.
std::size_t check_file(const std::filesystem::path& file, std::size_t most) {
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (!std::filesystem::is_regular_file(status))
    throw ModelError(file.string() + ": expected a file, got " +
                     (std::filesystem::exists(status) ? "something else" : error.message()));
  const std::uintmax_t size = std::filesystem::file_size(file, error);
  if (error || size > most)
    throw ModelError(file.string() + ": expected at most " + std::to_string(most) + " bytes, got " +
                     (error ? error.message() : std::to_string(size)));
  return std::size_t(size);
}

void read_file(const std::filesystem::path& file, std::span<std::byte> bytes) {
  std::ifstream stream(file, std::ios::binary);
  stream.read(reinterpret_cast<char*>(bytes.data()), std::streamsize(bytes.size()));
  if (!stream)
    throw ModelError(file.string() + ": expected " + std::to_string(bytes.size()) + " readable bytes, got " +
                     std::to_string(stream.gcount()));
}

}  // namespace

std::filesystem::path library_folder() {
  Dl_info library{};
  link_map* map = nullptr;
  dladdr1(reinterpret_cast<const void*>(&library_folder), &library, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP);
  return std::filesystem::canonical(*map->l_name ? map->l_name : "/proc/self/exe").parent_path();
}

std::shared_ptr<const Model> parse_model(const std::filesystem::path& folder, std::string_view text, std::size_t size,
                                         const std::function<void(std::span<std::byte>)>& read) {
  const auto model = std::make_shared<Model>();
  model->folder = folder;
  Metadata metadata(folder / "model.txt", text);
  if (const std::string_view format = metadata.take("format"); format != "3")
    metadata.fail("format: expected 3, got " + quote(format));
  model->name = metadata.take("name");
  if (model->name.empty() || quote(model->name) != '"' + model->name + '"')
    metadata.fail("name: expected 1 to 60 printable ASCII characters, got " + quote(model->name));
  model->width = metadata.take_number("width", 1, most_width);
  const std::string_view architecture = metadata.take("architecture");
  if (architecture == "cells") {
    model->architecture = Architecture::cells;
    model->depth = metadata.take_number("depth", 0, most_depth);
  } else if (architecture == "tip22") {
    model->crop_offset = metadata.take_number("crop_offset", 0, 1);
  } else {
    metadata.fail("architecture: expected tip22 or cells, got " + quote(architecture));
  }
  model->depth_threshold = metadata.take_number("depth_threshold", 0.0, 1.0);
  model->sigma_r = metadata.take_number("sigma_r", 1e-3, 1e3);
  model->iterations = metadata.take_number("iterations", 1, 16);
  model->error_floor = metadata.take_number("error_floor", 0.0, most_radius);
  model->error_slope = metadata.take_number("error_slope", 0.0, most_radius);
  model->radius_bins = parse_bins(metadata);
  metadata.take("trained");
  const auto offsets = parse_index(metadata, *model);
  if (metadata.contains("int8_ranges")) parse_ranges(metadata, *model);
  metadata.finish();

  allocate(metadata, offsets, size, *model);
  read(std::as_writable_bytes(std::span(model->values)));
  check_weights(*model);
  return model;
}

bool same_networks(const Model& a, const Model& b) {
  const auto identity = [](const Model& model) {
    return std::tie(model.architecture, model.width, model.depth, model.crop_offset, model.ranges, model.values);
  };
  // Tensors of other shapes, or in another order, that hold the same values all the same.
  const auto same_tensor = [&](const auto& entry) {
    const auto found = b.tensors.find(entry.first);
    return found != b.tensors.end() && found->second.shape == entry.second.shape &&
           found->second.values.data() - b.values.data() == entry.second.values.data() - a.values.data();
  };
  return identity(a) == identity(b) && std::ranges::all_of(a.tensors, same_tensor);
}

std::shared_ptr<const Model> load_model(const std::string& name_or_folder) {
  const bool is_folder = name_or_folder.find('/') != std::string::npos;
  const auto folder = is_folder ? std::filesystem::path(name_or_folder) : shipped_models() / name_or_folder;
  const std::filesystem::path file = folder / "model.txt", weights = folder / "weights.bin";
  std::error_code error;
  // These would lead to folders that are none of a model's name.
  const bool dots = name_or_folder.find_first_not_of('.') == std::string::npos;
  if (dots || (!std::filesystem::exists(file, error) && !error)) {
    std::string shipped;
    for (const auto& entry : std::filesystem::directory_iterator(shipped_models(), error))
      shipped += (shipped.empty() ? "" : ", ") + entry.path().filename().string();
    throw ModelError("model: \"" + name_or_folder + "\" is no " + (is_folder ? "model folder" : "shipped model") +
                     (dots ? "" : ": no " + file.string()) +
                     "; accepted: a path with a '/' in it, or the name of a shipped model (" + shipped + ")");
  }
  std::string text(check_file(file, most_text), '\0');
  read_file(file, std::as_writable_bytes(std::span(text)));
  return parse_model(folder, text, check_file(weights, most_weights),
                     [&](std::span<std::byte> bytes) { read_file(weights, bytes); });
}

}  // namespace defocus_fast
