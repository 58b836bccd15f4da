# SPDX-License-Identifier: Apache-2.0
"""Types of the options, written by ``python -m defocus_fast._table``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal, TypedDict


class EstimatorOptions(TypedDict, total=False):
    """Of ``Estimator``."""

    model: str | os.PathLike[str]
    """Name of a shipped model, or a model folder: a path with a '/' in it. Expects a text or a path; default 'fast'."""
    device: Literal["auto", "cpu", "cuda"]
    """Where frames are computed. auto takes a GPU only if everything that it needs is there. Expects one of auto,
    cpu, cuda; default 'auto'."""
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"]
    """Of the networks. auto is bfloat16 where the CPU has AVX512-BF16, else float32. bfloat16 and int8 are for
    device cpu, float16 for cuda. int8 (CPUs with AVX512-VNNI) computes the layers that all edges share in
    integers: faster than float32, at a cost in accuracy that ACCURACY.md states for the shipped models. Expects
    one of auto, float32, bfloat16, float16, int8; default 'auto'."""
    evaluation: Literal["shared", "patch"]
    """How the networks are evaluated; the probabilities are the same up to rounding. shared: features once per
    image, as all edges share them. patch: device cuda only, three crops per edge through the whole networks, as
    in the paper; keeps no features; not of models of the architecture cells, such as fast. Expects one of shared,
    patch; default 'shared'."""
    num_threads: int | None
    """Threads that compute. Expects an integer in [1, 1024], or none; default None: all cores."""
    kernels: str
    """Instruction set of this library's own loops, one of available_kernels(); auto is the widest. Expects a text;
    default 'auto'."""
    labels: Literal["posterior", "hard"]
    """What the probabilities of the radii at an edge become before they are spread. posterior: their mean, weighted
    by (1 - depth probability) / (0.15 px + their standard deviation)^2, at depth edges, whose blur is that of the
    nearer side, by 0.02 in place of 1 - depth probability. hard: the most probable radius with weight 1, at
    pattern edges only, as in the paper. Expects one of posterior, hard; default 'posterior'."""
    depth_threshold: float | None
    """Edges of a higher depth probability are depth edges. At 1 none is, and the edge network does not run. Expects
    a number in [0, 1], or none; default None: the model's, or 0.5 as in the paper for hard labels."""
    max_edges: int | None
    """Device cuda only: edges for which there is memory, and for which networks are evaluated. A frame with more is
    an error; of images in device memory, where nobody waits for the number, the last edges, at the bottom of the
    image, are left out. Photographs seldom have more than the default, noise may have a third of its pixels.
    Expects an integer in [1, 2147483647], or none; default None: a quarter of the pixels, but at least 4096."""
    networks: Callable[[str, list[int], int], object] | None
    """Device cuda only: evaluates the networks, see defocus_fast/networks.hpp. Expects a callable, or none; default
    None: TensorRT, from engines in $DEFOCUS_FAST_CACHE or ~/.cache/defocus_fast, which the Python package builds."""
    canny_sigma: float
    """Standard deviation of the edge detector's Gaussian; below 0.125 px nothing is smoothed. Expects a number in
    [0.001, 64] px; default 1.4142135623730951."""
    canny_low: float
    """Low hysteresis threshold of the gradient magnitude (Sobel operators), at most the high one. Expects a number
    in [0, 6]; default 0.08."""
    canny_high: float
    """High hysteresis threshold of the gradient magnitude (Sobel operators). Expects a number in [0, 6]; default
    0.2."""
    guide_sigma_s: float
    """Spatial standard deviation of the filter that makes the guide. Expects a number in [0.01, 100000] px; default
    7.0."""
    guide_sigma_r: float
    """Range standard deviation of the filter that makes the guide, in units of [0, 1] summed over three channels.
    Expects a number in [0.0001, 1000000]; default 0.5."""
    psi: float
    """Extra distance across a pixel of a depth edge: how strongly depth edges keep radii from spreading across them.
    100 in the paper, 20 in the published program. Expects a number in [0, 1000000] px; default 100.0."""
    sigma_s: float | None
    """Spatial standard deviation of the filter that spreads the radii. Expects a number in [0.01, 100000] px, or
    none; default None: min(height, width) / 8."""
    sigma_r: float | None
    """Range standard deviation of the filter that spreads the radii, in units of [0, 1] summed over three channels.
    Expects a number in [0.0001, 1000000], or none; default None: the model's, or 3.75 as in the paper for hard
    labels or without a model."""
    iterations: int | None
    """Of both filters, each a pass along rows and one along columns. Expects an integer in [1, 16], or none; default
    None: the model's, or 5 as in the paper for hard labels or without a model."""


