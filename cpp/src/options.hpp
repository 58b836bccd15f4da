// SPDX-License-Identifier: Apache-2.0
// What arguments may be. Each check throws InvalidArgument, which says what was got and what is accepted.
#pragma once

#include <optional>
#include <string>
#include <type_traits>

#include "defocus_fast/options.hpp"
#include "image.hpp"

namespace defocus_fast {

/// Everything but the model.
void check(int height, int width, const Options& options);
/// `prefix` is that of the names.
void check(const CannyOptions& options, const std::string& prefix = "");
void check(const FilterOptions& options);
void check(const GuideOptions& guide, const PropagationOptions& propagation);
void check(const VideoOptions& options);
/// Of a reduced map of this size.
void check(const FocusOptions& options, int height, int width);
void check(const FrameOptions& frame, int height, int width);
void check_running(const std::optional<int>& num_threads, const std::string& kernels);

void check_size(const void* data, int got_height, int got_width, const char* name, int height, int width);
template <class View>
void check_size(const View& view, const char* name, int height, int width) {
  check_size(view.data, view.height, view.width, name, height, width);
  if constexpr (!std::is_same_v<View, ImageView>)  // of which cpu::check_layout knows more
    cpu::check_addresses(name, view.data, sizeof(*view.data),
                         {{height, view.pitch_bytes}, {width, view.pixel_stride_bytes}});
}
/// Also unless every pixel of `out` has memory of its own.
void check_out(const MapView& out, const char* name, int height, int width);

const char* precision_name(Precision precision);

}  // namespace defocus_fast
