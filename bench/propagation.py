# SPDX-License-Identifier: Apache-2.0
"""Compare ways to spread the radii of the same edges (section IV-D of the paper): ``python bench/propagation.py SCENES
--model fast --json PROPAGATION.json``, which bench/accuracy.py reads. SCENES is written by ``training.scenes``.

Edges and radii are the estimator's with ``octaves=1, labels="hard"``, the paper's form. The numbers in the
other methods are those of their authors' programs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

import defocus_fast
from defocus_fast import _images, evaluation

sys.path.append(str(Path(__file__).parents[1]))

from training import existing, positive, run

Array = np.ndarray[Any, Any]

# Closed-form matting Laplacian (Levin et al.) as Zhuo and Sim [14] and Park et al. [3] use it.
LAPLACIAN_EPSILON, LAPLACIAN_WEIGHT = 1e-5, 0.005
# Connected edge filter, Karaali and Jung [7]: gamma, and in place of the number of scales at which an edge is found,
# which is 4 to 9 there and not known here, its middle.
CEF_GAMMA, CEF_SCALES = 10.0, 6.5
# Probability-joint bilateral filter, Park et al. [3]: half of the window, and the standard deviations of distance (px),
# guide (levels of 255) and 1 - probability; of the rolling guidance filter the spatial one (px), range and iterations.
PJBF_REACH, PJBF_SPACE, PJBF_RANGE, PJBF_PROBABILITY = 13, 100.0, 100.0, 1.0
GUIDANCE_SPACE, GUIDANCE_RANGE, GUIDANCE_ITERATIONS = 1.5, 1.5, 3


def connected_edge_filter(radii: Array, pattern: Array) -> Array:
    """Return the radii x at pattern edges, from the r there, of least sum of (1 + scales) (x - r)^2 plus gamma for
    every pair of 8-connected edges, counted from both sides, times the squared difference of their x."""
    number = np.full(pattern.shape, -1)
    number[pattern] = np.arange(pattern.sum())
    padded = np.pad(number, 1, constant_values=-1)
    pairs = []
    for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
        other = padded[1 + dy : 1 + dy + number.shape[0], 1 + dx : 1 + dx + number.shape[1]]
        both = (number >= 0) & (other >= 0)
        pairs.append(np.stack([number[both], other[both]]))
    first, second = np.concatenate(pairs, axis=1)
    count = int(pattern.sum())
    links = sparse.coo_matrix((np.ones(len(first)), (first, second)), (count, count))
    links = links + links.T
    laplacian = sparse.diags(np.asarray(links.sum(1)).ravel()) - links
    data = 1 + CEF_SCALES
    filtered = radii.copy()
    filtered[pattern] = spsolve(
        (data * sparse.identity(count) + 2 * CEF_GAMMA * laplacian).tocsc(), data * radii[pattern].astype(float)
    )
    return filtered


def probability_joint_bilateral_filter(radii: Array, pattern: Array, probability: Array, image: Array) -> Array:
    """Return the mean, at every pattern edge, of the radii of the pattern edges in a window around it, weighted by
    Gaussians of distance, of the difference of the guide, and of 1 - the probability of the radius."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    guide = cv2.ximgproc.rollingGuidanceFilter(
        grey, None, -1, GUIDANCE_RANGE, GUIDANCE_SPACE, GUIDANCE_ITERATIONS, cv2.BORDER_REFLECT
    )
    counts = pattern * np.exp(-((1 - probability) ** 2) / (2 * PJBF_PROBABILITY**2))
    reach, (height, width) = PJBF_REACH, pattern.shape
    wide_counts, wide_radii, wide_guide = (np.pad(each, reach) for each in (counts, radii, guide))
    sums, weights = np.zeros(pattern.shape), np.zeros(pattern.shape)
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            part = slice(dy, dy + height), slice(dx, dx + width)
            apart = (dy - reach) ** 2 + (dx - reach) ** 2
            weight = wide_counts[part] * np.exp(
                -apart / (2 * PJBF_SPACE**2) - (wide_guide[part] - guide) ** 2 / (2 * PJBF_RANGE**2)
            )
            weights += weight
            sums += weight * wide_radii[part]
    filtered = radii.copy()
    filtered[pattern] = (sums[pattern] / weights[pattern]).astype(radii.dtype)
    return filtered


