"""Small work on the event loop, the rest in a thread: the one place that says what is small."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")
KeyT = TypeVar("KeyT", bound=Hashable)
ItemT = TypeVar("ItemT")

INLINE_TEXTS: Final = 4
INLINE_CHARACTERS: Final = 500
INLINE_TOKENS: Final = 256
INLINE_BYTES: Final = 64 * 1024
"""Up to here tokenizing, decoding, writing and parsing take well under a millisecond, and a hop to
a thread would cost about as much."""
INLINE_TOKENS_TOGETHER: Final = 1024
"""The same for decoding small answers together, which takes half as long a token."""
MAX_TOGETHER: Final = 32
"""Most calls that are made as one."""


def small_texts(texts: Sequence[str]) -> bool:
    """Whether texts are tokenized on the loop."""
    return len(texts) <= INLINE_TEXTS and sum(map(len, texts)) <= INLINE_CHARACTERS


def small_answer(texts: int, tokens: int) -> bool:
    """Whether an answer is decoded and written on the loop."""
    return texts <= INLINE_TEXTS and tokens <= INLINE_TOKENS


async def offload(work: Callable[[], T], *, inline: bool) -> T:
    """Do `work` here or in a thread."""
    return work() if inline else await asyncio.to_thread(work)


class Together(Generic[KeyT, ItemT, T]):
    """Makes one call of those that arrive in the same turn of the loop, or while one is made.

    For work that costs little more for many items than for one. Only calls with the same key are
    put together; when they fail, each is made alone, so that only the bad ones fail.
    """

    def __init__(
        self,
        work: Callable[[KeyT, list[ItemT]], list[T]],
        *,
        inline: Callable[[list[ItemT]], bool],
    ) -> None:
        """`work` gives a result an item; `inline` tells whether it is done on the loop."""
        self._work, self._inline = work, inline
        self._waiting: dict[KeyT, list[tuple[ItemT, asyncio.Future[T]]]] = {}
        self._serving: asyncio.Task[None] | None = None

    async def __call__(self, key: KeyT, item: ItemT) -> T:
        """The result for `item`. Raises what `work` raises for it alone."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append((item, result))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve(), name="together")
        return await result

    async def _serve(self) -> None:
        try:
            while self._waiting:
                key, calls = next(iter(self._waiting.items()))
                del self._waiting[key]
                if rest := calls[MAX_TOGETHER:]:
                    self._waiting[key] = rest  # behind those with another key
                await self._make(key, [call for call in calls[:MAX_TOGETHER] if not call[1].done()])
        finally:  # the loop is ended: nobody is left waiting
            self._serving = None
            for _, result in (call for calls in self._waiting.values() for call in calls):
                result.cancel()
            self._waiting.clear()

    async def _make(self, key: KeyT, calls: list[tuple[ItemT, asyncio.Future[T]]]) -> None:
        items = [item for item, _ in calls]
        if not items:
            return
        try:
            outcomes = await offload(lambda: self._outcomes(key, items), inline=self._inline(items))
            for (_, result), outcome in zip(calls, outcomes, strict=True):
                if result.done():  # its caller has gone
                    continue
                if isinstance(outcome, Exception):
                    result.set_exception(outcome)
                else:
                    result.set_result(outcome)
        finally:
            for _, result in calls:
                result.cancel()  # no effect once settled

    def _outcomes(self, key: KeyT, items: list[ItemT]) -> list[T | Exception]:
        try:
            return list(self._work(key, items))
        except Exception as error:  # noqa: BLE001  boundary: each caller gets its own
            if len(items) == 1:
                return [error]
            return [outcome for item in items for outcome in self._outcomes(key, [item])]
