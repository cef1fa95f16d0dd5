"""Reading Parquet. pyarrow is an extra, and imported nowhere but here and in `parquet_writing`."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nerve.cli.bulk.records import InputBroken, Record
from nerve.errors import InvalidField, kind_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

READ_ROWS: Final = 1000
_INSTALL: Final = "Parquet needs pyarrow: pip install 'nerve-server[parquet]'"


def require_pyarrow(option: str) -> None:
    """Raises InvalidField: it is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415  an extra, and slow to import
    except ImportError:
        raise InvalidField(option, _INSTALL) from None


class ParquetReader:
    """`nerve.cli.bulk.records.Reader` of a Parquet file; its places are rows, from 1."""

    def __init__(self, path: Path, *, text_field: str, carry: bool) -> None:
        """Without `carry` records have no fields.

        Raises:
            InputBroken: it is no Parquet file, or there is no such column.
            InvalidField: pyarrow is not installed.
        """
        require_pyarrow("--input-file")
        self.name, self._text_field, self._carry = str(path), text_field, carry
        self._file = open_parquet(path)
        if fault := _fault_of(self._file.schema_arrow.names, text_field):
            self.close()
            raise InputBroken(self.name, fault)

    @property
    def columns(self) -> Sequence[str]:
        """See `Reader.columns`."""
        return list(self._file.schema_arrow.names)

    @property
    def total(self) -> int:
        """See `Reader.total`: rows."""
        return int(self._file.metadata.num_rows)

    def __iter__(self) -> Iterator[Record]:
        """See `Reader.__iter__`."""
        import pyarrow as pa  # noqa: PLC0415  see `require_pyarrow`

        digest, number = hashlib.sha256(), 0
        wanted = None if self._carry else [self._text_field]
        try:
            for batch in self._file.iter_batches(READ_ROWS, columns=wanted):
                size = batch.nbytes // max(1, batch.num_rows)
                texts = _texts(batch.column(self._text_field))
                rows = _rows(batch) if self._carry else itertools.repeat({}, len(texts))
                for text, fields in zip(texts, rows, strict=True):
                    number += 1
                    known = text if isinstance(text, str) else None
                    told = b"\0" if known is None else known.encode("utf-8", "surrogatepass")
                    digest.update(b"%d:%b" % (len(told), told))
                    fault = "" if known is not None else self._fault(text)
                    yield Record(
                        self.name, f"row {number}", known or "", digest.copy().digest(), number,
                        size, fields, fault=fault,
                    )  # fmt: skip
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            place = f"after row {number}: " if number else ""
            raise InputBroken(self.name, f"{place}cannot be read: {error}") from error

    def _fault(self, value: object) -> str:
        return f"the column {self._text_field!r} is {kind_of(value)}; expected a string"

    def close(self) -> None:
        """See `Reader.close`."""
        self._file.close()


def _fault_of(names: Sequence[str], text_field: str) -> str:
    """Why a file with these columns cannot be read; empty if it can. Pure."""
    if text_field not in names:
        known = ", ".join(map(repr, names[:20]))
        return f"there is no column {text_field!r}; name one of {known} with --text-field"
    double = sorted({name for name in names if names.count(name) > 1})
    return f"more than one column is named {double[0]!r}" if double else ""


def open_parquet(path: Path) -> pq.ParquetFile:
    """A file with rows. Raises InputBroken."""
    import pyarrow as pa  # noqa: PLC0415  see `require_pyarrow`
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return pq.ParquetFile(path)
    except OSError as error:
        raise InputBroken(str(path), error.strerror or str(error)) from error
    except pa.ArrowException as error:
        raise InputBroken(str(path), f"is no Parquet file: {error}") from error


def _texts(column: pa.Array) -> list[object]:
    import pyarrow as pa  # noqa: PLC0415  see `require_pyarrow`

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    found: list[object] = column.to_pylist()
    return found


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """As values that JSON has, or nearly."""
    import pyarrow as pa  # noqa: PLC0415  see `require_pyarrow`

    columns = []
    for column in batch.columns:
        if pa.types.is_temporal(column.type):  # nanoseconds have no type in Python
            column = column.cast(pa.string())  # noqa: PLW2901
        columns.append(column.to_pylist())
    names = batch.schema.names
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
