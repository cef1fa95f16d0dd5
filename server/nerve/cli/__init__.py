"""The `nerve` command; the only code that prints or exits."""

from __future__ import annotations

import sys

import typer

import nerve
from nerve.cli import models
from nerve.cli.bench import bench
from nerve.cli.infer import infer
from nerve.cli.schema import schema
from nerve.cli.serve import serve
from nerve.cli.tune import tune
from nerve.cli.validate import validate
from nerve.errors import ConfigInvalid, NerveError, RuntimeMissing

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="nerve",
    help="Serve ONNX named-entity-recognition models from a folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(infer)
app.command()(validate)
app.command()(bench)
app.command()(tune)
app.add_typer(models.app)
app.command()(schema)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"nerve {nerve.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    """Entry point: errors of ours become one clear message and an exit status."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except ConfigInvalid as error:
        print(f"Error: {error.source} cannot be used:", file=sys.stderr)
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except NerveError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE if isinstance(error, RuntimeMissing) else EXIT_ERROR)