class FrameOptions(TypedDict, total=False):
    """Of ``estimate``."""

    edge_stride: int
    """The networks are asked only about edges whose row and column are multiples of it, and the others do not count
    as edges: less time and less accuracy, see ACCURACY.md. Expects an integer in [1, 16]; default 1."""
    expected_error: bool
    """Also estimate the map's error at every pixel: 4 bytes a pixel, and a third signal to spread. Expects true or
    false; default True."""
    bin_probabilities: bool
    """Keep the blur network's probability of every radius: 4 bytes a radius and edge. Expects true or false; default
    False."""


class StrideOptions(TypedDict, total=False):
    """Of ``estimate_into``."""

    edge_stride: int
    """The networks are asked only about edges whose row and column are multiples of it, and the others do not count
    as edges: less time and less accuracy, see ACCURACY.md. Expects an integer in [1, 16]; default 1."""


class CannyOptions(TypedDict, total=False):
    """Of ``detect_edges``."""

    sigma: float
    """Standard deviation of the edge detector's Gaussian; below 0.125 px nothing is smoothed. Expects a number in
    [0.001, 64] px; default 1.4142135623730951."""
    low: float
    """Low hysteresis threshold of the gradient magnitude (Sobel operators), at most the high one. Expects a number
    in [0, 6]; default 0.08."""
    high: float
    """High hysteresis threshold of the gradient magnitude (Sobel operators). Expects a number in [0, 6]; default
    0.2."""
    num_threads: int | None
    """Threads that compute. Expects an integer in [1, 1024], or none; default None: all cores."""
    kernels: str
    """Instruction set of this library's own loops, one of available_kernels(); auto is the widest. Expects a text;
    default 'auto'."""


class FilterOptions(TypedDict, total=False):
    """Of ``domain_transform_filter``."""

    sigma_s: float
    """Spatial standard deviation. Expects a number in [0.01, 100000] px; default 7.0."""
    sigma_r: float
    """Range standard deviation, in units of the guide. Expects a number in [0.0001, 1000000]; default 0.5."""
    iterations: int
    """Of a pass along rows and one along columns. Expects an integer in [1, 16]; default 5."""
    num_threads: int | None
    """Threads that compute. Expects an integer in [1, 1024], or none; default None: all cores."""
    kernels: str
    """Instruction set of this library's own loops, one of available_kernels(); auto is the widest. Expects a text;
    default 'auto'."""


class PropagationOptions(TypedDict, total=False):
    """Of ``propagate``."""

    guide_sigma_s: float
    """Spatial standard deviation of the filter that makes the guide. Expects a number in [0.01, 100000] px; default
    7.0."""
    guide_sigma_r: float
    """Range standard deviation of the filter that makes the guide, in units of [0, 1] summed over three channels.
    Expects a number in [0.0001, 1000000]; default 0.5."""
    psi: float
    """Extra distance across a pixel of a depth edge: how strongly depth edges keep radii from spreading across them.
    100 in the paper, 20 in the published program. Expects a number in [0, 1000000] px; default 100.0."""
    sigma_s: float | None
    """Spatial standard deviation of the filter that spreads the radii. Expects a number in [0.01, 100000] px, or
    none; default None: min(height, width) / 8."""
    sigma_r: float | None
    """Range standard deviation of the filter that spreads the radii, in units of [0, 1] summed over three channels.
    Expects a number in [0.0001, 1000000], or none; default None: the model's, or 3.75 as in the paper for hard
    labels or without a model."""
    iterations: int | None
    """Of both filters, each a pass along rows and one along columns. Expects an integer in [1, 16], or none; default
    None: the model's, or 5 as in the paper for hard labels or without a model."""
    num_threads: int | None
    """Threads that compute. Expects an integer in [1, 1024], or none; default None: all cores."""
    kernels: str
    """Instruction set of this library's own loops, one of available_kernels(); auto is the widest. Expects a text;
    default 'auto'."""
