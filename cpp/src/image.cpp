// SPDX-License-Identifier: Apache-2.0
#include "image.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>

#include "coding.hpp"
#include "defocus_fast/error.hpp"
#include "model.hpp"
#include "stored.hpp"

namespace defocus_fast::cpu {

namespace {

constexpr int row_part = 256;  // pixels of a row that are read at a time

/// Numbers of a plane, `step` bytes apart, less `zero`.
template <class Number, class Word>
void read_numbers(const Word* from, std::ptrdiff_t step, int shift, int zero, int n, Number* out) {
  const auto read = [&](auto known_step) {
    const auto* bytes = reinterpret_cast<const std::byte*>(from);
    for (int i = 0; i < n; ++i)
      out[i] = Number((*reinterpret_cast<const Word*>(bytes + i * known_step) >> shift) - zero);
  };
  constexpr std::ptrdiff_t size = sizeof(Word);
  if (step == size)  // the compiler vectorises what it sees
    read(std::integral_constant<std::ptrdiff_t, size>{});
  else if (step == 2 * size)
    read(std::integral_constant<std::ptrdiff_t, 2 * size>{});
  else
    read(step);
}

template <class Word>
const Word* word_at(const void* plane, std::ptrdiff_t offset) {
  return reinterpret_cast<const Word*>(static_cast<const std::byte*>(plane) + offset);
}

/// Of up to row_part pixels of a row: value i of channel c is at channels[c][i * step].
template <class T>
struct RowPart {
  std::array<const T*, 3> channels;
  std::ptrdiff_t step;
};
/// For the values of a part that do not lie in the caller's memory, channel by channel.
template <class T>
using RowMemory = std::array<std::array<T, row_part>, 3>;

/// What `n` numbers from column x0 of row y on stand for.
template <class T>
void decode_row(const ImageView& image, int y, int x0, int n, RowMemory<T>& out) {
  using Word = Coded<T>;
  using Number = std::conditional_t<sizeof(Word) == 1, std::int16_t, std::int32_t>;
  const Coding coding = image.coding;
  std::array<Number, row_part> luma;
  read_numbers(word_at<Word>(image.data, y * image.pitch_bytes + x0 * image.pixel_stride_bytes),
               image.pixel_stride_bytes, coding.shift, coding.black, n, luma.data());
  if (image.channels == 1) {
    for (std::size_t i = 0; i < std::size_t(n); ++i)
      out[0][i] = decoded<T>(coding, channel_sum(coding, 0, luma[i], Number(0), Number(0)));
    return;
  }
  const Chroma& chroma = image.chroma;
  const int first = x0 / 2, samples = (x0 + n - 1) / 2 - first + 1;
  const std::ptrdiff_t offset = y / chroma.rows * chroma.pitch_bytes + first * chroma.stride_bytes;
  std::array<Number, row_part / 2 + 1> shared;
  std::array<Number, row_part + 2> u, v;
  const auto spread = [&](const void* plane, Number* to) {
    read_numbers(word_at<Word>(plane, offset), chroma.stride_bytes, coding.shift, no_colour(coding), samples,
                 shared.data());
    for (int i = 0; i < samples; ++i) to[2 * i] = to[2 * i + 1] = shared[std::size_t(i)];
  };
  spread(chroma.u, u.data());
  spread(chroma.v, v.data());
  const Number *us = u.data() + x0 % 2, *vs = v.data() + x0 % 2;
  const auto decode = [&](auto channel) {
    for (std::size_t i = 0; i < std::size_t(n); ++i)
      out[channel][i] = decoded<T>(coding, channel_sum(coding, channel, luma[i], us[i], vs[i]));
  };
  decode(std::integral_constant<int, 0>{});
  decode(std::integral_constant<int, 1>{});
  decode(std::integral_constant<int, 2>{});
}

/// `n` pixels from column x0 of row y on, at most row_part: where they are, or decoded into `memory`. All pixels are
/// read here.
template <class T>
RowPart<T> read_row(const ImageView& image, int y, int x0, int n, RowMemory<T>& memory) {
  if (image.coding.white != 0) {
    decode_row(image, y, x0, n, memory);
    return {{memory[0].data(), memory[1].data(), memory[2].data()}, 1};
  }
  const auto* row = static_cast<const std::byte*>(image.data) + y * image.pitch_bytes + x0 * image.pixel_stride_bytes;
  RowPart<T> part{{}, image.pixel_stride_bytes / std::ptrdiff_t{sizeof(T)}};
  for (int c = 0; c < image.channels; ++c)
    part.channels[std::size_t(c)] = reinterpret_cast<const T*>(row + c * image.channel_stride_bytes);
  return part;
}

/// Calls use(step) with a number that the compiler knows if it is a common one.
template <class Use>
void with_step(std::ptrdiff_t step, const Use& use) {
  if (step == 1)
    use(std::integral_constant<std::ptrdiff_t, 1>{});
  else if (step == 3)
    use(std::integral_constant<std::ptrdiff_t, 3>{});
  else if (step == 4)
    use(std::integral_constant<std::ptrdiff_t, 4>{});
  else
    use(step);
}

/// Calls use(begin, count, part) for the parts of a row.
template <class T, class Use>
void for_parts(const ImageView& image, int y, int x0, int n, const Use& use) {
  RowMemory<T> memory;
  for (int begin = 0; begin < n; begin += row_part) {
    const int count = std::min(row_part, n - begin);
    use(begin, count, read_row(image, y, x0 + begin, count, memory));
  }
}

/// Calls use(value) for all values of a row.
template <class T, class Use>
void for_values(const ImageView& image, int y, const Use& use) {
  for_parts<T>(image, y, 0, image.width, [&](int, int count, const RowPart<T>& part) {
    with_step(part.step, [&](auto step) {
      for (std::size_t c = 0; c < std::size_t(image.channels); ++c)
        for (int i = 0; i < count; ++i) use(part.channels[c][i * step]);
    });
  });
}

/// A value of 8 bits in [0, 1], as stored; a division would take longer.
template <class T>
constexpr std::array of_level = [] {
  std::array<T, 256> values{};
  for (int i = 0; i < 256; ++i) values[std::size_t(i)] = stored<T>(float(i) / 255.0f);
  return values;
}();
template <class T, class Value>
T level(Value value) {
  if constexpr (std::is_same_v<Value, float>)
    return stored<T>(value);
  else
    return of_level<T>[value];
}

/// Calls use(to, count, part) for the parts of columns [x0, x0 + n) of row y, which begin at the `to`-th of them. What
/// lies outside the image is reflected.
template <class Value, class Use>
void for_columns(const ImageView& image, int y, int x0, int n, const Use& use) {
  const auto read = [&](int to, int x, int count) {
    for_parts<Value>(image, y, x, count,
                     [&](int begin, int length, const RowPart<Value>& part) { use(to + begin, length, part); });
  };
  const int begin = std::clamp(-x0, 0, n), end = std::clamp(image.width - x0, begin, n);
  for (int i = 0; i < begin; ++i) read(i, reflect(x0 + i, image.width), 1);
  read(begin, x0 + begin, end - begin);
  for (int i = end; i < n; ++i) read(i, reflect(x0 + i, image.width), 1);
}

template <class Value>
void load_row_of(const ImageView& image, int y, int x0, int n, float* const* channels) {
  for_columns<Value>(image, y, x0, n, [&](int to, int count, const RowPart<Value>& part) {
    with_step(part.step, [&](auto step) {
      for (std::size_t c = 0; c < std::size_t(image.channels); ++c)
        for (int i = 0; i < count; ++i) channels[c][to + i] = level<float>(part.channels[c][i * step]);
    });
  });
}

/// Writes red, green and blue of `n` pixels of row y from column x0 on, as stored; y may lie outside the image, too.
template <class T, class Value>
void store_row_of(const ImageView& image, int y, int x0, int n, T* out) {
  for_columns<Value>(image, reflect(y, image.height), x0, n, [&](int to, int count, const RowPart<Value>& part) {
    with_step(part.step, [&](auto step) {
      for (int i = 0; i < count; ++i)
        for (std::size_t c = 0; c < 3; ++c)
          out[3 * std::size_t(to + i) + c] = level<T>(part.channels[image.channels == 1 ? 0 : c][i * step]);
    });
  });
}
template <class T>
void store_row(const ImageView& image, int y, int x0, int n, T* out) {
  (image.type == PixelType::uint8 ? store_row_of<T, std::uint8_t> : store_row_of<T, float>)(image, y, x0, n, out);
}

/// The factors for numbers of `bits` bits: those of Rec. ITU-R BT.601 and BT.709, rounded once.
Coding make_coding(int bits, int shift, ColourRange range, ColourMatrix matrix) {
  const bool limited = range == ColourRange::limited;
  const double white = (1 << bits) - 1, unit = 1 << (bits - 8);
  const double one = 1 << coding_bits, luma = limited ? white / (219 * unit) : 1,
               colour = limited ? white / (224 * unit) : 1;
  const double red = matrix == ColourMatrix::bt601 ? 0.299 : 0.2126,
               blue = matrix == ColourMatrix::bt601 ? 0.114 : 0.0722, green = 1 - red - blue;
  const auto factor = [&](double value) { return std::int32_t(std::lround(one * value)); };
  return {.white = (1 << bits) - 1,
          .shift = shift,
          .black = limited ? 16 << (bits - 8) : 0,
          .luma = factor(luma),
          .red_v = factor(colour * 2 * (1 - red)),
          .green_u = factor(-colour * 2 * (1 - blue) * blue / green),
          .green_v = factor(-colour * 2 * (1 - red) * red / green),
          .blue_u = factor(colour * 2 * (1 - blue))};
}

bool is_coding(const Coding& coding) {
  for (const auto& [bits, shift] : {std::pair{8, 0}, {10, 0}, {10, 6}, {16, 0}})
    for (const ColourRange range : {ColourRange::full, ColourRange::limited})
      for (const ColourMatrix matrix : {ColourMatrix::bt601, ColourMatrix::bt709})
        if (coding == make_coding(bits, shift, range, matrix)) return true;
  return false;
}

/// Words of which not all bits count must not have others set.
void check_words(const ImageView& image, const char* name, Workers& workers) {
  const Coding& coding = image.coding;
  if (coding.shift != 0 || coding.white == std::numeric_limits<std::uint16_t>::max()) return;
  std::atomic<int> most = 0;
  workers.for_ranges(image.height, 32, [&](int begin, int end, int) {
    std::array<std::int32_t, row_part> words;
    int largest = 0;
    for (int y = begin; y < end; ++y)
      for (int x = 0; x < image.width; x += row_part) {
        const int count = std::min(row_part, image.width - x);
        read_numbers(word_at<std::uint16_t>(image.data, y * image.pitch_bytes + x * image.pixel_stride_bytes),
                     image.pixel_stride_bytes, 0, 0, count, words.data());
        for (int i = 0; i < count; ++i) largest = std::max(largest, words[std::size_t(i)]);
      }
    if (largest > coding.white) most = largest;
  });
  if (most != 0)
    throw InvalidArgument(std::string(name) + ": expected words of at most " + std::to_string(coding.white) + ", got " +
                          std::to_string(most));
}

struct Format {
  const char* name;
  int planes = 1;
  int bits = 8, shift = 0;
  int channels = 1;       // of the image
  int words = 1;          // from pixel to pixel in the first plane
  int red = 0, step = 1;  // of RGB: where red is, and how far green and blue are
  int u = 0, v = 0;       // of YUV: where in their plane
  int chroma_words = 2;   // from one to the next
};
constexpr std::array formats{
    // in PixelFormat's order
    Format{.name = "gray8"},
    Format{.name = "gray10", .bits = 10},
    Format{.name = "gray16", .bits = 16},
    Format{.name = "rgb", .channels = 3, .words = 3},
    Format{.name = "bgr", .channels = 3, .words = 3, .red = 2, .step = -1},
    Format{.name = "rgba", .channels = 3, .words = 4},
    Format{.name = "bgra", .channels = 3, .words = 4, .red = 2, .step = -1},
    Format{.name = "rgbx", .channels = 3, .words = 4},
    Format{.name = "bgrx", .channels = 3, .words = 4, .red = 2, .step = -1},
    Format{.name = "nv12", .planes = 2, .channels = 3, .v = 1},
    Format{.name = "nv21", .planes = 2, .channels = 3, .u = 1},
    Format{.name = "i420", .planes = 3, .channels = 3, .chroma_words = 1},
    Format{.name = "yuyv", .channels = 3, .words = 2, .u = 1, .v = 3, .chroma_words = 4},
    Format{.name = "p010", .planes = 2, .bits = 10, .shift = 6, .channels = 3, .v = 1},
};

/// Whether bytes are in both, of rows of so many bytes. Rows of the one may lie beside those of the other.
struct Extent {
  const void* data;
  std::ptrdiff_t pitch, row;
  int rows;

