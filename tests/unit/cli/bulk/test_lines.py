"""Readers and encoders of lines: everything comes through, and what is bad says why."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nerve.cli.bulk.encoding import CsvEncoder, JsonlEncoder
from nerve.cli.bulk.formats import Kind, Shape, kind_of_name
from nerve.cli.bulk.lines import open_lines
from nerve.cli.bulk.records import NOTHING, Failed, InputBroken, Record, Tagged

FOUND = Tagged([{"text": "Ada", "label": "PER", "start": 0, "end": 3, "score": 0.5}])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
QUICK = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(path: Path, content: bytes, kind: Kind, *, field: str = "text") -> list[Record]:
    path.write_bytes(content)
    reader = open_lines(path, Shape(kind), text_field=field)
    try:
        return list(reader)
    finally:
        reader.close()


@QUICK
@given(st.lists(st.tuples(TEXT, st.dictionaries(TEXT, JSON, max_size=4)), min_size=1, max_size=4))
def test_jsonl_comes_through(tmp_path: Path, made: list[tuple[str, dict[str, Any]]]) -> None:
    rows = [{**fields, "text": text} for text, fields in made]
    content = b"\n".join(orjson.dumps(row) for row in rows)
    records = read(tmp_path / "in.jsonl", content, Kind.JSONL)
    assert [record.text for record in records] == [row["text"] for row in rows]
    written = b"".join(JsonlEncoder("entities").line(record, FOUND) for record in records)
    assert [orjson.loads(line) for line in written.splitlines()] == [
        {**row, "entities": FOUND.entities} for row in rows
    ]


@QUICK
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_csv_comes_through(tmp_path: Path, made: list[tuple[str, str]]) -> None:
    """Quotes, commas and line breaks in fields, too; and what is written can be read again."""
    content = io.StringIO()
    csv.writer(content).writerows([("id", "text"), *made])
    records = read(tmp_path / "in.csv", content.getvalue().encode(), Kind.CSV)
    assert [(each.fields["id"], each.text) for each in records if not each.fault] == made
    encoder = CsvEncoder(["id", "text"], "entities", errors=False)
    written = encoder.head() + b"".join(encoder.line(record, FOUND) for record in records)
    again = read(tmp_path / "out.csv", written, Kind.CSV)
    assert [(each.fields["id"], each.text) for each in again] == made
    assert {each.fields["entities"] for each in again} == {orjson.dumps(FOUND.entities).decode()}


def test_an_object_is_kept_as_it_was_written(tmp_path: Path) -> None:
    """Digits that no float has, white space, and a field that there is twice."""
    line = b'{"n": 123456789012345678901234567890, "a": 1, "a": 1.50 ,"text":"Ada" }'
    (record,) = read(tmp_path / "in.jsonl", b"\xef\xbb\xbf  " + line + b"\r\n\n", Kind.JSONL)
    assert JsonlEncoder("entities").line(record, NOTHING) == line[:-2] + b',"entities":[]}\n'


def test_entities_that_were_there_are_replaced(tmp_path: Path) -> None:
    (record,) = read(tmp_path / "i", b'{"entities":[1],"text":"Ada","b":2}', Kind.JSONL)
    assert JsonlEncoder("entities").line(record, NOTHING) == b'{"text":"Ada","b":2,"entities":[]}\n'
    assert JsonlEncoder("found").line(record, NOTHING).endswith(b'"b":2,"found":[]}\n')


def test_a_bad_record_has_no_old_entities(tmp_path: Path) -> None:
    line = b'{"entities":[1],"error":"old","text":7}'
    (record,) = read(tmp_path / "i", line, Kind.JSONL)
    assert (
        JsonlEncoder("entities").line(record, Failed("so")) == b'{"text":7,"error":"line 1: so"}\n'
    )
    (record,) = read(tmp_path / "i", b'{"entities":[1]}', Kind.JSONL)
    assert JsonlEncoder("entities").line(record, Failed("so")) == b'{"error":"line 1: so"}\n'


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{", "is not valid JSON: "),
        (b'"Ada"', """expected an object as {"text": "…"}, got a string"""),
        (b'{"body":"Ada","id":1}', "there is no field 'text'; name one of 'body', 'id' with"),
        (b'{"text":7}', "the field 'text' is a number; expected a string"),
        (b'{"text":null}', "the field 'text' is null"),
        (b'{"text":"\xff"}', "is not valid UTF-8"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_record(tmp_path: Path, line: bytes, fault: str) -> None:
    """It alone is bad, and says where and why."""
    good = b'{"text":"Ada"}\n'
    first, bad, last = read(tmp_path / "in.jsonl", good + line + b"\n" + good, Kind.JSONL)
    assert (first.fault, last.fault, bad.place) == ("", "", "line 2")
    assert fault in bad.fault
    written = orjson.loads(JsonlEncoder("entities").line(bad, Failed(bad.fault)))
    assert written == {**bad.fields, "error": f"line 2: {bad.fault}"}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (b"1,Ada,x", "has 3 columns, the header has 2; is a quote missing around a comma?"),
        (b"1", "has 1 columns, the header has 2"),
        (b'1,"Ada"x', "is no CSV: "),
        (b"1,\xff", "is not valid UTF-8"),
    ],
)
def test_a_row_that_is_no_record(tmp_path: Path, row: bytes, fault: str) -> None:
    content = b'id,text\r\n1,"two\r\nlines"\r\n' + row + b"\r\n3,Bob\r\n"
    first, bad, last = read(tmp_path / "in.csv", content, Kind.CSV)
    assert (first.text, last.text, first.place, bad.place) == (
        "two\r\nlines",
        "Bob",
        "line 2",
        "line 4",
    )
    assert fault in bad.fault
    encoder = CsvEncoder(["id", "text"], "entities", errors=True)
    (written,) = csv.reader([encoder.line(bad, Failed(bad.fault)).decode()])
    assert written[2:] == ["", f"line 4: {bad.fault}"]


@pytest.mark.parametrize(
    ("content", "kind", "fault"),
    [
        (b"", Kind.CSV, "is empty; CSV begins with a header"),
        (
            b"a,b\n1,2\n",
            Kind.CSV,
            "there is no column 'text'; name one of 'a', 'b' with --text-field",
        ),
        (b"text,text\n", Kind.CSV, "the header has 'text' more than once"),
        (b"text,a\rA,1\r", Kind.CSV, "a line ends in LF or CRLF, and not in CR alone"),
        (b"text;a\nA;1\n", Kind.CSV, "there is no column 'text'.*; only commas separate columns"),
    ],
)
def test_a_file_without_records(tmp_path: Path, content: bytes, kind: Kind, fault: str) -> None:
    with pytest.raises(InputBroken, match=fault):
        read(tmp_path / "in", content, kind)


def test_a_gzip_file_that_is_cut_off(tmp_path: Path) -> None:
    """What is whole is read before that is told."""
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text":"Ada"}\n' * 40_000)[:-12])
    reader = open_lines(path, Shape(Kind.JSONL, gzipped=True), text_field="text")
    records = iter(reader)
    assert next(records).text == "Ada"
    with pytest.raises(InputBroken, match="is no whole gzip file"):
        list(records)
    reader.close()


def test_a_field_without_a_column(tmp_path: Path) -> None:
    one, other = read(tmp_path / "i", b'{"text":"a","n":[1]}\n{"text":"b","m":2}', Kind.JSONL)
    encoder = CsvEncoder(["text", "n"], "entities", errors=False)
    assert encoder.line(one, NOTHING) == b"a,[1],[]\r\n"
    with pytest.raises(ValueError, match="the field 'm' is none of the first record's"):
        encoder.line(other, NOTHING)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.jsonl", Kind.JSONL), ("a.NDJSON.gz", Kind.JSONL), ("a.csv", Kind.CSV), ("a.txt", None),
     ("a.parquet", Kind.PARQUET), ("a.json", None)],
)  # fmt: skip
def test_names(name: str, kind: Kind | None) -> None:
    assert kind_of_name(Path(name)) is kind
