// SPDX-License-Identifier: Apache-2.0
// A camera whose times are known: no clock is read.
#include "frame_budget.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

using defocus_fast::cpu::FrameBudget;

namespace {

/// Takes `before` ms until networks are asked, `per_edge` for each edge that is asked about, and `after` for the rest.
struct Camera {
  FrameBudget budget;
  double before, per_edge, after;
  int found;         // edges in each region
  int changed = -1;  // the region that does

  /// Returns what the frame took.
  double frame() {
    for (int row = 0; row < budget.rows(); ++row)
      for (int column = 0; column < budget.columns(); ++column) {
        budget.region(row, column).fine = found;
        budget.region(row, column).changed = float(row * budget.columns() + column == changed);
        budget.region(row, column).asked = 0;
      }
    budget.choose(before);
    double asked = 2000;  // what networks take in any frame
    for (int row = 0; row < budget.rows(); ++row)
      for (int column = 0; column < budget.columns(); ++column)
        if (FrameBudget::Region& region = budget.region(row, column); region.is_read) {
          region.asked = found / 2;
          asked += region.asked;
        }
    const double had_asked = before + per_edge * asked, end = had_asked + after;
    budget.learn(before, had_asked, end);
    return end;
  }
};

}  // namespace

TEST_CASE("frames take what they may, and no less than there is time for") {
  Camera camera{{33, 720, 1280}, 7, 0.0006, 10, 600};
  CHECK(camera.budget.rows() == 12);
  CHECK(camera.budget.columns() == 20);
  const double all = camera.frame();
  CHECK(camera.budget.read() == 1);  // nobody knows better
  CHECK(all > 33);
  for (int i = 0; i < 50; ++i) {
    const double took = camera.frame();
    CHECK(took <= 33);
    CHECK(took > 33 * 0.92 - 0.0006 * 300);  // what is in reserve after one late frame, and a region
  }
  camera.budget.forget();
  camera.frame();
  CHECK(camera.budget.read() == 1);
}

TEST_CASE("of frames whose times vary one in two hundred is late") {
  Camera camera{{33, 720, 1280}, 7, 0.0006, 10, 600};
  std::uint32_t state = 1;
  int late = 0;
  for (int i = 0; i < 6000; ++i) {
    double sum = 0;  // of four uniform numbers: nearly normal, with a deviation of 1.2 ms
    for (int k = 0; k < 4; ++k) sum += double((state = state * 1664525 + 1013904223) >> 8) / (1 << 24);
    camera.after = 8 + sum;
    late += int(camera.frame() > 33 && i >= 1000);
  }
  CHECK(late > 10);
  CHECK(late < 45);
}

TEST_CASE("a frame for which there is time is read as a whole") {
  Camera camera{{60, 300, 400}, 7, 0.0006, 10, 600};
  for (int i = 0; i < 5; ++i) {
    camera.frame();
    CHECK(camera.budget.read() == 1);
  }
}

TEST_CASE("slower frames are followed soon, and a single late one counts little") {
  Camera camera{{33, 720, 1280}, 7, 0.0006, 10, 600};
  for (int i = 0; i < 40; ++i) camera.frame();
  const float usual = camera.budget.read();
  camera.after = 14;
  CHECK(camera.frame() > 33);
  camera.frame();
  for (int i = 0; i < 20; ++i) CHECK(camera.frame() <= 33);
  CHECK(camera.budget.read() < usual);
  camera.after = 10;
  for (int i = 0; i < 600; ++i) CHECK(camera.frame() <= 33);
  CHECK(camera.budget.read() > 0.9f * usual);
  camera.after = 200;  // somebody else had the core
  camera.frame();
  camera.after = 10;
  for (int i = 0; i < 10; ++i) camera.frame();
  CHECK(camera.budget.read() > 0.8f * usual);
}

TEST_CASE("every region has its turn, those that change more often") {
  Camera camera{{33, 720, 1280}, 7, 0.0006, 10, 600};
  camera.frame();
  std::vector<int> reads(240);
  const auto count = [&] {
    std::fill(reads.begin(), reads.end(), 0);
    for (int i = 0; i < 200; ++i) {
      camera.frame();
      for (int k = 0; k < 240; ++k) reads[std::size_t(k)] += camera.budget.region(k / 20, k % 20).is_read;
    }
  };
  count();
  const auto [least, most] = std::minmax_element(reads.begin(), reads.end());
  CHECK(*least >= 50);  // 74 of 240 are read in a frame: each every third or fourth
  CHECK(*most <= 67);
  camera.changed = 123;
  count();
  CHECK(reads[123] == 200);
  reads[123] = 50;
  CHECK(*std::min_element(reads.begin(), reads.end()) >= 49);
}

TEST_CASE("whatever the budget, the most urgent region is read") {
  Camera camera{{0.1, 200, 200}, 7, 0.0006, 10, 600};
  camera.frame();
  std::vector<int> reads(16);
  for (int i = 0; i < 32; ++i) {
    camera.frame();
    CHECK(camera.budget.read() == 1.0f / 16);
    for (int k = 0; k < 16; ++k) reads[std::size_t(k)] += camera.budget.region(k / 4, k % 4).is_read;
  }
  CHECK(reads == std::vector<int>(16, 2));
}
