# SPDX-License-Identifier: Apache-2.0
"""What the pages of docs/ are made with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_dead_links_are_found(tmp_path: Path) -> None:
    pytest.importorskip("bs4", reason="comes with the extra docs")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "other page.html").write_text('<h1 id="here">Other</h1><a href="../page.html">back</a>')
    (tmp_path / "picture.png").touch()
    good = ["folder/other%20page.html#here", "#top", "https://example.org/gone", "mailto:a@example.org", "picture.png"]
    page = '<p id="top">{}</p><img src="picture.png">'

    def check(links: list[str]) -> tuple[int, list[str]]:
        text = page.format("".join(f'<a href="{link}">text</a>' for link in links))
        (tmp_path / "page.html").write_text(text)
        done = subprocess.run([sys.executable, ROOT / "docs" / "links.py", tmp_path], capture_output=True, text=True)
        return done.returncode, done.stdout.splitlines()

    assert check(good) == (0, ["5 links in 2 pages, 0 dead"])
    dead = ["gone.html", "folder/other%20page.html#nowhere", "#nowhere", "folder"]
    status, lines = check(good + dead)
    assert status == 1
    assert sorted(lines[:-1]) == sorted(f"page.html: {link}" for link in dead)
    assert lines[-1] == "9 links in 2 pages, 4 dead"


def test_all_settings_that_are_measured_exist() -> None:
    program = """
import numpy, defocus_fast, knobs
for arguments in knobs.SETTINGS.strip().splitlines():
    try:
        knobs.Setting(arguments, 64, 80).estimate(numpy.zeros((64, 80), numpy.uint8))
    except defocus_fast.BackendUnavailable:
        pass
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT / "bench", check=True)
