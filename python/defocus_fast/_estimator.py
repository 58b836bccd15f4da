# SPDX-License-Identifier: Apache-2.0
"""The public calls: arguments by name with their defaults and documentation; all work is done in the core."""

from __future__ import annotations

import numbers
import os
import threading
from collections.abc import Callable
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from . import _core, _tensorrt
from ._core import BlurMap
from ._device import DeviceArray, DeviceBlurMap, describe, on_device, stream_handle
from ._device import shape as device_shape


def _as_array(image: Any, name: str) -> NDArray[Any]:
    """View `image` as a NumPy array without a copy, or raise TypeError."""
    if isinstance(image, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without a mask, got a masked one: the pixels behind a mask count")
    if isinstance(image, np.ndarray):
        return image
    if on_device(image):
        reason = "Estimator(..., device='cuda') takes it, or tells what is missing for that"
        raise TypeError(
            f"{name}: expected an array in host memory, got {type(image).__name__}, which is on a device: {reason}"
        )
    if hasattr(image, "__dlpack__"):
        try:
            return np.from_dlpack(image)
        except (BufferError, RuntimeError) as error:
            raise TypeError(f"{name}: expected an array in host memory, got {type(image).__name__}: {error}") from None
    if hasattr(image, "__array_interface__"):
        return np.asarray(image)
    accepted = "a NumPy array or an object with __dlpack__ or __array_interface__"
    raise TypeError(f"{name}: expected {accepted}, got {type(image).__name__}")


class Estimator:
    """Estimates blur maps of images of one size.

    Everything that a frame needs is made here: networks compiled for this size, threads, buffers. One estimator may be
    shared by many Python threads; their calls run one after the other, each on all of the estimator's threads, with
    the GIL released. It cannot be pickled: make one in every process. Memory: 22 bytes a pixel for as long as it lives,
    6 more in each result, and 4 with the expected error; 24 an edge; and at most 300 MB for the networks.

    Args:
        height, width: size of the images in px; at most 2**31 - 1 pixels.
        model: name of a shipped model (:func:`shipped_models`) or a model folder: a path object, or a text with a "/".
        device: "cpu", "cuda", or "auto", which takes a GPU only if everything that it needs is there.
        precision: of the networks: "float32", "bfloat16" (CPU), "float16" (GPU), or "auto": bfloat16 where the CPU has
            AVX512-BF16, else float32. "int8" (CPUs with AVX512-VNNI) computes the features that all edges share in
            integers: faster than float32, about as fast as bfloat16, at a cost in accuracy that ACCURACY.md states for
            the shipped models.
        evaluation: "shared" (features once per image), "patch" (three crops per edge through the whole networks,
            as in the paper; not of models of the architecture "cells", such as "fast"), or "auto", which takes
            whichever costs fewer operations in each part of the image, and on device "cuda" "shared". There
            "patch" keeps no features, but evaluates whole networks for all of max_edges.
        num_threads: threads of this estimator; None means all cores.
        kernels: instruction set of this library's own loops, one of :func:`available_kernels`, or "auto".
        canny_sigma, canny_low, canny_high: of the edge detector, see :func:`detect_edges`.
        labels: what the probabilities of the radii at an edge become before they are spread: "posterior", their mean,
            weighted by (1 - depth probability) / (0.15 px + their standard deviation)**2, at depth edges (whose blur is
            that of the nearer side) by 0.02 in place of 1 - depth probability; or "hard", the most probable bin with
            weight 1, at pattern edges only, as in the paper.
        depth_threshold: edges of a higher depth probability are depth edges; in [0, 1]. At 1 no edge is, and the
            edge network does not run. None means 0.5 for hard labels, as in the paper, and what the model was tuned
            to for posterior ones.
        sigma_r, iterations: > 0, and in [1, 16], see :func:`propagate`; None means 3.75 and 5 for hard labels, as in
            the paper, and 0.5 and 3 for posterior ones, which more iterations do not make more accurate.
        psi, sigma_s, guide_sigma_s, guide_sigma_r: see :func:`propagate`.
        edge_stride: in [1, 16]: the networks are asked only about edges whose row and column are multiples of it, and
            the others do not count as edges: less time and less accuracy, see ACCURACY.md for both models.
        max_edges: device "cuda" only: edges for which there is memory, and for which networks are evaluated; None means
            a quarter of the pixels, but at least 4096; photographs seldom have more, noise may have a third. A frame
            with more raises :class:`Error`; in device memory, where nobody waits for the number, the last ones, at the
            bottom of the image, are left out, see :meth:`edge_count`.
        networks: device "cuda" only: enqueues one evaluation of a graph of the model folder, called as
            ``networks(graph, tensors, stream)`` with the graph's name, the pointers of its inputs and outputs in device
            memory and the CUDA stream, see defocus_fast/networks.hpp. None means TensorRT or TensorRT-RTX, whichever is
            installed (``pip install "defocus_fast[cuda]"``). The first estimator of a size builds their engines, which
            are kept in $DEFOCUS_FAST_CACHE, or ~/.cache/defocus_fast: TensorRT-RTX takes seconds, TensorRT minutes,
            and the logger "defocus_fast" tells.

    Raises:
        TypeError, ValueError: an argument is of another type, or out of range.
        BackendUnavailable: this machine or build lacks the device, precision or kernels asked for.
        ModelError: the model folder is missing, incomplete or of another format.
        Error: device "cuda" or "auto": TensorRT is there, but failed.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        model: str | os.PathLike[str] = "fast",
        device: Literal["auto", "cpu", "cuda"] = "auto",
        precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto",
        evaluation: Literal["shared", "patch"] = "shared",
        num_threads: int | None = None,
        kernels: str = "auto",
        canny_sigma: float = 2**0.5,
        canny_low: float = 0.08,
        canny_high: float = 0.20,
        labels: Literal["posterior", "hard"] = "posterior",
        depth_threshold: float | None = None,
        psi: float = 100.0,
        sigma_s: float | None = None,
        sigma_r: float | None = None,
        guide_sigma_s: float = 7.0,
        guide_sigma_r: float = 0.5,
        iterations: int | None = None,
        max_edges: int | None = None,
        networks: Callable[[str, list[int], int], object] | None = None,
    ) -> None:
        self._core = _core.Estimator(
            _integer("height", height),
            _integer("width", width),
            # The core takes a text for a folder if it has a "/" in it; a path is always one.
            model=model if isinstance(model, str) else os.path.join(os.curdir, _path("model", model)),
            device=_text("device", device),
            precision=_text("precision", precision),
            evaluation=_text("evaluation", evaluation),
            num_threads=_threads(num_threads) or None,
            kernels=_text("kernels", kernels),
            canny_sigma=_number("canny_sigma", canny_sigma),
            canny_low=_number("canny_low", canny_low),
            canny_high=_number("canny_high", canny_high),
            canny_smoothing=_gaussian(canny_sigma),
            labels=_text("labels", labels),
            depth_threshold=None if depth_threshold is None else _number("depth_threshold", depth_threshold),
            psi=_number("psi", psi),
            sigma_s=_default_to_zero("sigma_s", sigma_s),
            sigma_r=_default_to_zero("sigma_r", sigma_r),
            guide_sigma_s=_number("guide_sigma_s", guide_sigma_s),
            guide_sigma_r=_number("guide_sigma_r", guide_sigma_r),
            iterations=_count_or_zero("iterations", iterations),
            max_edges=_count_or_zero("max_edges", max_edges),
            networks=_networks(networks),
        )
        self._enqueueing = threading.RLock()  # the core refuses calls from within its own

    @classmethod
    def for_image(cls, image: Any, **options: Any) -> Estimator:
        """Make an estimator for images of the size of `image`; `options` as for the constructor."""
        size = device_shape(image) if on_device(image) else _as_array(image, "image").shape
        if len(size) not in (2, 3):
            raise ValueError(f"image: expected shape (H, W) or (H, W, 3), got {size}")
        return cls(size[0], size[1], **options)

    @overload
    def estimate(
        self,
        image: NDArray[Any],
        *,
        edges: Any = None,
        edge_stride: int = 1,
        expected_error: bool = True,
        bin_probabilities: bool = False,
    ) -> BlurMap: ...
    @overload
    def estimate(
        self,
        image: Any,
        *,
        edges: Any = None,
        edge_stride: int = 1,
        expected_error: bool = True,
        bin_probabilities: bool = False,
        stream: Any = None,
    ) -> BlurMap | DeviceBlurMap: ...
    def estimate(
        self,
        image: Any,
        *,
        edges: Any = None,
        edge_stride: int = 1,
        expected_error: bool = True,
        bin_probabilities: bool = False,
        stream: Any = None,
    ) -> BlurMap | DeviceBlurMap:
        """Return the blur map of `image` with everything that was found on the way.

        Args:
            image: (H, W) or (H, W, 3) uint8, or float32 in [0, 1]; any strides; not copied. In host memory, or on
                device "cuda" in the GPU's, see Notes.
            edges: (H, W) bool or uint8 mask of edge pixels to use in place of the edge detector's; where `image` is.
            expected_error: also estimate the map's error at every pixel (4 bytes a pixel, and a third signal to
                spread).
            bin_probabilities: keep the blur network's probability of every radius (4 bytes a bin and edge).
            stream: for an image in device memory: the CUDA stream to work on, as a handle or any object with
                ``__cuda_stream__``, ``ptr`` (CuPy), ``cuda_stream`` (PyTorch) or ``handle`` (PyCUDA). None means the
                legacy default stream.

        Returns:
            A :class:`BlurMap`; its arrays are views of its own memory, which no later call touches. An image
            without edges has a map of 0, and with ``labels="hard"`` one without pattern edges; pixels that no edge
            reaches get the edges' mean radius.
            For an image in device memory a :class:`DeviceBlurMap`.

        Raises:
            TypeError: not an array, not of these dtypes, or not where it is expected.
            ValueError: another shape than the estimator's, or float values that are not in [0, 1].

        Notes:
            Arrays in device memory are those of CuPy, PyTorch, Numba, PyCUDA and others that have ``__dlpack__`` or
            ``__cuda_array_interface__``. They are used in place and in stream order: after what their producer has
            enqueued so far; the call returns while the GPU works. Until `stream` has done the frame, nobody may change
            or reuse them; the estimator keeps them until its next frame, or until it is gone. Frames of one
            estimator follow each other whatever their streams. Values of float images are not checked, and edges
            beyond max_edges are left out: :meth:`edge_count` tells. The result's memory is allocated, and freed
            with it, which waits for the device: :meth:`estimate_into` does neither. The launches of a frame with the
            same arrays as one of the 16 last are replayed as a CUDA graph: give the same few arrays again and again.
        """
        if self.device == "cpu" or not on_device(image):
            array = _as_array(image, "image")
            mask = None if edges is None else _as_array(edges, "edges")
            _no_stream(stream)
            return self._core.estimate(array, mask, _integer("edge_stride", edge_stride), expected_error, bin_probabilities)
        if bin_probabilities:
            raise ValueError("bin_probabilities: expected False for an image in device memory, got True")
        error = DeviceArray(self._core, stream) if expected_error else None
        result = DeviceBlurMap(DeviceArray(self._core, stream), error)
        self._enqueue(stream_handle(stream), image, result.map, error, edges, _integer("edge_stride", edge_stride))
        return result

    @overload
    def estimate_into(self, image: NDArray[Any], out: NDArray[np.float32]) -> NDArray[np.float32]: ...
    @overload
    def estimate_into(self, image: Any, out: Any, *, stream: Any = None) -> Any: ...
    def estimate_into(self, image: Any, out: Any, *, stream: Any = None) -> Any:
        """Write the blur map of `image` into `out`, (H, W) float32 in px, and return `out`.

        No buffer is made after the first call. Errors, arrays in device memory and `stream` as in :meth:`estimate`;
        `out` is where `image` is. It may have any strides, but its pixels must not overlap, and must be writeable.
        """
        if self.device == "cpu" or not on_device(image):
            array = _as_array(image, "image")
            if not isinstance(out, np.ndarray):
                raise TypeError(f"out: expected a NumPy array, as `image` is in host memory, got {type(out).__name__}")
            _no_stream(stream)
            self._core.estimate_into(array, out)
        else:
            self._enqueue(stream_handle(stream), image, out)
        return out

    def _enqueue(self, stream: int, image: Any, out: Any, expected_error: Any = None, edges: Any = None, edge_stride: int = 1) -> None:
        def described(array: Any, name: str) -> NDArray[Any]:
            return describe(array, name, stream, self._core)

        frame = (
            described(image, "image"),
            described(out, "out"),
            None if expected_error is None else described(expected_error, "expected_error"),
            None if edges is None else described(edges, "edges"),
        )
        with self._enqueueing:
            self._core.enqueue(*frame, edge_stride, stream)
            self._in_flight = frame

    def edge_count(self, stream: Any = None) -> tuple[int, int]:
        """Wait for the last frame of images in device memory; return its number of edges, and of those not left out.

        They differ if there were more than max_edges, which :meth:`estimate` and :meth:`estimate_into` cannot tell
        without waiting. `stream` as in :meth:`estimate`: what is enqueued on it is waited for, too.

        Raises:
            BackendUnavailable: the estimator's device is "cpu".
        """
        return self._core.edge_count(stream_handle(stream))

    @property
    def height(self) -> int:
        """Height of the images in px."""
        return self._core.height

    @property
    def width(self) -> int:
        """Width of the images in px."""
        return self._core.width

    @property
    def num_threads(self) -> int:
        """Threads that a call runs on."""
        return self._core.num_threads

    @property
    def device(self) -> str:
        """The device that "auto" became: "cpu" or "cuda"."""
        return self._core.device

    @property
    def precision(self) -> str:
        """What "auto" became, or the one asked for."""
        return self._core.precision

    @property
    def kernels(self) -> str:
        """What "auto" became, one of :func:`available_kernels`."""
        return self._core.kernels

    @property
    def model(self) -> str:
        """Name that is stored in the model folder."""
        return self._core.model

    @property
    def radius_bins(self) -> list[float]:
        """Radii in px that the blur network tells apart, ascending."""
        return self._core.radius_bins

    def __repr__(self) -> str:
        return (
            f"Estimator({self.height}, {self.width}, model={self.model!r}, device={self.device!r}, "
            f"precision={self.precision!r}, num_threads={self.num_threads}, kernels={self.kernels!r})"
        )


def estimate_blur(image: Any, **options: Any) -> NDArray[np.float32]:
    """Return the blur map of one image, (H, W) float32: the radius in px of the disk that blurred each pixel.

    `options` as for :class:`Estimator`, which this makes anew in every call: for many images make one yourself.
    """
    result: NDArray[np.float32] = Estimator.for_image(image, **options).estimate(image).map
    return result


def detect_edges(
    image: Any,
    sigma: float = 2**0.5,
    low: float = 0.08,
    high: float = 0.20,
    *,
    num_threads: int | None = None,
    kernels: str = "auto",
) -> NDArray[np.bool_]:
    """Return the edge mask of an image, (H, W) bool, equal to scikit-image's Canny detector on V = max(R, G, B).

    Equal means pixel for pixel to ``skimage.feature.canny(V, sigma, low, high)`` with V in [0, 1], float64 for uint8
    images and float32 for float32 ones. The outermost pixels are never edges.

    Args:
        image: (H, W) or (H, W, 3) uint8, or float32 in [0, 1].
        sigma: of the Gaussian in px, in (0, 64].
        low, high: hysteresis thresholds of the gradient magnitude (Sobel operators), 0 <= low <= high.

    Raises:
        TypeError, ValueError: as :meth:`Estimator.estimate`.
    """
    sigma = _number("sigma", sigma)
    return _core.detect_edges(
        _as_array(image, "image"),
        sigma,
        _number("low", low),
        _number("high", high),
        _gaussian(sigma),
        _threads(num_threads),
        _text("kernels", kernels),
    )


def domain_transform_filter(
    image: Any,
    guide: Any,
    sigma_s: float,
    sigma_r: float,
    iterations: int = 5,
    *,
    num_threads: int | None = None,
    kernels: str = "auto",
) -> NDArray[np.float32]:
    """Return `image` smoothed along the structures of `guide` by the recursive domain transform.

    Gastal and Oliveira, "Domain transform for edge-aware image and video processing", 2011, equations 14 and 21;
    distances are 1 + sigma_s / sigma_r * sum over channels of |guide'|.

    Args:
        image, guide: (H, W) or (H, W, 3) float32 of the same height and width, any finite values.
        sigma_s: spatial standard deviation in px, > 0.
        sigma_r: range standard deviation in units of `guide`, > 0.
        iterations: of a row pass and a column pass each, in [1, 16].

    Returns:
        float32 of the shape of `image`.

    Raises:
        TypeError, ValueError: an array or a number is not as above.
    """
    return _core.domain_transform_filter(
        _as_array(image, "image"),
        _as_array(guide, "guide"),
        _number("sigma_s", sigma_s),
        _number("sigma_r", sigma_r),
        _integer("iterations", iterations),
        _threads(num_threads),
        _text("kernels", kernels),
    )


def propagate(
    image: Any,
    radii: Any,
    pattern_edges: Any,
    depth_edges: Any,
    *,
    psi: float = 100.0,
    sigma_s: float | None = None,
    sigma_r: float = 3.75,
    guide_sigma_s: float = 7.0,
    guide_sigma_r: float = 0.5,
    iterations: int = 5,
    num_threads: int | None = None,
    kernels: str = "auto",
) -> NDArray[np.float32]:
    """Return the dense map, (H, W) float32, of radii that are known at pattern edges (section III-C of the paper).

    The guide is the image filtered by itself; the map is F(radii) / F(pattern mask), where F is the domain transform
    with distances 1 + sigma_s / sigma_r * sum of |guide'| + psi on depth-edge pixels.

    Args:
        image: (H, W) or (H, W, 3) uint8, or float32 in [0, 1].
        radii: (H, W) float32 in px, read at pattern edges only, where it must be finite and >= 0.
        pattern_edges, depth_edges: (H, W) bool or uint8 masks.
        psi: extra distance across a depth-edge pixel, >= 0 (100 in the paper, 20 in the published program).
        sigma_s: spatial standard deviation in px, > 0; None means min(H, W) / 8.
        sigma_r: range standard deviation in units of [0, 1] summed over three channels, > 0.
        guide_sigma_s, guide_sigma_r: of the filter that makes the guide.
        iterations: of both filters, in [1, 16].

    Returns:
        Radii in px. Pixels that no pattern edge reaches (their F(mask) is below the smallest normal float32) get the
        mean radius of the pattern edges; without any pattern edge the map is 0.

    Raises:
        TypeError, ValueError: an array or a number is not as above.
    """
    return _core.propagate(
        _as_array(image, "image"),
        _as_array(radii, "radii"),
        _as_array(pattern_edges, "pattern_edges"),
        _as_array(depth_edges, "depth_edges"),
        _number("psi", psi),
        _default_to_zero("sigma_s", sigma_s),
        _number("sigma_r", sigma_r),
        _number("guide_sigma_s", guide_sigma_s),
        _number("guide_sigma_r", guide_sigma_r),
        _integer("iterations", iterations),
        _threads(num_threads),
        _text("kernels", kernels),
    )


def _no_stream(stream: Any) -> None:
    if stream is not None:
        raise ValueError(
            f"stream: expected None for an image in host memory, whose frame is waited for, got {stream!r}"
        )


def _gaussian(sigma: float) -> NDArray[np.float64]:
    """ndimage's Gaussian kernel, from this machine's NumPy (see CannyOptions.smoothing); empty if sigma is no good."""
    if not 0 < sigma <= 64:
        return np.empty(0)
    radius = int(4.0 * sigma + 0.5)
    if radius == 0:
        return np.ones(1)  # below, the square of a tiny sigma would be 0
    kernel: NDArray[np.float64] = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    kernel /= kernel.sum()
    return kernel


def _integer(name: str, value: Any) -> int:
    """Return an int or a NumPy integer as int; anything else would get pybind11's message."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if abs(int(value)) > 2**31 - 1:
        raise ValueError(f"{name}: expected at most 2147483647, got {value}")
    return int(value)


