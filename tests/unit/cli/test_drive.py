"""Callers, what is counted of them, and the texts that they send."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from nerve.cli.drive import (
    Load,
    RequestFailed,
    Tally,
    drive,
    figures,
    in_turn,
    percentiles_ms,
    since,
)
from nerve.cli.remote import totals
from nerve.cli.report import cells, markdown, number
from nerve.cli.texts import parse_texts, read_texts
from nerve.errors import InvalidField
from nerve.types import EngineStatistics


class Door:
    """Lets each caller wait one turn of the loop, and remembers how many waited at a time."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.seen: list[str] = []

    async def send(self, texts: Sequence[str]) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.seen += texts
        await asyncio.sleep(0)
        self.inside -= 1
        if "bad" in texts:
            raise RequestFailed("503 Overloaded", f"no room for {texts}")


async def test_so_many_callers_and_so_many_requests() -> None:
    door, tally = Door(), Tally()
    await drive(door.send, in_turn(["a", "b", "c"], batch=2), Load(4, requests=9), tally)
    assert door.most == 4
    assert (len(tally.latencies_s), tally.texts, tally.failed) == (9, 18, 0)
    assert door.seen == list("abc" * 6)


async def test_more_callers_than_requests() -> None:
    door, tally = Door(), Tally()
    await drive(door.send, in_turn(["a"], batch=1), Load(50, requests=3), tally)
    assert (door.most, tally.texts) == (3, 3)


async def test_failures_are_counted_by_kind_and_end_nothing() -> None:
    door, tally = Door(), Tally()
    await drive(door.send, in_turn(["good", "bad"], batch=1), Load(2, requests=10), tally)
    assert (tally.texts, tally.failed) == (5, 5)
    assert tally.failures["503 Overloaded"].first == "no room for ['bad']"
    found = figures(Load(2), tally, None)
    assert found.failed == {"503 Overloaded": 5}
    assert cells(found)[-1] == "5 (5 503 Overloaded)"


async def test_what_was_answered_before_it_is_cancelled_stays() -> None:
    tally, stuck = Tally(), asyncio.Event()

    async def send(texts: Sequence[str]) -> None:
        if len(tally.latencies_s) == 3:
            stuck.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(drive(send, in_turn(["a"], batch=1), Load(1), tally))
    await stuck.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert tally.texts == 3
    assert tally.seconds > 0


async def test_a_duration_ends_it() -> None:
    tally = Tally()
    await drive(Door().send, in_turn(["a"], batch=1), Load(2, 0.02), tally)
    assert tally.texts > 2
    assert tally.seconds >= 0.02


def test_percentiles() -> None:
    assert percentiles_ms([]) == (None, None, None)
    assert percentiles_ms([0.5]) == (500, 500, 500)
    found = percentiles_ms([each / 1000 for each in range(101)])
    assert found == pytest.approx((50, 95, 99))


def test_figures() -> None:
    tally = Tally(texts=30, seconds=2.0)
    tally.latencies_s.extend([0.1, 0.2, 0.3])
    ran = since(EngineStatistics(5, 10, 100, 100), EngineStatistics(15, 40, 400, 500))
    found = figures(Load(7), tally, ran)
    assert (found.concurrency, found.requests, found.texts_per_s) == (7, 3, 15)
    assert (found.tokens_per_s, found.mean_batch) == (150, 3)
    assert found.padding_waste == pytest.approx(0.25)
    assert found.p50_ms == pytest.approx(200)
    assert cells(found) == ["15.0", "150", "200", "290", "298", "3.00", "25.0%", "0"]


def test_figures_of_nothing() -> None:
    """Interrupted before the first answer; or the version was another one afterwards."""
    assert since(EngineStatistics(5, 10, 100, 100), EngineStatistics(1, 2, 3, 4)) is None
    assert since(None, EngineStatistics(1, 2, 3, 4)) is None
    found = figures(Load(1), Tally(), None)
    assert cells(found) == ["0.00", "-", "-", "-", "-", "-", "-", "0"]
    idle = figures(Load(1), Tally(seconds=1.0), EngineStatistics())
    assert (idle.mean_batch, idle.padding_waste) == (None, None)


def test_totals_of_a_server_s_answer() -> None:
    one = {"batches": 1, "rows": 2, "tokens": 3, "padded_tokens": 4, "queued_rows": 9}
    model = {"versions": [{"statistics": one}, {"statistics": None}, {"statistics": one}]}
    assert totals(model) == EngineStatistics(2, 4, 6, 8)
    assert totals({"versions": [{"state": "LOADING"}]}) is None
    assert totals({}) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.0, "0.00"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234")],
)
def test_number(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_markdown_has_no_bar_within_a_cell() -> None:
    assert markdown(["A", "B"], [["1", "x|y"]]) == ["| A | B |", "| --- | --- |", "| 1 | x\\|y |"]


def test_the_built_in_sentences_are_many_and_of_mixed_lengths() -> None:
    texts = read_texts(None)
    words = sorted(len(text.split()) for text in texts)
    assert len(texts) == len(set(texts)) == 100
    assert words[0] <= 3
    assert words[-1] >= 60
    assert math.isclose(words[50], 14, abs_tol=6)


def test_texts_of_a_file(tmp_path: Path) -> None:
    plain = tmp_path / "a.txt"
    plain.write_bytes(b'\xef\xbb\xbfone\r\n\r\n  \r\n{"text": 1}')
    assert read_texts(plain) == ["one", '{"text": 1}']
    lines = tmp_path / "a.jsonl"
    lines.write_text('"one"\n\n{"text": "two", "entities": []}\n{"text": ""}\n')
    assert read_texts(lines) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b'"one"\n{', "line 2: expected a JSON string"),
        (b'{"inputs": "x"}', "line 1: expected a JSON string"),
        (b"\n7", "line 2: expected a JSON string"),
        (b"\xff", "line 1 is not valid UTF-8"),
    ],
)
def test_texts_that_are_none(content: bytes, detail: str) -> None:
    with pytest.raises(InvalidField, match=detail):
        list(parse_texts(content, name="x.jsonl", json_lines=True))


def test_files_without_texts(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"\n \n")
    with pytest.raises(InvalidField, match="there is no text in it"):
        read_texts(tmp_path / "empty")
    with pytest.raises(InvalidField, match="No such file"):
        read_texts(tmp_path / "none")
