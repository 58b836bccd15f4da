# SPDX-License-Identifier: Apache-2.0
"""Proves barriers and memory accesses of the recursive filters' PTX free of races, for launches of several chunks.

The tool (sentryward) needs launches in which no branch depends on data, and no atomic operation: of the kernels with
barriers these are the filters. The others it answers with "unsupported". Exits with 1 unless all are proved, and unless
a filter that lacks a barrier is not.
"""

import json
import re
import sys
from pathlib import Path

from report import ptx, run
from sentryward import verify

# Of kernels: blocks, threads, and (parameter, value): pass, height, width, so that a line takes two chunks.
LAUNCHES = {
    "filter_rows<1>": (2, 64, {1: 1, 2: 300}),
    "filter_rows<3>": (2, 64, {1: 1, 2: 300}),
    "filter_columns<1>": (2, 256, {1: 1, 2: 70, 3: 40}),
    "filter_columns<3>": (2, 256, {1: 1, 2: 70, 3: 40}),
}


def check(file: Path, kernel: str) -> str:
    """The tool's result: race_free, or what it found, or unsupported."""
    entries = re.findall(r"\.entry (\w+)\(", file.read_text())
    demangled = run("c++filt", cwd=file.parent, text="\n".join(entries)).splitlines()
    entry = next(e for e, name in zip(entries, demangled, strict=True) if f"::{kernel}(" in name)
    blocks, threads, values = LAUNCHES[kernel]
    launch = {"grid_dim": [blocks, 1, 1], "block_dim": [threads, 1, 1], "cluster_dim": [1, 1, 1]}
    arguments = [
        {"parameter": f"{entry}_param_{i}", "offset": 0, "type": "u32", "value": value} for i, value in values.items()
    ]
    given = file.with_suffix(".json")
    given.write_text(
        json.dumps(
            {
                "schema": "spverify.kernel-input/v1",
                "entry": entry,
                "launch": launch | {"dynamic_shared_bytes": 0},
                "arguments": arguments,
            }
        )
    )
    return str(verify(str(file), input=str(given))["result"])


def main() -> int:
    build = Path(sys.argv[1])
    text = ptx(build, "domain_transform.cu")
    file = build / "checked.ptx"
    file.write_text(text)
    results = {kernel: check(file, kernel) for kernel in LAUNCHES}
    file.write_text(re.sub(r"^\s*(bar|barrier)\.sync.*$", "", text, flags=re.MULTILINE))
    results["filter_columns<1> without barriers"] = faulty = check(file, "filter_columns<1>")
    for kernel, result in results.items():
        print(f"{kernel}: {result}")
    return any(results[kernel] != "race_free" for kernel in LAUNCHES) or faulty == "race_free"


if __name__ == "__main__":
    sys.exit(main())
