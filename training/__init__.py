# SPDX-License-Identifier: Apache-2.0
"""Training of defocus_fast's own weights: data, synthesis, networks, training and export. Never needed at run time."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path


def positive(text: str) -> int:
    """Return the whole number > 0 that an argument of a command gives."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number > 0, got {text}")
    return value


def natural(text: str) -> int:
    """Return the whole number >= 0 that an argument of a command gives."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 0, got {text}")
    return value


def fraction(text: str) -> float:
    """Return the number from 0 to 1 that an argument of a command gives."""
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


def plain_name(text: str) -> str:
    """Return the name of a file or model that an argument of a command gives."""
    if text in ("", "..") or Path(text).name != text or not text.isprintable():
        raise argparse.ArgumentTypeError(f"expected a name without folders, got {text!r}")
    return text


def existing(text: str) -> Path:
    """Return the file or folder that an argument of a command names."""
    if not (path := Path(text)).exists():
        raise argparse.ArgumentTypeError(f"there is no {text}")
    return path


def writable(text: str) -> Path:
    """Return the file that an argument of a command names, whose folder is there."""
    path = Path(text)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot write {text}")
    return path


def run(parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], None]) -> None:
    """Run a command; what its files or arguments are not fit for ends it with one line."""
    args = parser.parse_args()
    try:
        work(args)
    except (OSError, ValueError) as error:
        parser.error(str(error))