  std::ptrdiff_t begin() const {
    return std::ptrdiff_t(reinterpret_cast<std::uintptr_t>(data)) + std::min<std::ptrdiff_t>(0, (rows - 1) * pitch);
  }
  std::ptrdiff_t end() const { return begin() + (rows - 1) * std::abs(pitch) + row; }
  bool overlaps(const Extent& other) const {
    if (end() <= other.begin() || other.end() <= begin()) return false;
    const std::ptrdiff_t step = std::abs(pitch), aside = ((other.begin() - begin()) % step + step) % step;
    return step != std::abs(other.pitch) || aside < row || aside + other.row > step;
  }
};

}  // namespace

void check_pointer(const void* data, const char* name) {
  if (data == nullptr) throw InvalidArgument(std::string(name) + ": expected a pointer to pixels, got null");
}

void check_layout(const ImageView& image, const char* name) {
  const auto fail = [&](const std::string& what) {
    std::ostringstream message;
    message << name << ": expected " << what << ", got height " << image.height << ", width " << image.width
            << ", channels " << image.channels;
    throw InvalidArgument(message.str());
  };
  check_pointer(image.data, name);
  if (image.type != PixelType::uint8 && image.type != PixelType::float32)
    throw InvalidArgument(std::string(name) + ": expected PixelType::uint8 or PixelType::float32, got the value " +
                          std::to_string(int(image.type)));
  if (std::min(image.height, image.width) < 1 || std::max(image.height, image.width) > most_side)
    fail("sides of 1 to 1073741824 px");
  if (image.channels != 1 && image.channels != 3) fail("1 or 3 channels");
  if (std::int64_t{image.height} * image.width > std::numeric_limits<std::int32_t>::max())
    fail("at most 2147483647 pixels");
  check_addresses(name, image.data, word_size(image),
                  {{image.height, image.pitch_bytes},
                   {image.width, image.pixel_stride_bytes},
                   {image.coding.white == 0 ? image.channels : 1, image.channel_stride_bytes}});
  const Chroma& chroma = image.chroma;
  if (image.coding == Coding{} && chroma == Chroma{}) return;
  if (!is_coding(image.coding) || (image.coding.white == 255) != (image.type == PixelType::uint8) ||
      (image.channels == 3) != (chroma.u && chroma.v) || (image.channels == 1 && chroma != Chroma{}))
    throw InvalidArgument(std::string(name) + ": expected chroma and coding as ImageView::of makes them, got others");
  if (image.channels == 1) return;
  if ((chroma.rows != 1 && chroma.rows != 2) || image.width % 2 != 0 || image.height % chroma.rows != 0)
    fail("a size that is a multiple of the 2 columns and 1 or 2 rows of pixels that share a colour");
  for (const void* plane : {chroma.u, chroma.v})
    check_addresses(name, plane, word_size(image),
                    {{image.height / chroma.rows, chroma.pitch_bytes}, {image.width / 2, chroma.stride_bytes}});
}

void check_addresses(const char* name, const void* data, int size, std::initializer_list<Axis> axes) {
  constexpr std::ptrdiff_t most = std::ptrdiff_t{1} << 48;  // more than any memory, and sums of it do not overflow
  bool aligned = reinterpret_cast<std::uintptr_t>(data) % std::uintptr_t(size) == 0;
  for (const auto& [length, stride] : axes) {
    if (length < 2) continue;
    if (stride > most / (length - 1) || stride < -most / (length - 1))
      throw InvalidArgument(std::string(name) + ": expected pixels within 2^48 bytes, got " + std::to_string(length) +
                            " that are " + std::to_string(stride) + " bytes apart");
    aligned &= stride % size == 0;
  }
  if (!aligned)
    throw InvalidArgument(std::string(name) + ": expected an address and strides that are multiples of " +
                          std::to_string(size) + " bytes, got others");
}

void check_range(const ImageView& image, const char* name, float least, float most, Workers& workers) {
  if (image.type != PixelType::float32) return;
  if (image.coding.white != 0) return check_words(image, name, workers);
  std::atomic<bool> valid = true;
  workers.for_ranges(image.height, 32, [&](int begin, int end, int) {
    const auto outside = [&](float value) { return int(!(value >= least)) | int(!(value <= most)); };  // NaN is
    int any = 0;
    for (int y = begin; y < end; ++y) for_values<float>(image, y, [&](float value) { any |= outside(value); });
    if (any != 0) valid = false;
  });
  if (valid) return;
  float lowest = std::numeric_limits<float>::infinity(), highest = -lowest;
  bool finite = true;
  for (int y = 0; y < image.height; ++y)
    for_values<float>(image, y, [&](float value) {
      finite &= std::isfinite(value);
      lowest = std::min(lowest, value);
      highest = std::max(highest, value);
    });
  std::ostringstream message;
  message.precision(std::numeric_limits<float>::max_digits10);
  message << name << ": expected float32 values in [" << least << ", " << most << "], got ";
  if (finite)
    message << "values from " << lowest << " to " << highest;
  else
    message << "NaN or infinity";
  throw InvalidArgument(message.str());
}

void load_row(const ImageView& image, int y, int x0, int n, float* const* channels) {
  (image.type == PixelType::uint8 ? load_row_of<std::uint8_t> : load_row_of<float>)(image, y, x0, n, channels);
}

namespace {

/// The largest channel of each pixel.
template <class T, class Out>
void find_brightest(const RowPart<T>& part, int channels, int n, Out* out) {
  const T *const red = part.channels[0], *const green = part.channels[1], *const blue = part.channels[2];
  with_step(part.step, [&](auto step) {
    if (channels == 1)
      for (int i = 0; i < n; ++i) out[i] = red[i * step];
    else
      for (int i = 0; i < n; ++i) out[i] = std::max(std::max(red[i * step], green[i * step]), blue[i * step]);
  });
}

}  // namespace

template <class T>
void load_value_row(const ImageView& image, int y, const CannyKernels<T>& kernels, T* out) {
  const int channels = image.channels;
  if (image.type == PixelType::float32)
    return for_parts<float>(image, y, 0, image.width, [&](int begin, int count, const RowPart<float>& part) {
      find_brightest(part, channels, count, out + begin);
    });
  for_parts<std::uint8_t>(image, y, 0, image.width, [&](int begin, int count, const RowPart<std::uint8_t>& part) {
    const auto& [red, green, blue] = part.channels;
    if (part.step == channels && (channels == 1 || std::abs(green - red) == 1)) {
      kernels.brightest(channels == 1 ? red : std::min(red, blue), channels, count, out + begin);
      return;
    }
    std::array<std::uint8_t, row_part> largest;
    find_brightest(part, channels, count, largest.data());
    kernels.brightest(largest.data(), 1, count, out + begin);
  });
}
template void load_value_row(const ImageView&, int, const CannyKernels<float>&, float*);
template void load_value_row(const ImageView&, int, const CannyKernels<double>&, double*);

namespace {

template <class T>
T mean_of_four(const T& a, const T& b, const T& c, const T& d) {
  const auto sum = a + b + c + d;
  return std::is_same_v<T, float> ? T(sum * 0.25f) : T((int(sum) + 2) / 4);
}

template <class T>
void reduce_row_of(const ImageView& image, Pixel pad, int y, int width, T* out) {
  const int upper_row = reflect(2 * y - pad.y, image.height), lower_row = reflect(2 * y + 1 - pad.y, image.height);
  std::array<RowMemory<T>, 2> memory;
  const auto reduce_mirrored = [&](int x) {
    const auto at = [&](int row, int column, std::size_t c) {
      return *read_row<T>(image, row, reflect(column, image.width), 1, memory[0]).channels[c];
    };
    for (std::size_t c = 0; c < std::size_t(image.channels); ++c) {
      const int left = 2 * x - pad.x, right = left + 1;
      *out++ = mean_of_four<T>(at(upper_row, left, c), at(upper_row, right, c), at(lower_row, left, c),
                               at(lower_row, right, c));
    }
  };
  const int first = std::min((pad.x + 1) / 2, width), last = std::clamp((image.width + pad.x) / 2, first, width);
  for (int x = 0; x < first; ++x) reduce_mirrored(x);
  for (int begin = first; begin < last; begin += row_part / 2) {
    const int count = std::min(row_part / 2, last - begin);
    const RowPart<T> above = read_row(image, upper_row, 2 * begin - pad.x, 2 * count, memory[0]);
    const RowPart<T> below = read_row(image, lower_row, 2 * begin - pad.x, 2 * count, memory[1]);
    with_step(above.step, [&](auto step) {
      const auto reduce = [&](auto channels) {
        for (int x = 0; x < count; ++x)
          for (std::size_t c = 0; c < channels; ++c) {
            const T *const upper = above.channels[c] + 2 * x * step, *const lower = below.channels[c] + 2 * x * step;
            *out++ = mean_of_four<T>(upper[0], upper[step], lower[0], lower[step]);
          }
      };
      if (image.channels == 1)
        reduce(std::integral_constant<std::size_t, 1>{});
      else
        reduce(std::integral_constant<std::size_t, 3>{});
    });
  }
  for (int x = last; x < width; ++x) reduce_mirrored(x);
}

}  // namespace

void reduce_row(const ImageView& image, Pixel pad, int y, int width, std::byte* out) {
  if (image.type == PixelType::uint8)
    reduce_row_of(image, pad, y, width, reinterpret_cast<std::uint8_t*>(out));
  else
    reduce_row_of(image, pad, y, width, reinterpret_cast<float*>(out));
}

int reflect(int i, int n) {
  if (i >= 0 && i < n) return i;
  const std::int64_t period = std::int64_t{2} * n;  // d c b a | a b c d | d c b a
  const std::int64_t k = (i % period + period) % period;
  return int(k < n ? k : period - 1 - k);
}

template <class T>
void extract_pixels(const ImageView& image, int y0, int x0, int rows, int n, int stride, T* out) {
  std::array<T, 3 * row_part> values;
  for (int y = 0; y < rows; ++y)
    for (int begin = 0; begin < n; begin += row_part) {
      const int count = std::min(row_part, n - begin);
      store_row(image, y0 + y, x0 + begin, count, values.data());
      for (int x = 0; x < count; ++x, out += stride) std::copy_n(values.data() + 3 * std::ptrdiff_t{x}, 3, out);
    }
}
template void extract_pixels(const ImageView&, int, int, int, int, int, float*);
template void extract_pixels(const ImageView&, int, int, int, int, int, std::uint16_t*);
template void extract_pixels(const ImageView&, int, int, int, int, int, std::uint8_t*);

template <class T>
void extract_cells(const ImageView& image, int y0, int x0, int n, int stride, T* out) {
  constexpr int part = row_part / cell, row = 3 * cell;  // cells; values of a cell's row
  std::array<T, row * part> values;
  for (int begin = 0; begin < n; begin += part) {
    const int count = std::min(part, n - begin);
    for (int y = 0; y < cell; ++y) {
      store_row(image, y0 + y, x0 + begin * cell, count * cell, values.data());
      for (int x = 0; x < count; ++x)
        std::copy_n(values.data() + std::ptrdiff_t{x} * row, row, out + std::ptrdiff_t{begin + x} * stride + y * row);
    }
  }
}
template void extract_cells(const ImageView&, int, int, int, int, float*);
template void extract_cells(const ImageView&, int, int, int, int, std::uint16_t*);
template void extract_cells(const ImageView&, int, int, int, int, std::uint8_t*);

}  // namespace defocus_fast::cpu

