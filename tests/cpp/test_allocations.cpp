// SPDX-License-Identifier: Apache-2.0
#ifndef __SANITIZE_ADDRESS__  // which replaces the same operators
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "defocus_fast/estimator.hpp"

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

TEST_CASE("a frame allocates nothing after the first of its kind") {
  using namespace defocus_fast;
  constexpr int height = 250, width = 230;  // several tiles of tip22
  std::vector<std::uint8_t> pixels(std::size_t{height} * width * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = (i / 3 % width / 12 + i / 3 / width / 12) % 2 ? 200 : 30;
  std::vector<float> map(std::size_t{height} * width);
  const ImageView image = ImageView::interleaved(pixels.data(), PixelType::uint8, height, width, 3, width * 3);
  const MapView out{map.data(), height, width, width * 4};
  for (const std::string model : {TEST_MODEL, TEST_MODEL "/../fast"})
    for (const int threads : {1, 2}) {
      Options options;
      options.model = model;
      options.evaluation = Evaluation::shared;  // OpenVINO, which answers about patches, allocates
      options.num_threads = threads;
      Estimator estimator(height, width, options);
      BlurMap result;
      for (int i = 0; i < 3; ++i) {  // threads that come late to a frame allocate their own buffers then
        estimator.estimate_into(image, out);
        estimator.estimate(image, result);
      }
      const long before = allocations;
      for (int i = 0; i < 3; ++i) {
        estimator.estimate_into(image, out);
        estimator.estimate(image, result);
      }
      CHECK(allocations == before);
      CHECK(result.edges.size() > 1000);
    }
}
#endif
