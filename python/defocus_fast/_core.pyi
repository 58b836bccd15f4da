# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

class Error(RuntimeError):
    """Base of the errors that are not ValueError or TypeError."""

class BackendUnavailable(Error):
    """This machine or build lacks the device, precision or kernels asked for."""

class ModelError(Error):
    """A model folder is missing, incomplete or of another format."""

class BlurMap:
    """One image's answer. Arrays over edges have one entry per edge pixel, in row-major order."""

    @property
    def map(self) -> NDArray[np.float32]:
        """(H, W) radius in px of the disk that blurred each pixel."""
    @property
    def expected_error(self) -> NDArray[np.float32]:
        """(H, W) expected absolute error of the map in px, calibrated on synthetic scenes; (0, 0) if not wanted.

        sqrt(a**2 + (b * s)**2): s is the standard deviation of the mixture of all edges' posteriors that the filter
        brings to the pixel (the model's largest radius where it brings none), a and b belong to the model.
        ``labels="hard"`` leaves it uncalibrated, and it knows nothing of blur beyond the largest radius.
        """
    @property
    def pattern_edges(self) -> NDArray[np.bool_]:
        """(H, W) edges at which the radius was read."""
    @property
    def depth_edges(self) -> NDArray[np.bool_]:
        """(H, W) edges that the map does not cross."""
    @property
    def edges(self) -> NDArray[np.int32]:
        """(n, 2) row and column of every edge pixel."""
    @property
    def depth_probability(self) -> NDArray[np.float32]:
        """(n,) probability that the edge is a depth edge."""
    @property
    def radii(self) -> NDArray[np.float32]:
        """(n,) radius in px, by the estimator's `labels`; at depth edges that of the nearer side."""
    @property
    def radius_std(self) -> NDArray[np.float32]:
        """(n,) standard deviation in px of the blur network's probabilities."""
    @property
    def radius_probability(self) -> NDArray[np.float32]:
        """(n,) probability of the most probable bin."""
    @property
    def bin_probabilities(self) -> NDArray[np.float32]:
        """(n, bins) probability of every radius; (0, 0) unless asked for."""
    @property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds of each stage, in the order in which they run; on a GPU by its own clock, without copies."""

class DeviceMap:
    """Device memory of (H, W) float32 without gaps."""

    @property
    def pointer(self) -> int: ...
    @property
    def gpu(self) -> int: ...
    def to_dlpack(self, versioned: bool) -> object: ...

def from_dlpack(capsule: object, name: str) -> NDArray[Any]:
    """Take the tensor out of a capsule: a description of its memory that owns it."""

class Estimator:
    def __init__(
        self,
        height: int,
        width: int,
        *,
        model: str,
        device: str,
        precision: str,
        evaluation: str,
        num_threads: int,
        kernels: str,
        canny_sigma: float,
        canny_low: float,
        canny_high: float,
        canny_smoothing: NDArray[np.float64],
        psi: float,
        sigma_s: float,
        sigma_r: float,
        guide_sigma_s: float,
        guide_sigma_r: float,
        iterations: int,
        labels: str,
        depth_threshold: float | None,
        edge_stride: int,
        max_edges: int,
        networks: Callable[[str, list[int], int], object],
    ) -> None: ...
    def estimate(
        self, image: NDArray[Any], edges: NDArray[Any] | None, expected_error: bool, bin_probabilities: bool
    ) -> BlurMap: ...
    def estimate_into(self, image: NDArray[Any], out: NDArray[np.float32]) -> None: ...
    def enqueue(
        self,
        image: NDArray[Any],
        out: NDArray[np.float32],
        expected_error: NDArray[np.float32] | None,
        edges: NDArray[Any] | None,
        stream: int,
    ) -> None:
        """Of arrays that describe device memory."""
    def edge_count(self, stream: int) -> tuple[int, int]:
        """Edges found and kept in the last frame enqueued; waits for it."""
    def make_map(self) -> DeviceMap: ...
    def order(self, before: int, after: int) -> None:
        """What is enqueued on the stream `after` from now on waits for what is on `before`."""
    @property
    def gpu(self) -> int: ...
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

def detect_edges(
    image: NDArray[Any],
    sigma: float,
    low: float,
    high: float,
    smoothing: NDArray[np.float64],
    num_threads: int,
    kernels: str,
) -> NDArray[np.bool_]: ...
def domain_transform_filter(
    image: NDArray[Any],
    guide: NDArray[Any],
    sigma_s: float,
    sigma_r: float,
    iterations: int,
    num_threads: int,
    kernels: str,
) -> NDArray[np.float32]: ...
def propagate(
    image: NDArray[Any],
    radii: NDArray[Any],
    pattern_edges: NDArray[Any],
    depth_edges: NDArray[Any],
    psi: float,
    sigma_s: float,
    sigma_r: float,
    guide_sigma_s: float,
    guide_sigma_r: float,
    iterations: int,
    num_threads: int,
    kernels: str,
) -> NDArray[np.float32]: ...
def network_shapes(model: str, height: int, width: int, max_edges: int, evaluation: str) -> dict[str, dict[str, int]]:
    """Sizes of the ONNX files' free dimensions, of the graphs that an estimator on device "cuda" evaluates."""

def available_kernels() -> list[str]: ...
def build_config() -> dict[str, str]: ...
