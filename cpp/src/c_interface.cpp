// SPDX-License-Identifier: Apache-2.0
// The C interface: every function is a call of the C++ one, behind which no exception goes.
#pragma GCC visibility push(default)
#include "defocus_fast.h"
#pragma GCC visibility pop

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <exception>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "defocus_fast/error.hpp"
#include "defocus_fast/options.hpp"
#include "defocus_fast/version.hpp"
#include "defocus_fast/video.hpp"

namespace df = defocus_fast;

struct defocus_fast_thread_pool : df::ThreadPool {
  using ThreadPool::ThreadPool;
};
struct defocus_fast_options {
  df::Options options;
  df::FrameOptions frame;
  df::VideoOptions video;
  df::FocusOptions focus;
  std::optional<df::ThreadPool> pool;
};
struct defocus_fast_estimator : df::Estimator {
  using Estimator::Estimator;
};
struct defocus_fast_video : df::VideoEstimator {
  using VideoEstimator::VideoEstimator;
};
struct defocus_fast_result {
  df::VideoBlurMap answer;
  defocus_fast_blur_map view{};
};
struct defocus_fast_focus_result {
  df::FocusMap answer;
  defocus_fast_focus_map view{};
};

static_assert(DEFOCUS_FAST_STAGES == df::stage_names.size());
static_assert(DEFOCUS_FAST_UINT8 == int(df::PixelType::uint8) && DEFOCUS_FAST_FLOAT32 == int(df::PixelType::float32));
static_assert(sizeof(defocus_fast_focus) == sizeof(df::Focus) &&
              offsetof(defocus_fast_focus, radius) == offsetof(df::Focus, radius) &&
              offsetof(defocus_fast_focus, expected_error) == offsetof(df::Focus, expected_error));
static_assert(sizeof(defocus_fast_pixel) == sizeof(df::Pixel) &&
              offsetof(defocus_fast_pixel, x) == offsetof(df::Pixel, x));

namespace {

thread_local std::array<char, 1024> last_error{};  // of fixed size: memory may be what is lacking

template <class Work>
defocus_fast_status attempt(const Work& work) {
  const auto failed = [](defocus_fast_status status, const char* text) {
    std::snprintf(last_error.data(), last_error.size(), "%s", text);
    return status;
  };
  try {
    work();
    return DEFOCUS_FAST_OK;
  } catch (const df::InvalidArgument& error) {
    return failed(DEFOCUS_FAST_INVALID_ARGUMENT, error.what());
  } catch (const df::BackendUnavailable& error) {
    return failed(DEFOCUS_FAST_BACKEND_UNAVAILABLE, error.what());
  } catch (const df::ModelError& error) {
    return failed(DEFOCUS_FAST_MODEL_ERROR, error.what());
  } catch (const std::bad_alloc&) {
    return failed(DEFOCUS_FAST_OUT_OF_MEMORY, defocus_fast_status_text(DEFOCUS_FAST_OUT_OF_MEMORY));
  } catch (const std::exception& error) {
    return failed(DEFOCUS_FAST_ERROR, error.what());
  }
}

template <class T>
T& needed(T* pointer, const char* name) {
  if (!pointer) throw df::InvalidArgument(std::string(name) + ": expected a pointer, got null");
  return *pointer;
}

void set(defocus_fast_options* options, const char* name, const df::OptionValue& value) {
  const std::string option = &needed(name, "name");
  auto& [of_estimators, of_frames, of_videos, of_focus, pool] = needed(options, "options");
  const auto has_set = [&]<class Group>(Group& group) {
    const auto table = df::option_table<Group>();
    if (std::ranges::find(table, option, &df::OptionInfo::name) == table.end()) return false;
    df::set_option(group, option, value);
    return true;
  };
  if (!has_set(of_frames) && !has_set(of_videos) && !has_set(of_focus)) df::set_option(of_estimators, option, value);
}

df::ImageView view_of(const defocus_fast_image* given) {
  const defocus_fast_image& image = needed(given, "image");
  if (image.format) {
    if (image.pixel_type || image.channels || image.pixel_stride_bytes || image.channel_stride_bytes)
      throw df::InvalidArgument(
          std::string("image: expected pixel_type, channels and strides of 0, as the format is ") + image.format);
    const auto& [second, third] = image.more_planes;
    return df::ImageView::of(
        df::pixel_format(image.format), image.height, image.width,
        {{image.data, image.pitch_bytes}, {second.data, second.pitch_bytes}, {third.data, third.pitch_bytes}},
        df::colour(image.range, image.matrix));
  }
  const auto type = df::PixelType(std::min(unsigned(image.pixel_type), 255u));  // which the core refuses
  if (image.pixel_stride_bytes == 0 && image.channel_stride_bytes == 0)
    return df::ImageView::interleaved(image.data, type, image.height, image.width, image.channels, image.pitch_bytes);
  return {image.data,
          type,
          image.height,
          image.width,
          image.channels,
          image.pitch_bytes,
          image.pixel_stride_bytes,
          image.channel_stride_bytes};
}

df::FrameOptions frame_of(const defocus_fast_options* options) { return options ? options->frame : df::FrameOptions{}; }

template <class T>
const T* data_of(const std::vector<T>& values) {
  return values.empty() ? nullptr : values.data();
}

/// Makes the view of what `estimate` writes into the answer.
template <class Estimate>
void answer_into(defocus_fast_result* result, const Estimate& estimate) {
  auto& [answer, view] = needed(result, "result");
  view = {};
  estimate(answer);
  const df::Edges& edges = answer.edges;
  view = {answer.height,
          answer.width,
          data_of(answer.map),
          data_of(answer.expected_error),
          data_of(answer.pattern_edges),
          data_of(answer.depth_edges),
          edges.size(),
          reinterpret_cast<const defocus_fast_pixel*>(data_of(edges.position)),
          data_of(edges.octave),
          data_of(edges.depth_probability),
          data_of(edges.radius),
          data_of(edges.radius_std),
          data_of(edges.radius_probability),
          data_of(edges.bin_probabilities),
          {}};
  std::ranges::copy(answer.stage_ms, view.stage_ms);
}

defocus_fast_video_change change_of(const df::VideoChange& change) {
  return {change.cut, change.shift_y, change.shift_x, change.renewed, change.read};
}

df::MapView map_of(const defocus_fast_map* out) {
  const auto& [data, height, width, pitch_bytes] = needed(out, "out");
  return {data, height, width, pitch_bytes};
}

}  // namespace

