// SPDX-License-Identifier: Apache-2.0
// The CUDA part of the library as its core sees it: finds out whether a GPU can be used, and takes frames from and to
// host memory. The only file that waits for the device while frames run.
#define DEFOCUS_FAST_WAITS_FOR_DEVICE
#include <algorithm>
#include <cstring>
#include <optional>

#include "../cpp/src/coding.hpp"
#include "defocus_fast/version.hpp"
#include "engine_file.hpp"
#include "estimator.hpp"
#include "graphs.hpp"

namespace defocus_fast::cuda {

namespace {

int current_gpu() {
  int gpu = 0;
  check(cudaGetDevice(&gpu), "cudaGetDevice");
  return gpu;
}

/// Of the GPU that will be used, as 86 for 8.6.
int compute_capability() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaErrorInsufficientDriver)
    throw BackendUnavailable("device: no NVIDIA driver, or one older than CUDA 13 needs: install driver 580 or newer");
  if (status == cudaErrorNoDevice)
    throw BackendUnavailable(
        "device: the NVIDIA driver is there, but it sees no GPU: nvidia-smi -L tells which there are, and "
        "CUDA_VISIBLE_DEVICES, where it is set, hides all that it does not name");
  if (status != cudaSuccess)
    throw BackendUnavailable(std::string("device: the NVIDIA driver cannot be used: cudaGetDeviceCount: ") +
                             cudaGetErrorString(status));
  const int device = current_gpu();
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  const std::string got = std::to_string(major) + '.' + std::to_string(minor);
  if (10 * major + minor < 75)
    throw BackendUnavailable("device: expected a GPU of compute capability 7.5 or newer, got " + got);
  try {
    find_kernels();
  } catch (const CudaError& error) {
    throw BackendUnavailable("device: a GPU of compute capability " + got +
                             " does not run this build's kernels, see CMAKE_CUDA_ARCHITECTURES: " + error.what());
  }
  return 10 * major + minor;
}

/// Of the GPU that will be used.
std::string gpu_name() {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, current_gpu()), "cudaGetDeviceProperties");
  return properties.name;
}

/// Calls come from threads whose current GPU is another one.
class OnGpu {
 public:
  explicit OnGpu(int gpu) : before_(current_gpu()) { check(cudaSetDevice(gpu), "cudaSetDevice"); }
  ~OnGpu() { cudaSetDevice(before_); }
  OnGpu(const OnGpu&) = delete;
  OnGpu& operator=(const OnGpu&) = delete;

 private:
  const int before_;
};

class Plugin : public Device {
 public:
  explicit Plugin(const DeviceSetup& setup)
      : gpu_(current_gpu()),
        height_(setup.height),
        width_(setup.width),
        bins_(setup.model->radius_bins.size()),
        estimator_(setup) {
    const std::size_t pixels = std::size_t(height_) * std::size_t(width_);
    buffers_.reserve(image_, pixels * 3 * sizeof(float));
    buffers_.reserve(edges_, pixels);
    buffers_.reserve(map_, pixels);
    buffers_.reserve(error_, pixels);
    buffers_.allocate();
  }

  void enqueue(const DeviceFrame& frame, Stream stream) override {
    for (const void* plane : {frame.image.data, frame.image.chroma.u, frame.image.chroma.v})
      if (plane) check_memory(plane, "image");
    check_memory(frame.out.data, "out");
    if (frame.edges.data) check_memory(frame.edges.data, "edges");
    if (frame.expected_error.data) check_memory(frame.expected_error.data, "expected_error");
    const OnGpu on_gpu(gpu_);
    graphs_.launch(frame, stream, [this](const DeviceFrame& of, Stream on) { estimator_.run(of, on); });
  }

  EdgeCount edge_count(Stream stream) override {
    const OnGpu on_gpu(gpu_);
    graphs_.follow(stream);
    EdgeCount sum{};
    for (const EdgeCount& count : edge_counts(estimator_.octaves().size(), stream))
      sum = {sum.found + count.found, sum.kept + count.kept};
    return sum;
  }

