"""Parquet in and out: types come through, memory is a row group's."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bulk_runs import plan, run_plan
from nerve.cli.bulk import parquet_writing
from nerve.cli.bulk.encoding import JsonlEncoder
from nerve.cli.bulk.parquet import ParquetReader
from nerve.cli.bulk.parquet_writing import common_type, entities_type
from nerve.cli.bulk.records import NOTHING, BadRecord, InputBroken

WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5)
TABLE = pa.table(
    {
        "text": pa.array(["Ada", "", "Bob"]),
        "when": pa.array([WHEN, None, WHEN], type=pa.timestamp("ns")),
        "price": pa.array([decimal.Decimal("1.10"), None, None], type=pa.decimal128(5, 2)),
        "bytes": pa.array([b"\0\xff", None, b""]),
        "entities": pa.array([1, 2, 3]),
    }
)


def test_columns_stay_as_they_are(tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(TABLE, source)
    run_plan(plan(source, target), target)
    made = pq.read_table(target)
    assert made.drop_columns(["entities"]).equals(TABLE.drop_columns(["entities"]))
    assert made.schema.field("entities").type == entities_type()
    assert [len(each) for each in made["entities"].to_pylist()] == [1, 0, 1]


def test_as_json(tmp_path: Path) -> None:
    """What JSON has no type for becomes text."""
    pq.write_table(TABLE, tmp_path / "in.parquet")
    reader = ParquetReader(tmp_path / "in.parquet", text_field="text", carry=True)
    lines = [JsonlEncoder("entities").line(record, NOTHING) for record in reader]
    reader.close()
    assert json.loads(lines[0]) == {
        "text": "Ada", "when": "2026-01-02 03:04:05.000000000", "price": "1.10", "bytes": "AP8=",
        "entities": [],
    }  # fmt: skip


def test_a_text_that_is_null(tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({"text": pa.array(["Ada", None])}), source)
    with pytest.raises(BadRecord, match="row 2: the column 'text' is null; expected a string"):
        run_plan(plan(source, target), target)
    run_plan(plan(source, target, keep_going=True), target, restart=True)
    made = pq.read_table(target).to_pylist()
    assert [row["error"] for row in made] == [
        None, "row 2: the column 'text' is null; expected a string",
    ]  # fmt: skip
    assert made[1]["entities"] is None


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ([], "is no Parquet file"),
        (["body"], "there is no column 'text'"),
        (["text", "a", "a"], "more than one column is named 'a'"),
    ],
)
def test_no_such_file(tmp_path: Path, columns: list[str], fault: str) -> None:
    path = tmp_path / "in.parquet"
    if columns:
        pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * len(columns), columns), path)
    else:
        path.write_bytes(b"no")
    with pytest.raises(InputBroken, match=fault):
        ParquetReader(path, text_field="text", carry=True)


@pytest.mark.parametrize(
    ("known", "values", "kind"),
    [
        (pa.null(), [None], pa.null()),
        (pa.null(), [1, None], pa.int64()),
        (pa.int64(), [2.5], pa.float64()),
        (pa.int64(), ["a"], None),
        (pa.null(), [1, "a"], None),
        (pa.null(), [{}], None),
        (pa.null(), [[{"a": {}}]], None),
        (pa.float64(), [2**60 + 1], None),
        (None, [1], None),
    ],
)
def test_one_type_a_column(
    known: pa.DataType | None, values: list[Any], kind: pa.DataType | None
) -> None:
    assert common_type(known, values) == kind


def test_fields_without_a_common_type_are_json(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    rows = [{"text": "Ada", "n": 1, "f": 1}, {"text": "Bob", "n": "x", "f": 2.5, "new": {"a": [1]}}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_plan(plan(source, target), target)
    made = pq.read_table(target).drop_columns(["entities"]).to_pylist()
    assert made == [
        {"text": "Ada", "n": "1", "f": 1.0, "new": None},
        {"text": "Bob", "n": '"x"', "f": 2.5, "new": {"a": [1]}},
    ]


def test_a_type_that_holds_later_values_holds_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the run could never end: a whole number of 60 bits, and then one with a fraction."""
    monkeypatch.setattr(parquet_writing, "GROUP_ROWS", 2)
    source, target = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    rows = [{"text": "", "n": n, "m": m} for n, m in ((2**60 + 1, 1), (1, 2), (0.5, 0.5))]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_plan(plan(source, target), target)
    made = pq.read_table(target)
    assert made["n"].to_pylist() == ["1152921504606846977", "1", "0.5"]
    assert made["m"].to_pylist() == [1.0, 2.0, 0.5]


def test_texts_stay_texts_beside_a_bad_one(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    source.write_text('{"text":"Ada"}\n{"text":[7]}\n{"text":null}\n')
    run_plan(plan(source, target, keep_going=True), target)
    assert pq.read_table(target)["text"].to_pylist() == ["Ada", "[7]", None]
