/* SPDX-License-Identifier: Apache-2.0 */
/* consumer_c MODEL MAP: main.cpp's frame through the C interface, and every status once. */
#define _POSIX_C_SOURCE 200809L
#include <defocus_fast.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                     \
  do                                                                                         \
    if (!(condition)) {                                                                      \
      fprintf(stderr, "%s:%d: not so: %s; last error: %s\n", __FILE__, __LINE__, #condition, \
              defocus_fast_last_error());                                                    \
      exit(1);                                                                               \
    }                                                                                        \
  while (0)
#define FAILS(call, expected, words) CHECK((call) == (expected) && strstr(defocus_fast_last_error(), words))

enum { height = 120, width = 160, pitch = 512 };

static unsigned char frame[height * pitch];
static float map[height][width + 3]; /* padded */

static void fill_frame(void) {
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c) frame[y * pitch + 3 * x + c] = (x / 16 + y / 16) % 2 ? 220 : 40 + 10 * c;
}

static void check_options(defocus_fast_options* options) {
  const defocus_fast_status bad = DEFOCUS_FAST_INVALID_ARGUMENT;
  FAILS(defocus_fast_options_set_text(options, "mode", "fast"), bad, "\"mode\"");
  FAILS(defocus_fast_options_set_number(options, "model", 3), bad, "expected a text or a path, got 3");
  FAILS(defocus_fast_options_set_number(options, "num_threads", 1.5), bad, "an integer in [1, 1024]");
  FAILS(defocus_fast_options_set_number(options, "edge_stride", 17), bad, "in [1, 16], got 17");
  FAILS(defocus_fast_options_set_text(options, "precision", "float8"), bad, "float32, bfloat16");
  FAILS(defocus_fast_options_set_text(options, "canny_sigma", NULL), bad, "got none");
  FAILS(defocus_fast_options_set_text(options, NULL, "x"), bad, "name: expected a pointer");
  FAILS(defocus_fast_options_set_text(NULL, "model", "x"), bad, "options: expected a pointer");
}

