# SPDX-License-Identifier: Apache-2.0
"""Measures of accuracy against ground truth: those of the paper (section IV), and how good the expected error is.

Ground truth is either the radius of every pixel, or a mask of what is out of focus.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ._files import photos_in
from ._mat import read_mat
from ._results import BlurMap

Floats = NDArray[np.floating[Any]]
TRUTH_SUFFIXES = (".npy", ".mat", ".png")
JUMP_PX = 1.0  # of the true radius within 2 px: an edge there is a depth edge
SAME_PX = 0.25  # an edge where the true radius varies less is a pattern edge; edges in between count as neither
# Thresholds of a map are alpha * maximum + (1 - alpha) * minimum (paper, equation 5).
ADAPTIVE_ALPHA = 0.3
ALPHAS = np.linspace(0, 1, 256)
F_BETA_SQUARED = 0.3
BINS = 10  # of the expected error
RADIUS_RANGES = (0, 2, 6, 12, 24, 1000)  # px, of the true radius: errors are also known for each


def read_truth(path: Path, scale: float = 1.0, mask: bool = False) -> NDArray[np.float64]:
    """Return the (H, W) ground truth in a .npy, .mat or .png file, times `scale`.

    A .mat file is of MATLAB's versions 5 to 7 and must hold exactly one two-dimensional array of real numbers. Of an
    mask in colour the first channel counts.

    Raises:
        ValueError: no two-dimensional array of finite numbers >= 0 is in the file; or, unless `mask`, an image in
            colour, truth values, or whole numbers of which some are 0 and all others 1 or all others 255.
        OSError: the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        with open(path, "rb") as file:
            values = np.lib.format.read_array(file, allow_pickle=False)
    elif suffix == ".mat":
        arrays = read_mat(path)
        found = {name: array for name, array in arrays.items() if array.ndim == 2 and min(array.shape) > 1}
        if len(found) != 1:
            raise ValueError(f"expected one two-dimensional array, got {sorted(found) or 'none'}")
        values = next(iter(found.values()))
    else:
        with Image.open(path, formats=["PNG"]) as image:
            if not image.mode.startswith("I") and image.tile and str(image.tile[0].args).endswith(";16B"):
                raise ValueError("expected 8 bits a channel or 16-bit greyscale, got 16-bit colour")
            if not mask and image.mode not in ("1", "L") and not image.mode.startswith("I"):
                raise ValueError(f"expected radii in px as greyscale without transparency, got {image.mode}")
            # Of a palette the colours count, not their numbers; of black and white 0 and 255.
            values = np.asarray(image.convert("RGB") if image.mode in ("1", "P") else image)
        values = values[..., 0] if values.ndim == 3 else values
    if values.ndim != 2 or values.dtype.kind not in "buif" or not values.size:
        raise ValueError(f"expected numbers of shape (H, W), got {values.dtype} of shape {values.shape}")
    if not mask and values.dtype.kind in "bui" and values.any():
        top = int(values.max())
        if values.dtype.kind == "b" or (top in (1, 255) and not values.all() and np.isin(values, (0, top)).all()):
            raise ValueError(f"expected radii in px, got a mask (0, {top}); for masks use --mask")
    scaled: NDArray[np.float64] = values.astype(np.float64) * scale
    if not (scaled.min() >= 0 and np.isfinite(scaled.max())):  # also not where any is not a number
        raise ValueError(f"expected finite numbers >= 0, got some from {scaled.min():g} to {scaled.max():g}")
    return scaled


