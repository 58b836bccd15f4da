# SPDX-License-Identifier: Apache-2.0
"""Count the instructions that the kernels take for a pixel of a frame, on ARM64 and on x86-64: ``python
bench/instructions.py``, after tests/arm64/run. Needs Debian's packages qemu-user and valgrind.

ARM64's are counted by QEMU, x86-64's by valgrind, which does not know AVX-512. They say nothing of what an instruction
costs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH = 300, 400
PHOTO = np.asarray(Image.open(ROOT / "examples" / "otters.jpg").convert("RGB"))[150 : 150 + HEIGHT, 400 : 400 + WIDTH]
KERNELS = {
    "edges": ["brightest", "smooth_columns", "smooth_row", "gradient", "thin"],
    "convolutions": ["convolve", "convolve_tile"],
    "Winograd's transforms": ["convolve_squares"],
    "propagation": ["feedback", "recursive_pass", "gather_lines", "scatter_lines"],
    "all kernels": [""],
}
Counts = list[tuple[int, str]]  # instructions, function


def run(tool: list[str], build: str, kernels: str, precision: str) -> str:
    """Return what the tool writes about tests/cpp/answers.cpp."""
    model = ROOT / "python" / "defocus_fast" / "models" / "fast"
    program = [ROOT / "build" / build / "tests" / "cpp" / "answers", model, kernels, precision, str(HEIGHT), str(WIDTH)]
    done = subprocess.run(
        [*tool, *program],
        input=np.ascontiguousarray(PHOTO).tobytes(), check=True, capture_output=True,
        env={**os.environ, "QEMU_CPU": "max"},
    )  # fmt: skip
    return done.stderr.decode()


def arm64(precision: str, work: Path) -> Counts:
    plugin = work / "instructions.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", Path(__file__).with_suffix(".c"), "-o", plugin], check=True)
    text = run(["qemu-aarch64", "-plugin", str(plugin), "-L", "/usr/aarch64-linux-gnu"], "aarch64", "neon", precision)
    text = subprocess.run(["c++filt"], input=text, check=True, capture_output=True, text=True).stdout
    return [(int(line.split()[0]), line) for line in text.splitlines()]


def x86(kernels: str, work: Path) -> Counts:
    out = work / "callgrind.out"
    run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"], "release", kernels, "float32")
    annotate = ["callgrind_annotate", "--threshold=100", out]
    text = subprocess.run(annotate, check=True, capture_output=True, text=True).stdout
    lines = re.findall(r"^ *([\d,]+) .*?:(.*)$", text, re.MULTILINE)
    return [(int(count.replace(",", "")), name) for count, name in lines]


def per_pixel(counts: Counts, functions: list[str]) -> float:
    # As in "void defocus_fast::avx2::(anonymous namespace)::thin<double>(double const*".
    names = "|".join(functions) or r"\w+"
    inside = re.compile(rf"defocus_fast::(avx2|portable|neon|neonbf16)::\(anonymous namespace\)::({names})(_of)?[<(]")
    return sum(count for count, name in counts if inside.search(name)) / (HEIGHT * WIDTH)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        columns = {
            "AVX2": x86("avx2", work),
            "SSE2": x86("portable", work),
            "NEON": arm64("float32", work),
            "NEON, bfloat16": arm64("bfloat16", work),
        }
    sys.stdout.write(f"Instructions per pixel of a frame of {WIDTH}x{HEIGHT}, model fast:\n\n")
    sys.stdout.write(f"| kernels | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}\n")
    for name, functions in KERNELS.items():
        row = " | ".join(f"{per_pixel(counts, functions):,.0f}" for counts in columns.values())
        sys.stdout.write(f"| {name} | {row} |\n")


if __name__ == "__main__":
    main()
