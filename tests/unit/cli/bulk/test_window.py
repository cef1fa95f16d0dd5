"""Order, how much is in flight and in memory, and what becomes of failures."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence

import pytest

from nerve.cli.bulk import feed as feed_module
from nerve.cli.bulk.feed import Feed, PrefixChanged
from nerve.cli.bulk.local import LocalTagging
from nerve.cli.bulk.records import Failed, Outcome, Record, Tagged
from nerve.cli.bulk.window import CHUNKS, Flight, open_window
from nerve.errors import InferenceFailed, QueueFull
from nerve.types import SpanOptions
from nerve.words import Strategy


class Counting:
    """An endless reader that counts what was taken of it."""

    name, columns, total = "in", ("text",), None

    def __init__(self, limit: int | None = None) -> None:
        self.taken, self.limit, self.closed = 0, limit, False

    def __iter__(self) -> Iterator[Record]:
        for number in itertools.count() if self.limit is None else range(self.limit):
            self.taken += 1
            text = "x" * (number * 7919 % 50)  # lengths in no order, some of them 0
            yield Record("in", f"line {number}", text, b"%d" % number, number, 10, {"n": number})

    def close(self) -> None:
        self.closed = True


class Tagger:
    """Answers in another order than it is asked, and counts."""

    def __init__(self) -> None:
        self.inside = self.most = self.calls = 0

    async def tag(self, texts: Sequence[str]) -> list[Outcome]:
        assert all(texts)
        self.calls += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        for _ in range(self.calls * 7 % 5):
            await asyncio.sleep(0)
        self.inside -= 1
        return [Tagged([{"text": text}]) for text in texts]


async def test_order_and_bounds() -> None:
    """Outcomes come in order; of an endless input only so much is read ahead."""
    reader, tagger, expected = Counting(), Tagger(), 0
    with Feed(reader, whole=True) as feed:
        async with open_window(feed.next, tagger.tag, Flight(3, 32)) as window:
            async for chunk in window.outcomes():
                for record, outcome in chunk:
                    assert record.fields["n"] == expected
                    found = [{"text": record.text}] if record.text else []
                    assert outcome == Tagged(found)
                    expected += 1
                await asyncio.sleep(0.01)  # a slow disk
                assert reader.taken - expected <= (CHUNKS + 3) * feed_module.CHUNK_RECORDS
                if expected > 12 * feed_module.CHUNK_RECORDS:
                    break
    assert tagger.most == 3
    assert reader.closed


async def test_a_slow_pipe_is_not_waited_for() -> None:
    """A record is given on as soon as it is there; what was read before is left out."""
    with Feed(Counting(limit=5), whole=False, skip=3, mark=b"2") as feed:
        got: list[int] = []
        while records := await feed.next():
            got += [record.fields["n"] for record in records]
    assert got == [3, 4]


@pytest.mark.parametrize(("skip", "mark"), [(3, b"other"), (9, b"4")])
async def test_another_begin_is_noticed(skip: int, mark: bytes) -> None:
    with (
        Feed(Counting(limit=5), whole=True, skip=skip, mark=mark) as feed,
        pytest.raises(PrefixChanged),
    ):
        await feed.next()


async def test_a_failed_call_ends_it() -> None:
    async def tag(texts: Sequence[str]) -> list[Outcome]:
        raise InferenceFailed("m", "gone")

    with Feed(Counting(), whole=True) as feed:
        async with open_window(feed.next, tag, Flight(2, 8)) as window:
            with pytest.raises(InferenceFailed):
                async for _ in window.outcomes():
                    pass


async def test_one_bad_text_fails_alone() -> None:
    """And a full queue is waited for."""

    class Model:
        full = 1

        async def spans(self, texts: Sequence[str], *_: object, **__: object) -> object:
            if self.full:
                self.full -= 1
                raise QueueFull("m", 1, 0.0)
            if "bad" in texts:
                raise InferenceFailed("m", "no")
            return Answer(len(texts))

    class Answer:
        def __init__(self, count: int) -> None:
            self.spans: list[list[object]] = [[]] * count
            self.statistics = self
            self.each = [self] * count
            self.truncated = False

    tagging = LocalTagging(Model(), SpanOptions(Strategy.MAX))  # type: ignore[arg-type]
    fine, bad, other = await tagging.tag(["a", "bad", "b"])
    assert (fine, other) == (Tagged([]), Tagged([]))
    assert isinstance(bad, Failed)
    assert "no" in bad.error
