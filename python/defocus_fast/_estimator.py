# SPDX-License-Identifier: Apache-2.0
"""The estimator; all work is done in the core."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from . import _core, _tensorrt
from ._arguments import as_array, as_image, host_frame, side
from ._device import DeviceArray, describe, describe_image, on_device, stream_handle
from ._device import shape as device_shape
from ._results import BlurMap, DeviceBlurMap
from ._table import document, takes
from ._thread_pool import ThreadPool, core_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._core import EstimatorOptions, FrameOptions, StrideOptions


class Sized:
    """What estimators of single images and of videos have in common."""

    __slots__ = ("__weakref__", "_core")  # other names cannot be set
    _core: _core.Estimator | _core.VideoEstimator

    if not TYPE_CHECKING:  # type checkers would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            if name == "_core":
                raise TypeError(
                    f"estimator: expected {type(self).__name__}.__init__ to be called first, but it was not"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

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
        """What "auto" became, "cpu" or "cuda", or the one asked for."""
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
            f"{type(self).__name__}({self.height}, {self.width}, model={self.model!r}, device={self.device!r}, "
            f"precision={self.precision!r}, num_threads={self.num_threads}, kernels={self.kernels!r})"
        )


class Estimator(Sized):
    """Estimates blur maps of images of one size.

    Threads (without a `thread_pool`), the networks for this size and most buffers are made here; the first frame makes
    the others and touches all of them, so that either may raise MemoryError. Lists of edges grow as frames need it. One
    estimator may be shared by many Python threads; their calls run one after the other, each on all of the estimator's
    threads, with the GIL released. Those of several estimators run side by side. It cannot be pickled: make one in
    every process. Memory: 22 bytes a pixel for as long as it lives, 6 more in each result, and 4 with the expected
    error; 24 an edge; and at most 300 MB for the networks.

    Args:
        height: of the images in px, at most 2**30.
        width: of the images in px, at most 2**30; at most 2**31 - 1 pixels.
        thread_pool: threads to share with other estimators; None: this one has its own. With a pool `num_threads` must
            be None or the pool's.
        {options}

    Raises:
        TypeError, ValueError: an argument is of another type, or out of range.
        BackendUnavailable: this machine or build lacks the device, precision or kernels asked for.
        ModelError: the model folder is missing, incomplete or of another format.
        Error: the system starts fewer threads than `num_threads`; device "cuda" or "auto": TensorRT is there, but
            failed.
        MemoryError: there is not enough memory for images of this size.

    Notes:
        `networks` enqueues one evaluation of a graph of the model folder, called as ``networks(graph, tensors,
        stream)`` with the graph's name, the pointers of its inputs and outputs in device memory and the CUDA stream.
        For None TensorRT or TensorRT-RTX is taken, whichever is installed (``pip install "defocus_fast[cuda]"``). The
        first estimator of a size builds their engines: TensorRT-RTX takes seconds, TensorRT minutes, and the logger
        "defocus_fast" tells.
    """

    __slots__ = ("_enqueueing", "_in_flight")
    _core: _core.Estimator

    @takes("Estimator")
    def __init__(
        self, height: int, width: int, *, thread_pool: ThreadPool | None = None, **options: Unpack[EstimatorOptions]
    ) -> None:
        if options.get("networks") is None:
            options["networks"] = _tensorrt.Networks()
        try:
            self._core = _core.Estimator(side("height", height), side("width", width), core_of(thread_pool), **options)
        except MemoryError:
            raise MemoryError(f"estimator: not enough memory for images of {width}x{height} px") from None
        self._enqueueing = threading.RLock()  # the core refuses calls from within its own
        _made.add(self)

    @classmethod
    @takes("Estimator")
    def for_image(
        cls, image: Any, *, thread_pool: ThreadPool | None = None, **options: Unpack[EstimatorOptions]
    ) -> Estimator:
        """Make an estimator for images of the size of `image`; options as for the constructor."""
        size = device_shape(image) if on_device(image) else as_image(image).shape
        if len(size) not in (2, 3):
            raise ValueError(f"image: expected shape (H, W) or (H, W, 3), got {size}")
        return cls(size[0], size[1], thread_pool=thread_pool, **options)

    @overload
    def estimate(self, image: NDArray[Any], *, edges: Any = None, **options: Unpack[FrameOptions]) -> BlurMap: ...
    @overload
    def estimate(
        self, image: Any, *, edges: Any = None, stream: Any = None, **options: Unpack[FrameOptions]
    ) -> BlurMap | DeviceBlurMap: ...
    @takes("estimate")
    def estimate(
        self, image: Any, *, edges: Any = None, stream: Any = None, **options: Unpack[FrameOptions]
    ) -> BlurMap | DeviceBlurMap:
        """Return the blur map of `image` with everything that was found on the way.

        Args:
            image: (H, W) or (H, W, 3) uint8, or float32 in [0, 1]; any strides; not copied. Or a :class:`Frame`, as
                cameras give them. In host memory, or on device "cuda" in the GPU's, see Notes.
            edges: (H, W) bool or uint8 mask of edge pixels to use in place of the edge detector's; where `image` is.
                The image is then read at its own size only; radii are spread as in the estimator's other frames.
            stream: for an image in device memory: the CUDA stream to work on, as a handle or any object with
                ``__cuda_stream__``, ``ptr`` (CuPy), ``cuda_stream`` (PyTorch) or ``handle`` (PyCUDA). None means the
                legacy default stream.
            {options}

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
            return BlurMap(**self._core.estimate(*host_frame(image, edges, stream), **options))
        frame = _core.frame_options(**options)
        if frame["bin_probabilities"]:
            raise ValueError("bin_probabilities: expected False for an image in device memory, got True")
        error = DeviceArray(self._core, stream) if frame["expected_error"] else None
        result = DeviceBlurMap(DeviceArray(self._core, stream), error)
        self._enqueue(stream_handle(stream), image, result.map, error, edges, edge_stride=frame["edge_stride"])
        return result

    @overload
    def estimate_into(
        self, image: NDArray[Any], out: NDArray[np.float32], *, edges: Any = None, **options: Unpack[StrideOptions]
    ) -> NDArray[np.float32]: ...
    @overload
    def estimate_into(
        self, image: Any, out: Any, *, edges: Any = None, stream: Any = None, **options: Unpack[StrideOptions]
    ) -> Any: ...
    @takes("estimate_into")
    def estimate_into(
        self, image: Any, out: Any, *, edges: Any = None, stream: Any = None, **options: Unpack[StrideOptions]
    ) -> Any:
        """Write the blur map of `image` into `out`, (H, W) float32 in px, and return `out`.

        After the first call no buffer is made but for more edges, or another type of image, than before. Errors, arrays
        in device memory, `edges`, `stream` and `edge_stride` as in :meth:`estimate`; `out` is where `image` is. It may
        have any strides, but its pixels must not overlap, and must be writeable.
        """
        if self.device == "cpu" or not on_device(image):
            array, mask = host_frame(image, edges, stream)
            if not isinstance(out, np.ndarray):
                raise TypeError(f"out: expected a NumPy array, as `image` is in host memory, got {type(out).__name__}")
            self._core.estimate_into(array, as_array(out, "out"), mask, **options)
        else:
            self._enqueue(stream_handle(stream), image, out, None, edges, **options)
        return out

    def _enqueue(
        self, stream: int, image: Any, out: Any, expected_error: Any, edges: Any, **options: Unpack[StrideOptions]
    ) -> None:
        def described(array: Any, name: str) -> NDArray[Any]:
            return describe(array, name, stream, self._core)

        frame = (
            describe_image(image, stream, self._core),
            described(out, "out"),
            None if expected_error is None else described(expected_error, "expected_error"),
            None if edges is None else described(edges, "edges"),
        )
        with self._enqueueing:
            self._core.enqueue(*frame, stream, **options)
            self._in_flight = frame

    def edge_count(self, stream: Any = None) -> tuple[int, int]:
        """Wait for the last frame of images in device memory; return its number of edges, and of those not left out.

        They differ if there were more than max_edges, which :meth:`estimate` and :meth:`estimate_into` cannot tell
        without waiting. `stream` as in :meth:`estimate`: what is enqueued on it is waited for, too.

        Raises:
            BackendUnavailable: the estimator's device is "cpu".
        """
        return self._core.edge_count(stream_handle(stream))


_made: weakref.WeakSet[Estimator] = weakref.WeakSet()


def _renew_locks() -> None:
    """In a forked child nobody gives back what other threads of the parent held; the core knows of the fork."""
    for estimator in _made:
        estimator._enqueueing = threading.RLock()


os.register_at_fork(after_in_child=_renew_locks)

if Estimator.__doc__:  # not with python -OO
    Estimator.__doc__ = document(Estimator.__doc__, "Estimator")


@takes("Estimator")
def estimate_blur(image: Any, **options: Unpack[EstimatorOptions]) -> NDArray[np.float32]:
    """Return the blur map of one image, (H, W) float32: the radius in px of the disk that blurred each pixel.

    Options as for :class:`Estimator`, which this makes anew in every call: for many images make one yourself.
    """
    result: NDArray[np.float32] = Estimator.for_image(image, **options).estimate(image).map
    return result
