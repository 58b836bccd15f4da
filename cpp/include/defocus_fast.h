/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blur maps in C99. The library is C++; this is its interface for everybody else, and no exception leaves it.
 *
 * Order of calls: set options, create an estimator for one size of images, estimate frames with it, destroy both.
 * Several estimators may share threads, which defocus_fast_thread_pool_create makes.
 * README.md has a whole program. Frames in device memory are for C++ only (defocus_fast/estimator.hpp).
 *
 * Pointers to handles and structs must not be NULL unless it is said that they may be; functions that return a status
 * refuse NULL, the others do not look. Paths and names are texts that end with a NUL byte.
 *
 * Threads: functions may be called from any thread. An estimator may be shared: its frames run one after the other,
 * each on all of its threads. Those of several estimators run side by side. Options may be read by many calls at the
 * same time, but by none while they are set. A result belongs to one call at a time.
 */
#ifndef DEFOCUS_FAST_H
#define DEFOCUS_FAST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Grows when a program compiled with an older header would not run with the library. */
#define DEFOCUS_FAST_ABI_VERSION 2
/* The library's: a program that loads it by itself compares the two. */
int defocus_fast_abi_version(void);
/* Of the library, as "0.1.0". */
const char* defocus_fast_version(void);

/* ---- errors */

typedef enum defocus_fast_status {
  DEFOCUS_FAST_OK = 0,
  DEFOCUS_FAST_ERROR = 1,               /* what the others are not, such as threads that cannot be started */
  DEFOCUS_FAST_INVALID_ARGUMENT = 2,    /* an argument is out of its range */
  DEFOCUS_FAST_BACKEND_UNAVAILABLE = 3, /* this machine or build lacks the device, precision or kernels asked for */
  DEFOCUS_FAST_MODEL_ERROR = 4,         /* a model folder is missing, incomplete or of another format */
  DEFOCUS_FAST_OUT_OF_MEMORY = 5        /* estimators stay usable */
} defocus_fast_status;

/* What a status means, in general. Never NULL. */
const char* defocus_fast_status_text(defocus_fast_status status);
/* What was got and what is accepted, of this thread's last call that failed; "" if none has. At most 1023 bytes; valid
   until the thread's next call that fails. */
const char* defocus_fast_last_error(void);

/* ---- threads that several estimators share (defocus_fast/thread_pool.hpp says how) */

typedef struct defocus_fast_thread_pool defocus_fast_thread_pool;

/* Starts num_threads - 1 threads, as the caller of a frame is its last one; 0: as many as there are cores that this
   process may use. They inherit affinity, scheduling policy and priority from the calling thread. Unless it is NULL,
   `on_start` is called with `context` in each of them, by several at the same time, with an index from 0 to
   num_threads - 2, before this returns: to give a thread a name, cores or a priority of its own. In a forked process
   threads are started again, and `on_start` is called again, by the first frame. `*pool` is NULL afterwards unless all
   went well. INVALID_ARGUMENT, OUT_OF_MEMORY; ERROR where the system starts fewer threads. */
defocus_fast_status defocus_fast_thread_pool_create(int num_threads, void (*on_start)(int index, void* context),
                                                    void* context, defocus_fast_thread_pool** pool);
/* Estimators and options keep the threads that they have been given. NULL is left alone. */
void defocus_fast_thread_pool_destroy(defocus_fast_thread_pool* pool);
int defocus_fast_thread_pool_num_threads(const defocus_fast_thread_pool* pool);

/* ---- options */

/* Of estimators and of frames, with their defaults: defocus_fast/options.hpp lists names, ranges and units, and so does
   help(defocus_fast.Estimator) in Python. "edge_stride", "expected_error" and "bin_probabilities" are of frames,
   "frames" and "budget_ms" are of videos; "rows", "columns", "in_focus" and "percentile" are of
   defocus_fast_video_estimate_focus. */
typedef struct defocus_fast_options defocus_fast_options;