def _number(name: str, value: Any) -> float:
    """Return a real number as float; anything else would get pybind11's message."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a number that a float can hold, got {value}") from None


def _text(name: str, value: Any) -> str:
    """Return a str; the core says which ones it accepts."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a text, got {value!r}")
    return value


def _path(name: str, value: Any) -> str:
    """Return the text of a path object."""
    if not isinstance(value, os.PathLike) or not isinstance(path := os.fspath(value), str):
        raise TypeError(f"{name}: expected a text or a path object, got {value!r}")
    return path


def _threads(num_threads: int | None) -> int:
    """The core's form of "all cores" is 0."""
    if num_threads is None:
        return 0
    if not 1 <= _integer("num_threads", num_threads) <= 1024:
        raise ValueError(f"num_threads: expected at least 1 and at most 1024, or None for all cores, got {num_threads}")
    return num_threads


def _count_or_zero(name: str, value: int | None) -> int | None:
    """The core's form of None, which stands for a default, is 0."""
    if value is None:
        return None
    if _integer(name, value) < 1:
        raise ValueError(f"{name}: expected at least 1, or None for the default, got {value}")
    return value


def _networks(networks: Callable[[str, list[int], int], object] | None) -> Callable[[str, list[int], int], object]:
    if networks is None:
        return _tensorrt.Networks()
    if not callable(networks):
        raise TypeError(f"networks: expected a callable or None, got {networks!r}")
    return networks


def _default_to_zero(name: str, sigma: float | None) -> float | None:
    """The core's form of None, which stands for a default, is 0."""
    if sigma is None:
        return None
    if not (number := _number(name, sigma)) > 0:
        raise ValueError(f"{name}: expected > 0, or None for the default, got {sigma}")
    return number
