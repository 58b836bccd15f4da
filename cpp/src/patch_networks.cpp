// SPDX-License-Identifier: Apache-2.0
// The whole networks on patches, by OpenVINO. Patches are interleaved (NHWC), as its CPU plugin
// computes.
#include <openvino/core/preprocess/pre_post_process.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/runtime/core.hpp>
#include <openvino/runtime/properties.hpp>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <utility>

#include "defocus_fast/error.hpp"
#include "stages.hpp"

namespace defocus_fast::cpu {

namespace {

/// The named float constants of a graph. Throws ModelError unless all are finite.
std::map<std::string, std::vector<float>> weights_of(const ov::Model& graph, const std::filesystem::path& file) {
  std::map<std::string, std::vector<float>> weights;
  for (const auto& node : graph.get_ops())
    if (const auto constant = ov::as_type_ptr<ov::op::v0::Constant>(node))
      if (constant->get_element_type() == ov::element::f32) {
        auto values = constant->cast_vector<float>();
        if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); }))
          throw ModelError(file.string() + ": expected finite weights, got others in " + constant->get_friendly_name());
        weights[constant->get_friendly_name()] = std::move(values);
      }
  return weights;
}

/// Throws ModelError unless it answers with as many probabilities as the rest of the model expects.
std::shared_ptr<ov::Model> read(ov::Core& core, const Model& model, Head head) {
  const std::filesystem::path file = model.folder / (head == Head::edge ? "edge_patch.onnx" : "blur_patch.onnx");
  auto network = core.read_model(file.string());
  std::map<std::size_t, ov::PartialShape> inputs;
  for (std::size_t i = 0; i < 3; ++i) inputs[i] = {PatchNetworks::batch, 3, crop_sizes[i], crop_sizes[i]};
  network->reshape(inputs);
  const std::size_t outputs = head == Head::edge ? 2 : model.radius_bins.size();
  if (const ov::PartialShape expected{PatchNetworks::batch, std::int64_t(outputs)},
      got = network->output().get_partial_shape();
      got != expected)
    throw ModelError(file.string() + ": expected answers of shape " + expected.to_string() + ", got " +
                     got.to_string());
  weights_of(*network, file);
  return network;
}

/// Calls use() and turns OpenVINO's errors into ModelError.
template <class Use>
void with_model(const Model& model, const Use& use) {
  try {
    use();
  } catch (const ov::Exception& error) {
    throw ModelError(model.folder.string() + ": OpenVINO cannot use this model: " + error.what());
  }
}

/// Leaves the thread the alternate signal stack that it had. With every core OpenVINO's CPU plugin puts another in its
/// place, and as cores go in another order than they came, it puts back that of one that is gone: the next signal
/// (Ctrl-C) then ends the process.
class KeptSignalStack {
 public:
  KeptSignalStack() { sigaltstack(nullptr, &stack_); }
  ~KeptSignalStack() { sigaltstack(&stack_, nullptr); }
  KeptSignalStack(const KeptSignalStack&) = delete;
  KeptSignalStack& operator=(const KeptSignalStack&) = delete;

 private:
  stack_t stack_{};
};

}  // namespace

void PatchNetworks::check(const Model& model) {
  with_model(model, [&] {
    ov::Core core;
    for (const Head head : {Head::edge, Head::blur}) read(core, model, head);
  });
}

struct PatchNetworks::Impl {
  ov::Core core;
  std::array<ov::InferRequest, 2> requests;  // by Head

  ov::InferRequest& request(Head head) { return requests[std::size_t(head)]; }
};

PatchNetworks::PatchNetworks(const Model& model, Precision precision, int num_threads)
    : impl_(std::make_unique<Impl>()) {
  const ov::AnyMap properties{
      ov::hint::inference_precision(precision == Precision::bfloat16 ? ov::element::bf16 : ov::element::f32),
      ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
      ov::hint::enable_cpu_pinning(false),  // pinned threads of two estimators would share a core
      ov::num_streams(1),
      ov::inference_num_threads(num_threads),
  };
  const KeptSignalStack kept;
  with_model(model, [&] {
    for (const Head head : {Head::edge, Head::blur}) {
      const auto network = read(impl_->core, model, head);
      ov::preprocess::PrePostProcessor layout(network);
      for (std::size_t i = 0; i < 3; ++i) {
        layout.input(i).model().set_layout("NCHW");
        layout.input(i).tensor().set_layout("NHWC").set_element_type(ov::element::f32);
      }
      layout.output().tensor().set_element_type(ov::element::f32);
      impl_->request(head) = impl_->core.compile_model(layout.build(), "CPU", properties).create_infer_request();
    }
  });
}

PatchNetworks::~PatchNetworks() = default;

std::array<float*, 3> PatchNetworks::crops(Head head) {
  ov::InferRequest& request = impl_->request(head);
  return {request.get_input_tensor(0).data<float>(), request.get_input_tensor(1).data<float>(),
          request.get_input_tensor(2).data<float>()};
}

const float* PatchNetworks::predict(Head head) {
  ov::InferRequest& request = impl_->request(head);
  request.infer();
  return request.get_output_tensor().data<float>();
}

}  // namespace defocus_fast::cpu
