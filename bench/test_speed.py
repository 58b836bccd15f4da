# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of record: ``bench/run``. A case does one task in one or more ways, by this library and by others, all
of them in turn, round after round: where the machine slows down it slows all of them, and ratios are taken within
rounds. Rounds fill ``--seconds``; the first is kept apart. Peers that are not installed are named in the report.
"""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CASES, THREADS
from numpy.typing import NDArray
from PIL import Image

import defocus_fast
from defocus_fast import BlurMap, Estimator, VideoEstimator, benchmark
from defocus_fast.model_io import import_published_weights, write_model

Call = Callable[[], Any]

ROOT = Path(__file__).parents[1]
MODELS = Path(defocus_fast.__file__).parent / "models"
HD = (1080, 1920)
LARGE_HD = pytest.param(HD, marks=pytest.mark.large)
SIZES = [(360, 360), (480, 640), (720, 1280), LARGE_HD, pytest.param((3000, 4000), marks=pytest.mark.large)]
BF16 = "bfloat16" if Estimator(1, 1).precision == "bfloat16" else "float32"


def has_int8() -> bool:
    try:
        Estimator(1, 1, precision="int8")
    except defocus_fast.BackendUnavailable:
        return False
    return True


PRECISIONS = [
    pytest.param("bfloat16", marks=pytest.mark.skipif(BF16 != "bfloat16", reason="this CPU has no AVX512-BF16")),
    "float32",
]
PAUSE = 0.02  # s; for so long the threads of the library that was called last may spin and take the next one's cores


def digits(value: float) -> float:
    return float(f"{value:.5g}")


class Run:
    """Times the calls of one case; what the report reads of them, in ms, goes into its results with all other facts."""

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self.facts: dict[str, Any] = {"name": name}

    def __call__(
        self,
        group: str,
        calls: Mapping[str, Call],
        peers: Mapping[str, Callable[[], Call]] | None = None,
        *,
        stage: str = "",
        scale: Mapping[str, float] | None = None,
        **facts: Any,
    ) -> dict[str, Any]:
        """Return the first answer of every call by name.

        Args:
            calls: the first is what the others are compared with.
            peers: functions that make further calls, or skip.
            stage: of the first call's frames this stage counts, in place of the whole call.
            scale: factors for the times of calls that do a part of the task only.
        """
        calls, missing = dict(calls), {}
        for name, make in (peers or {}).items():
            try:
                calls[name] = make()
            except pytest.skip.Exception as reason:
                missing[name] = str(reason)
        times: dict[str, list[float]] = {name: [] for name in calls}
        stages: dict[str, list[float]] = {}
        first = next(iter(calls))

        def play() -> dict[str, Any]:
            answers = {}
            for name, call in calls.items():
                if len(calls) > 1:
                    time.sleep(PAUSE)
                begin = time.perf_counter()
                answers[name] = call()
                ms = 1e3 * (time.perf_counter() - begin)
                times[name].append(ms * (scale or {}).get(name, 1))
            if isinstance(answers[first], BlurMap):
                for name, ms in answers[first].stage_ms.items():
                    stages.setdefault(name, []).append(ms)
            return answers

        begin = time.perf_counter()
        answers = play()
        trial = time.perf_counter() - begin
        if short := trial < self._seconds:
            play()
            trial = time.perf_counter() - begin - trial
        # A 99th percentile takes 30 rounds, a 90th 10 (bench/report.py).
        least = next((n for n in (30, 10) if n * trial < 5 * self._seconds), 3) if self._seconds else 1
        rounds = max(least, min(300, int(self._seconds / trial)))
        for _ in range(rounds):
            play()

        cold = 1 + short
        self.first_ms = digits(times[first][0])
        if stage:
            times[first] = stages[stage]
        self.warm = {name: np.array(ms[cold:]) for name, ms in times.items()}
        self.stages = {name: digits(float(np.median(ms[cold:]))) for name, ms in stages.items()}
        medians = {name: digits(float(np.median(ms))) for name, ms in self.warm.items()}
        self.facts |= {"group": group, **facts, "rounds": rounds, "ms": medians}
        ratios = {name: ms / self.warm[first] for name, ms in self.warm.items() if name != first}
        if ratios:
            self.facts["ratio"] = {name: percentiles(ratio, q1=25, median=50, q3=75) for name, ratio in ratios.items()}
        if missing:
            self.facts["missing"] = missing
        CASES.append(self.facts)
        return answers


def percentiles(values: NDArray[np.float64], **shares: float) -> dict[str, float]:
    return {name: digits(float(np.percentile(values, share))) for name, share in shares.items()}


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return Run(request.node.name, request.config.getoption("--seconds"))


@pytest.fixture
def quick(request: pytest.FixtureRequest) -> bool:
    return not request.config.getoption("--seconds")


def photo(size: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle of examples/otters.jpg, mirrored out to size: 11 % of its pixels are edges."""
    return benchmark.of_size(np.asarray(Image.open(ROOT / "examples" / "otters.jpg")), *size)


