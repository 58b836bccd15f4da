// SPDX-License-Identifier: Apache-2.0
// What an estimator can be told. The table of options is here: below every struct are the rows that describe its
// members. Messages, the options of Python and of the command line, and their help are made from these rows; defaults
// are the structs'.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "defocus_fast/export.hpp"
#include "defocus_fast/image.hpp"
#include "defocus_fast/span.hpp"

namespace defocus_fast {

namespace cuda {
class Networks;
}

enum class Precision : std::uint8_t { automatic, float32, bfloat16, float16, int8 };
enum class Evaluation : std::uint8_t { shared, patch };
enum class Labels : std::uint8_t { posterior, hard };
enum class Distances : std::uint8_t { automatic, learned, domain_transform };
enum class Grid : std::uint8_t { automatic, anchored, corner };

/// Which values an option takes.
struct Accepted {
  double minimum = 0, maximum = 0;     // of numbers, both included
  Span<const char* const> names = {};  // of an enumeration in its order, or of texts; empty: any text
  bool path = false;                   // the text may be a path
};
constexpr Accepted one_of(Span<const char* const> names) { return {0, 0, names}; }
inline constexpr Accepted any_path{0, 0, {}, true};

/// One row of the table: a member of the struct `Group`.
template <class Group>
struct Option {
  const char* name;
  std::variant<bool Group::*, int Group::*, double Group::*, std::string Group::*, std::optional<int> Group::*,
               std::optional<double> Group::*, Precision Group::*, Evaluation Group::*, Labels Group::*,
               Distances Group::*, Grid Group::*, std::shared_ptr<cuda::Networks> Group::*>
      member;
  Accepted accepted;
  const char* unit;  // of numbers, or ""
  const char* text;
  const char* nothing = "";  // what the default is, where the struct's is nothing
};

// ---- ranges: within them nothing overflows; tests/test_options.py compares maps with those of double precision

inline constexpr Accepted sigma_s_range{0.01, 1e5}, sigma_r_range{1e-4, 1e6}, iterations_range{1, 16};
/// The gradient of values in [0, 1] has a magnitude of at most 4 sqrt(2).
inline constexpr Accepted gradient_range{0, 6};

/// Of skimage.feature.canny on V = max(R, G, B) in [0, 1].
struct CannyOptions {
  double sigma = 1.4142135623730951;
  double low = 0.08;
  double high = 0.20;
  /// Symmetric smoothing kernel to use in place of the Gaussian of sigma: an odd number of at most 513 weights in
  /// [-1e6, 1e6], whose sum is in [0.01, 1e6] and is divided by. NumPy's exp differs from the C library's in the last
  /// bit on some CPUs, and scikit-image decides ties by it: the Python package passes NumPy's kernel.
  std::vector<double> smoothing = {};

