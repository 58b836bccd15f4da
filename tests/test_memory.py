# SPDX-License-Identifier: Apache-2.0
"""Memory is bounded by the image, not by the networks, and does not grow with the number of images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from images import texture
from test_model_io import weights

import defocus_fast
from defocus_fast.model_io import write_model

PROGRAM = """
import resource, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import defocus_fast
from images import texture

def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

height, width = 5440, 7360
image = np.tile(texture(680, 736), (8, 10, 1))
assert image.shape == (height, width, 3)
# Edges in one tile only: the networks' memory is that of any number of tiles, their time is not.
edges = np.zeros((height, width), bool)
edges[3000:3100, 3000:3100] = True
before = resident_bytes()
estimator = defocus_fast.Estimator(height, width, model=sys.argv[2], device="cpu", precision="float32")
result = estimator.estimate(image, edges=edges)
assert np.isfinite(result.map).all() and np.isfinite(result.expected_error).all()
assert defocus_fast.detect_edges(image).sum() > 1e6
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(peak - before, len(result.edges))
"""


def test_40_megapixels_take_less_than_1500_megabytes(tmp_path: Path) -> None:
    """Everything that a map needs counts: networks of the full width, planes, masks, lists and the map itself."""
    write_model(tmp_path, weights(width=64), name="wide", crop_offset=0, trained="at random")
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(tmp_path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    extra, edges = (int(number) for number in output.split())
    assert edges == 10_000
    dense = 0.15 * 5440 * 7360  # edges of an image full of them; each adds 24 bytes to the lists
    assert extra + 24 * dense < 1.5e9


WIDE = """
import resource
import numpy as np
import defocus_fast

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

image = np.random.default_rng(0).integers(0, 256, (16, 200_000, 3), np.uint8)
before = peak_bytes()
result = defocus_fast.Estimator(16, 200_000, num_threads=64).estimate(image)
assert np.isfinite(result.map).all()
print(peak_bytes() - before)
"""


def test_wide_low_images_take_memory_by_pixels_not_by_threads() -> None:
    """What a thread needs for a line of pixels is there for the threads that can have work: 64 had taken 6.4 GB."""
    output = subprocess.run([sys.executable, "-c", WIDE], check=True, capture_output=True, text=True).stdout
    assert int(output) < 150 * 16 * 200_000  # the 36 bytes a pixel of the documents, 24 an edge, two lines' scratch


def test_memory_is_flat_over_many_frames(random_model: str) -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    image, flat = texture(64, 80), np.zeros((64, 80, 3), np.uint8)
    out = np.empty((64, 80), np.float32)
    estimator = defocus_fast.Estimator(64, 80, model=random_model)
    video = defocus_fast.VideoEstimator(64, 80, model=random_model)

    def frames(count: int) -> None:
        for i in range(count):
            for each in (estimator, video):
                each.estimate_into(image if i % 100 == 0 else flat, out)
                each.estimate(flat)
            video.estimate_focus(flat)

    frames(500)
    before = resident()
    frames(2500)
    assert resident() - before < 2e6
