"""`nerve import`: a model of Encoderfile, Baseten or Triton, or an export, into a repository."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nerve import logs
from nerve.cli.stopping import run, stoppable
from nerve.cli.terminal import plain, print_lines

if TYPE_CHECKING:
    from nerve.cli.checkup import Check
    from nerve.importing.plan import ImportPlan
    from nerve.importing.recognize import Recognized
    from nerve.importing.source import Wishes
    from nerve.proof import ForkServer

DEFAULT_REPOSITORY = Path("model_repository")
_MARKS = {"ok": "ok  ", "warning": "warn", "failed": "FAIL", "skipped": "skip"}
_BODY = '\'{"inputs": ["Ada Lovelace lived in London."]}\''


def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="An Encoderfile build file, a Truss config.yaml, a Triton model folder, an export "
            "folder, a model folder of Nerve's, or a built .encoderfile.",
            show_default=False,
        ),
    ],
    repository: Annotated[
        Path, typer.Option("--repository", "-r", help="Folder of models; made if it is not there.")
    ] = DEFAULT_REPOSITORY,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the model, instead of the source's own.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of a model of that name.")
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            help="Export folder: the model of a Truss config; tokenizer and labels of a Triton model.",
        ),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory",
            help="Where relative paths of an Encoderfile build file start; by default here.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be written, and write nothing.")
    ] = False,
    validate: Annotated[
        bool,
        typer.Option(
            "--validate/--no-validate", help="Load the model first; a broken one is not installed."
        ),
    ] = True,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.001, help="Seconds for the load of one version.")
    ] = 120.0,
) -> None:
    """Bring a model of another tool into a model repository.

    What the source says is written as config.yaml, and what has no meaning here
    is told. The model is checked as `nerve validate` does before it is put in
    its place, so a running server never sees half of it, or a broken one.
    """
    from nerve.importing.source import Wishes  # noqa: PLC0415  keeps `--help` fast

    logs.set_up("error")
    options = _again(repository, name, replace=replace)
    wishes = Wishes(name=name, checkpoint=checkpoint, directory=directory, options=options)
    how = _How(repository, replace=replace, dry_run=dry_run, validate=validate, timeout_s=timeout)
    with stoppable(), _recognized(source, wishes) as found:
        _bring_in(source, found, how)


def _again(repository: Path, name: str | None, *, replace: bool) -> tuple[str, ...]:
    """What of the options belongs into a line to type again."""
    stated = ["--repository", str(repository)] if repository != DEFAULT_REPOSITORY else []
    stated += [] if name is None else ["--name", name]
    return (*stated, *(["--replace"] if replace else []))


class _How(NamedTuple):
    """What is to be done with the plan of a source."""

    repository: Path
    replace: bool
    dry_run: bool
    validate: bool
    timeout_s: float


@contextmanager
def _recognized(source: Path, wishes: Wishes) -> Iterator[Recognized]:
    from nerve.cli.built_source import ENDING, is_built, taken_apart  # noqa: PLC0415
    from nerve.importing.export_folder import is_file  # noqa: PLC0415
    from nerve.importing.recognize import recognize  # noqa: PLC0415

    if is_file(source) and (is_built(source) or source.suffix.lower() == ENDING):
        with taken_apart(source, wishes) as found:
            yield found
    else:
        yield recognize(source, wishes)


def _bring_in(source: Path, found: Recognized, how: _How) -> None:
    """Write what was found, or tell what would be written."""
    from nerve.importing.config_check import check_config  # noqa: PLC0415
    from nerve.importing.install import check_place, install  # noqa: PLC0415

    plan, repository = found.plan, how.repository
    check_place(repository / plan.name, replace=how.replace)
    print_lines([plain(f"{source}: {found.kind}")])
    if how.dry_run:
        print_lines(_written(plan, repository))
        print_lines(_notes(plan))
        if how.validate:
            check_config(plan)
        return

    def check(folder: Path) -> None:
        from nerve.proof_server import forked  # noqa: PLC0415  keeps `--help` fast

        if not run(_is_good(folder, timeout_s=how.timeout_s, forks=forked())):
            raise _NotGood

    try:
        folder = install(
            plan, repository, replace=how.replace, check=check if how.validate else None
        )
    except _NotGood:
        print_lines(_notes(plan))
        print(
            f"Error: {plan.name} is not installed: mend the above first, or add --no-validate to "
            "have it all the same",
            file=sys.stderr,
        )
        raise typer.Exit(1) from None
    print_lines([plain(f"✓ installed {folder}")])
    print_lines(_notes(plan))
    print_lines(_next(found, repository))


class _NotGood(Exception):
    """The model would not load; the reasons are printed."""


async def _is_good(folder: Path, *, timeout_s: float, forks: ForkServer | None) -> bool:
    """Make the checks of `nerve validate`, and print each."""
    from nerve.cli.checkup import Outcome, check_folder  # noqa: PLC0415
    from nerve.cli.trial import Trial  # noqa: PLC0415

    good = True
    async with Trial(timeout_s=timeout_s, memory_bytes=None, forks=forks) as trial:
        async for check in check_folder(folder, try_model=trial):
            print_lines(_told(check))
            good = good and check.outcome is not Outcome.FAILED
    return good


def _told(check: Check) -> Iterator[str]:
    version = f"version {check.version} " if check.version else ""
    first, *more = check.details or ("",)
    yield f"  {_MARKS[check.outcome]} {plain(f'{version}{check.name}: {first}')}"
    yield from (f"       {plain(detail)}" for detail in more)


def _written(plan: ImportPlan, repository: Path) -> Iterator[str]:
    """What an import would write."""
    from nerve.importing.config_text import config_text  # noqa: PLC0415

    yield plain(f"would write {repository / plan.name}{os.sep}")
    for place, path in sorted(plan.files.items()):
        yield f"  {plain(f'{place}  <- {path}')}"
    for place in sorted(plan.texts):
        yield f"  {plain(place)}"
    if plan.config or plan.head:
        yield "  config.yaml:"
        for line in config_text(plan.config, plan.head).splitlines():
            yield f"    {plain(line) if line.startswith('#') else line}"


def _notes(plan: ImportPlan) -> Iterator[str]:
    return (f"  note: {plain(note)}" for note in plan.notes)


def _next(found: Recognized, repository: Path) -> Iterator[str]:
    """What to type now."""
    name = found.plan.name
    root = f"http://localhost:8080/v1/models/{name}"
    route = "predict_tokens" if found.kind.startswith("Truss") else "predict"
    yield "next:"
    yield f"  nerve serve {shlex.quote(str(repository))}"
    yield f"  curl {root}/{route} -H 'Content-Type: application/json' -d {_BODY}"
