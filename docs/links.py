# SPDX-License-Identifier: Apache-2.0
"""Find dead links in built pages: ``python docs/links.py FOLDER``. Links to other sites are not followed."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

folder = Path(sys.argv[1]).resolve()
pages = {file: BeautifulSoup(file.read_bytes(), "html.parser") for file in folder.rglob("*.html")}
anchors = {file: {tag["id"] for tag in page.find_all(id=True)} | {""} for file, page in pages.items()}
links = [
    (file, tag[attribute])
    for file, page in pages.items()
    for attribute in ("href", "src")
    for tag in page.find_all(attrs={attribute: True})
    if not urlsplit(tag[attribute]).scheme
]
dead = []
for file, link in links:
    parts = urlsplit(link)
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not target.is_file() or unquote(parts.fragment) not in anchors.get(target, {parts.fragment}):
        dead.append(f"{file.relative_to(folder)}: {link}")
print(*dead, f"{len(links)} links in {len(pages)} pages, {len(dead)} dead", sep="\n")
sys.exit(bool(dead) or not links)
