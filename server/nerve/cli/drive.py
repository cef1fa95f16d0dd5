"""Callers that ask one thing after another, and what their answers took; knows no server or model."""

from __future__ import annotations

import asyncio
import itertools
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from nerve.types import EngineStatistics

AFTER_FAILURE_S: Final = 0.01
"""Pause of a caller that was refused: one that asks again at once would only measure refusals."""


class RequestFailed(Exception):
    """One request got no answer. `kind` is what such failures are counted by, the text tells more."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind, self.message = kind, message

    def __str__(self) -> str:
        return self.message


class Target(Protocol):
    """What is measured."""

    async def send(self, texts: Sequence[str]) -> None:
        """Have texts tagged in one request. Raises RequestFailed."""

    async def statistics(self) -> EngineStatistics | None:
        """Totals of the engine behind it, None where they cannot be had."""


Send = Callable[[Sequence[str]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Load:
    """So many callers at a time, for a duration or for a number of requests."""

    concurrency: int
    duration_s: float = float("inf")
    requests: float = float("inf")


@dataclass(slots=True)
class Failure:
    """Failures of one kind, and what the first of them said."""

    count: int
    first: str


@dataclass(slots=True)
class Tally:
    """What has been answered so far; it can be read at any time."""

    texts: int = 0
    seconds: float = 0.0
    """Of all runs that are over."""
    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    """Of every request that was answered."""
    failures: dict[str, Failure] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Requests without an answer."""
        return sum(each.count for each in self.failures.values())

    def fail(self, error: RequestFailed) -> None:
        """Count one."""
        known = self.failures.setdefault(error.kind, Failure(0, error.message))
        known.count += 1


async def drive(send: Send, texts: Iterator[Sequence[str]], load: Load, tally: Tally) -> None:
    """Keep `load.concurrency` requests in flight until the load is over; the last ones are awaited.

    Args:
        send: one request.
        texts: of each request, without end.
        load: how many, how long.
        tally: what to count in; what is there stays there when this is cancelled.
    """
    began = time.perf_counter()
    numbers = itertools.count()

    async def call() -> None:
        while time.perf_counter() - began < load.duration_s and next(numbers) < load.requests:
            asked = next(texts)
            sent = time.perf_counter()
            try:
                await send(asked)
            except RequestFailed as error:
                tally.fail(error)
                await asyncio.sleep(AFTER_FAILURE_S)
            else:
                tally.latencies_s.append(time.perf_counter() - sent)
                tally.texts += len(asked)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(int(min(load.concurrency, load.requests))):
                group.create_task(call())
    finally:
        tally.seconds += time.perf_counter() - began


def in_turn(texts: Sequence[str], *, batch: int) -> Iterator[list[str]]:
    """`batch` texts at a time, in their order, over and over."""
    endless = itertools.cycle(texts)
    while True:
        yield list(itertools.islice(endless, batch))


@dataclass(frozen=True, slots=True)
class Figures:
    """A measurement. None is what cannot be known: nothing was answered, or no totals were had."""

    concurrency: int
    seconds: float
    requests: int
    """That were answered."""
    texts_per_s: float
    tokens_per_s: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_batch: float | None
    """Rows a run of the model."""
    padding_waste: float | None
    """Padding's share of the tokens that were run, 0 to 1."""
    failed: dict[str, int]
    """Requests by what kept them from being answered."""


def figures(load: Load, tally: Tally, ran: EngineStatistics | None) -> Figures:
    """Sum up. Pure.

    Args:
        load: that was driven.
        tally: of its requests.
        ran: what the engine did meanwhile, see `since`.
    """
    p50, p95, p99 = percentiles_ms(tally.latencies_s)
    batches = bool(ran and ran.batches)
    return Figures(
        concurrency=load.concurrency,
        seconds=tally.seconds,
        requests=len(tally.latencies_s),
        texts_per_s=tally.texts / tally.seconds if tally.seconds else 0.0,
        tokens_per_s=ran.tokens / tally.seconds if ran and tally.seconds else None,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        mean_batch=ran.mean_batch_size if ran and batches else None,
        padding_waste=ran.padding_waste if ran and batches else None,
        failed={kind: each.count for kind, each in sorted(tally.failures.items())},
    )


def percentiles_ms(
    latencies_s: Sequence[float],
) -> tuple[float, float, float] | tuple[None, None, None]:
    """p50, p95 and p99 in milliseconds; None of nothing. Pure."""
    if not latencies_s:
        return None, None, None
    p50, p95, p99 = np.percentile(np.asarray(latencies_s), (50, 95, 99)) * 1e3
    return float(p50), float(p95), float(p99)


def since(before: EngineStatistics | None, now: EngineStatistics | None) -> EngineStatistics | None:
    """What an engine has done between two totals; None if it was another one meanwhile. Pure."""
    if before is None or now is None:
        return None
    done = EngineStatistics(
        now.batches - before.batches,
        now.rows - before.rows,
        now.tokens - before.tokens,
        now.padded_tokens - before.padded_tokens,
    )
    counts = (done.batches, done.rows, done.tokens, done.padded_tokens)
    return done if min(counts) >= 0 else None


def added(one: EngineStatistics | None, other: EngineStatistics | None) -> EngineStatistics | None:
    """Both together; None if one is not known. Pure."""
    if one is None or other is None:
        return None
    return EngineStatistics(
        one.batches + other.batches,
        one.rows + other.rows,
        one.tokens + other.tokens,
        one.padded_tokens + other.padded_tokens,
    )