  DEFOCUS_FAST_EQUALITY(CannyOptions);
};
inline constexpr Option<CannyOptions> canny_rows[]{
    {"sigma", &CannyOptions::sigma, Accepted{0.001, 64}, "px",
     "Standard deviation of the edge detector's Gaussian; below 0.125 px nothing is smoothed."},
    {"low", &CannyOptions::low, gradient_range, "",
     "Low hysteresis threshold of the gradient magnitude (Sobel operators), at most the high one."},
    {"high", &CannyOptions::high, gradient_range, "",
     "High hysteresis threshold of the gradient magnitude (Sobel operators)."},
};

/// Of the recursive domain transform (Gastal and Oliveira 2011, equations 14 and 21).
struct FilterOptions {
  double sigma_s = 7;
  double sigma_r = 0.5;
  int iterations = 5;
};
inline constexpr Option<FilterOptions> filter_rows[]{
    {"sigma_s", &FilterOptions::sigma_s, sigma_s_range, "px", "Spatial standard deviation."},
    {"sigma_r", &FilterOptions::sigma_r, sigma_r_range, "", "Range standard deviation, in units of the guide."},
    {"iterations", &FilterOptions::iterations, iterations_range, "", "Of a pass along rows and one along columns."},
};

/// Of the filter that makes the guide: the image filtered by itself.
struct GuideOptions {
  double sigma_s = 7;
  double sigma_r = 0.5;
};
inline constexpr Option<GuideOptions> guide_rows[]{
    {"sigma_s", &GuideOptions::sigma_s, sigma_s_range, "px",
     "Spatial standard deviation of the filter that makes the guide."},
    {"sigma_r", &GuideOptions::sigma_r, sigma_r_range, "",
     "Range standard deviation of the filter that makes the guide, in units of [0, 1] summed over three channels."},
};

/// How radii are spread from edges over the image (section III-C of the paper).
struct PropagationOptions {
  std::optional<double> psi = {};
  std::optional<double> sigma_s = {};
  std::optional<double> sigma_r = {};
  std::optional<int> iterations = {};
};
inline constexpr Option<PropagationOptions> propagation_rows[]{
    {"psi", &PropagationOptions::psi, Accepted{0, 1e6}, "px",
     "Extra distance across a pixel of a depth edge: how strongly depth edges keep radii from spreading across them. "
     "20 in the published program.",
     "100 as in the paper; with more than one octave 4.5 sigma_s"},
    {"sigma_s", &PropagationOptions::sigma_s, sigma_s_range, "px",
     "Spatial standard deviation of the filter that spreads the radii.",
     "min(height, width) / 8 as in the paper; with more than one octave / 4"},
    {"sigma_r", &PropagationOptions::sigma_r, sigma_r_range, "",
     "Range standard deviation of the filter that spreads the radii, in units of [0, 1] summed over three channels.",
     "the model's, or 3.75 as in the paper for hard labels or without a model"},
    {"iterations", &PropagationOptions::iterations, iterations_range, "",
     "Of both filters, each a pass along rows and one along columns.",
     "the model's, or 5 as in the paper for hard labels or without a model"},
};

struct Options {
  std::string model = "fast";
  std::string device = "auto";
  Precision precision = Precision::automatic;
  Evaluation evaluation = Evaluation::shared;
  std::optional<int> num_threads = {};
  std::string kernels = "auto";
  Labels labels = Labels::posterior;
  std::optional<double> depth_threshold = {};
  std::optional<int> octaves = {};
  std::optional<double> fine_thresholds = {};
  Distances distances = Distances::automatic;
  Grid grid = Grid::automatic;
  CannyOptions canny = {};              // their names have the prefix canny_ where options have no groups
  GuideOptions guide = {};              // guide_
  PropagationOptions propagation = {};  // no prefix
  std::optional<int> max_edges = {};
  std::shared_ptr<cuda::Networks> networks = {};
};
inline constexpr int most_octaves = 8;
inline constexpr std::array<const char*, 3> device_names{"auto", "cpu", "cuda"};
inline constexpr std::array<const char*, 5> precision_names{"auto", "float32", "bfloat16", "float16", "int8"};
inline constexpr std::array<const char*, 2> evaluation_names{"shared", "patch"};
inline constexpr std::array<const char*, 2> labels_names{"posterior", "hard"};
inline constexpr std::array<const char*, 3> distances_names{"auto", "learned", "domain_transform"};
inline constexpr std::array<const char*, 3> grid_names{"auto", "anchored", "corner"};
inline constexpr Option<Options> option_rows[]{
    {"model", &Options::model, any_path, "", "Name of a shipped model, or a model folder: a path with a '/' in it."},
    {"device", &Options::device, one_of(device_names), "",
     "Where frames are computed. auto takes a GPU only if everything that it needs is there."},
    {"precision", &Options::precision, one_of(precision_names), "",
     "Of the networks. auto is bfloat16 where the CPU has AVX512-BF16 or ARM64's BF16, else float32. bfloat16 and int8 "
     "are for device cpu, float16 for cuda. int8 (CPUs with AVX512-VNNI) computes the layers that all edges share in "
     "integers: faster than float32, at a cost in accuracy that ACCURACY.md states for the shipped models."},
    {"evaluation", &Options::evaluation, one_of(evaluation_names), "",
     "How the networks are evaluated; the probabilities are the same up to rounding. shared: features once per image, "
     "as all edges share them. patch: device cuda only, three crops per edge through the whole networks, as in the "
     "paper; keeps no features; not of models of the architecture cells, such as fast."},
    {"num_threads", &Options::num_threads, Accepted{1, 1024}, "", "Threads that compute.", "all cores"},
    {"kernels", &Options::kernels, Accepted{}, "",
     "Instruction set of this library's own loops, one of available_kernels(); auto is the widest."},
    {"labels", &Options::labels, one_of(labels_names), "",
     "What the probabilities of the radii at an edge become before they are spread. posterior: their mean, weighted by "
     "(1 - depth probability) / (0.15 px + their standard deviation)^2, at depth edges, whose blur is that of the "
     "nearer side, by 0.02 in place of 1 - depth probability. hard: the most probable radius with weight 1, at pattern "
     "edges only, as in the paper."},
    {"depth_threshold", &Options::depth_threshold, Accepted{0, 1}, "",
     "Edges of a higher depth probability are depth edges. At 1 none is, and the edge network does not run.",
     "the model's, or 0.5 as in the paper for hard labels"},
    {"octaves", &Options::octaves, Accepted{1, most_octaves}, "",
     "Sizes at which the image is read, at most: the image's own, and each half of the one before, as long as the "
     "shorter side has 64 px. Every one doubles the largest radius that can be read. 1 is the method of the paper.",
     "as many as there are"},
    {"fine_thresholds", &Options::fine_thresholds, Accepted{0.01, 1}, "",
     "Factor of the edge detector's thresholds in the first octave, where there are more; in the second they have its "
     "square root. Weak edges tell radii and outlines where there are no others; large images have more octaves for "
     "that. 1 finds fewer edges in less time. The method of the paper, with one octave, has no such factor.",
     "a 1080th of the shorter side in px, but from 0.4 to 1"},
    {"distances", &Options::distances, one_of(distances_names), "",
     "How far it is from pixel to pixel for radii that spread. domain_transform: as in the paper. learned: a network "
     "of the model changes these distances, and how much edges count, by what lies around them and by what the whole "
     "image is like; needs more than one octave and posterior labels. auto is learned where the model has the network, "
     "as fast has, and the options allow it, but not of videos, of whose frames the network would see a part only. "
     "Given edges are always spread by domain_transform."},
    {"grid", &Options::grid, one_of(grid_names), "",
     "Where the pixels of coarse octaves begin, and the cells of 3 x 3 px that models such as fast answer for. "
     "anchored: at the image's strongest edge, so that a view which moves by whole pixels gets the same answer; needs "
     "more than one octave. corner: at the image's upper left corner, whatever it shows. auto is anchored where there "
     "is more than one octave, but not of videos, whose grid must stay where it is. With given edges the grid is at "
     "the corner."},
    {"max_edges", &Options::max_edges, Accepted{1, std::numeric_limits<int>::max()}, "",
     "Device cuda only: edges for which there is memory, and for which networks are evaluated. A frame with more is an "
     "error; of images in device memory, where nobody waits for the number, the last edges, at the bottom of the "
     "image, are left out. Photographs seldom have more than the default, noise may have a third of its pixels. Models "
     "of the architecture cells, such as fast, have memory for all, and neither they nor device cpu heed it.",
     "a quarter of the pixels, but at least 4096"},
    {"networks", &Options::networks, Accepted{}, "",
     "Device cuda only: evaluates the networks, see defocus_fast/networks.hpp. Device cpu does not heed it.",
     "TensorRT, from engines in $DEFOCUS_FAST_CACHE or ~/.cache/defocus_fast, which the Python package builds"},
};

/// What may differ from frame to frame.
struct FrameOptions {
  MaskView edges = {};  // replaces the edge detector, and octaves but the first, if its data is not null
  int edge_stride = 1;
  bool expected_error = true;
  bool bin_probabilities = false;
};
inline constexpr Option<FrameOptions> frame_rows[]{
    {"edge_stride", &FrameOptions::edge_stride, Accepted{1, 16}, "",
     "The networks are asked only about edges whose row and column are multiples of it, and the others do not count as "
     "edges: less time and less accuracy, see ACCURACY.md."},
    {"expected_error", &FrameOptions::expected_error, Accepted{}, "",
     "Also estimate the map's error at every pixel: 4 bytes a pixel, and a third signal to spread."},
    {"bin_probabilities", &FrameOptions::bin_probabilities, Accepted{}, "",
     "Keep the blur network's probability of every radius: 4 bytes a radius and edge."},
};

/// Of a VideoEstimator, beside Options.
struct VideoOptions {
  int frames = 10;
  std::optional<double> budget_ms = {};
};
inline constexpr Option<VideoOptions> video_rows[]{
    {"frames", &VideoOptions::frames, Accepted{1, 1000}, "",
     "How many frames are averaged, at most, where nothing changes: more make the map steadier, and slower to follow "
     "changes that are too small to be noticed."},
    {"budget_ms", &VideoOptions::budget_ms, Accepted{0.1, 1e6}, "ms",
     "What a frame may take: of a frame that would take longer, only as much is read as there is time for, what has "
     "changed and what has waited longest first. It cannot be less than the edge detector and the filters take, nor "
     "heed what else the machine does.",
     "no budget"},
};

/// Of VideoEstimator::estimate_focus.
struct FocusOptions {
  int rows = 6;
  int columns = 8;
  double in_focus = 1.5;
  double percentile = 15;
};
inline constexpr Accepted regions_range{1, 10000};
inline constexpr Option<FocusOptions> focus_rows[]{
    {"rows", &FocusOptions::rows, regions_range, "",
     "Rows of regions; at most as many as the reduced map has rows of pixels."},
    {"columns", &FocusOptions::columns, regions_range, "",
     "Columns of regions; at most as many as the reduced map has columns of pixels."},
    {"in_focus", &FocusOptions::in_focus, Accepted{0, 1e6}, "px", "Radius up to which a pixel counts as in focus."},
    {"percentile", &FocusOptions::percentile, Accepted{0, 100}, "%",
     "Percentile of a region's radii that is told: a low one is the radius of its sharpest part."},
};

// ---- options by name, for callers of other languages

/// Nothing, or a value; flags are integers.
using OptionValue = std::variant<std::monostate, std::int64_t, double, std::string>;

enum class OptionKind : std::uint8_t { flag, integer, number, name, text, path, object };

/// A row for those who do not know the struct.
struct OptionInfo {
  std::string name;   // with the group's prefix: "canny_sigma"
  std::string group;  // "canny", "guide", "propagation" or "": the member of Options
  OptionKind kind;
  bool optional;              // nothing is accepted, too
  OptionValue default_value;  // of kind object: nothing
  Accepted accepted;
  std::string unit, text, nothing;

  /// "a number in [0.01, 64] px", as messages say it.
  DEFOCUS_FAST_API std::string expected() const;
};

/// Of Options (with its groups), FrameOptions, VideoOptions, FocusOptions, CannyOptions, GuideOptions,
/// PropagationOptions or FilterOptions.
template <class Group>
DEFOCUS_FAST_API std::vector<OptionInfo> option_table();

/// The same structs. Throws InvalidArgument if there is no such option, or if it does not take this value; one of kind
/// object takes nothing only.
template <class Group>
DEFOCUS_FAST_API void set_option(Group& options, const std::string& name, const OptionValue& value);
template <class Group>
DEFOCUS_FAST_API OptionValue get_option(const Group& options, const std::string& name);

}  // namespace defocus_fast
