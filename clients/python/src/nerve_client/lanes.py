"""How batches of `extract_many` get answered: by requests side by side, or by messages of a stream.

A lane takes requests in and gives their outcomes in the same order. What fails on a stream is asked
again by single requests, with pauses and by halves, as without a stream.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from nerve_client.bulk import Outcome, fails_alone
from nerve_client.errors import DeadlineExceeded, NerveError, ServerError, Unavailable
from nerve_client.requests import Extract

if TYPE_CHECKING:
    from nerve_client.grpc_stream import AsyncStream, Stream  # grpc may not be installed

Solve = Callable[[Extract, Unavailable | None], list[Outcome]]
"""Outcomes of each text; the error is one that it met already."""
AsyncSolve = Callable[[Extract, Unavailable | None], Awaitable[list[Outcome]]]


class Lane(Protocol):
    """Raises NerveError from `receive` where what failed would fail every other text as well."""

    def submit(self, request: Extract) -> None:
        """Have it answered; returns at once."""

    def receive(self) -> list[Outcome]:
        """Outcomes of the oldest request that has none yet."""

    def close(self) -> None:
        """Leave nothing running."""


class AsyncLane(Protocol):
    """See `Lane`."""

    def submit(self, request: Extract) -> None:
        """See `Lane.submit`."""

    async def receive(self) -> list[Outcome]:
        """See `Lane.receive`."""

    async def close(self) -> None:
        """See `Lane.close`."""


class PoolLane:
    """A thread for each request under way."""

    def __init__(self, solve: Solve, concurrency: int) -> None:
        self._solve, self._pool = solve, ThreadPoolExecutor(concurrency, "nerve-extract")
        self._flying: deque[Future[list[Outcome]]] = deque()

    def submit(self, request: Extract) -> None:
        """See `Lane`."""
        context = contextvars.copy_context()  # the trace that it is a part of
        self._flying.append(self._pool.submit(context.run, self._solve, request, None))

    def receive(self) -> list[Outcome]:
        """See `Lane`."""
        return self._flying.popleft().result()

    def close(self) -> None:
        """Wait for the requests that are being answered, and drop the others."""
        self._pool.shutdown(cancel_futures=True)


class TaskLane:
    """A task for each request under way."""

    def __init__(self, solve: AsyncSolve) -> None:
        self._solve = solve
        self._flying: deque[asyncio.Task[list[Outcome]]] = deque()

    def submit(self, request: Extract) -> None:
        """See `Lane`."""

        async def solve() -> list[Outcome]:
            return await self._solve(request, None)

        self._flying.append(asyncio.create_task(solve()))

    async def receive(self) -> list[Outcome]:
        """See `Lane`."""
        try:
            return await self._flying[0]
        finally:
            self._flying.popleft()

    async def close(self) -> None:
        """Cancel what is under way."""
        for task in self._flying:
            task.cancel()
        await asyncio.gather(*self._flying, return_exceptions=True)


class StreamLane:
    """Messages of a stream; a new one where the last broke."""

    def __init__(self, opened: Callable[[], Stream], solve: Solve, timeout_s: float) -> None:
        self._opened, self._solve, self._timeout_s = opened, solve, timeout_s
        self._stream: Stream | None = None
        self._flying: deque[tuple[Extract, Stream]] = deque()

    def submit(self, request: Extract) -> None:
        """See `Lane`."""
        if self._stream is None or self._stream.broken is not None:
            self.close()
            self._stream = self._opened()
        self._stream.put(request)
        self._flying.append((request, self._stream))

    def receive(self) -> list[Outcome]:
        """See `Lane`."""
        request, stream = self._flying.popleft()
        try:
            outcomes = stream.get(self._timeout_s)
        except NerveError as error:
            outcomes = on_break(request, error)
        again, first = to_ask_again(request, outcomes)
        if again:
            rest = self._solve(request.of([request.texts[index] for index in again]), first)
            merge(outcomes, again, rest)
        return outcomes

    def close(self) -> None:
        """See `Lane`."""
        if self._stream is not None:
            self._stream.close()


class AsyncStreamLane:
    """See `StreamLane`."""

    def __init__(
        self, opened: Callable[[], AsyncStream], solve: AsyncSolve, timeout_s: float
    ) -> None:
        self._opened, self._solve, self._timeout_s = opened, solve, timeout_s
        self._stream: AsyncStream | None = None
        self._flying: deque[tuple[Extract, AsyncStream]] = deque()

    def submit(self, request: Extract) -> None:
        """See `Lane`."""
        if self._stream is None or self._stream.broken is not None:
            if self._stream is not None:
                self._stream.close()
            self._stream = self._opened()
        self._stream.put(request)
        self._flying.append((request, self._stream))

    async def receive(self) -> list[Outcome]:
        """See `Lane`."""
        request, stream = self._flying.popleft()
        try:
            outcomes = await stream.get(self._timeout_s)
        except NerveError as error:
            outcomes = on_break(request, error)
        again, first = to_ask_again(request, outcomes)
        if again:
            rest = await self._solve(request.of([request.texts[index] for index in again]), first)
            merge(outcomes, again, rest)
        return outcomes

    async def close(self) -> None:
        """See `Lane`."""
        if self._stream is not None:
            self._stream.close()


def on_break(request: Extract, error: NerveError) -> list[Outcome]:
    """Outcomes of texts whose stream broke before they had one. Pure.

    What ends a stream may be one text's fault, so that each is asked again. Only a late answer is
    final: its time is over.
    """
    if not isinstance(error, Unavailable | DeadlineExceeded) and fails_alone(error):
        error = Unavailable(error.message, code=error.code, reason=error.reason)
    return [error] * len(request.texts)


def to_ask_again(
    request: Extract, outcomes: Sequence[Outcome]
) -> tuple[list[int], Unavailable | None]:
    """Which texts to ask again, and the error that the first of them met. Pure.

    Raises:
        NerveError: one that every other text would meet as well.
    """
    if len(outcomes) != len(request.texts):
        text = f"{len(outcomes)} results for {len(request.texts)} texts"
        raise ServerError(text, reason="invalid_answer")
    again: list[int] = []
    first: Unavailable | None = None
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Unavailable):
            again.append(index)
            first = first or outcome
        elif isinstance(outcome, NerveError) and not fails_alone(outcome):
            raise outcome
    return again, first


def merge(outcomes: list[Outcome], again: Sequence[int], rest: Sequence[Outcome]) -> None:
    """Put the outcomes of texts that were asked again in their places."""
    for index, outcome in zip(again, rest, strict=True):
        outcomes[index] = outcome
