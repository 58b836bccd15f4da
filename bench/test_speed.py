# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of record: ``bench/run``. Each group holds one task, done by this library and by others, one after the
other. Rounds fill ``--seconds``; the first call is kept apart. Peers that are not installed are skipped, visibly.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import THREADS
from numpy.typing import NDArray
from PIL import Image

import defocus_fast
from defocus_fast import Estimator, benchmark

ROOT = Path(__file__).parents[1]
MODELS = Path(defocus_fast.__file__).parent / "models"
SIZES = [(360, 360), (480, 640), (720, 1280), (1080, 1920), (3000, 4000)]
HD = (1080, 1920)
BF16 = "bfloat16" if Estimator(1, 1).precision == "bfloat16" else "float32"


class Run:
    """``run(group, call, **facts)`` times call() and returns its last answer; `facts` go into the report."""

    def __init__(self, benchmark: Any, seconds: float) -> None:
        self._benchmark, self._seconds = benchmark, seconds
        self.facts: dict[str, Any] = benchmark.extra_info

    def __call__(self, group: str, call: Callable[[], Any], **facts: Any) -> Any:
        self._benchmark.group = group
        begin = time.perf_counter()
        call()
        first = time.perf_counter()
        call()
        rounds = int(np.clip(self._seconds / (time.perf_counter() - first), 3, 300))
        self.facts.update(facts, threads=THREADS, first_ms=1e3 * (first - begin))
        return self._benchmark.pedantic(call, rounds=rounds)


@pytest.fixture
def run(benchmark: Any, request: pytest.FixtureRequest) -> Run:
    return Run(benchmark, request.config.getoption("--seconds"))


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


# ---- frames


def time_frame(
    run: Run, group: str, frame: NDArray[np.uint8], edges: Any = None, expected_error: bool = True, **options: Any
) -> None:
    estimator = Estimator(*frame.shape[:2], num_threads=THREADS, **options)
    stages: dict[str, list[float]] = {}

    def call() -> Any:
        result = estimator.estimate(frame, edges=edges, expected_error=expected_error)
        for stage, ms in result.stage_ms.items():
            stages.setdefault(stage, []).append(ms)
        return result

    settings = {name: getattr(estimator, name) for name in ("model", "precision", "kernels")}
    result = run(group, call, size=frame.shape[:2], **settings)
    run.facts["edges"] = len(result.edges)
    run.facts["stages"] = {stage: ms[2:] for stage, ms in stages.items()}  # without the first and the trial call


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("model", defocus_fast.shipped_models())
def test_frame(run: Run, model: str, size: tuple[int, int]) -> None:
    time_frame(run, "frame", photo(size), model=model)


@pytest.mark.parametrize("picture", [calm, hostile])
@pytest.mark.parametrize("model", defocus_fast.shipped_models())
def test_other_pictures(run: Run, model: str, picture: Callable[..., Any]) -> None:
    time_frame(run, f"frame, {picture.__name__} picture", picture((720, 1280)), model=model)


@pytest.mark.parametrize("kernels", ["avx512", "avx2"])
@pytest.mark.parametrize(("model", "size"), [("fast", (360, 360)), ("fast", HD), ("tip22", (360, 360))], ids=str)
def test_float32(run: Run, model: str, size: tuple[int, int], kernels: str) -> None:
    if kernels not in defocus_fast.available_kernels():
        pytest.skip(f"this CPU does not run {kernels}")
    time_frame(run, "frame in float32", photo(size), model=model, precision="float32", kernels=kernels)


@pytest.mark.parametrize("threads", range(1, THREADS + 1))
def test_threads(run: Run, threads: int) -> None:
    estimator = Estimator(*HD, model="fast", num_threads=threads)
    run("threads", functools.partial(estimator.estimate, photo(HD)), count=threads)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.03, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("model", defocus_fast.shipped_models())
def test_edge_count(run: Run, model: str, share: float) -> None:
    size = (480, 640)
    edges = np.random.default_rng(0).random(size) < share
    time_frame(run, "edge count", photo(size), edges=edges, model=model, evaluation="auto")


@pytest.mark.parametrize("megapixels", [0.1, 0.3, 1, 3, 10, 40])
def test_size(run: Run, megapixels: float) -> None:
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    time_frame(run, "size", photo((height, round(megapixels * 1e6 / height))), model="fast")


def test_call_overhead(run: Run) -> None:
    """estimate_into on 32x32 pixels without edges, with the sum of the stages' own times beside it."""
    estimator = Estimator(32, 32, model="fast")
    frame, out = np.zeros((32, 32, 3), np.uint8), np.empty((32, 32), np.float32)
    run("32x32 without edges", functools.partial(estimator.estimate_into, frame, out))
    answers = [estimator.estimate(frame, expected_error=False) for _ in range(300)]
    run.facts["stages_us"] = 1e3 * float(np.median([sum(answer.stage_ms.values()) for answer in answers]))


# ---- one picture of 360x360 with given edges: shared features against one network call per patch


REFERENCE = Path(os.environ.get("DEFOCUS_FAST_REFERENCE", ROOT.parent / "shared" / "reference"))


