# SPDX-License-Identifier: Apache-2.0
"""Write BENCHMARK.md, its plots and the README's table from the figures of ``bench/run``: ``python bench/report.py
RESULTS.json``. Ratios are between medians of one run.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).parents[1]
PLOTS = Path("docs")
PUBLISHED_PROGRAM_MS = 26_000  # the authors' TensorFlow program on a picture of 360x360, on the same kind of machine
Case = dict[str, Any]


class Results:
    """The cases of a run by name, and the machine that they ran on."""

    def __init__(self, file: Path) -> None:
        content = json.loads(file.read_text())
        self.machine: dict[str, Any] = content["machine_info"]
        self.date: str = content["datetime"][:10]
        self.cases: dict[str, Case] = {case["name"].replace("test_", "", 1): case for case in content["benchmarks"]}

    def ms(self, name: str, stage: str | None = None) -> list[float] | None:
        """Milliseconds of every round, of one stage or of all; None if the case did not run."""
        case = self.cases.get(name)
        if case is None:
            return None
        return (
            list(case["extra_info"]["stages"][stage]) if stage else [1e3 * second for second in case["stats"]["data"]]
        )

    def fact(self, name: str, key: str) -> Any:
        return self.cases[name]["extra_info"][key]


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(values: list[float]) -> list[str]:
    return [number(float(np.percentile(values, share))) for share in (50, 90, 99, 100)]


def table(head: list[str], rows: list[list[str]], left: int = 1) -> str:
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def frames(results: Results) -> str:
    rows = []
    for case in results.cases.values():
        facts = case["extra_info"]
        if case["group"].startswith("frame"):
            height, width = facts["size"]
            stages = [number(float(np.median(ms))) for ms in facts["stages"].values()]
            what = [f"{width}x{height}", facts["model"], facts["precision"], facts["kernels"], f"{facts['edges']:,}"]
            data = [1e3 * second for second in case["stats"]["data"]]
            kind = case["group"].partition(", ")[2] or "photograph"
            rows.append([kind, *what, *stages, *spread(data), number(facts["first_ms"]), f"{len(data)}"])
    head = ["picture", "size", "model", "precision", "kernels", "edges", "detect_edges", "extract_features", "classify"]
    head += ["estimate", "propagate", "frame: median", "p90", "p99", "max", "first call", "calls"]
    return table(head, rows, left=5)


def peers(results: Results) -> list[list[str]]:
    """Ours against others': task, ours, theirs, ratio of medians and of 99th percentiles, what is asked for."""
    hd = "(1080, 1920)"
    edge_share = 1.0
    if "given_edges_onnxruntime" in results.cases:
        facts = results.cases["given_edges_onnxruntime"]["extra_info"]
        edge_share = facts["edges"] / facts["edges_timed"]
    given = {name: f"given_edges[{name}]" for name in results_of(results, "given_edges[")}
    fast = next((name for name in given if name.startswith("fast")), "")
    shared = [name for name in given if name.endswith("shared")]
    # Its time is known on this one picture only.
    on_reference = any(results.fact(f"given_edges[{name}]", "picture") == "reference" for name in given)
    published = [float(PUBLISHED_PROGRAM_MS)] if on_reference else None
    rows: list[tuple[str, list[float] | None, str, list[float] | None, str]] = []
    for name in shared:
        precision = name.split("-")[1]
        goals = ("18x", "100x") if precision == "bfloat16" else ("", "")
        patch = results.ms(f"given_edges[tip22-{precision}-patch]")
        rows.append(
            (
                f"360x360, given edges, tip22 {precision}",
                results.ms(given[name]),
                "OpenVINO, one call per patch",
                patch,
                goals[0],
            )
        )
        rows.append(
            (
                f"360x360, given edges, tip22 {precision}",
                results.ms(given[name]),
                "published program",
                published,
                goals[1],
            )
        )
    ort = results.ms("given_edges_onnxruntime")
    ort = [ms * edge_share for ms in ort] if ort else None
    rows.append(
        (
            "360x360, given edges, tip22 float32",
            results.ms("given_edges[tip22-float32-shared]"),
            "ONNX Runtime, patches",
            ort,
            "",
        )
    )
    rows.append(
        (
            "360x360, given edges, fast",
            results.ms(f"given_edges[{fast}]"),
            "published program",
            published,
            "700x",
        )
    )
    rows.append(
        ("360x360, fast", results.ms("frame[fast-(360, 360)]"), "tip22", results.ms("frame[tip22-(360, 360)]"), "8x")
    )
    rows.append(("1920x1080, fast", results.ms(f"frame[fast-{hd}]"), "tip22", results.ms(f"frame[tip22-{hd}]"), "8x"))
    ours = results.ms(f"frame[fast-{hd}]", "detect_edges")
    for peer, name in (
        ("OpenCV, max of channels + GaussianBlur + Canny", "canny_opencv[3]"),
        ("OpenCV, GaussianBlur + Canny of one channel", "canny_opencv[1]"),
        ("scikit-image canny", "canny_scikit_image"),
    ):
        rows.append(("detect_edges, 1920x1080", ours, peer, results.ms(name), "2x" if "OpenCV" in peer else ""))
    for signals in (2, 3):
        ours = results.ms(f"propagate[{signals}]", "propagate")
        rows.append(
            (
                f"guide + {signals} signals, 1920x1080",
                ours,
                "OpenCV, three dtFilter",
                results.ms("propagate_opencv"),
                "4x" if signals == 2 else "",
            )
        )
    trunk = results.ms("trunk_dense", "extract_features")
    for peer, name in (
        ("OpenVINO bf16", "trunk_openvino[bf16]"),
        ("OpenVINO float32", "trunk_openvino[f32]"),
        ("ONNX Runtime float32", "trunk_onnxruntime"),
    ):
        rows.append(("tip22 trunk, every pixel of 192x192", trunk, peer, results.ms(name), ""))
    found = []
    for task, mine, peer, theirs, goal in rows:
        if mine is None or theirs is None:
            found.append([task, peer, "not run", "", "", "", goal])
            continue
        medians = float(np.median(mine)), float(np.median(theirs))
        worst = float(np.percentile(mine, 99)), float(np.percentile(theirs, 99))
        found.append(
            [
                task,
                peer,
                number(medians[0]),
                number(medians[1]),
                f"{medians[1] / medians[0]:.3g}x",
                f"{worst[1] / worst[0]:.3g}x",
                goal,
            ]
        )
    return found