def calm(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Enlarged fourfold: as many edges per contour, a quarter of the contours."""
    small = Image.fromarray(photo((-(-size[0] // 4), -(-size[1] // 4))))
    return np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))


def hostile(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Noise: every fifth pixel is an edge."""
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


def estimate(frame: NDArray[np.uint8], edges: Any = None, **options: Any) -> Call:
    return functools.partial(Estimator(*frame.shape[:2], num_threads=THREADS, **options).estimate, frame, edges=edges)


# ---- frames


def time_frame(run: Run, group: str, frame: NDArray[np.uint8], edges: Any = None, **options: Any) -> Estimator:
    estimator = Estimator(*frame.shape[:2], num_threads=THREADS, **options)
    call = functools.partial(estimator.estimate, frame, edges=edges)
    answer = run(group, {"frame": call}, model=estimator.model)["frame"]
    run.facts["edges"] = len(answer.edges)
    return estimator


def time_frame_of_record(run: Run, group: str, image: str, frame: NDArray[np.uint8], **options: Any) -> None:
    """With all that the table of frames has."""
    estimator = time_frame(run, group, frame, **options)
    run.facts |= {name: getattr(estimator, name) for name in ("height", "width", "precision", "kernels")}
    run.facts |= {"image": image, "stages": run.stages, "first_ms": run.first_ms}
    run.facts |= percentiles(run.warm["frame"], p90=90, p99=99, max=100)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("model", defocus_fast.shipped_models())
def test_frame(run: Run, model: str, size: tuple[int, int]) -> None:
    time_frame_of_record(run, "frames", "photograph", photo(size), model=model)


@pytest.mark.skipif(not has_int8(), reason="this CPU has no AVX512-VNNI")
@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("fast", (360, 360)),
        ("fast", (480, 640)),
        pytest.param("fast", HD, marks=pytest.mark.large),
        ("tiny", (480, 640)),
        ("tiny", (720, 1280)),
        pytest.param("tiny", HD, marks=pytest.mark.large),
        ("tip22", (360, 360)),
    ],
    ids=str,
)
def test_int8(run: Run, model: str, size: tuple[int, int]) -> None:
    time_frame_of_record(run, "frames", "photograph", photo(size), model=model, precision="int8")


@pytest.mark.parametrize("image", [calm, hostile])
@pytest.mark.parametrize("model", defocus_fast.shipped_models())
def test_other_images(run: Run, model: str, image: Callable[..., Any]) -> None:
    time_frame_of_record(run, "other frames", image.__name__, image((720, 1280)), model=model)


@pytest.mark.parametrize("kernels", ["avx512", "avx2"])
@pytest.mark.parametrize(
    ("model", "size"),
    [("fast", (360, 360)), ("fast", HD), ("tip22", (360, 360)), ("tip22", (480, 640))],
    ids=str,
)
def test_float32(run: Run, model: str, size: tuple[int, int], kernels: str) -> None:
    if kernels not in defocus_fast.available_kernels():
        pytest.skip(f"this CPU does not run {kernels}")
    time_frame_of_record(
        run, "other frames", "photograph", photo(size), model=model, precision="float32", kernels=kernels
    )


def test_threads(run: Run) -> None:
    frame = photo(HD)
    run("threads", {
        str(threads): functools.partial(Estimator(*HD, model="fast", num_threads=threads).estimate, frame)
        for threads in range(1, THREADS + 1)
    })  # fmt: skip


