# SPDX-License-Identifier: Apache-2.0
"""What must hold on a GPU: `pytest -m gpu`, with DEFOCUS_FAST_REQUIRE_GPU=1 where there must be one.

The same tests run on the emulated device. Where TensorRT is not installed, PyTorch evaluates the networks
(examples/torch_networks.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import devices
import numpy as np
import pytest
import tolerances
from devices import Device
from images import texture
from test_interop import check_frames, layouts

import defocus_fast


@pytest.fixture(
    params=["emulated", pytest.param("cupy", marks=pytest.mark.gpu), pytest.param("torch", marks=pytest.mark.gpu)]
)
def device(request: pytest.FixtureRequest) -> Device:
    return devices.make(request.param)


@pytest.mark.parametrize("model", defocus_fast.shipped_models())
def test_stages_equal_the_cpu_s(device: Device, model: str) -> None:
    """From host to host. Each stage is given what the device made of the one before, so rounding does not add up."""
    for height, width in device.sizes:
        picture = texture(height, width, seed=1)
        estimator = device.estimator(model, height, width, labels="hard")
        got = estimator.estimate(picture, bin_probabilities=True)
        edges = defocus_fast.detect_edges(picture)
        np.testing.assert_array_equal(got.edges, np.argwhere(edges))

        cpu = defocus_fast.Estimator(height, width, model=model, device="cpu", precision="float32", labels="hard")
        expected = cpu.estimate(picture, bin_probabilities=True)
        for name in ("depth_probability", "bin_probabilities"):
            values = getattr(got, name), getattr(expected, name)
            np.testing.assert_allclose(*values, rtol=0, atol=device.probability, err_msg=name)

        depth = got.depth_probability > 0.5
        y, x = got.edges.T
        np.testing.assert_array_equal(got.depth_edges[y, x], depth)
        np.testing.assert_array_equal(got.pattern_edges[y, x], ~depth)
        if len(got.radii):
            bins = np.array(estimator.radius_bins, np.float32)
            np.testing.assert_array_equal(got.radii, bins[got.bin_probabilities.argmax(axis=1)])

        radii = np.zeros((height, width), np.float32)
        radii[y, x] = got.radii
        spread = defocus_fast.propagate(picture, radii, got.pattern_edges, got.depth_edges)
        np.testing.assert_allclose(got.map, spread, rtol=0, atol=tolerances.PROPAGATED)


@pytest.mark.parametrize("layout", ["colour", "grey float", "pitch", "every second"])
@pytest.mark.parametrize("stream", [None, 0, 1])
def test_frames_from_device_to_device(device: Device, layout: str, stream: int | None) -> None:
    image = layouts()[layout]
    estimator = device.estimator("fast", *image.shape[:2])
    check_frames(estimator, image, device.to_device, device.to_host, None if stream is None else device.streams[stream])


def test_graphs_replay_what_the_first_frame_did(device: Device) -> None:
    """The first frame with its pointers runs as it is, the second is captured, later ones replay it."""
    pictures = [texture(63, 65, seed=seed) for seed in range(3)]
    estimator = device.estimator("fast", 63, 65)
    expected = [estimator.estimate(picture).map for picture in pictures]
    stream = device.streams[0]
    images = [device.to_device(picture) for picture in pictures]
    outs = [device.to_device(np.zeros((63, 65), np.float32)) for _ in range(20)]  # more than there are graphs kept
    for _ in range(4):
        for i, out in enumerate(outs):
            estimator.estimate_into(images[i % 3], out, stream=stream)
        estimator.edge_count(stream)
        for i, out in enumerate(outs):
            np.testing.assert_array_equal(device.to_host(out), expected[i % 3])
            out[...] = 0
    for i in range(4):  # the same pointers, other pixels
        images[0][...] = images[1 + i % 2]
        estimator.estimate_into(images[0], outs[0], stream=stream)
        estimator.edge_count(stream)
        np.testing.assert_array_equal(device.to_host(outs[0]), expected[1 + i % 2])


def test_frames_on_two_streams_follow_each_other(device: Device) -> None:
    """They share the estimator's memory, and nobody waits between them."""
    pictures = [texture(63, 65, seed=seed) for seed in range(2)]
    estimator = device.estimator("fast", 63, 65)
    expected = [estimator.estimate(picture).map for picture in pictures]
    images = [device.to_device(picture) for picture in pictures]
    outs = [device.to_device(np.zeros((63, 65), np.float32)) for _ in pictures]
    for _ in range(20):
        for image, out, stream in zip(images, outs, device.streams, strict=True):
            estimator.estimate_into(image, out, stream=stream)
    host = estimator.estimate(pictures[0])
    np.testing.assert_array_equal(host.map, expected[0])
    for out, of_picture in zip(outs, expected, strict=True):
        np.testing.assert_array_equal(device.to_host(out), of_picture)


def test_memory_is_flat(device: Device) -> None:
    height, width = 8, 9
    estimator = device.estimator("fast", height, width)
    image = device.to_device(texture(height, width))
    out = device.to_device(np.zeros((height, width), np.float32))

    def frames(count: int) -> None:
        for _ in range(count // 2):
            estimator.estimate_into(image, out, stream=device.streams[0])
            estimator.estimate(image, stream=device.streams[1])
        estimator.edge_count(device.streams[1])

    frames(100)
    before = device.free_bytes()
    frames(400)
    assert before - device.free_bytes() < 1.6e6


def test_a_missing_gpu_is_a_skip_or_a_failure() -> None:
    """Every test that would be skipped fails with DEFOCUS_FAST_REQUIRE_GPU=1."""

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", __file__]
        hidden = {"CUDA_VISIBLE_DEVICES": "", **environment}
        return subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parent, env=os.environ | hidden
        )

    skipped = run(DEFOCUS_FAST_REQUIRE_GPU="0")
    assert skipped.returncode == 0
    assert "skipped" in skipped.stdout
    assert "failed" not in skipped.stdout
    assert "needs -DDEFOCUS_FAST_CUDA=ON" in skipped.stdout or "device: " in skipped.stdout
    failed = run(DEFOCUS_FAST_REQUIRE_GPU="1")
    assert failed.returncode == 1
    assert "DEFOCUS_FAST_REQUIRE_GPU=1, but skipped: " in failed.stdout
    summary = failed.stdout.splitlines()[-1]
    assert "error" in summary
    assert "skipped" not in summary
    assert "passed" not in summary
