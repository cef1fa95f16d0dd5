"""Logging of the process, to stderr: what is logged. How a line looks is up to `nerve.log_lines`."""

from __future__ import annotations

import logging
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


def set_up(level: str, *, form: str = CONSOLE) -> None:
    """Send everything from `level` (debug, info, warning, error) on to stderr.

    `form` is `CONSOLE` or `JSON`.
    """
    handler = logging.StreamHandler()
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