def pairs(images: Path, truth: Path) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Return the images in a folder with their ground truth of the same stem in the folder `truth`, and those
    without any."""
    truths = [path for path in sorted(truth.iterdir()) if path.suffix.lower() in TRUTH_SUFFIXES and path.is_file()]
    truths.sort(key=lambda path: TRUTH_SUFFIXES.index(path.suffix.lower()), reverse=True)
    known = {path.stem: path for path in truths}  # the first of TRUTH_SUFFIXES where a stem has several
    files = photos_in(images)
    found = [(path, known[path.stem]) for path in files if path.stem in known and not known[path.stem].samefile(path)]
    stems = {path.stem for path, _ in found}
    return found, [path for path in files if path.stem not in stems]


@dataclass
class RadiusScores:
    """What one image with known radii says about one estimator; px unless said otherwise."""

    name: str
    size: tuple[int, int]  # height and width
    mae: float  # mean |map - truth|, the paper's raw MAE
    octave_error: float  # mean |log2((map + 0.5) / (truth + 0.5))|: a radius twice as large counts as 1
    # Of every one of RADIUS_RANGES its share of the pixels, and its part in the sums of both errors.
    range_share: list[float]
    range_mae: list[float]
    range_octave_error: list[float]
    relative: float  # mae of radii rescaled to [0, 1] by the largest bin, no unit; the paper's relative MAE
    expected_error: list[float]  # means over BINS equal shares of the pixels, the surest first
    actual_error: list[float]  # mean |map - truth| in these shares
    # Of edges of the full-size image; not a number where there are none of the kind.
    edge_mae: float  # of the radii read at true pattern edges
    edge_accuracy: float  # share of true pattern edges whose most probable bin is the nearest one
    pattern_recall: float  # share of true pattern edges called so
    depth_recall: float  # share of true depth edges called so
    ms: float  # that the stages took together


def octave_errors(radii: Floats, truth: Floats) -> Floats:
    """Return |log2((radii + 0.5) / (truth + 0.5))| of radii in px."""
    return np.abs(np.log2((radii + 0.5) / (truth + 0.5)))


def radius_scores(name: str, result: BlurMap, truth: Floats, bins: list[float]) -> RadiusScores:
    """Score one image.

    Args:
        name: of the image.
        result: the answer to be judged, with ``bin_probabilities``.
        truth: (H, W) radii in px.
        bins: of the estimator.
    """
    error = np.abs(result.map - truth)
    shares = np.array_split(np.argsort(result.expected_error, axis=None, kind="stable"), BINS)
    octaves = octave_errors(result.map, truth)
    in_range = [(truth >= low) & (truth < high) for low, high in itertools.pairwise(RADIUS_RANGES)]
    own = result.octave == 0
    y, x = result.edges[own].T
    jump = _range_nearby(truth)[y, x]
    depth, pattern = jump >= JUMP_PX, jump <= SAME_PX
    called_depth = result.depth_edges[y, x]
    at_pattern = truth[y, x][pattern]
    nearest = np.abs(at_pattern[:, None] - np.array(bins)).argmin(1)
    probable = result.bin_probabilities[own][pattern].argmax(1) if pattern.any() else nearest
    return RadiusScores(
        name,
        (result.map.shape[0], result.map.shape[1]),
        mae=float(error.mean()),
        octave_error=float(octaves.mean()),
        range_share=[float(pixels.mean()) for pixels in in_range],
        range_mae=[float((error * pixels).mean()) for pixels in in_range],
        range_octave_error=[float((octaves * pixels).mean()) for pixels in in_range],
        relative=float(error.mean() / max(bins)),
        expected_error=[_mean(result.expected_error.flat[share]) for share in shares],
        actual_error=[_mean(error.flat[share]) for share in shares],
        edge_mae=_mean(np.abs(result.radii[own][pattern] - at_pattern)),
        edge_accuracy=_mean(probable == nearest),
        pattern_recall=_mean(~called_depth[pattern]),
        depth_recall=_mean(called_depth[depth]),
        ms=sum(result.stage_ms.values()),
    )


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _range_nearby(truth: Floats) -> Floats:
    """Largest minus smallest value in the 5x5 pixels around each."""
    padded = np.pad(truth, 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    nearby: Floats = windows.max((2, 3)) - windows.min((2, 3))
    return nearby


@dataclass
class MaskScores:
    """How well the map, cut at a threshold, finds what is out of focus in one image."""

    name: str
    precision: list[float] = field(repr=False)  # at ALPHAS
    recall: list[float] = field(repr=False)
    accuracy: list[float] = field(repr=False)  # share of the pixels that are told right
    adaptive_precision: float  # at ADAPTIVE_ALPHA
    adaptive_recall: float
    adaptive_f: float  # F-measure with beta^2 = 0.3


def threshold(radii: Floats, alpha: float) -> float:
    """Return the radius from which on a pixel counts as out of focus (paper, equation 5)."""
    low, high = float(radii.min()), float(radii.max())
    return low + alpha * (high - low)


def mask_scores(name: str, radii: Floats, blurred: NDArray[np.bool_]) -> MaskScores:
    """Score one image by its (H, W) map and the (H, W) mask of what is out of focus.

    Where nothing is, there is nothing to find: all scores but the accuracy are not a number.
    """

    def at(least: float) -> tuple[float, float, float]:
        found = radii >= least
        hits, all_found, all_blurred = (int(np.count_nonzero(mask)) for mask in (found & blurred, found, blurred))
        accuracy = 1 - (all_found + all_blurred - 2 * hits) / radii.size
        if not all_blurred:
            return float("nan"), float("nan"), accuracy
        return hits / max(all_found, 1), hits / all_blurred, accuracy

    curve = [at(least) for least in np.linspace(float(radii.min()), float(radii.max()), len(ALPHAS))]
    precision, recall, _ = at(threshold(radii, ADAPTIVE_ALPHA))
    return MaskScores(
        name,
        [p for p, _, _ in curve],
        [r for _, r, _ in curve],
        [a for _, _, a in curve],
        precision,
        recall,
        float(_f_measure(precision, recall)),
    )


def _f_measure(precision: Any, recall: Any) -> Any:
    both = F_BETA_SQUARED * precision + recall
    return (1 + F_BETA_SQUARED) * precision * recall / np.maximum(both, 1e-12)


def mean(scores: list[Any], measure: str) -> float:
    """Return the mean over the images that have what the measure is about."""
    values = np.array([getattr(each, measure) for each in scores], float)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def range_means(scores: list[RadiusScores]) -> list[dict[str, float]]:
    """Return, of every one of RADIUS_RANGES that has pixels, its share of them and both errors in it."""
    columns = ("range_share", "range_mae", "range_octave_error")
    sums = [np.mean([getattr(each, column) for each in scores], axis=0) for column in columns]
    return [
        {
            "from": low,
            "to": high,
            "share": float(share),
            "mae": float(mae / share),
            "octave_error": float(octaves / share),
        }
        for (low, high), share, mae, octaves in zip(itertools.pairwise(RADIUS_RANGES), *sums, strict=True)
        if share > 0
    ]


def radius_means(scores: list[RadiusScores]) -> dict[str, float]:
    """Return means of the measures over the images, the raw MAE's standard deviation and the median time."""
    measures = (
        "mae",
        "octave_error",
        "relative",
        "edge_mae",
        "edge_accuracy",
        "pattern_recall",
        "depth_recall",
        "expected_error",
    )
    means = {measure: mean(scores, measure) for measure in measures}
    means["balanced"] = (means["pattern_recall"] + means["depth_recall"]) / 2
    return means | {
        "mae_std": float(np.std([each.mae for each in scores])),
        "ms": float(np.median([each.ms for each in scores])),
    }


def mask_curve(scores: list[MaskScores]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean precision and recall at each of ALPHAS, over the images in which anything is out of focus."""
    counted = [each for each in scores if not np.isnan(each.recall).any()] or scores
    precision, recall = (
        np.mean([getattr(each, curve) for each in counted], axis=0) for curve in ("precision", "recall")
    )
    return precision, recall


def mask_means(scores: list[MaskScores]) -> dict[str, float]:
    """Return means of the adaptive measures over the images, and the best that one alpha gives for all of them.

    These are the largest F-measure of the mean precision and recall; and the largest mean accuracy, with its alpha
    (the paper's figure 9).
    """
    means = {measure: mean(scores, measure) for measure in ("adaptive_precision", "adaptive_recall", "adaptive_f")}
    precision, recall = mask_curve(scores)
    accuracy = np.mean([each.accuracy for each in scores], axis=0)
    return means | {
        "best_f": float(np.max(_f_measure(precision, recall))),
        "best_accuracy": float(accuracy.max()),
        "best_alpha": float(ALPHAS[accuracy.argmax()]),
    }
