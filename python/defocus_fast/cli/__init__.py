# SPDX-License-Identifier: Apache-2.0
"""The command ``defocus-fast``: one module for each of its commands, what they share in `_options` and `_shared`.

NumPy, Pillow, rich and the core are loaded by the commands that need them, when they run.
"""

from __future__ import annotations

import click

from .bench import bench
from .build_engines import build_engines
from .estimate import estimate
from .evaluate import evaluate
from .import_weights import import_weights
from .info import info


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="defocus_fast", prog_name="defocus-fast")
def main() -> None:
    """How much every pixel of a photograph is out of focus: the radius in pixels of the disk that blurred it."""


for command in (bench, build_engines, estimate, evaluate, import_weights, info):
    main.add_command(command)
