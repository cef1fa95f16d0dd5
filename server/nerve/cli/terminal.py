"""How commands print: tables and JSON, whole in a pipe, and nothing that a terminal would obey."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from nerve.errors import NerveError

PIPE_COLUMNS = 1_000_000
"""Width of a table that nobody looks at: nothing is cut or folded."""
_STYLES = {"READY": "green", "UNAVAILABLE": "red", "LOADING": "yellow", "UNLOADING": "yellow"}


class OutputFailed(NerveError):
    """What a command has to say cannot be written."""

    reason = "output_failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"stdout cannot be written: {self.detail}"


def plain(text: object) -> str:
    """Text in one line, without control characters, and such as stdout can write."""
    shown = " ".join(str(text).split())
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
    encoding = sys.stdout.encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def print_json(value: object) -> None:
    """One document on stdout, UTF-8, indented."""
    # the stdlib's, as it can write names that are no UTF-8
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    print_bytes(text.encode("utf-8", "backslashreplace"))


@contextmanager
def stdout_bytes() -> Iterator[BinaryIO]:
    """stdout for bytes, which are flushed. Raises OutputFailed: what it leads to is closed or full."""
    if sys.stdout is None:  # nerve … >&-
        raise OutputFailed("it is closed")
    with _pipe_may_close():
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()


def print_bytes(content: bytes) -> None:
    """Bytes on stdout. Raises as `stdout_bytes`."""
    with stdout_bytes() as sink:
        sink.write(content)


def print_lines(lines: Iterable[str]) -> None:
    """Lines on stdout, as soon as they are there."""
    with _pipe_may_close():
        for line in lines:
            print(line, flush=True)


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout: aligned columns; in a terminal folded to its width, and states in colour."""
    from rich import box  # noqa: PLC0415  keeps `--help` fast
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    looked_at = sys.stdout.isatty()
    console = Console(
        force_terminal=looked_at,  # whatever FORCE_COLOR says: a file gets plain text
        width=None if looked_at else PIPE_COLUMNS,
        highlight=False,
    )
    table = Table(*head, box=box.SIMPLE_HEAD if looked_at else None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        cells = [plain(cell) for cell in row]
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in cells))
    with console.capture() as captured:
        console.print(table)
    print_lines(line.rstrip() for line in captured.get().splitlines())


@contextmanager
def _pipe_may_close() -> Iterator[None]:
    """`nerve … | head` has seen enough; that is no fault, unlike a full disk."""
    try:
        yield
    except OSError as error:
        # What is still to be written would fail again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OutputFailed(error.strerror or str(error)) from error
