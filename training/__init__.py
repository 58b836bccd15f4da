# SPDX-License-Identifier: Apache-2.0
"""Training of defocus_fast's own weights: data, synthesis, networks, training and export. Never needed at run time."""

import argparse
from pathlib import Path


def positive(text: str) -> int:
    """Return the whole number > 0 that an argument of a command gives."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number > 0, got {text}")
    return value


def existing(text: str) -> Path:
    """Return the file or folder that an argument of a command names."""
    if not (path := Path(text)).exists():
        raise argparse.ArgumentTypeError(f"there is no {text}")
    return path
