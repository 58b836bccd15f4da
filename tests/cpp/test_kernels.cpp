// SPDX-License-Identifier: Apache-2.0
// Every instruction-set variant against the sums written out.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "defocus_fast/error.hpp"
#include "defocus_fast/estimator.hpp"
#include "kernels.hpp"
#include "pack_weights.hpp"
#include "stages.hpp"

using namespace defocus_fast;

namespace {

std::mt19937 generator(1);

template <class T>
std::vector<T> random_values(std::size_t n, T low, T high) {
  std::uniform_real_distribution<T> uniform(low, high);
  std::vector<T> values(n);
  for (T& value : values) value = uniform(generator);
  return values;
}

float widen(std::uint16_t x) { return std::bit_cast<float>(std::uint32_t{x} << 16); }

template <class Check>
void for_variants(const Check& check) {
  for (const std::string& name : available_kernels()) {
    CAPTURE(name);
    const Kernels& kernels = select_kernels(name.c_str());
    CHECK(kernels.name == name);
    check(kernels);
  }
}

}  // namespace

TEST_CASE("kernels for every CPU are there and unknown ones are refused") {
#ifdef __aarch64__
  CHECK(available_kernels().back() == "neon");
#else
  CHECK(available_kernels().back() == "portable");
#endif
  CHECK(select_kernels("auto").name == available_kernels().front());
  CHECK_THROWS_AS(select_kernels("sse"), InvalidArgument);
}

TEST_CASE("fused features in bfloat16 are rounded to nearest even and cut at 0") {
  for (const int channels : {1, 7, 16, 64, 65}) {
    const std::size_t n = 4000;
    std::vector<std::uint16_t> u(n), v(n);
    std::uniform_int_distribution<int> exponent(100, 140), rest(0, 255);
    for (auto* values : {&u, &v})
      for (std::uint16_t& value : *values)
        value = std::uint16_t((rest(generator) << 8 & 0x8000) | exponent(generator) << 7 | (rest(generator) & 127));
    std::array<std::ptrdiff_t, 25> u_offset{}, v_offset{};
    for (std::size_t p = 0; p < 25; ++p) {
      u_offset[p] = std::ptrdiff_t(p * 157 % 3900);
      v_offset[p] = std::ptrdiff_t(p * 91 % 3900);
    }
    for_variants([&](const Kernels& kernels) {
      std::vector<std::uint16_t> out(25 * std::size_t(channels));
      kernels.fuse_bf16(u.data(), v.data(), u_offset.data(), v_offset.data(), channels, out.data());
      for (std::size_t p = 0; p < 25; ++p)
        for (int k = 0; k < channels; ++k) {
          const float sum = widen(u[std::size_t(u_offset[p] + k)]) + widen(v[std::size_t(v_offset[p] + k)]);
          const float got = widen(out[p * std::size_t(channels) + std::size_t(k)]);
          if (sum <= 0) {
            CHECK(got == 0.0f);
          } else {
            const float below = widen(std::uint16_t(std::bit_cast<std::uint32_t>(sum) >> 16));
            const float above = widen(std::uint16_t((std::bit_cast<std::uint32_t>(sum) >> 16) + 1));
            const float down = sum - below, up = above - sum;
            const bool even = (std::bit_cast<std::uint32_t>(sum) >> 16) % 2 == 0;
            CHECK(got == (down < up || (down == up && even) ? below : above));
          }
        }
    });
  }
}

TEST_CASE("fused features in float are the sum cut at 0") {
  const auto u = random_values<float>(2000, -1, 1), v = random_values<float>(2000, -1, 1);
  std::array<std::ptrdiff_t, 25> offset{};
  for (std::size_t p = 0; p < 25; ++p) offset[p] = std::ptrdiff_t(p * 70);
  for_variants([&](const Kernels& kernels) {
    std::vector<float> out(25 * 19);
    kernels.fuse_float(u.data(), v.data(), offset.data(), offset.data(), 19, out.data());
    for (std::size_t p = 0; p < 25; ++p)
      for (std::size_t k = 0; k < 19; ++k) CHECK(out[p * 19 + k] == std::max(0.0f, u[p * 70 + k] + v[p * 70 + k]));
  });
}

