# SPDX-License-Identifier: Apache-2.0
"""Write BENCHMARK.md, its plots and the README's table from the results of ``bench/run``, bench/budget.py and
bench/gpu.py: ``python bench/report.py [RESULTS.json] [--into FOLDER]``.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import plots
import roofline

ROOT = Path(__file__).parents[1]
PLOTS = Path("docs")
# Calls from which on a percentile says more than the maximum.
CALLS_FOR = {"p90": 10, "p99": 30}
Case = dict[str, Any]
Results = dict[str, Any]


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def percentile(ms: dict[str, float], name: str, calls: float) -> str:
    return number(ms[name]) if calls >= CALLS_FOR[name] else "-"


def table(head: list[str], rows: list[list[str]], left: int = 1) -> str:
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def cases(results: Results, *groups: str) -> list[Case]:
    return [case for case in results["cases"] if case["group"] in groups]


def frame_facts(case: Case) -> list[str]:
    return [f"{case['width']}x{case['height']}", case["model"], case["precision"], f"{case['edges']:,}"]


def frame_times(case: Case) -> list[str]:
    median = case["ms"]["frame"]
    return [number(median), percentile(case, "p99", case["rounds"]), number(1e3 / median)]


def frames(results: Results) -> str:
    rows = []
    for case in cases(results, "frames", "other frames"):
        stages = [number(value) for value in case["stages"].values()]
        median, p99, per_second = frame_times(case)
        times = [median, percentile(case, "p90", case["rounds"]), p99, number(case["max"]), number(case["first_ms"])]
        rows.append([case["image"], case["kernels"], *frame_facts(case), *stages, *times, f"{case['rounds']}"])
        rows[-1].append(per_second)
    head = ["image", "kernels", "size", "model", "precision", "edges", "detect_edges", "extract_features"]
    head += ["classify_edges", "estimate_radii", "propagate", "frame: median", "p90", "p99", "max", "first call"]
    return table([*head, "calls", "frames/s"], rows, left=5)


def readme_frames(results: Results) -> str:
    rows = [
        frame_facts(case) + frame_times(case)
        for size in (360, 480, 720, 1080)
        for case in cases(results, "frames")
        if case["height"] == size
    ]
    return table(["image", "model", "precision", "edges", "median ms", "p99 ms", "frames/s"], rows, left=3)


def times_and_quartiles(ratio: dict[str, float]) -> list[str]:
    return [f"{number(ratio['median'])}x", f"{number(ratio['q1'])} to {number(ratio['q3'])}"]


def peers(results: Results) -> str:
    """Ours against others' of the same rounds."""
    rows = []
    for case in cases(results, "peers"):
        (ours, mine), *others = case["ms"].items()
        goals = case.get("goals", {})
        head = [case["task"], ours]
        for name, theirs in others:
            label = ", ".join(filter(None, [name, case.get("notes", {}).get(name)]))
            medians = [number(ms) for ms in (mine, theirs)]
            ratio = times_and_quartiles(case["ratio"][name])
            goal = goals.get(name, "")
            if goal and case["ratio"][name]["median"] < float(goal.removesuffix("x")):
                goal += ", missed"
            rows.append([*head, label, f"{case['rounds']}", *medians, *ratio, goal])
        rows += [[*head, name, "0", "-", "not run", "-", "-", goals.get(name, "")] for name in case.get("missing", {})]
    head = ["task", "ours", "against", "rounds", "ours, ms", "theirs, ms", "ratio", "its quartiles", "asked for"]
    return table(head, rows, left=3)