static void check_videos(const char* model, const defocus_fast_image* image) {
  const defocus_fast_status bad = DEFOCUS_FAST_INVALID_ARGUMENT;
  defocus_fast_options* options = defocus_fast_options_create();
  CHECK(defocus_fast_options_set_text(options, "model", model) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_options_set_number(options, "frames", 4) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_options_set_number(options, "rows", 3) == DEFOCUS_FAST_OK);
  FAILS(defocus_fast_options_set_number(options, "frames", 0), bad, "frames: expected an integer in [1, 1000], got 0");
  defocus_fast_video* video;
  CHECK(defocus_fast_video_create(height, width, options, &video) == DEFOCUS_FAST_OK);

  /* The first frame's map is that of a single frame, which is in `map`. */
  static float first[height][width];
  const defocus_fast_map out = {first[0], height, width, sizeof first[0]};
  defocus_fast_video_change change;
  CHECK(defocus_fast_video_estimate_into(video, image, &out, NULL, &change) == DEFOCUS_FAST_OK);
  CHECK(change.cut && change.renewed == 1);
  for (int y = 0; y < height; ++y) CHECK(memcmp(map[y], first[y], sizeof first[y]) == 0);
  CHECK(defocus_fast_video_estimate_into(video, image, &out, NULL, NULL) == DEFOCUS_FAST_OK);

  defocus_fast_result* result = defocus_fast_result_create();
  CHECK(defocus_fast_video_estimate(video, image, result, NULL, &change) == DEFOCUS_FAST_OK);
  CHECK(!change.cut && change.renewed == 0 && change.shift_y == 0 && change.shift_x == 0);
  CHECK(defocus_fast_result_get(result)->edges > 0);
  defocus_fast_focus_result* focus = defocus_fast_focus_result_create();
  const defocus_fast_focus_map* found = defocus_fast_focus_result_get(focus);
  CHECK(found->map == NULL && found->rows == 0);
  CHECK(defocus_fast_video_estimate_focus(video, image, focus, options) == DEFOCUS_FAST_OK);
  CHECK(found->rows == 3 && found->columns == 8 && found->scale == 1 << (found->height < height));
  CHECK(found->height == height / found->scale && found->width == width / found->scale);
  for (int i = 0; i < 3 * 8; ++i)
    CHECK(found->regions[i].radius >= 0 && found->regions[i].in_focus >= 0 && found->regions[i].in_focus <= 1);
  CHECK(defocus_fast_options_set_number(options, "rows", height + 1) == DEFOCUS_FAST_OK);
  FAILS(defocus_fast_video_estimate_focus(video, image, focus, options), bad, "rows and columns");
  CHECK(found->map == NULL);

  static const unsigned char edges[height][width];
  CHECK(defocus_fast_options_set_edges(options, edges[0], height, width, width) == DEFOCUS_FAST_OK);
  FAILS(defocus_fast_video_estimate_into(video, image, &out, options, &change), bad, "edges: expected none");
  CHECK(defocus_fast_video_reset(video) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_video_estimate_into(video, image, &out, NULL, &change) == DEFOCUS_FAST_OK && change.cut);
  FAILS(defocus_fast_video_reset(NULL), bad, "video: expected a pointer");
  defocus_fast_focus_result_destroy(focus);
  defocus_fast_focus_result_destroy(NULL);
  defocus_fast_result_destroy(result);
  defocus_fast_video_destroy(video);
  defocus_fast_video_destroy(NULL);
  CHECK(defocus_fast_options_set_edges(options, NULL, 0, 0, 0) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_options_set_text(options, "device", "cuda") == DEFOCUS_FAST_OK);
  FAILS(defocus_fast_video_create(height, width, options, &video), DEFOCUS_FAST_BACKEND_UNAVAILABLE, "videos");
  CHECK(video == NULL);
  defocus_fast_options_destroy(options);
}