namespace {

// Of what kernels compute every output is looked at, but not by sanitizers, under which the sums written out are slow:
// they look at what kernels touch.
#ifdef __SANITIZE_ADDRESS__
constexpr int output_step = 7;
#else
constexpr int output_step = 1;
#endif

/// A layer of random weights on a 12 x 11 plane, by the kernels and by the sums written out. Pixels lie `pitch` values
/// apart. What is stored may be off by `rounding` times its value, integers by a half.
template <class T, class Out>
void check_convolution(void (*convolve)(const Convolution<T>&, const std::int32_t*, int, Out*), int inputs, int pitch,
                       int outputs, int kernel, int dilation, bool relu, bool with_bias, double rounding) {
  constexpr bool integers = std::is_same_v<T, std::uint8_t>, integers_out = std::is_same_v<Out, std::uint8_t>;
  const int height = 12, width = 11, reach = kernel / 2 * dilation;
  const auto value_of = [](auto stored_value) {
    if constexpr (std::is_same_v<decltype(stored_value), std::uint16_t>)
      return widen(stored_value);
    else
      return float(stored_value);
  };
  std::vector<T> in;
  std::vector<Weight<T>> weights;
  std::vector<Out> out(std::size_t(height * width * outputs), Out(7));
  const auto bias = random_values<float>(std::size_t(outputs), -1, 1);
  for (const float value : random_values<float>(std::size_t(height * width * pitch), 0, 1))
    in.push_back(stored<T>(value));
  for (const float value : random_values<float>(std::size_t(kernel * kernel * inputs * outputs), -1, 1))
    weights.push_back(stored<Weight<T>>(integers ? 127 * value : value));
  const auto scales = random_values<float>(std::size_t(outputs), 5e-4f, 2e-3f);  // some sums come out above 255
  std::vector<const T*> taps;
  for (int k = 0; k < kernel * kernel; ++k)
    taps.push_back(in.data() + ((k / kernel - kernel / 2) * width + k % kernel - kernel / 2) * dilation * pitch);
  std::vector<std::int32_t> pixels;
  for (int y = reach; y < height - reach; ++y)
    for (int x = reach; x < width - reach; ++x)
      if ((y * 7 + x * 3) % 4) pixels.push_back(y * width + x);
  convolve({taps.data(), int(taps.size()), inputs, pitch, weights.data(), with_bias ? bias.data() : nullptr, outputs,
            relu, integers ? scales.data() : nullptr},
           pixels.data(), int(pixels.size()), out.data());
  std::size_t next = 0;
  for (int p = 0; p < height * width; ++p) {
    const bool listed = next < pixels.size() && pixels[next] == p;
    next += listed;
    for (int o = 0; o < outputs; o += output_step) {
      double sum = with_bias ? bias[std::size_t(o)] : 0, magnitude = std::abs(sum);
      for (std::size_t t = 0; t < taps.size() && listed; ++t)
        for (int c = 0; c < inputs; ++c) {
          const std::size_t row = (std::size_t(o / feature_block) * taps.size() + t) * std::size_t(inputs);
          const std::size_t lane = std::size_t(o % feature_block), together = group<T>;
          const std::size_t begin = (row + std::size_t(c) / together * together) * feature_block;
          const std::size_t at = begin + lane * together + std::size_t(c) % together;
          const double term = double(value_of(taps[t][p * pitch + c])) * value_of(weights[at]);
          sum += term;
          magnitude += std::abs(term);
        }
      if (integers) {
        sum *= scales[std::size_t(o)];
        magnitude *= scales[std::size_t(o)];
      }
      if (relu) sum = std::max(sum, 0.0);
      if (integers_out) sum = std::min(sum, 255.0);
      const float got = value_of(out[std::size_t(p * outputs + o)]);
      if (listed)
        // Up to 576 roundings of partial sums, a random walk of 1.3 units here, of which 2 million sums find 5 standard
        // deviations; and the rounding of what is stored.
        CHECK(std::abs(got - sum) <= 8 * 0x1p-24 * magnitude + (integers_out ? 0.5 : rounding * std::abs(sum)));
      else
        CHECK(out[std::size_t(p * outputs + o)] == Out(7));
    }
  }
}

}  // namespace

