# SPDX-License-Identifier: Apache-2.0
"""Sections of ACCURACY.md that stand between markers, each written by a program of its own."""

from __future__ import annotations

import re
from pathlib import Path

FILE = Path(__file__).parents[1] / "ACCURACY.md"


def write(name: str, text: str) -> None:
    """Replace the section `name`, or add it at the end; `text` ends with a newline."""
    new = f"<!-- {name} -->\n{text}<!-- /{name} -->\n"
    old = FILE.read_text(encoding="utf-8")
    page, count = re.subn(rf"(?s)<!-- {name} -->.*<!-- /{name} -->\n", lambda _: new, old)
    FILE.write_text(page if count else f"{old.rstrip()}\n\n{new}", encoding="utf-8")
