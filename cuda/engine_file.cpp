// SPDX-License-Identifier: Apache-2.0
#include "engine_file.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string_view>

#include "defocus_fast/error.hpp"

namespace defocus_fast::cuda {

namespace {

std::optional<std::string> read(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

/// CRC-32 as zlib computes it, in hexadecimal.
std::string checksum(std::string_view bytes) {
  std::uint32_t sum = ~0U;
  for (const char byte : bytes) {
    sum ^= std::uint8_t(byte);
    for (int bit = 0; bit < 8; ++bit) sum = sum >> 1 ^ (0xEDB88320U & -(sum & 1));
  }
  std::string text;
  for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[~sum >> shift & 15];
  return text;
}

/// Up to the end of the line, which is taken off.
std::string_view take_line(std::string_view& text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(line.size() + 1, text.size()));
  return line;
}

std::string as_file_name(std::string name) {
  for (char& c : name)
    if (!(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z')) c = '_';
  return name;
}

const char* environment(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? value : nullptr;
}

}  // namespace

std::filesystem::path engine_folder() {
  if (const char* folder = environment("DEFOCUS_FAST_CACHE")) return folder;
  if (const char* caches = environment("XDG_CACHE_HOME")) return std::filesystem::path(caches) / "defocus_fast";
  const char* home = environment("HOME");
  return std::filesystem::path(home ? home : "/") / ".cache" / "defocus_fast";
}

std::string engine_file_name(const std::filesystem::path& model_folder, Graph graph, const NetworkShapes& shapes,
                             const GpuModel& gpu, const std::string& tensorrt) {
  const auto checksum_of = [&](const std::string& name) {
    const std::optional<std::string> bytes = read(model_folder / name);
    if (!bytes) throw ModelError((model_folder / name).string() + ": cannot be read");
    return checksum(*bytes);
  };
  const std::string name = graph_names[std::size_t(graph)];
  std::ostringstream text;
  text << name << '-';
  if (graph == Graph::trunk)
    text << shapes.image_height << 'x' << shapes.image_width;
  else if (shapes.cell_rows > 0)
    text << shapes.cell_rows << 'x' << shapes.cell_columns;
  else
    text << shapes.head_batch;
  text << (shapes.type == TensorType::float16 ? "-float16-" : "-float32-") << checksum_of(name + ".onnx") << '-'
       << checksum_of("weights.bin") << "-sm" << gpu.compute_capability;
  // TensorRT-RTX's engines serve every GPU of a compute capability. TensorRT only warns of another one's.
  if (!tensorrt.starts_with("tensorrt_rtx")) text << '-' << as_file_name(gpu.name);
  text << '-' << tensorrt << ".engine1";
  return text.str();
}

EngineFile read_engine_file(const std::filesystem::path& file) {
  const std::optional<std::string> bytes = read(file);
  if (!bytes)
    throw BackendUnavailable("device: there is no engine " + file.string() +
                             ": an estimator of the Python package makes it, or `defocus-fast build-engines`");
  std::string_view content = *bytes;
  const std::string_view expected = take_line(content);
  if (checksum(content) != expected)
    throw Error(file.string() + ": the engine is damaged: remove it, and build it again");
  if (const std::string_view name = take_line(content); name != file.filename().string())
    throw Error(file.string() + ": expected this engine, got " + std::string(name));
  EngineFile engine;
  std::istringstream tensors{std::string(take_line(content))};
  for (std::string tensor; tensors >> tensor;) engine.tensors.push_back(tensor.substr(0, tensor.rfind(':')));
  engine.plan = content;
  return engine;
}

}  // namespace defocus_fast::cuda
