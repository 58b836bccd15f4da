# SPDX-License-Identifier: Apache-2.0
"""The core's table of options, for type checkers and for the command line, which answers before the core is loaded.

Written by ``python -m defocus_fast._table``; see cpp/include/defocus_fast/options.hpp.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypedDict


class Row(NamedTuple):
    """An option; fields as in the core's OptionInfo."""

    kind: str
    optional: bool
    default: Any
    minimum: float
    maximum: float
    names: tuple[str, ...]
    text: str
    nothing: str


class EstimatorOptions(TypedDict, total=False):
    """Of ``Estimator``."""

    model: str | os.PathLike[str]
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"]
    evaluation: Literal["shared", "patch"]
    num_threads: int | None
    kernels: str
    labels: Literal["posterior", "hard"]
    depth_threshold: float | None
    octaves: int | None
    max_edges: int | None
    networks: Callable[[str, list[int], int], object] | None
    canny_sigma: float
    canny_low: float
    canny_high: float
    guide_sigma_s: float
    guide_sigma_r: float
    psi: float
    sigma_s: float | None
    sigma_r: float | None
    iterations: int | None


class FrameOptions(TypedDict, total=False):
    """Of ``estimate``."""

    edge_stride: int
    expected_error: bool
    bin_probabilities: bool


class StrideOptions(TypedDict, total=False):
    """Of ``estimate_into``."""

    edge_stride: int


class CannyOptions(TypedDict, total=False):
    """Of ``detect_edges``."""

    sigma: float
    low: float
    high: float
    num_threads: int | None
    kernels: str


class FilterOptions(TypedDict, total=False):
    """Of ``domain_transform_filter``."""

    sigma_s: float
    sigma_r: float
    iterations: int
    num_threads: int | None
    kernels: str


class PropagationOptions(TypedDict, total=False):
    """Of ``propagate``."""

    guide_sigma_s: float
    guide_sigma_r: float
    psi: float
    sigma_s: float | None
    sigma_r: float | None
    iterations: int | None
    num_threads: int | None
    kernels: str


# fmt: off
ESTIMATOR = {
    'model': Row('path', False, 'fast', 0.0, 0.0, (),
        "Name of a shipped model, or a model folder: a path with a '/' in it.",
        ''),
    'device': Row('name', False, 'auto', 0.0, 0.0, ('auto', 'cpu', 'cuda'),
        'Where frames are computed. auto takes a GPU only if everything that it needs is there.',
        ''),
    'precision': Row('name', False, 'auto', 0.0, 0.0, ('auto', 'float32', 'bfloat16', 'float16', 'int8'),
        'Of the networks. auto is bfloat16 where the CPU has AVX512-BF16, else float32. bfloat16 and int8 are for'
        ' device cpu, float16 for cuda. int8 (CPUs with AVX512-VNNI) computes the layers that all edges share in '
        'integers: faster than float32, at a cost in accuracy that ACCURACY.md states for the shipped models.',
        ''),
    'evaluation': Row('name', False, 'shared', 0.0, 0.0, ('shared', 'patch'),
        'How the networks are evaluated; the probabilities are the same up to rounding. shared: features once per'
        ' image, as all edges share them. patch: device cuda only, three crops per edge through the whole '
        'networks, as in the paper; keeps no features; not of models of the architecture cells, such as fast.',
        ''),
    'num_threads': Row('integer', True, None, 1.0, 1024.0, (),
        'Threads that compute.',
        'all cores'),
    'kernels': Row('text', False, 'auto', 0.0, 0.0, (),
        "Instruction set of this library's own loops, one of available_kernels(); auto is the widest.",
        ''),
    'labels': Row('name', False, 'posterior', 0.0, 0.0, ('posterior', 'hard'),
        'What the probabilities of the radii at an edge become before they are spread. posterior: their mean, '
        'weighted by (1 - depth probability) / (0.15 px + their standard deviation)^2, at depth edges, whose blur'
        ' is that of the nearer side, by 0.02 in place of 1 - depth probability. hard: the most probable radius '
        'with weight 1, at pattern edges only, as in the paper.',
        ''),
    'depth_threshold': Row('number', True, None, 0.0, 1.0, (),
        'Edges of a higher depth probability are depth edges. At 1 none is, and the edge network does not run.',
        "the model's, or 0.5 as in the paper for hard labels"),
    'octaves': Row('integer', True, None, 1.0, 8.0, (),
        "Sizes at which the image is read, at most: the image's own, and each half of the one before, as long as "
        'the shorter side has 64 px. Every one doubles the largest radius that can be read. 1 is the method of '
        'the paper.',
        'as many as there are'),
    'max_edges': Row('integer', True, None, 1.0, 2147483647.0, (),
        'Device cuda only: edges for which there is memory, and for which networks are evaluated. A frame with '
        'more is an error; of images in device memory, where nobody waits for the number, the last edges, at the '
        'bottom of the image, are left out. Photographs seldom have more than the default, noise may have a third'
        ' of its pixels. Models of the architecture cells, such as fast, have memory for all and do not heed it.',
        'a quarter of the pixels, but at least 4096'),
    'networks': Row('object', True, None, 0.0, 0.0, (),
        'Device cuda only: evaluates the networks, see defocus_fast/networks.hpp.',
        'TensorRT, from engines in $DEFOCUS_FAST_CACHE or ~/.cache/defocus_fast, which the Python package builds'),
    'canny_sigma': Row('number', False, 1.4142135623730951, 0.001, 64.0, (),
        "Standard deviation of the edge detector's Gaussian; below 0.125 px nothing is smoothed.",
        ''),
    'canny_low': Row('number', False, 0.08, 0.0, 6.0, (),
        'Low hysteresis threshold of the gradient magnitude (Sobel operators), at most the high one.',
        ''),
    'canny_high': Row('number', False, 0.2, 0.0, 6.0, (),
        'High hysteresis threshold of the gradient magnitude (Sobel operators).',
        ''),
    'guide_sigma_s': Row('number', False, 7.0, 0.01, 100000.0, (),
        'Spatial standard deviation of the filter that makes the guide.',
        ''),
    'guide_sigma_r': Row('number', False, 0.5, 0.0001, 1000000.0, (),
        'Range standard deviation of the filter that makes the guide, in units of [0, 1] summed over three '
        'channels.',
        ''),
    'psi': Row('number', False, 100.0, 0.0, 1000000.0, (),
        'Extra distance across a pixel of a depth edge: how strongly depth edges keep radii from spreading across'
        ' them. 100 in the paper, 20 in the published program.',
        ''),
    'sigma_s': Row('number', True, None, 0.01, 100000.0, (),
        'Spatial standard deviation of the filter that spreads the radii.',
        'min(height, width) / 8'),
    'sigma_r': Row('number', True, None, 0.0001, 1000000.0, (),
        'Range standard deviation of the filter that spreads the radii, in units of [0, 1] summed over three '
        'channels.',
        "the model's, or 3.75 as in the paper for hard labels or without a model"),
    'iterations': Row('integer', True, None, 1.0, 16.0, (),
        'Of both filters, each a pass along rows and one along columns.',
        "the model's, or 5 as in the paper for hard labels or without a model"),
}