@pytest.mark.parametrize("share", [0.001, 0.01, 0.03, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("model", defocus_fast.shipped_models())
def test_edge_count(run: Run, model: str, share: float) -> None:
    size = (480, 640)
    edges = np.random.default_rng(0).random(size) < share
    time_frame(run, "edge count", photo(size), edges, model=model)


PEAK = """
import re, sys
import numpy as np
from defocus_fast import Estimator

def resident_mb(line):
    return int(re.search(line + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1e3

frame = np.load(sys.argv[1])
before = resident_mb("VmRSS")
Estimator(*frame.shape[:2], model="fast", num_threads=int(sys.argv[2])).estimate(frame)
print(before, resident_mb("VmHWM"))  # getrusage's peak would be that of the parent, if greater
"""


@pytest.mark.parametrize(
    "megapixels", [0.1, 0.3, 1, 3, *(pytest.param(n, marks=pytest.mark.large) for n in (10, 40, 60))]
)
def test_size(run: Run, megapixels: float, tmp_path: Path) -> None:
    """Time, and the memory of a process of its own that makes one frame."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    frame = photo((height, round(megapixels * 1e6 / height)))
    time_frame(run, "size", frame, model="fast")
    run.facts |= {"height": frame.shape[0], "width": frame.shape[1], "stages": run.stages}
    np.save(tmp_path / "frame.npy", frame)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "frame.npy"), str(THREADS)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    run.facts["before_mb"], run.facts["peak_mb"] = (float(number) for number in output.split())


def test_call_overhead(run: Run, tmp_path: Path) -> None:
    """A hundred estimate_into on 32x32 pixels without edges, from C++ (bench/overhead) and from Python."""
    if not (cmake := shutil.which("cmake")):
        pytest.skip("no cmake")
    installed = f"-Ddefocus_fast_DIR={defocus_fast.get_cmake_path()}"
    source, build = str(ROOT / "bench" / "overhead"), str(tmp_path)
    for command in (["-G", "Ninja", "-S", source, "-B", build, installed], ["--build", build]):
        subprocess.run([cmake, *command], check=True, capture_output=True)
    library = ctypes.CDLL(str(tmp_path / "overhead.so"))
    estimator = Estimator(32, 32, model="fast", num_threads=THREADS)
    frame, out = np.zeros((32, 32, 3), np.uint8), np.empty((32, 32), np.float32)

    def from_python() -> None:
        for _ in range(100):
            estimator.estimate_into(frame, out)

    run("overhead", {"C++": functools.partial(library.estimate, THREADS, 100), "Python": from_python})


# ---- the patch networks at given edges: shared features against one evaluation per patch


REFERENCE = Path(os.environ.get("DEFOCUS_FAST_REFERENCE", ROOT.parent / "shared" / "reference"))
# A checkout of github.com/alikaraali/depth-edge-aware-dfe-tip2022, the authors' program (GPL-3.0).
PROGRAM = "DEFOCUS_FAST_PUBLISHED_PROGRAM"
HEADS = ("edge", "blur")


def given(quick: bool) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """An image of 360x360 and its edges: the published program's, or the photograph where that is not at hand
    (CONTRIBUTING.md says where it is looked for).
    """
    if (REFERENCE / "image_01.png").is_file():
        frame = np.asarray(Image.open(REFERENCE / "image_01.png").convert("RGB"))
        edges = np.asarray(Image.open(REFERENCE / "edges" / "edge_01.png")) > 0
    else:
        frame = photo((360, 360))
        edges = defocus_fast.detect_edges(frame)
    if quick:
        edges[50:] = False
    return frame, edges


def crops_of(frame: NDArray[np.uint8], edges: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """The networks' three inputs at every edge, (n, 3, side, side) each."""
    padded = np.pad(frame.astype(np.float32) / np.float32(255), [(20, 20), (20, 20), (0, 0)], mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (41, 41), axis=(0, 1))
    crops = np.ascontiguousarray(windows[np.nonzero(edges)])
    return [crops, *(np.ascontiguousarray(crops[:, :, cut:-cut, cut:-cut]) for cut in (7, 13))]


def in_batches(infers: list[Callable[..., Any]], crops: list[NDArray[np.float32]], batch: int) -> Call:
    """The probabilities of both networks at every edge. The last batch reaches back, so that all are of one size."""
    n = len(crops[0])

    def call() -> list[NDArray[np.float32]]:
        answers = [np.empty((n, outputs), np.float32) for outputs in (2, 23)]
        for start in range(0, n, batch):
            part = slice(min(start, n - batch), min(start + batch, n))
            for infer, answer in zip(infers, answers, strict=True):
                answer[part] = infer([crop[part] for crop in crops])
        return answers

    return call


def onnxruntime_session(graph: str) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    return onnxruntime.InferenceSession(MODELS / "tip22" / f"{graph}.onnx", options, providers=["CPUExecutionProvider"])


def onnxruntime_patches(crops: list[NDArray[np.float32]], batch: int) -> Call:
    infers = []
    for head in HEADS:
        session = onnxruntime_session(f"{head}_patch")
        names = [tensor.name for tensor in session.get_inputs()]
        infers.append(lambda inputs, s=session, names=names: s.run(None, dict(zip(names, inputs, strict=True)))[0])
    return in_batches(infers, crops, batch)


def fastest(make: Callable[[int], Call]) -> int:
    """The batch size with which a call takes the least time, of three."""
    calls = {batch: make(batch) for batch in (1, 16, 64, 256)}
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(3):
        for batch, call in calls.items():
            begin = time.perf_counter()
            call()
            least[batch] = min(least[batch], time.perf_counter() - begin)
    return min(least, key=lambda batch: least[batch])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_given_edges(run: Run, quick: bool, precision: str) -> None:
    """Whole frames of ours against the networks alone, of crops that lie ready, in the best of four batch sizes. ONNX
    Runtime computes in float32 on CPUs.
    """
    frame, edges = given(quick)
    crops = crops_of(frame, edges)
    some = [crop[: 256 if quick else 512] for crop in crops]
    ours, theirs = f"tip22, {precision}", "ONNX Runtime, float32"
    notes = {}

    def onnxruntime_call() -> Call:
        batch = fastest(functools.partial(onnxruntime_patches, some))
        notes[theirs] = f"patches in batches of {batch}; extrapolated from {len(some[0])} of {len(crops[0]):,} edges"
        return onnxruntime_patches(some, batch)

    options: dict[str, Any] = {"model": "tip22", "precision": precision, "evaluation": "shared"}
    answers = run(
        "peers",
        {ours: estimate(frame, edges, **options)},
        {theirs: onnxruntime_call},
        scale={theirs: len(crops[0]) / len(some[0])},
        task=f"360x360, {edges.sum():,} given edges",
        notes=notes,
    )
    del answers[ours]
    expected = Estimator(360, 360, **options | {"precision": "float32"}).estimate(
        frame, edges=edges, bin_probabilities=True
    )
    for depth, bins in answers.values():
        n = len(depth)
        assert ((depth[:, 1] > 0.5) == (expected.depth_probability[:n] > 0.5)).mean() >= 0.98
        assert (bins.argmax(axis=1) == expected.bin_probabilities[:n].argmax(axis=1)).mean() >= 0.98


def import_tensorflow() -> None:
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(THREADS)


def run_program(checkout: str, image: Path, mask: Path) -> NDArray[np.int64]:
    """Classes (n, 2) of E-NET and of B-NET at the edges of the mask. The program writes its map beside the image."""
    os.chdir(checkout)
    sys.path.insert(0, checkout)
    sys.argv = ["BENet.py", "-i", str(image), "-e", str(mask)]
    names = runpy.run_path("BENet.py", run_name="__main__")
    return np.stack([names["pe"], names["pb"]], axis=1)


def published_program(image: Path, masks: list[Path], request: pytest.FixtureRequest) -> Call:
    """All that the authors' program does but its imports, once for each mask of edges, in a process of its own: should
    the machine's memory not do, that one ends, and not the whole run.
    """
    if not (checkout := os.environ.get(PROGRAM)):
        pytest.skip(f"{PROGRAM} is not set: see CONTRIBUTING.md")
    pytest.importorskip("tensorflow")
    process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), import_tensorflow)
    request.addfinalizer(process.shutdown)
    process.submit(os.getpid).result()
    return lambda: np.concatenate([process.submit(run_program, checkout, image, mask).result() for mask in masks])


