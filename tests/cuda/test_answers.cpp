// SPDX-License-Identifier: Apache-2.0
// From edges to questions, and from the networks' answers to the edges.
#include <doctest/doctest.h>

#include "../../cpp/src/stages.hpp"
#include "edges.hpp"
#include "emulation.hpp"

using namespace defocus_fast;
using namespace defocus_fast::test;

namespace {

const std::vector<float> bins{0.5f, 1.5f, 3.0f, 6.0f};

template <class T>
constexpr cuda::TensorType type_of = std::is_same_v<T, float> ? cuda::TensorType::float32 : cuda::TensorType::float16;

/// (rows, count)
template <class T>
std::vector<T> probabilities(int rows, int count) {
  std::vector<T> values(std::size_t(rows * count));
  for (T& value : values) value = T(random_float());
  return values;
}

std::vector<Pixel> edges_of(const cuda::Answers& answers) {
  std::vector<Pixel> edges;
  for (int y = 0; y < answers.height; ++y)
    for (int x = 0; x < answers.width; ++x)
      if (answers.pattern_edges[y * answers.width + x] || answers.depth_edges[y * answers.width + x])
        edges.push_back({y, x});
  return edges;
}

/// What was asked about the question gets row `row` of both networks' answers, and no other.
template <class T>
struct Given {
  std::vector<T> depth, radius;  // (rows, 2), (rows, bins)
  std::vector<int> row;          // by question; -1: none
};

template <class T>
void check_answers(const DeviceEdges& edges, const Given<T>& given, Labels labels) {
  bool equal = true;
  for (std::size_t question = 0; question < given.row.size(); ++question) {
    const int row = given.row[question];
    float depth = 0;
    Reading reading{};
    if (row >= 0) {
      depth = float(given.depth[std::size_t(2 * row + 1)]);
      const auto probability = [&](int bin) { return float(given.radius[std::size_t(row) * bins.size() + bin]); };
      reading = read_bins(probability, bins.data(), int(bins.size()), labels);
    }
    equal &= edges.answers.depth_probability[question] == depth;
    equal &= edges.answers.radius[question] == reading.radius;
    equal &= edges.answers.radius_std[question] == reading.radius_std;
    equal &= edges.answers.radius_probability[question] == reading.radius_probability;
  }
  CHECK(equal);
}

/// Then the edges are split and collected.
template <class T>
void check_edges(DeviceEdges& edges, const Given<T>& given, const std::vector<float>& bin_probabilities) {
  const cuda::Answers& answers = edges.answers;
  const std::vector<Pixel> expected = edges_of(answers);
  std::fill_n(answers.depth_edges, edges.pixels(), std::uint8_t{7});  // of the frame before
  const double threshold = 0.6;
  cuda::split_edges(threshold, answers, nullptr);
  CHECK(edges_of(answers) == expected);

  const std::size_t n = expected.size();
  std::vector<Pixel> position(n);
  std::vector<float> depth(n), radius(n), deviation(n), highest(n), all(n * bins.size());
  cuda::collect_edges(answers, edges.list, bin_probabilities.data(), int(bins.size()),
                      {position.data(), depth.data(), radius.data(), deviation.data(), highest.data(), all.data()},
                      nullptr);
  CHECK(position == expected);
  bool equal = true;
  for (std::size_t i = 0; i < n; ++i) {
    const std::ptrdiff_t question = answers.question(position[i].y, position[i].x);
    const std::ptrdiff_t pixel = position[i].y * answers.width + position[i].x;
    const bool is_depth = depth[i] > threshold;
    equal &= answers.depth_edges[pixel] == is_depth && (answers.pattern_edges[pixel] != 0) == !is_depth;
    equal &= depth[i] == answers.depth_probability[question] && radius[i] == answers.radius[question];
    equal &= deviation[i] == answers.radius_std[question] && highest[i] == answers.radius_probability[question];
    const int row = given.row[std::size_t(question)];
    for (std::size_t bin = 0; bin < bins.size(); ++bin)
      equal &= all[i * bins.size() + bin] == float(given.radius[std::size_t(row) * bins.size() + bin]);
  }
  CHECK(equal);
}

template <class T>
void check_batches(int percent, Labels labels) {
  const int height = 9, width = 13, batch = 7;
  DeviceEdges edges(height, width, 1, height * width);
  edges.scatter(percent);
  const int n = edges.list.count->kept;
  Given<T> given{probabilities<T>(n + batch, 2), probabilities<T>(n + batch, int(bins.size())), {}};
  given.row.assign(std::size_t(height * width), -1);
  for (int i = 0; i < n; ++i) given.row[std::size_t(edges.list.position[i].y * width + edges.list.position[i].x)] = i;
  std::vector<float> kept(std::size_t(height * width) * bins.size());
  for (int first = 0; first < n + batch; first += batch) {
    const cuda::Batch asked{edges.list, first, batch};
    if (first > n) break;
    cuda::read_depth(given.depth.data() + 2 * first, type_of<T>, asked, edges.answers, nullptr);
    cuda::read_radii(given.radius.data() + std::size_t(first) * bins.size(), type_of<T>, cuda::RadiusBins(bins), labels,
                     asked, edges.answers, kept.data(), nullptr);
  }
  check_answers(edges, given, labels);
  check_edges(edges, given, kept);
}

/// Of two tiles down and three across, the last of which reach beyond the image.
template <class T>
void check_tiles(Labels labels) {
  const int height = 20, width = 40, rows = 4, columns = 5;
  DeviceEdges edges(height, width, cell, 0);
  edges.scatter(30);
  CHECK(edges.answers.down() == 7);
  CHECK(edges.answers.across() == 14);
  const int of_tile = rows * columns;
  Given<T> given{probabilities<T>(6 * of_tile, 2), probabilities<T>(6 * of_tile, int(bins.size())), {}};
  for (int y = 0; y < 7; ++y)
    for (int x = 0; x < 14; ++x)
      given.row.push_back((y / rows * 3 + x / columns) * of_tile + y % rows * columns + x % columns);
  std::vector<float> kept(std::size_t(7 * 14) * bins.size());
  for (int tile = 0; tile < 6; ++tile) {
    const cuda::CellTile asked{tile / 3 * rows, tile % 3 * columns, rows, columns};
    cuda::read_depth(given.depth.data() + 2 * tile * of_tile, type_of<T>, asked, edges.answers, nullptr);
    cuda::read_radii(given.radius.data() + std::size_t(tile * of_tile) * bins.size(), type_of<T>,
                     cuda::RadiusBins(bins), labels, asked, edges.answers, kept.data(), nullptr);
  }
  check_answers(edges, given, labels);
  check_edges(edges, given, kept);
}

}  // namespace

