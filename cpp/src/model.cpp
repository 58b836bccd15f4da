// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>

#include "defocus_fast/error.hpp"
#include "stages.hpp"

namespace defocus_fast {

namespace {

/// Where the models lie that are installed with this library.
std::filesystem::path shipped_models() {
  Dl_info library{};
  dladdr(reinterpret_cast<const void*>(&load_model), &library);
  return std::filesystem::canonical(library.dli_fname).parent_path() / DEFOCUS_FAST_MODELS;
}

template <class T>
T parse(const std::map<std::string, std::string>& values, const std::string& key, const std::filesystem::path& file) {
  const auto entry = values.find(key);
  std::istringstream text(entry == values.end() ? "" : entry->second);
  T value{};
  if (!(text >> value)) throw ModelError(file.string() + ": \"" + key + "\" is missing or unreadable");
  return value;
}

}  // namespace

Model load_model(const std::string& name_or_folder) {
  Model model;
  const bool is_folder = name_or_folder.find('/') != std::string::npos;
  model.folder = is_folder ? std::filesystem::path(name_or_folder) : shipped_models() / name_or_folder;
  const std::filesystem::path file = model.folder / "model.txt";
  std::ifstream stream(file);
  if (!stream) {
    std::string shipped;
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(shipped_models(), none))
      shipped += (shipped.empty() ? "" : ", ") + entry.path().filename().string();
    throw ModelError("model: \"" + name_or_folder + "\" is neither a shipped model (" + shipped +
                     ") nor a model folder (a path with a '/'): no " + file.lexically_normal().string());
  }

  std::map<std::string, std::string> values;
  for (std::string line; std::getline(stream, line);)
    if (const std::size_t colon = line.find(':'); colon != std::string::npos)
      values[line.substr(0, colon)] = line.substr(std::min(colon + 2, line.size()));

  if (const int format = parse<int>(values, "format", file); format != 2)
    throw ModelError(file.string() + ": expected format 2, got " + std::to_string(format));
  model.name = parse<std::string>(values, "name", file);
  model.width = parse<int>(values, "width", file);
  const auto architecture = parse<std::string>(values, "architecture", file);
  if (architecture == "cells") {
    model.architecture = Architecture::cells;
    model.depth = parse<int>(values, "depth", file);
  } else if (architecture == "tip22") {
    model.crop_offset = parse<int>(values, "crop_offset", file);
  } else {
    throw ModelError(file.string() + ": expected architecture tip22 or cells, got " + architecture);
  }
  model.depth_threshold = parse<double>(values, "depth_threshold", file);
  model.error_floor = parse<double>(values, "error_floor", file);
  model.error_slope = parse<double>(values, "error_slope", file);
  std::istringstream bins(values["radius_bins"]);
  for (float bin; bins >> bin;) model.radius_bins.push_back(bin);
  std::istringstream ranges(values["int8_ranges"]);
  std::string layer;
  for (float range; ranges >> layer >> range;) model.ranges[layer] = range;
  const auto& radii = model.radius_bins;
  if (model.width < 1 || model.crop_offset < 0 || model.crop_offset > 1 || model.depth < 0 || model.depth > 64 ||
      radii.empty() || !(radii.front() >= 0) ||
      std::ranges::adjacent_find(radii, std::greater_equal{}) != radii.end() ||
      !(model.depth_threshold >= 0 && model.depth_threshold <= 1 && model.error_floor >= 0 && model.error_slope >= 0))
    throw ModelError(file.string() + ": a number is out of range");
  return model;
}

}  // namespace defocus_fast