/* NULL if memory is lacking. */
defocus_fast_options* defocus_fast_options_create(void);
/* Estimators keep what they were made with. NULL is left alone. */
void defocus_fast_options_destroy(defocus_fast_options* options);
/* A text, such as of "model" or "device"; NULL brings back "nothing" where it is the default, as of "num_threads".
   INVALID_ARGUMENT: there is no such option, or it does not take this value. */
defocus_fast_status defocus_fast_options_set_text(defocus_fast_options* options, const char* name, const char* value);
/* A number; of integers one without a fraction, of flags 0 or 1. Fails as above. */
defocus_fast_status defocus_fast_options_set_number(defocus_fast_options* options, const char* name, double value);
/* Edges (not 0) of frames to come, (height, width) in the caller's memory, rows `pitch_bytes` apart; they replace the
   edge detector, and octaves but the first. They are read by every frame, and not before; `data` NULL: no longer. */
defocus_fast_status defocus_fast_options_set_edges(defocus_fast_options* options, const uint8_t* data, int height,
                                                   int width, ptrdiff_t pitch_bytes);

/* The threads of estimators that are made with these options; NULL: each has its own. "num_threads" must be nothing
   then, which is its default, or the pool's. */
defocus_fast_status defocus_fast_options_set_thread_pool(defocus_fast_options* options,
                                                         const defocus_fast_thread_pool* pool);

/* ---- images and maps in the caller's memory: read and written in place, top row first */

enum { DEFOCUS_FAST_UINT8 = 0, DEFOCUS_FAST_FLOAT32 = 1 };

typedef struct defocus_fast_plane {
  const void* data;
  ptrdiff_t pitch_bytes; /* from row to row; may be negative: the bottom row comes first */
} defocus_fast_plane;

/* Numbers with any strides, or a camera's frame with a format. What is not named is 0. */
typedef struct defocus_fast_image {
  const void* data;               /* (height, width, channels), [0, 255] for UINT8, [0, 1] for FLOAT32 */
  int pixel_type;                 /* DEFOCUS_FAST_UINT8 or DEFOCUS_FAST_FLOAT32 */
  int height, width;              /* px */
  int channels;                   /* 1 (grey) or 3 (red, green, blue) */
  ptrdiff_t pitch_bytes;          /* from row to row; may be negative, as may the following */
  ptrdiff_t pixel_stride_bytes;   /* from pixel to pixel; this and the next both 0: channels interleaved, no gaps */
  ptrdiff_t channel_stride_bytes; /* from red to green and from green to blue; -1 for BGR, whose data is its red */
  /* Of frames only, whose first plane is `data` with `pitch_bytes`; pixel_type, channels and strides must be 0 then.
     docs/frames.md lists the formats, their planes, and what their numbers stand for. */
  const char* format;                /* "nv12", "yuyv", "bgra", ...; NULL: this is no frame */
  defocus_fast_plane more_planes[2]; /* the second and the third, where the format has them */
  const char* range;                 /* "full" or "limited"; NULL: "limited" of YUV, "full" of all others */
  const char* matrix;                /* "bt601" or "bt709"; NULL: "bt601" */
} defocus_fast_image;

typedef struct defocus_fast_map {
  float* data;           /* (height, width) px, to be written */
  int height, width;     /* px, those of the image */
  ptrdiff_t pitch_bytes; /* from row to row; may be negative */
} defocus_fast_map;

/* ---- estimators */

typedef struct defocus_fast_estimator defocus_fast_estimator;

/* For images of one size, 1 to 2147483647 px. Makes all that frames need. `options` may be NULL. `*estimator` is NULL
   afterwards unless all went well. Any status. */
defocus_fast_status defocus_fast_estimator_create(int height, int width, const defocus_fast_options* options,
                                                  defocus_fast_estimator** estimator);
/* No frame may be under way. NULL is left alone. */
void defocus_fast_estimator_destroy(defocus_fast_estimator* estimator);