def given() -> tuple[NDArray[np.uint8], NDArray[np.bool_], str]:
    """The picture on which the published program's time is known, with its edges; another where it is not at hand
    (CONTRIBUTING.md says where it is looked for).
    """
    if (REFERENCE / "image_01.png").is_file():
        frame = np.asarray(Image.open(REFERENCE / "image_01.png").convert("RGB"))
        return frame, np.asarray(Image.open(REFERENCE / "edges" / "edge_01.png")) > 0, "reference"
    frame = photo((360, 360))
    return frame, defocus_fast.detect_edges(frame), "photograph"


@pytest.mark.parametrize(("model", "precision", "evaluation"), [
    ("fast", BF16, "auto"), ("tip22", BF16, "shared"), ("tip22", "float32", "shared"),
    ("tip22", BF16, "patch"), ("tip22", "float32", "patch"),
])  # fmt: skip
def test_given_edges(run: Run, model: str, precision: str, evaluation: str) -> None:
    """The patch form is OpenVINO's, in batches of 16 patches."""
    frame, edges, picture = given()
    time_frame(run, "360x360, given edges", frame, edges, model=model, precision=precision, evaluation=evaluation)
    run.facts["picture"] = picture


def test_given_edges_onnxruntime(run: Run) -> None:
    """Both patch networks, batches of 16, on 512 of the edges; the time is scaled to all of them in the report."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    sessions = [
        onnxruntime.InferenceSession(str(MODELS / "tip22" / f"{head}_patch.onnx"), options) for head in ("edge", "blur")
    ]
    _, edges, _ = given()
    crops = {f"crop{n}": np.random.default_rng(0).random((16, 3, n, n), np.float32) for n in (41, 27, 15)}

    def call() -> None:
        for _ in range(512 // 16):
            for session in sessions:
                session.run(None, crops)

    run("360x360, given edges", call, edges=int(edges.sum()), edges_timed=512)


# ---- stages against other libraries


@pytest.fixture(scope="module")
def cv2() -> Any:
    return pytest.importorskip("cv2")


@pytest.mark.parametrize("channels", [3, 1])
def test_canny_opencv(run: Run, cv2: Any, channels: int) -> None:
    """Its fastest form: bytes throughout, of three channels the largest, as ours; of one channel without that."""
    frame = photo(HD)
    grey = frame.max(axis=2)

    def call() -> Any:
        value = cv2.max(cv2.max(frame[..., 0], frame[..., 1]), frame[..., 2]) if channels == 3 else grey
        return cv2.Canny(cv2.GaussianBlur(value, (0, 0), 2**0.5), 0.08 * 255, 0.2 * 255, L2gradient=True)

    run("detect_edges", call)


def test_canny_scikit_image(run: Run) -> None:
    feature = pytest.importorskip("skimage.feature")
    value = photo(HD).max(axis=2)
    run("detect_edges", lambda: feature.canny(value, 2**0.5, low_threshold=0.08, high_threshold=0.2))


def test_propagate_opencv(run: Run, cv2: Any) -> None:
    """The guide and the filter of two signals take three calls of dtFilter."""
    if not hasattr(cv2, "ximgproc"):
        pytest.skip("this OpenCV has no ximgproc")
    frame = photo(HD)
    signals = np.random.default_rng(0).random((2, *HD), np.float32)
    guide = frame.astype(np.float32) / 255

    def call() -> None:
        smooth = cv2.ximgproc.dtFilter(frame, guide, 7.0, 0.5, mode=cv2.ximgproc.DTF_RF, numIters=5)
        for signal in signals:
            cv2.ximgproc.dtFilter(smooth, signal, 135.0, 0.75, mode=cv2.ximgproc.DTF_RF, numIters=5)

    run("propagate", call)


@pytest.mark.parametrize("signals", [2, 3])
def test_propagate(run: Run, signals: int) -> None:
    """The stage of a frame; the third signal is for the expected error."""
    time_frame(run, "propagate", photo(HD), model="fast", expected_error=signals == 3)


# ---- the trunk against dense evaluation by others, and the machine's ceilings


def test_trunk_dense(run: Run) -> None:
    """Every pixel of one tile of 192x192 is an edge: all layers are computed everywhere."""
    edges = np.ones((192, 192), bool)
    time_frame(run, "trunk", photo((192, 192)), edges, model="tip22", evaluation="shared")


def test_cells_dense(run: Run) -> None:
    time_frame(run, "trunk", photo((384, 384)), np.ones((384, 384), bool), model="fast")


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_trunk_openvino(run: Run, precision: str) -> None:
    """The same features of the same tile by OpenVINO."""
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    model = core.read_model(MODELS / "tip22" / "trunk.onnx")
    model.reshape([1, 3, 232, 232])
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    tile = np.random.default_rng(0).random((1, 3, 232, 232), np.float32)
    run("trunk", lambda: request.infer([tile]))


def test_trunk_onnxruntime(run: Run) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(str(MODELS / "tip22" / "trunk.onnx"), options)
    tile = np.random.default_rng(0).random((1, 3, 232, 232), np.float32)
    run("trunk", lambda: session.run(None, {"image": tile}))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_convolution_ceiling(run: Run, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    settings = {"dtype": getattr(torch, dtype)}
    x = torch.rand(1, 256, 96, 96, **settings).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False, **settings).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        run("ceiling", lambda: layer(x), multiply_adds=256 * 256 * 9 * 96 * 96)


def test_copy_ceiling(run: Run) -> None:
    torch = pytest.importorskip("torch")
    source, target = torch.rand(1 << 26), torch.rand(1 << 26)
    run("ceiling", lambda: target.copy_(source), bytes=2 * 4 << 26)