def ceilings(results: Results) -> str:
    """Rates of ours, as shares of the best of the others' in the same rounds."""
    rows = []
    for case in cases(results, "ceiling"):
        work = case["work"]
        rates = {name: 1e3 * work[name] / ms for name, ms in case["ms"].items()}
        (ours, rate), *others = rates.items()
        if not others:
            rows.append([ours, f"{rate:,.0f} {case['unit']}/s", "not run", "-", "-", "-"])
            continue
        best, ceiling = max(others, key=lambda other: other[1])
        share, low, high = (work[ours] / work[best] * case["ratio"][best][key] for key in ("median", "q1", "q3"))
        values = [f"{value:,.0f} {case['unit']}/s" for value in (rate, ceiling)]
        spread = f"{low:.0%} to {high:.0%}"
        rows.append([ours, values[0], best, values[1], f"{share:.0%}", spread])
    return table(["ours", "rate", "best of the others", "its rate", "share", "its quartiles"], rows)


def overhead(results: Results) -> str:
    """What a call from Python costs beside one from C++; every round times 100 calls."""
    lines = []
    for case in cases(results, "overhead"):
        us = {name: 10 * ms for name, ms in case["ms"].items()}
        lines.append(
            f"`estimate_into` on 32x32 pixels without edges, {case['rounds']} rounds of 100 calls: "
            f"{us['C++']:.1f} us from C++, {us['Python']:.1f} us from Python, {us['Python'] - us['C++']:.1f} us more "
            "(asked for: at most 20).\n"
        )
    return "".join(lines)


def gpu(measured: Results) -> str:
    """What bench/gpu.py measured."""
    facts = measured["machine"]
    rows = []
    for case in measured["cases"]:
        device, host, cpu = case["device_to_device"], case["host_to_host"], case["cpu"]
        rows.append([f"{case['width']}x{case['height']}", case["model"], case["precision"], f"{case['edges']:,}"])
        rows[-1] += [number(ms) for ms in case["stages"].values()]
        rows[-1] += [text for ms in (device, host) for text in (number(ms["median"]), percentile(ms, "p99", ms["n"]))]
        rows[-1] += [number(cpu["median"]), f"{number(cpu['median'] / host['median'])}x"]
    head = ["size", "model", "precision", "edges", *measured["cases"][0]["stages"], "device to device: median", "p99"]
    head += ["host to host: median", "p99", "CPU: median", "CPU / host to host"]
    versions = ", ".join(f"{name} {version}" for name, version in (facts["versions"] | facts["build"]).items())
    return f"""## GPU: measured

Written from `bench/gpu.json`, the results of `python bench/gpu.py` on {measured["date"]}: {facts["gpu"]}, networks by
{facts["networks"]} (`examples/torch_networks.py`); beside it the CPU path on the same machine,
{facts["threads"]} threads on {facts["processor"]}, {facts["cpu_precision"]}; {versions}.
Times in ms. They are of the code of that day: the heads of `fast` are evaluated by cells since, which no GPU has run.
TensorRT could not be had on that machine: its engines have never run. From host to host images and maps
are in pageable memory, and the answers at edges are copied, too. Medians of the CPU path are of few frames where a
frame takes long.

{table(head, rows, left=3)}"""


def budget(measured: Results) -> str:
    """What bench/budget.py measured."""
    rows = []
    for case in measured["cases"]:
        ms = case["ms"]
        rows.append([f"{case['width']}x{case['height']}", case["model"]])
        rows[-1] += [f"{case['budget_ms']:g} ms" if case["budget_ms"] else "none", f"{case['frames']:,}"]
        rows[-1] += [number(ms[name]) for name in ("median", "p99")]
        rows[-1] += [number(ms["p99.9"]) if case["frames"] >= 1000 else "-", number(ms["max"])]
        rows[-1] += [f"{ms['p99'] / ms['median']:.2f}", "" if case["over"] is None else str(case["over"])]
        rows[-1] += [f"{100 * case['read']:.0f} %", f"{case['peak_mb'][-1] - case['peak_mb'][0]:.1f}"]
    head = ["frames", "model", "budget", "number", "median", "p99", "p99.9", "max", "p99 / median", "late"]
    head += ["read", "MB more in the end"]
    return f"""## Videos with a budget

Written from `bench/budget.json`, the results of `python bench/budget.py`: {machine(measured)}
A camera held by hand looks at the pictures of `examples/`, mirrored out to size, with noise of 3 of 255; every 500
frames it looks at another one. Times of `VideoEstimator.estimate_into` in ms, after `warm_up()`; "late" is how many
frames took longer than the budget, "read" the mean share of the image that was read in a frame, and the last column how
much the process's largest memory grew between the first frame and the last.

{table(head, rows, left=3)}"""


