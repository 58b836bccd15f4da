// SPDX-License-Identifier: Apache-2.0
// All constants were chosen on the videos of bench/video.py.
#include "time_average.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "image.hpp"

namespace defocus_fast::cpu {

namespace {

/// Changes are judged by cells of 4 x 4 px.
constexpr int cell_octave = 2, cell = 1 << cell_octave;
constexpr int band = 32;  // rows that a thread takes at a time; sums are the same for any number of threads
constexpr int most_shift = 32;
constexpr float surely = 0.99f;  // of a renewal: what is known does not hold, though nobody knows better
constexpr float least_noise = 0.3f / 255, most_noise = 6.0f / 255;  // standard deviation of a value of the image

/// From 0 at `none` to 1 at `all`.
float ramp(float value, float none, float all) { return std::clamp((value - none) / (all - none), 0.0f, 1.0f); }

struct Movement {
  int whole = 0;
  float rest = 0;
};

/// By how many pixels `now` has moved against `before`; `costs` is scratch memory.
Movement match(const double* now, const double* before, int n, std::vector<double>& costs) {
  const int most = std::min(most_shift, n / 4);
  if (most < 1) return {};
  const auto cost = [&](int shift) -> double& { return costs[std::size_t(shift + most)]; };
  int best = 0;
  for (int shift = -most; shift <= most; ++shift) {
    const int begin = std::max(shift, 0), end = std::min(n, n + shift);
    double sum = 0;
    for (int i = begin; i < end; ++i) {
      const double difference = now[i] - before[i - shift];
      sum += difference * difference;
    }
    cost(shift) = sum / (end - begin);
  }
  for (int shift = -most; shift <= most; ++shift)
    if (cost(shift) < cost(best)) best = shift;
  if (cost(best) > 0.7 * cost(0)) best = 0;  // it may as well be noise
  if (std::abs(best) == most) return {};
  // The least of the parabola through three.
  const double before_best = cost(best - 1), after_best = cost(best + 1);
  const double bend = before_best - 2 * cost(best) + after_best;
  return {best, bend > 0 ? float(std::clamp((before_best - after_best) / (2 * bend), -0.5, 0.5)) : 0.0f};
}

}  // namespace

TimeAverage::TimeAverage(int height, int width, int frames, Workers& workers)
    : height_(height),
      width_(width),
      rows_((height + cell - 1) / cell),
      columns_((width + cell - 1) / cell),
      frames_(float(frames)),
      workers_(workers) {
  const std::size_t pixels = std::size_t(height) * std::size_t(width);
  planes_.resize(kept * pixels);
  now_.resize(3 * pixels);
  shown_.resize(pixels);
  left_out_.resize(std::size_t(rows_) * std::size_t(columns_));
  scratch_.assign(std::size_t(workers.slots(rows_, 1)), std::vector<float>(3 * std::size_t(columns_ * cell)));
  column_sums_.resize(std::size_t((height + band - 1) / band) * 2 * std::size_t(width));
  along_y_.resize(2 * std::size_t(height));
  along_x_.resize(2 * std::size_t(width));
  costs_.resize(2 * most_shift + 1);
  for (auto* values :
       {&changes_, &noises_, &textures_, &evidence_, &innovation_, &pooled_, &pooled_before_, &renewal_, &sorted_})
    values->resize(std::size_t(rows_) * std::size_t(columns_));
}

void TimeAverage::advance(const ImageView& frame) {
  first_ = !known_ || frame.channels != channels_;
  known_ = false;  // until the frame is done
  channels_ = frame.channels;
  change_ = {first_};
  is_whole_ = true;
  workers_.for_ranges(height_, band, [&](int begin, int end, int) {
    for (int y = begin; y < end; ++y) {
      float* const to[]{now(0, y), now(1, y), now(2, y)};
      load_row(frame, y, 0, width_, to);
    }
  });
  if (first_) {
    std::fill(planes_.begin(), planes_.end(), 0.0f);
    std::fill(shown_.begin(), shown_.end(), std::uint8_t{0});
    std::fill(renewal_.begin(), renewal_.end(), 1.0f);
    image_noise_ = radius_noise_ = 0;
    std::fill(pooled_.begin(), pooled_.end(), 0.0f);
  } else {
    find_shift();
    compare_images();
  }
  workers_.for_ranges(height_, band, [&](int begin, int end, int slot) {
    float* const renewal = scratch_[std::size_t(slot)].data();
    for (int y = begin; y < end; ++y) {
      interpolate_renewal(y, renewal);
      const float* const ages = row(age, y);
      for (int c = 0; c < channels_; ++c) {
        float* const mean = row(image + c, y);
        const float* const value = now(c, y);
        for (int x = 0; x < width_; ++x) {
          const float gain = 1 / std::min(1 + ages[x] * (1 - renewal[x]), frames_);
          mean[x] = (1 - gain) * mean[x] + gain * value[x];
        }
      }
    }
  });
}

/// The camera's movement: the image's sums along rows and along columns are matched with those of the average. What is
/// left of a movement in one frame is a part of the next one's.
void TimeAverage::find_shift() {
  workers_.for_ranges(height_, band, [&](int begin, int end, int) {
    double* const columns = column_sums_.data() + std::ptrdiff_t{begin / band * 2} * width_;
    std::fill_n(columns, 2 * width_, 0.0);
    for (int y = begin; y < end; ++y)
      for (int k = 0; k < 2; ++k) {
        double sum = 0;
        for (int c = 0; c < channels_; ++c) {
          const float* const values = k == 0 ? now(c, y) : row(image + c, y);
          for (int x = 0; x < width_; ++x) {
            sum += double(values[x]);
            columns[k * width_ + x] += double(values[x]);
          }
        }
        along_y_[std::size_t(k * height_ + y)] = sum;
      }
  });
  std::fill(along_x_.begin(), along_x_.end(), 0.0);
  for (std::size_t i = 0; i < column_sums_.size(); ++i) along_x_[i % along_x_.size()] += column_sums_[i];
  const auto movement = [&](std::vector<double>& sums, int n) {
    double *const current = sums.data(), *const before = current + n;
    for (double* values : {current, before})  // differences, so that brightness does not matter
      for (int i = 0; i + 1 < n; ++i) values[i] = values[i + 1] - values[i];
    return match(current, before, n - 1, costs_);
  };
  const Movement down = movement(along_y_, height_), right = movement(along_x_, width_);
  const bool stays = down.whole == 0 && right.whole == 0, is_shifted = !stays && moves(down.whole, right.whole);
  rest_down_ = stays || is_shifted ? down.rest : 0;
  rest_right_ = stays || is_shifted ? right.rest : 0;
  if (!is_shifted) return;
  shift(down.whole, right.whole);
  change_.shift_y = down.whole;
  change_.shift_x = right.whole;
}

/// Whether all of the image has moved by so much, and not only a subject before a background that has not: groups of
/// pixels vote, if their difference from the average tells more than noise.
bool TimeAverage::moves(int down, int right) const {
  constexpr int group = 16;
  const float sure = 3 * std::max(std::sqrt(image_noise_), least_noise) * std::sqrt(float(group * channels_));
  const int first = std::max(right, 0), end = std::min(width_, width_ + right);
  int votes = 0, against = 0;
  for (int y = std::max(down, 0); y < std::min(height_, height_ + down); y += cell)
    for (int x = first; x < end; x += group) {
      float better = 0;
      for (int c = 0; c < channels_; ++c) {
        const float *current = now(c, y), *still = row(image + c, y), *moved = row(image + c, y - down);
        for (int k = x; k < std::min(x + group, end); ++k)
          better += std::abs(current[k] - still[k]) - std::abs(current[k] - moved[k - right]);
      }
      votes += int(better > sure);
      against += int(better < -sure);
    }
  return votes > 4 * against;
}

/// What comes into the image has the age 0.
void TimeAverage::shift(int down, int right) {
  const auto move = [&](auto* plane) {
    for (int k = 0; k < height_; ++k) {
      const int y = down > 0 ? height_ - 1 - k : k, from = y - down;
      auto* const to = plane + std::ptrdiff_t{y} * width_;
      if (from < 0 || from >= height_) {
        std::fill_n(to, width_, 0);
        continue;
      }
      const auto* const source = plane + std::ptrdiff_t{from} * width_;
      std::memmove(to + std::max(right, 0), source + std::max(-right, 0),
                   std::size_t(width_ - std::abs(right)) * sizeof(*plane));
      std::fill_n(right > 0 ? to : to + width_ + right, std::abs(right), 0);
    }
  };
  workers_.for_ranges(kept + 1, 1, [&](int i, int, int) {
    if (i < kept)
      move(row(i, 0));
    else
      move(shown_.data());
  });
}

float TimeAverage::quantile(const std::vector<float>& of_cells, double share) {
  const auto end = std::copy_if(of_cells.begin(), of_cells.end(), sorted_.begin(), [](float v) { return v >= 0; });
  if (end == sorted_.begin()) return -1;
  const auto at = sorted_.begin() + std::ptrdiff_t(share * double(end - sorted_.begin() - 1));
  std::nth_element(sorted_.begin(), at, end);
  return *at;
}

/// Mean squares by cell of the image's difference from the average: as it is, which tells the noise, and beyond what
/// a movement of a quarter of a pixel does, which tells what changes. `textures`: and of the frame's finest detail, in
/// which noise cannot hide.
void TimeAverage::compare_cells_of_image(int cell_row, int slot, bool textures) {
  constexpr float tolerated = 0.25f;  // px
  const std::ptrdiff_t first = std::ptrdiff_t{cell_row} * columns_;
  float *const change = changes_.data() + first, *const noise = noises_.data() + first,
               *const texture = textures_.data() + first;
  for (float* of_cells : {change, noise, texture}) std::fill_n(of_cells, columns_, 0.0f);
  const int padded = columns_ * cell;  // beyond the last pixel all is 0
  float* const __restrict squares = scratch_[std::size_t(slot)].data();
  float* const __restrict beyond = squares + padded, * const __restrict details = beyond + padded;
  const float rest_right = rest_right_, rest_down = rest_down_;
  const int top = cell_row * cell, bottom = std::min(top + cell, height_), last = width_ - 1;
  for (int y = top; y < bottom; ++y) {
    const int up = std::max(y - 1, 0), down = std::min(y + 1, height_ - 1);
    std::fill_n(squares, 3 * padded, 0.0f);
    for (int c = 0; c < channels_; ++c) {
      const float *const current = now(c, y), *const mean = row(image + c, y), *const above = row(image + c, up),
                         *const below = row(image + c, down), *const over = now(c, up), *const under = now(c, down);
      const auto compare = [&](int left, int x, int right) {
        const float across = 0.5f * (mean[right] - mean[left]), along = 0.5f * (below[x] - above[x]);
        const float difference = std::abs(current[x] - mean[x] + rest_right * across + rest_down * along);
        const float rest = std::max(difference - tolerated * (std::abs(across) + std::abs(along)), 0.0f);
        squares[x] += difference * difference;
        beyond[x] += rest * rest;
      };
      compare(0, 0, std::min(1, last));
      for (int x = 1; x < last; ++x) compare(x - 1, x, x + 1);
      if (last > 0) compare(last - 1, last, last);
      if (!textures) continue;
      for (int x = 1; x < last; ++x) {  // the mask whose answer to straight edges is 0 (Immerkaer 1996)
        const float detail = (over[x - 1] - 2 * over[x] + over[x + 1]) + (under[x - 1] - 2 * under[x] + under[x + 1]) -
                             2 * (current[x - 1] - 2 * current[x] + current[x + 1]);
        details[x] += detail * detail / 36;
      }
    }
    const float* const ages = row(age, y);
    for (int x = 0; x < width_; ++x) {
      const float of_frame = ages[x] / (ages[x] + 1);  // the rest is the average's noise
      squares[x] *= of_frame;
      beyond[x] *= of_frame;
    }
    const auto add_to = [&](float* of_cells, const float* values) {
      for (int column = 0; column < columns_; ++column)
        for (int k = 0; k < cell; ++k) of_cells[column] += values[column * cell + k];
    };
    add_to(noise, squares);
    add_to(change, beyond);
    if (textures) add_to(texture, details);
  }
  for (int column = 0; column < columns_; ++column) {
    const int left = column * cell, right = std::min(left + cell, width_);
    const bool is_known = row(age, (top + bottom) / 2)[(left + right) / 2] > 0;
    const float per_value = 1 / float((bottom - top) * (right - left) * channels_);
    change[column] = is_known ? change[column] * per_value : -1;
    noise[column] = is_known ? noise[column] * per_value : -1;
    texture[column] = texture[column] > 0 ? texture[column] * per_value : -1;  // 0 where nothing but black or white is
  }
}

/// In most of the image nothing but noise differs. Where that is not so, as everything moves, noise is not more than
/// the frame's finest detail, nor much more than in the frame before.
void TimeAverage::measure_image_noise(bool anew) {
  const float found = quantile(noises_, 0.5);
  if (found < 0) return;
  const float most = anew ? 4 * std::max(quantile(textures_, 0.25), 0.0f) : 1.05f * image_noise_;
  image_noise_ = std::clamp(std::min(found, most), least_noise * least_noise, most_noise * most_noise);
}

/// Finds where the image has changed.
void TimeAverage::compare_images() {
  constexpr float none = 2, all = 4;  // times the variance of noise
  constexpr double cut = 0.6;         // share of the image
  const bool anew = image_noise_ == 0;
  workers_.for_ranges(rows_, 1, [&](int cell_row, int, int slot) { compare_cells_of_image(cell_row, slot, anew); });
  measure_image_noise(anew);
  // Means of 2 x 2 cells; of the four that a cell is in, the largest.
  const auto mean_from = [&](int row, int column) {
    float sum = 0;
    int count = 0;
    for (int r = std::max(row, 0); r < std::min(row + 2, rows_); ++r)
      for (int c = std::max(column, 0); c < std::min(column + 2, columns_); ++c) {
        const float change = changes_[std::size_t(r * columns_ + c)];
        if (change < 0) continue;
        sum += change;
        ++count;
      }
    return count > 0 ? sum / float(count) : 0.0f;
  };
  workers_.for_ranges(rows_, 4, [&](int begin, int end, int) {
    for (int r = begin; r < end; ++r)
      for (int c = 0; c < columns_; ++c) {
        const float largest =
            std::max({mean_from(r - 1, c - 1), mean_from(r - 1, c), mean_from(r, c - 1), mean_from(r, c)});
        renewal_[std::size_t(r * columns_ + c)] = ramp(largest / image_noise_, none, all);
      }
  });
  change_.cut = std::accumulate(renewal_.begin(), renewal_.end(), 0.0) > cut * double(renewal_.size());
  if (!change_.cut) return;
  std::fill(renewal_.begin(), renewal_.end(), 1.0f);
  image_noise_ = radius_noise_ = 0;
}

void TimeAverage::interpolate_renewal(int y, float* renewal) const {
  const Between rows = between(y, cell_octave, rows_);
  const float *const above = renewal_.data() + std::ptrdiff_t{rows.before} * columns_, *const below =
                                                                                           renewal_.data() +
                                                                                           std::ptrdiff_t{rows.after} *
                                                                                               columns_;
  const auto value = [&](int column) { return above[column] + rows.share * (below[column] - above[column]); };
  for (int x = 0; x < width_; ++x) {
    const Between columns = between(x, cell_octave, columns_);
    const float left = value(columns.before);
    renewal[x] = left + columns.share * (value(columns.after) - left);
  }
}

/// By cell: by how much the radii differ from their average, in standard deviations of one edge's; and how much that
/// says.
void TimeAverage::compare_cells_of_radii(int cell_row) {
  constexpr float least_deviation = 0.15f, relative_deviation = 0.05f;  // px, and of the radius
  const int top = cell_row * cell, bottom = std::min(top + cell, height_);
  for (int column = 0; column < columns_; ++column) {
    Seed current{}, mean{};
    for (int y = top; y < bottom; ++y)
      for (int x = column * cell; x < std::min((column + 1) * cell, width_); ++x) {
        current.weight += now(0, y)[x];
        current.radius += now(1, y)[x];
        mean.weight += row(weight, y)[x];
        mean.radius += row(radius, y)[x];
        mean.square += row(square, y)[x];
      }
    const std::size_t i = std::size_t(cell_row * columns_ + column);
    evidence_[i] = innovation_[i] = 0;
    if (!is_whole_ && left_out_[i]) continue;
    if (!is_reached(current.weight) || !is_reached(mean.weight)) continue;
    const float before = mean.radius / mean.weight, variance = mean.square / mean.weight - before * before;
    const float deviation = std::sqrt(std::max(variance, 0.0f)) + least_deviation + relative_deviation * before;
    evidence_[i] = std::min(current.weight, mean.weight) / (deviation * deviation);
    innovation_[i] = (current.radius / current.weight - before) / deviation;
  }
}

/// Finds where the radii have changed: focus goes elsewhere, though the image may hardly tell. In a part of the image
/// that counts only if the frame before said the same, as what noise does to neighbouring edges is much the same; in
/// most of it at once.
void TimeAverage::compare_radii() {
  constexpr int pooled_reach = 2, filled_reach = 4;                           // cells
  constexpr float none = 3, all = 6;                                          // times the noise of pooled innovations
  constexpr float least = 0.04f, most_at_first = 0.15f, most_growth = 1.02f;  // of that noise
  constexpr float of_some = 0.4f, of_most = 0.6f;
  const auto for_cells = [&](const auto& use) {
    workers_.for_ranges(rows_, 4, [&](int begin, int end, int) {
      for (int r = begin; r < end; ++r)
        for (int c = 0; c < columns_; ++c) use(r, c, std::size_t(r * columns_ + c));
    });
  };
  // The mean of values around a cell by how much they say; `otherwise` where they say nothing.
  const auto mean_around = [&](const std::vector<float>& values, int row, int column, int reach, float otherwise) {
    float sum = 0, weights = 0;
    for (int r = std::max(row - reach, 0); r <= std::min(row + reach, rows_ - 1); ++r)
      for (int c = std::max(column - reach, 0); c <= std::min(column + reach, columns_ - 1); ++c) {
        const std::size_t i = std::size_t(r * columns_ + c);
        sum += evidence_[i] * values[i];
        weights += evidence_[i];
      }
    return weights > 0 ? sum / weights : otherwise;
  };
  const auto is_left_out = [&](std::size_t i) { return !is_whole_ && left_out_[i]; };
  for_cells([&](int r, int c, std::size_t i) {
    changes_[i] = -1;
    if (is_left_out(i)) return;
    // In the cell of the frame before, which the camera may have moved since; windows are larger than that.
    pooled_before_[i] = std::exchange(pooled_[i], mean_around(innovation_, r, c, pooled_reach, 0));
    if (evidence_[i] > 0) changes_[i] = std::abs(pooled_[i]);
  });
  const float found = quantile(changes_, 0.5);
  if (found < 0) return;
  const float most = radius_noise_ > 0 ? most_growth * radius_noise_ : most_at_first;
  radius_noise_ = std::max(std::min(found, most), least);
  double at_once = 0, twice = 0, weights = 0;
  std::size_t read = 0;
  for (std::size_t i = 0; i < pooled_.size(); ++i) {
    const float size = std::abs(pooled_[i]), before = std::abs(pooled_before_[i]);
    changes_[i] = pooled_[i] * pooled_before_[i] > 0 ? ramp(std::min(size, before) / radius_noise_, none, all) : 0;
    at_once += double(evidence_[i] * ramp(size / radius_noise_, none, all));
    twice += double(evidence_[i] * changes_[i]);
    weights += double(evidence_[i]);
    read += std::size_t(!is_left_out(i));
  }
  // What is left out has not changed, as far as anybody knows.
  weights *= double(pooled_.size()) / double(read);
  const float everywhere = ramp(float(at_once / weights), of_some, of_most), otherwise = float(twice / weights);
  for_cells([&](int r, int c, std::size_t i) {
    if (is_left_out(i)) return;
    renewal_[i] = std::max({renewal_[i], everywhere, mean_around(changes_, r, c, filled_reach, otherwise)});
  });
}

float TimeAverage::changed(Range rows, Range columns) const {
  float sum = 0;
  int count = 0;
  for (int y = rows.begin + cell / 2; y < rows.end; y += cell)
    for (int x = columns.begin + cell / 2; x < columns.end; x += cell, ++count)
      sum += float(row(age, y)[x] < 1 || renewal_[std::size_t(y / cell * columns_ + x / cell)] > surely);
  return count > 0 ? sum / float(count) : 1;
}

void TimeAverage::leave_out(Range rows, Range columns) {
  if (std::exchange(is_whole_, false)) std::fill(left_out_.begin(), left_out_.end(), std::uint8_t{0});
  for (int r = rows.begin / cell; r < (rows.end + cell - 1) / cell; ++r)
    for (int c = columns.begin / cell; c < (columns.end + cell - 1) / cell; ++c)
      left_out_[std::size_t(r * columns_ + c)] = 1;
}

/// A row's new ages, and the weights of the frame in its averages.
void TimeAverage::renew(int y, float* gain) {
  interpolate_renewal(y, gain);
  float* const ages = row(age, y);
  const auto grow = [&](int begin, int end) {
    for (int x = begin; x < end; ++x) {
      ages[x] = std::min(1 + ages[x] * (1 - gain[x]), frames_);
      gain[x] = 1 / ages[x];
    }
  };
  if (is_whole_) {
    grow(0, width_);
    return;
  }
  for (int column = 0; column < columns_; ++column) {
    const int begin = column * cell, end = std::min(begin + cell, width_);
    if (!left_out_[std::size_t(y / cell * columns_ + column)]) {
      grow(begin, end);
      continue;
    }
    for (int x = begin; x < end; ++x) {
      if (gain[x] > surely) ages[x] = 0;
      gain[x] = float(ages[x] < 1);
    }
  }
}

void TimeAverage::add(const SeedRow& seed, std::uint8_t* barriers) {
  constexpr float appears = 0.5f, disappears = 0.3f;  // share of the frames that have the barrier
  workers_.for_ranges(rows_, 1, [&](int cell_row, int, int) {
    for (int y = cell_row * cell; y < std::min((cell_row + 1) * cell, height_); ++y) {
      for (int s = 0; s < 3; ++s) std::fill_n(now(s, y), width_, 0.0f);
      seed(y, {now(0, y), now(1, y), now(2, y)});
    }
    compare_cells_of_radii(cell_row);
  });
  if (!change_.cut) compare_radii();
  workers_.for_ranges(height_, band, [&](int begin, int end, int slot) {
    float* const gain = scratch_[std::size_t(slot)].data();
    for (int y = begin; y < end; ++y) {
      renew(y, gain);
      for (int s = 0; s < 3; ++s) {
        float* const mean = row(weight + s, y);
        const float* const value = now(s, y);
        for (int x = 0; x < width_; ++x) mean[x] = (1 - gain[x]) * mean[x] + gain[x] * value[x];
      }
      std::uint8_t *const barrier = barriers + std::ptrdiff_t{y} * width_, *const shown = shown_.data() +
                                                                                          std::ptrdiff_t{y} * width_;
      for (const auto& [plane, bit] :
           {std::pair(fine, learned::is_fine_barrier), {coarse, learned::is_coarse_barrier}}) {
        float* const share = row(plane, y);
        for (int x = 0; x < width_; ++x) {
          share[x] = (1 - gain[x]) * share[x] + gain[x] * float((barrier[x] & bit) != 0);
          const bool is_shown = share[x] > ((shown[x] & bit) != 0 ? disappears : appears);
          shown[x] = std::uint8_t(is_shown ? shown[x] | bit : shown[x] & ~bit);
        }
      }
      std::copy_n(shown, width_, barrier);
    }
  });
  change_.renewed = float(std::accumulate(renewal_.begin(), renewal_.end(), 0.0) / double(renewal_.size()));
  known_ = true;
}

void TimeAverage::put(int y, const SeedRows& rows) const {
  std::copy_n(row(weight, y), width_, rows.weights);
  std::copy_n(row(radius, y), width_, rows.radii);
  if (rows.squares) std::copy_n(row(square, y), width_, rows.squares);
}

}  // namespace defocus_fast::cpu
