// SPDX-License-Identifier: Apache-2.0
// read_engines MODEL_FOLDER HEIGHT WIDTH BATCH ROWS COLUMNS COMPUTE_CAPABILITY GPU TENSORRT: what C++ finds of the
// float32 engines that Python has written, and what becomes of them. Of a trunk of height 0: those of the patch graphs.
#include <cstdio>
#include <cstdlib>

#include "../../cuda/engine_file.hpp"
#include "defocus_fast/error.hpp"

using namespace defocus_fast;

int main(int, char** arguments) {
  const auto number = [&](int i) { return std::atoi(arguments[i]); };
  const cuda::NetworkShapes shapes{.image_height = number(2),
                                   .image_width = number(3),
                                   .head_batch = number(4),
                                   .cell_rows = number(5),
                                   .cell_columns = number(6),
                                   .evaluation = number(2) == 0 ? Evaluation::patch : Evaluation::shared};
  const cuda::GpuModel gpu{number(7), arguments[8]};
  for (const cuda::Graph graph : shapes.graphs()) try {
      const auto file = cuda::engine_folder() / cuda::engine_file_name(arguments[1], graph, shapes, gpu, arguments[9]);
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
