# SPDX-License-Identifier: Apache-2.0
"""Time frames on a GPU, and beside them the CPU path on the same machine: ``python bench/gpu.py [--json FILE]``.

The networks are evaluated by TensorRT or, where it is not installed, by PyTorch (examples/torch_networks.py). Writes
bench/gpu.json, from which bench/report.py makes the section of BENCHMARK.md. Needs a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import defocus_fast
from defocus_fast import benchmark

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import devices  # noqa: E402

SIZES = [(480, 640), (1080, 1920), (2160, 3840)]


def summary(ms: list[float]) -> dict[str, float]:
    return {"median": float(np.median(ms)), "p99": float(np.percentile(ms, 99)), "n": len(ms)}


def of_gpu(frame: np.ndarray[Any, Any], model: str, precision: str, seconds: float) -> dict[str, Any]:
    options = {"device": "cuda", "precision": precision, "networks": devices.networks()}
    times = benchmark.time_frames(frame, seconds, model=model, **options)
    device_to_device = times.stages.pop("device to device")
    return {
        "stages": {name: float(np.median(ms)) for name, ms in times.stages.items() if name != "whole frame"},
        "host_to_host": summary(times.stages["whole frame"]),
        "device_to_device": summary(device_to_device),
        "first_ms": times.construct + times.first_call,
        "edges": times.edges,
    }


def versions() -> dict[str, str]:
    found = {
        "driver": subprocess.check_output(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], text=True
        ).split("\n")[0]
    }
    if devices.networks() is not None:
        import torch

        found |= {"PyTorch": torch.__version__, "cuDNN": str(torch.backends.cudnn.version())}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("gpu.json"))
    parser.add_argument("--seconds", type=float, default=2.0, help="of measuring each time")
    args = parser.parse_args()
    photo = np.asarray(Image.open(ROOT / "examples" / "otters.jpg"))
    cases = []
    for height, width in SIZES:
        frame = benchmark.of_size(photo, height, width)
        for model in defocus_fast.shipped_models() if height <= 1080 else ["fast"]:
            # One of the CPU between those of the GPU: the same minute of the same machine.
            cpu = benchmark.time_frames(frame, args.seconds, model=model, device="cpu").stages["whole frame"]
            for precision in ("float32", "float16"):
                case = {"height": height, "width": width, "model": model, "precision": precision, "cpu": summary(cpu)}
                case |= of_gpu(frame, model, precision, args.seconds)
                print(case, flush=True)
                cases.append(case)
    name = subprocess.check_output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], text=True).split("\n")[
        0
    ]
    processor = next(
        (line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if line[:10] == "model name"),
        "",
    )
    cpu = defocus_fast.Estimator(8, 8, device="cpu")
    machine = {
        "gpu": name,
        "processor": processor,
        "threads": cpu.num_threads,
        "cpu_precision": cpu.precision,
        "networks": "TensorRT" if devices.networks() is None else "PyTorch",
        "versions": versions(),
        "build": defocus_fast.build_config(),
    }
    result = {"machine": machine, "date": str(datetime.date.today()), "cases": cases}
    args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
