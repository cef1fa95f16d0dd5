"""Logging of the process: one line an event on stderr, extra fields as key=value; set up and changed."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LINE: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_NOTHING: Final = logging.CRITICAL + 1
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
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
    """Time as 2026-05-04T03:02:01.123Z; else in local time, as Python's logging has it."""

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


class _Formatter(logging.Formatter):
    def __init__(self, *, iso8601: bool = False) -> None:
        super().__init__(_LINE)
        self._iso8601 = iso8601

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        return text + "".join(f" {key}={one_line(str(value))}" for key, value in extra.items())

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        return one_line(super().formatMessage(record))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  logging's name
        if not self._iso8601:
            return super().formatTime(record, datefmt)
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{whole}.{int(record.msecs):03d}Z"


def one_line(text: str) -> str:
    """With control characters escaped: what others wrote must not look like lines of ours. Pure."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


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


def set_up(level: str) -> None:
    """Send everything from `level` (debug, info, warning, error) on to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
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
            if isinstance(handler.formatter, _Formatter):
                handler.setFormatter(_Formatter(iso8601=settings.iso8601))
                for old in [each for each in handler.filters if isinstance(each, _Wanted)]:
                    handler.removeFilter(old)
                handler.addFilter(_Wanted(settings))
