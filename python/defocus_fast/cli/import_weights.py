# SPDX-License-Identifier: Apache-2.0
"""``defocus-fast import-weights``."""

from __future__ import annotations

from pathlib import Path

import click

from ._options import FOLDER, FOLDER_WITH_FILES
from ._shared import fail, reason, shown


@click.command("import-weights", short_help="Convert the authors' published weights.")
@click.argument("folder", metavar="DIR", type=FOLDER_WITH_FILES)
@click.argument("out", metavar="OUT", type=FOLDER)
def import_weights(folder: Path, out: Path) -> None:
    """Convert the weights that the authors of the method published into a model folder.

    DIR holds blur/0.mat to blur/21.mat and edge/0.mat to edge/25.mat; OUT becomes a folder for `estimate --model`.
    These weights are under GPL-3.0, and so is the folder made from them. Needs: pip install "defocus_fast[models]"
    """
    from .. import model_io

    try:
        weights = model_io.import_published_weights(folder)
        model_io.write_model(
            out, weights, name="published", crop_offset=1, trained="weights published by the authors, GPL-3.0"
        )
    except ModuleNotFoundError as error:
        fail(reason(error))
    except FileNotFoundError as error:
        fail(f"no such file: {shown(error.filename)}")
    except OSError as error:
        fail(f"{shown(error.filename or out)}: {reason(error)}")
    except Exception as error:  # of files that are not what they should be
        fail(f"{shown(folder)} does not hold the published weights: {type(error).__name__}: {reason(error)}")
    click.echo(f"{shown(out)}: model of width {weights['branch1.conv1'].shape[0]}")
    click.echo("These weights were published by the authors under GPL-3.0; the model folder is under GPL-3.0 too.")
