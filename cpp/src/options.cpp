// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <type_traits>

#include "defocus_fast/error.hpp"

namespace defocus_fast {

namespace {

constexpr std::size_t most_text = 4095;  // bytes, as of a path

std::string size_text(int height, int width) { return std::to_string(height) + " x " + std::to_string(width); }

/// As short as it can be read back; without an exponent where that is readable.
std::string text_of(double value) {
  const double size = std::abs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e9);
  std::array<char, 32> text;
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value,
                                     plain ? std::chars_format::fixed : std::chars_format::general)
                           .ptr};
}

std::string text_of(const OptionValue& value) {
  if (const auto* number = std::get_if<double>(&value)) return text_of(*number);
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return std::to_string(*integer);
  if (const auto* text = std::get_if<std::string>(&value)) {
    std::string shown = text->substr(0, 200);
    for (std::size_t nul; (nul = shown.find('\0')) != shown.npos;)  // messages would end there
      shown.replace(nul, 1, "\\0");
    return '"' + shown + (text->size() > 200 ? "\"..." : "\"");
  }
  return "none";
}

[[noreturn]] void refuse(const OptionInfo& option, const OptionValue& got) {
  std::string expected = option.expected();
  if (const auto* text = std::get_if<std::string>(&got);
      text && (option.kind == OptionKind::text || option.kind == OptionKind::path))
    expected += text->size() > most_text ? " of at most " + std::to_string(most_text) + " bytes" : " without NUL bytes";
  throw InvalidArgument(option.name + ": expected " + expected + ", got " + text_of(got));
}

// ---- one member as an OptionValue, and back

template <class T>
constexpr bool is_optional = false;
template <class T>
constexpr bool is_optional<std::optional<T>> = true;
template <>
constexpr bool is_optional<std::shared_ptr<cuda::Networks>> = true;

template <class T>
std::pair<OptionKind, OptionValue> describe(const T& member, const Accepted& accepted) {
  if constexpr (std::is_same_v<T, bool>) {
    return {OptionKind::flag, std::int64_t{member}};
  } else if constexpr (std::is_same_v<T, int>) {
    return {OptionKind::integer, std::int64_t{member}};
  } else if constexpr (std::is_same_v<T, double>) {
    return {OptionKind::number, member};
  } else if constexpr (std::is_enum_v<T>) {
    const auto i = std::size_t(member);
    if (i >= accepted.names.size()) return {OptionKind::name, std::int64_t(i)};
    return {OptionKind::name, accepted.names[i]};
  } else if constexpr (std::is_same_v<T, std::string>) {
    const OptionKind any = accepted.path ? OptionKind::path : OptionKind::text;
    return {accepted.names.empty() ? any : OptionKind::name, member};
  } else if constexpr (std::is_same_v<T, std::shared_ptr<cuda::Networks>>) {
    return {OptionKind::object, {}};
  } else {
    auto described = describe(member.value_or(typename T::value_type()), accepted);
    if (!member) described.second = {};
    return described;
  }
}

/// Whether the option takes the value, which the member has then.
template <class T>
bool assign(T& member, const Accepted& accepted, const OptionValue& value) {
  [[maybe_unused]] const auto* const integer = std::get_if<std::int64_t>(&value);
  [[maybe_unused]] const auto* const number = std::get_if<double>(&value);
  [[maybe_unused]] const auto* const text = std::get_if<std::string>(&value);
  const auto inside = [&](auto given) { return given >= accepted.minimum && given <= accepted.maximum; };
  const auto name = text ? std::ranges::find(accepted.names, *text) : accepted.names.end();
  if constexpr (std::is_same_v<T, bool>) {
    if (!integer || (*integer != 0 && *integer != 1)) return false;
    member = *integer == 1;
  } else if constexpr (std::is_same_v<T, int>) {
    if (!integer || !inside(double(*integer))) return false;
    member = int(*integer);
  } else if constexpr (std::is_same_v<T, double>) {
    if (!(integer && inside(double(*integer))) && !(number && inside(*number))) return false;
    member = integer ? double(*integer) : *number;
  } else if constexpr (std::is_enum_v<T>) {
    if (name == accepted.names.end()) return false;
    member = T(name - accepted.names.begin());
  } else if constexpr (std::is_same_v<T, std::string>) {
    const bool known = accepted.names.empty() || name != accepted.names.end();
    // Of a text with a NUL only what is before it would be read.
    if (!text || !known || text->size() > most_text || text->find('\0') != std::string::npos) return false;
    member = *text;
  } else {
    T given{};
    bool fits = std::holds_alternative<std::monostate>(value);
    if constexpr (!std::is_same_v<T, std::shared_ptr<cuda::Networks>>)
      fits = fits || assign(given.emplace(), accepted, value);
    if (!fits) return false;
    member = given;
  }
  return true;
}