namespace defocus_fast {

namespace {

/// Which of the named things is called `name`.
template <class Things, class NameOf>
std::size_t index_of(const char* what, const char* name, const Things& things, const NameOf& name_of) {
  std::string accepted;
  for (std::size_t i = 0; i < things.size(); ++i) {
    if (std::strcmp(name_of(things[i]), name) == 0) return i;
    accepted += std::string(accepted.empty() ? "" : ", ") + name_of(things[i]);
  }
  throw InvalidArgument(std::string(what) + ": expected one of " + accepted + ", got " + name);
}

}  // namespace

PixelFormat pixel_format(const char* name) {
  return PixelFormat(index_of("format", name, cpu::formats, [](const cpu::Format& format) { return format.name; }));
}

Colour colour(const char* range, const char* matrix) {
  constexpr std::array ranges{"full", "limited"}, matrices{"bt601", "bt709"};
  const auto itself = [](const char* text) { return text; };
  Colour found;
  if (range) found.range = ColourRange(index_of("range", range, ranges, itself));
  if (matrix) found.matrix = ColourMatrix(index_of("matrix", matrix, matrices, itself));
  return found;
}

ImageView ImageView::of(PixelFormat format, int height, int width, const FramePlanes& planes, const Colour& colour) {
  if (std::size_t(format) >= cpu::formats.size())
    throw InvalidArgument("format: expected one of PixelFormat's " + std::to_string(cpu::formats.size()) +
                          " values, got " + std::to_string(int(format)));
  const cpu::Format& facts = cpu::formats[std::size_t(format)];
  const auto fail = [&](const std::string& expected, const std::string& got) {
    throw InvalidArgument(std::string(facts.name) + ": expected " + expected + ", got " + got);
  };
  const bool yuv = facts.channels == 3 && facts.words < 3, halved = facts.planes > 1;
  const ColourRange range = colour.range.value_or(yuv ? ColourRange::limited : ColourRange::full);
  if (range == ColourRange::limited && facts.words >= 3) fail("full range", "limited, which is of grey and YUV");

  if (yuv && (width % 2 != 0 || (halved && height % 2 != 0)))
    fail(halved ? "an even width and height" : "an even width", std::to_string(width) + "x" + std::to_string(height));
  const std::array given{planes.first, planes.second, planes.third};
  for (int i = 0; i < int(given.size()); ++i)
    if ((given[std::size_t(i)].data != nullptr) != (i < facts.planes))
      fail("planes: " + std::to_string(facts.planes),
           (i < facts.planes ? "null as plane " : "a pointer to plane ") + std::to_string(i + 1));

  const int word = facts.bits == 8 ? 1 : 2;
  const auto at = [](const FramePlane& plane, std::ptrdiff_t offset) {
    return static_cast<const std::byte*>(plane.data) + offset;
  };
  ImageView view{.data = at(planes.first, facts.red),
                 .type = word == 1 ? PixelType::uint8 : PixelType::float32,
                 .height = height,
                 .width = width,
                 .channels = facts.channels,
                 .pitch_bytes = planes.first.pitch_bytes,
                 .pixel_stride_bytes = std::ptrdiff_t{facts.words} * word,
                 .channel_stride_bytes = std::ptrdiff_t{facts.step} * word};
  if (yuv || word == 2 || range == ColourRange::limited)
    view.coding = cpu::make_coding(facts.bits, facts.shift, range, colour.matrix);
  if (yuv) {
    const FramePlane& u = halved ? planes.second : planes.first;
    const FramePlane& v = facts.planes == 3 ? planes.third : u;
    view.chroma = {.u = at(u, std::ptrdiff_t{facts.u} * word),
                   .v = at(v, std::ptrdiff_t{facts.v} * word),
                   .pitch_bytes = u.pitch_bytes,
                   .stride_bytes = std::ptrdiff_t{facts.chroma_words} * word,
                   .rows = halved ? 2 : 1};
    if (u.pitch_bytes != v.pitch_bytes)
      fail("the same pitch of planes 2 and 3",
           std::to_string(u.pitch_bytes) + " and " + std::to_string(v.pitch_bytes) + " bytes");
  }
  cpu::check_layout(view, facts.name);

  std::array<cpu::Extent, 3> extents{};
  for (int i = 0; i < facts.planes; ++i) {
    const auto& [data, pitch] = given[std::size_t(i)];
    const std::ptrdiff_t row = i == 0 ? width * view.pixel_stride_bytes : width / 2 * view.chroma.stride_bytes;
    const int rows = i == 0 ? height : height / 2;
    if (pitch < row && pitch > -row)
      fail("a pitch of at least the " + std::to_string(row) + " bytes of a row of plane " + std::to_string(i + 1),
           std::to_string(pitch));
    extents[std::size_t(i)] = {data, rows > 1 ? pitch : row, row, rows};
    for (int j = 0; j < i; ++j)
      if (extents[std::size_t(i)].overlaps(extents[std::size_t(j)]))
        fail("planes apart from each other",
             "planes " + std::to_string(j + 1) + " and " + std::to_string(i + 1) + " that overlap");
  }
  return view;
}

}  // namespace defocus_fast
