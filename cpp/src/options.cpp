// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <type_traits>

#include "defocus_fast/error.hpp"

namespace defocus_fast {

namespace {

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
  if (const auto* text = std::get_if<std::string>(&value)) return '"' + *text + '"';
  return "none";
}

[[noreturn]] void refuse(const OptionInfo& option, const OptionValue& got) {
  throw InvalidArgument(option.name + ": expected " + option.expected() + ", got " + text_of(got));
}

// ---- one member as an OptionValue, and back

template <class T>
constexpr bool is_optional = false;
template <class T>
constexpr bool is_optional<std::optional<T>> = true;

template <class T>
constexpr OptionKind kind_of(const Accepted& accepted) {
  if constexpr (is_optional<T>)
    return kind_of<typename T::value_type>(accepted);
  else if constexpr (std::is_same_v<T, bool>)
    return OptionKind::flag;
  else if constexpr (std::is_same_v<T, int>)
    return OptionKind::integer;
  else if constexpr (std::is_same_v<T, double>)
    return OptionKind::number;
  else if constexpr (std::is_enum_v<T>)
    return OptionKind::name;
  else if constexpr (std::is_same_v<T, std::string>)
    return accepted.path ? OptionKind::path : accepted.names.empty() ? OptionKind::text : OptionKind::name;
  else
    return OptionKind::object;
}

template <class T>
OptionValue value_of(const T& member, const Accepted& accepted) {
  if constexpr (is_optional<T>)
    return member ? value_of(*member, accepted) : OptionValue();
  else if constexpr (std::is_integral_v<T>)
    return std::int64_t{member};
  else if constexpr (std::is_enum_v<T>)
    return std::size_t(member) < accepted.names.size() ? accepted.names[std::size_t(member)]
                                                       : std::to_string(std::size_t(member));
  else if constexpr (std::is_same_v<T, double> || std::is_same_v<T, std::string>)
    return member;
  else
    return {};
}

/// Of a value that was checked.
template <class T>
void assign(T& member, const Accepted& accepted, const OptionValue& value) {
  if constexpr (is_optional<T>) {
    if (std::holds_alternative<std::monostate>(value))
      member.reset();
    else
      assign(member.emplace(), accepted, value);
  } else if constexpr (std::is_integral_v<T>) {
    member = T(std::get<std::int64_t>(value));
  } else if constexpr (std::is_same_v<T, double>) {
    const auto* const integer = std::get_if<std::int64_t>(&value);
    member = integer ? double(*integer) : std::get<double>(value);
  } else if constexpr (std::is_enum_v<T>) {
    member = T(std::ranges::find(accepted.names, std::get<std::string>(value)) - accepted.names.begin());
  } else if constexpr (std::is_same_v<T, std::string>) {
    member = std::get<std::string>(value);
  } else {
    member = nullptr;
  }
}

bool fits(OptionKind kind, bool optional, const Accepted& accepted, const OptionValue& value) {
  const auto inside = [&](auto number) {
    return double(number) >= accepted.minimum && double(number) <= accepted.maximum;
  };
  const auto* const integer = std::get_if<std::int64_t>(&value);
  const auto* const number = std::get_if<double>(&value);
  const auto* const text = std::get_if<std::string>(&value);
  if (std::holds_alternative<std::monostate>(value)) return optional;
  switch (kind) {
    case OptionKind::flag:
      return integer && (*integer == 0 || *integer == 1);
    case OptionKind::integer:
      return integer && inside(*integer);
    case OptionKind::number:
      return (integer && inside(*integer)) || (number && inside(*number));
    case OptionKind::name:
      return text && std::ranges::find(accepted.names, *text) != accepted.names.end();
    case OptionKind::text:
    case OptionKind::path:
      return text != nullptr;
    case OptionKind::object:
      return false;
  }
  return false;
}

// ---- the table as a whole

std::span<const Option<CannyOptions>> rows(const CannyOptions&) { return canny_rows; }
std::span<const Option<FilterOptions>> rows(const FilterOptions&) { return filter_rows; }
std::span<const Option<GuideOptions>> rows(const GuideOptions&) { return guide_rows; }
std::span<const Option<PropagationOptions>> rows(const PropagationOptions&) { return propagation_rows; }
std::span<const Option<FrameOptions>> rows(const FrameOptions&) { return frame_rows; }
std::span<const Option<Options>> rows(const Options&) { return option_rows; }

/// A row and the member that it is about.
template <class Row, class T>
struct Bound {
  const Row& row;
  const char *prefix, *group;
  T& member;

