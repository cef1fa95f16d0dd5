"""Logging of the process: one line an event on stderr, extra fields as key=value; set up and changed."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LINE: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_NOTHING: Final = logging.CRITICAL + 1


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
        return text + "".join(f" {key}={value}" for key, value in extra.items())

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  logging's name
        if not self._iso8601:
            return super().formatTime(record, datefmt)
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{whole}.{int(record.msecs):03d}Z"


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
