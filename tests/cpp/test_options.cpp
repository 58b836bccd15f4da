// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <limits>

#include "defocus_fast/error.hpp"
#include "defocus_fast/estimator.hpp"
#include "options.hpp"

using namespace defocus_fast;

namespace {

template <class Group>
std::vector<OptionValue> values(const Group& options) {
  std::vector<OptionValue> result;
  for (const OptionInfo& option : option_table<Group>()) result.push_back(get_option(options, option.name));
  return result;
}

/// Another value that the option takes.
OptionValue another(const OptionInfo& option) {
  switch (option.kind) {
    case OptionKind::flag:
      return std::int64_t{std::get<std::int64_t>(option.default_value) == 0};
    case OptionKind::integer:
      return std::int64_t(option.accepted.minimum) + 1;
    case OptionKind::number:
      return (option.accepted.minimum + option.accepted.maximum) / 2;
    case OptionKind::name:
      return std::string(option.accepted.names.back());
    case OptionKind::text:
    case OptionKind::path:
      return std::string("another");
    case OptionKind::object:
      return {};
  }
  return {};
}

template <class Group>
void set_each() {
  const std::vector<OptionInfo> table = option_table<Group>();
  const std::vector<OptionValue> defaults = values(Group{});
  for (std::size_t i = 0; i < table.size(); ++i) {
    CAPTURE(table[i].name);
    CHECK(defaults[i] == table[i].default_value);
    if (table[i].kind == OptionKind::object) continue;
    Group options;
    set_option(options, table[i].name, another(table[i]));
    std::vector<OptionValue> expected = defaults;
    expected[i] = another(table[i]);
    CHECK(expected[i] != defaults[i]);
    CHECK(values(options) == expected);
    if (table[i].optional) {
      set_option(options, table[i].name, OptionValue());
      CHECK(values(options) == defaults);
    } else {
      CHECK_THROWS_AS(set_option(options, table[i].name, OptionValue()), InvalidArgument);
    }
  }
}

}  // namespace

TEST_CASE("each option by name is one member, and no other") {
  set_each<Options>();
  set_each<FrameOptions>();
  set_each<CannyOptions>();
  set_each<GuideOptions>();
  set_each<PropagationOptions>();
  set_each<FilterOptions>();
  Options options;
  set_option(options, "canny_sigma", 3.0);
  set_option(options, "guide_sigma_r", std::int64_t{2});
  set_option(options, "precision", "int8");
  CHECK(options.canny.sigma == 3.0);
  CHECK(options.guide.sigma_r == 2.0);
  CHECK(options.precision == Precision::int8);
}

TEST_CASE("every member has a row") {
  // A member more, and this does not compile.
  [[maybe_unused]] const auto& [model, device, precision, evaluation, num_threads, kernels, labels, depth_threshold,
                                octaves, fine_thresholds, distances, grid, canny, guide, propagation, max_edges,
                                networks] = Options{};
  [[maybe_unused]] const auto& [canny_sigma, low, high, smoothing] = canny;
  [[maybe_unused]] const auto& [guide_sigma_s, guide_sigma_r] = guide;
  [[maybe_unused]] const auto& [psi, sigma_s, sigma_r, iterations] = propagation;
  CHECK(option_table<Options>().size() == 14 + 3 + 2 + 4);
  [[maybe_unused]] const auto& [edges, edge_stride, expected_error, bin_probabilities] = FrameOptions{};
  CHECK(option_table<FrameOptions>().size() == 3);
  [[maybe_unused]] const auto& [filter_sigma_s, filter_sigma_r, filter_iterations] = FilterOptions{};
  CHECK(option_table<FilterOptions>().size() == 3);
}

TEST_CASE("a designated member leaves the others what they are") {
  Options options;
  options.propagation = {.psi = 20};
  options.canny = {.high = 0.3};
  std::vector<OptionValue> expected = values(Options{});
  const std::vector<OptionInfo> table = option_table<Options>();
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i].name == "psi") expected[i] = 20.0;
    if (table[i].name == "canny_high") expected[i] = 0.3;
  }
  CHECK(values(options) == expected);
}

