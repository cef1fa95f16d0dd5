"""An interrupted run, gone on with, writes what an uninterrupted one does; another run is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import bulk_runs
from bulk_runs import plan, run_plan
from nerve.cli.bulk.job import Plan
from nerve.cli.bulk.journal import CannotResume, Journal
from nerve.cli.bulk.output import Part
from nerve.cli.bulk.records import BadRecord, OutputBroken
from nerve.cli.bulk.window import Tagging
from nerve.errors import InvalidField

RUNS = Path(bulk_runs.__file__)
ROWS = [{"id": number, "text": "word " * (number % 5)} for number in range(300)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.parametrize(
    ("name", "kills"),
    [("out.jsonl", (1, 3, 6, 9, 14)), ("out.csv.gz", (7, 5))],
)
def test_killed_again_and_again(
    source: Path, tmp_path: Path, name: str, kills: tuple[int, ...]
) -> None:
    """At several places one after the other: before the first line, within the run, at its end."""
    whole, target = tmp_path / f"whole-{name}", tmp_path / name
    runs = [(whole, 0), *((target, at) for at in kills), (target, 0)]
    given = [str(each) for run in runs for each in run]
    command = [sys.executable, str(RUNS), str(source), *given]
    ended = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True).stdout.decode()
    died = f"{-signal.SIGKILL} False"
    assert ended.splitlines() == ["0 True", *[died] * len(kills), "0 True"]
    assert target.read_bytes() == whole.read_bytes()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([source.name, whole.name, target.name])


def interrupted(source: Path, target: Path) -> None:
    """A run that ends at a bad line, the 251st; and then the line is mended."""
    lines = source.read_bytes().splitlines(keepends=True)
    source.write_bytes(b"".join([*lines[:250], b"{}\n", *lines[250:]]))
    with pytest.raises(BadRecord, match=r"in\.jsonl: line 251: there is no field 'text'"):
        run_plan(plan(source, target), target)
    source.write_bytes(b"".join(lines))


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_a_mended_line(
    source: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All before the bad line is kept; what comes after it may be changed."""
    whole, target = tmp_path / f"whole-{name}", tmp_path / name
    run_plan(plan(source, whole), whole)
    interrupted(source, target)
    assert not target.exists()
    run_plan(plan(source, target), target)
    assert "going on after 250 texts" in capsys.readouterr().err
    assert target.read_bytes() == whole.read_bytes()


def test_what_was_half_written_is_written_again(source: Path, tmp_path: Path) -> None:
    whole, target = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    run_plan(plan(source, whole), whole)
    interrupted(source, target)
    with (tmp_path / "out.jsonl.part").open("ab") as part:
        part.write(b'{"id":25')
    run_plan(plan(source, target), target)
    assert target.read_bytes() == whole.read_bytes()


def other_begin(source: Path) -> None:
    content = source.read_bytes()
    source.write_bytes(content.replace(b'"id": 7', b'"id": 8', 1))


def cut_part(source: Path) -> None:
    part = source.with_name("out.jsonl.part")
    part.write_bytes(part.read_bytes()[:100])


def no_journal(source: Path) -> None:
    source.with_name("out.jsonl.part.journal").unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (other_begin, "the first 250 records of .*in.jsonl are not those that it was made of"),
        (cut_part, "it has 100 of the .* bytes that it had"),
        (no_journal, "there is no journal beside it"),
    ],
)
def test_what_does_not_fit(
    source: Path, tmp_path: Path, spoil: Callable[[Path], None], told: str
) -> None:
    """It is refused, nothing is touched, and --restart does it anew."""
    target = tmp_path / "out.jsonl"
    interrupted(source, target)
    spoil(source)
    with pytest.raises(CannotResume, match=told + ".*--restart"):
        run_plan(plan(source, target), target)
    assert not target.exists()
    run_plan(plan(source, target), target, restart=True)
    assert len(target.read_bytes().splitlines()) == 300


def test_another_model(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    interrupted(source, target)
    with pytest.raises(CannotResume, match="the model was 'm' and is 'other' now"):
        run_plan(plan(source, target, model="other"), target)


def test_keep_going_goes_on_with_jsonl(source: Path, tmp_path: Path) -> None:
    """CSV would need another column."""
    for name in ("out.jsonl", "out.csv"):
        interrupted(source, tmp_path / name)
    run_plan(plan(source, tmp_path / "out.jsonl", keep_going=True), tmp_path / "out.jsonl")
    with pytest.raises(CannotResume, match="the column for errors of --keep-going was False"):
        run_plan(plan(source, tmp_path / "out.csv", keep_going=True), tmp_path / "out.csv")


@asynccontextmanager
async def not_opened() -> AsyncIterator[Tagging]:
    """A model that is not there, or a server."""
    raise InvalidField("--model", "is not there")
    yield


def test_what_cannot_begin_leaves_what_there_is(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.jsonl"
    interrupted(source, target)
    planned = plan(source, target)
    with pytest.raises(InvalidField, match="is not there"):
        run_plan(Plan(planned.wanted, planned.reader, planned.encoder, not_opened()), target)
    run_plan(plan(source, target), target)
    assert "going on after 250 texts" in capsys.readouterr().err


@pytest.mark.parametrize(("appended", "changed"), [(b"", True), (b'{"text":"new"}\n', False)])
def test_a_whole_part_of_another_input(
    source: Path, tmp_path: Path, appended: bytes, changed: bool
) -> None:
    """All was tagged, and the output could not be made; then the input is another one, or longer."""
    target, in_the_way = tmp_path / "out.parquet", tmp_path / "out.parquet.part.new"
    in_the_way.mkdir()
    with pytest.raises(OutputBroken):
        run_plan(plan(source, target), target)
    in_the_way.rmdir()
    with source.open("ab") as file:
        file.write(appended)
    if changed:
        other_begin(source)
        with pytest.raises(CannotResume, match=r"the first 300 records of .* are not those"):
            run_plan(plan(source, target), target)
        assert not target.exists()
    else:
        assert run_plan(plan(source, target), target).position.records == 301


def test_a_part_of_stdin_has_no_journal_of_another_run(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    interrupted(source, target)
    part = Part(target, b"x" * 100_000, gzipped=False)
    part.lock(restart=False)
    part.start(None)
    part.close()
    with pytest.raises(CannotResume, match="there is no journal beside it"):
        run_plan(plan(source, target), target)


def test_two_at_a_time(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    part = Part(target, b"", gzipped=False)
    part.lock(restart=False)
    with pytest.raises(CannotResume, match="another nerve infer is writing it; wait for it"):
        run_plan(plan(source, target), target)
    part.close()


def test_killed_between_the_rename_and_the_end(source: Path, tmp_path: Path) -> None:
    """The output is there, and so is the journal: nothing is done again."""
    target, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part.journal"
    interrupted(source, target)
    known = Journal.read(journal)
    assert known is not None
    run_plan(plan(source, target), target)
    size, before = target.stat().st_size, target.stat().st_mtime_ns
    position = type(known.position)(300, size, "00", 0, 0)
    Journal(known.identity, position, complete=True).write(journal)
    run_plan(plan(source, target), target)
    assert target.stat().st_mtime_ns == before
    assert not journal.exists()
