"""What texts come from: a file, stdin, the command line, or one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from nerve.cli.bulk.formats import Kind, shape_of_input
from nerve.cli.bulk.lines import open_lines
from nerve.cli.bulk.records import Reader, Record

STDIN: Final = "-"


class GivenTexts:
    """`Reader` of texts from the command line."""

    def __init__(self, texts: Sequence[str], *, text_field: str) -> None:
        self._texts, self._text_field = texts, text_field
        self.name = "TEXT"
        self.total = None

    @property
    def columns(self) -> Sequence[str]:
        """See `Reader.columns`."""
        return [self._text_field]

    def __iter__(self) -> Iterator[Record]:
        """See `Reader.__iter__`."""
        for number, text in enumerate(self._texts, start=1):
            fields = {self._text_field: text}
            yield Record(self.name, str(number), text, b"", number, len(text), fields)

    def close(self) -> None:
        """There is nothing to close."""


class Several:
    """`Reader` of one input after the other; nobody knows how much that is."""

    total = None

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = readers
        self.name = "the input"

    @property
    def columns(self) -> Sequence[str]:
        """See `Reader.columns`: those of all."""
        return list(dict.fromkeys(itertools.chain(*(each.columns for each in self._readers))))

    def __iter__(self) -> Iterator[Record]:
        """See `Reader.__iter__`."""
        return itertools.chain.from_iterable(self._readers)

    def close(self) -> None:
        """See `Reader.close`."""
        for each in self._readers:
            each.close()


def open_input(path: Path, said: Kind | None, *, text_field: str, carry: bool = True) -> Reader:
    """A reader of a file, or of stdin (-).

    Args:
        path: the file.
        said: its format; None goes by its name.
        text_field: name of the field, or column, with the text.
        carry: False where the other fields of a Parquet file are not wanted.
    Raises:
        InputBroken, InvalidField: it cannot be read.
    """
    file = None if str(path) == STDIN else path
    shape = shape_of_input(file, said)
    if shape.kind is Kind.PARQUET:
        from nerve.cli.bulk.parquet import ParquetReader  # noqa: PLC0415  an extra

        return ParquetReader(path, text_field=text_field, carry=carry)
    return open_lines(file, shape, text_field=text_field)
