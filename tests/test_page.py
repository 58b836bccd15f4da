# SPDX-License-Identifier: Apache-2.0
"""The page of ``estimate --report``: what it tells, that nothing in it runs or is loaded; how it works."""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from cmap import Colormap
from images import texture
from PIL import Image

from defocus_fast import _report

Estimate = Callable[..., Result]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EVIL = "<script>document.title='evil'<"  # and, as the name of a folder, the slash behind it: a whole element


def save(name: str, height: int, width: int, seed: int = 0) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Image.fromarray(texture(height, width, seed)).save(name)


class Page(HTMLParser):
    """The rows of the table, the attributes of every element, the texts of every kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)
        if "td" in self._open:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def picture(uri: str | None) -> Image.Image:
    assert uri is not None
    kind, content = uri.split(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")


@pytest.mark.parametrize(("unit", "factor"), [("radius", 1), ("sigma", 0.5)])
def test_it_tells_what_the_files_hold(estimate: Estimate, unit: str, factor: float) -> None:
    save("in/b.png", 100, 150)
    save("in/a.png", 500, 70, seed=1)
    Path("in/broken.jpg").write_text("no image")
    result = estimate("in", "-o", "out", "--save", "npy", "--report", "out/page.html", "--unit", unit)
    assert result.exit_code == 1, "one is broken"
    page = Page(Path("out/page.html").read_text())
    rows = {row[0]: row for row in page.rows if row}
    assert list(rows) == ["in/a.png", "in/b.png"]
    assert "in/broken.jpg: not a JPEG, PNG, TIFF, WebP, HEIC or RAW image" in page.texts["li"]
    assert unit in page.texts["b"]
    assert "float32" in page.texts["dd"], "the settings"
    paths = [attributes["d"] for attributes in page.all("path")]
    images = page.all("img")
    assert len(images) == 4
    shares = []
    for i, (name, (height, width)) in enumerate({"a": (500, 70), "b": (100, 150)}.items()):
        blur = np.load(f"out/{name}.blur.npy")
        radii = blur / factor
        expected = [f"in/{name}.png", f"{width} x {height}", *(f"{f(blur):.2f}" for f in (np.min, np.median, np.max))]
        assert rows[f"in/{name}.png"][:5] == expected
        photo, coloured = (picture(attributes["src"]) for attributes in images[2 * i : 2 * i + 2])
        assert photo.size == coloured.size == ((67, 480) if name == "a" else (150, 100))
        shown = np.asarray(Image.open(f"in/{name}.png").resize(photo.size, Image.Resampling.BOX)).astype(float)
        assert np.abs(np.asarray(photo) - shown).mean() < 12, "WebP of noise"
        typical = np.asarray(Colormap("plasma")(np.log1p(np.median(radii)) / np.log1p(64)).rgba[:3]) * 255
        assert np.abs(np.median(np.asarray(coloured), axis=(0, 1)) - typical).max() < 12
        edges = np.expm1(np.linspace(0, np.log1p(64), _report.BINS + 1))
        counts = np.histogram(np.clip(radii, 0, 63.99), edges)[0]
        shares.append(counts / counts.sum())
        assert levels(paths[1 + i]) == pytest.approx(100 * counts / counts.max(), abs=0.6)
    mean = np.mean(shares, axis=0)
    assert levels(paths[0]) == pytest.approx(100 * mean / mean.max(), abs=0.6)


def levels(path: str | None) -> list[int]:
    """Return the heights of a histogram's bars."""
    assert path
    return [100 - int(top) for top in re.findall(r"V(\d+)h1", path)]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files have fewer characters elsewhere")
