# SPDX-License-Identifier: Apache-2.0
"""How the pages are built, by ``docs/build``. The checkout's documents are read where they lie."""

from __future__ import annotations

import re
from typing import Any

import defocus_fast

project = "defocus_fast"
release = defocus_fast.__version__
html_title = f"{project} {release}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]

# ---- what is read, from the folder above this one
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "examples/README.md", "training/README.md"]
exclude_patterns = [".*", "build", "out"]
myst_heading_anchors = 3
smartquotes_action = "D"  # dashes only: quotation marks of commands are to be copied
highlight_language = "text"

# ---- Python, from the imported module, where decorators have filled in the options
autodoc_typehints = "none"  # with hints, overloads would take the place of the filled-in signatures
default_role = "code"
maximum_signature_line_length = 100
python_use_unqualified_type_names = True
nitpicky = True
nitpick_ignore_regex = [("py:class", r"NDArray|numpy\..*")]  # whose pages are not asked

# ---- what is written
html_theme = "furo"
templates_path = ["."]
html_additional_pages = {"index": "redirect.html"}
html_show_copyright = False
html_use_index = html_domain_indices = False


def as_plain_text(_app: Any, _context: Any, lines: list[str]) -> None:
    """Help is plain text, not markup: columns, which follow "\b", stay columns, and asterisks are asterisks.

    sphinx-click has put "| " before the lines of columns, and "**Required**" before the text of some options.
    """
    plain = []
    for line in lines:
        if line.startswith("| "):
            if not (plain and plain[-1].startswith("    ")):
                plain += ["::", ""]
            plain.append("    " + line[2:])
        elif line.startswith(("..", "    :")):  # its own markup
            plain.append(line)
        else:
            escaped = [re.sub(r"[\\*|`_]", r"\\\g<0>", part) for part in line.split("**Required**")]
            plain.append(re.sub(r"--[a-z-]+", r"``\g<0>``", "**Required**".join(escaped)))
    lines[:] = plain


def with_short_types(*event: Any) -> None:
    """Write array types as the code does."""
    *_, lines = event
    array = re.compile(r"numpy\.ndarray\[tuple\[Any, \.\.\.\], numpy\.dtype\[(.*?)\]\]")
    lines[:] = [array.sub(r"NDArray[\1]", line) for line in lines]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", with_short_types, priority=900)  # after napoleon has added the types
    for part in ("description", "options", "epilog"):
        app.connect(f"sphinx-click-process-{part}", as_plain_text)