int defocus_fast_estimator_num_threads(const defocus_fast_estimator* estimator);
/* Valid as long as the estimator. */
const char* defocus_fast_estimator_device(const defocus_fast_estimator* estimator);    /* "cpu" or "cuda" */
const char* defocus_fast_estimator_precision(const defocus_fast_estimator* estimator); /* "float32", "bfloat16", ... */
const char* defocus_fast_estimator_kernels(const defocus_fast_estimator* estimator);   /* "avx512", "avx2", ... */
const char* defocus_fast_estimator_model(const defocus_fast_estimator* estimator);     /* as its folder names it */
/* The radii that the networks tell apart at the image's own size, in px, ascending; their number is written to
   `*count`. */
const float* defocus_fast_estimator_radius_bins(const defocus_fast_estimator* estimator, size_t* count);

/* Blur map of `image`: radii in px, written to `out`. `options` may be NULL; of them only "edge_stride" and edges
   count. INVALID_ARGUMENT: image or `out` of another size, pixels of `out` that overlap, float images with NaN or
   values outside [0, 1]. ERROR: in a process that was forked in the middle of a frame; on device "cuda" more than
   "max_edges" edges. */
defocus_fast_status defocus_fast_estimate_into(defocus_fast_estimator* estimator, const defocus_fast_image* image,
                                               const defocus_fast_map* out, const defocus_fast_options* options);

/* ---- all that is found on the way */

enum {
  DEFOCUS_FAST_DETECT_EDGES,
  DEFOCUS_FAST_EXTRACT_FEATURES,
  DEFOCUS_FAST_CLASSIFY_EDGES,
  DEFOCUS_FAST_ESTIMATE_RADII,
  DEFOCUS_FAST_PROPAGATE,
  DEFOCUS_FAST_STAGES
};
/* "detect_edges" and so on; NULL for what is no stage. */
const char* defocus_fast_stage_name(int stage);

typedef struct defocus_fast_pixel {
  int32_t y, x;
} defocus_fast_pixel;

/* One frame's answer. The library alone makes it: later versions may have more at its end. Maps are
   (height, width) without gaps, arrays of edges have `edges` elements: octave by octave, in an octave row by row. */
typedef struct defocus_fast_blur_map {
  int height, width;
  const float* map;                   /* px */
  const float* expected_error;        /* px, how far off the map is likely to be; NULL without "expected_error" */
  const uint8_t* pattern_edges;       /* 1 at pattern edges of the first octave, else 0 */
  const uint8_t* depth_edges;         /* 1 at depth edges of the first octave, else 0 */
  size_t edges;                       /* number of edges */
  const defocus_fast_pixel* position; /* px of the image */
  const uint8_t* octave;              /* found in the image reduced by 2^octave */
  const float* depth_probability;     /* in [0, 1] */
  const float* radius;                /* px */
  const float* radius_std;            /* px, standard deviation of the radius */
  const float* radius_probability;    /* in [0, 1], of the most probable radius */
  const float* bin_probabilities;     /* (edges, radius bins), of octave o for 2^o times the bins; NULL without
                                         "bin_probabilities" */
  double stage_ms[DEFOCUS_FAST_STAGES];
} defocus_fast_blur_map;

/* Memory for answers, used again by every frame. */
typedef struct defocus_fast_result defocus_fast_result;

/* NULL if memory is lacking. */
defocus_fast_result* defocus_fast_result_create(void);
/* NULL is left alone. */
void defocus_fast_result_destroy(defocus_fast_result* result);
/* The last frame's answer; all 0 and NULL before the first and after one that failed. Valid until the result's next
   frame. */
const defocus_fast_blur_map* defocus_fast_result_get(const defocus_fast_result* result);

/* As defocus_fast_estimate_into; the map is in `result`, with all that was found on the way. */
defocus_fast_status defocus_fast_estimate(defocus_fast_estimator* estimator, const defocus_fast_image* image,
                                          defocus_fast_result* result, const defocus_fast_options* options);