TEST_CASE("values that options do not take") {
  Options options;
  CHECK_THROWS_WITH_AS(set_option(options, "psi", "a"), "psi: expected a number in [0, 1000000] px, or none, got \"a\"",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(set_option(options, "iterations", 2.0),
                       "iterations: expected an integer in [1, 16], or none, got 2", InvalidArgument);
  CHECK_THROWS_WITH_AS(set_option(options, "networks", "a"), "networks: expected a callable, or none, got \"a\"",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(set_option(options, "Psi", 1.0), "options: there is none of the name \"Psi\"", InvalidArgument);
  CHECK_THROWS_AS(get_option(options, "sigma"), InvalidArgument);
  const std::string with_nul("auto\0zzz", 8);
  CHECK_THROWS_WITH_AS(set_option(options, "kernels", with_nul),
                       "kernels: expected a text without NUL bytes, got \"auto\\0zzz\"", InvalidArgument);
  CHECK_THROWS_AS(set_option(options, with_nul, 1.0), InvalidArgument);
  CHECK(values(options) == values(Options{}));
}

TEST_CASE("structs are checked whole") {
  const auto refused = [](auto change, const char* message) {
    Options options;
    change(options);
    CHECK_THROWS_WITH_AS(check(10, 10, options), message, InvalidArgument);
    CHECK_THROWS_WITH_AS(Estimator(10, 10, options), message, InvalidArgument);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  refused([&](Options& o) { o.propagation.psi = nan; }, "psi: expected a number in [0, 1000000] px, or none, got nan");
  refused([&](Options& o) { o.propagation.psi = 1e39; },
          "psi: expected a number in [0, 1000000] px, or none, got 1e+39");
  refused([](Options& o) { o.propagation.sigma_s = 0; },
          "sigma_s: expected a number in [0.01, 100000] px, or none, got 0");
  refused([](Options& o) { o.num_threads = 0; }, "num_threads: expected an integer in [1, 1024], or none, got 0");
  refused([](Options& o) { o.labels = Labels(7); }, "labels: expected one of posterior, hard, got 7");
  refused([](Options& o) { o.device = "tpu"; }, "device: expected one of auto, cpu, cuda, got \"tpu\"");
  refused([](Options& o) { o.kernels = std::string("auto\0", 5); },
          "kernels: expected a text without NUL bytes, got \"auto\\0\"");
  refused([](Options& o) { o.canny.low = 1; }, "canny_low: expected at most canny_high, which is 0.2, got 1");
  const std::string expected_weights =
      "canny_smoothing: expected an odd number of at most 513 weights, symmetric, in [-1000000, 1000000] and of a sum "
      "in [0.01, 1000000], got ";
  const auto refused_weights = [&](const std::vector<double>& weights, const char* got) {
    refused([&](Options& o) { o.canny.smoothing = weights; }, (expected_weights + got).c_str());
  };
  refused_weights({1, 2}, "2 of the sum 3");
  refused_weights({1, 2, 3}, "3 of the sum 6");
  refused_weights({0}, "1 of the sum 0");
  refused_weights({-1}, "1 of the sum -1");
  refused_weights({nan}, "1 of the sum nan");
  refused_weights({1e200}, "1 of the sum 1e+200");
  refused_weights({1e308, 1e308, 1e308}, "3 of the sum inf");
  refused_weights({1e308, 1, 1e308}, "3 of the sum inf");
  refused_weights({0.001}, "1 of the sum 0.001");
  refused_weights({-2e6, 4e6, -2e6}, "3 of the sum 0");
  CHECK_NOTHROW(check(CannyOptions{.smoothing = {-0.1, 1.2, -0.1}}));
  CHECK_NOTHROW(check(CannyOptions{.smoothing = {1, 4, 6, 4, 1}}));
  CHECK_THROWS_WITH_AS(check(FrameOptions{.edge_stride = 17}, 10, 10),
                       "edge_stride: expected an integer in [1, 16], got 17", InvalidArgument);
  CHECK_THROWS_WITH_AS(check(CannyOptions{.sigma = 65}), "sigma: expected a number in [0.001, 64] px, got 65",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(check(FilterOptions{.iterations = 0}), "iterations: expected an integer in [1, 16], got 0",
                       InvalidArgument);
  for (const auto& [height, width] : {std::pair{0, 5}, {5, -1}, {50'000, 50'000}, {1, (1 << 30) + 1}})
    CHECK_THROWS_AS(check(height, width, Options{}), InvalidArgument);
  CHECK_NOTHROW(check(1, 1 << 30, Options{}));
}