  using Member = std::remove_const_t<T>;
  OptionKind kind() const { return kind_of<Member>(row.accepted); }
  bool optional() const { return is_optional<Member> || kind() == OptionKind::object; }
  bool is(const std::string& name) const { return name == std::string(prefix) + row.name; }
  OptionValue value() const { return value_of(member, row.accepted); }
  /// With the member's value as the default.
  OptionInfo info() const {
    return {std::string(prefix) + row.name,
            group,
            kind(),
            optional(),
            value(),
            row.accepted,
            row.unit,
            row.text,
            row.nothing};
  }
  void check(const OptionValue& value) const {
    if (!fits(kind(), optional(), row.accepted, value)) refuse(info(), value);
  }
};

template <class Row, class T>  // Clang before 17 deduces no arguments of aggregates
Bound(const Row&, const char*, const char*, T&) -> Bound<Row, T>;

/// Calls visit(bound) for every row.
template <class Group, class Visit>
void for_each(Group& options, const Visit& visit, const char* prefix = "", const char* group = "") {
  for (const auto& row : rows(options))
    std::visit([&](auto pointer) { visit(Bound{row, prefix, group, options.*pointer}); }, row.member);
  if constexpr (std::is_same_v<std::remove_const_t<Group>, Options>) {
    for_each(options.canny, visit, "canny_", "canny");
    for_each(options.guide, visit, "guide_", "guide");
    for_each(options.propagation, visit, "", "propagation");
  }
}

/// Allocates nothing where all is well and no member is a text: FrameOptions are checked in every frame.
template <class Group>
void check_rows(const Group& options) {
  for_each(options, [](const auto& option) { option.check(option.value()); });
}

void check_rest(const CannyOptions& options, const std::string& prefix) {
  if (options.low > options.high)
    throw InvalidArgument(prefix + "low: expected at most " + prefix + "high, which is " + text_of(options.high) +
                          ", got " + text_of(options.low));
  const std::vector<double>& given = options.smoothing;
  if (!given.empty() &&
      (given.size() % 2 == 0 || given.size() > 513 || !std::equal(given.begin(), given.end(), given.rbegin()) ||
       !std::all_of(given.begin(), given.end(), [](double w) { return std::isfinite(w); })))
    throw InvalidArgument(prefix + "smoothing: expected an odd number of at most 513 finite weights, symmetric, got " +
                          std::to_string(given.size()) + " that are not");
}

}  // namespace

std::string OptionInfo::expected() const {
  const std::string range = " in [" + text_of(accepted.minimum) + ", " + text_of(accepted.maximum) + ']';
  const std::string of_unit = unit.empty() ? "" : ' ' + unit;
  std::string result;
  switch (kind) {
    case OptionKind::flag:
      result = "true or false";
      break;
    case OptionKind::integer:
      result = "an integer in [" + std::to_string(std::int64_t(accepted.minimum)) + ", " +
               std::to_string(std::int64_t(accepted.maximum)) + ']';
      break;
    case OptionKind::number:
      result = "a number" + range + of_unit;
      break;
    case OptionKind::name:
      for (const char* choice : accepted.names) result += (result.empty() ? "one of " : ", ") + std::string(choice);
      break;
    case OptionKind::text:
      result = "a text";
      break;
    case OptionKind::path:
      result = "a text or a path";
      break;
    case OptionKind::object:
      result = "a callable";
      break;
  }
  return optional ? result + ", or none" : result;
}

template <class Group>
std::vector<OptionInfo> option_table() {
  std::vector<OptionInfo> table;
  const Group defaults{};
  for_each(defaults, [&](const auto& option) { table.push_back(option.info()); });
  return table;
}

template <class Group>
void set_option(Group& options, const std::string& name, const OptionValue& value) {
  bool known = false;
  for_each(options, [&](const auto& option) {
    if (!option.is(name)) return;
    known = true;
    option.check(value);
    assign(option.member, option.row.accepted, value);
  });
  if (!known) throw InvalidArgument("options: there is none of the name \"" + name + '"');
}

template <class Group>
OptionValue get_option(const Group& options, const std::string& name) {
  std::optional<OptionValue> value;
  for_each(options, [&](const auto& option) {
    if (option.is(name)) value = option.value();
  });
  if (!value) throw InvalidArgument("options: there is none of the name \"" + name + '"');
  return *value;
}

// Marked here: the structs are not exported, and what is made from them would not be either.
#define DEFOCUS_FAST_GROUP(Group)                                                                    \
  template DEFOCUS_FAST_API std::vector<OptionInfo> option_table<Group>();                           \
  template DEFOCUS_FAST_API void set_option(Group& options, const std::string&, const OptionValue&); \
  template DEFOCUS_FAST_API OptionValue get_option(const Group& options, const std::string&)
DEFOCUS_FAST_GROUP(Options);
DEFOCUS_FAST_GROUP(FrameOptions);
DEFOCUS_FAST_GROUP(CannyOptions);
DEFOCUS_FAST_GROUP(GuideOptions);
DEFOCUS_FAST_GROUP(PropagationOptions);
DEFOCUS_FAST_GROUP(FilterOptions);

const char* precision_name(Precision precision) { return precision_names[std::size_t(precision)]; }

void check_size(const void* data, int got_height, int got_width, const char* name, int height, int width) {
  if (data == nullptr) throw InvalidArgument(std::string(name) + ": expected a pointer to pixels, got null");
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

void check_threads(const std::optional<int>& num_threads) {
  Options options;
  options.num_threads = num_threads;
  check_rows(options);
}

void check(const CannyOptions& options) {
  check_rows(options);
  check_rest(options, "");
}

void check(const FilterOptions& options) { check_rows(options); }

void check(const GuideOptions& guide, const PropagationOptions& propagation) {
  Options options;
  options.guide = guide;
  options.propagation = propagation;
  check_rows(options);
}

void check(int height, int width, const Options& options) {
  if (std::min(height, width) < 1 || std::max(height, width) > cpu::most_side ||
      std::int64_t{height} * width > std::numeric_limits<std::int32_t>::max())
    throw InvalidArgument("size: expected 1 to 2147483647 pixels and sides of at most 1073741824, got height x width " +
                          size_text(height, width));
  check_rows(options);
  check_rest(options.canny, "canny_");
}

void check(const FrameOptions& frame, int height, int width) {
  if (frame.edges.data) check_size(frame.edges, "edges", height, width);
  check_rows(frame);
}

}  // namespace defocus_fast
