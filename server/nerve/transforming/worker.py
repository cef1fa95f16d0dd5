"""The process that runs a model's transform: `python -m nerve.transforming.worker FD`.

`host` is the daemon's side, `wire` what goes over the socket FD. One thread, one script, one frame
after the other. It ends when the socket is closed; while the script runs, its limits and an alarm of
its own see to that, so nothing is left when the daemon is killed.

The sandbox is what keeps a script from doing harm. Everything else here is defence in depth, should
a script get the better of it: a process of its own with hardly an environment, no new processes,
files, core dumps or privileges, and a bound on its memory; it is among the first to go when memory
runs out. It is not made nicer than the daemon: requests wait for it while the runtime's threads take
every core.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from nerve.pipeline.transform import LimitExceeded, Sandbox, ScriptFailed, WrongResult
from nerve.transforming.wire import HEADER, MAX_LINES, Kind, Shape, frame, text_frame
from nerve.types import FloatArray, Limits

PROCESS_NAME: Final = "nerve-lua"
"""What ps(1) shows."""
DRY_RUN: Final = (32, 128)
"""Rows and tokens of the dry run, as Encoderfile's build has them, and its seed."""
_SEED: Final = 42
_SUM_TOLERANCE: Final = 1e-3
ALARM_GRACE_S: Final = 5.0
"""So long after its time limit the process ends itself; the daemon, if there is one, is sooner."""
LOAD_GRACE_S: Final = 1.0
"""The same while it loads the script: the daemon cannot tell when that begins."""
_LINES_PER_S: Final = 10.0
_LINES_AT_ONCE: Final = 100
_OPEN_FILES: Final = 16
_MEMORY_TIMES: Final = 3
_MEMORY_SLACK_BYTES: Final = 64 * 2**20
"""Beside what the script may hold, its input exists once as it came, and its result as it goes."""
_OOM_SCORE: Final = 500
_PR_SET_NO_NEW_PRIVS: Final = 38
_STOP_CODE: Final = 3


class Printed:
    """Passes on what a script prints: so many lines a run, and so many a second."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._left_here = MAX_LINES
        self._allowance, self._at = float(_LINES_AT_ONCE), time.monotonic()
        self._dropped = 0

    def begin(self) -> None:
        """A new run."""
        self._left_here = MAX_LINES

    def __call__(self, line: str) -> None:
        """Pass it on, or count it among those that are left out."""
        now = time.monotonic()
        self._allowance += (now - self._at) * _LINES_PER_S
        self._allowance, self._at = min(self._allowance, float(_LINES_AT_ONCE)), now
        if self._left_here <= 0 or self._allowance < 1.0:
            self._dropped += 1
            return
        self._left_here -= 1
        self._allowance -= 1.0
        if self._dropped:
            line = f"(… {self._dropped} lines left out) {line}"
            self._dropped = 0
        self._send(text_frame(Kind.LOG, line))


class Worker:
    """Answers the frames that come on a socket."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._frames = end, end.makefile("rb")
        self._printed = Printed(end.sendall)
        self._sandbox: Sandbox | None = None
        self._labels = 0
        self._alarm_s = 0.0

    def serve(self) -> None:
        """Until the other side closes the socket."""
        while header := self._frames.read(HEADER.size):
            kind, count, size = HEADER.unpack(header)
            body = bytearray(size)
            if self._frames.readinto(body) != size:
                return
            self._printed.begin()
            answer = self._answer(Kind(kind), count, body)
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            self._end.sendall(answer)

    def _answer(self, kind: Kind, count: int, body: bytearray) -> bytes:
        try:
            return self._done(kind, count, body)
        except ScriptFailed as error:
            return text_frame(Kind.FAILED, error.text)
        except WrongResult as error:
            return text_frame(Kind.WRONG, error.text)
        except LimitExceeded as error:
            return text_frame(Kind.LIMIT, error.limit)
        except MemoryError:  # for what the sandbox does not count: copies of what came and goes
            return text_frame(Kind.LIMIT, "max_memory_bytes")

    def _done(self, kind: Kind, count: int, body: bytearray) -> bytes:
        if kind is Kind.START:
            return self._start(body)
        assert self._sandbox is not None  # START comes first
        signal.setitimer(signal.ITIMER_REAL, self._alarm_s)
        if kind is Kind.CHECK:
            return self._check(self._sandbox)
        return self._run(self._sandbox, count, body)

    def _start(self, body: bytearray) -> bytes:
        order = orjson.loads(body)
        limits = Limits(*order["limits"])
        self._labels = order["labels"]
        self._alarm_s = limits.timeout_us / 1e6 + ALARM_GRACE_S
        _limit_memory(_MEMORY_TIMES * limits.max_memory_bytes)
        signal.setitimer(signal.ITIMER_REAL, limits.timeout_us / 1e6 + LOAD_GRACE_S)
        self._sandbox = Sandbox(
            order["script"], libs=order["libs"], limits=limits, log=self._printed
        )
        return frame(Kind.STARTED, int(self._sandbox.has_postprocess))

    def _check(self, sandbox: Sandbox) -> bytes:
        """The dry run, on scores uniform in [-1, 1)."""
        shape = (*DRY_RUN, self._labels)
        scores = np.random.default_rng(_SEED).random(shape, dtype=np.float32) * 2 - 1
        return frame(Kind.CHECKED, shape_of(sandbox.run(scores, lengths=[DRY_RUN[1]] * DRY_RUN[0])))

    def _run(self, sandbox: Sandbox, count: int, body: bytearray) -> bytes:
        lengths = np.frombuffer(body, np.uint32, count)
        scores = np.frombuffer(body, np.float32, offset=lengths.nbytes).reshape(-1, self._labels)
        if count == 1:
            result = sandbox.run(scores[np.newaxis], lengths=[len(scores)])[0]
        else:
            padded, real = pad(scores, lengths)
            result = sandbox.run(padded, lengths=lengths.tolist())[real]
        if result.ndim == 1:
            return frame(Kind.CLASSES, 0, result.astype(np.int64) - 1)
        return frame(Kind.SCORES, 0, np.ascontiguousarray(result, dtype=np.float32))


