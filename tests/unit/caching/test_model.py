"""A cached model answers as the model does, runs each text once, and lets nobody fail for another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from fake_models import PATIENCE_S, FakeModel, everybody_had_a_turn
from nerve.caching.model import CachedModel, cached
from nerve.config.model import ModelConfig
from nerve.errors import (
    DeadlineExceeded,
    InferenceFailed,
    ModelUnloaded,
    QueueFull,
    TextTooLong,
    WaitTooLong,
)
from nerve.exchange import Exchange, Exchanges
from nerve.metrics.cache import CacheMetrics
from nerve.types import (
    CallStatistics,
    CutOptions,
    Row,
    RunTimes,
    Span,
    SpanAnswer,
    SpanOptions,
    TextCost,
    TokenAnswer,
    TokenTags,
)
from nerve.words import OffsetUnit, Side, Strategy

FIRST = SpanOptions(Strategy.FIRST)
MODEL_PRIORITY = 5


class Speaker(FakeModel):
    """Says of a text what depends on it and on what was asked, but not on its neighbours.

    Texts in `failures` fail the call that they are in. Calls wait while `gate` is not set.
    """

    def __init__(self) -> None:
        super().__init__("ner", 1)
        self.failures: dict[str, Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.unloaded = asyncio.Event()
        self.cancelled = 0
        self.inside = self.most = 0
        """Calls at the same time."""

    async def spans(
        self,
        texts: Sequence[str],
        options: SpanOptions,
        *,
        deadline: float | None,
        priority: int | None = None,
    ) -> SpanAnswer:
        cost = await self._run(texts, deadline, priority)
        return SpanAnswer([self._spans(text, options) for text in texts], cost)

    async def tokens(
        self,
        texts: Sequence[str],
        *,
        unit: OffsetUnit,
        cut: CutOptions,
        deadline: float | None,
        priority: int | None = None,
    ) -> TokenAnswer:
        cost = await self._run(texts, deadline, priority)
        return TokenAnswer([self._tags(text, unit) for text in texts], cost)

    async def spans_and_tokens(
        self,
        texts: Sequence[str],
        options: SpanOptions,
        *,
        deadline: float | None,
        priority: int | None = None,
    ) -> tuple[SpanAnswer, TokenAnswer]:
        cost = await self._run(texts, deadline, priority)
        tags = [self._tags(text, options.offset_unit) for text in texts]
        return SpanAnswer([self._spans(text, options) for text in texts], cost), TokenAnswer(
            tags, cost
        )

    async def aclose(self) -> None:
        self.unloaded.set()
        await super().aclose()

    async def _run(
        self, texts: Sequence[str], deadline: float | None, priority: int | None
    ) -> CallStatistics:
        self.asked.append(list(texts))
        self.limits.append((deadline, priority))
        left = None if deadline is None else deadline - time.monotonic()
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            async with asyncio.timeout(left):
                await self._opened()
        except TimeoutError:
            raise DeadlineExceeded from None
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.inside -= 1
        for text in texts:
            if text in self.failures:
                raise self.failures[text]
        each = tuple(TextCost(len(text) + 2, len(text) > 6) for text in texts)
        return CallStatistics(
            tokens=sum(cost.tokens for cost in each),
            truncated_texts=sum(cost.truncated for cost in each),
            tokenization_s=1.0,
            queue_s=2.0,
            inference_s=4.0,
            decoding_s=8.0,
            runs=RunTimes(16.0, 32.0, 64.0),
            each=each,
        )

    async def _opened(self) -> None:
        waits = [asyncio.create_task(each.wait()) for each in (self.gate, self.unloaded)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        if self.unloaded.is_set():
            raise ModelUnloaded("ner")

    def _spans(self, text: str, options: SpanOptions) -> list[Span]:
        label = repr((options.strategy, sorted(options.ignore_labels & {"O", "PER", "B-PER"})))
        cut = repr((options.cut, options.raw_scores))
        step = 1 if options.offset_unit is OffsetUnit.CODEPOINT else len(text.encode()) / len(text)
        scores = np.array([len(text), 1], np.float32) if options.strategy is Strategy.NONE else None
        return [
            Span(cut, label, np.float32(at), int(at * step), len(text), at, scores)
            for at in range(len(text) % 4)
        ]

    def _tags(self, text: str, unit: OffsetUnit) -> TokenTags:
        step = 1 if unit is OffsetUnit.CODEPOINT else len(text.encode()) // len(text)
        logits = np.arange(2 * len(text), dtype=np.float32).reshape(-1, 2)
        places = list(range(len(text)))
        return TokenTags(
            pieces=list(text),
            ids=[ord(each) for each in text],
            start=[step * place for place in places],
            end=[step * (place + 1) for place in places],
            logits=logits,
            best=logits.argmax(axis=1),
            score=logits.max(axis=1),
        )


class Cached:
    """A speaker behind a cache."""

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self.inner = Speaker()
        self.registry = CollectorRegistry()
        self.model = CachedModel(
            self.inner,
            max_bytes=max_bytes,
            default_priority=MODEL_PRIORITY,
            metrics=CacheMetrics(self.registry),
        )

    async def ask(
        self, *texts: str, within_s: float | None = None, priority: int | None = None
    ) -> SpanAnswer:
        deadline = None if within_s is None else time.monotonic() + within_s
        return await self.model.spans(texts, FIRST, deadline=deadline, priority=priority)

    def begin(
        self, *texts: str, within_s: float | None = None, priority: int | None = None
    ) -> asyncio.Task[SpanAnswer]:
        return asyncio.create_task(self.ask(*texts, within_s=within_s, priority=priority))

    @property
    def asked(self) -> list[Sequence[str]]:
        """The texts of each call of the model."""
        return self.inner.asked

    def count(self, name: str) -> float | None:
        labels = {"model": "ner", "version": "1"}
        return self.registry.get_sample_value(f"nerve_cache_{name}", labels)


@asynccontextmanager
async def caching(*, held: bool = False, max_bytes: int = 1 << 20) -> AsyncIterator[Cached]:
    """With `held`, the model answers nothing until `inner.gate` is set. In the end no task is left."""
    made = Cached(max_bytes)
    if held:
        made.inner.gate.clear()
    async with asyncio.timeout(PATIENCE_S):
        yield made
        if not made.inner.closed:
            await made.model.aclose()
        await everybody_had_a_turn()
        assert not [each for each in asyncio.all_tasks() if each.get_name().startswith("cache-")]


def plain(answer: SpanAnswer | TokenAnswer) -> object:
    """What an answer says, to be compared."""
    if isinstance(answer, SpanAnswer):
        return [
            [(*span[:6], None if span.scores is None else span.scores.tobytes()) for span in text]
            for text in answer.spans
        ]
    return [
        (
            *(text.pieces, text.ids, text.start, text.end),
            *(array.tobytes() for array in (text.logits, text.best, text.score)),
        )
        for text in answer.texts
    ]


# --- the same answers ---

TEXTS = st.lists(
    st.sampled_from(["a", "bb", "ccc", "ä", "äöü", "ccccccccc", "日本語"]), min_size=1, max_size=6
)
OPTIONS = st.builds(
    SpanOptions,
    st.sampled_from([Strategy.FIRST, Strategy.NONE]),
    st.sampled_from([frozenset({"O"}), frozenset({"O", "X"}), frozenset({"O", "PER"})]),
    st.booleans(),
    st.sampled_from(list(OffsetUnit)),
    st.sampled_from([CutOptions(), CutOptions(side=Side.LEFT), CutOptions(truncate=False)]),
)


@settings(max_examples=60)
@given(
    requests=st.lists(st.tuples(st.integers(0, 2), TEXTS, OPTIONS), max_size=8),
    max_bytes=st.sampled_from([1, 2000, 6000, 1 << 20]),
)
def test_every_answer_is_the_models_own(
    requests: list[tuple[int, list[str], SpanOptions]], max_bytes: int
) -> None:
    """Whatever was asked before, and however little is kept; only the durations differ."""

    async def ask(model: CachedModel | Speaker, kind: int, texts: list[str], asked: SpanOptions):  # type: ignore[no-untyped-def]
        if kind == 0:
            return [await model.spans(texts, asked, deadline=None)]
        if kind == 1:
            unit, cut = asked.offset_unit, asked.cut
            return [await model.tokens(texts, unit=unit, cut=cut, deadline=None)]
        return list(await model.spans_and_tokens(texts, asked, deadline=None))

    async def compare() -> None:
        async with caching(max_bytes=max_bytes) as made:
            for kind, texts, options in requests:
                got = await ask(made.model, kind, texts, options)
                for mine, own in zip(got, await ask(Speaker(), kind, texts, options), strict=True):
                    assert plain(mine) == plain(own)
                    for fact in ("tokens", "truncated_texts", "each"):
                        assert getattr(mine.statistics, fact) == getattr(own.statistics, fact)
                assert (made.count("bytes") or 0) <= max_bytes

    asyncio.run(compare())


async def test_only_what_is_missing_is_run_in_one_call() -> None:
    async with caching() as made:
        await made.ask("a", "bb")
        answer = await made.ask("bb", "ccc", "a", "ddd", "ccc")
        assert made.asked == [["a", "bb"], ["ccc", "ddd"]]
        assert plain(answer) == plain(
            await Speaker().spans(["bb", "ccc", "a", "ddd", "ccc"], FIRST, deadline=None)
        )
        assert (made.count("hits_total"), made.count("misses_total")) == (3, 4)
        assert (made.count("entries"), made.count("evictions_total")) == (4, 0)


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [
        ("abc", SpanOptions(Strategy.FIRST, offset_unit=OffsetUnit.BYTE), True),
        ("äbc", SpanOptions(Strategy.FIRST, offset_unit=OffsetUnit.BYTE), False),
        ("abc", SpanOptions(Strategy.FIRST, frozenset({"O", "no label"})), True),
        ("abc", SpanOptions(Strategy.FIRST, frozenset({"O", "PER"})), False),
        ("abc", SpanOptions(Strategy.FIRST, frozenset()), False),
        ("abc", SpanOptions(Strategy.MAX), False),
        ("abc", SpanOptions(Strategy.FIRST, raw_scores=True), False),
        ("abc", SpanOptions(Strategy.FIRST, cut=CutOptions(side=Side.LEFT)), False),
        ("abc", SpanOptions(Strategy.FIRST, cut=CutOptions(truncate=False)), False),
    ],
)
async def test_what_makes_two_requests_the_same(text: str, other: SpanOptions, same: bool) -> None:
    async with caching() as made:
        await made.ask(text)
        await made.model.spans([text], other, deadline=None)
        assert len(made.asked) == (1 if same else 2)


async def test_spans_tokens_and_both_are_three_things() -> None:
    async with caching() as made:
        for _ in range(2):
            await made.ask("abc")
            await made.model.tokens(["abc"], unit=OffsetUnit.BYTE, cut=CutOptions(), deadline=None)
            await made.model.spans_and_tokens(["abc"], FIRST, deadline=None)
        assert len(made.asked) == 3


async def test_a_model_with_windows_cuts_nothing() -> None:
    inner = Speaker()
    inner.change_info(stride=8)
    metrics = CacheMetrics(CollectorRegistry())
    model = CachedModel(inner, max_bytes=1 << 20, default_priority=5, metrics=metrics)
    for cut in (CutOptions(), CutOptions(truncate=False), CutOptions(side=Side.LEFT)):
        await model.spans(["abc"], SpanOptions(Strategy.FIRST, cut=cut), deadline=None)
    assert len(inner.asked) == 1
    await model.aclose()


async def test_a_caller_may_do_with_its_answer_what_it_likes() -> None:
    async with caching() as made:
        for _ in range(3):
            spans, tokens = await made.model.spans_and_tokens(["abc"], FIRST, deadline=None)
            assert [len(text) for text in spans.spans] == [3]
            assert tokens.texts[0].pieces == ["a", "b", "c"]
            spans.spans[0].clear()
            tokens.texts[0].pieces.clear()
            tokens.texts[0].start[0] = 99


async def test_what_has_no_text_goes_straight_through() -> None:
    async with caching() as made:
        for _ in range(2):
            answer = await made.model.logits([Row(np.arange(3))], deadline=None)
            assert answer.statistics.cached is None
            await made.model.decode([[1]], skip_special_tokens=True)
            await made.model.tokenize(
                ["a"], add_special_tokens=None, unit=OffsetUnit.BYTE, max_tokens=5
            )
        assert len(made.asked) == 6
        assert made.count("misses_total") == 0
        assert made.model.statistics() == made.inner.statistics()


def test_a_cache_is_only_made_where_the_config_has_one() -> None:
    inner, metrics = Speaker(), CacheMetrics(CollectorRegistry())
    assert cached(inner, ModelConfig(), metrics) is inner
    on = ModelConfig.model_validate({"response_cache": True})
    assert isinstance(cached(inner, on, metrics), CachedModel)


# --- what it cost ---


async def test_statistics_tell_what_was_run_and_what_was_not() -> None:
    """Durations are means over all texts of the request; tokens are of all of them."""
    async with caching() as made:
        await made.ask("a")
        mixed = (await made.ask("a", "bb", "ccccccccc", "a")).statistics
        assert mixed.tokens == 3 + 4 + 11 + 3
        assert mixed.truncated_texts == 1
        assert mixed.tokenization_s == 0.5
        assert 1.0 <= mixed.queue_s < 1.0 + PATIENCE_S
        assert (mixed.inference_s, mixed.decoding_s) == (2.0, 4.0)
        assert mixed.runs[1:] == (32.0, 64.0)
        assert mixed.cached is not None
        assert mixed.cached.hits == 2
        hit = (await made.ask("ccccccccc")).statistics
        assert (hit.tokens, hit.truncated_texts) == (11, 1)
        assert (hit.tokenization_s, hit.inference_s, hit.decoding_s) == (0.0, 0.0, 0.0)
        assert (hit.queue_s, hit.runs) == (0.0, RunTimes())
        assert hit.cached is not None
        assert hit.cached.hits == 1
        assert 0.0 < hit.cached.seconds < PATIENCE_S


async def test_the_wait_for_anothers_run_is_waiting() -> None:
    async with caching(held=True) as made:
        first, second = made.begin("a"), made.begin("a")
        await everybody_had_a_turn()
        made.inner.gate.set()
        await first
        cost = (await second).statistics
        assert 0.0 < cost.queue_s < PATIENCE_S
        assert cost.runs == RunTimes(cost.queue_s)
        assert cost.cached is not None
        assert cost.cached.hits == 1


async def test_a_trace_has_the_lookup_and_the_wait() -> None:
    """Of the request that made it, whoever else waits for its run."""

    async def traced(made: Cached, *texts: str) -> list[tuple[str, dict[str, object]]]:
        exchange = Exchange("http", "native", "POST", "/", trace="somebody's")
        with Exchanges().open(exchange, {}):
            await made.ask(*texts)
        assert all(stage.began <= stage.ended for stage in exchange.stages)
        return [(stage.name, dict(stage.facts)) for stage in exchange.stages]

    async with caching(held=True) as made:
        asking = [asyncio.create_task(traced(made, "a", "bb")) for _ in range(2)]
        await everybody_had_a_turn()
        made.inner.gate.set()
        assert await asking[0] == [("cache", {"hits": 0})]
        assert await asking[1] == [("cache", {"hits": 0}), ("queue", {})]
        assert await traced(made, "bb", "ccc") == [("cache", {"hits": 1})]


# --- one run for texts in flight ---


async def test_equal_texts_in_flight_are_run_once() -> None:
    async with caching(held=True) as made:
        asking = [made.begin("a") for _ in range(20)]
        asking.append(made.begin("bb", "a", "bb"))
        await everybody_had_a_turn()
        made.inner.gate.set()
        answers = await asyncio.gather(*asking)
        assert made.asked == [["a"], ["bb"]]
        assert {repr(plain(answer)) for answer in answers[:-1]} == {repr(plain(answers[0]))}
        assert (made.count("hits_total"), made.count("misses_total")) == (21, 2)


BATCH = [f"{number} " + "long " * 40 for number in range(32)]


async def test_nobody_waits_for_a_large_run_for_the_sake_of_one_text() -> None:
    """It would be done sooner alone, and is; that run is the one that others find."""
    async with caching(held=True) as made:
        large = made.begin(*BATCH, "a")
        await everybody_had_a_turn()
        small = [made.begin("a", within_s=PATIENCE_S) for _ in range(3)]
        small.append(made.begin("bb", "a"))
        await everybody_had_a_turn()
        assert made.asked == [[*BATCH, "a"], ["a"], ["bb"]]
        made.inner.gate.set()
        await asyncio.gather(large, *small)
        assert len(made.asked) == 3


@pytest.mark.parametrize(
    ("before", "asked", "run"),
    [
        ([BATCH], BATCH, []),  # the same, however large
        ([BATCH[:16], BATCH[16:]], BATCH, []),
        ([["x" * 100_000]], ["x" * 100_000], []),
        ([BATCH], BATCH[:4], BATCH[:4]),
        ([BATCH], BATCH[:20], []),  # it does less for others than for this one
        ([BATCH], ["x" * 100_000, BATCH[0]], ["x" * 100_000, BATCH[0]]),  # which may be cut
        ([BATCH[:3], BATCH[3:6]], [BATCH[0], BATCH[3]], [BATCH[3]]),  # one of both is as much
        ([["a", "bb", "ccc"]], ["a"], []),  # as good as nothing
    ],
)
async def test_which_runs_are_worth_waiting_for(
    before: list[list[str]], asked: list[str], run: list[str]
) -> None:
    async with caching(held=True) as made:
        asking = []
        for texts in [*before, asked]:
            asking.append(made.begin(*texts))
            await everybody_had_a_turn()
        assert made.asked == [*before, *([run] if run else [])]
        made.inner.gate.set()
        await asyncio.gather(*asking)


async def test_what_is_too_large_to_keep_is_run_once_at_a_time() -> None:
    async with caching(held=True, max_bytes=1) as made:
        asking = [made.begin("a") for _ in range(3)]
        await everybody_had_a_turn()
        made.inner.gate.set()
        await asyncio.gather(*asking)
        assert made.asked == [["a"]]
        await made.ask("a")
        assert made.asked == [["a"], ["a"]]
        assert (made.count("entries"), made.count("bytes")) == (0, 0)


async def test_a_caller_that_leaves_takes_nobody_along() -> None:
    """Neither the one that began the run nor one that waits for it."""
    async with caching(held=True) as made:
        first, second, third = (made.begin("a") for _ in range(3))
        await everybody_had_a_turn()
        for gone in (first, third):
            gone.cancel()
            await asyncio.wait([gone])
            assert gone.cancelled()
        made.inner.gate.set()
        assert plain(await second) == plain(await Speaker().spans(["a"], FIRST, deadline=None))
        assert made.asked == [["a"]]
        assert made.inner.cancelled == 0


async def test_a_run_ends_when_nobody_waits_for_it() -> None:
    """And the next one who asks begins anew, even while the old run is still ending."""
    async with caching(held=True) as made:
        asking = [made.begin("a") for _ in range(3)]
        await everybody_had_a_turn()
        for gone in asking:
            gone.cancel()
        again = made.begin("a")
        await asyncio.wait(asking)
        made.inner.gate.set()
        await again
        assert made.inner.cancelled == 1
        assert made.asked == [["a"], ["a"]]


# --- deadlines and priorities ---


async def test_the_first_ones_deadline_is_not_the_others() -> None:
    """Those that have more time run the text once more, together."""
    async with caching(held=True) as made:
        first = made.begin("a", within_s=0.02)
        later = [made.begin("a", within_s=PATIENCE_S), made.begin("a")]
        await asyncio.wait([first])
        assert isinstance(first.exception(), DeadlineExceeded)
        await everybody_had_a_turn()
        made.inner.gate.set()
        await asyncio.gather(*later)
        assert made.asked == [["a"], ["a"]]


async def test_a_refusal_for_lack_of_time_is_only_for_who_lacks_it() -> None:
    async with caching(held=True) as made:
        made.inner.failures["a"] = WaitTooLong("ner", 9.0, 1.0)
        first = made.begin("a", within_s=5.0)
        later, hasty = made.begin("a"), made.begin("a", within_s=4.0)
        await everybody_had_a_turn()
        made.inner.gate.set()
        await asyncio.wait([first])
        del made.inner.failures["a"]
        await later
        for refused in (first, hasty):
            with pytest.raises(WaitTooLong):
                await refused
        assert made.asked == [["a"], ["a"]]


async def test_who_waits_for_anothers_run_waits_until_its_own_deadline() -> None:
    async with caching(held=True) as made:
        first = made.begin("a")
        await everybody_had_a_turn()
        with pytest.raises(DeadlineExceeded):
            await made.ask("a", within_s=0.02)
        made.inner.gate.set()
        await first
        assert made.asked == [["a"]]


async def test_an_urgent_request_does_not_wait_behind_a_less_urgent_run() -> None:
    """It begins one of its own, which later ones of any priority wait for."""
    async with caching(held=True) as made:
        asking = [made.begin("a", priority=10)]
        await everybody_had_a_turn()
        asking += [made.begin("a"), made.begin("a", priority=MODEL_PRIORITY)]
        await everybody_had_a_turn()
        assert made.inner.limits == [(None, 10), (None, None)]
        asking += [made.begin("a", priority=10), made.begin("a", priority=1)]
        await everybody_had_a_turn()
        assert made.inner.limits[2:] == [(None, 1)]
        made.inner.gate.set()
        await asyncio.gather(*asking)
        assert len(made.asked) == 3


# --- failures ---


async def test_a_failure_reaches_everybody_and_is_not_kept() -> None:
    async with caching(held=True) as made:
        made.inner.failures["a"] = QueueFull("ner", 7, 0.5)
        asking = [made.begin("a") for _ in range(3)]
        await everybody_had_a_turn()
        made.inner.gate.set()
        await asyncio.wait(asking)
        errors = [task.exception() for task in asking]
        assert [repr(error) for error in errors] == [repr(made.inner.failures["a"])] * 3
        assert len({id(error) for error in errors}) == 3
        assert made.asked == [["a"]]
        del made.inner.failures["a"]
        await made.ask("a")
        assert made.asked == [["a"], ["a"]]
        assert made.count("entries") == 1


@pytest.mark.parametrize(
    "error",
    [InferenceFailed("ner", "broken"), TextTooLong(9, 8, "tokens"), ValueError("a bug")],
    ids=lambda error: type(error).__name__,
)
async def test_a_bad_text_fails_only_those_that_brought_it(error: Exception) -> None:
    async with caching(held=True) as made:
        made.inner.failures["bad"] = error
        first = made.begin("a", "bad", "bb")
        await everybody_had_a_turn()
        good, both, bad = made.begin("a"), made.begin("bb", "a"), made.begin("bad")
        await everybody_had_a_turn()
        made.inner.gate.set()
        await asyncio.wait([first, good, both, bad])
        assert (type(first.exception()), type(bad.exception())) == (type(error), type(error))
        assert plain(good.result()) == plain(await Speaker().spans(["a"], FIRST, deadline=None))
        assert len(both.result().spans) == 2
        await made.ask("a", "bb")
        assert sorted(text for texts in made.asked[1:] for text in texts) == ["a", "bad", "bb"]


async def test_who_was_let_down_twice_runs_its_text_itself() -> None:
    """However many runs of others fail, nobody waits for more than two of them."""
    async with caching(held=True) as made:
        made.inner.failures["a"] = WaitTooLong("ner", 9000.0, 1000.0)
        asking = [made.begin("a", within_s=1000.0 * at) for at in range(1, 6)]
        await everybody_had_a_turn()
        assert made.asked == [["a"]]
        made.inner.gate.set()
        await asyncio.wait(asking)
        assert all(isinstance(each.exception(), WaitTooLong) for each in asking)
        assert made.asked == [["a"]] * 5
        assert (
            made.inner.most == 3
        )  # after the first, and the second, of whom the rest had more time


async def test_an_unloaded_model_lets_go_of_everybody() -> None:
    async with caching(held=True) as made:
        asking = [made.begin("a"), made.begin("a"), made.begin("a", "bb")]
        await everybody_had_a_turn()
        await made.model.aclose()
        for each in asking:
            with pytest.raises(ModelUnloaded):
                await each
        assert made.count("bytes") is None  # the series are gone
