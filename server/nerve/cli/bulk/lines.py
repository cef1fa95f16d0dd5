"""Inputs with lines: plain text, JSONL, CSV. What Parquet is, `parquet` knows."""

from __future__ import annotations

import csv
import gzip
import hashlib
import itertools
import os
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, cast

import orjson

from nerve.cli.bulk.formats import Kind, Shape
from nerve.cli.bulk.records import MAX_RECORD_BYTES, InputBroken, Record
from nerve.errors import kind_of

PEEKED: Final = 1000
"""Records that are looked at to find out which fields there are."""
_BOM: Final = b"\xef\xbb\xbf"
_NOT_UTF8: Final = "is not valid UTF-8; the file must be in UTF-8"


class Lines:
    """The lines of a file or of stdin: counted, hashed, without a byte-order mark."""

    def __init__(self, path: Path | None, *, gzipped: bool = False) -> None:
        """`path` None is stdin.

        Raises:
            InputBroken: it cannot be opened.
        """
        self.name = "stdin" if path is None else str(path)
        self.number = 0
        """Of the last line."""
        self._is_stdin = path is None
        self._digest, self._count = hashlib.sha256(), 0
        self.total: int | None = None
        try:
            # Not sys.stdin: a thread that waits for it holds a lock that the interpreter wants to have
            # when it ends.
            self._plain: IO[bytes] = (
                open(_stdin(), "rb", closefd=False) if path is None else path.open("rb")  # noqa: SIM115  `close` does
            )
            if path is not None:
                self.total = os.fstat(self._plain.fileno()).st_size or None
        except OSError as error:
            raise InputBroken(self.name, error.strerror or str(error)) from error
        self._file = (
            cast("IO[bytes]", gzip.GzipFile(fileobj=self._plain)) if gzipped else self._plain
        )

    def __iter__(self) -> Iterator[bytes]:
        while line := self._next():
            self.number += 1
            self._digest.update(line)
            self._count += len(line)
            yield line.removeprefix(_BOM) if self.number == 1 else line

    def _next(self) -> bytes:
        try:
            line = self._file.readline(MAX_RECORD_BYTES + 1)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            place = f"after line {self.number}: " if self.number else ""
            raise InputBroken(self.name, f"{place}is no whole gzip file: {error}") from error
        except OSError as error:
            raise InputBroken(self.name, error.strerror or str(error)) from error
        if len(line) > MAX_RECORD_BYTES:
            fault = (
                f"line {self.number + 1} is over {MAX_RECORD_BYTES} bytes: are its ends missing?"
            )
            raise InputBroken(self.name, fault)
        return line

    def mark(self) -> bytes:
        """SHA-256 of all lines so far."""
        return self._digest.copy().digest()

    @property
    def read(self) -> int:
        """Bytes of the file that the lines so far were."""
        return self._count if self._file is self._plain else self._plain.tell()

    def close(self) -> None:
        """Close the file. Not stdin: a thread may wait for it, with the lock that this would take."""
        if not self._is_stdin:
            self._file.close()
            self._plain.close()


def _stdin() -> int:
    if sys.stdin is None:  # nerve … <&-
        raise OSError(None, "it is closed")
    return 0


class LineReader(ABC):
    """`Reader` on lines; subclasses say what a line is."""

    def __init__(self, lines: Lines, *, text_field: str) -> None:
        self._lines, self._text_field = lines, text_field
        self.name = lines.name
        self.total = lines.total
        self._records = self._read()
        self._peeked: list[Record] | None = None

    @property
    def columns(self) -> Sequence[str]:
        """See `Reader.columns`: those of the first record that has any."""
        if self._peeked is None:
            self._peeked = []
            for record in itertools.islice(self._records, PEEKED):
                self._peeked.append(record)
                if record.fields:
                    break
        found = next((record.fields for record in self._peeked if record.fields), None)
        return [self._text_field] if found is None else list(found)

    def __iter__(self) -> Iterator[Record]:
        """See `Reader.__iter__`."""
        peeked, self._peeked = self._peeked or [], []
        return itertools.chain(peeked, self._records)

    def close(self) -> None:
        """See `Reader.close`."""
        self._lines.close()

    @abstractmethod
    def _read(self) -> Iterator[Record]:
        """The records, from the first one on."""

    def _record(
        self,
        size: int,
        text: str,
        fields: Mapping[str, Any],
        *,
        raw: bytes | None = None,
        fault: str = "",
        line: int = 0,
    ) -> Record:
        lines = self._lines
        place = f"line {line or lines.number}"
        return Record(
            self.name, place, text, lines.mark(), lines.read, size, fields, raw=raw, fault=fault
        )


