"""A request's answers: those that are kept, those on their way, and a run for the rest."""

from __future__ import annotations

import asyncio
import copy
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from nerve.caching.flights import Flights, Run
from nerve.caching.store import Entry, Key, Store, entry
from nerve.errors import DeadlineExceeded, ModelUnloaded, NerveError
from nerve.exchange import recorded
from nerve.metrics.cache import CopyCacheMetrics
from nerve.offload import offload, small_answer
from nerve.types import CacheUse, CallStatistics, RunTimes, Span, TextCost, TokenTags

JOINS: Final = 2
"""So often a request waits for runs that others began; when those failed by no fault of its own, it
runs its texts itself."""
ROW_CHARACTERS: Final = 16
"""What a text costs beside its characters: a row has special tokens, and is handled as one."""
OWN_CHARACTERS: Final = 1000
"""Of a text, so many count for what its request would cost: at least so many most models run."""


class Made(NamedTuple):
    """What the model said of texts: spans, tags, or both."""

    spans: list[list[Span]] | None
    tags: list[TokenTags] | None
    statistics: CallStatistics


class Ran(NamedTuple):
    """What a run cost, and how long its answers took to keep."""

    statistics: CallStatistics
    keeping_s: float


@dataclass(slots=True)
class _Call:
    """A request on its way: what it asks, and what there is so far."""

    keys: list[Key]
    ask: Callable[[list[str]], Awaitable[Made]]
    deadline: float | None
    priority: int
    found: dict[Key, Entry] = field(default_factory=dict)
    ran: list[tuple[int, Ran]] = field(default_factory=list)
    """Its own runs, with the number of their texts."""
    waited_s: float = 0.0
    """For runs of others, beyond its own."""

    @property
    def missing(self) -> list[Key]:
        """Each key without an answer once, in order."""
        return list(dict.fromkeys(key for key in self.keys if key not in self.found))


