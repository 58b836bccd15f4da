# SPDX-License-Identifier: Apache-2.0
"""Sharp images from blurred ones and their blur maps."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._arguments import as_array
from ._disk import disk_areas

Floats = NDArray[np.float32]
Part = tuple[slice, slice]

SHARP = 0.5  # px: a smaller disk lies in one pixel, and there is nothing to undo
FIRST_STEP, STEP_RATIO = 0.75, 1.2  # radii that are undone, px: 0.75, 0.9, 1.08, ...
LARGEST_RADIUS = 512.0  # px
TILE = 512  # px
FADE = 32  # px to both sides of the border between two tiles, in which one gives way to the other
MARGIN_RADII, LARGEST_MARGIN = 3, 256  # what a tile sees beyond that, radii and px

# Chosen on 16 validation scenes; ``bench/deblurring.py --split validation --scenes 16 --tune`` prints what the first
# two gain.
WEIGHT = 0.3  # of the data beside the prior, times the variance of the noise
MISFIT = 0.0033  # standard deviation of what the model leaves out even without noise: rounding, outlines, blended radii
DATA_SHARES = (375, 94, 23, 6, 1.5)  # weight of the data beside that of the split gradients, iteration by iteration


def deblur(
    image: Any, radii: Any, *, noise: float = 0.005, linear_light: bool = False, num_threads: int | None = None
) -> NDArray[Any]:
    """Return `image` as it would be if everything were in focus, as far as its blur map and the noise allow.

    Non-blind deconvolution with a hyper-Laplacian prior of exponent 1/2 (Krishnan and Fergus, "Fast image deconvolution
    using hyper-Laplacian priors", NIPS 2009) for a set of radii, 20 % apart, between whose results the map blends
    linearly. What is sharper than a radius is first blurred up to it, so that it does not ring into its surroundings.
    The image goes on mirrored beyond its edges. Channels are deblurred one by one.

    Args:
        image: (H, W) or (H, W, 3) uint8, or float32 in [0, 1]; any strides; not changed.
        radii: (H, W) real numbers >= 0, px: radius of the disk that blurred each pixel, such as :attr:`BlurMap.map`. Up
            to 0.5 px nothing is done; radii above 512 px count as 512 px.
        noise: standard deviation of the image's noise, of values in [0, 1], from 0 to 1. The larger, the smoother the
            answer is. With `linear_light` the noise of linear values.
        linear_light: undo the blur in light, not in values: sRGB's curve (IEC 61966-2-1) is taken off before and put on
            again after. That is what a lens blurs; but noise in dark parts becomes larger than `noise`.
        num_threads: from 1 to 1024; None means one for every CPU that this process may use. The answer does not depend
            on it.

    Returns:
        A new array of the shape and dtype of `image`.

    Raises:
        TypeError, ValueError: an argument is not as above.
        ImportError: SciPy is not installed (``pip install "defocus_fast[deblur]"``).

    Notes:
        Tiles of 512 px are deblurred one by one and blended into each other. Memory, without the arguments: 4 bytes a
        value of the image, and up to 80 MB a thread. Time grows with the number of radii, each 20 % larger than the one
        before, in a tile; and large ones take more than small ones.
    """
    pixels = as_array(image, "image")
    if pixels.dtype not in (np.uint8, np.float32) or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise (ValueError if pixels.dtype in (np.uint8, np.float32) else TypeError)(
            f"image: expected uint8 or float32 of shape (H, W) or (H, W, 3), got {pixels.dtype} {pixels.shape}"
        )
    if pixels.dtype == np.float32 and pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):  # or not a number
        raise ValueError(f"image: expected float32 in [0, 1], got values in [{pixels.min():g}, {pixels.max():g}]")
    known = as_array(radii, "radii")
    if known.dtype.kind not in "uif":
        raise TypeError(f"radii: expected real numbers, got {known.dtype}")
    if known.shape != pixels.shape[:2]:
        raise ValueError(f"radii: expected shape {pixels.shape[:2]}, that of the image, got {known.shape}")
    if known.size and not (known.min() >= 0 and np.isfinite(known.max())):
        raise ValueError(f"radii: expected finite numbers >= 0, got values in [{known.min():g}, {known.max():g}]")
    _check("noise", noise, (int, float, np.integer, np.floating), "a number from 0 to 1", 0, 1)
    if num_threads is None:
        num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    _check("num_threads", num_threads, (int, np.integer), "an integer from 1 to 1024", 1, 1024)
    require_scipy()

    weight = WEIGHT / (noise**2 + MISFIT**2)
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    answer = np.zeros(planes.shape, np.float32)

    def work(job: tuple[Part, int]) -> tuple[Part, Floats]:
        return _deblur_tile(planes[..., job[1]], known, job[0], weight, linear_light)

    jobs = [(tile, channel) for tile in _tiles(*known.shape) for channel in range(planes.shape[2])]
    with ThreadPoolExecutor(num_threads) as pool:
        for (_, channel), ((rows, columns), values) in zip(jobs, pool.map(work, jobs), strict=True):
            answer[rows, columns, channel] += values
    if pixels.dtype == np.uint8:
        answer *= 255
        return np.rint(answer, out=answer).astype(np.uint8).reshape(pixels.shape)
    return np.clip(answer, 0, 1, out=answer).reshape(pixels.shape)


def _check(name: str, value: Any, types: tuple[type, ...], accepted: str, least: float, most: float) -> None:
    fits = isinstance(value, types) and not isinstance(value, bool)
    if not (fits and least <= value <= most):
        raise (ValueError if fits else TypeError)(f"{name}: expected {accepted}, got {value!r}")


def require_scipy() -> None:
    """Raise ImportError with what to do about it if SciPy is not installed."""
    try:
        import scipy.fft  # type: ignore[import-untyped]  # noqa: F401
    except ModuleNotFoundError:
        raise ImportError('the package scipy is needed: pip install "defocus_fast[deblur]"') from None


def _tiles(height: int, width: int) -> Iterator[Part]:
    def cuts(side: int) -> list[slice]:
        ends = np.linspace(0, side, -(-side // TILE) + 1).astype(int)
        return [slice(begin, end) for begin, end in itertools.pairwise(ends)]

    return ((rows, columns) for rows in cuts(height) for columns in cuts(width))


def _wider(part: Part, margin: int, shape: tuple[int, ...]) -> Part:
    """Return `part` of an array of this shape with `margin` around it, as far as the array goes."""
    rows, columns = (
        slice(max(0, axis.start - margin), min(side, axis.stop + margin))
        for axis, side in zip(part, shape, strict=True)
    )
    return rows, columns


def _within(part: Part, around: Part) -> Part:
    """Return where `part` is in the array that `around` was cut out as."""
    rows, columns = (
        slice(axis.start - wide.start, axis.stop - wide.start) for axis, wide in zip(part, around, strict=True)
    )
    return rows, columns


def _step(number: int) -> float:
    """Return the radius, px, that is undone as number `number`; number 0 is of what stays as it is."""
    return FIRST_STEP * STEP_RATIO ** (number - 1) if number else SHARP


def _deblur_tile(
    plane: NDArray[Any], radii: NDArray[Any], tile: Part, weight: float, linear_light: bool
) -> tuple[Part, Floats]:
    """Deblur a tile of one channel; return where it counts and, times what it counts there, its values in [0, 1]."""
    part = _wider(tile, FADE, radii.shape)
    largest = min(float(radii[part].max()), LARGEST_RADIUS)
    last = next(number for number in range(100) if _step(number) >= largest)
    around = _wider(part, min(round(MARGIN_RADII * _step(last)), LARGEST_MARGIN), radii.shape) if last else part
    values = plane[around].astype(np.float32)
    if plane.dtype == np.uint8:
        values /= 255
    if last:
        if linear_light:
            values = _to_light(values)
        values = _deblur_values(values, radii[around].astype(np.float32), _within(part, around), last, weight)
        np.clip(values, 0, 1, out=values)
        if linear_light:
            values = _from_light(values)
    fades = []
    for axis, wide, side in zip(tile, part, radii.shape, strict=True):
        at = np.arange(wide.start, wide.stop, dtype=np.float32) + 0.5
        rise = (at - axis.start) / (2 * FADE) + 0.5 if axis.start else np.ones_like(at)
        fall = (axis.stop - at) / (2 * FADE) + 0.5 if axis.stop < side else np.ones_like(at)
        fades.append(np.minimum(np.minimum(rise, fall), 1))
    return part, values * fades[0][:, None] * fades[1]


def _deblur_values(values: Floats, radii: Floats, inside: Part, last: int, weight: float) -> Floats:
    """Return the deblurred pixels `inside` of `values` (H, W), blended from the steps 0 to `last`."""
    from scipy.fft import dctn, idctn, next_fast_len

    # The cosine transform continues everything mirrored, which disks leave as it is: what is convolved is the mirrored
    # image, and nothing of the opposite edge comes in. Up to a fast size the mirror image is made here.
    padding = [(0, next_fast_len(side, real=True) - side) for side in values.shape]
    values, radii = (np.pad(array, padding, mode="symmetric") for array in (values, radii))
    height, width = values.shape
    # Eigenvalues of the negative Laplacian, which is the sum of the squared forward differences.
    rows, columns = (2 - 2 * np.cos(np.pi * np.arange(side, dtype=np.float32) / side) for side in (height, width))
    laplacian = rows[:, None] + columns

    def filtered(array: Floats, transfer: Floats) -> Floats:
        result: Floats = idctn(transfer * dctn(array), overwrite_x=True)
        return result

    def share_below(number: int) -> Floats:
        """Return the shares that the steps before `number` have in the pixels, (H, W)."""
        if number > last:
            return np.ones_like(radii)
        low, high = _step(number - 1), _step(number)
        share: Floats = np.clip((np.float32(high) - radii) / np.float32(high - low), 0, 1)
        return share

    below = share_below(1)
    answer = values[inside] * below[inside]
    for number in range(1, last + 1):
        step, before = _step(number), _step(number - 1) if number > 1 else 0
        if below.any():
            # What is sharper than this step becomes as blurred as it is: the squares of disks' radii add up.
            more = _transfer((step**2 - before**2) ** 0.5, height, width)
            values = values + filtered(below, _transfer(step, height, width)) * (filtered(values, more) - values)
        below, before_this = share_below(number + 1), below
        share = (below - before_this)[inside]
        if share.any():
            transfer = _transfer(step, height, width)
            answer += share * _deconvolve(values, transfer, laplacian, weight, dctn, idctn)[inside]
    return answer


@lru_cache(maxsize=256)
def _disk(radius: float) -> NDArray[np.float64]:
    areas = disk_areas(radius)
    areas /= areas.sum()
    return areas


def _transfer(radius: float, height: int, width: int) -> Floats:
    """Return what the blur of a disk multiplies the cosine transform of a mirrored (height, width) image with."""
    disk = _disk(radius)
    taps = np.arange(len(disk)) - len(disk) // 2
    down, across = (np.cos(np.pi / side * np.outer(np.arange(side), taps)) for side in (height, width))
    transfer: Floats = (down @ disk @ across.T).astype(np.float32)
    return transfer


def _deconvolve(
    blurred: Floats,
    transfer: Floats,
    laplacian: Floats,
    weight: float,
    dctn: Callable[..., Floats],
    idctn: Callable[..., Floats],
) -> Floats:
    """Return the x of least weight / 2 * |k * x - blurred|^2 + sum of |gradient of x|^(1/2), approximately.

    By half-quadratic splitting: gradients w of their own are tied to those of x by beta / 2 * |w - gradient|^2 with
    growing beta; x and w take turns.
    """
    data = transfer * dctn(blurred)
    power = transfer * transfer
    x = blurred
    for share in DATA_SHARES:
        down, across = np.diff(x, axis=0), np.diff(x, axis=1)
        _shrink(down, weight / share)
        _shrink(across, weight / share)
        divergence = np.zeros_like(x)
        divergence[1:] += down
        divergence[:-1] -= down
        divergence[:, 1:] += across
        divergence[:, :-1] -= across
        spectrum = dctn(divergence, overwrite_x=True)
        spectrum += np.float32(share) * data
        spectrum /= laplacian + np.float32(share) * power
        x = idctn(spectrum, overwrite_x=True)
    return x


def _shrink(gradient: Floats, beta: float) -> None:
    """Replace every v of `gradient` by the w of least |w|^(1/2) + beta / 2 * (w - v)^2 (equation 5 of the paper).

    With t = |v| * beta^(2/3) it is 0 up to t = 3/2; above, the largest root of the cubic that the derivative is in
    sqrt(w), in its trigonometric form.
    """
    t = np.abs(gradient)
    t *= np.float32(beta ** (2 / 3))
    np.maximum(t, np.float32(1.5), out=t)
    large = t > np.float32(1.5)
    np.divide(np.float32(3), t, out=t)
    t *= np.sqrt(t)
    t *= np.float32(-0.25)
    np.arccos(t, out=t)
    t *= np.float32(2 / 3)
    np.cos(t, out=t)
    t += 1
    t *= np.float32(2 / 3)
    t *= large
    gradient *= t


def _to_light(values: Floats) -> Floats:
    """Return linear light of sRGB values (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _from_light(light: Floats) -> Floats:
    """Return sRGB values of linear light."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)
