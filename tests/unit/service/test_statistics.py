"""Requests are counted at the copy that answered them, whatever becomes of them."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import replace

import numpy as np
import pytest

from fake_models import PATIENCE_S, FakeModel, World, world
from nerve.config.server import ServerConfig
from nerve.errors import (
    EmptyInput,
    InferenceFailed,
    ModelNotFound,
    ModelNotReady,
    TooManyInputs,
    VersionNotFound,
)
from nerve.metrics.requests import RequestMetrics
from nerve.service.inference import Call, InferenceService, SpanRequest
from nerve.service.statistics import RequestStatistics, RequestTotals
from nerve.types import CacheUse, CallStatistics, Row, RunTimes
from nerve.words import OffsetUnit, Strategy

COST = CallStatistics(
    tokens=9,
    truncated_texts=0,
    tokenization_s=0.5,
    queue_s=77.0,
    inference_s=77.0,
    decoding_s=0.25,
    runs=RunTimes(waiting_s=2.0, padding_s=0.125, running_s=4.0),
)
TEXTS = ["Ada", "Bob"]


def service(made: World) -> InferenceService:
    return InferenceService(
        made.catalog, config=ServerConfig(), metrics=RequestMetrics(made.registry)
    )


def call(version: str | None = None, *, texts: int = 8, ago_s: float = 3.0) -> Call:
    """A request that arrived some time ago."""
    return Call("ner", version, None, texts, arrived=time.monotonic() - ago_s)


def totals(served: InferenceService, version: str | None = None) -> RequestTotals:
    (found,) = served.statistics.versions("ner", version)
    return found.requests


async def ask(served: InferenceService, question: str) -> None:
    """One of the four, each of two texts or rows."""
    request = SpanRequest(TEXTS, Strategy.FIRST)
    if question == "spans":
        await served.spans(call(), request)
    elif question == "tokens":
        await served.tokens(call(), TEXTS, offset_unit=None, default_unit=OffsetUnit.BYTE)
    elif question == "both":
        await served.spans_and_tokens(call(), request)
    else:
        row = Row(np.arange(3))
        await served.logits(call(), lambda _info: [row, row])


QUESTIONS = ["both", "logits", "spans", "tokens"]


@pytest.mark.parametrize("question", QUESTIONS)
async def test_an_answer_is_charged_with_all_that_it_took(question: str) -> None:
    """Times of texts are added up; those of runs, which other requests share, count whole."""
    async with world() as made:
        await made.apply("ner", {1: "one"})
        made.model("one").cost = COST
        served = service(made)
        before_ms = time.time_ns() // 1_000_000
        for _ in range(2):
            await ask(served, question)
        found = totals(served)
        assert (found.succeeded, found.failed, found.texts) == (2, 0, 4)
        assert (found.queue_s, found.input_s) == (4.0, 2 * (0.5 * 2 + 0.125))
        assert (found.running_s, found.output_s) == (8.0, 2 * 0.25 * 2)
        assert 6.0 <= found.succeeded_s < 6.0 + PATIENCE_S
        assert found.failed_s == 0.0
        assert before_ms <= found.last_ms <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_failure_is_only_counted(question: str) -> None:
    async with world() as made:
        await made.apply("ner", {1: "one"})
        model = made.model("one")

        async def fail() -> None:
            raise InferenceFailed("ner", "broken")

        model.answer = fail
        served = service(made)
        with pytest.raises(InferenceFailed):
            await ask(served, question)
        found = totals(served)
        assert (found.succeeded, found.failed, found.texts) == (0, 1, 0)
        assert 3.0 <= found.failed_s < 3.0 + PATIENCE_S
        assert found.last_ms > 0
        cleared = replace(found, failed=0, failed_s=0.0, last_ms=0)
        assert cleared == RequestTotals()


async def test_a_failure_that_is_given_again() -> None:
    """Counts as another one as long as that very copy answers; later it must make no series."""
    async with world() as made:
        await made.apply("ner", {1: "one"})
        served = service(made)
        info = made.model("one").info
        labels = {"model": "ner", "version": "1", "outcome": "queue_full"}
        assert served.statistics.again(info, "queue_full")
        assert totals(served).failed == 1
        assert made.registry.get_sample_value("nerve_model_requests_total", labels) == 1
        assert not served.statistics.again(replace(info), "queue_full")
        await made.manager.unload("ner", wait=True)
        assert not served.statistics.again(info, "queue_full")
        assert not served.statistics.again(replace(info, name="none"), "queue_full")
        assert made.registry.get_sample_value("nerve_model_requests_total", labels) == 1


async def test_what_a_cache_answered_was_not_inferred() -> None:
    """A request is a hit if nothing was run for it; texts are those that were run."""
    async with world() as made:
        await made.apply("ner", {1: "one"})
        served = service(made)
        model = made.model("one")
        for hits, seconds in [(0, 0.5), (1, 0.25), (2, 0.125), (2, 0.0625)]:
            model.cost = COST._replace(cached=CacheUse(hits, seconds))
            await ask(served, "spans")
        found = totals(served)
        assert (found.succeeded, found.texts) == (4, 2 + 1)
        assert (found.cache_misses, found.cache_misses_s) == (2, 0.75)
        assert (found.cache_hits, found.cache_hits_s) == (2, 0.1875)


async def test_a_caller_that_goes_away_is_a_failure() -> None:
    async with world() as made:
        await made.apply("ner", {1: "one"})
        begun, never = asyncio.Event(), asyncio.Event()

        async def hang() -> None:
            begun.set()
            await never.wait()

        made.model("one").answer = hang
        served = service(made)
        asking = asyncio.create_task(ask(served, "spans"))
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (totals(served).succeeded, totals(served).failed) == (0, 1)


async def test_what_never_reaches_a_model_is_not_counted() -> None:
    """There is no copy to count it at."""
    async with world() as made:
        await made.apply("ner", {1: "one"})
        served = service(made)
        refused = [(EmptyInput, call(), [""]), (TooManyInputs, call(texts=1), TEXTS)]
        for kind, asked, texts in [*refused, (VersionNotFound, call("2"), TEXTS)]:
            with pytest.raises(kind):
                await served.spans(asked, SpanRequest(texts, Strategy.FIRST))
        assert totals(served) == RequestTotals()


async def test_versions_are_counted_apart_and_a_reload_begins_anew() -> None:
    async with world() as made:
        await made.apply("ner", {1: "one", 2: "two"}, version_policy="all")
        served = service(made)
        await served.spans(call("1"), SpanRequest(TEXTS, Strategy.FIRST))
        assert [
            (each.model, each.version, each.requests.texts, each.engine.batches)
            for each in served.statistics.versions("ner", None)
        ] == [("ner", 1, 2, 1), ("ner", 2, 0, 1)]
        assert totals(served, "1").succeeded == 1
        await made.apply("ner", {1: "new", 2: "two"}, version_policy="all")
        assert totals(served, "1") == RequestTotals()


async def test_totals_go_with_the_copy() -> None:
    """Nothing is kept of what was unloaded."""
    async with world() as made:
        await made.apply("ner", {1: "one"})
        statistics = RequestStatistics(made.catalog)
        with statistics.record(FakeModel("ner", 1), 0.0) as record:
            record.succeed(1, COST)
        gc.collect()
        assert statistics.copies == 0
        with made.catalog.lease("ner", None) as model, statistics.record(model, 0.0):
            assert statistics.copies == 1


async def test_which_versions_are_told_of() -> None:
    """All that are READY, in order; what is named must be there and answer."""
    async with world() as made:
        made.opener.failures["bad"] = InferenceFailed("b", "broken")
        await made.apply("b", {1: "bad"})
        await made.apply("c", {2: "c2", 10: "c10"}, version_policy="all")
        await made.apply("a", {1: "a1"})
        versions = service(made).statistics.versions

        def names(model: str | None, version: str | None = None) -> list[tuple[str, int]]:
            return [(each.model, each.version) for each in versions(model, version)]

        assert names(None) == [("a", 1), ("c", 2), ("c", 10)]
        assert names("c") == [("c", 2), ("c", 10)]
        assert names("c", "2") == [("c", 2)]
        for kind, model, version in [
            (ModelNotFound, "d", None),
            (ModelNotReady, "b", None),
            (ModelNotReady, "b", "1"),
            (VersionNotFound, "c", "3"),
            (VersionNotFound, "c", "x"),
        ]:
            with pytest.raises(kind):
                versions(model, version)


async def test_what_is_told_does_not_change_afterwards() -> None:
    async with world() as made:
        await made.apply("ner", {1: "one"})
        served = service(made)
        before = totals(served)
        await ask(served, "spans")
        early = totals(served)
        await ask(served, "spans")
        assert (before.succeeded, early.succeeded, totals(served).succeeded) == (0, 1, 2)
