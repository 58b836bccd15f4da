# SPDX-License-Identifier: Apache-2.0
"""Measures of blur in which maps are written."""

from __future__ import annotations

from ._files import MARK

FACTORS = {"radius": 1.0, "diameter": 2.0, "sigma": 0.5}
"""Value of a measure, px, for a disk of 1 px radius.

``sigma`` is of the Gaussian whose variance along every axis is the disk's: the integral of x^2 over a disk of radius
r, divided by its area, is r^2 / 4. The widths of an edge that the two have blurred, as its second moment measures
them, are therefore the same.
"""


def description(unit: str) -> str:
    """Return what a value is. The mark of results is in it."""
    factor = FACTORS[unit]
    return MARK if factor == 1 else f"{unit} ({factor:g} * {MARK})"