@pytest.mark.parametrize("model", ["published weights", "fast"])
def test_published_program(run: Run, quick: bool, model: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The program gets a third of the edges at a time: of all 21,406, or half of them, it takes more than 24 GB."""
    frame, edges = given(quick)
    image = tmp_path / "image.png"
    Image.fromarray(frame).save(image)
    masks = []
    for part in np.array_split(np.flatnonzero(edges), 3):
        mask = np.zeros(edges.shape, np.uint8)
        mask.flat[part] = 255
        masks.append(tmp_path / f"edges{len(masks)}.png")
        Image.fromarray(mask).save(masks[-1])
    options: dict[str, Any] = {"model": model}
    if same := model == "published weights":
        if not (REFERENCE / "models").is_dir():
            pytest.skip("the published weights are not at hand: see CONTRIBUTING.md")
        weights = import_published_weights(REFERENCE / "models")
        write_model(tmp_path / "model", weights, name="published", crop_offset=1, trained="")
        options = {"model": tmp_path / "model", "psi": 20, "labels": "hard"}
    ours, theirs = f"{model}, {BF16}", "published program, float32"
    answers = run(
        "peers",
        {ours: estimate(frame, edges, **options)},
        {theirs: lambda: published_program(image, masks, request)},
        task=f"360x360, {edges.sum():,} given edges",
        notes={theirs: "in three runs of a third of the edges"},
        goals={theirs: "100x" if same else "700x"},
    )
    if same and not quick and theirs in answers:  # of few edges fewer may agree
        expected = Estimator(360, 360, **options).estimate(frame, edges=edges, bin_probabilities=True)
        classes = [expected.depth_probability > 0.5, expected.bin_probabilities.argmax(axis=1)]
        agree = (np.stack(classes, axis=1) == answers[theirs]).mean(axis=0)
        assert (agree >= 0.98).all(), agree


# ---- against others: one model against the other, and stages against other libraries


@pytest.mark.parametrize("size", [(360, 360), LARGE_HD], ids=str)
def test_models(run: Run, size: tuple[int, int]) -> None:
    calls = {f"{model}, {BF16}": estimate(photo(size), model=model) for model in ("fast", "tip22")}
    run("peers", calls, task=f"{size[1]}x{size[0]}", goals={f"tip22, {BF16}": "8x"})


@pytest.mark.parametrize("size", [(480, 640), HD], ids=str)
def test_octaves(run: Run, size: tuple[int, int]) -> None:
    """What all octaves cost beside the first alone, which is the paper's method."""
    frame = photo(size)
    calls = {
        name: estimate(frame, octaves=octaves)
        for name, octaves in (("fast, all octaves", None), ("fast, octaves 1", 1))
    }
    run("peers", calls, task=f"{size[1]}x{size[0]}")


def half_blurred(size: tuple[int, int]) -> NDArray[np.uint8]:
    """The photograph, its right half blurred by a disk of 24 px."""
    cv2 = pytest.importorskip("cv2")
    frame, disk = photo(size), np.hypot(*np.mgrid[-24:25, -24:25]) <= 24
    middle = size[1] // 2
    frame[:, middle:] = cv2.filter2D(frame, -1, disk / disk.sum())[:, middle:]
    return frame


def test_half_blurred(run: Run) -> None:
    frame, ours, one = half_blurred(HD), "fast, all octaves", "fast, octaves 1"
    calls = {ours: estimate(frame), one: estimate(frame, octaves=1)}
    run("peers", calls, task="1920x1080, half of it strongly blurred", goals={one: "1x"})


PHOTOS = Path(os.environ.get("DEFOCUS_FAST_PHOTOS", ROOT.parent / "shared" / "photos" / "demo"))


@pytest.mark.parametrize("size", [LARGE_HD, pytest.param((5184, 7776), marks=pytest.mark.large)], ids=str)
@pytest.mark.parametrize("name", ["canyon-wren", "Yellow-Flower"])
def test_mixed_sharpness(run: Run, name: str, size: tuple[int, int]) -> None:
    """A whole frame of a sharp subject before a blurred background, beside the filter calls alone in OpenCV."""
    if not (files := sorted(PHOTOS.glob(f"*{name}*"))):
        pytest.skip(f"no {name} in {PHOTOS} ($DEFOCUS_FAST_PHOTOS)")
    frame = benchmark.of_size(np.asarray(Image.open(files[0]).convert("RGB")), *size)
    edges = defocus_fast.detect_edges(frame)
    radii = np.random.default_rng(0).uniform(0.5, 6, size).astype(np.float32)
    opencv = "OpenCV, three dtFilter, float32"
    run(
        "peers",
        {"fast, all octaves": estimate(frame), "fast, octaves 1": estimate(frame, octaves=1)},
        {opencv: dt_filter_propagate(frame, radii, edges)},
        task=f"{name}, {size[1]}x{size[0]}",
        goals={opencv: "1.5x"},
    )


@pytest.mark.parametrize("size", [(480, 640), (720, 1280)], ids=str)
def test_focus(run: Run, size: tuple[int, int]) -> None:
    """How sharp a grey frame is. What the others tell is one figure, and they have one thread."""
    grey = np.asarray(Image.fromarray(photo(size)).convert("L"))

    def blurdetect_call() -> Call:
        peer = pytest.importorskip("blurdetect")
        return functools.partial(peer.Blurdetect(*size), peer.frame_of(grey))

    def opencv_call() -> Call:
        cv2 = pytest.importorskip("cv2")
        return lambda: cv2.Laplacian(grey, cv2.CV_64F).var()

    run(
        "peers",
        {
            f"estimate_focus, {BF16}, threads: {threads}": functools.partial(
                VideoEstimator(*size, num_threads=threads).estimate_focus, grey
            )
            for threads in sorted({1, THREADS})
        },
        {
            "FFmpeg blurdetect, uint8, threads: 1": blurdetect_call,
            "OpenCV Laplacian and NumPy var, float64, threads: 1": opencv_call,
        },
        task=f"focus of {size[1]}x{size[0]}, 1 channel",
    )


@pytest.mark.skipif(not has_int8(), reason="this CPU has no AVX512-VNNI")
@pytest.mark.parametrize("model", defocus_fast.shipped_models())
def test_precisions(run: Run, model: str) -> None:
    frame = photo((360, 360))
    calls = {f"{model}, {name}": estimate(frame, model=model, precision=name) for name in ("int8", BF16)}
    run("peers", calls, task="360x360")


@pytest.mark.parametrize("channels", [3, 1])
def test_detect_edges(run: Run, channels: int) -> None:
    """OpenCV in its fastest form: bytes throughout, of three channels the largest, as ours. It gives other edges."""
    frame = photo(HD)
    value = frame.max(axis=2)
    ours, scikit_image = "detect_edges, uint8", "scikit-image canny of one channel, float64"
    opencv = "OpenCV max, GaussianBlur, Canny, uint8" if channels == 3 else "OpenCV GaussianBlur, Canny, uint8"

    def opencv_call() -> Call:
        cv2 = pytest.importorskip("cv2")

        def call() -> Any:
            grey = cv2.max(cv2.max(frame[..., 0], frame[..., 1]), frame[..., 2]) if channels == 3 else value
            return cv2.Canny(cv2.GaussianBlur(grey, (0, 0), 2**0.5), 0.08 * 255, 0.2 * 255, L2gradient=True)

        return call

    def scikit_image_call() -> Call:
        feature = pytest.importorskip("skimage.feature")
        return functools.partial(feature.canny, value / 255, 2**0.5, 0.08, 0.2)

    answers = run(
        "peers",
        {ours: functools.partial(defocus_fast.detect_edges, frame if channels == 3 else value, num_threads=THREADS)},
        {opencv: opencv_call, scikit_image: scikit_image_call},
        task=f"edges of 1920x1080, {channels} channel{'s' if channels == 3 else ''}",
        goals={opencv: "2x"},
    )
    if scikit_image in answers:
        np.testing.assert_array_equal(answers[ours], answers[scikit_image])


def dt_filter() -> Callable[..., Any]:
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "ximgproc"):
        pytest.skip("this OpenCV has no ximgproc")
    return functools.partial(cv2.ximgproc.dtFilter, mode=cv2.ximgproc.DTF_RF, numIters=5)


