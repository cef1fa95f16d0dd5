"""Which format a file has, by its name or as it was said. Pure; nothing is opened here."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from nerve.errors import InvalidField

GZIP: Final = ".gz"


class Kind(StrEnum):
    """What a file of texts is."""

    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


_BY_SUFFIX: Final = {
    ".jsonl": Kind.JSONL,
    ".ndjson": Kind.JSONL,
    ".csv": Kind.CSV,
    ".parquet": Kind.PARQUET,
}


class Shape(NamedTuple):
    """A file's format; `gzipped` tells whether it is compressed as a whole."""

    kind: Kind
    gzipped: bool = False


def is_gzipped(path: Path) -> bool:
    """Whether the name says so."""
    return path.suffix.lower() == GZIP


def kind_of_name(path: Path) -> Kind | None:
    """What a name says, with or without .gz at its end; None if it says nothing."""
    plain = path.with_suffix("") if is_gzipped(path) else path
    return _BY_SUFFIX.get(plain.suffix.lower())


def shape_of_input(path: Path | None, said: Kind | None) -> Shape:
    """Of the input; None is stdin.

    Raises:
        InvalidField: Parquet where it cannot be read from.
    """
    kind = said or (kind_of_name(path) if path else None) or Kind.TEXT
    gzipped = path is not None and is_gzipped(path)
    if kind is Kind.PARQUET and (path is None or gzipped):
        where = "stdin" if path is None else str(path)
        raise InvalidField(
            "--input-file", f"{where}: Parquet is read from a file that is not compressed again"
        )
    return Shape(kind, gzipped)


def shape_of_output(path: Path | None, kind: Kind) -> Shape:
    """Of the output; None is stdout.

    Raises:
        InvalidField: Parquet where it cannot be written to.
    """
    gzipped = path is not None and is_gzipped(path)
    if kind is Kind.PARQUET and (path is None or gzipped):
        where = "stdout" if path is None else str(path)
        raise InvalidField(
            "--output",
            f"{where}: Parquet needs a file, as -o FILE.parquet; it compresses by itself",
        )
    return Shape(kind, gzipped)
