# SPDX-License-Identifier: Apache-2.0
"""Memory is bounded by the picture, not by the networks, and does not grow with the number of pictures."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pictures import texture

import defocus_fast

PROGRAM = """
import resource, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import defocus_fast
from pictures import texture

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

height, width = 5440, 7360
tile = texture(680, 736)
image = np.tile(tile, (8, 10, 1))
assert image.shape == (height, width, 3)
# A fiftieth of the edges, so that the networks' time does not make this test slow; the trunk still sees every tile.
edges = np.zeros((height, width), bool)
edges[::7, ::7] = True
before = peak_bytes()
estimator = defocus_fast.Estimator(height, width, model=sys.argv[2], precision="float32", evaluation="shared")
result = estimator.estimate(image, edges=edges)
assert np.isfinite(result.map).all()
detected = defocus_fast.detect_edges(image)
print(peak_bytes() - before, len(result.edges), int(detected.sum()))
"""


@pytest.mark.slow
def test_40_megapixels_take_less_than_1500_megabytes(random_model: str) -> None:
    """Everything: networks, planes, masks, the map itself. Each edge adds 20 bytes, counted for a picture of edges."""
    command = [sys.executable, "-c", PROGRAM, str(__file__).rsplit("/", 1)[0], random_model]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    extra, edges, detected = (int(number) for number in output.split())
    assert extra + 20 * (detected - edges) < 1.5e9
    assert detected > edges


def test_memory_is_flat_over_many_frames(random_model: str) -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    image, flat = texture(64, 80), np.zeros((64, 80, 3), np.uint8)
    out = np.empty((64, 80), np.float32)
    estimator = defocus_fast.Estimator(64, 80, model=random_model)

    def frames(count: int) -> None:
        for i in range(count):
            estimator.estimate_into(image if i % 100 == 0 else flat, out)
            estimator.estimate(flat)

    frames(1000)
    before = resident()
    frames(10_000)
    assert resident() - before < 4e6
