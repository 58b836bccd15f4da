# SPDX-License-Identifier: Apache-2.0
"""``defocus-fast info``."""

from __future__ import annotations

import click

from ._shared import cores


@click.command(short_help="Print the build, the devices and the models.")
def info() -> None:
    """Print what was built in, what this machine offers, and the shipped models."""
    from .. import Error, Estimator, _tensorrt, available_kernels, build_config, model_io, shipped_models

    facts = {f"built: {key}" if key != "version" else key: value for key, value in build_config().items()}
    facts["kernels here"] = ", ".join(available_kernels()) + " (the first is used)"
    facts["device cpu"] = f"{cores()} cores"
    try:
        Estimator(1, 1, device="cuda", networks=lambda *_: None)  # engines may take minutes to build
        _tensorrt.import_tensorrt()
        facts["device cuda"] = "available"
    except Error as error:
        facts["device cuda"] = f"not available: {error}"
    for name in shipped_models():
        lines = (model_io.shipped_folder() / name / "model.txt").read_text(encoding="utf-8").splitlines()
        facts[f"model {name}"] = "\n".join(line for line in lines if not line.startswith("tensor "))
    if not shipped_models():
        facts["models"] = "none shipped"

    margin = max(map(len, facts))
    for key, value in facts.items():
        click.echo(f"{key:{margin}}  " + value.replace("\n", "\n" + " " * (margin + 2)))
