"""`nerve tune`: which settings of config.yaml serve a model best on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nerve import logs
from nerve.cli.bench import EXIT_INTERRUPTED, MAX_CONCURRENCY, Batch, FormatOption, Texts
from nerve.cli.report import Format, number, progress_bar, remark, rounded, show
from nerve.cli.terminal import print_lines
from nerve.config.running import Precision
from nerve.errors import InvalidField

if TYPE_CHECKING:
    from nerve.cli.in_process import Source
    from nerve.cli.search import Trial
    from nerve.cli.tune_run import Confirmation, Tuning, Wanted

HEAD: Final = ("TEXTS/S", "PRESENT", "RATIO", "P50 MS", "P99 MS", "BATCH", "PADDING", "SETTINGS")
MAX_REASON: Final = 240
"""Characters of a refusal in a row; JSON has all of it."""


def tune(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Of one model.", show_default=False)
    ],
    max_latency: Annotated[
        float | None,
        typer.Option("--max-latency-ms", min=0.001, help="What 99 of 100 requests may take."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            "-c",
            min=1,
            max=MAX_CONCURRENCY,
            help="Requests in flight at a time. Default: four a core.",
        ),
    ] = None,
    texts: Texts = None,
    batch: Batch = 1,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="LIST",
            help="Precisions to try: int8,fp16. They change answers, so by default one is tried only "
            "if there is a golden.jsonl to tell by how much.",
        ),
    ] = None,
    seconds_per_trial: Annotated[
        float, typer.Option(min=0.02, help="Measured seconds of a trial, half with each settings.")
    ] = 6.0,
    budget: Annotated[
        float,
        typer.Option(
            "--budget",
            min=0,
            help="Seconds for all of it, about; the present settings are measured anyway.",
        ),
    ] = 300.0,
    write: Annotated[
        bool, typer.Option("--write", help="Write the best settings into config.yaml.")
    ] = False,
    format_: FormatOption = Format.TABLE,
) -> None:
    """Try settings of config.yaml and tell which are best here.

    Instances, threads, precision, rows and tokens of a run: those with the
    most texts a second, with p99 within --max-latency-ms. Each is measured in
    turns with the present ones, in this process; the best once more at the
    end. Less than 3 % is called no gain.
    """
    from nerve.cli.bench_run import run_loop  # noqa: PLC0415  keeps `--help` fast
    from nerve.cli.in_process import find_source  # noqa: PLC0415
    from nerve.cli.texts import read_texts  # noqa: PLC0415
    from nerve.cli.tune_run import Tuning, Wanted  # noqa: PLC0415
    from nerve.engine.instances import cores  # noqa: PLC0415

    logs.set_up("error")
    source = find_source(folder)
    wanted = Wanted(
        read_texts(texts), concurrency or 4 * cores(), batch, seconds_per_trial, budget,
        max_latency, _precisions(precision, source),
    )  # fmt: skip
    interrupted = False
    with progress_bar() as bar:
        tuning = Tuning(source, wanted, bar)
        try:
            run_loop(tuning.run())
        except KeyboardInterrupt:
            interrupted = True
    document = _document(tuning)
    rows = [row(trial, tuning) for trial in _ranked(tuning)]
    show(format_, HEAD, rows, document)
    if interrupted:
        remark("interrupted: nothing is written")
        raise typer.Exit(EXIT_INTERRUPTED)
    _conclude(tuning, wanted, format_, write=write)


def _precisions(given: str | None, source: Source) -> list[Precision]:
    """Which ones to try; says on stderr what that means for answers. Raises InvalidField."""
    from nerve.conversion import GPU_PROVIDER, provider_of  # noqa: PLC0415

    golden = source.files.golden is not None
    if given is not None:
        try:
            asked = [Precision(part.strip()) for part in given.split(",")]
        except ValueError:
            names = ", ".join(Precision)
            raise InvalidField(
                "--precision", f"expected some of {names}; got {given!r:.80}"
            ) from None
        if not golden:
            remark("there is no golden.jsonl: what a precision changes in answers is not checked")
        return asked
    if not golden:
        remark(
            "precision stays as it is, as there is no golden.jsonl to check answers by; --precision "
            "int8 tries it all the same"
        )
        return []
    on_gpu = provider_of(source.config) == GPU_PROVIDER
    now = source.config.optimization.precision
    back = [Precision.FP32] if now not in (None, Precision.FP32) else []
    return [Precision.FP16 if on_gpu else Precision.INT8, *back]


def _ranked(tuning: Tuning) -> list[Trial]:
    limit = tuning.wanted.max_latency_ms
    return sorted(tuning.trials, key=lambda trial: trial.score(limit), reverse=True)


def row(trial: Trial, tuning: Tuning) -> list[str]:
    """One trial below `HEAD`. Pure."""
    from nerve.cli.search import Settings  # noqa: PLC0415
    from nerve.cli.tune_run import shown  # noqa: PLC0415

    name = shown(trial.settings, Settings.of(tuning.source.config))
    found = trial.figures
    if found is None:
        return [*["-"] * (len(HEAD) - 1), f"{name}: refused: {trial.refused:.{MAX_REASON}}"]
    if found.failed:
        name += f": {sum(found.failed.values())} requests failed ({', '.join(found.failed)})"
    waste = "-" if found.padding_waste is None else f"{found.padding_waste:.1%}"
    figures = [number(value) for value in (found.p50_ms, found.p99_ms, found.mean_batch)]
    rates = [number(found.texts_per_s), number(trial.beside), f"{trial.ratio:.2f}"]
    return [*rates, *figures, waste, name]


def _document(tuning: Tuning) -> dict[str, Any]:
    """The result as JSON. Pure."""
    from nerve.cli.config_file import as_yaml  # noqa: PLC0415
    from nerve.cli.search import Settings  # noqa: PLC0415
    from nerve.cli.tune_run import path_shown  # noqa: PLC0415

    base, limit = Settings.of(tuning.source.config), tuning.wanted.max_latency_ms
    again = tuning.confirmation
    gain = again is not None and again.gains(limit)
    best = tuning.best.settings.changes(base) if tuning.best else {}
    return {
        "model": tuning.source.name,
        "version": str(tuning.source.files.number),
        "concurrency": tuning.wanted.concurrency,
        "max_latency_ms": limit,
        "trials": [
            {
                "settings": {path_shown(p): v for p, v in trial.settings.changes(base).items()},
                "present_texts_per_s": round(trial.beside, 4) if trial.figures else None,
                "ratio": round(trial.ratio, 4) if trial.figures else None,
                "figures": rounded(trial.figures) if trial.figures else None,
                "refused": trial.refused or None,
            }
            for trial in _ranked(tuning)
        ],
        "best": {path_shown(path): value for path, value in best.items()},
        "confirmed_ratio": round(again.ratio, 4) if again else None,
        "gain": gain,
        "yaml": as_yaml(best) if gain else "",
        "ended_early": tuning.ended_early,
    }


def _once_more(again: Confirmation) -> str:
    low, high = min(again.ratios), max(again.ratios)
    return (
        f"the best has {again.ratio:.2f} times the present throughput when measured again "
        f"({low:.2f} to {high:.2f})"
    )


def _conclude(tuning: Tuning, wanted: Wanted, format_: Format, *, write: bool) -> None:
    """Say what is best, and print or write it. Raises typer.Exit(1) if the limit is out of reach."""
    from nerve.cli.config_file import as_yaml  # noqa: PLC0415
    from nerve.cli.search import Settings  # noqa: PLC0415

    best, again, limit = tuning.best, tuning.confirmation, wanted.max_latency_ms
    assert best is not None  # `run` has ended
    if tuning.ended_early:
        remark(f"the budget of {wanted.budget_s:g} s ended the search; --budget gives it longer")
    if limit is not None and not (again.in_time(limit) if again else best.score(limit)[0]):
        found = again.best if again else best.figures
        p99 = number(found.p99_ms if found else None)
        remark(f"nothing kept p99 within {limit:g} ms; the nearest is {p99} ms. Nothing is written")
        raise typer.Exit(1)
    if again is None or not again.gains(limit):
        told = f": {_once_more(again)}, which may be noise" if again else ""
        remark(f"no gain over the present settings{told}. Nothing is written")
        return
    remark(_once_more(again))
    changes = best.settings.changes(Settings.of(tuning.source.config))
    if write:
        from nerve.cli.config_file import write_changes  # noqa: PLC0415

        write_changes(tuning.source, changes, tuning.tuned())
        remark(f"written into {tuning.source.config_file}")
    elif format_ is not Format.JSON:
        text = as_yaml(changes).splitlines()
        fences = ["```yaml"], ["```"]
        opening, closing = fences if format_ is Format.MARKDOWN else ([], [])
        print_lines(["", *opening, f"# for {tuning.source.config_file}", *text, *closing])