def laplacian_propagation(image: Array, pattern: Array) -> Callable[[Array], Array]:
    """Return the function that makes from radii at pattern edges the map of least map' L map + weight * sum over the
    pattern edges of the squared difference; L is the matting Laplacian of `image`."""
    import pymatting  # which compiles itself for seconds, and the filters do without

    matting = pymatting.cf_laplacian(image.astype(np.float64) / 255, epsilon=LAPLACIAN_EPSILON)
    known = LAPLACIAN_WEIGHT * pattern.ravel().astype(np.float64)
    system = (matting + sparse.diags(known)).tocsc()
    preconditioner = pymatting.ichol(system)

    def spread(radii: Array) -> Array:
        solved = pymatting.cg(system, known * radii.ravel(), M=preconditioner, rtol=1e-4)
        return np.asarray(solved).reshape(pattern.shape)

    return spread


def maps_of(image: Array, estimator: defocus_fast.Estimator) -> dict[str, tuple[Array, float]]:
    """Return the map and the ms of spreading by every method."""
    result = estimator.estimate(image)
    pattern, depth = result.pattern_edges, result.depth_edges
    radii, probability = np.zeros(pattern.shape, np.float32), np.zeros(pattern.shape, np.float32)
    radii[tuple(result.edges.T)], probability[tuple(result.edges.T)] = result.radii, result.radius_probability
    maps = {}

    def add(name: str, make: Callable[[], Array], before: float = 0.0) -> None:
        start = time.perf_counter()
        made = make()
        maps[name] = made, before + 1e3 * (time.perf_counter() - start)

    def aware(known: Array, psi: float | None = None) -> Callable[[], Array]:
        return lambda: defocus_fast.propagate(image, known, pattern, depth, psi=psi)

    add("depth-edge-aware", aware(radii))
    add("without depth edges (psi 0)", aware(radii, 0.0))
    start = time.perf_counter()
    laplacian = laplacian_propagation(image, pattern)
    set_up = 1e3 * (time.perf_counter() - start)
    add("Laplacian", lambda: laplacian(radii), set_up)
    filters: dict[str, Callable[[], Array]] = {
        "CEF": lambda: connected_edge_filter(radii, pattern),
        "PJBF": lambda: probability_joint_bilateral_filter(radii, pattern, probability, image),
    }
    for name, make in filters.items():
        start = time.perf_counter()
        filtered = make()
        ms = 1e3 * (time.perf_counter() - start)
        add(f"{name}, depth-edge-aware", aware(filtered), ms)
        add(f"{name}, Laplacian", lambda filtered=filtered: laplacian(filtered), set_up + ms)  # type: ignore[misc]
    return maps


def measure(args: argparse.Namespace) -> None:
    pairs = evaluation.pairs(args.scenes, args.scenes)[0][: args.count]
    if not pairs:
        raise ValueError(f"{args.scenes}: no scenes; write them with training.scenes")
    rows = []
    for model in args.models:
        errors: dict[str, list[float]] = {}
        times: dict[str, list[float]] = {}
        for number, (file, truth_file) in enumerate(pairs):
            image, truth = _images.read_photo(file), evaluation.read_truth(truth_file)
            estimator = defocus_fast.Estimator.for_image(image, model=model, octaves=1, labels="hard")
            for name, (made, ms) in maps_of(image, estimator).items():
                errors.setdefault(name, []).append(float(np.abs(made - truth).mean()))
                times.setdefault(name, []).append(ms)
            print(f"{model}: {number + 1} of {len(pairs)}", flush=True)
        for name, values in errors.items():
            row = {"model": model, "method": name, "mae": float(np.mean(values)), "mae_std": float(np.std(values))}
            rows.append(row | {"ms": float(np.median(times[name]))})
            print(rows[-1], flush=True)
    result = {"date": str(datetime.date.today()), "cores": os.cpu_count(), "scenes": len(pairs), "rows": rows}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=existing, help="folder written by training.scenes")
    parser.add_argument("--model", dest="models", action="append", required=True, help="give it once for every one")
    parser.add_argument("--count", type=positive, default=8, help="of the first scenes; the Laplacian takes long")
    parser.add_argument("--json", type=Path, help="write all figures there")
    run(parser, measure)


if __name__ == "__main__":
    main()
