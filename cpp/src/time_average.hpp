// SPDX-License-Identifier: Apache-2.0
// What the frames of a video before this one say about it.
#pragma once

#include <cstdint>
#include <vector>

#include "defocus_fast/video.hpp"
#include "domain_transform.hpp"
#include "workers.hpp"

namespace defocus_fast::cpu {

/// Averages along time, in the octave in which radii are spread: of the seeds that edges put there, of barriers, and of
/// the image, with which the next frame is compared. They move with the camera. Each pixel has an age, in frames. Where
/// the image or the radii differ from the averages by more than noise, the age falls, down to a start afresh, in which
/// the averages are those of the present frame to the last bit.
class TimeAverage {
 public:
  /// Of at most so many frames.
  TimeAverage(int height, int width, int frames, Workers& workers);

  void reset() { known_ = false; }
  /// First in a frame: moves what is known to where it is in this frame, finds where the image has changed, and
  /// averages it.
  void advance(const ImageView& image);
  /// Then, in any part of the image: the share of it of which the averages say nothing, or nothing that still holds.
  float changed(Range rows, Range columns) const;
  /// And in parts that are whole cells, or end where the image does: not all of their edges are asked about in this
  /// frame, so what is known stays as it is. Where nothing is, the frame's seeds stand in its place.
  void leave_out(Range rows, Range columns);
  /// Then averages the seeds, and `barriers` (height, width), which become those that have been seen often enough.
  void add(const SeedRow& seed, std::uint8_t* barriers);
  /// The averages of the seeds of a row.
  void put(int y, const SeedRows& rows) const;

  /// Of the frame; its shift in px of the octave.
  const VideoChange& change() const { return change_; }

 private:
  enum Kept { image, weight = 3, radius, square, age, fine, coarse, kept };

  float* row(int plane, int y) { return planes_.data() + (std::ptrdiff_t{plane} * height_ + y) * width_; }
  const float* row(int plane, int y) const { return planes_.data() + (std::ptrdiff_t{plane} * height_ + y) * width_; }
  float* now(int plane, int y) { return now_.data() + (std::ptrdiff_t{plane} * height_ + y) * width_; }
  const float* now(int plane, int y) const { return now_.data() + (std::ptrdiff_t{plane} * height_ + y) * width_; }

  void find_shift();
  bool moves(int down, int right) const;
  void shift(int down, int right);
  void compare_images();
  void compare_cells_of_image(int cell_row, int slot, bool textures);
  void measure_image_noise(bool anew);
  void compare_radii();
  void renew(int y, float* gain);
  void compare_cells_of_radii(int cell_row);
  float quantile(const std::vector<float>& of_cells, double share);
  /// How much of its age each pixel of a row loses, from what the cells around it say.
  void interpolate_renewal(int y, float* renewal) const;

  const int height_, width_, rows_, columns_;  // the last two of cells
  const float frames_;
  Workers& workers_;
  bool known_ = false, first_ = true;
  int channels_ = 0;
  float image_noise_ = 0;                 // variance of a value; 0: not known yet
  float radius_noise_ = 0;                // see compare_radii(); 0: not known yet
  float rest_down_ = 0, rest_right_ = 0;  // of the camera's movement beyond whole pixels
  VideoChange change_;
  std::vector<float> planes_;                // (kept, height, width)
  std::vector<float> now_;                   // (3, height, width): the frame's image, then its seeds
  std::vector<std::uint8_t> shown_;          // barriers
  std::vector<std::uint8_t> left_out_;       // by cell
  bool is_whole_ = true;                     // no cell is left out
  std::vector<std::vector<float>> scratch_;  // three rows of whole cells per slot
  std::vector<double> column_sums_, along_y_, along_x_, costs_;  // see find_shift()
  // By cell; less than 0 where nothing is known.
  std::vector<float> changes_, noises_, textures_, evidence_, innovation_, pooled_, pooled_before_, renewal_, sorted_;
};

}  // namespace defocus_fast::cpu