def not_run(results: Results) -> str:
    names: dict[str, list[str]] = {}
    for name, reason in results["skipped"].items():
        names.setdefault(reason, []).append(name)
    for case in results["cases"]:
        for name, reason in case.get("missing", {}).items():
            names.setdefault(reason, []).append(f"{name} in {case['name']}")
    return "".join(f"- {reason}: {'; '.join(which)}\n" for reason, which in names.items()) or "Everything was run.\n"


def draw(results: Results, into: Path) -> dict[str, Path]:
    """Draw time per pixel, memory, and time against threads and against the number of edges."""
    import matplotlib  # the tables do without
    import matplotlib.pyplot as plt

    matplotlib.use("agg")
    (into / PLOTS).mkdir(exist_ok=True)
    files = {}

    def save(name: str, title: str, lines: dict[str, tuple[list[float], list[float]]], **axes_settings: Any) -> None:
        if not any(x for x, _ in lines.values()):  # not run
            return
        figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
        for label, (x, y) in lines.items():
            axes.plot(x, y, "o-", label=label)
        axes.set(**axes_settings)
        axes.grid(alpha=0.3, which="both")
        if len(lines) > 1:
            figure.legend(loc="outside upper center", ncols=2, fontsize="small")
        files[title] = PLOTS / f"bench_{name}.png"
        plots.save(figure, into / files[title])
        plt.close(figure)

    sizes = cases(results, "size")
    megapixels = [1e-6 * case["height"] * case["width"] for case in sizes]
    per_pixel = {
        stage: [case["stages"][stage] for case in sizes] for stage in ("detect_edges", "extract_features", "propagate")
    }
    per_pixel["frame"] = [case["ms"]["frame"] for case in sizes]
    lines = {
        label: (megapixels, [value / size for value, size in zip(ms, megapixels, strict=True)])
        for label, ms in per_pixel.items()
    }
    scale = {"xscale": "log", "xlabel": "megapixels"}
    save("size", "Time per pixel against size, `fast`", lines, **scale, ylabel="ns a pixel", ylim=(0, None))

    memory = {"process at its peak": [case["peak_mb"] for case in sizes]}
    memory["before the estimator, with the image"] = [case["before_mb"] for case in sizes]
    lines = {label: (megapixels, mb) for label, mb in memory.items()}
    save(
        "memory", "Resident memory of a process that makes one frame, `fast`", lines, **scale, yscale="log", ylabel="MB"
    )

    lines = {}
    for case in cases(results, "threads"):
        counts = [int(name) for name in case["ms"]]
        lines["fast"] = counts, list(case["ms"].values())
        settings = {"xlabel": "threads", "ylabel": "ms, 1920x1080, fast", "ylim": (0, None), "xticks": counts}
        save("threads", "Time against threads", lines, **settings)

    lines = {}
    for case in cases(results, "edge count"):
        x, y = lines.setdefault(case["model"], ([], []))
        x.append(case["edges"])
        y.append(case["ms"]["frame"])
    settings = {"xscale": "log", "yscale": "log", "xlabel": "edges at random places of 640x480", "ylabel": "ms a frame"}
    save("edges", "Time against the number of edges", lines, **settings)
    return files


def machine(results: Results) -> str:
    facts = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    processor = facts["processor"]
    return (
        f"{facts['threads']} threads on {processor['model name']} (family {processor['cpu family']}), "
        f"kernels {facts['kernels']}; {results['date']}; {versions}."
    )


