"""A Parquet file of lines of JSON that a run left; reads them twice, and holds few of them at a time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from nerve.cli.bulk.encoding import fields_of, to_json
from nerve.cli.bulk.parquet import open_parquet
from nerve.cli.bulk.records import ERROR_FIELD, InputBroken, OutputBroken

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS: Final = 10_000
"""Rows of a row group."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What becomes a Parquet file.

    `lines` is what `JsonlEncoder` wrote. `beside` is the Parquet file that the records came from,
    whose columns are taken along as they are; None: all fields are in `lines`. `text_field` holds
    text, but for bad records that kept what they had. With `errors` there is a column for them.
    """

    lines: Path
    beside: Path | None
    text_field: str
    entities_field: str
    errors: bool

    def write(self, target: Path, check: Callable[[], None]) -> None:
        """Write and sync `target`.

        A field whose values have no type in common becomes JSON text.

        Args:
            target: the file.
            check: called now and then; what it raises ends the work.
        Raises:
            InputBroken: `beside` is not what it was.
            OutputBroken: the file cannot be written.
        """
        import pyarrow as pa  # noqa: PLC0415  see `nerve.cli.bulk.parquet`
        import pyarrow.parquet as pq  # noqa: PLC0415

        try:
            schema, as_json = self._schema(check)
            with pq.ParquetWriter(target, schema) as writer:
                for table in self._tables(schema, as_json):
                    check()
                    writer.write_table(table, row_group_size=GROUP_ROWS)
            with target.open("rb+") as written:
                os.fsync(written.fileno())
        except (OSError, pa.ArrowException) as error:
            detail = getattr(error, "strerror", None) or str(error)
            raise OutputBroken(str(target), detail) from error

    def _own(self) -> list[pa.Field]:
        """Columns that the input has not."""
        import pyarrow as pa  # noqa: PLC0415  see `nerve.cli.bulk.parquet`

        own = [pa.field(self.entities_field, entities_type())]
        return own + ([pa.field(ERROR_FIELD, pa.string())] if self.errors else [])

    def _schema(self, check: Callable[[], None]) -> tuple[pa.Schema, set[str]]:
        """Of the file, and which of its columns are JSON text."""
        import pyarrow as pa  # noqa: PLC0415  see `nerve.cli.bulk.parquet`

        own = self._own()
        names = [field.name for field in own]
        if self.beside is not None:
            with open_parquet(self.beside) as source:
                read = source.schema_arrow
                kept = [field for field in read if field.name not in names]
                return pa.schema([*kept, *own], metadata=read.metadata), set()
        types: dict[str, pa.DataType | None] = {}
        widened: set[str] = set()
        for rows in self._rows(check):
            for name in dict.fromkeys(itertools.chain.from_iterable(rows)):
                if name not in names:
                    known = types.get(name, pa.null())
                    types[name] = common_type(known, [row.get(name) for row in rows])
                    if types[name] != known != pa.null():
                        widened.add(name)
        for name in sorted(widened):
            if not all(
                _fits([row.get(name) for row in rows], types[name]) for rows in self._rows(check)
            ):
                types[name] = None
        as_json = {name for name, kind in types.items() if kind is None}
        fields = [
            pa.field(name, pa.string() if kind is None or kind == pa.null() else kind)
            for name, kind in types.items()
        ]
        return pa.schema([*fields, *own]), as_json

    def _rows(self, check: Callable[[], None]) -> Iterator[list[Any]]:
        """All lines, a group's at a time."""
        with self.lines.open("rb") as file:
            while rows := _next_rows(file):
                check()
                yield rows

    def _tables(self, schema: pa.Schema, as_json: set[str]) -> Iterator[pa.Table]:
        import pyarrow as pa  # noqa: PLC0415  see `nerve.cli.bulk.parquet`

        with self.lines.open("rb") as file:
            if self.beside is not None:
                yield from self._joined(file, schema)
                return
            while rows := _next_rows(file):
                yield pa.table(
                    [
                        self._column([row.get(field.name) for row in rows], field, as_json)
                        for field in schema
                    ],
                    schema=schema,
                )

    def _joined(self, file: IO[bytes], schema: pa.Schema) -> Iterator[pa.Table]:
        """Columns of the input with those in the lines."""
        import pyarrow as pa  # noqa: PLC0415  see `nerve.cli.bulk.parquet`

        assert self.beside is not None  # the caller has looked
        own = [field.name for field in self._own()]
        kept = [name for name in schema.names if name not in own]
        with open_parquet(self.beside) as source:
            for batch in source.iter_batches(GROUP_ROWS, columns=kept):
                rows = [fields_of(line) for line in itertools.islice(file, batch.num_rows)]
                if len(rows) != batch.num_rows:
                    raise self._changed()
                made = {
                    name: self._column([row.get(name) for row in rows], schema.field(name), set())
                    for name in own
                }
                columns = [
                    made[name] if name in made else batch.column(name) for name in schema.names
                ]
                yield pa.table(columns, schema=schema)
        if file.read(1):
            raise self._changed()

    def _column(self, values: list[Any], field: pa.Field, as_json: set[str]) -> pa.Array:
        import pyarrow as pa  # noqa: PLC0415  see `nerve.cli.bulk.parquet`

        if field.name in as_json:
            kept: tuple[type, ...] = (str,) if field.name == self.text_field else ()
            values = [
                value if value is None or isinstance(value, kept) else to_json(value).decode()
                for value in values
            ]
        return pa.array(values, type=field.type)

    def _changed(self) -> InputBroken:
        return InputBroken(str(self.beside), "has not as many rows any more as when it was tagged")


def entities_type() -> pa.DataType:
    """Entities of a text: offsets as elsewhere, scores float32 as a model has them."""
    import pyarrow as pa  # noqa: PLC0415  see `nerve.cli.bulk.parquet`

    fields = [
        ("text", pa.string()), ("label", pa.string()), ("start", pa.int64()), ("end", pa.int64()),
        ("score", pa.float32()),
    ]  # fmt: skip
    return pa.list_(pa.struct(fields))


def common_type(known: pa.DataType | None, values: list[Any]) -> pa.DataType | None:
    """The type of values of JSON that also holds those of type `known`; None is JSON text."""
    import pyarrow as pa  # noqa: PLC0415  see `nerve.cli.bulk.parquet`

    if known is None:
        return None
    try:
        found = pa.array(values).type
        both = [pa.schema([("x", each)]) for each in (known, found)]
        joined = pa.unify_schemas(both, promote_options="permissive").field("x").type
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None
    return None if _has_no_fields(joined) or not _fits(values, joined) else joined


def _fits(values: list[Any], kind: pa.DataType | None) -> bool:
    """Whether they can all be of that type: whole numbers of 60 bits are no float64. None is any."""
    import pyarrow as pa  # noqa: PLC0415  see `nerve.cli.bulk.parquet`

    try:
        pa.array(values, type=kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return kind is None
    return True


def _has_no_fields(kind: pa.DataType) -> bool:
    """Whether there is an object in it that is always empty, which Parquet cannot hold."""
    import pyarrow as pa  # noqa: PLC0415  see `nerve.cli.bulk.parquet`

    if pa.types.is_list(kind):
        return _has_no_fields(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_has_no_fields(field.type) for field in kind)
    return False


def _next_rows(file: IO[bytes]) -> list[Any]:
    return [fields_of(line) for line in itertools.islice(file, GROUP_ROWS)]
