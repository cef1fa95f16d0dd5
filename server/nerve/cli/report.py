"""How measurements are shown: rows of a table, Markdown, JSON; and a bar while they are made."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from nerve.cli.terminal import plain, print_json, print_lines, print_table

if TYPE_CHECKING:
    from rich.progress import Progress

    from nerve.cli.drive import Figures

TICK_S: Final = 0.2
UNKNOWN: Final = "-"


class Format(StrEnum):
    """What is written."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"


FIGURE_HEADS: Final = (
    "TEXTS/S", "TOKENS/S", "P50 MS", "P95 MS", "P99 MS", "BATCH", "PADDING", "FAILED",
)  # fmt: skip


def cells(each: Figures) -> list[str]:
    """One measurement below `FIGURE_HEADS`. Pure."""
    failed = sum(each.failed.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in each.failed.items())
    return [
        number(each.texts_per_s),
        number(each.tokens_per_s),
        *(number(value) for value in (each.p50_ms, each.p95_ms, each.p99_ms)),
        number(each.mean_batch),
        UNKNOWN if each.padding_waste is None else f"{each.padding_waste:.1%}",
        f"{failed} ({kinds})" if failed else "0",
    ]


def number(value: float | None) -> str:
    """Three digits that matter; a dash for what is not known. Pure."""
    if value is None:
        return UNKNOWN
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def rounded(each: Figures) -> dict[str, object]:
    """One measurement for JSON. Pure."""
    return {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in asdict(each).items()
    }


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table. Pure."""
    lines = [head, ["---"] * len(head), *rows]
    return [
        "| " + " | ".join(plain(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    ]


def show(
    format_: Format,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    document: Mapping[str, object],
) -> None:
    """Print a table, or the document that says the same."""
    if format_ is Format.JSON:
        print_json(document)
    elif format_ is Format.MARKDOWN:
        print_lines(markdown(head, rows))
    else:
        print_table(head, rows)


def remark(sentence: str) -> None:
    """A line beside the result, which alone goes to stdout."""
    print(plain(sentence), file=sys.stderr)


class Bar:
    """A progress bar on stderr where somebody looks, else nothing."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    @asynccontextmanager
    async def watch(
        self, label: str, *, total: float | None, done: Callable[[], float]
    ) -> AsyncIterator[None]:
        """Show how much of `total` (None: who knows) is done, while the block runs."""
        if self._progress is None:
            yield
            return
        task = self._progress.add_task(plain(label), total=total)

        async def tick(progress: Progress) -> None:
            while True:
                progress.update(task, completed=done())
                await asyncio.sleep(TICK_S)

        ticker = asyncio.create_task(tick(self._progress))
        try:
            yield
        finally:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)
            self._progress.remove_task(task)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """Until the block ends."""
    if not sys.stderr.isatty():
        yield Bar(None)
        return
    from rich.console import Console  # noqa: PLC0415  keeps `--help` fast
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as progress:
        yield Bar(progress)
