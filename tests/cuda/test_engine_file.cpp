// SPDX-License-Identifier: Apache-2.0
// Where the engines of C++ programs are looked for. tests/engines compares the names with Python's.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <string>

#include "../../cuda/engine_file.hpp"
#include "defocus_fast/error.hpp"

using namespace defocus_fast;
using namespace defocus_fast::cuda;

namespace {

void write(const std::filesystem::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary) << bytes;
}

/// A folder of two files whose CRC-32 is known (of no bytes, and of "123456789").
struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "defocus_fast_XXXXXX").string();
    path = mkdtemp(name.data());
    for (const char* graph : graph_names) write(path / (std::string(graph) + ".onnx"), "123456789");
    write(path / "weights.bin", "");
  }
  ~Folder() { std::filesystem::remove_all(path); }
};

constexpr NetworkShapes shared{.image_height = 40, .image_width = 50, .head_batch = 9},
    cells{.image_height = 40, .image_width = 50, .cell_rows = 7, .cell_columns = 11},
    patch{.type = TensorType::float16, .head_batch = 7, .evaluation = Evaluation::patch};

}  // namespace

TEST_CASE("an engine's file names all that makes two engines differ") {
  const Folder folder;
  const auto name = [&](Graph graph, const NetworkShapes& shapes, const GpuModel& gpu, const char* tensorrt) {
    return engine_file_name(folder.path, graph, shapes, gpu, tensorrt);
  };
  CHECK(name(Graph::trunk, shared, {89, "NVIDIA L4"}, "tensorrt-10.1") ==
        "trunk-40x50-float32-cbf43926-00000000-sm89-NVIDIA_L4-tensorrt-10.1.engine1");
  CHECK(name(Graph::blur_head, shared, {90, "../H 100-\xc2\xb5"}, "tensorrt-10.1") ==
        "blur_head-9-float32-cbf43926-00000000-sm90-___H_100___-tensorrt-10.1.engine1");
  CHECK(name(Graph::edge_head, cells, {89, "NVIDIA L4"}, "tensorrt_rtx-1.2") ==
        "edge_head-7x11-float32-cbf43926-00000000-sm89-tensorrt_rtx-1.2.engine1");
  CHECK(name(Graph::edge_patch, patch, {89, "NVIDIA L4"}, "tensorrt_rtx-1.2") ==
        "edge_patch-7-float16-cbf43926-00000000-sm89-tensorrt_rtx-1.2.engine1");
  CHECK_THROWS_AS(engine_file_name(folder.path / "none", Graph::trunk, shared, {}, ""), ModelError);
}

TEST_CASE("an engine of another GPU is not read, and said to be missing") {
  const Folder folder;
  const auto file = [&](const char* gpu) {
    return folder.path / engine_file_name(folder.path, Graph::trunk, shared, {89, gpu}, "tensorrt-10.1");
  };
  // Its CRC-32 was computed by zlib.
  const std::string name = file("NVIDIA L4").filename().string();
  write(file("NVIDIA L4"), "a8bbb320\n" + name + "\nimage:1x3x40x50 features:1x4\nplan\n\1");
  const EngineFile engine = read_engine_file(file("NVIDIA L4"));
  CHECK(engine.tensors == std::vector<std::string>{"image", "features"});
  CHECK(engine.plan == "plan\n\1");
  CHECK_THROWS_WITH_AS(read_engine_file(file("NVIDIA L40S")),
                       doctest::Contains("-sm89-NVIDIA_L40S-tensorrt-10.1.engine1: an estimator of the Python package"),
                       BackendUnavailable);
  std::filesystem::copy_file(file("NVIDIA L4"), file("NVIDIA L40S"));  // by whoever wants it used
  CHECK_THROWS_WITH_AS(read_engine_file(file("NVIDIA L40S")), doctest::Contains("expected this engine, got trunk-"),
                       Error);
}

TEST_CASE("each form of evaluation has its own graphs") {
  CHECK(std::ranges::equal(shared.graphs(), std::array{Graph::trunk, Graph::edge_head, Graph::blur_head}));
  CHECK(std::ranges::equal(patch.graphs(), std::array{Graph::edge_patch, Graph::blur_patch}));
}
