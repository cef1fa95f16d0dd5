"""Copies of requests for a shadow version: counted, never in the way of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from fake_models import COST, PATIENCE_S, FakeModel, World, everybody_had_a_turn, until, world
from nerve.config.server import ServerConfig
from nerve.errors import InferenceFailed
from nerve.metrics.requests import RequestMetrics
from nerve.service.inference import Call, InferenceService, SpanRequest
from nerve.service.shadow import MAX_COPIES, found
from nerve.types import Span, SpanAnswer, TokenAnswer, TokenTags
from nerve.words import OffsetUnit, Strategy


def span(label: str, start: int, end: int, score: float = 0.5) -> Span:
    return Span("x" * (end - start), label, np.float32(score), start, end, 0, None)


ADA = [[span("PER", 0, 3)]]


class Shadowed:
    """A service with a model whose version 2 shadows version 1."""

    def __init__(self, made: World) -> None:
        self.made = made
        self.registry = CollectorRegistry()
        config = ServerConfig(request_timeout_s=PATIENCE_S)
        self.service = InferenceService(
            made.catalog, config=config, metrics=RequestMetrics(self.registry)
        )

    @property
    def answering(self) -> FakeModel:
        return self.made.model("one")

    @property
    def shadow(self) -> FakeModel:
        return self.made.model("two")

    def count(self, outcome: str) -> float:
        """The metric."""
        labels = {"model": "ner", "version": "2", "outcome": outcome}
        return self.registry.get_sample_value("nerve_shadow_requests_total", labels) or 0.0

    async def ask(self, version: str | None = None) -> tuple[int, list[list[Span]]]:
        """The version that answered, and its answer."""
        call = Call("ner", version, None, 8)
        info, answer = await self.service.spans(call, SpanRequest(["Ada"], Strategy.FIRST))
        return info.version, answer.spans


@asynccontextmanager
async def shadowed(fraction: float = 1.0) -> AsyncIterator[Shadowed]:
    """In the end closed."""
    async with world() as made:
        contents = {1: "one", 2: "two"}
        await made.apply("ner", contents, shadow={"version": 2, "fraction": fraction})
        given = Shadowed(made)
        given.answering.spans_found = given.shadow.spans_found = ADA
        try:
            yield given
        finally:
            await asyncio.wait_for(given.service.aclose(), PATIENCE_S)


@pytest.mark.parametrize(
    ("other", "outcome"),
    [
        pytest.param([[span("PER", 0, 3, 0.9)]], "equal", id="scores do not count"),
        pytest.param([[span("LOC", 0, 3)]], "different", id="another label"),
        pytest.param([[span("PER", 0, 2)]], "different", id="another end"),
        pytest.param([[]], "different", id="nothing found"),
        pytest.param([[span("PER", 0, 3), span("PER", 4, 5)]], "different", id="more found"),
    ],
)
async def test_a_copy_is_counted_by_what_it_found(other: list[list[Span]], outcome: str) -> None:
    """The caller gets the answer of the version that answers, whatever the shadow says."""
    async with shadowed() as given:
        given.shadow.spans_found = other
        assert await given.ask() == (1, ADA)
        await until(lambda: given.count(outcome) == 1)
        assert given.shadow.asked == given.answering.asked == [["Ada"]]
        assert sum(map(given.count, ("equal", "different", "failed", "skipped"))) == 1


@pytest.mark.parametrize("error", [InferenceFailed("ner", "x"), ZeroDivisionError()])
async def test_a_copy_that_fails_is_counted(error: Exception) -> None:
    async def fail() -> None:
        raise error

    async with shadowed() as given:
        given.shadow.answer = fail
        assert await given.ask() == (1, ADA)
        await until(lambda: given.count("failed") == 1)


async def test_nobody_waits_for_a_copy() -> None:
    """It holds a lease of its version, and is given up at the end."""
    async with shadowed() as given:
        given.shadow.answer = asyncio.Event().wait
        assert await asyncio.wait_for(given.ask(), PATIENCE_S) == (1, ADA)
        await until(lambda: given.shadow.asked)
        await given.made.apply("ner", {1: "one", 2: "three"}, shadow={"version": 2})
        await everybody_had_a_turn()
        assert not given.made.model("two").closed
        await asyncio.wait_for(given.service.aclose(), PATIENCE_S)
        await until(lambda: given.made.model("two").closed)


async def test_copies_do_not_pile_up() -> None:
    """More than so many in flight are skipped and counted; later ones run again."""
    async with shadowed() as given:
        gate = asyncio.Event()
        given.shadow.answer = gate.wait
        for _ in range(MAX_COPIES + 3):
            assert await given.ask() == (1, ADA)
        assert given.count("skipped") == 3
        gate.set()
        await until(lambda: given.count("equal") == MAX_COPIES)
        await given.ask()
        await until(lambda: given.count("equal") == MAX_COPIES + 1)
        assert given.count("skipped") == 3


async def test_requests_that_name_a_version_are_not_copied() -> None:
    async with shadowed() as given:
        assert (await given.ask("1"))[0] == 1
        assert (await given.ask("2"))[0] == 2
        await everybody_had_a_turn()
        assert len(given.shadow.asked) == 1
        assert len(given.answering.asked) == 1


async def test_only_a_share_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the dice."""
    rolls = iter([0.0, 0.24, 0.25, 0.9])
    async with shadowed(0.25) as given:
        monkeypatch.setattr("nerve.service.shadow.random.random", lambda: next(rolls))
        for _ in range(4):
            await given.ask()
        await until(lambda: given.count("equal") == 2)
        await everybody_had_a_turn()
        assert len(given.shadow.asked) == 2


async def test_a_shadow_that_answers_itself_is_not_asked_twice() -> None:
    """There is no other version."""
    async with world() as made:
        await made.apply("ner", {2: "two"}, shadow={"version": 2})
        given = Shadowed(made)
        given.shadow.spans_found = ADA
        assert await given.ask() == (2, ADA)
        await everybody_had_a_turn()
        assert len(given.shadow.asked) == 1
        await given.service.aclose()


async def test_tokens_are_copied_as_well() -> None:
    async with shadowed() as given:
        call = Call("ner", None, None, 8)
        unit = OffsetUnit.CODEPOINT
        info, answer = await given.service.tokens(
            call, ["Ada"], offset_unit=None, default_unit=unit
        )
        assert (info.version, answer.texts) == (1, [])
        await until(lambda: given.count("equal") == 1)


# --- what is compared ---


def tags(*best: int) -> TokenTags:
    count = len(best)
    return TokenTags(
        ["x"] * count,
        [7] * count,
        list(range(count)),
        list(range(1, count + 1)),
        np.zeros((count, 2), np.float32),
        np.array(best, np.int64),
        np.zeros(count, np.float32),
    )


def test_tokens_are_compared_by_label_and_place() -> None:
    """By the label's name: the other version may count its labels in another order."""
    one = TokenAnswer([tags(0, 1)], COST)
    same = TokenAnswer([tags(1, 0)], COST)
    assert found(one, ("O", "B-PER")) == found(same, ("B-PER", "O"))
    assert found(one, ("O", "B-PER")) != found(same, ("O", "B-PER"))
    assert found(one, ("O", "B-PER")) != found(TokenAnswer([tags(0)], COST), ("O", "B-PER"))


def test_texts_are_compared_one_by_one() -> None:
    one = SpanAnswer([[span("PER", 0, 3)], []], COST)
    other = SpanAnswer([[], [span("PER", 0, 3)]], COST)
    assert found(one, ()) != found(other, ())
    assert found(one, ()) == found(one, ())