int defocus_fast_abi_version() { return DEFOCUS_FAST_ABI_VERSION; }
const char* defocus_fast_version() { return DEFOCUS_FAST_VERSION; }

const char* defocus_fast_status_text(defocus_fast_status status) {
  static constexpr std::array texts{"all went well",
                                    "the library failed",
                                    "an argument is out of its range",
                                    "this machine or build lacks the device, precision or kernels asked for",
                                    "a model folder is missing, incomplete or of another format",
                                    "there is not enough memory"};
  return std::size_t(status) < texts.size() ? texts[std::size_t(status)] : "unknown status";
}
const char* defocus_fast_last_error() { return last_error.data(); }

defocus_fast_status defocus_fast_thread_pool_create(int num_threads, void (*on_start)(int index, void* context),
                                                    void* context, defocus_fast_thread_pool** pool) {
  return attempt([&] {
    needed(pool, "pool") = nullptr;
    const std::optional<int> given = num_threads ? std::optional(num_threads) : std::nullopt;
    std::function<void(int)> start;
    if (on_start) start = [=](int index) { on_start(index, context); };
    *pool = new defocus_fast_thread_pool(given, std::move(start));
  });
}
void defocus_fast_thread_pool_destroy(defocus_fast_thread_pool* pool) { delete pool; }
int defocus_fast_thread_pool_num_threads(const defocus_fast_thread_pool* pool) { return pool->num_threads(); }

defocus_fast_options* defocus_fast_options_create() {
  defocus_fast_options* options = nullptr;
  attempt([&] { options = new defocus_fast_options; });
  return options;
}
void defocus_fast_options_destroy(defocus_fast_options* options) { delete options; }
defocus_fast_status defocus_fast_options_set_text(defocus_fast_options* options, const char* name, const char* value) {
  return attempt([&] { set(options, name, value ? df::OptionValue(value) : df::OptionValue()); });
}
defocus_fast_status defocus_fast_options_set_number(defocus_fast_options* options, const char* name, double value) {
  const bool integer = value == std::trunc(value) && std::abs(value) < 9e15;
  return attempt([&] { set(options, name, integer ? df::OptionValue(std::int64_t(value)) : df::OptionValue(value)); });
}
defocus_fast_status defocus_fast_options_set_edges(defocus_fast_options* options, const std::uint8_t* data, int height,
                                                   int width, std::ptrdiff_t pitch_bytes) {
  return attempt([&] { needed(options, "options").frame.edges = {data, height, width, pitch_bytes}; });
}
defocus_fast_status defocus_fast_options_set_thread_pool(defocus_fast_options* options,
                                                         const defocus_fast_thread_pool* pool) {
  return attempt([&] { needed(options, "options").pool = pool ? std::optional<df::ThreadPool>(*pool) : std::nullopt; });
}