class Answers:
    """Answers of one loaded model; `aclose` them after it."""

    def __init__(self, model: str, *, max_bytes: int, metrics: CopyCacheMetrics) -> None:
        self._name, self._metrics = model, metrics
        self._store = Store(max_bytes, metrics)
        self._flights: Flights[Key, Entry] = Flights(
            f"cache-{model}", size=_size, most=OWN_CHARACTERS + ROW_CHARACTERS
        )

    async def get(
        self,
        keys: list[Key],
        ask: Callable[[list[str]], Awaitable[Made]],
        *,
        deadline: float | None,
        priority: int,
    ) -> tuple[list[Entry], CallStatistics]:
        """The answer for each key, and what that cost.

        Args:
            keys: of the request's texts.
            ask: puts the request's question about some of its texts to the model.
            deadline: monotonic seconds, as the model gets it.
            priority: 1 (first) to 10, likewise.
        Raises:
            What `ask` raises; DeadlineExceeded and ModelUnloaded while waiting for others' runs.
        """
        began = time.monotonic()
        call = _Call(keys, ask, deadline, priority)
        for key in keys:
            if (kept := self._store.get(key)) is not None:
                call.found[key] = kept
        looked = time.monotonic()
        if (exchange := recorded()) is not None:
            exchange.stage("cache", began, looked, hits=len(call.found))
        for attempt in itertools.count():
            if not (missing := call.missing):
                break
            await self._run(call, missing, join=attempt < JOINS)
        answers = [call.found[key] for key in keys]
        hits = len(keys) - sum(count for count, _ in call.ran)
        self._metrics.hit(hits)
        return answers, _statistics(call, answers, hits, looked - began)

    async def aclose(self) -> None:
        """End what is on its way, forget all."""
        await self._flights.aclose()
        self._store.clear()
        self._metrics.close()

    async def _run(self, call: _Call, missing: list[Key], *, join: bool) -> None:
        """One attempt at what is missing. Raises what `ServedModel.spans` raises."""
        joined = self._flights.find(missing, call.priority) if join else {}
        runs = list(dict.fromkeys(joined.values()))
        own: list[Ran] = []
        if led := [key for key in missing if key not in joined]:
            self._metrics.miss(len(led))
            begun = self._flights.begin(
                led,
                lambda: self._fly(call, led, own),
                deadline=call.deadline,
                priority=call.priority,
            )
            runs.insert(0, begun)
        with self._flights.waiting(runs):
            if led:
                await asyncio.wait([runs[0].task])
                call.found.update(self._result(runs.pop(0)))
                call.ran.append((len(led), own[0]))
            since = time.monotonic()
            for run in runs:
                await self._join(call, run)
            if runs:
                self._note_wait(call, since)

    async def _fly(self, call: _Call, keys: list[Key], own: list[Ran]) -> dict[Key, Entry]:
        """Have the model answer the keys, and keep that; what it cost joins `own`."""
        made = await call.ask([text for text, _ in keys])
        came = time.monotonic()
        answers = await offload(
            lambda: dict(zip(keys, map(entry, keys, *_columns(made, len(keys))), strict=True)),
            inline=small_answer(len(keys), made.statistics.tokens),
        )
        for key, answer in answers.items():
            self._store.put(key, answer)
        own.append(Ran(made.statistics, time.monotonic() - came))
        return answers

    async def _join(self, call: _Call, run: Run[Key, Entry]) -> None:
        """Take what another's run found, in time; nothing, if it failed for reasons of its own."""
        left = None if call.deadline is None else max(0.0, call.deadline - time.monotonic())
        done, _ = await asyncio.wait([run.task], timeout=left)
        if not done:
            raise DeadlineExceeded
        try:
            call.found.update(self._result(run))
        except Exception as error:
            if not run.fails_another(error, call.deadline):
                return
            if isinstance(error, NerveError):  # one with a traceback of its own
                raise copy.copy(error) from error
            raise

    @staticmethod
    def _note_wait(call: _Call, since: float) -> None:
        """The request has waited for runs of others since then."""
        now = time.monotonic()
        call.waited_s += now - since
        if (exchange := recorded()) is not None:
            exchange.stage("queue", since, now)

    def _result(self, run: Run[Key, Entry]) -> dict[Key, Entry]:
        """Raises what the run raised; ModelUnloaded, if it was ended."""
        if run.task.cancelled():
            raise ModelUnloaded(self._name)
        return dict(run.task.result())


def _size(key: Key) -> int:
    """About what its text costs to run, in characters."""
    return len(key[0]) + ROW_CHARACTERS


def _columns(
    made: Made, texts: int
) -> tuple[Sequence[list[Span] | None], Sequence[TokenTags | None], Sequence[TextCost]]:
    """Spans, tags and cost of each text."""
    nothing = [None] * texts
    spans = nothing if made.spans is None else made.spans
    tags = nothing if made.tags is None else made.tags
    return spans, tags, made.statistics.each


def _statistics(
    call: _Call, answers: Sequence[Entry], hits: int, looking_s: float
) -> CallStatistics:
    """What a request cost: the runs that it began, the wait for others; tokens are of all texts.

    Tokens of a text that was not run count as well: they tell how large the answer is, and what
    it would cost without a cache.
    """
    texts = len(answers)
    own = [(count / texts, ran.statistics) for count, ran in call.ran]
    shared = (hits / texts) * call.waited_s
    each = tuple(answer.cost for answer in answers)
    return CallStatistics(
        tokens=sum(cost.tokens for cost in each),
        truncated_texts=sum(cost.truncated for cost in each),
        tokenization_s=sum(share * cost.tokenization_s for share, cost in own),
        queue_s=sum(share * cost.queue_s for share, cost in own) + shared,
        inference_s=sum(share * cost.inference_s for share, cost in own),
        decoding_s=sum(share * cost.decoding_s for share, cost in own),
        runs=RunTimes(
            waiting_s=sum(cost.runs.waiting_s for _, cost in own) + call.waited_s,
            padding_s=sum(cost.runs.padding_s for _, cost in own),
            running_s=sum(cost.runs.running_s for _, cost in own),
        ),
        each=each,
        cached=CacheUse(hits, looking_s + sum(ran.keeping_s for _, ran in call.ran)),
    )
