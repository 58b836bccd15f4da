# SPDX-License-Identifier: Apache-2.0
"""The table of options: what is made from it agrees with it, and nothing beyond it gets through."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from images import texture

import defocus_fast
from defocus_fast import Estimator, ThreadPool, VideoEstimator, _core, _table

HEIGHT, WIDTH = 20, 31
IMAGE = texture(HEIGHT, WIDTH)
EDGES = defocus_fast.detect_edges(IMAGE)
NONE = np.zeros_like(EDGES)
RADII = np.full((HEIGHT, WIDTH), 2, np.float32)


@pytest.fixture(scope="module")
def calls(random_cells: str) -> dict[str, Callable[..., Any]]:
    """What takes options, by name, with everything else filled in."""
    estimator = Estimator(HEIGHT, WIDTH, model=random_cells)
    video = VideoEstimator(HEIGHT, WIDTH, model=random_cells)
    grey = np.zeros((HEIGHT, WIDTH), np.float32)
    return {
        "ThreadPool": lambda **options: ThreadPool(**options),
        "Estimator": lambda **options: Estimator(HEIGHT, WIDTH, **{"model": random_cells, **options}),
        "VideoEstimator": lambda **options: VideoEstimator(HEIGHT, WIDTH, **{"model": random_cells, **options}),
        "estimate": lambda **options: estimator.estimate(IMAGE, **options),
        "estimate_into": lambda **options: estimator.estimate_into(IMAGE, grey, **options),
        "estimate_focus": lambda **options: video.estimate_focus(IMAGE, **{"rows": 2, "columns": 3, **options}),
        "detect_edges": lambda **options: defocus_fast.detect_edges(IMAGE, **options),
        "domain_transform_filter": lambda **options: defocus_fast.domain_transform_filter(grey, grey, **options),
        "propagate": lambda **options: defocus_fast.propagate(IMAGE, RADII, EDGES, NONE, **options),
    }


FUNCTIONS = {
    "ThreadPool": [ThreadPool],
    "Estimator": [Estimator, Estimator.for_image, defocus_fast.estimate_blur],
    "VideoEstimator": [VideoEstimator],
    "estimate": [Estimator.estimate, VideoEstimator.estimate],
    "estimate_into": [Estimator.estimate_into, VideoEstimator.estimate_into],
    "estimate_focus": [VideoEstimator.estimate_focus],
    "detect_edges": [defocus_fast.detect_edges],
    "domain_transform_filter": [defocus_fast.domain_transform_filter],
    "propagate": [defocus_fast.propagate],
}
OPTIONS = [
    pytest.param(call, option, id=f"{call}-{option.name}") for call in FUNCTIONS for option in _core.option_table(call)
]
NUMBERS = [param for param in OPTIONS if param.values[1].kind in ("integer", "number")]


STUBS = {
    "ThreadPool": "ThreadPoolOptions",
    "Estimator": "EstimatorOptions",
    "VideoEstimator": "VideoEstimatorOptions",
    "estimate": "FrameOptions",
    "estimate_into": "StrideOptions",
    "estimate_focus": "FocusOptions",
    "detect_edges": "CannyOptions",
    "domain_transform_filter": "FilterOptions",
    "propagate": "PropagateOptions",
}


@pytest.mark.parametrize("call", FUNCTIONS)
def test_the_stubs_have_the_table(call: str) -> None:
    stub = Path(defocus_fast.__file__).with_name("_core.pyi").read_text()
    classes = {node.name: node for node in ast.parse(stub).body if isinstance(node, ast.ClassDef)}

    def members(name: str) -> dict[str, str]:
        if name not in classes:
            return {}
        own = [node for node in classes[name].body if isinstance(node, ast.AnnAssign)]
        inherited = [members(ast.unparse(base)) for base in classes[name].bases]
        types = {ast.unparse(node.target): ast.unparse(node.annotation).replace("'", '"') for node in own}
        return {key: value for each in [*inherited, types] for key, value in each.items()}

    assert members(STUBS[call]) == {option.name: _table.annotation(option) for option in _core.option_table(call)}


@pytest.mark.parametrize("call", FUNCTIONS)
def test_signatures_and_help_show_the_table(call: str) -> None:
    table = _core.option_table(call)
    assert table
    for function in FUNCTIONS[call]:
        parameters = inspect.signature(function).parameters
        assert not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
        for option in table:
            assert parameters[option.name].default == option.default
            assert parameters[option.name].annotation == _table.annotation(option)
    text = re.sub(r"\s+", " ", FUNCTIONS[call][0].__doc__ or "")
    assert "{options}" not in text
    if call != "estimate_into":  # which refers to estimate
        for option in table:
            assert f" {option.name}: {_table.description(option)}" in text
            assert option.expected in text
            assert (option.nothing or repr(option.default)) in text


def test_every_option_is_described() -> None:
    for option in _core.option_table("Estimator"):
        assert option.text.endswith(".")
        assert option.optional == bool(option.nothing)
        assert (option.default is None) == option.optional
        assert option.minimum < option.maximum or option.kind not in ("integer", "number")
        assert option.kind != "name" or option.default in option.names


@pytest.mark.parametrize(("call", "option"), NUMBERS)
def test_numbers_beyond_their_range(calls: dict[str, Callable[..., Any]], call: str, option: Any) -> None:
    whole = option.kind == "integer"
    beyond = [option.minimum - 1, option.maximum + 1, 10**30, -(10**400)]
    beyond += [] if whole else [np.nextafter(option.minimum, -1), np.nextafter(option.maximum, np.inf)]
    beyond += [] if whole else [float("nan"), float("inf"), -1e39, 1e39]
    for value in beyond:
        value = int(value) if whole else value
        with pytest.raises(ValueError, match=f"^{option.name}: expected {re.escape(option.expected)}, got "):
            calls[call](**{option.name: value})
    if option.name not in ("max_edges", "num_threads", "canny_low", "low", "canny_high", "high", "rows", "columns"):
        for value in (option.minimum, option.maximum):
            calls[call](**{option.name: int(value) if whole else value})


def test_messages_show_what_was_got() -> None:
    for options, message in [
        ({"psi": -1.0}, "psi: expected a number in [0, 1000000] px, or none, got -1"),
        ({"psi": 1e39}, "psi: expected a number in [0, 1000000] px, or none, got 1e+39"),
        ({"canny_sigma": 64.5}, "canny_sigma: expected a number in [0.001, 64] px, got 64.5"),
        ({"sigma_r": 0}, "sigma_r: expected a number in [0.0001, 1000000], or none, got 0"),
        ({"num_threads": 0}, "num_threads: expected an integer in [1, 1024], or none, got 0"),
        ({"iterations": 17}, "iterations: expected an integer in [1, 16], or none, got 17"),
        ({"max_edges": 2**31}, "max_edges: expected an integer in [1, 2147483647], or none, got 2147483648"),
        ({"precision": "int4"}, 'precision: expected one of auto, float32, bfloat16, float16, int8, got "int4"'),
        ({"evaluation": "auto"}, 'evaluation: expected one of shared, patch, got "auto"'),
        ({"device": "tpu"}, 'device: expected one of auto, cpu, cuda, got "tpu"'),
        ({"labels": "soft"}, 'labels: expected one of posterior, hard, got "soft"'),
        ({"canny_low": 0.5}, "canny_low: expected at most canny_high, which is 0.2, got 0.5"),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            Estimator(10, 10, **options)
    with pytest.raises(ValueError, match="^low: expected at most high, which is 0.2, got 0.5$"):
        defocus_fast.detect_edges(IMAGE, low=0.5)


def test_texts_with_nul_bytes_are_refused_and_shown_whole() -> None:
    """Only what is before the NUL used to be read and shown."""
    for options, message in [
        ({"kernels": "auto\0zzz"}, r'kernels: expected a text without NUL bytes, got "auto\0zzz"'),
        ({"model": "fast\0"}, r'model: expected a text or a path without NUL bytes, got "fast\0"'),
        ({"model": Path("a\0b\0c")}, r'model: expected a text or a path without NUL bytes, got "./a\0b\0c"'),
        ({"device": "cpu\0x"}, r'device: expected one of auto, cpu, cuda, got "cpu\0x"'),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            Estimator(10, 10, **options)
    with pytest.raises(ValueError, match="^kernels: expected a text without NUL bytes, got "):
        defocus_fast.detect_edges(IMAGE, kernels="auto\0")


def test_texts_that_are_no_paths_are_refused_in_short() -> None:
    for options, message in [
        ({"model": "m" * 4096}, "model: expected a text or a path of at most 4095 bytes, got "),
        ({"kernels": "k" * 100_000}, "kernels: expected a text of at most 4095 bytes, got "),
        ({"device": "d" * 100_000}, "device: expected one of auto, cpu, cuda, got "),
        ({"model": "\ud800/"}, r"model: expected a text or a path, got '\\ud800/'$"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}") as caught:
            Estimator(10, 10, **options)
        assert len(str(caught.value)) < 300
    with pytest.raises(TypeError, match=r"^psi: expected .*, got 'x{199}$"):
        Estimator(10, 10, psi="x" * 100_000)


@pytest.mark.parametrize(("call", "option"), OPTIONS)
def test_values_of_another_type(calls: dict[str, Callable[..., Any]], call: str, option: Any) -> None:
    wrong: list[Any] = [[1.0], 1j, b"auto", object()]
    wrong += [] if option.optional else [None]
    wrong += [] if option.kind in ("name", "text", "path") else ["auto"]
    wrong += [] if option.kind == "flag" else [True, np.True_]
    wrong += [2.5, np.float32(2.0)] if option.kind != "number" else []
    wrong += [1, np.int8(1)] if option.kind not in ("number", "integer") else []
    for value in wrong:
        with pytest.raises(
            TypeError, match=f"^{option.name}: expected {re.escape(option.expected)}, got {re.escape(repr(value))}$"
        ):
            calls[call](**{option.name: value})


@pytest.mark.parametrize("call", FUNCTIONS)
def test_unknown_options(calls: dict[str, Callable[..., Any]], call: str) -> None:
    for name in ("Psi", "smoothing", "canny", "ps\u0131"):
        with pytest.raises(TypeError, match=rf"^{call}\(\) got an unexpected keyword argument '{name}'$"):
            calls[call](**{name: 1})


def test_numbers_of_other_libraries(calls: dict[str, Callable[..., Any]]) -> None:
    expected = calls["propagate"](psi=2.0, iterations=3)
    for psi in (2, np.float32(2), np.int16(2), np.float64(2), Fraction(2)):
        for iterations in (np.int8(3), np.uint64(3)):
            np.testing.assert_array_equal(calls["propagate"](psi=psi, iterations=iterations), expected)
    assert calls["estimate"](expected_error=np.False_).expected_error.shape == (0, 0)


def test_none_and_left_out_are_the_same(calls: dict[str, Callable[..., Any]]) -> None:
    given = {option.name: option.default for option in _core.option_table("propagate")}
    np.testing.assert_array_equal(calls["propagate"](**given), calls["propagate"]())
    np.testing.assert_array_equal(
        calls["propagate"](sigma_s=HEIGHT / 8, sigma_r=3.75, iterations=5), calls["propagate"]()
    )
    for option in _core.option_table("Estimator"):
        if option.name != "model":
            calls["Estimator"](**{option.name: option.default})


def test_extreme_options_give_the_maps_of_double_precision() -> None:
    """All combinations of ends of ranges: psi=1e39 and the like used to overflow to maps of NaN."""
    image = texture(24, 35, seed=3)
    edges = defocus_fast.detect_edges(image)
    depth = np.zeros_like(edges)
    depth[:, 17] = True
    pattern = edges & ~depth
    radii = np.where(edges, np.random.default_rng(0).uniform(0.5, 6, edges.shape), 0).astype(np.float32)
    rows = {option.name: option for option in _core.option_table("propagate")}
    names = ("psi", "sigma_s", "sigma_r", "guide_sigma_s", "guide_sigma_r", "iterations")
    picture = image / 255.0
    for values in itertools.product(*((rows[name].minimum, rows[name].maximum) for name in names)):
        options = dict(zip(names, values, strict=True)) | {"iterations": int(values[-1])}
        found = defocus_fast.propagate(image, radii, pattern, depth, **options)
        assert found.min() > 0.49, options
        assert found.max() < 6.01, options
        psi, sigma_s, sigma_r, guide_sigma_s, guide_sigma_r, iterations = options.values()
        if (guide_sigma_s, guide_sigma_r, sigma_r) == (1e5, 1e6, 1e-4):
            continue  # the guide is flat but for the rounding of float32, which such a sigma_r does not ignore
        guide = reference.domain_transform_filter(picture, picture, guide_sigma_s, guide_sigma_r, iterations)
        distances = reference.domain_distances(guide, sigma_s, sigma_r, psi * depth)
        spread, weight = (
            reference.recursive_filter(signal, distances, sigma_s, iterations)
            for signal in (np.where(pattern, radii, 0.0), pattern.astype(float))
        )
        reached = weight > 1e-30
        np.testing.assert_allclose(found[reached], (spread / np.where(reached, weight, 1))[reached], rtol=0, atol=0.003)


@pytest.mark.parametrize("end", ["minimum", "maximum"])
def test_every_extreme_option_gives_a_finite_map(calls: dict[str, Callable[..., Any]], end: str) -> None:
    for option in _core.option_table("Estimator"):
        if option.kind in ("integer", "number") and option.name not in ("num_threads", "max_edges"):
            value = getattr(option, end)
            options = {option.name: int(value) if option.kind == "integer" else value}
            options |= {"canny_high": value} if option.name == "canny_low" else {}
            options |= {"canny_low": 0.0} if option.name == "canny_high" else {}
            result = calls["Estimator"](**options).estimate(IMAGE)
            assert np.isfinite(result.map).all(), options
            assert np.isfinite(result.expected_error).all(), options
            assert result.map.max() <= 6, options
    assert not defocus_fast.detect_edges(255 * (IMAGE > 127).astype(np.uint8), high=6.0).any()


def test_results_say_what_they_hold() -> None:
    assert set(re.findall(r"^ {4}(\w+): ", inspect.getdoc(defocus_fast.BlurMap) or "", re.M)) == set(
        defocus_fast.BlurMap.__annotations__
    )
