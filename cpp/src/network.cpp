// SPDX-License-Identifier: Apache-2.0
// The heads and the patch networks on OpenVINO. Pixels, features and patches are interleaved (NHWC), as its CPU plugin
// computes.
#include <openvino/core/preprocess/pre_post_process.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/runtime/core.hpp>
#include <openvino/runtime/properties.hpp>

#include "defocus_fast/error.hpp"
#include "stages.hpp"

namespace defocus_fast::cpu {

namespace {

constexpr std::int64_t edges_per_head = 256;        // measured: 64 take longer an edge, 1024 no less
constexpr std::int64_t edges_per_cell_head = 1024;  // a fifth of a percent of the work; calls are what costs
constexpr std::int64_t edges_per_patch = 16;

const char* prefix(Head head) { return head == Head::edge ? "edge" : "blur"; }

}  // namespace

struct Network::Impl {
  ov::Core core;
  ov::AnyMap properties;
  std::int64_t side = 5;  // of the features that a head reads
  std::int64_t batch = edges_per_head;
  std::array<ov::InferRequest, 2> heads, patches;  // by Head

  /// Compiles one graph of the model for fixed shapes. Features come in as the precision stores them.
  ov::InferRequest compile(const std::filesystem::path& file, const std::vector<ov::PartialShape>& nchw,
                           ov::element::Type input) {
    auto model = core.read_model(file.string());
    std::map<std::size_t, ov::PartialShape> shapes;
    for (std::size_t i = 0; i < nchw.size(); ++i) shapes[i] = nchw[i];
    model->reshape(shapes);
    ov::preprocess::PrePostProcessor layout(model);
    for (std::size_t i = 0; i < nchw.size(); ++i) {
      layout.input(i).model().set_layout("NCHW");
      layout.input(i).tensor().set_layout("NHWC").set_element_type(input);
    }
    layout.output().tensor().set_element_type(ov::element::f32);
    return core.compile_model(layout.build(), "CPU", properties).create_infer_request();
  }
};

Network::Network(const Model& model, Precision precision, Evaluation evaluation, int num_threads)
    : impl_(std::make_unique<Impl>()) {
  const ov::element::Type features = precision == Precision::bfloat16 ? ov::element::bf16 : ov::element::f32;
  impl_->properties = {
      ov::hint::inference_precision(features),
      ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
      ov::hint::enable_cpu_pinning(false),  // pinned threads of two estimators would share a core
      ov::num_streams(1),
      ov::inference_num_threads(num_threads),
  };
  const ov::Dimension channels = model.width;
  if (model.architecture == Architecture::cells) {
    impl_->side = 1;
    impl_->batch = edges_per_cell_head;
  }
  try {
    for (const Head head : {Head::edge, Head::blur}) {
      const std::size_t i = std::size_t(head);
      const std::string name = prefix(head);
      if (evaluation != Evaluation::patch)
        impl_->heads[i] = impl_->compile(model.folder / (name + "_head.onnx"),
                                         {{impl_->batch, channels, impl_->side, impl_->side}}, features);
      if (evaluation != Evaluation::shared && model.architecture == Architecture::tip22)
        impl_->patches[i] =
            impl_->compile(model.folder / (name + "_patch.onnx"),
                           {{edges_per_patch, 3, 41, 41}, {edges_per_patch, 3, 27, 27}, {edges_per_patch, 3, 15, 15}},
                           ov::element::f32);
    }
  } catch (const ov::Exception& error) {
    throw ModelError(model.folder.string() + ": OpenVINO cannot use this model: " + error.what());
  }
}

Network::~Network() = default;

int Network::head_batch() const { return int(impl_->batch); }
int Network::positions() const { return int(impl_->side * impl_->side); }
int Network::patch_batch() const { return int(edges_per_patch); }

void* Network::fused(Head head) { return impl_->heads[std::size_t(head)].get_input_tensor().data(); }

const float* Network::predict(Head head) {
  ov::InferRequest& request = impl_->heads[std::size_t(head)];
  request.infer();
  return request.get_output_tensor().data<float>();
}

std::array<float*, 3> Network::crops(Head head) {
  ov::InferRequest& request = impl_->patches[std::size_t(head)];
  return {request.get_input_tensor(0).data<float>(), request.get_input_tensor(1).data<float>(),
          request.get_input_tensor(2).data<float>()};
}

const float* Network::predict_patches(Head head) {
  ov::InferRequest& request = impl_->patches[std::size_t(head)];
  request.infer();
  return request.get_output_tensor().data<float>();
}

}  // namespace defocus_fast::cpu

namespace defocus_fast {

std::map<std::string, std::vector<float>> read_weights(const std::filesystem::path& onnx_file) {
  std::map<std::string, std::vector<float>> weights;
  try {
    for (const auto& node : ov::Core().read_model(onnx_file.string())->get_ops())
      if (const auto constant = ov::as_type_ptr<ov::op::v0::Constant>(node))
        if (constant->get_element_type() == ov::element::f32)
          weights[constant->get_friendly_name()] = constant->cast_vector<float>();
  } catch (const ov::Exception& error) {
    throw ModelError(onnx_file.string() + ": OpenVINO cannot read this model: " + error.what());
  }
  return weights;
}

}  // namespace defocus_fast