def test_domain_transform_filter(run: Run) -> None:
    guide = photo(HD).astype(np.float32) / 255
    ours, opencv = "domain_transform_filter, float32", "OpenCV dtFilter, float32"
    answers = run(
        "peers",
        {ours: functools.partial(defocus_fast.domain_transform_filter, guide, guide, num_threads=THREADS)},
        {opencv: lambda: functools.partial(dt_filter(), guide, guide, 7.0, 0.5)},
        task="filter of 1920x1080, 3 channels",
    )
    if opencv in answers:
        np.testing.assert_allclose(answers[ours], answers[opencv], rtol=0, atol=2e-6)  # as in tests/tolerances.py


def dt_filter_propagate(
    frame: NDArray[np.uint8], radii: NDArray[np.float32], edges: NDArray[np.bool_]
) -> Callable[[], Call]:
    """The guide, and both signals along it."""

    def make() -> Call:
        cv2, dt = pytest.importorskip("cv2"), dt_filter()
        guide = frame.astype(np.float32) / 255
        known = edges.astype(np.float32)

        def call() -> Any:
            smooth = dt(guide, guide, 7.0, 0.5)
            sums = dt(smooth, cv2.multiply(radii, known), 135.0, 0.75)
            return cv2.divide(sums, dt(smooth, known, 135.0, 0.75))

        return call

    return make