  void estimate(const ImageView& image, const MapView& out, BlurMap& result, const FrameOptions& options) override {
    const OnGpu on_gpu(gpu_);
    graphs_.follow(stream);  // which may still read what is uploaded now
    DeviceFrame frame{
        .image = upload(image), .edges = upload(options.edges), .edge_stride = options.edge_stride, .out = view(map_)};
    if (options.expected_error) frame.expected_error = view(error_);
    if (options.bin_probabilities) frame.bin_probabilities = bin_probabilities();
    enqueue(frame, stream);

    const std::vector<EdgeCount> counts = edge_counts(estimator_.count(frame), stream);
    for (const EdgeCount& count : counts)
      if (count.found > count.kept)
        throw Error("edges: found " + std::to_string(count.found) + ", but there is memory for " +
                    std::to_string(count.kept) + ": set max_edges");
    const std::size_t pixels = std::size_t(height_) * std::size_t(width_);
    const std::ptrdiff_t row = width_ * std::ptrdiff_t{sizeof(float)};
    const bool rows =
        out.pixel_stride_bytes == std::ptrdiff_t{sizeof(float)} && out.pitch_bytes >= row;  // else pixel by pixel
    if (rows)
      copy_rows(out.data, out.pitch_bytes, map_, row, row, cudaMemcpyDeviceToHost);
    else
      download(map_, pixels, host_map_);
    download(error_, options.expected_error ? pixels : 0, result.expected_error);
    const Octave& first = estimator_.octaves().front();
    Pixel pad{0, 0};
    if (first.pad) check(cudaMemcpy(&pad, first.pad, sizeof pad, cudaMemcpyDeviceToHost), "cudaMemcpy");
    download_mask(first.answers.pattern_edges, first.answers.width, pad, result.pattern_edges);
    download_mask(first.answers.depth_edges, first.answers.width, pad, result.depth_edges);
    clear(result.edges);
    for (const EdgeCount& count : counts) reserve_edges(frame, std::size_t(count.kept));
    for (std::size_t octave = 0; octave < counts.size(); ++octave)
      download_edges(frame, octave, pad, std::size_t(counts[octave].kept), result.edges);
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    result.stage_ms = estimator_.clock().stage_ms(counts.size());
    for (int y = 0; y < height_ && !rows; ++y)
      for (int x = 0; x < width_; ++x) *out.at(y, x) = host_map_[std::size_t(y) * std::size_t(width_) + std::size_t(x)];
  }

