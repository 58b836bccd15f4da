// SPDX-License-Identifier: Apache-2.0
// Small networks of random weights, evaluated layer by layer as the ONNX files say (model_io.py), in place of TensorRT.
// With it, load_model finds the models "tip22" and "cells", which it writes.
#pragma once

#include "../../cpp/src/stages.hpp"
#include "defocus_fast/networks.hpp"

namespace defocus_fast::test {

class HostNetworks : public cuda::Networks {
 public:
  HostNetworks(std::shared_ptr<const Model> model, const cuda::NetworkShapes& shapes)
      : model_(std::move(model)), shapes_(shapes) {}
  void enqueue(cuda::Graph graph, Span<void* const> tensors, cuda::Stream stream) override;

 private:
  const std::shared_ptr<const Model> model_;
  const cuda::NetworkShapes shapes_;
};

}  // namespace defocus_fast::test