// ---- the table as a whole

Span<const Option<CannyOptions>> rows(const CannyOptions&) { return canny_rows; }
Span<const Option<FilterOptions>> rows(const FilterOptions&) { return filter_rows; }
Span<const Option<GuideOptions>> rows(const GuideOptions&) { return guide_rows; }
Span<const Option<PropagationOptions>> rows(const PropagationOptions&) { return propagation_rows; }
Span<const Option<FrameOptions>> rows(const FrameOptions&) { return frame_rows; }
Span<const Option<VideoOptions>> rows(const VideoOptions&) { return video_rows; }
Span<const Option<FocusOptions>> rows(const FocusOptions&) { return focus_rows; }
Span<const Option<Options>> rows(const Options&) { return option_rows; }

/// Calls visit(row, member, prefix of the name, group) for every row.
template <class Group, class Visit>
void for_each(Group& options, const Visit& visit, const char* prefix = "", const char* group = "") {
  for (const auto& row : rows(options))
    std::visit([&](auto pointer) { visit(row, options.*pointer, prefix, group); }, row.member);
  if constexpr (std::is_same_v<std::remove_const_t<Group>, Options>) {
    for_each(options.canny, visit, "canny_", "canny");
    for_each(options.guide, visit, "guide_", "guide");
    for_each(options.propagation, visit, "", "propagation");
  }
}

/// With the member's value as the default.
template <class Row, class T>
OptionInfo info(const Row& row, const T& member, const std::string& prefix, const char* group) {
  const auto [kind, value] = describe(member, row.accepted);
  return {prefix + row.name, group, kind, is_optional<T>, value, row.accepted, row.unit, row.text, row.nothing};
}

/// Calls use(row, member, prefix, group) for the option of that name.
template <class Group, class Use>
void with_option(Group& options, const std::string& name, const Use& use) {
  bool known = false;
  for_each(options, [&](const auto& row, auto& member, const std::string& prefix, const char* group) {
    if (name != prefix + row.name) return;
    known = true;
    use(row, member, prefix, group);
  });
  if (!known) throw InvalidArgument("options: there is none of the name " + text_of(OptionValue(name)));
}

/// Allocates nothing where all is well and no member is a text: FrameOptions are checked in every frame.
template <class Group>
void check_rows(const Group& options, const char* prefix_of_all = "") {
  const auto check = [](const auto& row, const auto& member, const char* prefix, const char* group) {
    auto same = member;
    const OptionValue value = describe(member, row.accepted).second;
    if (!assign(same, row.accepted, value)) refuse(info(row, member, prefix, group), value);
  };
  for_each(options, check, prefix_of_all);
}

}  // namespace

std::string OptionInfo::expected() const {
  static constexpr std::array kinds{"true or false", "an integer",       "a number",  "one of",
                                    "a text",        "a text or a path", "a callable"};
  std::string result = kinds[std::size_t(kind)];
  const auto end = [&](double value) {
    return kind == OptionKind::integer ? std::to_string(std::int64_t(value)) : text_of(value);
  };
  if (kind == OptionKind::integer || kind == OptionKind::number)
    result += " in [" + end(accepted.minimum) + ", " + end(accepted.maximum) + ']';
  for (const char* name : accepted.names) result += (name == accepted.names.front() ? " " : ", ") + std::string(name);
  if (!unit.empty()) result += ' ' + unit;
  return optional ? result + ", or none" : result;
}

template <class Group>
std::vector<OptionInfo> option_table() {
  std::vector<OptionInfo> table;
  const Group defaults{};
  for_each(defaults, [&](const auto&... option) { table.push_back(info(option...)); });
  return table;
}

template <class Group>
void set_option(Group& options, const std::string& name, const OptionValue& value) {
  with_option(options, name, [&](const auto& row, auto& member, const auto&... where) {
    if (!assign(member, row.accepted, value)) refuse(info(row, member, where...), value);
  });
}

template <class Group>
OptionValue get_option(const Group& options, const std::string& name) {
  OptionValue value;
  with_option(options, name, [&](const auto&... option) { value = info(option...).default_value; });
  return value;
}

