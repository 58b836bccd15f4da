# SPDX-License-Identifier: Apache-2.0
"""Make the pictures of gallery.md again: ``python docs/gallery.py`` runs the commands and programs that it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_suffix(".md")
RUN = {"sh": ["bash", "-euc"], "python": [sys.executable, "-c"]}

scripts = Path(sys.executable).parent  # where defocus-fast is, also if the environment is not activated
environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
PAGE.with_suffix("").mkdir(exist_ok=True)
for language, text in re.findall(r"(?ms)^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8")):
    subprocess.run([*RUN[language], text], cwd=PAGE.parents[1], env=environment, check=True)