def test_propagate(run: Run) -> None:
    """No depth edges: dtFilter has none."""
    frame, none = photo(HD), np.zeros(HD, bool)
    edges = defocus_fast.detect_edges(frame)
    radii = np.random.default_rng(0).uniform(0.5, 6, HD).astype(np.float32)
    ours, opencv = "propagate, float32", "OpenCV, three dtFilter, float32"
    call = functools.partial(defocus_fast.propagate, frame, radii, edges, none, sigma_r=0.75, num_threads=THREADS)
    task = "map of 1920x1080 from its edges"
    answers = run("peers", {ours: call}, {opencv: dt_filter_propagate(frame, radii, edges)}, task=task)
    if opencv in answers:
        np.testing.assert_allclose(answers[ours], answers[opencv], rtol=0, atol=2e-5)  # as in tests/tolerances.py


def test_propagate_in_a_frame(run: Run) -> None:
    """The same as the stage of a frame, whose memory is there already."""
    frame = photo(HD)
    estimator = Estimator(*HD, octaves=1, sigma_r=0.75, iterations=5, num_threads=THREADS)
    call = functools.partial(estimator.estimate, frame, expected_error=False)
    known = call()
    radii, edges = np.zeros(HD, np.float32), known.pattern_edges
    radii[tuple(known.edges.T)] = known.radii
    opencv = "OpenCV, three dtFilter, float32"
    run(
        "peers",
        {"propagate in a frame, float32": call},
        {opencv: dt_filter_propagate(frame, radii, edges)},
        stage="propagate",
        task="map of 1920x1080 from its edges",
        goals={opencv: "4x"},
    )