TEST_CASE("convolutions at listed pixels are the sums written out and touch no other pixel") {
  for (const int outputs : {16, 32, 48, 64, 80, 96})
    for (const int inputs : {4, 16, 64})
      for (const auto& window : {std::pair{3, 1}, {3, 3}, {1, 1}})
        for_variants([&](const Kernels& kernels) {
          const auto [kernel, dilation] = window;
          const bool relu = outputs != 48, bias = outputs != 16;
          const int pitch = outputs == 80 ? inputs + 3 : inputs;
          check_convolution(kernels.networks_float->convolve, inputs, pitch, outputs, kernel, dilation, relu, bias,
                            0x1p-24);
          if (const auto* bf16 = bf16_networks(kernels)) {
            check_convolution(bf16->convolve, inputs, pitch, outputs, kernel, dilation, relu, bias, 0x1p-8);
            check_convolution(bf16->convolve_to_float, inputs, pitch, outputs, kernel, dilation, relu, bias, 0x1p-24);
          }
          if (const auto* int8 = int8_networks(kernels)) {
            check_convolution(int8->convolve, inputs, pitch, outputs, kernel, dilation, true, false, 0);
            check_convolution(int8->convolve_to_float, inputs, pitch, outputs, kernel, dilation, relu, false, 0x1p-24);
            check_convolution(int8->convolve_to_bf16, inputs, pitch, outputs, kernel, dilation, relu, false, 0x1p-8);
          }
        });
}

