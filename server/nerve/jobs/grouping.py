"""Writes that arrive while others are being written go into the next transaction together.

Knows no database: what a step and a transaction are is its user's.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

StepT = TypeVar("StepT")

MAX_TOGETHER: Final = 256
"""Most steps of a transaction: none waits for more than these."""


class Grouping(Generic[StepT]):
    """One group at a time; each caller waits until its own has been written."""

    def __init__(self, write: Callable[[list[StepT]], Awaitable[list[Any]]]) -> None:
        """`write` does the steps and gives an outcome each: a result, or an exception to be raised."""
        self._write = write
        self._waiting: list[tuple[StepT, asyncio.Future[Any]]] = []
        self._serving: asyncio.Task[None] | None = None

    async def __call__(self, step: StepT) -> Any:  # noqa: ANN401  what the step gives
        """The outcome of a step. It is done even if the caller does not wait for it any more."""
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((step, outcome))
        if self._serving is None:
            # it is no part of the request that happens to be the first
            self._serving = asyncio.create_task(
                self._serve(), name="grouped-writes", context=contextvars.Context()
            )
        return await outcome

    async def idle(self) -> None:
        """Wait until everything has been written."""
        while self._serving is not None:
            await asyncio.wait({self._serving})

    async def _serve(self) -> None:
        try:
            while self._waiting:
                group = self._waiting[:MAX_TOGETHER]
                del self._waiting[:MAX_TOGETHER]
                await self._do(group)
        finally:
            self._serving = None
            for _, outcome in self._waiting:  # the loop is ended: nobody is left waiting
                outcome.cancel()
            self._waiting.clear()

    async def _do(self, group: list[tuple[StepT, asyncio.Future[Any]]]) -> None:
        try:
            outcomes = await self._write([step for step, _ in group])
            for (_, waiting), outcome in zip(group, outcomes, strict=True):
                if waiting.done():  # its caller has gone
                    continue
                if isinstance(outcome, Exception):
                    waiting.set_exception(outcome)
                else:
                    waiting.set_result(outcome)
        finally:
            for _, waiting in group:
                waiting.cancel()  # no effect once settled