def pad(scores: FloatArray, lengths: np.ndarray) -> tuple[FloatArray, np.ndarray]:
    """Rows that follow each other as one array with zeros behind the shorter ones. Pure.

    Args:
        scores: (tokens of all rows, labels).
        lengths: (rows,), of each row in tokens.
    Returns:
        (rows, longest, labels) float32, and (rows, longest) bool: what of it is no padding.
    """
    real = np.arange(lengths.max()) < lengths[:, np.newaxis]
    padded = np.zeros((*real.shape, scores.shape[1]), dtype=np.float32)
    padded[real] = scores
    return padded, real


def shape_of(result: FloatArray) -> Shape:
    """What a transform gives, by its result (…, labels), or (rows, tokens) for classes. Pure."""
    if result.ndim == 2:
        return Shape.CLASSES
    sums = result.sum(axis=-1)
    inside = bool(((result >= 0) & (result <= 1)).all())
    close = bool((np.abs(sums - 1) <= _SUM_TOLERANCE).all())
    return Shape.PROBABILITIES if inside and close else Shape.SCORES


def _limit_memory(memory_bytes: int) -> None:
    """Let this process take so much more than it has (RLIMIT_DATA; Linux counts mappings, too)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # no Linux
        return
    has = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
    _lower("RLIMIT_DATA", has * 1024 + memory_bytes + _MEMORY_SLACK_BYTES)


def _lower(name: str, limit: int) -> None:
    """Set a limit of this process, unless it is lower, or the system has none of that name."""
    import resource  # noqa: PLC0415  not there on Windows

    number = getattr(resource, name, None)
    if number is None:
        return
    _, most = resource.getrlimit(number)
    limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(number, (limit, limit))


def _give_up_rights() -> None:
    for name, limit in {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 0,  # of regular files; sockets do not count
        "RLIMIT_NOFILE": _OPEN_FILES,
        "RLIMIT_NPROC": 0,  # without effect for root
    }.items():
        _lower(name, limit)
    with contextlib.suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _write("/proc/self/oom_score_adj", str(_OOM_SCORE))


def _write(path: str, text: str) -> None:
    with contextlib.suppress(OSError):  # another system, or not allowed
        Path(path).write_text(text, encoding="ascii")


def main() -> None:
    """Serve on the socket whose descriptor is the first argument; the process ends here."""
    code = _STOP_CODE
    end = socket.socket(fileno=int(sys.argv[1]))
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the daemon decides, by closing the socket
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process wherever it is
        _write("/proc/self/comm", PROCESS_NAME)
        _give_up_rights()
        Worker(end).serve()
        code = 0
    except ConnectionError:  # the daemon is gone
        code = 0
    except BaseException as error:  # noqa: BLE001  boundary: a new process is better than this one
        with contextlib.suppress(OSError):
            end.sendall(text_frame(Kind.BROKEN, f"{type(error).__name__}: {error}"))
    finally:
        os._exit(code)  # nothing to clean up


if __name__ == "__main__":
    main()