namespace {

/// Winograd's filtering of 3 x 3 squares, times those that are interleaved with them, against the sums written out: the
/// largest difference, as a multiple of the sums' root mean square, is at most `tolerance`. If not `all`, a quarter of
/// the inputs is not known, a fifth of the outputs not wanted.
template <int side, class T>
void check_winograd(ConvolveSquares<T, side> convolve, int sources, int inputs, int outputs, int dilation, bool relu,
                    bool all, double tolerance) {
  const int size = 3 * side * dilation, pitch = size + 6 * dilation, margin = dilation;
  const int pixel_count = pitch * pitch;
  const auto value_of = [](T value) {
    if constexpr (std::is_same_v<T, std::uint16_t>)
      return double(widen(value));
    else
      return double(value);
  };
  std::vector<std::vector<T>> in(static_cast<std::size_t>(sources));
  std::vector<std::vector<std::uint8_t>> known;
  std::vector<typename WinogradConvolution<T, side>::Source> source;
  for (int s = 0; s < sources; ++s) {
    for (const float value : random_values<float>(std::size_t(pixel_count * inputs), 0, 1))
      in[std::size_t(s)].push_back(stored<T>(value));
    known.emplace_back(std::size_t(pixel_count));
    for (int p = 0; p < pixel_count; ++p) {
      known.back()[std::size_t(p)] = all || (p * 7 + s) % 4 != 0;
      // What is not known must not count, whatever it is.
      if (!known.back()[std::size_t(p)])
        for (int c = 0; c < inputs; ++c)
          in[std::size_t(s)][std::size_t(p * inputs + c)] = stored<T>(std::numeric_limits<float>::quiet_NaN());
    }
  }
  for (std::size_t s = 0; s < in.size(); ++s) source.push_back({in[s].data(), all ? nullptr : known[s].data()});
  std::vector<std::uint8_t> wanted(static_cast<std::size_t>(pixel_count));
  for (int p = 0; p < pixel_count; ++p) wanted[std::size_t(p)] = all || p % 5 != 0;
  const auto weights = random_values<float>(std::size_t(outputs * sources * inputs * 9), -1, 1);
  const auto weight = [&](std::size_t o, std::size_t s, std::size_t k, std::size_t c) {
    return weights[((o * std::size_t(sources) + s) * std::size_t(inputs) + c) * 9 + k];
  };
  const auto transformed_weights = cpu::winograd_weights<T, side>(outputs, sources, inputs, inputs, weight);
  const std::vector<T> zeros(static_cast<std::size_t>(inputs));
  constexpr int wide = side + 2;
  WinogradConvolution<T, side> layer{source.data(),
                                     sources,
                                     inputs,
                                     zeros.data(),
                                     {},
                                     {},
                                     transformed_weights.data(),
                                     outputs,
                                     relu,
                                     all ? nullptr : wanted.data()};
  for (int k = 0; k < layer.read; ++k) layer.in[std::size_t(k)] = ((k / wide - 1) * pitch + k % wide - 1) * dilation;
  for (int k = 0; k < layer.computed; ++k) layer.out[std::size_t(k)] = (k / side * pitch + k % side) * dilation;
  std::vector<std::int32_t> squares;
  for (int y = 0; y < size; ++y)
    for (int x = 0; x < size; ++x)
      if (y / dilation % side == 0 && x / dilation % side == 0) squares.push_back((y + margin) * pitch + x + margin);
  std::vector<T> transformed(winograd_memory<side>(sources * inputs));
  std::vector<float> products(winograd_memory<side>(outputs));
  std::vector<T> out(std::size_t(pixel_count * outputs), T(7));
  for (std::size_t i = 0; i < squares.size(); i += winograd_batch)
    convolve(layer, squares.data() + i, int(std::min(squares.size() - i, std::size_t(winograd_batch))),
             transformed.data(), products.data(), out.data());

  double worst = 0, squared = 0;
  int count = 0, touched = 0;
  for (int y = 0; y < pitch; ++y)
    for (int x = 0; x < pitch; ++x)
      for (int o = 0; o < outputs; o += output_step) {
        const int p = y * pitch + x;
        const T got = out[std::size_t(p * outputs + o)];
        const bool inside = y >= margin && y < margin + size && x >= margin && x < margin + size;
        if (!inside || !wanted[std::size_t(p)]) {
          touched += got != T(7);
          continue;
        }
        double sum = 0;
        for (std::size_t s = 0; s < in.size(); ++s)
          for (std::size_t k = 0; k < 9; ++k) {
            const int from = p + ((int(k) / 3 - 1) * pitch + int(k) % 3 - 1) * dilation;
            for (int c = 0; c < inputs && known[s][std::size_t(from)]; ++c)
              sum += value_of(in[s][std::size_t(from * inputs + c)]) *
                     double(weight(std::size_t(o), s, k, std::size_t(c)));
          }
        squared += sum * sum;
        ++count;
        worst = std::max(worst, std::abs(value_of(got) - (relu ? std::max(sum, 0.0) : sum)));
      }
  CHECK(worst <= tolerance * std::sqrt(squared / count));
  CHECK(touched == 0);
}

}  // namespace

TEST_CASE("Winograd's filtering gives the sums written out, of what is known, where wanted") {
  for (const auto& layer : {std::array{1, 16, 16, 1}, {1, 64, 64, 1}, {2, 16, 48, 3}, {3, 16, 64, 3}})
    for_variants([&](const Kernels& kernels) {
      const auto check = [&](const auto& networks, double tolerance) {
        const auto [sources, inputs, outputs, dilation] = layer;
        const bool relu = outputs != 48;
        for (const bool all : {false, true}) {
          check_winograd<3>(networks.convolve_3x3, sources, inputs, outputs, dilation, relu, all, tolerance);
          check_winograd<4>(networks.convolve_4x4, sources, inputs, outputs, dilation, relu, all, tolerance);
        }
      };
      // Seen: 6.5e-6 and 0.041. A tap that is wrong is off by a third, on average.
      check(*kernels.networks_float, 1e-5);
      if (const auto* bf16 = bf16_networks(kernels)) check(*bf16, 0.1);
    });
}