def benchmark_md(results: Results, files: dict[str, Path]) -> str:
    drawn = "\n".join(f"{title}:\n\n![{title}]({file})\n" for title, file in files.items())
    return f"""# Benchmarks

Written by `bench/report.py` from `bench/results.json`, the results of one `bench/run`: {machine(results)}
[CONTRIBUTING.md](CONTRIBUTING.md) says what it needs.

All libraries use the same number of threads. Times are medians in ms unless said otherwise; a frame is a call of
`estimate` with its expected error. No 90th percentile is given of fewer than {CALLS_FOR["p90"]} calls, no 99th of fewer
than {CALLS_FOR["p99"]}. Cases: `bench/test_speed.py`.

## Against others

Ours and the others' take turns in one process, on the same input. The ratio is the median of the rounds' ratios, with
its quartiles; "asked for" is the project's own goal. The stages are the public calls of one stage alone, which allocate
their answers.

Of the given edges ours are whole frames, the others' the networks alone, of crops that lie ready, in the fastest of the
batches of 1, 16, 64 and 256 patches; both networks give the same classes as ours in float32 at 98 % of the edges or
more.

The published program (github.com/alikaraali/depth-edge-aware-dfe-tip2022 at commit 9ac6753, GPL-3.0, TensorFlow) is
timed from its imports to its end. It is given a third of the edges at a time, since more take more than 24 GB; so it
reads the image and propagates twice more than it would. With its weights, both networks give the same classes as ours
at 98 % of the edges or more.

scikit-image's edges are ours pixel for pixel, OpenCV's Canny gives others (8-bit gradients); dtFilter gives the same
values up to rounding. All of this is checked in the run.

Of focus, ours tell a radius, the share in focus and their errors, of the frame and of 6 x 8 regions, with a map at
reduced size. FFmpeg's blurdetect (by its defaults, through PyAV, the frame in memory) and the variance of the Laplacian
tell one figure of the frame. [ACCURACY.md](ACCURACY.md#order-of-bursts-defocus-fast-cull) says how often each is right.

{peers(results)}
## Against the machine

Multiply-adds are those of the convolutions as they are defined, when every pixel is an edge, so that nothing is
skipped, two operations each. Ours execute fewer, in most layers a quarter of them, by Winograd's filtering: their
shares may exceed 100 %. Bytes are those of the passes alone, each reading and writing its signals and coefficients
once; what caches keep from pass to pass may bring this share above 100 %, too. The others, taking turns with ours, are
convolutions by PyTorch (which are oneDNN's) with 64, 128, 256 and 512 channels, and a copy by PyTorch. Rates are of the
median times, shares the medians of the rounds' shares.

{ceilings(results)}
{overhead(results)}
## Frames

`examples/otters.jpg`, mirrored out to size; "calm" enlarged fourfold, "hostile" noise.

{frames(results)}
## Scaling

{drawn}
{budget(json.loads((ROOT / "bench" / "budget.json").read_text()))}
{gpu(json.loads((ROOT / "bench" / "gpu.json").read_text()))}
{roofline.markdown()}
## Not run

{not_run(results)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=ROOT / "bench" / "results.json")
    parser.add_argument("--into", type=Path, default=ROOT, help="folder, in place of the checkout")
    args = parser.parse_args()
    results: Results = json.loads(args.results.read_text())
    text, count = re.subn(
        r"(?s)<!-- speed -->.*<!-- /speed -->",
        lambda _: f"<!-- speed -->\n{machine(results)}\n\n{readme_frames(results)}<!-- /speed -->",
        (ROOT / "README.md").read_text(encoding="utf-8"),
    )
    if count != 1:
        raise SystemExit("README.md: expected the markers <!-- speed --> and <!-- /speed -->")
    (args.into / "README.md").write_text(text, encoding="utf-8")
    (args.into / "BENCHMARK.md").write_text(benchmark_md(results, draw(results, args.into)), encoding="utf-8")


if __name__ == "__main__":
    main()
