"""The daemon's side of a model's transform: a queue of requests, and a process that runs the script.

Scores go out as numbers and come back as numbers; the script runs in a process of its own
(`nerve.transforming.worker`), so nothing that it does can hold or hurt the daemon. One that hangs, eats
memory or breaks its process fails the request that it was at, and only that one: the process is
started anew and the requests behind it run there. Nothing here knows Lua.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final, Protocol, Self

import numpy as np
import orjson

from nerve.errors import ModelLoadFailed, NerveError, QueueFull, TransformFailed
from nerve.offload import INLINE_BYTES
from nerve.transforming.process import NONSENSE
from nerve.transforming.queue import TransformQueue
from nerve.transforming.wire import Frame, Kind, Shape, frame, run_frame
from nerve.types import FloatArray, IntArray, Limits

GRACE_S: Final = 1.0
"""So long after the time limit, which the sandbox watches itself, the process is killed."""
INVALID: Final = "Transform validation failed"
"""How reasons begin; this and what follows are Encoderfile's words."""
NO_POSTPROCESS: Final = (
    "Could not find `Postprocess` function in the script; define `function Postprocess(arr)`, "
    "or set validate_transform: false to have the scores pass through unchanged"
)


class Watcher(Protocol):
    """Is told what becomes of a transform's requests and processes."""

    def done(self, seconds: float) -> None:
        """A request has its scores, after so long."""

    def failed(self, reason: str) -> None:
        """A request has none, because of an error with that reason."""

    def restarted(self) -> None:
        """A process took the place of one that was lost."""

    def close(self) -> None:
        """Nothing more is told."""


