"""What a record and its outcome become in the output: bytes of a line each. Pure."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

import orjson

from nerve.cli.bulk.formats import Kind
from nerve.cli.bulk.records import ERROR_FIELD, Failed, Outcome, Record


class Encoder(Protocol):
    """A format of lines."""

    def head(self) -> bytes:
        """What the file begins with."""

    def line(self, record: Record, outcome: Outcome) -> bytes:
        """A record, with its line break. Raises ValueError: it does not fit into the format."""


class JsonlEncoder:
    """JSONL: the record's own object, with one field more.

    An object that was read is kept as it was written: numbers with all their digits, too.
    """

    def __init__(self, entities_field: str, *, carry: bool = True) -> None:
        """Without `carry` the record's own fields are left out."""
        self._entities_field, self._carry = entities_field, carry

    def head(self) -> bytes:
        """See `Encoder.head`."""
        return b""

    def line(self, record: Record, outcome: Outcome) -> bytes:
        """See `Encoder.line`."""
        replaced = {self._entities_field}
        if isinstance(outcome, Failed):
            name, value = ERROR_FIELD, to_json(f"{record.place}: {outcome.error}")
            replaced.add(name)  # and old entities would be taken for ours
        else:
            name, value = self._entities_field, to_json(outcome.entities)
        if not self._carry:
            return b'{"%b":%b}\n' % (to_json(name)[1:-1], value)
        fields, raw = record.fields, record.raw
        if raw is None or not replaced.isdisjoint(fields):
            fields = {key: each for key, each in fields.items() if key not in replaced}
            raw = to_json(fields)
        comma = b"," if fields else b""
        return b"%b%b%b:%b}\n" % (raw[:-1].rstrip(), comma, to_json(name), value)


class CsvEncoder:
    """CSV: the record's fields in their columns, and the entities as JSON in one."""

    def __init__(self, columns: Sequence[str], entities_field: str, *, errors: bool) -> None:
        """`columns` of the input; with `errors` there is a column for them."""
        own = [entities_field, *([ERROR_FIELD] if errors else [])]
        self._columns = [*(name for name in columns if name not in own), *own]
        self._known = frozenset(self._columns)
        self._entities_field = entities_field

    def head(self) -> bytes:
        """See `Encoder.head`."""
        return _row(self._columns)

    def line(self, record: Record, outcome: Outcome) -> bytes:
        """See `Encoder.line`."""
        cells = dict(record.fields)
        if strange := [name for name in cells if name not in self._known]:
            raise ValueError(
                f"the field {strange[0]!r} is none of the first record's, which are the columns; "
                "--format jsonl keeps every field"
            )
        if isinstance(outcome, Failed):
            cells[self._entities_field] = ""
            cells[ERROR_FIELD] = f"{record.place}: {outcome.error}"
        else:
            cells[self._entities_field] = to_json(outcome.entities).decode()
            cells[ERROR_FIELD] = ""
        return _row([_cell(cells.get(name)) for name in self._columns])


def new_encoder(
    kind: Kind, columns: Sequence[str], entities_field: str, *, errors: bool, carry: bool
) -> Encoder:
    """What writes a format; Parquet is made of lines of JSON in the end.

    Args:
        kind: CSV, or another one.
        columns: of the input, for a format with a header.
        entities_field: the name that entities get.
        errors: whether there may be errors in the output.
        carry: False leaves out the fields of the input.
    """
    if kind is Kind.CSV:
        return CsvEncoder(columns, entities_field, errors=errors)
    return JsonlEncoder(entities_field, carry=carry)


def to_json(value: object) -> bytes:
    """JSON in one line; numbers of numpy, and what a Parquet file may hold."""
    return orjson.dumps(value, default=_other, option=orjson.OPT_SERIALIZE_NUMPY)


def _other(value: object) -> object:
    """JSON has numbers of any length, but readers do not; and no bytes."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def _row(cells: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().encode()


def _cell(value: Any) -> str:  # noqa: ANN401  JSON
    if value is None:
        return ""
    return value if isinstance(value, str) else to_json(value).decode()


def fields_of(line: bytes) -> Mapping[str, Any]:
    """A line that `JsonlEncoder` wrote."""
    found: dict[str, Any] = orjson.loads(line)
    return found