TEST_CASE("edges are listed in row-major order; those for which there is no room are counted, and no edges any more") {
  for (const auto& [height, width] :
       std::vector<std::pair<int, int>>{{1, 1}, {1, 700}, {700, 1}, {31, 33}, {70, 600}}) {
    if (small_pictures && height * width > 2000) continue;
    for (const int percent : {0, 3, 50, 100})
      for (const int share : {1, 2, 100}) {
        CAPTURE(height);
        CAPTURE(percent);
        CAPTURE(share);
        const int capacity = share == 1 ? height * width : share == 2 ? height * width * percent / 200 + 1 : 1;
        DeviceEdges edges(height, width, 1, capacity);
        for (int i = 0; i < edges.pixels(); ++i) edges.answers.pattern_edges[i] = random_int(0, 99) < percent;
        const std::vector<Pixel> expected = edges_of(edges.answers);
        const int before = emulation::allocations();
        cuda::list_edges(edges.answers, edges.list, nullptr);
        CHECK(emulation::allocations() == before);
        const int kept = std::min(int(expected.size()), capacity);
        CHECK(edges.list.count->found == int(expected.size()));
        CHECK(edges.list.count->kept == kept);
        const std::vector<Pixel> left(expected.begin(), expected.begin() + kept);
        CHECK(std::equal(left.begin(), left.end(), edges.list.position));
        CHECK(edges_of(edges.answers) == left);
      }
  }
}

TEST_CASE("edges without a list are counted, and all remain") {
  DeviceEdges edges(31, 33, cell, 0);
  edges.scatter(60);
  const int n = int(edges_of(edges.answers).size());
  CHECK(n > 400);
  CHECK(edges.list.count->found == n);
  CHECK(edges.list.count->kept == n);
}

TEST_CASE("a list of more blocks than the sum takes at a time") {
  const int width = 300'001;  // 1172 blocks
  DeviceEdges edges(1, width, 1, width);
  edges.scatter(100);
  CHECK(edges.list.count->kept == width);
  for (int i = 0; i < width; i += 97) CHECK(edges.list.position[i] == Pixel{0, i});
}

TEST_CASE("every edge gets its own answer, or that of its cell") {
  for (const Labels labels : {Labels::posterior, Labels::hard}) {
    for (const int percent : {0, 30, 100}) {
      check_batches<float>(percent, labels);
      check_batches<_Float16>(percent, labels);
    }
    check_tiles<float>(labels);
    check_tiles<_Float16>(labels);
  }
}

TEST_CASE("of equally probable bins the lowest is the most probable") {
  DeviceEdges edges(1, 1, 1, 1);
  edges.scatter(100);
  const std::vector<float> equal{0.1f, 0.4f, 0.4f, 0.1f};
  cuda::read_radii(equal.data(), cuda::TensorType::float32, cuda::RadiusBins({1, 2, 3, 4}), Labels::hard,
                   cuda::Batch{edges.list, 0, 1}, edges.answers, nullptr, nullptr);
  CHECK(edges.answers.radius[0] == 2.0f);
  CHECK(edges.answers.radius_probability[0] == 0.4f);
}

TEST_CASE("more bins than the kernels' table holds are refused") {
  CHECK_NOTHROW(cuda::RadiusBins(std::vector<float>(64)));
  CHECK_THROWS_WITH_AS(cuda::RadiusBins(std::vector<float>(65)), "model: device cuda reads at most 64 bins, got 65",
                       ModelError);
}
