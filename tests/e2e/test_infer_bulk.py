"""`nerve infer` over files: every format in and out, by the model here and by a server."""

from __future__ import annotations

import csv
import gzip
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import run_here
from support import Daemon

TEXTS = ["Ada Lovelace met Charles.", "", 'Zoë, in "Paris"', "word " * 600, "Bob"]
ROWS: list[dict[str, Any]] = [{"id": n, "text": text} for n, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows in every format."""
    folder = tmp_path_factory.mktemp("inputs")
    content = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "in.jsonl").write_text(content)
    (folder / "in.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    (folder / "in.txt").write_text("".join(text + "\n" for text in TEXTS))
    with (folder / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *((n, text) for n, text in enumerate(TEXTS))])
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "in.parquet")
    return folder


@pytest.fixture(scope="module")
def expected(inputs: Path, tiny_models: Path) -> list[Any]:
    """Entities of each text, by a run that is no bulk."""
    ended = run_here(
        "infer", "-r", tiny_models / "bert", "-f", "entities", *(text for text in TEXTS if text)
    )
    found = iter(json.loads(ended.stdout))
    return [next(found)["entities"] if text else [] for text in TEXTS]


def entities_in(path: Path) -> list[Any]:
    """The ids and entities of an output."""
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    elif ".csv" in path.name:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            row["entities"] = json.loads(row["entities"])
    else:
        whole = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        rows = [json.loads(line) for line in whole.splitlines()]
    if "id" in rows[0]:
        assert [str(row["id"]) for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["text"] for row in rows] == TEXTS
    return [row["entities"] for row in rows]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("in.jsonl", "out.jsonl"), ("in.jsonl", "out.parquet"), ("in.jsonl.gz", "out.csv"),
        ("in.csv", "out.jsonl.gz"), ("in.txt", "out.csv"), ("in.parquet", "out.parquet"),
        ("in.parquet", "out.jsonl"),
    ],
)  # fmt: skip
def test_formats(
    inputs: Path, expected: list[Any], tiny_models: Path, tmp_path: Path, source: str, target: str
) -> None:
    """All fields are carried along, in order, and the entities are those of any other door."""
    path = tmp_path / target
    ended = run_here("infer", "-r", tiny_models / "bert", "-i", inputs / source, "-o", path)
    assert (ended.returncode, ended.stdout) == (0, b""), ended.stderr
    assert ended.stderr.startswith(b"1 of 5 texts were cut")
    found = entities_in(path)
    for ours, theirs in zip(found, expected, strict=True):
        assert [{**each, "score": 0} for each in ours] == [{**each, "score": 0} for each in theirs]
        scores = [each["score"] for each in theirs]
        assert [each["score"] for each in ours] == pytest.approx(scores, rel=1e-6)
    assert [each.name for each in tmp_path.iterdir()] == [target]


def test_a_server_tags_the_same(
    inputs: Path, tiny_models: Path, tiny_daemon: Daemon, tmp_path: Path
) -> None:
    """To the byte."""
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    run_here("infer", "-r", tiny_models / "bert", "-i", inputs / "in.jsonl", "-o", here)
    asked = ("infer", "--server", tiny_daemon.url, "-i", inputs / "in.jsonl", "-o", there)
    ended = run_here(*asked)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.startswith(b"1 of 5 texts were cut")
    assert there.read_bytes() == here.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "nope"), "model 'nope' is not in the repository"),
        (("--api-key", "a b"), "--api-key: a key has printable ASCII characters"),
        (("-f", "entities"), "--server: is for --format jsonl, csv and parquet, not entities"),
    ],
)
def test_a_server_that_is_asked_wrongly(
    inputs: Path, tiny_daemon: Daemon, arguments: tuple[str, ...], message: str
) -> None:
    ended = run_here("infer", "--server", tiny_daemon.url, "-i", inputs / "in.jsonl", *arguments)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert message in ended.stderr.decode()


def test_keep_going(tiny_models: Path) -> None:
    """Errors are in the output, and the exit status tells."""
    lines = b'{"text":"Ada"}\nno\n{"text":""}\n'
    options = ("-r", tiny_models / "bert", "--input-format", "jsonl", "-f", "jsonl", "-")
    ended = run_here("infer", *options, stdin=lines)
    assert ended.returncode == 1
    assert "Error: stdin: line 2: is not valid JSON" in ended.stderr.decode()
    assert len(ended.stdout.splitlines()) == 1
    ended = run_here("infer", *options, "--keep-going", stdin=lines)
    assert ended.returncode == 3
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert rows[1]["error"].startswith("line 2: is not valid JSON")
    assert (len(rows), rows[2]["entities"]) == (3, [])
    assert ended.stderr == b"1 of 3 records have an error in place of entities\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-i", "in.jsonl", "-f", "parquet"), "stdout: Parquet needs a file, as -o FILE.parquet"),
        (("-", "-f", "csv", "--input-format", "parquet"), "stdin: Parquet is read from a file"),
        (("-i", "in.jsonl", "-o", "in.jsonl"), "in.jsonl is the input; name another file"),
        (("-i", "in.csv", "-o", "o.csv", "--text-field", "body"), "no column 'body'; name one of 'id'"),
        (("-i", "in.jsonl", "-o", "no/o.csv"), "--output: "),
        (("-i", "none.jsonl", "-f", "jsonl"), "none.jsonl: No such file"),
        (("-i", "in.csv", "-o", "o.csv", "--entities-field", "text"), "is the field of the text"),
        (("-", "-f", "jsonl", "--restart"), "--restart: only a run from a file to a file"),
        (("-i", "in.jsonl", "--keep-going"), "--keep-going: is for"),
    ],
)  # fmt: skip
def test_what_cannot_be(inputs: Path, arguments: tuple[str, ...], message: str) -> None:
    """It is said before a model is loaded, and leaves nothing behind."""
    before = sorted(inputs.iterdir())
    given = (*arguments, "-f", "entities") if "--keep-going" in arguments else arguments
    ended = run_here("infer", "-r", "nowhere", *given, cwd=inputs)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert message in ended.stderr.decode()
    assert sorted(inputs.iterdir()) == before


def test_a_slow_pipe_and_ctrl_c(tiny_models: Path) -> None:
    """A line is answered before the next one comes; whoever stops it is told that this was all."""
    command = [
        sys.executable,
        "-m",
        "nerve",
        "infer",
        "-r",
        str(tiny_models / "bert"),
        "-f",
        "jsonl",
        "-",
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for text in ("Ada", "Bob"):
            process.stdin.write(text.encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["text"] == text
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b"stopped after 2 texts; this cannot be gone on with\n"