class TextReader(LineReader):
    """A text a line; an empty line is an empty text."""

    def _read(self) -> Iterator[Record]:
        for line in self._lines:
            try:
                text = line.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                yield self._record(len(line), "", {}, fault=_NOT_UTF8)
            else:
                yield self._record(len(line), text, {self._text_field: text})


class JsonlReader(LineReader):
    """A JSON object a line; lines without anything are left out."""

    def _read(self) -> Iterator[Record]:
        for line in self._lines:
            if raw := line.strip():
                yield self._parsed(raw)

    def _parsed(self, raw: bytes) -> Record:
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            fault = _NOT_UTF8 if not _is_utf8(raw) else f"is not valid JSON: {error.msg}"
            return self._record(len(raw), "", {}, fault=fault)
        name = self._text_field
        if not isinstance(value, dict):
            fault = f'expected an object as {{"{name}": "…"}}, got {kind_of(value)}'
            return self._record(len(raw), "", {}, fault=fault)
        text = value.get(name)
        if isinstance(text, str):
            return self._record(len(raw), text, value, raw=raw)
        if name in value:
            fault = f"the field {name!r} is {kind_of(text)}; expected a string"
        else:
            fault = f"there is no field {name!r}; {_there_is(list(value))}"
        return self._record(len(raw), "", value, raw=raw, fault=fault)


class CsvReader(LineReader):
    """RFC 4180, with a header; empty lines are left out."""

    def __init__(self, lines: Lines, *, text_field: str) -> None:
        """Raises InputBroken: there is no header, or the text has no column in it."""
        super().__init__(lines, text_field=text_field)
        csv.field_size_limit(MAX_RECORD_BYTES)
        # Bytes that are no UTF-8 come through as lone surrogates, so that only their row is bad.
        self._rows = csv.reader(
            (line.decode("utf-8", "surrogateescape") for line in lines), strict=True
        )
        self._header = self._head()
        if text_field not in self._header:
            fault = f"there is no column {text_field!r}; {_there_is(self._header)}"
            if len(self._header) == 1 and any(mark in self._header[0] for mark in ";\t|"):
                fault += "; only commas separate columns"
            raise InputBroken(self.name, fault)

    def _head(self) -> list[str]:
        try:
            header = next((row for row in self._rows if row), None)
        except csv.Error as error:
            fault = f"the header is no CSV: {error}"
            if "new-line character" in str(error):
                fault = "the header is no CSV: a line ends in LF or CRLF, and not in CR alone"
            raise InputBroken(self.name, fault) from error
        if header is None:
            raise InputBroken(self.name, "is empty; CSV begins with a header")
        if not _is_text("".join(header)):
            raise InputBroken(self.name, f"the header {_NOT_UTF8}")
        double = sorted({name for name in header if header.count(name) > 1})
        if double:
            raise InputBroken(self.name, f"the header has {double[0]!r} more than once")
        return header

    @property
    def columns(self) -> Sequence[str]:
        """See `Reader.columns`: the header."""
        return self._header

    def _read(self) -> Iterator[Record]:
        while True:
            first, before = self._lines.number + 1, self._lines.read
            try:
                row = next(self._rows)
            except StopIteration:
                return
            except csv.Error as error:
                fault = f"is no CSV: {error}"
                yield self._record(self._lines.read - before, "", {}, fault=fault, line=first)
                continue
            if row:
                yield self._of(row, first, self._lines.read - before)

    def _of(self, row: list[str], line: int, size: int) -> Record:
        header = self._header
        if not _is_text("".join(row)):
            return self._record(size, "", {}, fault=_NOT_UTF8, line=line)
        fields = dict(zip(header, row, strict=False))
        fault = ""
        if len(row) != len(header):
            more = (
                "is a quote missing around a comma?"
                if len(row) > len(header)
                else "pad it with commas"
            )
            fault = f"has {len(row)} columns, the header has {len(header)}; {more}"
        return self._record(size, fields.get(self._text_field, ""), fields, fault=fault, line=line)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _there_is(names: Sequence[str]) -> str:
    """What to name instead."""
    known = ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "")
    return f"name one of {known} with --text-field" if names else "it has none at all"


_READERS: Final[dict[Kind, type[LineReader]]] = {
    Kind.TEXT: TextReader,
    Kind.JSONL: JsonlReader,
    Kind.CSV: CsvReader,
}


def open_lines(path: Path | None, shape: Shape, *, text_field: str) -> LineReader:
    """A reader of a file, or of stdin (None). Raises InputBroken."""
    lines = Lines(path, gzipped=shape.gzipped)
    try:
        return _READERS[shape.kind](lines, text_field=text_field)
    except BaseException:
        lines.close()
        raise
