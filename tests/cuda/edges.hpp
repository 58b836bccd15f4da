// SPDX-License-Identifier: Apache-2.0
// Edges on the device, for the stages that come after their detection.
#pragma once

#include "../../cuda/launch.hpp"
#include "../../cuda/stages.hpp"
#include "images.hpp"

namespace defocus_fast::test {

/// A frame's masks, list and answers, in memory of the exact sizes.
struct DeviceEdges {
  /// So many edges fit; 0: they are counted only.
  DeviceEdges(int height, int width, int side, int capacity) {
    const std::size_t pixels = std::size_t(height) * std::size_t(width);
    answers.height = height;
    answers.width = width;
    answers.side = side;
    arena.reserve(answers.pattern_edges, pixels);
    arena.reserve(answers.depth_edges, pixels);
    for (float** values :
         {&answers.depth_probability, &answers.radius, &answers.radius_std, &answers.radius_probability})
      arena.reserve(*values, std::size_t(questions()));
    list.capacity = capacity > 0 ? capacity : int(pixels);
    if (capacity > 0) arena.reserve(list.position, std::size_t(capacity));
    arena.reserve(list.count, 1);
    arena.reserve(list.before_block, cuda::blocks_for(std::int64_t(pixels)));
    arena.allocate();
  }

  /// Lists edges at random, of which so many are.
  void scatter(int percent) {
    for (int i = 0; i < pixels(); ++i)
      answers.pattern_edges[i] = random_int(0, 99) < percent ? std::uint8_t(random_int(1, 255)) : 0;
    cuda::list_edges(answers, list, nullptr);
  }

  int pixels() const { return answers.height * answers.width; }
  int questions() const { return answers.down() * answers.across(); }

  cuda::Answers answers;
  cuda::EdgeList list;

 private:
  cuda::Arena arena;
};

}  // namespace defocus_fast::test
