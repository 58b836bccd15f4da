# SPDX-License-Identifier: Apache-2.0
"""The command ``defocus-fast``: a module for each of its commands; what they share is in `_options` and `_shared`.

NumPy, Pillow and rich are loaded by the commands that need them, when they run.
"""

from __future__ import annotations

import click

from . import bench, build_engines, cull, deblur, estimate, evaluate, import_weights, info
from ._shared import shown


class _Commands(click.Group):
    """The commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse arguments that are longer than any path: messages show what they are about."""
        for argument in args:
            if len(argument) > 4095:
                got = f"one of {len(argument)}, which begins with {shown(argument[:60])}"
                raise click.UsageError(f"expected arguments of at most 4095 characters, got {got}", ctx)
        return super().parse_args(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="defocus_fast", prog_name="defocus-fast")
def main() -> None:
    """How much every pixel of a photograph is out of focus: the radius in pixels of the disk that blurred it."""


main.add_command(bench.bench)
main.add_command(build_engines.build_engines)
main.add_command(cull.cull)
main.add_command(deblur.deblur)
main.add_command(estimate.estimate)
main.add_command(evaluate.evaluate)
main.add_command(import_weights.import_weights)
main.add_command(info.info)
