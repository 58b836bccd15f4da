// SPDX-License-Identifier: Apache-2.0
#ifndef __SANITIZE_ADDRESS__  // which replaces the same operators
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <new>
#include <vector>

#include "defocus_fast/video.hpp"

namespace {

std::atomic<long> allocations = 0;

void* allocate(std::size_t size, std::size_t alignment) {
  ++allocations;
  const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
  if (void* const memory = std::aligned_alloc(alignment, rounded ? rounded : alignment)) return memory;
  throw std::bad_alloc();
}

}  // namespace

// Every new of the program comes here; the array forms call these.
void* operator new(std::size_t size) { return allocate(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t alignment) { return allocate(size, std::size_t(alignment)); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

TEST_CASE("a frame allocates nothing after the first of its kind, be there edges or not") {
  using namespace defocus_fast;
  constexpr int height = 250, width = 230;  // several tiles of tip22
  std::vector<std::uint8_t> checks(std::size_t{height} * width * 3 + 12), flat(checks.size(), 100),
      grey(checks.size(), 128);
  for (std::size_t i = 0; i < checks.size(); ++i) checks[i] = (i / 3 % width / 12 + i / 3 / width / 12) % 2 ? 200 : 30;
  std::vector<float> map(std::size_t{height} * width);
  const auto view = [&](const std::vector<std::uint8_t>& values, int i) {
    if (i == 0) return ImageView::interleaved(values.data(), PixelType::uint8, height, width, 3, width * 3);
    // Y has its edges, too.
    return ImageView::of(PixelFormat::nv12, height, width, {{values.data(), width * 3}, {grey.data(), width}, {}});
  };
  const auto moved = [](ImageView image) {
    if (image.coding != Coding{}) return image;  // of YUV the views show no more than whole frames
    image.data = static_cast<const std::byte*>(image.data) + 4 * 3;
    return image;
  };
  const MapView out{map.data(), height, width, width * 4};
  for (const std::string model : {TEST_MODEL, TEST_MODEL "/../fast"})
    for (const int threads : {1, 2}) {
      Options options;
      options.model = model;
      options.num_threads = threads;
      const ThreadPool pool(threads);
      Estimator estimator(height, width, options, pool);
      VideoEstimator video(height, width, options, {}, pool);
      BlurMap result;
      VideoBlurMap video_result;
      FocusMap focus;
      std::array<std::size_t, 2> edges{};
      const auto frames = [&] {
        for (int i = 0; i < 3; ++i) {
          for (std::size_t k = 0; k < 2; ++k) {
            const ImageView image = view(k == 0 ? flat : checks, i);
            estimator.estimate_into(image, out);
            estimator.estimate(image, result);
            edges[k] = result.edges.size();
            if (model == TEST_MODEL) continue;  // slow, and what is averaged is the same
            // Cuts, frames that stay, and ones that the camera moves.
            for (const ImageView& each : {image, image, moved(image)}) {
              video.estimate_into(each, out);
              video.estimate(each, video_result);
              video.estimate_focus(each, focus);
            }
          }
        }
      };
      frames();  // threads that come late to a frame allocate their own buffers then
      const long before = allocations;
      frames();
      CHECK(allocations == before);
      CHECK(edges[0] == 0);
      CHECK(edges[1] > 1000);
    }
}

TEST_CASE("after warm_up no frame of a video allocates anything, whatever it shows") {
  using namespace defocus_fast;
  constexpr int height = 250, width = 230;
  std::vector<std::uint8_t> flat(std::size_t{height} * width * 3, 100), stripes(flat.size()), noise(flat.size());
  std::vector<float> map(std::size_t{height} * width), values(flat.size());
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < flat.size(); ++i) {
    stripes[i] = i / 3 % width / 3 % 2 ? 200 : 30;
    noise[i] = std::uint8_t((state = state * 1664525 + 1013904223) >> 24);
    values[i] = float(noise[i]) / 255;
  }
  const MapView out{map.data(), height, width, width * 4};
  for (const bool has_budget : {false, true}) {
    Options options;
    options.model = TEST_MODEL "/../fast";
    options.num_threads = 2;
    VideoOptions of_video;
    if (has_budget) of_video.budget_ms = 0.1;
    VideoEstimator video(height, width, options, of_video);
    FocusMap focus;
    video.warm_up();
    video.estimate_focus(ImageView::interleaved(flat.data(), PixelType::uint8, height, width, 3, width * 3), focus);
    const long before = allocations;
    for (const std::vector<std::uint8_t>* const pixels : {&flat, &noise, &stripes, &flat}) {
      const ImageView image = ImageView::interleaved(pixels->data(), PixelType::uint8, height, width, 3, width * 3);
      video.estimate_into(image, out);
      video.estimate_focus(image, focus);
      video.estimate_into(ImageView::of(PixelFormat::nv12, height, width,
                                        {{pixels->data(), width}, {pixels->data() + height * width, width}, {}}),
                          out);
    }
    const ImageView image = ImageView::interleaved(values.data(), PixelType::float32, height, width, 3, width * 12);
    video.estimate_into(image, out);
    CHECK(allocations == before);
  }
}
#endif
