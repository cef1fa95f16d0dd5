"""The daemon's end of one process that runs a transform: it starts, asks, watches and reaps it.

What follows from a process that died is `host`'s business.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from nerve.threads import in_own_thread
from nerve.transforming.child import Child
from nerve.transforming.wire import (
    MAX_LINES,
    MAX_TEXT_BYTES,
    BadFrameError,
    Frame,
    FrameReader,
    Kind,
)

AHEAD_CALLS: Final = 8
AHEAD_BYTES: Final = 1 << 20
"""So much is sent before the process has answered, so that it need not wait for the daemon."""
_PIECE_BYTES: Final = 256 * 1024
"""What is copied into the socket at once: a fraction of a millisecond."""
OVERDUE: Final = "its process gave no answer in time"
NONSENSE: Final = "its process sent what is no answer"
"""Nothing that it says can be trusted."""
_LATE_S: Final = 0.1
"""A timer that comes so late tells that the event loop, or the machine, stood still."""


@dataclass(slots=True, eq=False)
class Call:
    """A frame that is sent, and what becomes of it.

    `answer_bytes` is the longest body of the answer; it must begin `limit_s` after the process
    could turn to it.
    """

    frame: bytes
    answer_bytes: int
    limit_s: float
    answer: asyncio.Future[Frame]

    def fail(self, error: Exception) -> None:
        """Hand over an error, unless the caller has gone."""
        if not self.answer.done():
            self.answer.set_exception(error)


class TransformProcess(asyncio.Protocol):
    """One process: calls go out ahead, their answers come in the same order.

    `lost` is done when it is gone, or about to be; `end` it then, too.
    """

    def __init__(
        self,
        *,
        on_answer: Callable[[TransformProcess, float], None],
        on_line: Callable[[str], None],
    ) -> None:
        """`on_answer` is called after each answer, with the seconds that it took; `on_line` with
        each line that the script prints."""
        self._on_answer, self._on_line = on_answer, on_line
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent: deque[Call] = deque()
        self.killed_for = ""
        """Why it had to be killed: OVERDUE, NONSENSE, what is broken by its own account, or empty."""
        self.blamed: Call | None = None
        """Once it is lost: what it was at, which is still in `sent`."""
        self._child = Child()
        self._transport: asyncio.Transport | None = None
        self._frames, self._lines = FrameReader(), 0
        self._out: deque[memoryview] = deque()
        self._paused = False
        self._ahead_bytes = 0
        self._since = 0.0  # when it could turn to the first call of `sent`
        self._watch: asyncio.TimerHandle | None = None
        self._watch_at = 0.0

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    async def start(self) -> None:
        """Start it and connect.

        Raises:
            OSError: there cannot be another process.
        """
        ours, theirs = socket.socketpair()
        try:
            start = functools.partial(self._child.start, theirs)
            await in_own_thread(start, name="nerve-lua", stop=self._child.kill)
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            raise

    async def end(self) -> int:
        """Close the socket and see the process off, killing it if need be; its exit code."""
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        return await in_own_thread(self._child.reap, name="nerve-lua", stop=self._child.kill)

    # calls

    def has_room(self, more_bytes: int) -> bool:
        """Whether another call may be sent ahead."""
        if not self.sent:
            return True
        within = self._ahead_bytes + more_bytes <= AHEAD_BYTES
        return len(self.sent) < AHEAD_CALLS and within

    def send(self, call: Call) -> None:
        """Have it do this after what was sent before."""
        self.sent.append(call)
        if len(self.sent) == 1:
            self._turn()
        self._ahead_bytes += len(call.frame)
        if self._transport is not None and not self._out and len(call.frame) <= _PIECE_BYTES:
            self._transport.write(call.frame)  # most are so small
            return
        whole = memoryview(call.frame)
        self._out += [whole[at : at + _PIECE_BYTES] for at in range(0, len(whole), _PIECE_BYTES)]
        self._write()

    def _write(self) -> None:
        while self._out and not self._paused and self._transport is not None:
            self._transport.write(self._out.popleft())

    def _turn(self) -> None:
        """The process turns to another call, if there is one."""
        self._lines = 0
        if self.sent:
            self._since = asyncio.get_running_loop().time()
            self._look_at(self._since + self.sent[0].limit_s)

    # the watch: one timer, which is only set anew when it is to be earlier or has run out

    def _look_at(self, when: float) -> None:
        if self._watch is not None:
            if self._watch_at <= when:
                return
            self._watch.cancel()
        self._watch_at = when
        self._watch = asyncio.get_running_loop().call_at(when, self._look)

    def _look(self) -> None:
        self._watch, now = None, asyncio.get_running_loop().time()
        if not self.sent:
            return
        if now - self._watch_at > _LATE_S:  # while nobody looked, an answer may have come
            self._since += now - self._watch_at
        due = self._since + self.sent[0].limit_s
        if now < due:
            self._look_at(due)
        else:
            self._kill(OVERDUE)

    def _kill(self, why: str) -> None:
        if not self.killed_for:
            self.killed_for, self.blamed = why, self.sent[0] if self.sent else None
        self._child.kill()

    # what a transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection."""
        self._transport = cast(
            "asyncio.Transport", transport
        )  # of a stream; uvloop's is no subclass

    def pause_writing(self) -> None:
        """It has enough to send for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """It can take more."""
        self._paused = False
        self._write()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._frames.feed(data)
        try:
            while (came := self._frames.next(self._longest())) is not None:
                self._take(came)
        except BadFrameError:
            self._kill(NONSENSE)

    def _longest(self) -> int:
        return max(MAX_TEXT_BYTES, self.sent[0].answer_bytes) if self.sent else MAX_TEXT_BYTES

    def _take(self, came: Frame) -> None:
        if came.kind is Kind.LOG and self._lines < MAX_LINES:
            self._lines += 1
            self._on_line(came.text)
            return
        if came.kind is Kind.LOG or not self.sent:
            raise BadFrameError
        if came.kind is Kind.BROKEN:
            self._kill(came.text)
            return
        call = self.sent.popleft()
        self._ahead_bytes -= len(call.frame)
        took_s = asyncio.get_running_loop().time() - self._since
        self._turn()
        if not call.answer.done():
            call.answer.set_result(came)
        self._on_answer(self, took_s)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  its cause is the exit code
        """Nothing more will come."""
        self._out.clear()
        if not self.killed_for and self.sent:
            self.blamed = self.sent[0]
        if not self.lost.done():
            self.lost.set_result(None)