TEST_CASE("softmax sums to 1, however far the values lie apart") {
  for (const float range : {1.0f, 80.0f}) {
    auto values = random_values<float>(2 * feature_block, -range, range);
    values[20] = values[31] = -1e30f;
    values[21] = -2.5e6f;
    double sum = 0;
    for (const float value : values) sum += std::exp(double(value));
    for_variants([&](const Kernels& kernels) {
      auto found = values;
      kernels.softmax(found.data(), int(found.size()));
      for (std::size_t i = 0; i < values.size(); ++i) {
        const double expected = std::exp(double(values[i])) / sum;
        // The difference to the largest value is rounded to float before the exponential.
        CHECK(std::abs(found[i] - expected) <= 2 * range * 0x1p-23 * expected + 4 * 0x1p-23 * expected + 1e-37);
      }
      CHECK(found[20] == 0.0f);
      CHECK(found[21] == 0.0f);
    });
  }
}

TEST_CASE_TEMPLATE("pooling takes the largest of nine", T, float, std::uint16_t, std::uint8_t) {
  const int height = 5, width = 7, channels = 32;
  std::vector<T> in, out(std::size_t(height * width * channels));
  for (const float value : random_values<float>(out.size(), 0, 1)) in.push_back(stored<T>(value));
  const std::vector<std::int32_t> pixels{8, 9, 12, 15, 26};
  for_variants([&](const Kernels& kernels) {
    const NetworkKernels<T>* trunk = [&] {
      if constexpr (std::is_same_v<T, float>)
        return kernels.networks_float;
      else if constexpr (std::is_same_v<T, std::uint16_t>)
        return bf16_networks(kernels);
      else
        return int8_networks(kernels);
    }();
    if (!trunk) return;
    trunk->pool(in.data(), width * channels, channels, pixels.data(), int(pixels.size()), out.data());
    for (const std::int32_t p : pixels)
      for (int k = 0; k < channels; ++k) {
        T most = 0;
        for (const int step : {-8, -7, -6, -1, 0, 1, 6, 7, 8})
          most = std::max(most, in[std::size_t((p + step) * channels + k)]);
        CHECK(out[std::size_t(p * channels + k)] == most);
      }
  });
}

TEST_CASE("feedback coefficients are exponentials of the distance") {
  const int n = 77;
  std::vector<std::vector<float>> planes;
  for (int i = 0; i < 6; ++i) planes.push_back(random_values<float>(n + 1, 0, 1));
  std::vector<std::uint8_t> depth(n);
  for (int x = 0; x < n; ++x) depth[std::size_t(x)] = x % 5 == 0;
  for (const int channels : {1, 3})
    for (const float log_a : {-0.03f, -2.0f, -30.0f})
      for_variants([&](const Kernels& kernels) {
        std::array<const float*, 3> row{}, above{};
        for (std::size_t c = 0; c < 3; ++c) {
          row[c] = planes[c].data() + 1;
          above[c] = planes[c + 3].data() + 1;
        }
        std::vector<float> vx(n), vy(n);
        kernels.feedback(row.data(), above.data(), channels, log_a, 12.0f, depth.data(), 20.0f, nullptr, n, vx.data(),
                         vy.data());
        for (int x = 0; x < n; ++x) {
          double across = 0, down = 0;
          for (std::size_t c = 0; c < std::size_t(channels); ++c) {
            across += std::abs(double(row[c][x]) - row[c][x - 1]);
            down += std::abs(double(row[c][x]) - above[c][x]);
          }
          const double distance = 1 + 20.0 * depth[std::size_t(x)];
          // The argument itself is a float: at -87 its rounding moves the exponential by 4e-6 of its value.
          const auto close = [](double expected) { return doctest::Approx(expected).epsilon(1e-5).scale(1e-30); };
          if (x > 0) CHECK(double(vx[std::size_t(x)]) == close(std::exp(log_a * (distance + 12.0 * across))));
          CHECK(double(vy[std::size_t(x)]) == close(std::exp(log_a * (distance + 12.0 * down))));
        }
        CHECK(vx[0] == 0.0f);
        // Learned: bits tell which factor of psi counts, and the larger one of both.
        std::vector<std::uint8_t> bits(n);
        for (int x = 0; x < n; ++x) bits[std::size_t(x)] = std::uint8_t(x % 4);
        const auto gain = random_values<float>(n, 0.1f, 3), fine = random_values<float>(n, 0, 2),
                   coarse = random_values<float>(n, 0, 2), across_more = random_values<float>(n, 0, 5),
                   down_more = random_values<float>(n, 0, 5);
        const LearnedRow learned{gain.data(), fine.data(), coarse.data(), across_more.data(), down_more.data()};
        kernels.feedback(row.data(), above.data(), channels, log_a, 12.0f, bits.data(), 20.0f, &learned, n, vx.data(),
                         vy.data());
        for (int x = 0; x < n; ++x) {
          const std::size_t i = std::size_t(x);
          double across = 0, down = 0;
          for (std::size_t c = 0; c < std::size_t(channels); ++c) {
            across += std::abs(double(row[c][x]) - row[c][x - 1]);
            down += std::abs(double(row[c][x]) - above[c][x]);
          }
          const double of_psi = std::max(x & 1 ? double(fine[i]) : 0.0, x & 2 ? double(coarse[i]) : 0.0);
          const auto close = [](double expected) { return doctest::Approx(expected).epsilon(3e-5).scale(1e-30); };
          const double wall = 1 + 20.0 * of_psi;
          if (x > 0) CHECK(double(vx[i]) == close(std::exp(log_a * (wall + across_more[i] + 12.0 * gain[i] * across))));
          CHECK(double(vy[i]) == close(std::exp(log_a * (wall + down_more[i] + 12.0 * gain[i] * down))));
        }
        kernels.feedback(row.data(), nullptr, channels, log_a, 12.0f, nullptr, 0.0f, nullptr, n, vx.data(), vy.data());
        CHECK(std::all_of(vy.begin(), vy.end(), [](float v) { return v == 0.0f; }));
      });
}