# ---- the features of both networks at every pixel, and the machine's ceilings


def trunk_multiply_adds(model: str, side: int, width: int = 64) -> int:
    """Of the convolutions as defined, where cpp/src/tip22.hpp and cells.hpp compute them for a tile of
    which every pixel is an edge."""

    def layer(reach: int, inputs: int, taps: int) -> int:
        return (side + 2 * reach) ** 2 * inputs * taps * width

    if model == "fast":
        side //= 3
        return layer(6, 28, 9) + sum(layer(reach, width, 9) for reach in range(6))
    pooled = layer(19, 4, 9) + sum(layer(reach, width, 9) for reach in (15, 12, 9))
    branch2 = layer(12, 4, 9) + layer(11, width, 9) + layer(10, width, 9) + layer(9, width, 1)
    branch3 = layer(6, 4, 9) + sum(layer(reach, width, 9) for reach in (5, 4, 3))
    return 2 * pooled + branch2 + branch3 + 2 * layer(2, width, 9) + layer(6, 2 * width, 9) + layer(6, 3 * width, 9)


def dense(model: str, side: int, precision: str) -> Call:
    """Frames of which every pixel is an edge: all layers are computed everywhere."""
    size = (side, side)
    return estimate(photo(size), np.ones(size, bool), model=model, precision=precision, evaluation="shared")


