"""The requests that wait for a model's transform, and the process they wait for, kept alive.

A process that dies, or has to be killed, fails the request that it was at and only that one: it is
started anew and the requests behind it run there. What goes over the wire is no business of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from nerve.errors import (
    DeadlineExceeded,
    ModelUnloaded,
    NerveError,
    TransformDown,
    TransformFailed,
    TransformLimit,
    TransformResult,
)
from nerve.pipeline.transformed import one_line
from nerve.transforming.process import OVERDUE, Call, TransformProcess
from nerve.transforming.wire import Frame, Kind
from nerve.types import Limits

log = logging.getLogger("nerve.transform")

START_TIMEOUT_S: Final = 60.0
"""Longest wait for a process to be there; starting it takes a fraction of a second."""
_BACK_OFF_S: Final = 0.5
_MAX_BACK_OFF_S: Final = 30.0
"""Between attempts at a process that does not stay alive though no request is to blame."""
_MEAN_WEIGHT: Final = 0.05
"""Of the last request in the mean time that one takes."""
_LIMITS: Final = {
    "max_instructions": "max_instructions",
    "timeout_microseconds": "timeout_us",
    "max_memory_bytes": "max_memory_bytes",
}
"""What a limit is called in the config, and in `Limits`."""


class TransformQueue:
    """Calls that wait, in order, and one process at a time. One event loop; `aclose` it."""

    def __init__(self, model: str, order: bytes, limits: Limits) -> None:
        """Nothing is started. `order` is the START of each process."""
        self._model, self._order, self._limits = model, order, limits
        self._waiting: deque[Call] = deque()
        self._process: TransformProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._down = self._reason = ""
        self._again_at = 0.0  # monotonic: the next attempt, while this is down
        self._failures = 0  # processes in a row that came to nothing
        self._took_s = 0.0
        self._closed = False
        self.on_restart: Callable[[], None] = lambda: None
        """Called when a process has taken the place of one that was lost."""

    @property
    def pid(self) -> int:
        """Of the process, 0 if there is none."""
        return 0 if self._process is None else self._process.pid

    @property
    def waiting(self) -> int:
        """Calls that were not sent yet and whose caller is still there."""
        if any(call.answer.done() for call in self._waiting):
            self._waiting = deque(call for call in self._waiting if not call.answer.done())
        return len(self._waiting)

    @property
    def most_waiting(self) -> int:
        """The same, with those whose caller has gone: a cheap look."""
        return len(self._waiting)

    @property
    def wait_s(self) -> float:
        """About how long what waits will take."""
        return self._took_s * self.waiting

    def check(self) -> None:
        """Raise what `ask` would raise at once.

        Raises:
            ModelUnloaded: this is closed.
            TransformDown: no process stays alive, and the next attempt is yet to come.
        """
        if self._closed:
            raise ModelUnloaded(self._model)
        if self._down:
            raise self._refusal()

    async def start(self) -> Frame:
        """Start the first process and `keep` it; its answer to the order.

        Raises:
            TransformFailed: it cannot be started, or died.
            TransformLimit: loading the script goes over a limit.
        """
        started = await self._start()
        self._keeper = asyncio.create_task(self._keep(), name=f"transform {self._model}")
        return started

    async def ask(
        self, frame: bytes, answer_bytes: int, *, limit_s: float, deadline: float | None = None
    ) -> Frame:
        """Queue a frame; the answer, which is none of the errors. Cancelled, it will not be sent.

        Args:
            frame: whole.
            answer_bytes: longest body of the answer.
            limit_s: from when the process turns to it; the process is killed then.
            deadline: of the answer, in monotonic seconds, or None.
        Raises:
            TransformFailed, TransformLimit: what the process says, or has become of it.
            DeadlineExceeded: the deadline passed; what was not sent yet never will be.
            ModelUnloaded, TransformDown: as `check`.
        """
        self.check()
        left_s = None if deadline is None else deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded
        loop, timer = asyncio.get_running_loop(), None
        call = Call(frame, answer_bytes, limit_s, loop.create_future())
        if left_s is not None:  # not asyncio.timeout, which takes twice as long
            timer = loop.call_later(left_s, call.fail, DeadlineExceeded())
        self._waiting.append(call)
        self._advance()
        try:
            return self._checked(await call.answer)
        finally:
            call.answer.cancel()
            if timer is not None:
                timer.cancel()

    def _advance(self) -> None:
        """Send what the process takes, leaving out those whose caller has gone."""
        process = self._process
        if process is None or process.lost.done() or process.killed_for:
            return
        while self._waiting:
            call = self._waiting[0]
            if not call.answer.done():
                if not process.has_room(len(call.frame)):
                    return
                process.send(call)
            self._waiting.popleft()

    def _answered(self, process: TransformProcess, took_s: float) -> None:
        """The process is done with a call."""
        if process is self._process:  # else that was its START
            self._failures = 0
            self._took_s += _MEAN_WEIGHT * (took_s - self._took_s)
            self._advance()

    def _checked(self, answer: Frame) -> Frame:
        """An answer, if it is none of the errors, which are raised."""
        match answer.kind:
            case Kind.FAILED:
                raise TransformFailed(self._model, _shown(answer.text))
            case Kind.WRONG:
                raise TransformResult(self._model, _shown(answer.text))
            case Kind.LIMIT:
                raise self.limit(_shown(answer.text))
        return answer

    def limit(self, name: str) -> TransformLimit:
        """The error for having gone over that limit, by its name in the config."""
        value = getattr(self._limits, _LIMITS.get(name, name), 0)
        return TransformLimit(self._model, name, value)

    # the process

    async def _start(self) -> Frame:
        """A new process that has loaded the script; its answer. Raises as `start`."""
        process = TransformProcess(on_answer=self._answered, on_line=self._print)
        try:
            await process.start()
            limit_s = START_TIMEOUT_S + self._limits.timeout_us / 1e6
            ready: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
            process.send(Call(self._order, 0, limit_s, ready))
            either: set[asyncio.Future[Any]] = {ready, process.lost}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                ready.set_exception(self._stillborn(process, await process.end()))
            answer = self._checked(ready.result())
        except OSError as error:
            await process.end()
            fault = f"there can be no process for it: {error.strerror or error}"
            raise TransformFailed(self._model, fault) from error
        except BaseException:
            await process.end()
            raise
        self._process = process
        return answer

    async def _keep(self) -> None:
        """See each process off, and start the next."""
        while (process := self._process) is not None:
            try:
                await asyncio.wait({process.lost})
                self._process = None
                self._settle(process, await process.end())
            finally:  # closed meanwhile: nobody is left waiting
                for call in process.sent:
                    call.fail(ModelUnloaded(self._model))
            await self._start_again()

    def _settle(self, process: TransformProcess, code: int) -> None:
        """Fail what a lost process was at, and queue again what it did not get to."""
        fate = self._fate(process, code)
        log.warning("%s; its process is started again", fate, extra={"model": self._model})
        if process.blamed is None:
            self._failures += 1
            self._reason = fate.detail
        else:
            process.blamed.fail(fate)
        rest = [call for call in process.sent if call is not process.blamed]
        self._waiting.extendleft(reversed(rest))
        process.sent.clear()

    async def _start_again(self) -> None:
        while True:
            if self._failures > 1:
                wait_s = min(_MAX_BACK_OFF_S, _BACK_OFF_S * 2 ** min(self._failures - 2, 16))
                await self._back_off(wait_s)
            try:
                await self._start()
            except TransformFailed as error:
                self._failures += 1
                self._reason = error.detail
                continue
            self._down = ""
            self.on_restart()
            self._advance()
            return

    async def _back_off(self, wait_s: float) -> None:
        """Refuse everything for a while."""
        self._down = f"its process does not stay alive, the last time because {self._reason}"
        self._again_at = time.monotonic() + wait_s
        message = "model %s: %s; the next attempt is in %g s"
        log.error(message, self._model, self._down, wait_s, extra={"model": self._model})
        self._fail_waiting(self._refusal())
        await asyncio.sleep(wait_s)

    def _refusal(self) -> TransformDown:
        left_s = max(0.0, self._again_at - time.monotonic())
        return TransformDown(self._model, self._down, round(left_s, 1))

    def _fail_waiting(self, error: NerveError) -> None:
        while self._waiting:
            self._waiting.popleft().fail(error)

    def _stillborn(self, process: TransformProcess, code: int) -> TransformFailed:
        """What became of a process that never said that it is ready."""
        if process.killed_for == OVERDUE:
            fault = f"no process was there after {START_TIMEOUT_S:g} s"
            return TransformFailed(self._model, fault)
        return self._fate(process, code)

    def _fate(self, process: TransformProcess, code: int) -> TransformFailed:
        """What became of a process, as the error of the request that it was at."""
        if process.killed_for == OVERDUE or code == -signal.SIGALRM:  # its own alarm
            return self.limit("timeout_microseconds")
        if process.killed_for:
            return TransformFailed(self._model, _shown(process.killed_for))
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        with contextlib.suppress(ValueError):
            how = signal.Signals(-code).name
        hint = ", perhaps for lack of memory" if code == -signal.SIGKILL else ""
        return TransformFailed(self._model, f"the process that runs it died ({how}{hint})")

    def _print(self, line: str) -> None:
        """Log what a script prints. It is given scores only, so no text of a request gets here."""
        message = "model %s: its transform printed: %s"
        log.info(message, self._model, _shown(line), extra={"model": self._model})

    async def aclose(self) -> None:
        """End the process, and fail what waits."""
        self._closed = True
        keeper, self._keeper = self._keeper, None
        try:
            if keeper is not None:
                keeper.cancel()
                await asyncio.wait({keeper})
        finally:
            self._fail_waiting(ModelUnloaded(self._model))
            process, self._process = self._process, None
            if process is not None:
                await process.end()


def _shown(text: str) -> str:
    """What a process says, fit for a log and an answer whatever it is."""
    return one_line(text.replace("\t", " "))
