// SPDX-License-Identifier: Apache-2.0
// How a video's frame takes no longer than it may.
#pragma once

#include <cstdint>
#include <vector>

namespace defocus_fast::cpu {

/// Chooses the regions of a frame whose edges the networks are asked about: those that have changed and those that have
/// waited longest, as many as there is time for. What that is, earlier frames tell. Of a region that has to wait
/// nothing is read where what is known of it still holds, else its coarse octaves, which take little time. All times
/// are in ms since the frame has begun; so this class needs no clock.
class FrameBudget {
 public:
  static constexpr int region_octave = 6;  // 64 x 64 px of the image; the networks' patches overlap less in larger ones
  static constexpr int fine_octaves = 2;   // the others are coarse
  static constexpr int octaves = 5;        // that are read by region; what is coarser takes no time

  struct Region {
    int fine = 0, coarse = 0;  // edges of the frame
    int asked = 0;             // of them those that the networks are asked about
    float changed = 0;         // share of the region
    bool is_read = true;
    int waited = 1;   // frames since it was read, and this one
    float share = 1;  // of its edges that are asked about

    bool holds() const { return changed < 0.5f; }
    bool is_read_in(int octave) const { return is_read || (octave >= fine_octaves && !holds()); }
  };

  FrameBudget(double ms, int height, int width);

  int rows() const { return rows_; }
  int columns() const { return columns_; }
  Region& region(int row, int column) { return regions_[std::size_t(row * columns_ + column)]; }

  /// When `fine`, `coarse` and `changed` of all regions are known, and the networks are about to be asked: sets
  /// `is_read`. The first frame is read as a whole.
  void choose(double now);
  /// At the end of a frame, when the regions' `asked` is known.
  void learn(double began_to_ask, double had_asked, double end);
  /// The next frame is like the first one.
  void forget() { per_edge_ = rest_ = 0; }
  /// What was learned is of frames whose edges take less time than others'.
  void doubt() { per_edge_ *= 2; }

  /// Share of the image that is read.
  float read() const;

 private:
  const double ms_;
  const int rows_, columns_;
  std::vector<Region> regions_;
  std::vector<std::int32_t> order_;  // of regions, the most urgent first
  double per_edge_ = 0, rest_ = 0;   // ms that an edge takes, and that what follows the networks does; 0: not known
  double reserve_;                   // ms that are left for what no frame before has told
};

}  // namespace defocus_fast::cpu