static void check_frames(defocus_fast_estimator* estimator, defocus_fast_options* options, const char* map_file) {
  /* Blue comes first in memory; the view starts at red and steps backwards. */
  const defocus_fast_image image = {.data = frame + 2,
                                    .pixel_type = DEFOCUS_FAST_UINT8,
                                    .height = height,
                                    .width = width,
                                    .channels = 3,
                                    .pitch_bytes = pitch,
                                    .pixel_stride_bytes = 3,
                                    .channel_stride_bytes = -1};
  const defocus_fast_map out = {map[0], height, width, sizeof map[0]};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width + 3; ++x) map[y][x] = -1;
  CHECK(defocus_fast_estimate_into(estimator, &image, &out, NULL) == DEFOCUS_FAST_OK);

  defocus_fast_result* result = defocus_fast_result_create();
  const defocus_fast_blur_map* answer = defocus_fast_result_get(result);
  CHECK(answer->map == NULL && answer->edges == 0);
  CHECK(defocus_fast_options_set_number(options, "bin_probabilities", 1) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_estimate(estimator, &image, result, options) == DEFOCUS_FAST_OK);
  CHECK(answer->height == height && answer->width == width && answer->edges > 0);
  for (int y = 0; y < height; ++y) {
    CHECK(memcmp(map[y], answer->map + y * width, width * sizeof(float)) == 0);
    for (int x = width; x < width + 3; ++x) CHECK(map[y][x] == -1);
  }
  FILE* file = fopen(map_file, "wb");
  CHECK(file && fwrite(answer->map, sizeof(float), height * width, file) == height * width && !fclose(file));
  size_t bins, first_octave = 0;
  const float* radii = defocus_fast_estimator_radius_bins(estimator, &bins);
  for (size_t i = 0; i < answer->edges; ++i) {
    const defocus_fast_pixel at = answer->position[i];
    CHECK(at.y >= 0 && at.y < height && at.x >= 0 && at.x < width);
    CHECK(answer->radius[i] >= 0 && answer->radius[i] <= radii[bins - 1] * (float)(1 << answer->octave[i]));
    CHECK(answer->radius_std[i] >= 0 && answer->depth_probability[i] >= 0 && answer->depth_probability[i] <= 1);
    float sum = 0, most = 0;
    for (size_t b = 0; b < bins; ++b) {
      const float p = answer->bin_probabilities[i * bins + b];
      sum += p;
      most = p > most ? p : most;
    }
    CHECK(sum > 0.99f && sum < 1.01f && most == answer->radius_probability[i]);
    if (answer->octave[i] == 0) {
      ++first_octave;
      CHECK(answer->pattern_edges[at.y * width + at.x] + answer->depth_edges[at.y * width + at.x] == 1);
    }
  }
  size_t marked = 0;
  for (int i = 0; i < height * width; ++i) {
    marked += answer->pattern_edges[i] + answer->depth_edges[i];
    CHECK(answer->expected_error[i] >= 0);
  }
  CHECK(marked == first_octave && marked > 0);
  double stages_ms = 0;
  for (int stage = 0; stage < DEFOCUS_FAST_STAGES; ++stage) stages_ms += answer->stage_ms[stage];
  CHECK(stages_ms > 0 && strcmp(defocus_fast_stage_name(DEFOCUS_FAST_PROPAGATE), "propagate") == 0);
  CHECK(defocus_fast_stage_name(DEFOCUS_FAST_STAGES) == NULL);

  check_videos(defocus_fast_estimator_model(estimator), &image);

  CHECK(defocus_fast_options_set_number(options, "expected_error", 0) == DEFOCUS_FAST_OK);
  static unsigned char edges[height][width];
  edges[5][16] = 1;
  CHECK(defocus_fast_options_set_edges(options, edges[0], height, width, sizeof edges[0]) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_estimate(estimator, &image, result, options) == DEFOCUS_FAST_OK);
  CHECK(answer->edges == 1 && answer->position[0].y == 5 && answer->position[0].x == 16 && !answer->expected_error);
  CHECK(defocus_fast_options_set_edges(options, NULL, 0, 0, 0) == DEFOCUS_FAST_OK);

  /* Without strides: red first. */
  unsigned char* red_first = malloc(height * width * 3);
  for (int i = 0; i < height * width * 3; ++i)
    red_first[i] = frame[i / 3 / width * pitch + i / 3 % width * 3 + 2 - i % 3];
  defocus_fast_image plain = {0};
  plain.data = red_first, plain.height = height, plain.width = width, plain.channels = 3, plain.pitch_bytes = 3 * width;
  CHECK(defocus_fast_estimate(estimator, &plain, result, NULL) == DEFOCUS_FAST_OK);
  for (int y = 0; y < height; ++y) CHECK(memcmp(map[y], answer->map + y * width, width * sizeof(float)) == 0);

  const defocus_fast_status bad = DEFOCUS_FAST_INVALID_ARGUMENT;
  const defocus_fast_map narrow = {map[0], height, width - 1, sizeof map[0]}, overlapping = {map[0], height, width, 4};
  FAILS(defocus_fast_estimate_into(estimator, &image, &narrow, NULL), bad, "120 x 160, got 120 x 159");
  FAILS(defocus_fast_estimate_into(estimator, &image, &overlapping, NULL), bad, "overlap");
  FAILS(defocus_fast_estimate_into(estimator, &image, NULL, NULL), bad, "out: expected a pointer");
  FAILS(defocus_fast_estimate_into(NULL, &image, &out, NULL), bad, "estimator: expected a pointer");
  FAILS(defocus_fast_estimate(estimator, NULL, result, NULL), bad, "image: expected a pointer");
  CHECK(answer->map == NULL && answer->edges == 0);
  FAILS(defocus_fast_estimate(estimator, &image, NULL, NULL), bad, "result: expected a pointer");
  for (int i = 0; i < 3; ++i) {
    static const int no_types[] = {-1, 7, 256};
    plain.pixel_type = no_types[i];
    FAILS(defocus_fast_estimate(estimator, &plain, result, NULL), bad, "image: ");
  }
  free(red_first);
  defocus_fast_result_destroy(result);
}

