"""`nerve build`: Encoderfile's build file in, one executable file out that needs nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

import nerve
from nerve import logs
from nerve.cli.stopping import run, stoppable
from nerve.cli.terminal import plain, print_lines
from nerve.errors import ConfigInvalid

if TYPE_CHECKING:
    from nerve.importing.encoderfile_keys import BuildConfig
    from nerve.importing.plan import ImportPlan

EXIT_ERROR = 1


class Format(StrEnum):
    """What is written."""

    EXECUTABLE = "executable"
    FOLDER = "folder"


def build(
    context: typer.Context,
    config: Annotated[
        Path, typer.Option("-f", "--config", help="The build file (YAML).", show_default=False)
    ],
    output_path: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output-path",
            metavar="PATH",
            help="Where to write. Default: what the file says, else here.",
        ),
    ] = None,
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="executable: one file to run; folder: a model folder for `nerve serve`, in the "
            "folder that -o names.",
        ),
    ] = Format.EXECUTABLE,
    replace: Annotated[
        bool, typer.Option("--replace", help="With folder: in the place of a model of that name.")
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option(help="Where relative paths in the file start. Default: the working folder."),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="NERVE_CACHE_DIR",
            help="Where the runtime is kept. Default: $XDG_CACHE_HOME/nerve, else ~/.cache/nerve.",
        ),
    ] = None,
    base_binary_path: Annotated[
        Path | None, typer.Option(help="A runtime to take instead of the one in the cache.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", "--platform", help="Only this machine's own can be built."),
    ] = None,
    runtime_version: Annotated[
        str | None, typer.Option(help=f"Only this Nerve's own: {nerve.__version__}.")
    ] = None,
    no_download: Annotated[  # noqa: ARG001  always so
        bool, typer.Option("--no-download", help="Always so: nothing is ever downloaded.")
    ] = False,
) -> None:
    """Build one executable file with a model and all that it needs to be served.

    The build file is Encoderfile's. The program in the built file is
    made once, which takes about a minute; further builds take seconds.
    """
    from nerve.cli.build_steps import RuntimeWanted, build_file  # noqa: PLC0415  keeps `--help` fast
    from nerve.importing.encoderfile import plan_of, read_build_config  # noqa: PLC0415

    logs.set_up("error")
    context.with_resource(stoppable())  # what is half-written is removed
    _say("• Loading config...")
    try:
        read = read_build_config(config, directory=directory)
        plan = plan_of(read, building=True)
        for note in plan.notes:
            print(f"Note: {plain(note)}", file=sys.stderr)
        start = directory or Path()
        base = base_binary_path or _inside(start, read.base_binary_path)
        inputs = _inputs(config, read, plan, start=start)
        named = output_path or read.output_path or f"{plan.name}.encoderfile"
        place = Path(named) if output_path else start / named
        if format_ is Format.FOLDER:
            repository = place if output_path else place.parent
            place = _write_folder(plan, repository, replace=replace, inputs=inputs)
        else:
            _refuse_folder(named)
            cache = cache_dir or context.obj or _inside(start, read.cache_dir) or _default_cache()
            wanted = RuntimeWanted(
                cache=cache.absolute(),  # it is made in a process with another working folder
                base=base,
                target=target or read.target,
                version=runtime_version,
            )
            build_file(plan, wanted, place, inputs=[*inputs, *([base] if base else [])], say=_say)
    except ConfigInvalid as error:
        _refuse(error)
    _say(f"✓ Build complete: {_shown(place, read.output_path)}")


def _inputs(config: Path, read: BuildConfig, plan: ImportPlan, *, start: Path) -> list[Path]:
    """The files that a build file means, and itself. Pure."""
    script = read.transform.path if read.transform is not None else None
    return [config, *plan.files.values(), *([start / script] if script else [])]


def _refuse_folder(named: str) -> None:
    """`x/` is a folder, also where a path has no slash at its end any more."""
    from nerve.building.faults import BuildFailed  # noqa: PLC0415  keeps `--help` fast

    if named.endswith("/"):
        raise BuildFailed(f"{named} cannot be written: it names a folder; name a file: -o FILE")


def _write_folder(
    plan: ImportPlan, repository: Path, *, replace: bool, inputs: Sequence[Path]
) -> Path:
    """Validate the model and write its folder. Raises as `validate` and `install`."""
    from nerve.building.assembly import check_kept, check_writable  # noqa: PLC0415  as below
    from nerve.building.faults import BuildFailed  # noqa: PLC0415  keeps `--help` fast
    from nerve.cli.build_steps import validate  # noqa: PLC0415
    from nerve.importing.install import check_place, install  # noqa: PLC0415
    from nerve.proof_server import forked  # noqa: PLC0415

    place = repository / plan.name
    if os.path.lexists(place) and not replace:
        raise BuildFailed(
            f"{place} is there already; add --replace to put the new one in its place"
        )
    check_place(place, replace=replace)
    check_kept(place, inputs)
    check_writable(place, next(each for each in place.parents if each.exists()))
    run(validate(plan, say=_say, forks=forked()))
    _say("• Writing model folder...")
    return install(plan, repository, replace=replace)


def _default_cache() -> Path:
    from nerve.building.runtime import default_cache  # noqa: PLC0415  keeps `--help` fast

    return default_cache(os.environ)


def _inside(start: Path, path: str | None) -> Path | None:
    return None if path is None else start / path


def _shown(place: Path, given: str | None) -> str:
    """A path as the build file has it, `./` in front included."""
    return given if given is not None and Path(given) == place else str(place)


def _say(line: str) -> None:
    print_lines([plain(line)])


def _refuse(error: ConfigInvalid) -> NoReturn:
    """As any other fault of a build: exit 1, as Encoderfile does."""
    print(f"Error: {plain(error.source)} cannot be used:", file=sys.stderr)
    for problem in error.problems:
        print(f"  {problem}", file=sys.stderr)
    raise typer.Exit(EXIT_ERROR)
