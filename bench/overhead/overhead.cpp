// SPDX-License-Identifier: Apache-2.0
// What a C++ program does per frame, called by bench/test_speed.py in turn with what a Python program does.
#include <cstdint>
#include <vector>

#include <defocus_fast/estimator.hpp>

/// `calls` times estimate_into on 32x32 pixels without edges.
extern "C" void estimate(int num_threads, int calls) {
  constexpr int side = 32;
  static defocus_fast::Estimator estimator = [&] {
    defocus_fast::Options options;
    options.num_threads = num_threads;
    return defocus_fast::Estimator(side, side, options);
  }();
  static const std::vector<std::uint8_t> frame(side * side * 3);
  static std::vector<float> map(side * side);
  const auto image =
      defocus_fast::ImageView::interleaved(frame.data(), defocus_fast::PixelType::uint8, side, side, 3, side * 3);
  for (int i = 0; i < calls; ++i)
    estimator.estimate_into(image, {map.data(), side, side, side * std::ptrdiff_t{sizeof(float)}});
}
