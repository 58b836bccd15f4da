# SPDX-License-Identifier: Apache-2.0
"""The estimator of videos; all work is done in the core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._arguments import as_array, host_frame, side
from ._estimator import Sized
from ._results import BlurMap
from ._table import document, takes
from ._thread_pool import ThreadPool, core_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._core import FocusOptions, FrameOptions, StrideOptions, VideoEstimatorOptions


@dataclass(frozen=True, eq=False)
class VideoChange:
    """How a frame of a video differs from those before it.

    Attributes:
        cut: most of the image has changed, or the frame is the first: the answer is that of this frame alone.
        shift: px by which the camera's movement has moved the image down and to the right, in whole pixels of the
            octave in which radii are spread.
        renewed: share of the image in which the averages have started afresh, [0, 1].
        read: share of the image that was read, [0, 1]; less than 1 where `budget_ms` left no time for more.
    """

    cut: bool
    shift: tuple[int, int]
    renewed: float
    read: float


@dataclass(frozen=True, eq=False, repr=False)
class VideoBlurMap(BlurMap, VideoChange):
    """One frame's answer: its map and expected error are of what is averaged along time, all else is of the frame.

    Attributes are those of :class:`BlurMap` and of :class:`VideoChange`.
    """


@dataclass(frozen=True, eq=False, repr=False)
class FocusMap(VideoChange):
    """How much of a frame is in focus, and its map at reduced size. Radii and errors are in px of the full image.

    Attributes:
        in_focus: share of the frame's pixels of radii up to the option `in_focus`, [0, 1].
        radius: the percentile of the map that was asked for, px: the radius of the sharpest part.
        expected_error: mean of the map's expected error, px.
        region_in_focus, region_radius, region_expected_error: the same of each region, (rows, columns) float32. The
            regions cut the reduced map as evenly as its pixels allow.
        map: (H // scale, W // scale) float32 on the pixels of the octave in which radii are spread, px.
        map_error: (H // scale, W // scale) float32, expected error of `map`, px.
        scale: px of the image that a pixel of `map` stands for, along each axis: 2, of large images 4, or 1 where
            there is one octave only.
        cut, shift, renewed, read: as of :class:`VideoChange`.
    """

    in_focus: float
    radius: float
    expected_error: float
    region_in_focus: NDArray[np.float32]
    region_radius: NDArray[np.float32]
    region_expected_error: NDArray[np.float32]
    map: NDArray[np.float32]
    map_error: NDArray[np.float32]
    scale: int


class VideoEstimator(Sized):
    """Estimates blur maps of the frames of a video, which are of one size and come in the order of time.

    Each answer is of the frame given, without any delay. What edges say of their radii, and where depth edges keep
    radii from spreading, is averaged along time as far as the video stays the same: the camera's movement is followed,
    and where the image or its radii change by more than noise, averages start afresh. The map of a first frame, and of
    one after a cut, equals :class:`Estimator`'s (``grid="corner"``, ``distances="domain_transform"``) to the last bit.

    With `budget_ms` a frame is read in part where there is no time for all of it: regions that have changed and regions
    that have waited longest. Elsewhere what is known stays as it is; where that no longer holds, coarse octaves, which
    take little time, stand in until the region's turn comes. Edges and masks of a frame are then those that were read.

    Threads, forks and pickling are as of :class:`Estimator`; so is memory, with 49 bytes more for each pixel of the
    octave in which radii are spread. Device "cpu" only.

    Args:
        height: of the frames in px, at most 2**30.
        width: of the frames in px, at most 2**30; at most 2**31 - 1 pixels.
        thread_pool: as of :class:`Estimator`.
        {options}

    Raises:
        TypeError, ValueError: an argument is of another type, or out of range.
        BackendUnavailable: this machine or build lacks the precision or kernels asked for, or `device` is "cuda".
        ModelError: the model folder is missing, incomplete or of another format.
        Error: the system starts fewer threads than `num_threads`.
        MemoryError: there is not enough memory for frames of this size.
    """

    __slots__ = ()
    _core: _core.VideoEstimator

    @takes("VideoEstimator")
    def __init__(
        self,
        height: int,
        width: int,
        *,
        thread_pool: ThreadPool | None = None,
        **options: Unpack[VideoEstimatorOptions],
    ) -> None:
        try:
            pool = core_of(thread_pool)
            self._core = _core.VideoEstimator(side("height", height), side("width", width), pool, **options)
        except MemoryError:
            raise MemoryError(f"estimator: not enough memory for frames of {width}x{height} px") from None

    @takes("estimate")
    def estimate(self, image: Any, **options: Unpack[FrameOptions]) -> VideoBlurMap:
        """Return the blur map of the next frame with everything that was found on the way.

        Args:
            image: (H, W) or (H, W, 3) uint8, or float32 in [0, 1]; any strides; not copied. Or a :class:`Frame`, as
                cameras give them. In host memory.
            {options}

        Raises:
            TypeError: not an array, not of these dtypes, or not in host memory.
            ValueError: another shape than the estimator's, or float values that are not in [0, 1].
        """
        array, _ = host_frame(image, None, None)
        return VideoBlurMap(**self._core.estimate(array, **options))

    @takes("estimate_into")
    def estimate_into(self, image: Any, out: NDArray[np.float32], **options: Unpack[StrideOptions]) -> VideoChange:
        """Write the blur map of the next frame into `out`, (H, W) float32 in px, and return how the frame differs.

        After the first frame no buffer is made but for more edges, or another type of image, than before. Errors and
        `edge_stride` as in :meth:`estimate`. `out` may have any strides, but its pixels must not overlap, and must be
        writeable.
        """
        array, _ = host_frame(image, None, None)
        return VideoChange(**self._core.estimate_into(array, as_array(out, "out"), **options))

    @takes("estimate_focus")
    def estimate_focus(self, image: Any, **options: Unpack[FocusOptions]) -> FocusMap:
        """Return how much of the next frame is in focus, by regions, and its map at reduced size.

        The map of full size is not made. Images and errors as in :meth:`estimate`.

        Args:
            image: as in :meth:`estimate`.
            {options}

        Raises:
            ValueError: there are more rows or columns of regions than of pixels of the reduced map.
        """
        array, _ = host_frame(image, None, None)
        return FocusMap(**self._core.estimate_focus(array, **options))

    def warm_up(self) -> None:
        """Read images of its own, until there is memory for any frame and it is known what frames take.

        From then on :meth:`estimate_into` makes no buffers, and `budget_ms` holds from the first frame on, which the
        next one is. Takes as long as some frames in which every pixel is an edge.
        """
        self._core.warm_up()

    def reset(self) -> None:
        """Forget what came before: the next frame counts as a first one."""
        self._core.reset()


if VideoEstimator.__doc__:  # not with python -OO
    VideoEstimator.__doc__ = document(VideoEstimator.__doc__, "VideoEstimator")