def results_of(results: Results, start: str) -> list[str]:
    return [name[len(start) : -1] for name in results.cases if name.startswith(start)]


def trunk_multiply_adds(model: str, side: int, width: int = 64) -> int:
    """Of a tile of which every pixel is an edge, as Tip22Trunk and CellTrunk in cpp/src/trunk.cpp compute it."""

    def layer(reach: int, inputs: int, taps: int) -> int:
        return (side + 2 * reach) ** 2 * inputs * taps * width

    if model == "fast":
        side //= 3
        return layer(6, 28, 9) + sum(layer(reach, width, 9) for reach in range(6))
    pooled = layer(19, 4, 9) + sum(layer(reach, width, 9) for reach in (15, 12, 9))
    branch2 = layer(12, 4, 9) + layer(11, width, 9) + layer(10, width, 9) + layer(9, width, 1)
    branch3 = layer(6, 4, 9) + sum(layer(reach, width, 9) for reach in (5, 4, 3))
    return 2 * pooled + branch2 + branch3 + 2 * layer(2, width, 9) + layer(6, 2 * width, 9) + layer(6, 3 * width, 9)


def ceilings(results: Results) -> str:
    best = {}
    for dtype in ("float32", "bfloat16"):
        if (ms := results.ms(f"convolution_ceiling[{dtype}]")) is not None:
            best[dtype] = 2e-6 * results.fact(f"convolution_ceiling[{dtype}]", "multiply_adds") / float(np.median(ms))
    rows = [
        [f"convolution 256 -> 256, 3x3, {dtype}, by PyTorch (oneDNN)", f"{value:,.0f} GFLOP/s", ""]
        for dtype, value in best.items()
    ]
    for name, model, side in (("trunk_dense", "tip22", 192), ("cells_dense", "fast", 384)):
        ms = results.ms(name, "extract_features")
        if ms is None:
            continue
        rate = 2e-6 * trunk_multiply_adds(model, side) / float(np.median(ms))
        precision = results.fact(name, "precision")
        share = f"{rate / best[precision]:.0%}" if precision in best else ""
        rows.append([f"{model} trunk, every pixel of {side}x{side}, {precision}", f"{rate:,.0f} GFLOP/s", share])
    copy = results.ms("copy_ceiling")
    if copy is not None:
        bandwidth = 1e-6 * results.fact("copy_ceiling", "bytes") / float(np.median(copy))
        rows.append(["copy of 256 MiB", f"{bandwidth:.1f} GB/s read and written", ""])
        for signals in (2, 3):
            ms = results.ms(f"propagate[{signals}]", "propagate")
            if ms is not None:
                moved = propagate_bytes(1920 * 1080, signals)
                rate = 1e-6 * moved / float(np.median(ms))
                rows.append(
                    [
                        f"guide + {signals} signals, 1920x1080: {moved / 1e6:,.0f} MB",
                        f"{rate:.1f} GB/s",
                        f"{rate / bandwidth:.0%}",
                    ]
                )
    return table(["what", "rate", "share of the ceiling"], rows)


def propagate_bytes(pixels: int, signals: int) -> int:
    """Read and written by the passes alone: in each of the 2 x 5 of both filters, the coefficients and every signal."""
    return 10 * 2 * 4 * pixels * ((1 + 3) + (1 + signals))