  std::shared_ptr<float> make_map() override {
    const OnGpu on_gpu(gpu_);
    const std::size_t bytes = std::size_t(height_) * std::size_t(width_) * sizeof(float);
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes), ("cudaMalloc of " + std::to_string(bytes) + " bytes").c_str());
    return {static_cast<float*>(memory), free_map};
  }

  void order(Stream before, Stream after) override {
    if (before == after) return;
    const OnGpu on_gpu(gpu_);
    Event event;
    event.record(before);
    event.hold(after);
  }

  int gpu() const override { return gpu_; }

 private:
  static constexpr Stream stream = nullptr;  // of frames from host memory

  /// Python's garbage collector may call this while its thread captures a frame, which would be refused and would spoil
  /// the capture.
  static void free_map(float* memory) {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaThreadExchangeStreamCaptureMode(&mode);
    cudaFree(memory);
    cudaThreadExchangeStreamCaptureMode(&mode);
  }

  MapView view(float* data) const { return {data, height_, width_, width_ * std::ptrdiff_t{sizeof(float)}}; }

  void check_memory(const void* memory, const char* name) const {
    cudaPointerAttributes attributes{};
    check(cudaPointerGetAttributes(&attributes, memory), "cudaPointerGetAttributes");
    const std::string expected = name + (": expected memory of GPU " + std::to_string(gpu_)) + ", got ";
    if (attributes.type == cudaMemoryTypeUnregistered) throw InvalidArgument(expected + "memory that no GPU knows");
    if (attributes.type == cudaMemoryTypeDevice && attributes.device != gpu_)
      throw InvalidArgument(expected + "memory of GPU " + std::to_string(attributes.device));
  }

  /// The caller's image without gaps.
  ImageView upload(const ImageView& image) {
    const std::ptrdiff_t size = word_size(image);
    if (image.coding.white != 0) return upload_coded(image, size);
    const std::ptrdiff_t row = size * image.channels * width_;
    if (image.channel_stride_bytes == size && image.pixel_stride_bytes == size * image.channels &&
        image.pitch_bytes >= row) {
      copy_rows(image_, row, image.data, image.pitch_bytes, row, cudaMemcpyHostToDevice);
    } else {
      std::byte* to = pack(std::size_t(image.channels * size));
      for (int y = 0; y < height_; ++y)
        for (int x = 0; x < width_; ++x)
          for (int c = 0; c < image.channels; ++c, to += size)
            std::memcpy(to,
                        static_cast<const std::byte*>(image.data) + y * image.pitch_bytes +
                            x * image.pixel_stride_bytes + c * image.channel_stride_bytes,
                        std::size_t(size));
      send(image_);
    }
    return ImageView::interleaved(image_, image.type, height_, width_, image.channels, row);
  }

  /// The planes of Y, U and V, one after the other.
  ImageView upload_coded(const ImageView& image, std::ptrdiff_t size) {
    ImageView uploaded = image;
    std::byte* const begin = pack(std::size_t(image.channels * size));
    std::byte* to = begin;
    const auto copy = [&](const void* plane, int rows, std::ptrdiff_t& pitch, int numbers, std::ptrdiff_t& stride) {
      const std::byte* const memory = image_ + (to - begin);
      for (int y = 0; y < rows; ++y)
        for (int x = 0; x < numbers; ++x, to += size)
          std::memcpy(to, static_cast<const std::byte*>(plane) + y * pitch + x * stride, std::size_t(size));
      stride = size;
      pitch = numbers * size;
      return memory;
    };
    uploaded.data = copy(image.data, height_, uploaded.pitch_bytes, width_, uploaded.pixel_stride_bytes);
    if (image.channels == 3) {
      Chroma &chroma = uploaded.chroma, of_v = chroma;
      const int rows = height_ / chroma.rows;
      chroma.u = copy(image.chroma.u, rows, chroma.pitch_bytes, width_ / 2, chroma.stride_bytes);
      chroma.v = copy(image.chroma.v, rows, of_v.pitch_bytes, width_ / 2, of_v.stride_bytes);
    }
    packed_.resize(std::size_t(to - begin));
    send(image_);
    return uploaded;
  }

  /// Pageable memory is copied from before the call returns, so the caller may change it.
  void copy_rows(void* to, std::ptrdiff_t to_pitch, const void* from, std::ptrdiff_t from_pitch, std::ptrdiff_t row,
                 cudaMemcpyKind kind) {
    check(cudaMemcpy2DAsync(to, std::size_t(to_pitch), from, std::size_t(from_pitch), std::size_t(row),
                            std::size_t(height_), kind, stream),
          "cudaMemcpy2DAsync");
  }

  MaskView upload(const MaskView& edges) {
    if (!edges.data) return {};
    std::byte* to = pack(1);
    for (int y = 0; y < height_; ++y)
      for (int x = 0; x < width_; ++x) *to++ = std::byte{*edges.at(y, x)};
    send(edges_);
    return {edges_, height_, width_, width_};
  }

  std::byte* pack(std::size_t bytes_per_pixel) {
    packed_.resize(std::size_t(height_) * std::size_t(width_) * bytes_per_pixel);
    return packed_.data();
  }
  /// Pageable memory is copied away before the call returns, so `packed_` may be used again.
  void send(void* to) {
    check(cudaMemcpyAsync(to, packed_.data(), packed_.size(), cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync");
  }

  static void clear(Edges& edges) {
    edges.position.clear();
    edges.octave.clear();
    for (std::vector<float>* values : {&edges.depth_probability, &edges.radius, &edges.radius_std,
                                       &edges.radius_probability, &edges.bin_probabilities})
      values->clear();
  }

  template <class T>
  void download(const T* from, std::size_t count, std::vector<T>& to) {
    to.clear();
    append(from, count, to);
  }
  template <class T>
  void append(const T* from, std::size_t count, std::vector<T>& to) {
    to.resize(to.size() + count);
    if (count > 0)
      check(cudaMemcpyAsync(to.data() + to.size() - count, from, count * sizeof(T), cudaMemcpyDeviceToHost, stream),
            "cudaMemcpyAsync");
  }

  /// The image's part of the canvas.
  void download_mask(const std::uint8_t* from, int pitch, Pixel pad, std::vector<std::uint8_t>& to) {
    to.resize(std::size_t(height_) * std::size_t(width_));
    copy_rows(to.data(), width_, from + std::ptrdiff_t(pad.y) * pitch + pad.x, pitch, width_, cudaMemcpyDeviceToHost);
  }

  /// Allocated when first wanted, which is seldom.
  float* bin_probabilities() {
    if (!bin_memory_) {
      bin_memory_.emplace();
      bin_memory_->reserve(bin_probabilities_, estimator_.bin_rows() * bins_);
      bin_memory_->allocate();
    }
    return bin_probabilities_;
  }

  /// The last frame's, of the first `octaves`; waits for it.
  std::vector<EdgeCount> edge_counts(std::size_t octaves, Stream on) {
    graphs_.follow(on);
    std::vector<EdgeCount> counts(octaves);
    for (std::size_t i = 0; i < octaves; ++i)
      check(cudaMemcpyAsync(&counts[i], estimator_.octaves()[i].edges.count, sizeof counts[i], cudaMemcpyDeviceToHost,
                            on),
            "cudaMemcpyAsync");
    check(cudaStreamSynchronize(on), "cudaStreamSynchronize");
    return counts;
  }

  /// Adds the last frame's `n` edges of an octave to `edges`, in px of the image.
  void download_edges(const DeviceFrame& frame, std::size_t octave, Pixel pad, std::size_t n, Edges& edges) {
    const Octave& of = estimator_.octaves()[octave];
    cuda::collect_edges(of.answers, of.edges, estimator_.bin_probabilities(frame, octave), int(bins_), edge_arrays_,
                        stream);
    const std::size_t before = edges.position.size();
    append(edge_arrays_.position, n, edges.position);
    append(edge_arrays_.depth_probability, n, edges.depth_probability);
    append(edge_arrays_.radius, n, edges.radius);
    append(edge_arrays_.radius_std, n, edges.radius_std);
    append(edge_arrays_.radius_probability, n, edges.radius_probability);
    append(edge_arrays_.bin_probabilities, frame.bin_probabilities ? n * bins_ : 0, edges.bin_probabilities);
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    edges.octave.resize(before + n, std::uint8_t(octave));
    const int scale = 1 << octave;
    for (std::size_t i = before; i < before + n; ++i) {
      edges.position[i] = in_image(in_finer(edges.position[i], scale), pad, height_, width_);
      edges.radius[i] *= float(scale);
      edges.radius_std[i] *= float(scale);
    }
  }

  /// Only frames from host memory need their edges listed, and when their number is known: there is memory for the most
  /// that an octave had so far.
  void reserve_edges(const DeviceFrame& frame, std::size_t n) {
    if (n > edge_capacity_ || (frame.bin_probabilities && !edge_arrays_.bin_probabilities)) {
      edge_capacity_ = std::max(n + n / 4, edge_capacity_);
      edge_memory_.emplace();
      edge_memory_->reserve(edge_arrays_.position, edge_capacity_);
      for (float** values : {&edge_arrays_.depth_probability, &edge_arrays_.radius, &edge_arrays_.radius_std,
                             &edge_arrays_.radius_probability})
        edge_memory_->reserve(*values, edge_capacity_);
      if (bin_memory_) edge_memory_->reserve(edge_arrays_.bin_probabilities, edge_capacity_ * bins_);
      edge_memory_->allocate();
    }
  }

  const int gpu_, height_, width_;
  const std::size_t bins_;
  Estimator estimator_;
  FrameGraphs graphs_;
  Arena buffers_;  // of frames from host memory
  std::byte* image_ = nullptr;
  std::uint8_t* edges_ = nullptr;
  float *map_ = nullptr, *error_ = nullptr, *bin_probabilities_ = nullptr;
  std::optional<Arena> bin_memory_, edge_memory_;
  std::size_t edge_capacity_ = 0;
  EdgeArrays edge_arrays_;
  std::vector<std::byte> packed_;
  std::vector<float> host_map_;
};

}  // namespace

}  // namespace defocus_fast::cuda

__attribute__((visibility("default"))) defocus_fast::Device* defocus_fast::defocus_fast_make_device(
    const char* version, const DeviceSetup& setup) {
  if (std::strcmp(version, DEFOCUS_FAST_VERSION) != 0)
    throw BackendUnavailable(
        std::string("device: the CUDA part is of version " DEFOCUS_FAST_VERSION ", the library beside it of version ") +
        version);
  const int compute_capability = cuda::compute_capability();
  DeviceSetup complete = setup;
#ifdef DEFOCUS_FAST_TENSORRT
  if (!complete.options.networks) complete.options.networks = cuda::make_tensorrt();
#endif
  if (!complete.options.networks)
    throw BackendUnavailable(
        "device: TensorRT is missing: this library was built without DEFOCUS_FAST_TENSORRT, and `networks` is not "
        "given");
  complete.options.networks->prepare(setup.model->folder.string(), setup.shapes,
                                     {compute_capability, cuda::gpu_name()});
  try {
    return new cuda::Plugin(complete);
  } catch (const cuda::CudaError& error) {
    throw BackendUnavailable(std::string("device: the GPU cannot be used: ") + error.what());
  }
}
