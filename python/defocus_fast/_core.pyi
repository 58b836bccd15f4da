# SPDX-License-Identifier: Apache-2.0
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal, TypedDict, type_check_only

import numpy as np
from numpy.typing import NDArray

class Error(RuntimeError): ...
class BackendUnavailable(Error): ...
class ModelError(Error): ...

# ---- the table of options, cpp/include/defocus_fast/options.hpp, as types; tests/test_options.py compares

@type_check_only
class ThreadPoolOptions(TypedDict, total=False):
    num_threads: int | None

@type_check_only
class RunningOptions(ThreadPoolOptions, total=False):
    kernels: str

@type_check_only
class PropagateOptions(RunningOptions, total=False):
    guide_sigma_s: float
    guide_sigma_r: float
    psi: float | None
    sigma_s: float | None
    sigma_r: float | None
    iterations: int | None

@type_check_only
class EstimatorOptions(PropagateOptions, total=False):
    model: str | os.PathLike[str]
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"]
    evaluation: Literal["shared", "patch"]
    labels: Literal["posterior", "hard"]
    depth_threshold: float | None
    octaves: int | None
    fine_thresholds: float | None
    distances: Literal["auto", "learned", "domain_transform"]
    grid: Literal["auto", "anchored", "corner"]
    max_edges: int | None
    networks: Callable[[str, list[int], int], object] | None
    canny_sigma: float
    canny_low: float
    canny_high: float

@type_check_only
class VideoEstimatorOptions(EstimatorOptions, total=False):
    frames: int
    budget_ms: float | None

@type_check_only
class StrideOptions(TypedDict, total=False):
    edge_stride: int

@type_check_only
class FocusOptions(StrideOptions, total=False):
    rows: int
    columns: int
    in_focus: float
    percentile: float

@type_check_only
class FrameOptions(StrideOptions, total=False):
    expected_error: bool
    bin_probabilities: bool

@type_check_only
class CannyOptions(RunningOptions, total=False):
    sigma: float
    low: float
    high: float

@type_check_only
class FilterOptions(RunningOptions, total=False):
    sigma_s: float
    sigma_r: float
    iterations: int

def option_table(call: str, /) -> list[SimpleNamespace]:
    """Return the options of "Estimator", "estimate" or another call that takes any as keyword arguments.

    Their attributes are members of OptionInfo: name, kind, optional, default, minimum, maximum, names, text, nothing;
    and `expected`, type and range as messages have it.
    """

def frame_options(**options: Any) -> dict[str, Any]:
    """Check the options of "estimate" and fill in defaults."""

class DeviceMap:
    """Device memory of (H, W) float32 without gaps."""

    @property
    def pointer(self) -> int: ...
    @property
    def gpu(self) -> int: ...
    def to_dlpack(self, versioned: bool, /) -> object: ...

def from_dlpack(capsule: object, name: str, /) -> NDArray[Any]:
    """Take the tensor out of a capsule: a description of its memory that owns it."""

class Frame:
    def __init__(self, format: str, planes: list[NDArray[Any]], range: str | None, matrix: str, /) -> None: ...
    @property
    def shape(self) -> tuple[int, int]: ...

class ThreadPool:
    def __init__(self, on_start: Callable[[int], object] | None, /, **options: Any) -> None: ...
    @property
    def num_threads(self) -> int: ...

@type_check_only
class _Sized:
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def num_threads(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def kernels(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def radius_bins(self) -> list[float]: ...

class Estimator(_Sized):
    def __init__(self, height: int, width: int, pool: ThreadPool | None, /, **options: Any) -> None: ...
    def estimate(self, image: NDArray[Any] | Frame, edges: NDArray[Any] | None, /, **options: Any) -> dict[str, Any]:
        """Return the fields of BlurMap."""
    def estimate_into(
        self, image: NDArray[Any] | Frame, out: NDArray[np.float32], edges: NDArray[Any] | None, /, **options: Any
    ) -> None: ...
    def enqueue(
        self,
        image: NDArray[Any] | Frame,
        out: NDArray[np.float32],
        expected_error: NDArray[np.float32] | None,
        edges: NDArray[Any] | None,
        stream: int,
        /,
        **options: Any,
    ) -> None:
        """Of arrays that describe device memory."""
    def edge_count(self, stream: int, /) -> tuple[int, int]:
        """Edges found and kept in the last frame enqueued; waits for it."""
    def make_map(self) -> DeviceMap: ...
    def order(self, before: int, after: int, /) -> None:
        """What is enqueued on the stream `after` from now on waits for what is on `before`."""
    @property
    def gpu(self) -> int: ...

class VideoEstimator(_Sized):
    def __init__(self, height: int, width: int, pool: ThreadPool | None, /, **options: Any) -> None: ...
    def estimate(self, image: NDArray[Any] | Frame, /, **options: Any) -> dict[str, Any]:
        """Return the fields of BlurMap and of VideoChange."""
    def estimate_into(self, image: NDArray[Any] | Frame, out: NDArray[np.float32], /, **options: Any) -> dict[str, Any]:
        """Return the fields of _video.VideoChange."""
    def estimate_focus(self, image: NDArray[Any] | Frame, /, **options: Any) -> dict[str, Any]:
        """Return the fields of _video.FocusMap."""
    def warm_up(self) -> None: ...
    def reset(self) -> None: ...

def detect_edges(image: NDArray[Any] | Frame, /, **options: Any) -> NDArray[np.bool_]: ...
def domain_transform_filter(image: NDArray[Any], guide: NDArray[Any], /, **options: Any) -> NDArray[np.float32]: ...
def propagate(
    image: NDArray[Any] | Frame,
    radii: NDArray[Any],
    pattern_edges: NDArray[Any],
    depth_edges: NDArray[Any],
    /,
    **options: Any,
) -> NDArray[np.float32]: ...
def network_shapes(
    model: str, height: int, width: int, max_edges: int | None, evaluation: str, /
) -> dict[str, dict[str, int]]:
    """Sizes of the ONNX files' free dimensions, of the graphs that an estimator on device "cuda" evaluates."""

def load_numpy() -> None:
    """Load what the core needs of NumPy; to be called before the core is given arrays."""

def available_kernels() -> list[str]: ...
def build_config() -> dict[str, str]: ...
