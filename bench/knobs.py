# SPDX-License-Identifier: Apache-2.0
"""Measure what every setting costs, in time and in accuracy, and write the table of docs/settings.md: ``python
bench/knobs.py TEST WIDE``, the folders of test scenes of training/README.md.

Time is that of the processor, of all threads together, and a setting's frames and the default's take turns: a busy
machine changes little.
"""

from __future__ import annotations

import argparse
import datetime
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import report
from conftest import machine

import defocus_fast
from defocus_fast import _core, _images, evaluation

PAGE = report.ROOT / "docs" / "settings.md"
# Arguments as they are written in Python, of Estimator and of estimate.
SETTINGS = """
octaves=1
precision="float32"
precision="int8"
kernels="avx2"
kernels="portable"
edge_stride=2
edge_stride=3
expected_error=False
bin_probabilities=True
labels="hard"
distances="domain_transform"
grid="corner"
fine_thresholds=1
fine_thresholds=0.2
psi=0
psi=100
sigma_s=min(height, width) / 8
sigma_s=min(height, width) / 2
octaves=1, labels="hard", psi=100
model="tiny"
model="tiny", octaves=1
model="tiny", edge_stride=3
model="tip22"
"""


class Setting:
    """Estimates with the arguments of one line of SETTINGS."""

    def __init__(self, arguments: str, height: int, width: int) -> None:
        options: dict[str, Any] = eval(f"dict({arguments})", {"height": height, "width": width, "min": min})
        self._frame = {row.name: options.pop(row.name) for row in _core.option_table("estimate") if row.name in options}
        self._estimator = defocus_fast.Estimator(height, width, **options)

    def estimate(self, image: np.ndarray[Any, Any]) -> defocus_fast.BlurMap:
        return self._estimator.estimate(image, **self._frame)


def ratio(setting: Setting, default: Setting, frame: np.ndarray[Any, Any], seconds: float) -> float:
    """Return the median of the rounds' ratios of time."""

    def timed(call: Setting) -> float:
        begin = time.process_time()
        call.estimate(frame)
        return time.process_time() - begin

    timed(setting)
    rounds = []
    end = time.perf_counter() + seconds
    while len(rounds) < 5 or time.perf_counter() < end:
        rounds.append((timed(setting), timed(default)))
    own, others = np.transpose(rounds)
    return float(np.median(own / others))


def errors(arguments: str, folder: Path) -> tuple[float, float]:
    """Return the means over the scenes of the raw MAE in px and of the error in octaves."""
    setting, size, scores = None, None, []
    for photo, truth in evaluation.pairs(folder, folder)[0]:
        image, radii = _images.read_photo(photo), evaluation.read_truth(truth)
        if setting is None or size != radii.shape:
            setting, size = Setting(arguments, *radii.shape), radii.shape
        blur = setting.estimate(image).map
        scores.append((np.abs(blur - radii).mean(), evaluation.octave_errors(blur, radii).mean()))
    mae, octaves = np.mean(scores, axis=0)
    return float(mae), float(octaves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs=2, metavar="TEST WIDE", help="with radii up to 6 px, and up to 40")
    parser.add_argument("--seconds", type=float, default=5, help="of timing a setting")
    args = parser.parse_args()
    frame = _images.read_photo(report.ROOT / "examples" / "otters.jpg")
    size = frame.shape[:2]
    default = Setting("", *size)
    rows = []
    for arguments in ["", *SETTINGS.strip().splitlines()]:
        name = f"`{arguments}`" if arguments else "the default"
        try:
            setting = Setting(arguments, *size)
        except defocus_fast.BackendUnavailable:
            rows.append([name, "not on this machine", "-", "-"])
            continue
        times = ratio(setting, default, frame, args.seconds)
        if arguments and np.array_equal(setting.estimate(frame).map, default.estimate(frame).map):
            rows.append([name, f"{times:.2f}", "same", "same"])
        else:
            (mae, _), (_, octaves) = (errors(arguments, folder) for folder in args.scenes)
            rows.append([name, f"{times:.2f}", f"{mae:.3f}", f"{octaves:.3f}"])
        print(*rows[-1], sep="\t", flush=True)
    facts, estimator = machine(), defocus_fast.Estimator(*size)
    narrow, wide = (len(evaluation.pairs(folder, folder)[0]) for folder in args.scenes)
    text = f"""<!-- knobs -->
Written by `python bench/knobs.py TEST WIDE` on {datetime.date.today()}: {facts["threads"]} threads on
{facts["processor"]["model name"]} (family {facts["processor"]["cpu family"]}), kernels {estimator.kernels}, \
{estimator.precision}, defocus_fast {defocus_fast.__version__}.
"time": that of the processor, of all threads together, of a frame of `examples/otters.jpg` ({size[1]}x{size[0]}),
in units of the default's: the median of the rounds in which a setting and the default take turns. The default's own
row shows how exact that is; [BENCHMARK.md](../BENCHMARK.md) has times in ms. "px": raw MAE, the mean of |map - truth|
on {narrow} scenes of radii up to 6 px. "octaves": the mean of |log2((map + 0.5) / (truth + 0.5))| on {wide} scenes of
radii up to 40 px. Both sets are those of [ACCURACY.md](../ACCURACY.md). "same": the map is the default's, bit for bit.

{report.table(["setting", "time", "px", "octaves"], rows)}<!-- /knobs -->"""
    page, count = re.subn(r"(?s)<!-- knobs -->.*<!-- /knobs -->", lambda _: text, PAGE.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{PAGE}: expected the markers <!-- knobs --> and <!-- /knobs -->")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
