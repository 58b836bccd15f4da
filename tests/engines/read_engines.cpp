// SPDX-License-Identifier: Apache-2.0
// read_engines MODEL_FOLDER HEIGHT WIDTH BATCH COMPUTE_CAPABILITY GPU TENSORRT: what C++ finds of the float32 engines
// that Python has written, and what becomes of them. Of a trunk of height 0: those of the patch graphs.
#include <cstdio>
#include <cstdlib>

#include "../../cuda/engine_file.hpp"
#include "defocus_fast/error.hpp"

using namespace defocus_fast;

int main(int, char** arguments) {
  const int height = std::atoi(arguments[2]);
  const cuda::NetworkShapes shapes{cuda::TensorType::float32, height, std::atoi(arguments[3]), std::atoi(arguments[4]),
                                   height == 0 ? Evaluation::patch : Evaluation::shared};
  const cuda::GpuModel gpu{std::atoi(arguments[5]), arguments[6]};
  for (const cuda::Graph graph : shapes.graphs()) try {
      const auto file = cuda::engine_folder() / cuda::engine_file_name(arguments[1], graph, shapes, gpu, arguments[7]);
      const cuda::EngineFile engine = cuda::read_engine_file(file);
      std::printf("%s:", cuda::graph_names[std::size_t(graph)]);
      for (const std::string& tensor : engine.tensors) std::printf(" %s", tensor.c_str());
      std::printf(" %zu bytes\n", engine.plan.size());
    } catch (const Error& error) {
      std::printf("%s\n", error.what());
    }
  try {
    cuda::make_tensorrt()->prepare(arguments[1], shapes, gpu);
    std::puts("loaded");
  } catch (const Error& error) {
    std::printf("%s\n", error.what());
  }
}