/* Cameras' frames. Grey ones that stand for the same image give the same map, whatever their format. */
static void check_formats(defocus_fast_estimator* estimator) {
  static unsigned char luma[height][width], colours[height / 2][width], blue[height / 2][width / 2],
      yuyv[height][width][2];
  static float expected[height][width];
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) luma[y][x] = yuyv[y][x][0] = frame[y * pitch + 3 * x], yuyv[y][x][1] = 128;
  memset(colours, 128, sizeof colours);
  memset(blue, 128, sizeof blue);
  const defocus_fast_map out = {map[0], height, width, sizeof map[0]};
  const defocus_fast_map plain = {expected[0], height, width, sizeof expected[0]};
  defocus_fast_image image = {.data = luma, .height = height, .width = width, .channels = 1, .pitch_bytes = width};
  CHECK(defocus_fast_estimate_into(estimator, &image, &plain, NULL) == DEFOCUS_FAST_OK);

  const defocus_fast_plane no_plane = {0};
  const struct {
    const char* format;
    defocus_fast_plane planes[3];
  } frames[] = {
      {"gray8", {{luma, width}, no_plane, no_plane}},
      {"nv12", {{luma, width}, {colours, width}, no_plane}},
      {"i420", {{luma, width}, {blue, width / 2}, {colours, width / 2}}},
      {"yuyv", {{yuyv, 2 * width}, no_plane, no_plane}},
  };
  for (size_t i = 0; i < sizeof frames / sizeof frames[0]; ++i) {
    const defocus_fast_image of_camera = {.data = frames[i].planes[0].data,
                                          .height = height,
                                          .width = width,
                                          .pitch_bytes = frames[i].planes[0].pitch_bytes,
                                          .format = frames[i].format,
                                          .more_planes = {frames[i].planes[1], frames[i].planes[2]},
                                          .range = "full",
                                          .matrix = "bt709"};
    CHECK(defocus_fast_estimate_into(estimator, &of_camera, &out, NULL) == DEFOCUS_FAST_OK);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) CHECK(fabsf(map[y][x] - expected[y][x]) < 1e-3f);
  }

  const defocus_fast_status bad = DEFOCUS_FAST_INVALID_ARGUMENT;
  image.format = "gray8";
  FAILS(defocus_fast_estimate_into(estimator, &image, &out, NULL), bad, "channels and strides of 0");
  image.channels = 0;
  image.range = "narrow";
  FAILS(defocus_fast_estimate_into(estimator, &image, &out, NULL), bad, "one of full, limited, got narrow");
  image.range = NULL;
  image.matrix = "bt2020";
  FAILS(defocus_fast_estimate_into(estimator, &image, &out, NULL), bad, "one of bt601, bt709, got bt2020");
  image.matrix = NULL;
  image.format = "nv12";
  FAILS(defocus_fast_estimate_into(estimator, &image, &out, NULL), bad, "planes: 2");
  image.more_planes[0].data = colours;
  FAILS(defocus_fast_estimate_into(estimator, &image, &out, NULL), bad, "a pitch of at least the 160 bytes");
  image.format = "nv16";
  FAILS(defocus_fast_estimate_into(estimator, &image, &out, NULL), bad, "gray8, gray10");
}

static void note_start(int index, void* context) {
  if (index >= 0 && index < 2) ++((int*)context)[index];
}