defocus_fast_status defocus_fast_estimator_create(int height, int width, const defocus_fast_options* options,
                                                  defocus_fast_estimator** estimator) {
  return attempt([&] {
    needed(estimator, "estimator") = nullptr;
    const defocus_fast_options defaults;
    const defocus_fast_options& given = options ? *options : defaults;
    *estimator = new defocus_fast_estimator(height, width, given.options, given.pool);
  });
}
void defocus_fast_estimator_destroy(defocus_fast_estimator* estimator) { delete estimator; }
int defocus_fast_estimator_num_threads(const defocus_fast_estimator* estimator) { return estimator->num_threads(); }
const char* defocus_fast_estimator_device(const defocus_fast_estimator* estimator) {
  return estimator->device().c_str();
}
const char* defocus_fast_estimator_precision(const defocus_fast_estimator* estimator) { return estimator->precision(); }
const char* defocus_fast_estimator_kernels(const defocus_fast_estimator* estimator) { return estimator->kernels(); }
const char* defocus_fast_estimator_model(const defocus_fast_estimator* estimator) { return estimator->model().c_str(); }
const float* defocus_fast_estimator_radius_bins(const defocus_fast_estimator* estimator, std::size_t* count) {
  *count = estimator->radius_bins().size();
  return estimator->radius_bins().data();
}

defocus_fast_status defocus_fast_estimate_into(defocus_fast_estimator* estimator, const defocus_fast_image* image,
                                               const defocus_fast_map* out, const defocus_fast_options* options) {
  return attempt([&] {
    const df::MapView map = map_of(out);
    needed(estimator, "estimator").estimate_into(view_of(image), map, frame_of(options));
  });
}

const char* defocus_fast_stage_name(int stage) {
  return stage >= 0 && stage < DEFOCUS_FAST_STAGES ? df::stage_names[std::size_t(stage)] : nullptr;
}

defocus_fast_result* defocus_fast_result_create() {
  defocus_fast_result* result = nullptr;
  attempt([&] { result = new defocus_fast_result; });
  return result;
}
void defocus_fast_result_destroy(defocus_fast_result* result) { delete result; }
const defocus_fast_blur_map* defocus_fast_result_get(const defocus_fast_result* result) { return &result->view; }

defocus_fast_status defocus_fast_estimate(defocus_fast_estimator* estimator, const defocus_fast_image* image,
                                          defocus_fast_result* result, const defocus_fast_options* options) {
  return attempt([&] {
    answer_into(result, [&](df::BlurMap& answer) {
      needed(estimator, "estimator").estimate(view_of(image), answer, frame_of(options));
    });
  });
}

defocus_fast_status defocus_fast_video_create(int height, int width, const defocus_fast_options* options,
                                              defocus_fast_video** video) {
  return attempt([&] {
    needed(video, "video") = nullptr;
    const defocus_fast_options defaults;
    const defocus_fast_options& given = options ? *options : defaults;
    *video = new defocus_fast_video(height, width, given.options, given.video, given.pool);
  });
}
void defocus_fast_video_destroy(defocus_fast_video* video) { delete video; }
defocus_fast_status defocus_fast_video_estimate_into(defocus_fast_video* video, const defocus_fast_image* image,
                                                     const defocus_fast_map* out, const defocus_fast_options* options,
                                                     defocus_fast_video_change* change) {
  return attempt([&] {
    const df::MapView map = map_of(out);
    const df::VideoChange found = needed(video, "video").estimate_into(view_of(image), map, frame_of(options));
    if (change) *change = change_of(found);
  });
}
defocus_fast_status defocus_fast_video_estimate(defocus_fast_video* video, const defocus_fast_image* image,
                                                defocus_fast_result* result, const defocus_fast_options* options,
                                                defocus_fast_video_change* change) {
  return attempt([&] {
    answer_into(result, [&](df::VideoBlurMap& answer) {
      needed(video, "video").estimate(view_of(image), answer, frame_of(options));
      if (change) *change = change_of(answer.change);
    });
  });
}
defocus_fast_focus_result* defocus_fast_focus_result_create() {
  defocus_fast_focus_result* result = nullptr;
  attempt([&] { result = new defocus_fast_focus_result; });
  return result;
}
void defocus_fast_focus_result_destroy(defocus_fast_focus_result* result) { delete result; }
const defocus_fast_focus_map* defocus_fast_focus_result_get(const defocus_fast_focus_result* result) {
  return &result->view;
}
defocus_fast_status defocus_fast_video_estimate_focus(defocus_fast_video* video, const defocus_fast_image* image,
                                                      defocus_fast_focus_result* result,
                                                      const defocus_fast_options* options) {
  return attempt([&] {
    auto& [answer, view] = needed(result, "result");
    view = {};
    needed(video, "video")
        .estimate_focus(view_of(image), answer, options ? options->focus : df::FocusOptions{}, frame_of(options));
    view = {{answer.frame.in_focus, answer.frame.radius, answer.frame.expected_error},
            answer.rows,
            answer.columns,
            reinterpret_cast<const defocus_fast_focus*>(data_of(answer.regions)),
            answer.height,
            answer.width,
            answer.scale,
            data_of(answer.map),
            data_of(answer.expected_error),
            change_of(answer.change)};
  });
}
defocus_fast_status defocus_fast_video_warm_up(defocus_fast_video* video) {
  return attempt([&] { needed(video, "video").warm_up(); });
}
defocus_fast_status defocus_fast_video_reset(defocus_fast_video* video) {
  return attempt([&] { needed(video, "video").reset(); });
}