class TransformHost:
    """Runs the transform of one loaded model. One event loop; `aclose` it.

    What a script prints is logged by `nerve.transform`. It never sees a text, only scores, so no text
    of a request gets there.
    """

    probabilities = False
    """Whether the dry run gave probabilities: all in [0, 1], and 1 in sum for each token."""

    def __init__(
        self,
        name: str,
        script: str,
        *,
        libs: Sequence[str] | None,
        limits: Limits,
        labels: int,
        max_waiting: int,
        watcher: Watcher | None = None,
    ) -> None:
        """Nothing is started; see `open`."""
        self._watcher = watcher
        self._name, self._limits, self._labels = name, limits, labels
        self._max_waiting = max_waiting
        self._limit_s = limits.timeout_us / 1e6 + GRACE_S
        order = {"script": script, "libs": libs, "limits": tuple(limits), "labels": labels}
        self._queue = TransformQueue(name, frame(Kind.START, 0, orjson.dumps(order)), limits)
        if watcher is not None:
            self._queue.on_restart = watcher.restarted
        self._packing = 0  # requests that are being packed in a thread
        self._passes = False  # there is nothing to run
        self._classes = False  # the last answer was some

    @classmethod
    async def open(
        cls,
        name: str,
        script: str,
        *,
        libs: Sequence[str] | None,
        limits: Limits,
        labels: int,
        validate: bool,
        max_waiting: int,
        watcher: Watcher | None = None,
    ) -> Self:
        """Start the process and load the script; with `validate`, run it once on random scores.

        The dry run is that of Encoderfile's build: scores (32, 128, labels), uniform in [-1, 1).
        Without it a script may lack a Postprocess; scores pass through unchanged then.

        Args:
            name: of the model, for errors and logs.
            script: Lua.
            libs: Lua's libraries, None for the default ones.
            limits: of each run.
            labels: how many scores each token has.
            validate: whether to make the dry run.
            max_waiting: requests that may wait.
            watcher: is told of requests and processes, and closed with this.
        Raises:
            ModelLoadFailed: with the reason for the index.
        """
        host = cls(
            name,
            script,
            libs=libs,
            limits=limits,
            labels=labels,
            max_waiting=max_waiting,
            watcher=watcher,
        )
        try:
            await host._begin(validate=validate)
        except BaseException:
            await host.aclose()
            raise
        return host

    async def _begin(self, *, validate: bool) -> None:
        try:
            started = await self._queue.start()
        except TransformFailed as error:
            reason = f"{INVALID}: Failed to create transform: {error.detail}"
            raise ModelLoadFailed(reason) from error
        if started.count:
            if validate:
                await self._check()
        elif validate:
            raise ModelLoadFailed(f"{INVALID}: {NO_POSTPROCESS}")
        else:
            self._passes = True
            await self._queue.aclose()

    async def _check(self) -> None:
        try:
            checked = await self._queue.ask(frame(Kind.CHECK), 0, limit_s=self._limit_s)
        except TransformFailed as error:
            where = f"in a dry run on random scores of shape [32, 128, {self._labels}]"
            raise ModelLoadFailed(f"{INVALID}: {error.detail} ({where})") from error
        self.probabilities = checked.count == Shape.PROBABILITIES
        self._classes = checked.count == Shape.CLASSES

    @property
    def pid(self) -> int:
        """Of the process, 0 if there is none just now."""
        return self._queue.pid

    def check_room(self) -> None:
        """Refuse early.

        Raises:
            QueueFull: as many requests as allowed wait already.
            ModelUnloaded: this is closed.
            TransformDown: its process does not stay alive.
        """
        self._check_room(self._max_waiting)

    def _check_room(self, limit: int) -> None:
        if self._passes:
            return
        self._queue.check()
        if self._queue.most_waiting + self._packing < limit:  # the cheap look first
            return
        if self._queue.waiting + self._packing >= limit:
            raise QueueFull(self._name, limit, self._queue.wait_s)

    async def apply(
        self, rows: Sequence[FloatArray], *, deadline: float | None
    ) -> list[FloatArray] | list[IntArray]:
        """Transform the scores of one request.

        The script gets them as (rows, longest, labels), zeros behind the shorter rows. A request
        whose scores exist already is refused only when twice as many wait as `check_room` allows.

        Args:
            rows: (tokens, labels) float32 each. One without tokens is not shown to the script.
            deadline: monotonic seconds, or None.
        Returns:
            For each row (tokens, labels) float32, or (tokens,) int64: classes from 0. Views of
            one array.
        Raises:
            TransformFailed: the script raised, or its process died.
            TransformResult: what it returned cannot be used.
            TransformLimit: it went over a limit.
            DeadlineExceeded: the deadline passed; what did not run yet never will.
            QueueFull, ModelUnloaded, TransformDown: as `check_room`.
        """
        if self._passes:
            return list(rows)
        began, watcher = time.monotonic(), self._watcher
        try:
            self._check_room(2 * self._max_waiting)
            answer = await self._run([row for row in rows if len(row)], deadline)
        except NerveError as error:
            if watcher is not None:
                watcher.failed(error.reason)
            raise
        if watcher is not None:
            watcher.done(time.monotonic() - began)
        self._classes = answer.kind is Kind.CLASSES
        return self._split(answer, rows)

    async def _run(self, rows: Sequence[FloatArray], deadline: float | None) -> Frame:
        """The answer for rows none of which is empty."""
        if not rows:
            return Frame(Kind.CLASSES if self._classes else Kind.SCORES, 0, bytearray())
        tokens = sum(map(len, rows))
        score_bytes = 4 * self._labels
        if score_bytes * len(rows) * max(map(len, rows)) > self._limits.max_memory_bytes:
            raise self._queue.limit("max_memory_bytes")  # it could not even be given to the script
        size = score_bytes * tokens
        if size <= INLINE_BYTES:
            packed = run_frame(rows)
        else:
            self._packing += 1
            try:
                packed = await asyncio.to_thread(run_frame, rows)
            finally:
                self._packing -= 1
        longest = max(size, 8 * tokens)
        answer = await self._queue.ask(packed, longest, limit_s=self._limit_s, deadline=deadline)
        expected = 8 * tokens if answer.kind is Kind.CLASSES else size
        if len(answer.body) != expected:
            raise TransformFailed(self._name, NONSENSE)
        return answer

    def _split(
        self, answer: Frame, rows: Sequence[FloatArray]
    ) -> list[FloatArray] | list[IntArray]:
        """The rows of an answer, as long as those that were sent."""
        places = list(pairwise(accumulate(map(len, rows), initial=0)))
        if answer.kind is Kind.CLASSES:
            classes = np.frombuffer(answer.body, np.int64)
            return [classes[start:end] for start, end in places]
        scores = np.frombuffer(answer.body, np.float32).reshape(-1, self._labels)
        return [scores[start:end] for start, end in places]

    async def aclose(self) -> None:
        """End the process; requests that wait fail with ModelUnloaded."""
        await self._queue.aclose()
        if self._watcher is not None:
            self._watcher.close()