/* Estimators that share threads; what they answer is compared in C++. */
static void check_thread_pool(const char* model) {
  const defocus_fast_status bad = DEFOCUS_FAST_INVALID_ARGUMENT;
  int started[2] = {0, 0};
  defocus_fast_thread_pool* pool;
  CHECK(defocus_fast_thread_pool_create(3, note_start, started, &pool) == DEFOCUS_FAST_OK);
  CHECK(started[0] == 1 && started[1] == 1 && defocus_fast_thread_pool_num_threads(pool) == 3);
  defocus_fast_options* options = defocus_fast_options_create();
  CHECK(defocus_fast_options_set_text(options, "model", model) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_options_set_thread_pool(options, pool) == DEFOCUS_FAST_OK);
  defocus_fast_thread_pool_destroy(pool); /* what was made with it keeps it */
  defocus_fast_estimator* estimator;
  defocus_fast_video* video;
  CHECK(defocus_fast_estimator_create(height, width, options, &estimator) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_video_create(height, width, options, &video) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_estimator_num_threads(estimator) == 3);
  defocus_fast_video_destroy(video);
  CHECK(defocus_fast_options_set_number(options, "num_threads", 2) == DEFOCUS_FAST_OK);
  FAILS(defocus_fast_video_create(height, width, options, &video), bad, "that of the thread pool, 3, got 2");
  CHECK(defocus_fast_options_set_thread_pool(options, NULL) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_video_create(height, width, options, &video) == DEFOCUS_FAST_OK);
  defocus_fast_video_destroy(video);
  defocus_fast_options_destroy(options);

  static float blur[height][width];
  const defocus_fast_map out = {blur[0], height, width, sizeof blur[0]};
  const defocus_fast_image grey = {
      .data = frame, .height = height, .width = width, .channels = 1, .pitch_bytes = pitch};
  CHECK(defocus_fast_estimate_into(estimator, &grey, &out, NULL) == DEFOCUS_FAST_OK);
  defocus_fast_estimator_destroy(estimator);

  CHECK(defocus_fast_thread_pool_create(0, NULL, NULL, &pool) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_thread_pool_num_threads(pool) >= 1);
  defocus_fast_thread_pool_destroy(pool);
  defocus_fast_thread_pool_destroy(NULL);
  FAILS(defocus_fast_thread_pool_create(-1, NULL, NULL, &pool), bad, "num_threads: expected an integer in [1, 1024]");
  CHECK(pool == NULL);
  FAILS(defocus_fast_thread_pool_create(2, NULL, NULL, NULL), bad, "pool: expected a pointer");
  FAILS(defocus_fast_options_set_thread_pool(NULL, NULL), bad, "options: expected a pointer");
}

/* Of a child that ends with the status that the call had. */
static int status_of(pid_t child) {
  int status;
  CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
  return WEXITSTATUS(status);
}

enum { large = 300 };
static float large_image[large][large], large_map[large][large];
static const defocus_fast_image large_view = {.data = large_image,
                                              .pixel_type = DEFOCUS_FAST_FLOAT32,
                                              .height = large,
                                              .width = large,
                                              .channels = 1,
                                              .pitch_bytes = sizeof large_image[0]};
static const defocus_fast_map large_out = {large_map[0], large, large, sizeof large_map[0]};

static void* estimate_large(void* estimator) {
  CHECK(defocus_fast_estimate_into(estimator, &large_view, &large_out, NULL) == DEFOCUS_FAST_OK);
  return NULL;
}

/* In a process that was forked in the middle of a frame. */
static void check_general_error(const defocus_fast_options* options) {
  for (int y = 0; y < large; ++y)
    for (int x = 0; x < large; ++x) large_image[y][x] = (x / 16 + y / 16) % 2 ? 0.8f : 0.2f;
  defocus_fast_estimator* estimator;
  CHECK(defocus_fast_estimator_create(large, large, options, &estimator) == DEFOCUS_FAST_OK);
  int status = DEFOCUS_FAST_OK;
  for (int attempt = 0; attempt < 20 && status == DEFOCUS_FAST_OK; ++attempt) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, estimate_large, estimator) == 0);
    const struct timespec some = {0, 3000000 * (1 + attempt)};
    nanosleep(&some, NULL);
    const pid_t child = fork();
    if (child == 0) _exit(defocus_fast_estimate_into(estimator, &large_view, &large_out, NULL));
    status = status_of(child);
    CHECK(pthread_join(thread, NULL) == 0);
  }
  CHECK(status == DEFOCUS_FAST_ERROR);
  defocus_fast_estimator_destroy(estimator);
}

