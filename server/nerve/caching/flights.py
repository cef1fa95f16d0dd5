"""Texts that are being answered, so that an equal one waits for that answer. Knows no model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

from nerve.errors import DeadlineExceeded, ModelUnavailable, Overloaded, WaitTooLong

KeyT = TypeVar("KeyT")
T = TypeVar("T")

SPARE: Final = 64
"""Size of what costs a run hardly more than nothing does."""


class Run(Generic[KeyT, T]):
    """One call for a request's texts, in a task of its own. It ends when nobody waits any more.

    It has the deadline and the priority (1 first) of the request that began it, and goes on for
    others when that one's caller leaves: for all its texts, even if they wait for one of them.
    """

    __slots__ = ("deadline", "keys", "priority", "size", "task", "waiters")

    def __init__(
        self, keys: Sequence[KeyT], size: int, deadline: float | None, priority: int
    ) -> None:
        """`size` is that of all its keys."""
        self.keys, self.size, self.deadline, self.priority = keys, size, deadline, priority
        self.waiters = 0
        self.task: asyncio.Task[Mapping[KeyT, T]]

    def fails_another(self, error: Exception, deadline: float | None) -> bool:
        """Whether its failure is also that of another request that waits for one of its texts.

        Args:
            error: what it failed with.
            deadline: of the other one, in monotonic seconds.
        """
        if isinstance(error, DeadlineExceeded | WaitTooLong):
            return self.deadline is None or (deadline is not None and deadline <= self.deadline)
        if isinstance(error, Overloaded | ModelUnavailable):
            return True  # it would be told the same
        return len(self.keys) == 1  # else another text may be the bad one


class Flights(Generic[KeyT, T]):
    """The runs on their way. One event loop; `aclose` them."""

    def __init__(self, name: str, *, size: Callable[[KeyT], int], most: int) -> None:
        """No runs yet.

        Args:
            name: of the tasks.
            size: about what a key costs to run, in any unit.
            most: by which a key counts at most for what its own request would cost; the model may
                cut what is longer.
        """
        self._name, self._size, self._most = name, size, most
        self._runs: dict[KeyT, Run[KeyT, T]] = {}
        self._tasks: set[asyncio.Task[Mapping[KeyT, T]]] = set()

    def find(self, keys: Sequence[KeyT], priority: int) -> dict[KeyT, Run[KeyT, T]]:
        """Runs that will answer some of the keys, and are worth waiting for.

        None is less urgent than `priority`; and all that they do for others together is not larger
        than all of these keys, or hardly: the model answers a run as a whole, so whoever wants one
        text of a large one is sooner done alone.
        """
        runs: dict[Run[KeyT, T], list[KeyT]] = {}
        for key in keys:
            if (run := self._runs.get(key)) is not None and run.priority <= priority:
                runs.setdefault(run, []).append(key)
        found: dict[KeyT, Run[KeyT, T]] = {}
        if not runs:
            return found
        left = SPARE + sum(min(self._size(key), self._most) for key in keys)
        for run, wanted in runs.items():
            beside = run.size - sum(map(self._size, wanted))
            if beside <= left:
                left -= beside
                found.update(dict.fromkeys(wanted, run))
        return found

    def begin(
        self,
        keys: Sequence[KeyT],
        work: Callable[[], Awaitable[Mapping[KeyT, T]]],
        *,
        deadline: float | None,
        priority: int,
    ) -> Run[KeyT, T]:
        """Start `work`, which answers all the keys; the caller waits for it, see `waiting`.

        Where another run would answer one of them, newcomers find this one.
        """
        run: Run[KeyT, T] = Run(keys, sum(map(self._size, keys)), deadline, priority)

        async def fly() -> Mapping[KeyT, T]:
            try:
                return await work()
            finally:
                self._forget(run)

        run.task = asyncio.create_task(fly(), name=self._name)
        self._runs.update(dict.fromkeys(keys, run))
        self._tasks.add(run.task)
        run.task.add_done_callback(self._landed)
        return run

    @contextmanager
    def waiting(self, runs: Iterable[Run[KeyT, T]]) -> Iterator[None]:
        """Keep these going while the block lasts."""
        kept = list(runs)
        for run in kept:
            run.waiters += 1
        try:
            yield
        finally:
            for run in kept:
                run.waiters -= 1
                if run.waiters == 0 and not run.task.done():
                    self._forget(run)
                    run.task.cancel()

    def _forget(self, run: Run[KeyT, T]) -> None:
        for key in run.keys:
            if self._runs.get(key) is run:
                del self._runs[key]

    def _landed(self, task: asyncio.Task[Mapping[KeyT, T]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: whoever waited has got it

    async def aclose(self) -> None:
        """End the runs; who waits sees them cancelled."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
