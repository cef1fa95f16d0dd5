"""Records read ahead in a thread, so that neither a disk nor a silent pipe holds the event loop."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from typing import Final

from nerve.cli.bulk.records import Reader, Record

CHUNK_RECORDS: Final = 512
CHUNK_BYTES: Final = 4 * 2**20
"""A chunk is full with so many records, or with so much of the input."""
_PATIENCE_S: Final = 5.0


class PrefixChanged(Exception):
    """What was read before is not there any more, or not the same."""


class Feed:
    """Chunks of a reader's records. Use it as `with Feed(…) as feed` in an event loop."""

    def __init__(self, reader: Reader, *, whole: bool, skip: int = 0, mark: bytes = b"") -> None:
        """Read ahead by at most one chunk.

        Args:
            reader: what is read; it is closed here.
            whole: wait for full chunks. Else give what is there, as a pipe may be slow.
            skip: records that are left out.
            mark: `Record.mark` of the last one of them.
        """
        self._reader, self._whole, self._skip, self._mark = reader, whole, skip, mark
        self._ready: list[Record] = []
        self._size = 0
        self._over = self._closed = False
        self._error: BaseException | None = None
        self._change = threading.Condition()
        self._told = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # A daemon, as it may wait for a pipe for ever.
        self._thread = threading.Thread(target=self._run, name="nerve-feed", daemon=True)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._closed = True
            self._change.notify()
        if self._whole:
            self._thread.join(_PATIENCE_S)

    async def next(self) -> list[Record]:
        """The next chunk; empty at the end.

        Raises:
            What reading raised, after all records before it; PrefixChanged.
        """
        while True:
            await self._told.wait()
            with self._change:
                self._told.clear()
                chunk, self._ready, self._size = self._ready, [], 0
                if self._over:
                    self._told.set()
                self._change.notify()
                if chunk:
                    return chunk
                if self._error is not None:
                    raise self._error
                if self._over:
                    return []

    def _run(self) -> None:
        try:
            for record in self._records():
                if not self._put(record):
                    break
        except BaseException as error:  # noqa: BLE001  whoever asks for the next chunk gets it
            self._error = error
        finally:
            self._reader.close()
            with self._change:
                self._over = True
                self._tell()

    def _records(self) -> Iterator[Record]:
        records = iter(self._reader)
        last, count = b"", 0
        for record in itertools.islice(records, self._skip):
            last, count = record.mark, count + 1
            if self._closed:
                return
        if (count, last) != (self._skip, self._mark):
            raise PrefixChanged
        yield from records

    def _put(self, record: Record) -> bool:
        """Whether to go on."""
        with self._change:
            while self._full() and not self._closed:
                self._change.wait()
            self._ready.append(record)
            self._size += record.size
            if not self._whole or self._full():
                self._tell()
            return not self._closed

    def _full(self) -> bool:
        return len(self._ready) >= CHUNK_RECORDS or self._size >= CHUNK_BYTES

    def _tell(self) -> None:
        if not self._closed:
            self._loop.call_soon_threadsafe(self._told.set)
