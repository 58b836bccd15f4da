# SPDX-License-Identifier: Apache-2.0
"""The authors' published weights give what the authors' published program gave.

Their files are GPL-3.0 and not part of this project: they lie in ``shared/reference`` beside the checkout or where
DEFOCUS_FAST_REFERENCE points.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tolerances
from emulated import device_options
from PIL import Image
from skimage.feature import canny

import defocus_fast

REFERENCE = Path(os.environ.get("DEFOCUS_FAST_REFERENCE", Path(__file__).resolve().parents[2] / "shared" / "reference"))
pytestmark = pytest.mark.skipif(
    not (REFERENCE / "golden_image_01.npz").is_file(), reason=f"the published program's files are not in {REFERENCE}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("models") / "published"
    command = Path(sys.executable).with_name("defocus-fast")
    subprocess.run([command, "import-weights", REFERENCE / "models", out], check=True)
    return str(out)


@pytest.fixture(scope="module")
def golden() -> Any:
    return np.load(REFERENCE / "golden_image_01.npz")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.asarray(Image.open(REFERENCE / "image_01.png").convert("RGB"))


@pytest.fixture(scope="module")
def edges() -> np.ndarray:
    return np.asarray(Image.open(REFERENCE / "edges" / "edge_01.png")) > 0


def propagated(picture: np.ndarray, golden: Any, bins: np.ndarray, kernels: str = "auto") -> np.ndarray:
    """The map of these bins (n,) at the recorded edges, by propagation alone."""
    y, x = golden["y"], golden["x"]
    radii, depth = np.zeros((360, 360), np.float32), np.zeros((360, 360), bool)
    depth[y, x] = golden["edge_prob"].argmax(axis=1) == 1
    radii[y, x] = np.arange(0.5, 6.01, 0.25)[bins]
    return defocus_fast.propagate(picture, radii, (radii > 0) & ~depth, depth, psi=20, kernels=kernels)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_reproduces_the_published_program_in_float32(
    model: str, golden: Any, picture: np.ndarray, edges: np.ndarray, device: str
) -> None:
    size = picture.shape[:2]
    options = device_options(model, *size, int(edges.sum())) if device == "cuda" else {"device": "cpu"}
    estimator = defocus_fast.Estimator(
        *size, model=model, octaves=1, psi=20, labels="hard", precision="float32", **options
    )
    result = estimator.estimate(picture, edges=edges, bin_probabilities=True)
    np.testing.assert_array_equal(result.edges, np.stack([golden["y"], golden["x"]], axis=1))
    assert len(result.edges) == 21406

    blur = result.bin_probabilities
    np.testing.assert_allclose(blur, golden["blur_prob"], rtol=0, atol=tolerances.PROBABILITY_FLOAT32)
    np.testing.assert_allclose(
        result.depth_probability, golden["edge_prob"][:, 1], rtol=0, atol=tolerances.PROBABILITY_FLOAT32
    )
    same_level = blur.argmax(axis=1) == golden["blur_prob"].argmax(axis=1)
    is_depth = golden["edge_prob"].argmax(axis=1) == 1
    y, x = result.edges.T
    assert same_level.mean() >= tolerances.CLASS_AGREEMENT_FLOAT32
    assert (result.depth_edges[y, x] == is_depth).mean() >= tolerances.CLASS_AGREEMENT_FLOAT32
    assert (result.pattern_edges[y, x] != is_depth).mean() >= tolerances.CLASS_AGREEMENT_FLOAT32

    # ONNX Runtime, which evaluates the networks of the emulated device, decides the recorded tie the other way.
    expected = golden["map"] if device == "cpu" else propagated(picture, golden, blur.argmax(axis=1))
    difference = np.abs(result.map - expected)
    assert difference.mean() <= tolerances.MAP_MEAN_FLOAT32
    assert difference.max() <= tolerances.MAP_MAX_FLOAT32


def test_reproduces_the_published_map_in_bfloat16(
    model: str, golden: Any, picture: np.ndarray, edges: np.ndarray
) -> None:
    try:
        estimator = defocus_fast.Estimator(
            *picture.shape[:2], model=model, octaves=1, psi=20, labels="hard", precision="bfloat16"
        )
    except defocus_fast.BackendUnavailable as error:
        pytest.skip(str(error))
    result = estimator.estimate(picture, edges=edges)
    assert np.abs(result.map - golden["map"]).mean() <= tolerances.MAP_MEAN_BFLOAT16


def test_propagation_alone_reproduces_the_recorded_map(golden: Any, picture: np.ndarray) -> None:
    """From the recorded probabilities, so that a difference here is the filter's."""
    for kernels in defocus_fast.available_kernels():
        found = propagated(picture, golden, golden["blur_prob"].argmax(axis=1), kernels)
        np.testing.assert_allclose(found, golden["map"], rtol=0, atol=tolerances.PROPAGATED)


def test_detected_edges_are_close_to_the_published_ones() -> None:
    """The published edge maps come from another program; the facts at hand say F1 0.93."""
    found = defocus_fast.detect_edges(np.asarray(Image.open(REFERENCE / "image_01.png").convert("RGB")))
    published = np.asarray(Image.open(REFERENCE / "edges" / "edge_01.png")) > 0
    f1 = 2 * (found & published).sum() / (found.sum() + published.sum())
    assert f1 > 0.92


def test_edges_and_filter_on_the_reference_pictures() -> None:
    """The image and the 22 published edge maps, taken as images: lines one pixel wide, full of ties."""
    paths = [REFERENCE / "image_01.png", *sorted((REFERENCE / "edges").glob("*.png"))]
    assert len(paths) == 23
    for path in paths:
        image = np.asarray(Image.open(path).convert("RGB"))
        expected = canny(image.max(axis=2) / 255.0, 2**0.5, 0.08, 0.20)
        np.testing.assert_array_equal(defocus_fast.detect_edges(image), expected)
        scaled = image.astype(np.float32) / 255
        filtered = cv2.ximgproc.dtFilter(scaled, scaled, 7.0, 0.5, mode=2, numIters=5)
        found = defocus_fast.domain_transform_filter(scaled, scaled, sigma_s=7.0, sigma_r=0.5)
        np.testing.assert_allclose(found, filtered, rtol=0, atol=tolerances.FILTER)


def test_published_edge_picture_and_map_picture(model: str, picture: np.ndarray, edges: np.ndarray) -> None:
    """The published map image is 255 R / 6 rounded down, and equals the recorded map to one grey level."""
    estimator = defocus_fast.Estimator(360, 360, model=model, octaves=1, psi=20, labels="hard", precision="float32")
    result = estimator.estimate(picture, edges=edges)
    published = np.asarray(Image.open(REFERENCE / "image_01_bmap.png").convert("L")).astype(int)
    assert np.abs((255 * result.map / 6).astype(int) - published).max() <= 1


@pytest.mark.parametrize("own", ["fast", "tip22"])
def test_own_weights_agree_with_the_published_map(own: str, picture: np.ndarray, golden: Any) -> None:
    """Trained apart, on other images. On light-field images the published weights err 0.166 px themselves; half the
    spread of the map is what a constant would reach."""
    found = defocus_fast.Estimator(360, 360, model=own, precision="float32").estimate(picture).map
    difference = np.abs(found - golden["map"]).mean()
    assert difference < 0.166
    assert difference < np.abs(golden["map"] - np.median(golden["map"])).mean() / 2
