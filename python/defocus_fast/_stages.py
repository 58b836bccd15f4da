# SPDX-License-Identifier: Apache-2.0
"""The stages on their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._arguments import as_array, as_image
from ._table import takes

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._core import CannyOptions, FilterOptions, PropagateOptions


@takes("detect_edges")
def detect_edges(image: Any, **options: Unpack[CannyOptions]) -> NDArray[np.bool_]:
    """Return the edge mask of an image, (H, W) bool, equal to scikit-image's Canny detector on V = max(R, G, B).

    Equal means pixel for pixel to ``skimage.feature.canny(V, sigma, low, high)`` with V in [0, 1], float64 for uint8
    images and float32 for float32 ones. The outermost pixels are never edges.

    Args:
        image: (H, W) or (H, W, 3) uint8, or float32 in [0, 1]; or a :class:`Frame`.
        {options}

    Raises:
        TypeError, ValueError: as :meth:`Estimator.estimate`.
    """
    return _core.detect_edges(as_image(image), **options)


@takes("domain_transform_filter")
def domain_transform_filter(image: Any, guide: Any, **options: Unpack[FilterOptions]) -> NDArray[np.float32]:
    """Return `image` smoothed along the structures of `guide` by the recursive domain transform.

    Gastal and Oliveira, "Domain transform for edge-aware image and video processing", 2011, equations 14 and 21;
    distances are ``1 + sigma_s / sigma_r * sum over channels of |guide'|``.

    Args:
        image, guide: (H, W) or (H, W, 3) float32 of the same height and width, any finite values.
        {options}

    Returns:
        float32 of the shape of `image`.

    Raises:
        TypeError, ValueError: an array or a number is not as above.
    """
    return _core.domain_transform_filter(as_array(image, "image"), as_array(guide, "guide"), **options)


@takes("propagate")
def propagate(
    image: Any, radii: Any, pattern_edges: Any, depth_edges: Any, **options: Unpack[PropagateOptions]
) -> NDArray[np.float32]:
    """Return the dense map, (H, W) float32, of radii that are known at pattern edges (section III-C of the paper).

    The guide is the image filtered by itself; the map is F(radii) / F(pattern mask), where F is the domain transform
    with distances ``1 + sigma_s / sigma_r * sum of |guide'|``, plus psi on depth-edge pixels.

    Args:
        image: (H, W) or (H, W, 3) uint8, or float32 in [0, 1]; or a :class:`Frame`.
        radii: (H, W) float32 in px, read at pattern edges only, where it must be finite and >= 0.
        pattern_edges, depth_edges: (H, W) bool or uint8 masks.
        {options}

    Returns:
        Radii in px. Pixels that no pattern edge reaches (their F(mask) is below the smallest normal float32) get the
        mean radius of the pattern edges; without any pattern edge the map is 0.

    Raises:
        TypeError, ValueError: an array or a number is not as above.
    """
    arrays = {"radii": radii, "pattern_edges": pattern_edges, "depth_edges": depth_edges}
    return _core.propagate(as_image(image), *(as_array(array, name) for name, array in arrays.items()), **options)
