"""The first lines of a built program; PyInstaller runs this file."""

import os

# There is no rich in a built program; without this, Typer would look for it.
os.environ["TYPER_USE_RICH"] = "0"

from nerve.cli.built import main

if __name__ == "__main__":
    main()
