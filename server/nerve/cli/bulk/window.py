"""Many texts in flight, few records in memory, and the outcomes in the order of the records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, TypeVar

from nerve.cli.bulk.records import NOTHING, Failed, Outcome, Record

T = TypeVar("T")

CHUNKS: Final = 4
"""Chunks of records that are in memory beside the one that is read."""

Tag = Callable[[Sequence[str]], Awaitable[Sequence[Outcome]]]
"""Outcomes of texts, none of them empty, in their order."""
Next = Callable[[], Awaitable[list[Record]]]
"""The next chunk of records; empty at the end."""


class Flight(NamedTuple):
    """How texts are asked for: so many calls at a time, of so many texts each at most."""

    calls: int
    texts: int


class Tagging(NamedTuple):
    """Somebody who tags. `identity` is all that the entities depend on, by names for people."""

    tag: Tag
    flight: Flight
    identity: Mapping[str, object]


class _Chunk:
    """Records, and outcomes as far as they are there."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.outcomes: list[Outcome] = [
            Failed(record.fault) if record.fault else NOTHING for record in records
        ]
        self.left = 0
        self.done = asyncio.Event()

    def calls(self, texts: int) -> list[list[int]]:
        """Numbers of the records with something to tag, those of like length together: they are run
        together, and padding costs as much as text."""
        wanted = [n for n, each in enumerate(self.records) if each.text and not each.fault]
        wanted.sort(key=lambda number: len(self.records[number].text))
        return [wanted[at : at + texts] for at in range(0, len(wanted), texts)]


class Window:
    """Chunks on their way. Iterate over `outcomes`; only within `open_window`."""

    def __init__(self, tag: Tag, flight: Flight) -> None:
        self._tag, self._flight = tag, flight
        self._slots = asyncio.Semaphore(flight.calls)
        self._room = asyncio.Semaphore(CHUNKS)
        self._chunks: asyncio.Queue[_Chunk | None] = asyncio.Queue()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._error: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def outcomes(self) -> AsyncIterator[list[tuple[Record, Outcome]]]:
        """Chunk by chunk, each as soon as all of it is there.

        Raises:
            What tagging raised, at once; what reading raised, after all records before it.
        """
        while (chunk := await self._or_failed(self._chunks.get())) is not None:
            await self._or_failed(chunk.done.wait())
            yield list(zip(chunk.records, chunk.outcomes, strict=True))
            self._room.release()
        if self._error is not None:
            raise self._error

    async def fill(self, following: Next) -> None:
        """Take in chunks until there is none; errors come out of `outcomes`."""
        try:
            while True:
                await self._room.acquire()
                if not (records := await following()):
                    break
                chunk = _Chunk(records)
                calls = chunk.calls(self._flight.texts)
                chunk.left = len(calls)
                if not calls:
                    chunk.done.set()
                self._chunks.put_nowait(chunk)
                for call in calls:
                    await self._slots.acquire()
                    self.start(self._call(chunk, call))
        except Exception as error:  # noqa: BLE001  `outcomes` raises it
            self._error = error
        self._chunks.put_nowait(None)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it until the window is closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, chunk: _Chunk, numbers: list[int]) -> None:
        try:
            found = await self._tag([chunk.records[number].text for number in numbers])
            for number, outcome in zip(numbers, found, strict=True):
                chunk.outcomes[number] = outcome
        except Exception as error:  # noqa: BLE001  `outcomes` raises it
            if not self._failed.done():
                self._failed.set_exception(error)
        finally:
            self._slots.release()
            chunk.left -= 1
            if not chunk.left:
                chunk.done.set()

    async def _or_failed(self, wanted: Coroutine[Any, Any, T]) -> T:
        """What is waited for, unless a call fails before."""
        task = asyncio.create_task(wanted)
        try:
            either: list[asyncio.Future[Any]] = [task, self._failed]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
            return task.result()
        finally:
            task.cancel()

    async def aclose(self) -> None:
        """Give up what is in flight."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not self._failed.cancel():
            self._failed.exception()  # whoever wanted to know has been told


@asynccontextmanager
async def open_window(following: Next, tag: Tag, flight: Flight) -> AsyncIterator[Window]:
    """A window over all chunks of `following`."""
    window = Window(tag, flight)
    window.start(window.fill(following))
    try:
        yield window
    finally:
        await window.aclose()