// Marked here: the structs are not exported, and what is made from them would not be either.
#define DEFOCUS_FAST_GROUP(Group)                                                                    \
  template DEFOCUS_FAST_API std::vector<OptionInfo> option_table<Group>();                           \
  template DEFOCUS_FAST_API void set_option(Group& options, const std::string&, const OptionValue&); \
  template DEFOCUS_FAST_API OptionValue get_option(const Group& options, const std::string&)
DEFOCUS_FAST_GROUP(Options);
DEFOCUS_FAST_GROUP(FrameOptions);
DEFOCUS_FAST_GROUP(VideoOptions);
DEFOCUS_FAST_GROUP(FocusOptions);
DEFOCUS_FAST_GROUP(CannyOptions);
DEFOCUS_FAST_GROUP(GuideOptions);
DEFOCUS_FAST_GROUP(PropagationOptions);
DEFOCUS_FAST_GROUP(FilterOptions);

const char* precision_name(Precision precision) { return precision_names[std::size_t(precision)]; }

void check_size(const void* data, int got_height, int got_width, const char* name, int height, int width) {
  cpu::check_pointer(data, name);
  if (got_height != height || got_width != width)
    throw InvalidArgument(std::string(name) + ": expected height x width " + size_text(height, width) + ", got " +
                          size_text(got_height, got_width));
}

void check_out(const MapView& out, const char* name, int height, int width) {
  check_size(out, name, height, width);
  const std::int64_t size = sizeof(float), row = height == 1 ? 0 : std::abs(std::int64_t{out.pitch_bytes}),
                     pixel = width == 1 ? 0 : std::abs(std::int64_t{out.pixel_stride_bytes});
  const bool apart =
      (width == 1 || pixel >= size) && (height == 1 || row >= size) &&
      (width == 1 || height == 1 || row >= pixel * (width - 1) + size || pixel >= row * (height - 1) + size);
  if (!apart)
    throw InvalidArgument(std::string(name) + ": expected pixels that do not overlap in memory, got strides of " +
                          std::to_string(out.pitch_bytes) + " and " + std::to_string(out.pixel_stride_bytes) +
                          " bytes");
}

void check_running(const std::optional<int>& num_threads, const std::string& kernels) {
  Options options;
  options.num_threads = num_threads;
  options.kernels = kernels;
  check_rows(options);
}

void check(const CannyOptions& options, const std::string& prefix) {
  check_rows(options, prefix.c_str());
  if (options.low > options.high)
    throw InvalidArgument(prefix + "low: expected at most " + prefix + "high, which is " + text_of(options.high) +
                          ", got " + text_of(options.low));
  const std::vector<double>& given = options.smoothing;
  if (given.empty()) return;
  const double sum = std::accumulate(given.begin(), given.end(), 0.0);
  if (given.size() % 2 == 0 || given.size() > 513 || !std::equal(given.begin(), given.end(), given.rbegin()) ||
      !std::all_of(given.begin(), given.end(), [](double weight) { return std::abs(weight) <= 1e6; }) ||
      !(sum >= 0.01 && sum <= 1e6))
    throw InvalidArgument(prefix +
                          "smoothing: expected an odd number of at most 513 weights, symmetric, in [-1000000, 1000000] "
                          "and of a sum in [0.01, 1000000], got " +
                          std::to_string(given.size()) + " of the sum " + text_of(sum));
}

void check(const FilterOptions& options) { check_rows(options); }

void check(const GuideOptions& guide, const PropagationOptions& propagation) {
  check_rows(guide, "guide_");
  check_rows(propagation);
}

void check(int height, int width, const Options& options) {
  if (std::min(height, width) < 1 || std::max(height, width) > cpu::most_side ||
      std::int64_t{height} * width > std::numeric_limits<std::int32_t>::max())
    throw InvalidArgument("size: expected 1 to 2147483647 pixels and sides of at most 1073741824, got height x width " +
                          size_text(height, width));
  check_rows(options);
  check(options.canny, "canny_");
}

void check(const VideoOptions& options) { check_rows(options); }

void check(const FocusOptions& options, int height, int width) {
  check_rows(options);
  if (options.rows > height || options.columns > width)
    throw InvalidArgument("rows and columns: expected at most " + size_text(height, width) +
                          ", the reduced map's height x width, got " + size_text(options.rows, options.columns));
}

void check(const FrameOptions& frame, int height, int width) {
  if (frame.edges.data) check_size(frame.edges, "edges", height, width);
  check_rows(frame);
}

}  // namespace defocus_fast
