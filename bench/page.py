# SPDX-License-Identifier: Apache-2.0
"""Measure the page of ``defocus-fast estimate --report``: how large it is, and how long Chromium takes to load, to sort
and to scroll it: ``python bench/page.py PHOTO... [--count 1000]``. It needs Chromium.

The pictures are crops of the photographs at random places, half as wide and high, so that all are different.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

import defocus_fast
from defocus_fast import _images, _report


def write(photos: list[Path], count: int, file: Path) -> float:
    """Write a page of `count` pictures; return the milliseconds that a picture takes."""
    rng = np.random.default_rng(0)
    sources = []
    for path in photos:
        photo = _images.read_photo(path)
        sources.append((path.name, photo, defocus_fast.Estimator.for_image(photo).estimate(photo).map))
    side = _report.picture_side(count)
    entries = []
    start = time.perf_counter()
    for i in range(count):
        name, photo, radii = sources[i % len(sources)]
        height, width = radii.shape[0] // 2, radii.shape[1] // 2
        y, x = rng.integers(height), rng.integers(width)
        crop = np.s_[y : y + height, x : x + width]
        part = np.ascontiguousarray(radii[crop])
        scores = {"min_px": part.min(), "median_px": np.median(part), "max_px": part.max(), "edges": i}
        entries.append(_report.make_entry(f"{i} {name}", photo[crop], part, scores, side, ms=1.0))
    ms = 1e3 * (time.perf_counter() - start) / count
    with open(file, "wb") as opened:
        _report.write_page(opened, entries, [], {}, "radius")
    return ms


def load(file: Path, screenshot: Path | None) -> dict[str, float]:
    """Return seconds until the page is there, until it is sorted, and until each part of it has been shown."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("Chromium is needed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1300, "height": 1000})
        page.goto(file.as_uri())
        times = page.evaluate("""async () => {
            const shown = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
            const [navigation] = performance.getEntriesByType("navigation");
            const loaded = navigation.loadEventEnd;
            await shown();
            let start = performance.now();
            document.querySelectorAll("th button")[3].click();
            await shown();
            const sorted = performance.now() - start;
            start = performance.now();
            let longest = 0;
            for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight) {
                const begin = performance.now();
                scrollTo(0, y);
                await shown();
                longest = Math.max(longest, performance.now() - begin);
            }
            return {loaded, sorted, scrolled: performance.now() - start, longest};
        }""")
        if screenshot:
            page.screenshot(path=screenshot)
        chromium.close()
    return {name: ms / 1e3 for name, ms in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--screenshot", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        ms = write(args.photos, args.count, file)
        size = file.stat().st_size / 1e6
        times = load(file, args.screenshot)
    print(
        f"{args.count} photographs, {os.cpu_count()} cores: {size:.1f} MB, {ms:.0f} ms a photograph to make; loaded in "
        f"{times['loaded']:.2f} s, sorted in {times['sorted']:.2f} s, scrolled through in {times['scrolled']:.1f} s, "
        f"of which the longest screen {times['longest']:.2f} s"
    )


if __name__ == "__main__":
    main()
