"""The first lines of a built program; PyInstaller runs this file."""

import os
from collections.abc import Callable

from nerve.starting import begin

# There is no rich in a built program; without this, Typer would look for it.
os.environ["TYPER_USE_RICH"] = "0"


def _command() -> Callable[[], None]:
    from nerve.cli.built import main  # noqa: PLC0415  Ctrl-C is quiet meanwhile

    return main


if __name__ == "__main__":
    begin(_command)
