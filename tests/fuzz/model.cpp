// SPDX-License-Identifier: Apache-2.0
// Model folders: a text, a null byte, and the bytes of weights.bin. Whatever they hold, the reader answers with a
// ModelError, or with a model whose frames are finite.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "defocus_fast/error.hpp"
#include "defocus_fast/estimator.hpp"
#include "model.hpp"

using namespace defocus_fast;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

/// In memory, as hundreds of folders are written a second.
class Folder {
 public:
  Folder() : path_(std::filesystem::path("/dev/shm") / ("defocus_fast_fuzz." + std::to_string(getpid()))) {
    std::filesystem::create_directory(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  void write(const char* name, std::string_view bytes) const {
    std::ofstream(path_ / name, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

struct Input {
  std::string text, weights;

  explicit Input(std::string_view bytes) : text(bytes.substr(0, bytes.find('\0'))) {
    weights = bytes.substr(std::min(text.size() + 1, bytes.size()));
  }
};

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

/// A frame of a few edges, some of which are all around the image's corners.
void estimate(const std::string& folder, Precision precision, Labels labels) {
  constexpr int height = 19, width = 22;
  std::array<std::uint8_t, height * width> pixels{}, edges{};
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    pixels[i] = std::uint8_t(i % width / 7 % 2 == i / width / 5 % 2 ? 40 : 230);
    edges[i] = i % 13 == 0;
  }
  Options options;
  options.model = folder;
  options.device = "cpu";
  options.num_threads = 1;
  options.evaluation = Evaluation::shared;
  options.precision = precision;
  options.labels = labels;
  BlurMap result;
  Estimator(height, width, options)
      .estimate(ImageView::interleaved(pixels.data(), PixelType::uint8, height, width, 1, width), result,
                {.edges = {edges.data(), height, width, width, 1}});
  const auto finite = [](const std::vector<float>& values) {
    return std::ranges::all_of(values, [](float value) { return std::isfinite(value); });
  };
  require(result.edges.size() > 20, "edges are missing");
  require(finite(result.map), "the map is not finite");
  require(finite(result.expected_error), "the expected error is not finite");
  require(finite(result.edges.depth_probability) && finite(result.edges.radius) && finite(result.edges.radius_std),
          "edges are not finite");
}

template <class T>
const T& pick(std::minstd_rand& random, std::span<const T> from) {
  return from[random() % from.size()];
}

/// Another value in place of a word, or lines dropped, doubled or swapped: the rest of the text stays as it is, so that
/// the reader comes to it.
void mutate_text(std::string& text, std::minstd_rand& random) {
  static constexpr std::array<std::string_view, 28> words{"0",
                                                          "1",
                                                          "2",
                                                          "3",
                                                          "4",
                                                          "8",
                                                          "16",
                                                          "64",
                                                          "1024",
                                                          "4096",
                                                          "-1",
                                                          "-0",
                                                          "0.5",
                                                          "1e39",
                                                          "1e-320",
                                                          "nan",
                                                          "inf",
                                                          "64.9",
                                                          "6x9",
                                                          "2147483647",
                                                          "2147483648",
                                                          "4294967296",
                                                          "18446744073709551615",
                                                          "268435456",
                                                          "0x10",
                                                          "+4",
                                                          "tip22",
                                                          "cells"};
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  if (lines.empty()) return;
  std::string& line = lines[random() % lines.size()];
  const std::size_t at = random() % lines.size();
  switch (random() % 8) {
    case 0:
      lines.erase(lines.begin() + std::ptrdiff_t(at));
      break;
    case 1:
      lines.insert(lines.begin() + std::ptrdiff_t(at), std::string(line));
      break;
    case 2:
      std::swap(line, lines[at]);
      break;
    default: {  // a word
      const std::size_t near = random() % (line.size() + 1);
      const std::size_t begin = near == 0 ? 0 : line.rfind(' ', near - 1) + 1;  // npos + 1 is 0
      const std::size_t end = std::min(line.find(' ', begin), line.size());
      std::string word = line.substr(begin, end - begin);
      if (char* rest = nullptr; random() % 2 && !word.empty()) {  // a number close by
        const double value = std::strtod(word.c_str(), &rest);
        static constexpr std::array<double, 6> factors{0, 0.5, 0.999, 1.001, 2, 1000};
        word = std::to_string(random() % 2 ? value * pick<double>(random, factors) : value + double(random() % 5) - 2);
        if (const std::size_t zeros = word.find_last_not_of('0'); random() % 8) word.resize(zeros + 1);
        if (word.ends_with('.')) word.pop_back();
      } else {
        word = pick<std::string_view>(random, words);
      }
      line.replace(begin, end - begin, word);
    }
  }
  text.clear();
  for (const std::string& each : lines) text += each + '\n';
}

/// Other numbers in place of a few weights, or another length.
void mutate_weights(std::string& weights, std::minstd_rand& random) {
  static constexpr std::array<float, 14> values{0,     -0.0f,  1,     -1,       1e3f,      -1e3f,   1e6f,
                                                1e10f, 1e-40f, 3e38f, INFINITY, -INFINITY, 3.4e10f, -1e20f};
  if (random() % 16 == 0) weights.resize(weights.size() + random() % 129 - std::min<std::size_t>(64, weights.size()));
  if (weights.size() < sizeof(float)) return;
  for (std::size_t n = random() % 4; n-- > 0;) {
    const std::size_t at = random() % (weights.size() / sizeof(float)) * sizeof(float);
    const float value = random() % 16 == 0 ? NAN : pick<float>(random, values);
    std::memcpy(weights.data() + at, &value, sizeof value);
  }
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most,
                                               unsigned int seed) {
  std::minstd_rand random(seed);
  if (random() % 16 == 0) return LLVMFuzzerMutate(data, size, most);
  Input input(std::string_view(reinterpret_cast<const char*>(data), size));
  if (random() % 2)
    mutate_text(input.text, random);
  else
    mutate_weights(input.weights, random);
  const std::string bytes = input.text + '\0' + input.weights;
  size = std::min(bytes.size(), most);
  std::memcpy(data, bytes.data(), size);
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Folder folder;
  const Input input(std::string_view(reinterpret_cast<const char*>(data), size));
  try {
    const auto model = parse_model(folder.path(), input.text, input.weights.size(), [&](std::span<std::byte> bytes) {
      require(bytes.size() == input.weights.size(), "memory of another size");
      std::memcpy(bytes.data(), input.weights.data(), bytes.size());
    });
    if (model->values.size() > 20000) return 0;
  } catch (const ModelError&) {
    return 0;
  }
  // A frame takes as long as dozens of readings: some of the models get one.
  const std::size_t choice = std::hash<std::string>()(input.text + input.weights);
  if (choice % 8 != 0) return 0;
  folder.write("model.txt", input.text);
  folder.write("weights.bin", input.weights);
  constexpr std::array precisions{Precision::automatic, Precision::float32, Precision::int8};
  try {
    estimate(folder.path(), precisions[choice / 8 % 3], choice / 24 % 2 ? Labels::hard : Labels::posterior);
  } catch (const BackendUnavailable&) {  // int8 on this machine
  } catch (const ModelError& error) {
    require(std::string(error.what()).find("has no int8_ranges") != std::string::npos, error.what());
  }
  return 0;
}
