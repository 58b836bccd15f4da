# SPDX-License-Identifier: Apache-2.0
"""Table of the kernels: lines that ran in the emulation, registers over the architectures, spills.

Exits with 1 if a kernel spills or uses a stack, if an architecture is missing, if less than 97 % of the lines, or of
those of a kernel, ran, or if a multiply-add is contracted where the CPU rounds twice.
"""

import json
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ARCHITECTURES = set(sys.argv[4:]) or {"75", "80", "86", "89", "90", "100", "120"}
EXACT = ["answers.cu", "canny.cu", "octaves.cu"]
LEAST_COVERAGE = 0.97

root = Path(__file__).resolve().parents[2]
sources = sorted([*(root / "cuda").glob("*.cu"), *(root / "cuda").glob("*.hpp")])
kernels = {name: path for path in sources for name in re.findall(r"__global__ void (\w+)\(", path.read_text())}


def run(*command: str, cwd: Path, text: str | None = None) -> str:
    return subprocess.run(command, cwd=cwd, input=text, text=True, stdout=subprocess.PIPE, check=True).stdout


def kernel_of(demangled: str) -> str:
    """The kernel that a function is or instantiates; the name as given for any other function."""
    names = (k for k in kernels if re.search(rf"::{k}[<(]", demangled) and "lambda" not in demangled)
    return next(names, demangled)


def coverage(build: Path) -> tuple[dict[Path, dict[int, bool]], dict[str, tuple[int, int]]]:
    """Whether each line of each source ran, and first and last line of each function."""
    lines: dict[Path, dict[int, bool]] = defaultdict(dict)
    extents = {}
    for data in build.rglob("*.gcda"):
        for report in run("gcov", "--json-format", "--stdout", str(data), cwd=build).splitlines():
            for file in json.loads(report)["files"]:
                path = (build / file["file"]).resolve()
                if path not in sources:
                    continue
                for line in file["lines"]:
                    number = line["line_number"]
                    lines[path][number] = lines[path].get(number, False) or line["count"] > 0
                for function in file["functions"]:
                    if (name := kernel_of(function["demangled_name"])) in kernels:
                        extents[name] = function["start_line"], function["end_line"]
    return lines, extents


def resources(log: str) -> dict[str, dict[str, list[tuple[int, int, int]]]]:
    """Of each kernel and architecture: (registers, bytes of stack, bytes of spills) of its instantiations."""
    found: dict[str, dict[str, list[tuple[int, int, int]]]] = defaultdict(lambda: defaultdict(list))
    pattern = re.compile(
        r"Compiling entry function '([^\n]*)' for 'sm_(\d+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers",
        re.DOTALL,
    )
    demangled = run("c++filt", cwd=root, text=log)
    for entry, architecture, stack, stores, loads, registers in pattern.findall(demangled):
        found[kernel_of(entry)][architecture].append((int(registers), int(stack), int(stores) + int(loads)))
    return found


def ptx(build: Path, source: str) -> str:
    """PTX of a source with the options of the real compilation."""
    entries = json.loads((build / "compile_commands.json").read_text())
    words = shlex.split(next(e["command"] for e in entries if e["file"].endswith(source)))
    kept = [w for w in words if "--generate-code" not in w and w != "-c"]
    kept[kept.index("-o") + 1] = f"{source}.ptx"
    run(*kept, "-arch=compute_75", "-ptx", cwd=build)
    return (build / f"{source}.ptx").read_text()


def contracted(build: Path, source: str) -> list[str]:
    """Floating-point instructions of the PTX that may be fused."""
    operation = re.compile(r"^\s*((?:fma|mad|mul|add|sub)\.f(?:32|64)|(?:fma|mad)\.\S*f(?:32|64))\s", re.MULTILINE)
    return operation.findall(ptx(build, source))


def main() -> int:
    plain, nvcc, log = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]).read_text()
    lines, extents = coverage(plain)
    usage = resources(log)
    failures = []
    print(f"{'kernel':<18}{'file':<22}{'lines run':>12}{'registers':>12}{'spills':>8}")
    for name, path in sorted(kernels.items(), key=lambda item: (item[1].name, item[0])):
        first, last = extents.get(name, (0, -1))
        ran = [lines[path][i] for i in range(first, last + 1) if i in lines[path]]
        of_kernel = usage.get(name, {})
        numbers = [n for architecture in of_kernel.values() for n in architecture]
        if set(of_kernel) != ARCHITECTURES or not ran:
            failures.append(f"{name}: {len(ran)} lines, compiled for {sorted(of_kernel, key=int)}")
            continue
        if sum(ran) < LEAST_COVERAGE * len(ran):
            failures.append(f"{name}: only {sum(ran)} of {len(ran)} lines ran")
        registers = [n[0] for n in numbers]
        spills = sum(n[1] + n[2] for n in numbers)
        if spills:
            failures.append(f"{name}: {spills} bytes of stack and spills")
        span = f"{min(registers)}-{max(registers)}"
        print(f"{name:<18}{path.name:<22}{f'{sum(ran)}/{len(ran)}':>12}{span:>12}{spills:>8}")
    unknown = set(usage) - set(kernels)
    if unknown:
        failures.append(f"kernels of unknown name: {sorted(unknown)}")
    for path in sources:
        missed = [number for number, ran in sorted(lines[path].items()) if not ran]
        if missed:
            print(f"not run: {path.name} lines {missed}")
    total = sum(len(of_file) for of_file in lines.values())
    share = sum(sum(of_file.values()) for of_file in lines.values()) / total
    print(f"{share:.1%} of {total} lines of cuda/ ran; {len(kernels)} kernels", end="; ")
    print(f"architectures {', '.join(sorted(ARCHITECTURES, key=int))}")
    if share < LEAST_COVERAGE:
        failures.append(f"coverage {share:.1%} is below {LEAST_COVERAGE:.0%}")
    for source in EXACT:
        fused = contracted(nvcc, source)
        print(f"{source}: {len(fused)} floating-point instructions that may be contracted")
        if fused:
            failures.append(f"{source}: {sorted(set(fused))} may be contracted")
    for failure in failures:
        print(f"FAILED {failure}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