def plot(results: Results) -> dict[str, Path]:
    """Draw time per pixel, against threads and against the number of edges."""
    matplotlib.use("agg")
    (ROOT / PLOTS).mkdir(exist_ok=True)
    files = {}

    def save(name: str, title: str, draw: Any) -> None:
        figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
        draw(axes)
        axes.grid(alpha=0.3, which="both")
        files[title] = PLOTS / f"bench_{name}.svg"
        figure.savefig(ROOT / files[title], metadata={"Date": None})
        plt.close(figure)

    def sizes(axes: Any) -> None:
        cases = [results.cases[f"size[{share}]"] for share in results_of(results, "size[")]
        pixels = [np.prod(case["extra_info"]["size"]) for case in cases]
        for stage in ("detect_edges", "extract_features", "propagate"):
            ns = [
                1e6 * np.median(case["extra_info"]["stages"][stage]) / n for case, n in zip(cases, pixels, strict=True)
            ]
            axes.plot(np.array(pixels) / 1e6, ns, "o-", label=stage)
        whole = [1e9 * case["stats"]["median"] / n for case, n in zip(cases, pixels, strict=True)]
        axes.plot(np.array(pixels) / 1e6, whole, "ko-", label="frame")
        axes.set(xscale="log", xlabel="megapixels", ylabel="ns a pixel", ylim=(0, None))
        axes.legend()

    def threads(axes: Any) -> None:
        counts = results_of(results, "threads[")
        axes.plot([int(n) for n in counts], [np.median(results.ms(f"threads[{n}]")) for n in counts], "o-")
        axes.set(xlabel="threads", ylabel="ms, 1920x1080, fast", ylim=(0, None), xticks=[int(n) for n in counts])

    def edges(axes: Any) -> None:
        for model in dict.fromkeys(name.split("-")[0] for name in results_of(results, "edge_count[")):
            cases = [case for name, case in results.cases.items() if name.startswith(f"edge_count[{model}-")]
            axes.plot(
                [c["extra_info"]["edges"] for c in cases],
                [1e3 * c["stats"]["median"] for c in cases],
                "o-",
                label=model,
            )
        axes.set(xscale="log", yscale="log", xlabel="edges at random places of 640x480", ylabel="ms a frame")
        axes.legend()

    for name, title, draw in (
        ("size", "Time per pixel against size, `fast`", sizes),
        ("threads", "Time against threads", threads),
        ("edges", "Time against the number of edges", edges),
    ):
        save(name, title, draw)
    return files


def main() -> None:
    results = Results(Path(sys.argv[1]))
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    comparison = table(
        ["task", "against", "ours, ms", "theirs, ms", "ratio", "ratio of p99", "asked for"], peers(results), left=2
    )
    head = (
        f"{machine['threads']} threads on {machine['processor']['model name']} "
        f"(family {machine['processor']['cpu family']}), "
        f"kernels {machine['build']['kernels'].split(',')[0]}; {results.date}; {versions}."
    )
    plots = "\n".join(f"{title}:\n\n![{title}]({file})\n" for title, file in plot(results).items())
    overhead = results.ms("call_overhead")
    call = ""
    if overhead is not None:
        whole, inside = 1e3 * float(np.median(overhead)), results.fact("call_overhead", "stages_us")
        call = (
            f"`estimate_into` on 32x32 pixels without edges: {whole:.0f} us, the stages' own share {inside:.0f} us.\n"
        )
    (ROOT / "BENCHMARK.md").write_text(
        f"""# Benchmarks

Written by `bench/report.py` from the figures of one `bench/run`: {head}

All libraries use the same number of threads. Times are medians in ms unless said otherwise; a frame is a call of
`estimate` with its expected error. Cases: `bench/test_speed.py`.

## Against others

Ratios are those of this run; "asked for" is the project's own goal. The published program's 26.0 s were measured on the
same kind of machine; it is not run here (GPL-3.0, TensorFlow). OpenCV's Canny gives other edges (8-bit gradients), ours
are scikit-image's pixel for pixel; dtFilter gives the same map up to rounding.

{comparison}
## Against the machine

Multiply-adds are those executed when every pixel is an edge, so that nothing is skipped; bytes are those of the passes
alone, each reading and writing its signals once and reading the coefficients.

{ceilings(results)}
{call}
## Frames

`examples/otters.jpg`, mirrored out to size; "calm" enlarged fourfold, "hostile" noise.

{frames(results)}
## Scaling

{plots}"""
    )
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    frame_rows = []
    for size in ("(360, 360)", "(480, 640)", "(1080, 1920)"):
        for model in ("fast", "tip22"):
            name = f"frame[{model}-{size}]"
            ms = results.ms(name)
            if ms is not None:
                height, width = results.fact(name, "size")
                facts = [
                    f"{width}x{height}",
                    f"`{model}`",
                    results.fact(name, "precision"),
                    f"{results.fact(name, 'edges'):,}",
                ]
                frame_rows.append([*facts, number(float(np.median(ms))), number(float(np.percentile(ms, 99)))])
    short = table(["picture", "model", "precision", "edges", "median ms", "p99 ms"], frame_rows, left=3)
    text, count = re.subn(
        r"(?s)<!-- speed -->.*<!-- /speed -->",
        lambda _: f"<!-- speed -->\n{head}\n\n{short}<!-- /speed -->",
        text,
    )
    if count != 1:
        raise SystemExit("README.md: expected the markers <!-- speed --> and <!-- /speed -->")
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