def torch_trunk(precision: str, tile: NDArray[np.float32]) -> Call:
    """tip22's trunk.onnx, channels last."""
    onnx, torch = pytest.importorskip("onnx"), pytest.importorskip("torch")

    def tensor(values: NDArray[np.float32]) -> Any:
        return torch.tensor(values, dtype=getattr(torch, precision)).to(memory_format=torch.channels_last)

    graph = onnx.load(MODELS / "tip22" / "trunk.onnx").graph
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    known = {"image": tensor(tile)} | {name: tensor(values) for name, values in constants.items() if values.ndim == 4}

    def call() -> list[Any]:
        values = dict(known)
        for node in graph.node:
            settings = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            inputs = [values[name] for name in node.input if name in values]
            if node.op_type == "Conv":
                answer = torch.nn.functional.conv2d(*inputs, dilation=settings["dilations"])
            elif node.op_type == "Relu":
                answer = torch.relu_(inputs[0])
            elif node.op_type == "MaxPool":
                answer = torch.nn.functional.max_pool2d(*inputs, settings["kernel_shape"], stride=1)
            elif node.op_type == "Concat":
                answer = torch.cat(inputs, 1)
            else:  # Slice
                start, end = (int(constants[name][0]) for name in node.input[1:3])
                answer = inputs[0][:, :, start:end, start:end]
            values[node.output[0]] = answer
        return [values[item.name] for item in graph.output]

    inference: Call = torch.inference_mode()(call)
    return inference


@pytest.mark.parametrize("precision", PRECISIONS)
def test_trunk(run: Run, precision: str) -> None:
    """The same features of the same tile; those of ours are not given out, but the others' must agree. ONNX Runtime
    computes in float32 on CPUs.
    """
    side, margin = 192, 20
    padding = [(margin, margin), (margin, margin), (0, 0)]
    tile = np.pad(photo((side, side)).astype(np.float32) / 255, padding, mode="symmetric").transpose(2, 0, 1)[None]
    tile = np.ascontiguousarray(tile)

    def onnxruntime_call() -> Call:
        return functools.partial(onnxruntime_session("trunk").run, None, {"image": tile})

    peers = {
        "ONNX Runtime, float32": onnxruntime_call,
        f"PyTorch, {precision}": lambda: torch_trunk(precision, tile),
    }
    ours = f"tip22, {precision}"
    task = f"features at every pixel of {side}x{side}"
    answers = run("peers", {ours: dense("tip22", side, precision)}, peers, stage="extract_features", task=task)
    del answers[ours]
    tolerance = 1e-4 if precision == "float32" else 0.05  # of the largest feature; bfloat16 keeps 8 bits in each layer
    first, *others = answers.values()
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            theirs = theirs.float().numpy()
            np.testing.assert_allclose(theirs, mine, rtol=0, atol=tolerance * np.abs(mine).max())


def torch_convolution(precision: str, channels: int, side: int) -> Call:
    torch = pytest.importorskip("torch")
    settings = {"dtype": getattr(torch, precision)}
    image = torch.rand(1, channels, side, side, **settings).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False, **settings)
    call: Call = torch.inference_mode()(functools.partial(layer.to(memory_format=torch.channels_last), image))
    return call


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("model", "side"), [("tip22", 192), ("fast", 384)])
def test_convolution_ceiling(run: Run, model: str, side: int, precision: str) -> None:
    """Convolutions of equal work. PyTorch's own, without oneDNN, are ten times slower: left out."""
    ours = f"{model}, {precision}, features at every pixel of {side}x{side}"
    work = {ours: 2e-9 * trunk_multiply_adds(model, side)}
    peers = {}
    for channels in (64, 128, 256, 512):
        width = 96 * 256 // channels
        name = f"PyTorch (oneDNN), {precision}, convolution {channels} -> {channels}, 3x3"
        work[name] = 2e-9 * 9 * (channels * width) ** 2
        peers[name] = functools.partial(torch_convolution, precision, channels, width)
    call = dense(model, side, precision)
    run("ceiling", {ours: call}, peers, stage="extract_features", work=work, unit="GFLOP")


def test_copy_ceiling(run: Run) -> None:
    """Bytes of the passes alone: in each of the 2 x 5 of both filters, the coefficients and every signal are read and
    written.
    """
    copy = "PyTorch, copy of 256 MiB"

    def copy_call() -> Call:
        torch = pytest.importorskip("torch")
        source, target = torch.rand(1 << 26), torch.rand(1 << 26)
        return functools.partial(target.copy_, source)

    ours = "propagate, two signals, 1920x1080"
    call = functools.partial(Estimator(*HD, num_threads=THREADS).estimate, photo(HD), expected_error=False)
    work = {ours: 1e-9 * 10 * 2 * 4 * HD[0] * HD[1] * ((1 + 3) + (1 + 2)), copy: 1e-9 * 2 * (4 << 26)}
    run("ceiling", {ours: call}, {copy: copy_call}, stage="propagate", work=work, unit="GB")
