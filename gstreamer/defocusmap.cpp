// SPDX-License-Identifier: Apache-2.0
// The GStreamer element `defocusmap`: blur maps of a video, focus peaking, or figures of focus. Its properties are made
// from the library's table of options.
#include <gst/video/gstvideofilter.h>
#include <gst/video/video.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "defocus_fast/error.hpp"
#include "defocus_fast/options.hpp"
#include "defocus_fast/version.hpp"
#include "defocus_fast/video.hpp"

namespace df = defocus_fast;

namespace {

GST_DEBUG_CATEGORY_STATIC(category);
#define GST_CAT_DEFAULT category

constexpr const char* meta_name = "DefocusMapMeta";
#define READ_FORMATS "NV12, NV21, I420, YUY2, P010_10LE, GRAY8, GRAY16_LE, RGB, BGR, RGBA, BGRA, RGBx, BGRx"
#define MAP_FORMATS "GRAY8, GRAY16_LE"

constexpr std::array<std::pair<GstVideoFormat, df::PixelFormat>, 13> formats{{
    {GST_VIDEO_FORMAT_NV12, df::PixelFormat::nv12},
    {GST_VIDEO_FORMAT_NV21, df::PixelFormat::nv21},
    {GST_VIDEO_FORMAT_I420, df::PixelFormat::i420},
    {GST_VIDEO_FORMAT_YUY2, df::PixelFormat::yuyv},
    {GST_VIDEO_FORMAT_P010_10LE, df::PixelFormat::p010},
    {GST_VIDEO_FORMAT_GRAY8, df::PixelFormat::gray8},
    {GST_VIDEO_FORMAT_GRAY16_LE, df::PixelFormat::gray16},
    {GST_VIDEO_FORMAT_RGB, df::PixelFormat::rgb},
    {GST_VIDEO_FORMAT_BGR, df::PixelFormat::bgr},
    {GST_VIDEO_FORMAT_RGBA, df::PixelFormat::rgba},
    {GST_VIDEO_FORMAT_BGRA, df::PixelFormat::bgra},
    {GST_VIDEO_FORMAT_RGBx, df::PixelFormat::rgbx},
    {GST_VIDEO_FORMAT_BGRx, df::PixelFormat::bgrx},
}};

enum class Output : std::uint8_t { map, peaking, none };

struct Settings {
  df::Options options;
  df::VideoOptions video;
  df::FocusOptions focus;
  df::FrameOptions frame;
};

struct State {
  Output output = Output::map;
  double white = 8;                         // px
  std::map<guint, df::OptionValue> wanted;  // by property
  Settings settings;                        // of the estimator
  GstVideoInfo info{};
  std::unique_ptr<df::VideoEstimator> estimator;
  std::vector<float> map;
  df::FocusMap focus;
  std::array<std::vector<std::uint8_t>, 2> rows;  // of the first component, as they were before they were painted
  df::Colour colour;
  df::PixelFormat format{};
};

// ---- properties

/// A property that is a row of a table of options; those that may be nothing are -1 then.
struct Property {
  df::OptionInfo info;
  void (*set)(Settings&, const std::string& name, const df::OptionValue&);
};

constexpr std::array<std::string_view, 3> of_cuda{"device", "evaluation", "max_edges"};  // which makes no videos yet

template <auto member>
void add_rows(std::vector<Property>& properties) {
  for (df::OptionInfo& info : df::option_table<std::remove_reference_t<decltype(Settings{}.*member)>>()) {
    if (info.kind == df::OptionKind::object || info.kind == df::OptionKind::flag) continue;
    if (std::ranges::find(of_cuda, info.name) != of_cuda.end()) continue;
    properties.push_back(
        {std::move(info), [](Settings& settings, const std::string& name, const df::OptionValue& value) {
           df::set_option(settings.*member, name, value);
         }});
  }
}

const std::vector<Property>& properties() {
  static const std::vector<Property> all = [] {
    std::vector<Property> made;
    add_rows<&Settings::options>(made);
    add_rows<&Settings::video>(made);
    add_rows<&Settings::focus>(made);
    add_rows<&Settings::frame>(made);
    return made;
  }();
  return all;
}

enum : guint { prop_output = 1, prop_white, first_option };

GParamSpec* describe(const df::OptionInfo& info) {
  std::string name = info.name;
  std::ranges::replace(name, '_', '-');
  const auto flags = GParamFlags(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY);
  std::string text = info.text;
  if (!info.unit.empty()) text += " In " + info.unit + ".";
  if (info.optional && (info.kind == df::OptionKind::integer || info.kind == df::OptionKind::number))
    text += " -1: " + info.nothing + ".";
  // GObject keeps the texts for as long as the process lives.
  const char *const id = g_intern_string(name.c_str()), *const blurb = g_intern_string(text.c_str());
  const double least = info.optional ? -1 : info.accepted.minimum, most = info.accepted.maximum;
  const auto* const integer = std::get_if<std::int64_t>(&info.default_value);
  const auto* const number = std::get_if<double>(&info.default_value);
  const auto* const words = std::get_if<std::string>(&info.default_value);
  switch (info.kind) {
    case df::OptionKind::integer:
      return g_param_spec_int(id, id, blurb, int(least), int(most), integer ? int(*integer) : -1, flags);
    case df::OptionKind::number:
      return g_param_spec_double(id, id, blurb, least, most, number ? *number : -1, flags);
    default:
      return g_param_spec_string(id, id, blurb, words ? words->c_str() : nullptr, flags);
  }
}

df::OptionValue value_of(const df::OptionInfo& info, const GValue* value) {
  if (G_VALUE_HOLDS_STRING(value)) {
    const char* const text = g_value_get_string(value);
    return text ? df::OptionValue(text) : df::OptionValue();
  }
  const double number = G_VALUE_HOLDS_INT(value) ? g_value_get_int(value) : g_value_get_double(value);
  if (info.optional && number == -1) return {};
  return G_VALUE_HOLDS_INT(value) ? df::OptionValue(std::int64_t(number)) : df::OptionValue(number);
}

void write_value(const df::OptionValue& from, GValue* to) {
  const auto* const integer = std::get_if<std::int64_t>(&from);
  const auto* const number = std::get_if<double>(&from);
  const auto* const text = std::get_if<std::string>(&from);
  if (G_VALUE_HOLDS_INT(to))
    g_value_set_int(to, integer ? int(*integer) : -1);
  else if (G_VALUE_HOLDS_DOUBLE(to))
    g_value_set_double(to, number ? *number : -1);
  else
    g_value_set_string(to, text ? text->c_str() : nullptr);
}

GType output_type() {
  static const GEnumValue values[]{
      {int(Output::map), "Radii: black is 0; white is `white` px in GRAY8, value / 500 px in GRAY16_LE", "map"},
      {int(Output::peaking), "The video, with contours that are in focus in red (8-bit formats)", "peaking"},
      {int(Output::none), "The video as it is", "none"},
      {0, nullptr, nullptr}};
  static const GType type = g_enum_register_static("DefocusMapOutput", values);
  return type;
}

// ---- the element

struct DefocusMap {
  GstVideoFilter parent;
  State* state;
};
struct DefocusMapClass {
  GstVideoFilterClass parent_class;
};
G_DEFINE_TYPE(DefocusMap, defocus_map, GST_TYPE_VIDEO_FILTER)

DefocusMap* self_of(gpointer object) { return reinterpret_cast<DefocusMap*>(object); }

/// Runs `work`; what it throws is a message on the bus and GST_FLOW_ERROR.
template <class Work>
GstFlowReturn attempt(DefocusMap* self, const Work& work) {
  try {
    work();
    return GST_FLOW_OK;
  } catch (const std::exception& error) {
    GST_ELEMENT_ERROR(self, LIBRARY, FAILED, ("%s", error.what()), (nullptr));
    return GST_FLOW_ERROR;
  }
}

void set_property(GObject* object, guint id, const GValue* value, GParamSpec*) {
  State& state = *self_of(object)->state;
  if (id == prop_output)
    state.output = Output(g_value_get_enum(value));
  else if (id == prop_white)
    state.white = g_value_get_double(value);
  else  // checked with the first frame, as there may be no bus yet to say what is wrong
    state.wanted[id] = value_of(properties()[id - first_option].info, value);
}

void get_property(GObject* object, guint id, GValue* value, GParamSpec*) {
  const State& state = *self_of(object)->state;
  if (id == prop_output) {
    g_value_set_enum(value, int(state.output));
  } else if (id == prop_white) {
    g_value_set_double(value, state.white);
  } else {
    const auto found = state.wanted.find(id);
    write_value(found != state.wanted.end() ? found->second : properties()[id - first_option].info.default_value,
                value);
  }
}

/// A map has the video's caps in another format.
GstCaps* transform_caps(GstBaseTransform* base, GstPadDirection direction, GstCaps* caps, GstCaps* filter) {
  GstCaps* result = nullptr;
  if (self_of(base)->state->output != Output::map) {
    result = gst_caps_ref(caps);
  } else {
    result = gst_caps_copy(caps);
    GstCaps* const there =
        gst_caps_from_string(direction == GST_PAD_SINK ? "video/x-raw, format = { " MAP_FORMATS " }"
                                                       : "video/x-raw, format = { " READ_FORMATS " }");
    for (guint i = 0; i < gst_caps_get_size(result); ++i) {
      GstStructure* const structure = gst_caps_get_structure(result, i);
      gst_structure_remove_fields(structure, "colorimetry", "chroma-site", nullptr);
      gst_structure_set_value(structure, "format", gst_structure_get_value(gst_caps_get_structure(there, 0), "format"));
    }
    gst_caps_unref(there);
  }
  if (filter) {
    GstCaps* const both = gst_caps_intersect_full(filter, result, GST_CAPS_INTERSECT_FIRST);
    gst_caps_unref(result);
    result = both;
  }
  return result;
}

df::Colour colour_of(const GstVideoInfo& info) {
  df::Colour colour;
  if (!GST_VIDEO_INFO_IS_YUV(&info) && !GST_VIDEO_INFO_IS_GRAY(&info)) return colour;
  if (info.colorimetry.range != GST_VIDEO_COLOR_RANGE_UNKNOWN)
    colour.range =
        info.colorimetry.range == GST_VIDEO_COLOR_RANGE_0_255 ? df::ColourRange::full : df::ColourRange::limited;
  switch (info.colorimetry.matrix) {
    case GST_VIDEO_COLOR_MATRIX_BT709:
      colour.matrix = df::ColourMatrix::bt709;
      break;
    case GST_VIDEO_COLOR_MATRIX_BT601:
    case GST_VIDEO_COLOR_MATRIX_UNKNOWN:
    case GST_VIDEO_COLOR_MATRIX_RGB:  // of grey
      break;
    default:
      if (GST_VIDEO_INFO_IS_YUV(&info))
        throw df::InvalidArgument("colorimetry: expected the matrix of BT.601 or BT.709, got " +
                                  std::to_string(int(info.colorimetry.matrix)) + " of GstVideoColorMatrix");
  }
  return colour;
}

gboolean set_info(GstVideoFilter* filter, GstCaps*, GstVideoInfo* in, GstCaps*, GstVideoInfo*) {
  State& state = *self_of(filter)->state;
  state.estimator.reset();
  state.info = *in;
  gst_base_transform_set_in_place(GST_BASE_TRANSFORM(filter), state.output != Output::map);
  return TRUE;
}

/// Makes the estimator with the first frame of its size: an error is that frame's.
void prepare(State& state) {
  if (state.estimator) return;
  const GstVideoInfo& info = state.info;
  if (state.output == Output::peaking && GST_VIDEO_INFO_COMP_DEPTH(&info, 0) != 8)
    throw df::InvalidArgument(std::string("output: peaking needs a format of 8 bits, got ") +
                              GST_VIDEO_INFO_NAME(&info));
  state.settings = {};
  for (const auto& [id, value] : state.wanted) {
    const Property& property = properties()[id - first_option];
    property.set(state.settings, property.info.name, value);
  }
  state.format =
      std::ranges::find(formats, GST_VIDEO_INFO_FORMAT(&info), &std::pair<GstVideoFormat, df::PixelFormat>::first)
          ->second;
  state.colour = colour_of(info);
  const int height = GST_VIDEO_INFO_HEIGHT(&info), width = GST_VIDEO_INFO_WIDTH(&info);
  state.map.resize(state.output == Output::map ? std::size_t(height) * std::size_t(width) : 0);
  state.estimator = std::make_unique<df::VideoEstimator>(height, width, state.settings.options, state.settings.video);
}

df::ImageView view_of(const State& state, const GstVideoFrame& frame) {
  df::FramePlanes planes;
  df::FramePlane* const all[]{&planes.first, &planes.second, &planes.third};
  for (guint i = 0; i < GST_VIDEO_FRAME_N_PLANES(&frame); ++i)
    *all[i] = {GST_VIDEO_FRAME_PLANE_DATA(&frame, i), GST_VIDEO_FRAME_PLANE_STRIDE(&frame, i)};
  return df::ImageView::of(state.format, GST_VIDEO_FRAME_HEIGHT(&frame), GST_VIDEO_FRAME_WIDTH(&frame), planes,
                           state.colour);
}

GstFlowReturn write_map(GstVideoFilter* filter, GstVideoFrame* in, GstVideoFrame* out) {
  constexpr float per_px = 500;  // of GRAY16_LE, as in the 16-bit PNG files of the command line
  DefocusMap* const self = self_of(filter);
  State& state = *self->state;
  return attempt(self, [&] {
    prepare(state);
    const int height = GST_VIDEO_FRAME_HEIGHT(in), width = GST_VIDEO_FRAME_WIDTH(in);
    state.estimator->estimate_into(view_of(state, *in),
                                   {state.map.data(), height, width, width * std::ptrdiff_t{sizeof(float)}},
                                   state.settings.frame);
    const bool bytes = GST_VIDEO_FRAME_FORMAT(out) == GST_VIDEO_FORMAT_GRAY8;
    const float scale = bytes ? float(255 / state.white) : per_px, most = bytes ? 255.0f : 65535.0f;
    for (int y = 0; y < height; ++y) {
      const float* const from = state.map.data() + std::ptrdiff_t{y} * width;
      auto* const to = static_cast<std::uint8_t*>(GST_VIDEO_FRAME_PLANE_DATA(out, 0)) +
                       std::ptrdiff_t{y} * GST_VIDEO_FRAME_PLANE_STRIDE(out, 0);
      for (int x = 0; x < width; ++x) {
        const float value = std::min(from[x] * scale + 0.5f, most);
        if (bytes)
          to[x] = std::uint8_t(value);
        else
          GST_WRITE_UINT16_LE(to + 2 * x, std::uint16_t(value));
      }
    }
  });
}

/// Where a component of the pixel is.
std::uint8_t* at(const GstVideoFrame& frame, int component, int y, int x) {
  const GstVideoFormatInfo* const format = frame.info.finfo;
  return static_cast<std::uint8_t*>(GST_VIDEO_FRAME_COMP_DATA(&frame, component)) +
         std::ptrdiff_t{y >> GST_VIDEO_FORMAT_INFO_H_SUB(format, component)} *
             GST_VIDEO_FRAME_COMP_STRIDE(&frame, component) +
         std::ptrdiff_t{x >> GST_VIDEO_FORMAT_INFO_W_SUB(format, component)} *
             GST_VIDEO_FRAME_COMP_PSTRIDE(&frame, component);
}

/// Paints what has contrast and is in focus.
void paint(State& state, GstVideoFrame& frame) {
  constexpr int contrast = 40;  // of 255, between the neighbours of a pixel
  constexpr std::uint8_t red_of_rgb[]{255, 0, 0}, red_of_yuv[]{81, 90, 240}, white_of_grey[]{255};
  const std::uint8_t* const colour = GST_VIDEO_INFO_IS_RGB(&frame.info)    ? red_of_rgb
                                     : GST_VIDEO_INFO_IS_GRAY(&frame.info) ? white_of_grey
                                                                           : red_of_yuv;
  const int components = std::min(3, int(GST_VIDEO_FRAME_N_COMPONENTS(&frame)));
  const int height = GST_VIDEO_FRAME_HEIGHT(&frame), width = GST_VIDEO_FRAME_WIDTH(&frame);
  const df::FocusMap& focus = state.focus;
  auto& [above, row] = state.rows;
  for (int y = 0; y < height; ++y) {
    above.swap(row);
    row.resize(std::size_t(width));
    for (int x = 0; x < width; ++x) row[std::size_t(x)] = *at(frame, 0, y, x);
    if (y == 0 || y + 1 == height) continue;
    const float* const radii =
        focus.map.data() + std::ptrdiff_t{std::min(y / focus.scale, focus.height - 1)} * focus.width;
    for (int x = 1; x + 1 < width; ++x) {
      if (double(radii[std::min(x / focus.scale, focus.width - 1)]) > state.settings.focus.in_focus) continue;
      const int across = std::abs(row[std::size_t(x) + 1] - row[std::size_t(x) - 1]);
      const int down = std::abs(*at(frame, 0, y + 1, x) - above[std::size_t(x)]);
      if (across + down < contrast) continue;
      for (int component = 0; component < components; ++component) *at(frame, component, y, x) = colour[component];
    }
  }
}

/// What a frame's message and metadata say; radii and errors in px.
void fill(GstStructure* structure, const df::FocusMap& focus) {
  GValue regions = G_VALUE_INIT;
  g_value_init(&regions, GST_TYPE_ARRAY);
  for (const df::Focus& region : focus.regions) {
    GValue radius = G_VALUE_INIT;
    g_value_init(&radius, G_TYPE_DOUBLE);
    g_value_set_double(&radius, double(region.radius));
    gst_value_array_append_and_take_value(&regions, &radius);
  }
  gst_structure_set(structure, "in-focus", G_TYPE_DOUBLE, double(focus.frame.in_focus), "radius", G_TYPE_DOUBLE,
                    double(focus.frame.radius), "expected-error", G_TYPE_DOUBLE, double(focus.frame.expected_error),
                    "cut", G_TYPE_BOOLEAN, gboolean(focus.change.cut), "rows", G_TYPE_INT, focus.rows, "columns",
                    G_TYPE_INT, focus.columns, nullptr);
  gst_structure_take_value(structure, "radius-of-regions", &regions);
}

GstFlowReturn look(GstVideoFilter* filter, GstVideoFrame* frame) {
  DefocusMap* const self = self_of(filter);
  State& state = *self->state;
  return attempt(self, [&] {
    prepare(state);
    state.estimator->estimate_focus(view_of(state, *frame), state.focus, state.settings.focus, state.settings.frame);
    if (state.output == Output::peaking) paint(state, *frame);
    GstBuffer* const buffer = frame->buffer;
    GstStructure* const structure = gst_structure_new_empty("defocusmap");
    const GstClockTime time = GST_BUFFER_PTS(buffer);
    gst_structure_set(structure, "timestamp", GST_TYPE_CLOCK_TIME, time, "running-time", GST_TYPE_CLOCK_TIME,
                      gst_segment_to_running_time(&GST_BASE_TRANSFORM(filter)->segment, GST_FORMAT_TIME, time),
                      nullptr);
    fill(structure, state.focus);
    gst_element_post_message(GST_ELEMENT(self), gst_message_new_element(GST_OBJECT(self), structure));
    if (GstCustomMeta* const meta = gst_buffer_add_custom_meta(buffer, meta_name))
      fill(gst_custom_meta_get_structure(meta), state.focus);
  });
}

/// A frame after a jump has nothing before it.
gboolean sink_event(GstBaseTransform* base, GstEvent* event) {
  State& state = *self_of(base)->state;
  if (state.estimator && (GST_EVENT_TYPE(event) == GST_EVENT_FLUSH_STOP || GST_EVENT_TYPE(event) == GST_EVENT_SEGMENT))
    state.estimator->reset();
  return GST_BASE_TRANSFORM_CLASS(defocus_map_parent_class)->sink_event(base, event);
}

gboolean stop(GstBaseTransform* base) {
  self_of(base)->state->estimator.reset();
  return TRUE;
}

void finalize(GObject* object) {
  delete self_of(object)->state;
  G_OBJECT_CLASS(defocus_map_parent_class)->finalize(object);
}

void defocus_map_init(DefocusMap* self) { self->state = new State; }

void defocus_map_class_init(DefocusMapClass* of_type) {
  GObjectClass* const object = G_OBJECT_CLASS(of_type);
  object->set_property = set_property;
  object->get_property = get_property;
  object->finalize = finalize;
  const auto flags = GParamFlags(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY);
  g_object_class_install_property(
      object, prop_output,
      g_param_spec_enum("output", "output", "What comes out.", output_type(), int(Output::map), flags));
  g_object_class_install_property(
      object, prop_white,
      g_param_spec_double("white", "white", "Radius that is white in maps of format GRAY8. In px.", 0.1, 1e4, 8,
                          flags));
  for (guint i = 0; i < properties().size(); ++i)
    g_object_class_install_property(object, first_option + i, describe(properties()[i].info));

  GstElementClass* const element = GST_ELEMENT_CLASS(of_type);
  gst_element_class_set_static_metadata(element, "Blur map", "Filter/Analyzer/Video",
                                        "How much every pixel is out of focus", "the defocus_fast developers");
  const auto add = [&](const char* name, GstPadDirection direction, const char* caps) {
    GstCaps* const made = gst_caps_from_string(caps);
    gst_element_class_add_pad_template(element, gst_pad_template_new(name, direction, GST_PAD_ALWAYS, made));
    gst_caps_unref(made);
  };
  add("sink", GST_PAD_SINK, GST_VIDEO_CAPS_MAKE("{ " READ_FORMATS " }"));
  add("src", GST_PAD_SRC, GST_VIDEO_CAPS_MAKE("{ " READ_FORMATS " }"));

  GstBaseTransformClass* const transform = GST_BASE_TRANSFORM_CLASS(of_type);
  transform->transform_caps = transform_caps;
  transform->sink_event = sink_event;
  transform->stop = stop;
  GstVideoFilterClass* const filter = GST_VIDEO_FILTER_CLASS(of_type);
  filter->set_info = set_info;
  filter->transform_frame = write_map;
  filter->transform_frame_ip = look;
}

gboolean plugin_init(GstPlugin* plugin) {
  GST_DEBUG_CATEGORY_INIT(category, "defocusmap", 0, "blur maps");
  static const char* tags[]{nullptr};
  gst_meta_register_custom(meta_name, tags, nullptr, nullptr, nullptr);
  return gst_element_register(plugin, "defocusmap", GST_RANK_NONE, defocus_map_get_type());
}

}  // namespace

#define PACKAGE "defocus_fast"
GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, defocusmap, "How much every pixel of a video is out of focus",
                  plugin_init, DEFOCUS_FAST_VERSION, "Apache 2.0", PACKAGE, PACKAGE)