static void check_out_of_memory(const defocus_fast_options* options) {
  const pid_t child = fork();
  if (child == 0) {
    const struct rlimit most = {(rlim_t)1 << 28, (rlim_t)1 << 28};
    if (setrlimit(RLIMIT_AS, &most)) _exit(100);
    defocus_fast_estimator* estimator;
    _exit(defocus_fast_estimator_create(20000, 20000, options, &estimator));
  }
  CHECK(status_of(child) == DEFOCUS_FAST_OUT_OF_MEMORY);
}

int main(int argc, char** argv) {
  CHECK(argc == 3);
  CHECK(defocus_fast_abi_version() == DEFOCUS_FAST_ABI_VERSION && strlen(defocus_fast_last_error()) == 0);
  for (int status = DEFOCUS_FAST_OK; status <= DEFOCUS_FAST_OUT_OF_MEMORY; ++status)
    CHECK(strcmp(defocus_fast_status_text(status), "unknown status"));
  CHECK(strcmp(defocus_fast_status_text(DEFOCUS_FAST_OUT_OF_MEMORY + 1), "unknown status") == 0);
  fill_frame();

  defocus_fast_options* options = defocus_fast_options_create();
  check_options(options);
  CHECK(defocus_fast_options_set_text(options, "model", argv[1]) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_options_set_number(options, "num_threads", 2) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_options_set_number(options, "canny_sigma", 1.4142135623730951) == DEFOCUS_FAST_OK);
  defocus_fast_estimator* estimator;
  CHECK(defocus_fast_estimator_create(height, width, options, &estimator) == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_estimator_num_threads(estimator) == 2);
  CHECK(strcmp(defocus_fast_estimator_device(estimator), "cpu") == 0);
  CHECK(strcmp(defocus_fast_estimator_model(estimator), argv[1]) == 0);
  printf("defocus_fast %s through C, %s, %s\n", defocus_fast_version(), defocus_fast_estimator_kernels(estimator),
         defocus_fast_estimator_precision(estimator));
  check_frames(estimator, options, argv[2]);
  check_formats(estimator);
  defocus_fast_estimator_destroy(estimator);
  check_thread_pool(argv[1]);

  FAILS(defocus_fast_estimator_create(height, width, options, NULL), DEFOCUS_FAST_INVALID_ARGUMENT, "estimator: ");
  FAILS(defocus_fast_estimator_create(0, width, options, &estimator), DEFOCUS_FAST_INVALID_ARGUMENT, "size: ");
  CHECK(estimator == NULL);
  CHECK(defocus_fast_options_set_text(options, "device", "cpu") == DEFOCUS_FAST_OK);
  CHECK(defocus_fast_options_set_text(options, "precision", "float16") == DEFOCUS_FAST_OK);
  FAILS(defocus_fast_estimator_create(height, width, options, &estimator), DEFOCUS_FAST_BACKEND_UNAVAILABLE, "float16");
  CHECK(defocus_fast_options_set_text(options, "precision", "auto") == DEFOCUS_FAST_OK);
  check_general_error(options);
  check_out_of_memory(options);
  CHECK(defocus_fast_options_set_text(options, "model", "nobody's") == DEFOCUS_FAST_OK);
  FAILS(defocus_fast_estimator_create(height, width, options, &estimator), DEFOCUS_FAST_MODEL_ERROR, "nobody's");
  defocus_fast_options_destroy(options);
  defocus_fast_options_destroy(NULL);
  defocus_fast_estimator_destroy(NULL);
  defocus_fast_result_destroy(NULL);
  return 0;
}
