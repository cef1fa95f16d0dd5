"""`nerve bench`: what a model does under load, on a running server or in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from nerve import logs
from nerve.cli.https import Identity
from nerve.cli.models import DEFAULT_URL, ApiKey, CaFile, CertFile, KeyFile
from nerve.cli.report import FIGURE_HEADS, Format, cells, remark, show
from nerve.errors import InvalidField

EXIT_INTERRUPTED: Final = 130
MAX_CONCURRENCY: Final = 10_000

Texts = Annotated[
    Path | None,
    typer.Option(
        "--texts",
        metavar="FILE",
        help="A text a line, or .jsonl with a text in each; - is stdin. Default: a hundred built-in "
        "sentences.",
    ),
]
Batch = Annotated[int, typer.Option("--batch", min=1, max=100_000, help="Texts a request.")]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="What is written.")]


def bench(
    model: Annotated[
        str,
        typer.Argument(
            help="Name of a model on a running server; or a folder, which is loaded in this process.",
            metavar="MODEL",
            show_default=False,
        ),
    ],
    concurrency: Annotated[
        str,
        typer.Option(
            "--concurrency", "-c", metavar="LIST", help="Requests in flight at a time; a row each."
        ),
    ] = "1,8,64",
    duration: Annotated[
        float, typer.Option("--duration", "-d", min=0.01, help="Seconds of each row.")
    ] = 5.0,
    requests: Annotated[
        int | None,
        typer.Option("--requests", "-n", min=1, help="End each row after so many instead."),
    ] = None,
    texts: Texts = None,
    batch: Batch = 1,
    warm_up: Annotated[
        float, typer.Option("--warm-up", min=0, help="Seconds before each row that do not count.")
    ] = 1.0,
    format_: FormatOption = Format.TABLE,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="NERVE_URL",
            help=f"Root of the server. Default: {DEFAULT_URL}; given, MODEL is a name.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.001, help="Seconds for one request to a server.")
    ] = 60.0,
    api_key: ApiKey = None,
    ca_file: CaFile = None,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
) -> None:
    """Measure throughput and latency under load.

    MODEL is a name on the server at --url, or a folder of a model. The figures
    of batches and padding are the engine's own; on a server, requests of
    others count in them too.
    """
    from nerve.cli.bench_run import Run, run_loop  # noqa: PLC0415  keeps `--help` fast
    from nerve.cli.texts import read_texts  # noqa: PLC0415

    logs.set_up("error")
    levels = concurrency_list(concurrency)
    run = Run(
        model, url, levels, read_texts(texts), duration_s=duration, requests=requests,
        warm_up_s=warm_up, batch=batch, timeout_s=timeout,
        identity=Identity(api_key, ca_file, cert_file, key_file),
    )  # fmt: skip
    remark(run.title)
    interrupted = False
    try:
        run_loop(run.measure())
    except KeyboardInterrupt:
        interrupted = True
    head = ["CALLERS", *FIGURE_HEADS]
    rows = [[str(each.concurrency), *cells(each)] for each in run.rows]
    if rows or not interrupted:
        show(format_, head, rows, run.document())
    for kind, first in run.failures.items():
        remark(f"{kind}: {first:.300}")
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if not all(each.requests for each in run.rows):
        raise typer.Exit(1)


def concurrency_list(given: str) -> list[int]:
    """`1,8,64` as numbers. Raises InvalidField. Pure."""
    try:
        levels = [int(part) for part in given.split(",")]
    except ValueError:
        raise InvalidField(
            "--concurrency", f"expected 1,8,64 or the like, got {given!r:.80}"
        ) from None
    if not all(1 <= level <= MAX_CONCURRENCY for level in levels):
        raise InvalidField("--concurrency", f"expected 1 to {MAX_CONCURRENCY}, got {given!r:.80}")
    return levels
