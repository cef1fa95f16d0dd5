"""The `nerve` command; the only code that prints or exits."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

import nerve
from nerve.cli import models
from nerve.cli.bench import bench
from nerve.cli.build import build
from nerve.cli.export import export
from nerve.cli.import_ import import_
from nerve.cli.infer import infer
from nerve.cli.inspect import inspect
from nerve.cli.mcp import mcp
from nerve.cli.new_api_key import new_api_key
from nerve.cli.new_transform import new_transform
from nerve.cli.schema import schema
from nerve.cli.serve import serve
from nerve.cli.settings import SettingsCommand
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
app.command(cls=SettingsCommand)(serve)
app.command()(mcp)
app.command()(infer)
app.command()(validate)
app.command("import")(import_)
app.command()(export)
app.command()(build)
app.command()(inspect)
app.command()(new_transform)
app.command()(new_api_key)
app.command()(bench)
app.command()(tune)
app.add_typer(models.app)
app.command()(schema)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"nerve {nerve.__version__}")
        raise typer.Exit


@app.command(hidden=True)
def version() -> None:
    """Print the version, as Encoderfile's builder does."""
    _version(True)


@app.callback()
def _root(
    context: typer.Context,
    cache_dir: Path | None = typer.Option(
        None, hidden=True, help="As of `build`; Encoderfile has it here."
    ),
    version: bool = typer.Option(  # noqa: ARG001  its callback answers
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    context.obj = cache_dir


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
