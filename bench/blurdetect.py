# SPDX-License-Identifier: Apache-2.0
"""FFmpeg's filter blurdetect, by PyAV: the mean width of edges (P. Marziliano et al., "A no-reference perceptual blur
metric", ICIP 2002)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np
from numpy.typing import NDArray


class Blurdetect:
    """The filter alone, for frames of one size that lie in memory."""

    def __init__(self, height: int, width: int, **options: Any) -> None:
        """`options` are the filter's own: its defaults take the frame for one block."""
        self._graph = av.filter.Graph()
        nodes = [
            self._graph.add_buffer(width=width, height=height, format="gray", time_base=Fraction(1, 25)),
            self._graph.add("blurdetect", **{name: str(value) for name, value in options.items()}),
            self._graph.add("buffersink"),
        ]
        self._graph.link_nodes(*nodes).configure()

    def __call__(self, frame: av.VideoFrame) -> float:
        """Return px; NaN where no edge was found."""
        self._graph.vpush(frame)
        return float(self._graph.vpull().metadata["lavfi.blur"])


def frame_of(grey: NDArray[np.uint8]) -> av.VideoFrame:
    """Return (H, W) as the filter takes it."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(grey), format="gray")
