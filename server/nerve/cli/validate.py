"""`nerve validate`: the checks of a load, without a server, for those who ship models."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nerve import logs
from nerve.cli.stopping import run
from nerve.cli.terminal import plain, print_json, print_lines

if TYPE_CHECKING:
    from nerve.cli.checkup import Check
    from nerve.cli.trial import Trial

MARKS = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "-"}
ASCII_MARKS = {"ok": "ok  ", "warning": "warn", "failed": "FAIL", "skipped": "skip"}
COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "yellow"}


def validate(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER",
            help="Repositories, model folders or version folders.",
            show_default=False,
        ),
    ],
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.001, help="Seconds for the load of one version.")
    ] = 120.0,
    memory: Annotated[
        int | None,
        typer.Option(
            "--memory-bytes", min=64 * 2**20, help="Most memory that one version may use to load."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check models as a server would before it serves them; exit 1 if anything is wrong.

    Layout, config.yaml, files, labels, tokenizer, warm-up and golden.jsonl, of
    every version in the folders. Each is loaded in a process of its own, so
    that one that crashes is only a line in the report.
    """
    from nerve.cli.trial import Trial  # noqa: PLC0415  keeps `--help` fast
    from nerve.proof_server import forked  # noqa: PLC0415

    forks = forked()
    logs.set_up("error")
    trial = Trial(timeout_s=timeout, memory_bytes=memory, forks=forks)
    if not run(_run(list(dict.fromkeys(folders)), trial, as_json=as_json)):
        raise typer.Exit(1)


async def _run(folders: Sequence[Path], trial: Trial, *, as_json: bool) -> bool:
    """Check every folder and report. Returns whether all is good."""
    from nerve.cli.checkup import Outcome, check_folder  # noqa: PLC0415  keeps `--help` fast

    checks: list[tuple[str, Check]] = []
    reporter = _Reporter()
    async with trial:
        for folder in folders:
            async for check in check_folder(folder, try_model=trial):
                checks.append((str(folder), check))
                if not as_json:
                    reporter.tell(str(folder), check)
    failed = sum(check.outcome is Outcome.FAILED for _, check in checks)
    if as_json:
        print_json(document([str(folder) for folder in folders], checks))
    else:
        models = len({(folder, check.model) for folder, check in checks if check.model})
        versions = {(folder, check.model, check.version) for folder, check in checks}
        count = sum(1 for _, _, version in versions if version)
        print_lines(
            ["", f"{_count(models, 'model')}, {_count(count, 'version')}: {_verdict(failed)}"]
        )
    return not failed


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _verdict(failed: int) -> str:
    return f"{_count(failed, 'check')} failed" if failed else "all good"


class _Reporter:
    """Prints checks as they come, each below the model and version that it is of."""

    def __init__(self) -> None:
        encoding = (sys.stdout.encoding or "").lower().replace("-", "")
        self._marks = MARKS if encoding.startswith("utf") else ASCII_MARKS
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._folder, self._model, self._version = "", "", 0

    def tell(self, folder: str, check: Check) -> None:
        """Print one check."""
        lines = []
        if folder != self._folder:
            lines += [""] if self._folder else []
            lines.append(plain(folder))
            self._folder, self._model, self._version = folder, "", 0
        if check.model != self._model:
            lines.append(f"  {plain(check.model)}")
            self._model, self._version = check.model, 0
        if check.version and check.version != self._version:
            lines.append(f"    version {check.version}")
        self._version = check.version
        indent = "  " + "  " * (bool(check.model) + bool(check.version))
        mark = self._marks[check.outcome]
        if self._coloured:
            mark = typer.style(mark, fg=COLOURS[check.outcome])
        first, *more = map(plain, check.details or ("",))
        lines.append(f"{indent}{mark} {plain(check.name):13} {first}".rstrip())
        beside = " " * (len(indent) + len(self._marks[check.outcome]) + 15)
        print_lines([*lines, *(beside + detail for detail in more)])


def document(folders: Sequence[str], checks: Sequence[tuple[str, Check]]) -> dict[str, Any]:
    """The report as JSON: folders, in them models, in them versions, each with its checks. Pure."""
    found: dict[str, Any] = {}
    for folder in folders:
        found[folder] = {"folder": folder, "ok": True, "checks": [], "models": {}}
    for folder, check in checks:
        place = found[folder]
        places = [place]
        if check.model:
            models = place["models"]
            place = models.setdefault(
                check.model, {"name": check.model, "ok": True, "checks": [], "versions": {}}
            )
            places.append(place)
        if check.version:
            versions = place["versions"]
            place = versions.setdefault(
                check.version, {"version": str(check.version), "ok": True, "checks": []}
            )
            places.append(place)
        place["checks"].append(
            {"name": check.name, "outcome": str(check.outcome), "details": list(check.details)}
        )
        place.update(check.facts)
        for each in places:
            each["ok"] = each["ok"] and check.outcome != "failed"
    for place in found.values():
        place["models"] = list(place["models"].values())
        for model in place["models"]:
            model["versions"] = list(model["versions"].values())
    return {"ok": all(place["ok"] for place in found.values()), "folders": list(found.values())}
