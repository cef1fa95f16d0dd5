"""Logging of the process, to stderr: what is logged. How a line looks is up to `nerve.log_lines`."""

from __future__ import annotations

import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nerve.log_lines import ConsoleLines, JsonLines

CONSOLE: Final = "console"
JSON: Final = "json"
_NOTHING: Final = logging.CRITICAL + 1
ALIKE: Final = 50
ALIKE_S: Final = 10.0
"""So many warnings and errors about requests that only differ in their figures are written in so
many seconds: a client can cause more than anybody reads. What models and the server meet is all told."""
_OF_REQUESTS: Final = "nerve.frontend"
MAX_WAITING: Final = 4 * 2**20
"""Bytes of lines that wait for whoever reads them; beyond, lines are left out."""
PAUSE_S: Final = 0.02
"""Between two writes of many lines: a thread that wakes for each line costs more than the line."""
LAST_S: Final = 1.0
"""How long the end of the process waits for the last lines to be read."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged: each severity by itself; and how."""

    info: bool = True
    warning: bool = True
    error: bool = True
    """Critical lines, too."""
    verbose_level: int = 0
    """Over 0, debug lines are logged."""
    iso8601: bool = False
    """Time as 2026-05-04T03:02:01.123Z, as it always is in JSON; else in local time."""

    @classmethod
    def of_level(cls, level: str) -> LogSettings:
        """Everything from `level` (debug, info, warning, error, critical) on."""
        least = logging.getLevelNamesMapping()[level.upper()]
        return cls(
            info=least <= logging.INFO,
            warning=least <= logging.WARNING,
            error=least <= logging.ERROR,
            verbose_level=int(least <= logging.DEBUG),
        )

    def wants(self, level: int) -> bool:
        """Whether a line of this level is logged."""
        if level >= logging.ERROR:
            return self.error
        if level >= logging.WARNING:
            return self.warning
        return self.info if level >= logging.INFO else self.verbose_level > 0

    @property
    def least(self) -> int:
        """Below this level nothing is logged."""
        levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
        return next((level for level in levels if self.wants(level)), _NOTHING)


class Alike(logging.Filter):
    """Leaves out warnings and errors about requests if there are too many; a later one tells how
    many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives monotonic seconds."""
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written."""
        if record.levelno < logging.WARNING or not record.name.startswith(_OF_REQUESTS):
            return True
        kind, now = (record.name, str(record.msg)), self._clock()
        since, count = self._seen.get(kind, (now, 0))
        if now - since >= ALIKE_S:
            if count > ALIKE:
                record.alike_left_out = count - ALIKE
            since, count = now, 0
        self._seen[kind] = since, count + 1
        return count < ALIKE


class _Wanted(logging.Filter):
    def __init__(self, settings: LogSettings) -> None:
        super().__init__()
        self._settings = settings

    def filter(self, record: logging.LogRecord) -> bool:
        return self._settings.wants(record.levelno)


class Background(logging.Handler):
    """Writes lines in a thread, so that nobody but it ever waits for whoever reads them.

    A line is made when it is logged, with what is known of its request then. If more than
    `MAX_WAITING` bytes wait, lines are left out; a later one tells how many. Not for a process that
    forks: the thread stays behind.
    """

    def __init__(self, fd: int) -> None:
        """`fd` is a descriptor that stays open."""
        super().__init__()
        self._fd = fd
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        # Of each pair one is changed by whoever logs, under the handler's lock, the other by the
        # thread: nobody waits for the other.
        self._taken = self._written = 0  # bytes
        self._left_out = self._told = 0  # lines
        threading.Thread(target=self._work, name="nerve-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        if self._taken - self._written > MAX_WAITING:
            self._left_out += 1
            return
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001  whatever a field's text raises; as all handlers do
            self.handleError(record)
            return
        self._taken += len(line)
        self._lines.put(line)

    def flush(self) -> None:
        """Wait until what was logged is written, for at most `LAST_S`: done at the process's end."""
        taken, until = self._taken, time.monotonic() + LAST_S
        while self._written < taken or self._told < self._left_out:
            if time.monotonic() > until:
                return
            _pause(PAUSE_S / 10)

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode("utf-8", "backslashreplace")

    def _work(self) -> None:
        while True:
            lines = [self._lines.get()]
            lines += [self._lines.get() for _ in range(self._lines.qsize())]
            together = b"".join(lines)
            self._write(together)
            self._written += len(together)
            if left_out := self._left_out - self._told:
                text = "%d lines were left out: they were not read as fast as they were logged"
                level = logging.WARNING
                told = logging.LogRecord(__name__, level, __file__, 0, text, (left_out,), None)
                self._write(self._line(told))
                self._told += left_out
            _pause(PAUSE_S)

    def _write(self, text: bytes) -> None:
        left = memoryview(text)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:  # some other process that has it, too, made it so
                select.select([], [self._fd], [], LAST_S)
            except OSError:  # nobody reads any more, or the disk is full
                return


def _pause(seconds: float) -> None:
    """Sleep. Not by the time of day, which may jump."""
    select.select([], [], [], seconds)


def set_up(level: str, *, form: str = CONSOLE, background: bool = False) -> None:
    """Send everything from `level` (debug, info, warning, error) on to stderr.

    `form` is `CONSOLE` or `JSON`; with `background` another thread writes, see `Background`.
    """
    handler: logging.Handler = logging.StreamHandler()
    if background and sys.stderr is not None:  # None: it was closed, and may be a socket by now
        handler = Background(sys.stderr.fileno())
    handler.setFormatter(JsonLines() if form == JSON else ConsoleLines())
    handler.addFilter(Alike())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class Logs:
    """The process's logging after `set_up`; where that was not called, only the level is changed.

    Made with the level that `set_up` was given, which it leaves alone until something is changed.
    """

    def __init__(self, level: str) -> None:
        self.settings = LogSettings.of_level(level)
        """In force."""

    def change(self, settings: LogSettings) -> None:
        """Log so from now on."""
        self.settings = settings
        root = logging.getLogger()
        root.setLevel(settings.least)
        for handler in root.handlers:
            if isinstance(handler.formatter, ConsoleLines):
                handler.setFormatter(ConsoleLines(iso8601=settings.iso8601))
            if isinstance(handler.formatter, ConsoleLines | JsonLines):
                for old in [each for each in handler.filters if isinstance(each, _Wanted)]:
                    handler.removeFilter(old)
                handler.addFilter(_Wanted(settings))
