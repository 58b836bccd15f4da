// SPDX-License-Identifier: Apache-2.0
// Engines that python/defocus_fast/_tensorrt.py has built and written; that file says what is in them.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "defocus_fast/networks.hpp"

namespace defocus_fast::cuda {

struct EngineFile {
  std::vector<std::string> tensors;  // inputs, then outputs
  std::string plan;                  // the serialised engine
};

/// $DEFOCUS_FAST_CACHE, or defocus_fast in the platform's folder for caches.
std::filesystem::path engine_folder();

/// Name of the file of a graph's engine; `tensorrt` is as "tensorrt-10.14.1.48". Throws ModelError if the model folder
/// cannot be read.
std::string engine_file_name(const std::filesystem::path& model_folder, Graph graph, const NetworkShapes& shapes,
                             const GpuModel& gpu, const std::string& tensorrt);

/// Throws BackendUnavailable if there is no such file, Error if it is damaged or another's.
EngineFile read_engine_file(const std::filesystem::path& file);

/// Evaluates the networks by the engines in engine_folder(); of builds with DEFOCUS_FAST_TENSORRT.
std::shared_ptr<Networks> make_tensorrt();

}  // namespace defocus_fast::cuda
