// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "defocus_fast/estimator.hpp"
#include "kernels.hpp"
#include "workers.hpp"

namespace defocus_fast::cpu {

/// The symmetric smoothing kernel that these options ask for.
std::vector<double> smoothing_kernel(const CannyOptions& options);

class EdgeDetector {
 public:
  EdgeDetector(int height, int width, const CannyOptions& options, const Kernels& kernels, Workers& workers);
  ~EdgeDetector();
  /// Returns the edge whose gradient is the strongest, the first one of equals; (0, 0) without edges.
  Pixel detect_edges(const ImageView& image);
  /// mask[y * pitch + x] = 1 at the edges of the last image, else 0.
  void write_mask(std::uint8_t* mask, std::ptrdiff_t pitch);

 private:
  template <class T>
  struct Strip;
  struct Strongest {
    float magnitude = 0;
    Pixel at{0, 0};
  };
  template <class T>
  void find_chains(const ImageView& image, std::vector<Strip<T>>& strips);
  std::uint64_t* row_of(std::vector<std::uint64_t>& bits, int y) const;
  void await(int y, int w, std::uint64_t pixels);
  void await_row(int y);
  void follow_chains(int first, int last);
  bool extend_chains(int y, int w, int first, int last);

  int height_, width_;
  CannyOptions options_;
  const Kernels& kernels_;
  Workers& workers_;
  std::vector<double> weights_;
  int rows_per_strip_;
  std::vector<Strongest> strongest_;        // by strip
  std::vector<Strip<float>> float_strips_;  // one per slot, made when the first image of the type comes
  std::vector<Strip<double>> double_strips_;
  // A bit per pixel, in words; a row has one more word at each end, which stays 0.
  int words_;
  std::vector<std::uint64_t> candidates_, edges_;
  std::size_t waiting_words_;
  std::vector<std::uint64_t> waiting_;  // a bit per word: whether its candidates are to be looked at
};

}  // namespace defocus_fast::cpu