TEST_CASE("a recursive pass is the recurrence forward and backward, with coefficients squared") {
  for (const int n : {1, 2, 33})
    for (const auto& counts : {std::pair{1, 0}, {2, 1}, {3, 0}, {3, 4}})
      for_variants([&](const Kernels& kernels) {
        const auto [signals, squarings] = counts;
        const std::ptrdiff_t stride = 2 * lanes + 16;
        const std::size_t size = std::size_t(n * stride);
        const auto v = random_values<float>(size, 0, 1);
        auto coefficients = v;
        for (float& coefficient : coefficients) coefficient = float(std::pow(double(coefficient), 1 << squarings));
        for (const auto& [pass, lines] :
             {std::pair{kernels.recursive_pass, lanes}, {kernels.recursive_pass_twice, 2 * lanes}}) {
          std::vector<std::vector<float>> f;
          std::vector<float*> pointers;
          for (int s = 0; s < signals; ++s) f.push_back(random_values<float>(size, 0, 6));
          const auto before = f;
          for (auto& plane : f) pointers.push_back(plane.data());
          pass(v.data(), squarings, pointers.data(), signals, stride, n);
          for (std::size_t s = 0; s < std::size_t(signals); ++s)
            for (int k = 0; k < stride; ++k) {
              const auto at = [&](int i) { return std::size_t(i * stride + k); };
              std::vector<double> line;
              for (int i = 0; i < n; ++i) line.push_back(before[s][at(i)]);
              for (int i = 1; i < n && k < lines; ++i)
                line[std::size_t(i)] += coefficients[at(i)] * (line[std::size_t(i - 1)] - line[std::size_t(i)]);
              for (int i = n - 2; i >= 0 && k < lines; --i)
                line[std::size_t(i)] += coefficients[at(i + 1)] * (line[std::size_t(i + 1)] - line[std::size_t(i)]);
              for (int i = 0; i < n; ++i) CHECK(f[s][at(i)] == doctest::Approx(line[std::size_t(i)]).epsilon(1e-5));
            }
        }
      });
}

