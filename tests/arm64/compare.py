# SPDX-License-Identifier: Apache-2.0
"""Compare what the ARM64 build answers, run by QEMU, with what the x86-64 one does, on a part of a photograph:
``compare.py X86 ARM64``, the build folders. tests/arm64/run calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import tolerances
from PIL import Image

ROOT = Path(__file__).parents[2]
QEMU = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"]
HEIGHT, WIDTH = 150, 200
PHOTO = np.asarray(Image.open(ROOT / "examples" / "otters.jpg").convert("RGB"))[200 : 200 + HEIGHT, 500 : 500 + WIDTH]


class Answers:
    """What tests/cpp/answers.cpp writes."""

    def __init__(self, command: list[str], build: str, kernels: str, precision: str, cpu: str = "max") -> None:
        model = ROOT / "python" / "defocus_fast" / "models" / "fast"
        program = [*command, Path(build) / "tests" / "cpp" / "answers", model, kernels, precision]
        environment = {**os.environ, "QEMU_CPU": cpu}
        data = subprocess.run(
            [*program, str(HEIGHT), str(WIDTH)],
            input=np.ascontiguousarray(PHOTO).tobytes(), env=environment, check=True, stdout=subprocess.PIPE,
        ).stdout  # fmt: skip
        (count,) = np.frombuffer(data, np.int32, 1)
        self.edges = np.frombuffer(data, np.int32, 3 * count, 4)
        floats = np.frombuffer(data, np.float32, offset=4 + 12 * count)
        self.radii, self.depth = floats[:count], floats[count : 2 * count]
        self.map, self.expected_error = np.split(floats[2 * count :], 2)


def compare(found: Answers, expected: Answers, what: str) -> np.ndarray:
    """Differences of the maps (HEIGHT, WIDTH), px; edges must be equal."""
    np.testing.assert_array_equal(found.edges, expected.edges)
    assert len(found.radii) > 1000

    def most(name: str) -> float:
        return np.abs(getattr(found, name) - getattr(expected, name)).max()

    difference = np.abs(found.map - expected.map)
    print(
        f"{what}: {len(found.radii)} equal edges; largest differences: radius {most('radii'):.1g} px, depth probability"
        f" {most('depth'):.1g}, map {most('map'):.1g} px (mean {difference.mean():.1g}), its expected error"
        f" {most('expected_error'):.1g} px"
    )
    return difference


def main() -> None:
    x86, arm64 = sys.argv[1:]
    expected = Answers([], x86, "portable", "float32")
    difference = compare(Answers(QEMU, arm64, "auto", "auto", "cortex-a53"), expected, "without BF16")
    assert difference.max() <= tolerances.MAP_ARM64
    difference = compare(Answers(QEMU, arm64, "auto", "auto"), expected, "with BF16")
    assert tolerances.MAP_ARM64 < difference.mean() <= tolerances.MAP_MEAN_BFLOAT16


if __name__ == "__main__":
    main()
