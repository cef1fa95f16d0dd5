"""`nerve inspect`: what is in a file that `nerve build`, or Encoderfile, has made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nerve.cli.terminal import print_json


def inspect(
    path: Annotated[Path, typer.Argument(help="A built file.", show_default=False)],
) -> None:
    """Print the model config and the build's settings of a built file, as JSON.

    Its contents are checked against their digests; exit 1 if it is damaged.
    """
    from nerve.building.contents import inspected  # noqa: PLC0415  keeps `--help` fast
    from nerve.building.payload import read_built_file  # noqa: PLC0415

    built = read_built_file(path)
    built.check()
    print_json(inspected(built))
