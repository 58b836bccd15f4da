// SPDX-License-Identifier: Apache-2.0
// What an estimator can be told.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "defocus_fast/image.hpp"

namespace defocus_fast {

namespace cuda {
class Networks;
}

/// bfloat16 and int8 are for device "cpu", float16 for "cuda". int8: the layers that all edges share, in integers,
/// their heads in bfloat16 or float32; another, slightly less accurate answer.
enum class Precision : std::uint8_t { automatic, float32, bfloat16, float16, int8 };

/// How the networks are evaluated; both forms give the same probabilities up to rounding.
enum class Evaluation : std::uint8_t {
  shared,  // features once per image, heads once per edge or cell
  patch,   // device "cuda": three crops per edge through the whole networks, as in the paper
};

/// What the blur network's probabilities at an edge become before they are spread over the image.
enum class Labels : std::uint8_t {
  posterior,  // the mean radius, weighted by its certainty (cpp/src/formulas.hpp, edge_weight)
  hard,       // the most probable radius bin with weight 1 at pattern edges, as in the paper
};

/// Canny's parameters, in the units of `skimage.feature.canny` on V = max(R, G, B) in [0, 1].
struct CannyOptions {
  double sigma = 1.4142135623730951;  // px, in (0, 64]
  double low = 0.08;                  // gradient magnitude, >= 0
  double high = 0.20;                 // gradient magnitude, >= low
  /// Symmetric smoothing kernel of 1 to 513 weights to use in place of the Gaussian of sigma. NumPy's exp differs from
  /// the C library's in the last bit on some CPUs, and scikit-image decides ties by it: the Python package passes
  /// NumPy's kernel.
  std::vector<double> smoothing;

  bool operator==(const CannyOptions&) const = default;
};

/// The recursive domain transform's parameters (Gastal and Oliveira 2011, equations 14 and 21).
struct FilterOptions {
  double sigma_s = 7;    // spatial standard deviation in px, > 0
  double sigma_r = 0.5;  // range standard deviation in units of the guide, > 0
  int iterations = 5;    // in [1, 16]
};

/// The filter that makes the guide: the image filtered by itself.
struct GuideOptions {
  double sigma_s = 7;    // px, > 0
  double sigma_r = 0.5;  // in units of [0, 1], > 0
};

/// How radii are spread from edges over the image (section III-C of the paper).
struct PropagationOptions {
  double psi = 100.0;             // extra distance across a depth-edge pixel, >= 0 (published program: 20)
  std::optional<double> sigma_s;  // px, > 0; nothing: min(height, width) / 8
  /// In units of [0, 1] summed over red, green and blue, > 0. Nothing: the model's, or 3.75 as in the paper where there
  /// is no model or its labels are hard.
  std::optional<double> sigma_r;
  std::optional<int> iterations;  // of both filters, in [1, 16]; nothing: the model's, or 5 as in the paper
};

struct Options {
  std::string model = "fast";                  // a shipped model's name, or a model folder if it has a '/' in it
  std::string device = "auto";                 // "auto", "cpu" or "cuda"
  Precision precision = Precision::automatic;  // automatic: bfloat16 where the CPU has AVX512-BF16, else float32
  Evaluation evaluation = Evaluation::shared;
  std::optional<int> num_threads;  // in [1, 1024]; nothing: all cores
  std::string kernels = "auto";    // one of available_kernels(), or "auto" for the widest
  Labels labels = Labels::posterior;
  /// Edges of a higher depth probability are depth edges; 1: none is. Nothing: the model's, or 0.5 as in the paper for
  /// hard labels.
  std::optional<double> depth_threshold;
  CannyOptions canny;
  GuideOptions guide;
  PropagationOptions propagation;
  /// Device "cuda": edges for which there is memory; nothing: a quarter of the pixels, but at least 4096. Without
  /// effect on models of the architecture "cells", such as "fast", which have memory for all.
  std::optional<std::int32_t> max_edges;
  /// Device "cuda": evaluates the networks (defocus_fast/networks.hpp). Nothing: TensorRT, in builds with
  /// DEFOCUS_FAST_TENSORRT, from engines in $DEFOCUS_FAST_CACHE or ~/.cache/defocus_fast that the Python package has
  /// built.
  std::shared_ptr<cuda::Networks> networks;
};

/// What may differ from frame to frame.
struct FrameOptions {
  MaskView edges;  // replaces the edge detector if its data is not null
  /// The networks are asked only about edges whose row and column are multiples of it, in [1, 16]; the others do not
  /// count as edges. Less time and less accuracy (ACCURACY.md).
  int edge_stride = 1;
  bool expected_error = true;      // to be estimated; costs a third signal to spread
  bool bin_probabilities = false;  // to be kept
};

}  // namespace defocus_fast