/* ---- videos: frames in the order of time, averaged along it (defocus_fast/video.hpp says how) */

typedef struct defocus_fast_video defocus_fast_video;

/* How a frame differs from those before it. */
typedef struct defocus_fast_video_change {
  int cut;              /* 1: most of the image has changed, or this is the first frame; else 0 */
  int shift_y, shift_x; /* px by which the camera's movement has moved the image down and to the right */
  float renewed;        /* share of the image whose averages have started afresh, in [0, 1] */
  float read;           /* share of the image that "budget_ms" left time to read, in [0, 1] */
} defocus_fast_video_change;

/* As defocus_fast_estimator_create; "frames" and "budget_ms" are options of videos. BACKEND_UNAVAILABLE for device
 * "cuda". */
defocus_fast_status defocus_fast_video_create(int height, int width, const defocus_fast_options* options,
                                              defocus_fast_video** video);
/* No frame may be under way. NULL is left alone. */
void defocus_fast_video_destroy(defocus_fast_video* video);
/* The next frame, as defocus_fast_estimate_into and defocus_fast_estimate; INVALID_ARGUMENT for options with edges.
   `change` may be NULL. */
defocus_fast_status defocus_fast_video_estimate_into(defocus_fast_video* video, const defocus_fast_image* image,
                                                     const defocus_fast_map* out, const defocus_fast_options* options,
                                                     defocus_fast_video_change* change);
defocus_fast_status defocus_fast_video_estimate(defocus_fast_video* video, const defocus_fast_image* image,
                                                defocus_fast_result* result, const defocus_fast_options* options,
                                                defocus_fast_video_change* change);

/* How much of a frame, or of a region of it, is in focus. */
typedef struct defocus_fast_focus {
  float in_focus;       /* share of the pixels of radii up to "in_focus", in [0, 1] */
  float radius;         /* px of the image, "percentile" of the map */
  float expected_error; /* px of the image, mean */
} defocus_fast_focus;

/* One frame's answer without a map of full size. The library alone makes it: later versions may have more at its end.
 */
typedef struct defocus_fast_focus_map {
  defocus_fast_focus frame;
  int rows, columns;
  const defocus_fast_focus* regions; /* (rows, columns) */
  int height, width, scale;          /* of the map at reduced size; its pixels stand for scale x scale px */
  const float* map;                  /* (height, width), px of the image */
  const float* expected_error;       /* (height, width), px of the image */
  defocus_fast_video_change change;
} defocus_fast_focus_map;

/* Memory for such answers, used again by every frame. */
typedef struct defocus_fast_focus_result defocus_fast_focus_result;

/* NULL if memory is lacking. */
defocus_fast_focus_result* defocus_fast_focus_result_create(void);
/* NULL is left alone. */
void defocus_fast_focus_result_destroy(defocus_fast_focus_result* result);
/* The last frame's answer; all 0 and NULL before the first and after one that failed. Valid until the result's next
   frame. */
const defocus_fast_focus_map* defocus_fast_focus_result_get(const defocus_fast_focus_result* result);
/* The next frame's focus. INVALID_ARGUMENT also for more rows or columns than the reduced map has pixels. */
defocus_fast_status defocus_fast_video_estimate_focus(defocus_fast_video* video, const defocus_fast_image* image,
                                                      defocus_fast_focus_result* result,
                                                      const defocus_fast_options* options);

/* Reads images of its own, until no later frame allocates memory and it is known what frames take, so that "budget_ms"
   holds from the first one on, which the next frame is. */
defocus_fast_status defocus_fast_video_warm_up(defocus_fast_video* video);
/* The next frame counts as a first one. */
defocus_fast_status defocus_fast_video_reset(defocus_fast_video* video);

#ifdef __cplusplus
}
#endif

#endif