TEST_CASE("lines are transposed there and back, missing ones are 0") {
  const int n = 45;
  const auto values = random_values<float>(std::size_t(lanes * n), 0, 1);
  for_variants([&](const Kernels& kernels) {
    std::array<const float*, lanes> rows{};
    for (int k = 0; k < lanes - 5; ++k) rows[std::size_t(k)] = values.data() + k * n;
    std::vector<float> lines(std::size_t(lanes * n), -1.0f), back(std::size_t(lanes * n), -1.0f);
    kernels.gather_lines(rows.data(), n, lines.data());
    for (int k = 0; k < lanes; ++k)
      for (int i = 0; i < n; ++i)
        CHECK(lines[std::size_t(i * lanes + k)] == (k < lanes - 5 ? values[std::size_t(k * n + i)] : 0.0f));
    std::array<float*, lanes> to{};
    for (int k = 0; k < lanes - 5; ++k) to[std::size_t(k)] = back.data() + k * n;
    kernels.scatter_lines(lines.data(), n, to.data());
    for (int i = 0; i < lanes * n; ++i)
      CHECK(back[std::size_t(i)] == (i < (lanes - 5) * n ? values[std::size_t(i)] : -1.0f));
  });
}

TEST_CASE_TEMPLATE("the brightest channel is the same in every variant", T, float, double) {
  for (const std::size_t channels : {1, 3})
    for (const int n : {1, 31, 64, 77, 256}) {
      std::vector<std::uint8_t> pixels(channels * std::size_t(n));
      for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = std::uint8_t(83 * i);  // all 256 values, mixed
      for_variants([&](const Kernels& kernels) {
        std::vector<T> found(std::size_t(n + 1), T(-1));
        if constexpr (std::is_same_v<T, float>)
          kernels.canny_float->brightest(pixels.data(), int(channels), n, found.data());
        else
          kernels.canny_double->brightest(pixels.data(), int(channels), n, found.data());
        for (std::size_t i = 0; i < std::size_t(n); ++i)
          CHECK(found[i] == T(*std::max_element(&pixels[channels * i], &pixels[channels * i] + channels)) / T(255));
        CHECK(found.back() == T(-1));
      });
    }
}

TEST_CASE_TEMPLATE("Canny's kernels give the same bits in every variant", T, float, double) {
  const int n = 64, radius = 6;
  const auto pixels = random_values<T>(std::size_t((2 * radius + 2) * n), 0, 1);
  const auto padded = random_values<T>(std::size_t(n + 2 * radius), 0, 1), bleed = random_values<T>(n, T(0.5), 1);
  auto weights = random_values<double>(2 * radius + 1, 0, 1);
  for (int j = 0; j < radius; ++j) weights[std::size_t(2 * radius - j)] = weights[std::size_t(j)];
  const auto run = [&](const Kernels& kernels) {
    const CannyKernels<T>& canny = *[&] {
      if constexpr (std::is_same_v<T, float>)
        return kernels.canny_float;
      else
        return kernels.canny_double;
    }();
    std::vector<const T*> rows;
    for (int j = 0; j <= 2 * radius + 1; ++j) rows.push_back(pixels.data() + j * n);
    std::vector<T> columns(n), below(n), smooth(n), gy(n), gx(n), magnitude(n);
    canny.smooth_columns(rows.data(), weights.data(), radius, n, {columns.data(), below.data()});
    canny.smooth_row(padded.data() + radius, weights.data(), radius, bleed.data(), n, smooth.data());
    canny.gradient(rows[0] + 1, rows[1] + 1, rows[2] + 1, n - 2, gy.data(), gx.data(), magnitude.data());
    std::vector<std::uint8_t> weak(n / 8), strong(n / 8);
    canny.thin(rows[3] + 1, rows[4] + 1, rows[5] + 1, gy.data(), gx.data(), 0.1f, T(0.6), n - 2, weak.data(),
               strong.data());
    std::vector<double> all;
    for (const auto* part : {&columns, &below, &smooth, &gy, &gx, &magnitude})
      all.insert(all.end(), part->begin(), part->end());
    for (const auto* part : {&weak, &strong}) all.insert(all.end(), part->begin(), part->end());
    return all;
  };
  const auto expected = run(select_kernels(available_kernels().back().c_str()));
  CHECK(std::count(expected.end() - n / 8, expected.end(), 0.0) < 5);  // some are strong
  for_variants([&](const Kernels& kernels) { CHECK(run(kernels) == expected); });
}