def test_names_are_text_and_nothing_is_loaded(estimate: Estimate) -> None:
    """A page is opened from disk and passed on; names of files are strangers' text."""
    for name in (f"{EVIL}/script>.png", 'in/"><img src=x onerror=alert(1)>.png', "in/{{ 7 * 7 }} & {% x %}.png"):
        save(name, 20, 30)
    os.rename("in", "in\udcff")  # no UTF-8
    result = estimate(EVIL, "in\udcff", "-o", "out", "--report", "page.html")
    assert result.exit_code == 0, result.output
    text = Path("page.html").read_text(encoding="utf-8")
    page = Page(text)
    names = [row[0] for row in page.rows if row]
    assert names[0] == f"{EVIL}/script>.png"
    assert names[1].endswith('"><img src=x onerror=alert(1)>.png')
    assert names[2].endswith("{{ 7 * 7 }} & {% x %}.png")
    assert len(page.all("script")) == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert len(links) == 3 * 3
    assert all(link and link.startswith(("#photo-", "data:image/webp")) for link in links)
    assert not re.search(r"https?:|@import|url\((?!#scale)", text)
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv"))
    assert policy
    assert policy.startswith("default-src 'none'; img-src data:;")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_in_a_browser(estimate: Estimate, tmp_path: Path) -> None:
    """Sorting, the slider, pressing pictures, lazy pictures; and no script but the page's own runs."""
    for i, size in enumerate([(20, 90), (40, 20), (30, 30)]):
        save(f"{EVIL}/script>{10 - i}.png", *size, seed=i)
    assert estimate(EVIL, "--report", "page.html").exit_code == 0
    text = Path("page.html").read_text(encoding="utf-8")
    (nonce,) = set(re.findall(r'nonce="([^"]+)"', text))
    steps = """
        const heads = [...document.querySelectorAll("th button")], all = what => [...document.querySelectorAll(what)];
        const sizes = () => all("tbody tr").map(row => row.cells[1].textContent);
        const mix = () => all(".map").map(map => getComputedStyle(map).opacity);
        const outcome = {title: document.title, first: sizes()};
        heads[1].click(); outcome.up = sizes(); outcome.sort = heads[1].parentNode.ariaSort;
        heads[1].click(); outcome.down = sizes();
        outcome.cards = all("figure").map(card => card.querySelector(".weak").textContent.split(";")[0]);
        heads[0].click(); outcome.names = all("tbody a").map(link => link.textContent.match(/\\\\d+/)[0]);
        outcome.mix = mix();
        const slider = document.getElementById("mix");
        slider.value = 25; slider.dispatchEvent(new Event("input")); outcome.slid = mix();
        all(".view")[1].click(); outcome.pressed = mix();
        all(".view")[1].click(); outcome.again = mix();
        slider.dispatchEvent(new Event("input")); outcome.back = mix();
        const image = document.querySelector("img");
        image.decode().then(() => outcome.decoded = [image.naturalWidth, image.naturalHeight])
          .finally(() => document.body.textContent = "outcome " + JSON.stringify(outcome) + " end");
    """.replace("\\\\", "\\")
    text = text.replace("</body>", f'<script nonce="{nonce}">{{{steps}}}</script></body>')
    Path("test.html").write_text(text, encoding="utf-8")
    assert CHROMIUM
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=10000", "--dump-dom", (tmp_path / "test.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search("outcome (.*) end", dom)
    assert found, dom[-2000:]
    outcome = json.loads(found[1])
    assert outcome["title"] == "Blur of 3 photographs"
    assert outcome["first"] == ["20 x 40", "30 x 30", "90 x 20"][::-1], "in the order of the folder: 10, 8, 9"
    assert outcome["up"] == ["20 x 40", "30 x 30", "90 x 20"]
    assert outcome["sort"] == "ascending"
    assert outcome["down"] == outcome["cards"] == ["90 x 20", "30 x 30", "20 x 40"]
    assert outcome["names"] == ["8", "9", "10"], "numbers in names are in order"
    assert outcome["mix"] == ["0.6"] * 3
    assert outcome["slid"] == ["0.25"] * 3 == outcome["back"]
    assert outcome["pressed"] == ["0.25", "1", "0.25"]
    assert outcome["again"] == ["0.25", "0", "0.25"]
    assert outcome["decoded"] == [30, 30]


def test_only_reports_are_replaced(estimate: Estimate) -> None:
    save("a.png", 20, 30)
    Path("mine.html").write_text("<!doctype html> my diary")
    Path("folder.html").mkdir()
    os.symlink("nowhere", "link.html")
    for name, message in (
        ("mine.html", "mine.html is there and was not written by this option"),
        ("link.html", "link.html is there and was not written by this option"),
        ("folder.html", "is a directory"),
        ("gone/page.html", "expected a file in an existing folder, got gone/page.html"),
        ("a.png", "expected a name that ends in .html, got a.png"),
    ):
        result = estimate("a.png", "-o", "out", "--report", name)
        assert result.exit_code == 2, name
        assert message in result.stderr
    assert Path("mine.html").read_text() == "<!doctype html> my diary"
    assert not list(Path("out").iterdir()), "it is told before photographs are worked on"
    for count in (1, 2):
        assert estimate("a.png", "-o", "out", "--report", "out/page.html").exit_code == 0
        if count == 1:
            first = Path("out/page.html").read_text()
        save("a.png", 30, 20)
    assert "30 x 20" in first
    assert "20 x 30" in Path("out/page.html").read_text()


def test_a_resumed_run_has_a_whole_page(estimate: Estimate) -> None:
    save("in/a.png", 40, 60, seed=1)
    options = ["-o", "out", "--unit", "diameter", "--save", "npy"]
    assert estimate("in", *options, "--report", "first.html").exit_code == 0
    save("in/b.png", 60, 40, seed=2)
    result = estimate("in", *options, "--resume", "--report", "page.html")
    assert "1 of 2 were done before" in result.stdout
    first, page = (Page(Path(name).read_text()) for name in ("first.html", "page.html"))
    assert page.rows[1][:6] == first.rows[1][:6]
    assert page.rows[1][6] == "", "nothing was computed"
    assert page.rows[2][0] == "in/b.png"
    assert [each["src"] for each in page.all("img")][:2] == [each["src"] for each in first.all("img")]
    result = estimate("in", "--save", "png", "--resume", "--report", "page.html")
    assert result.exit_code == 2
    assert "needs --save npy" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs limits of Unix")
def test_a_page_that_does_not_fit_on_the_disk(estimate: Estimate, random_model: str) -> None:
    import resource

    save("a.png", 20, 30)
    command = [sys.executable, "-m", "defocus_fast", "estimate", "a.png", "--model", random_model, "--save", "mask"]
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (4000, 4000))
    command += ["-o", "out", "--report", "page.html"]
    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert result.returncode == 1
    assert "--report: page.html: file too large" in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["a.png", "out"]


def test_many_photographs_have_smaller_pictures() -> None:
    """So that the page of 10,000 is not larger than that of 1,000."""
    assert [_report.picture_side(count) for count in (1, 1000, 4000)] == [480, 480, 240]
    assert 10_000 * _report.picture_side(10_000) ** 2 == pytest.approx(1000 * 480**2, rel=0.01)
