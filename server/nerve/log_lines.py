"""What a line of the log looks like: for people, or a JSON object."""

from __future__ import annotations

import logging
import re
import time
from typing import Final

import orjson

from nerve.exchange import current

LONGEST: Final = 8192
"""Characters of a message or a field; more are cut off."""
LONGEST_TRACEBACK: Final = 32768
"""Characters of an exception in JSON; the first ones are cut off."""
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LINE: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BREAKING: Final = re.compile(r"[\x7f-\x9f\u2028\u2029]")
_IDENTITY: Final = ("request_id", "trace_id", "span_id")
_SMALL: Final = 2**53
"""Whole numbers up to this are the same in every reader of JSON."""


def one_line(text: str) -> str:
    """With control characters escaped: what others wrote must not look like lines of ours. Pure."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _cut(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else text[:longest] + "…"


def _extra(record: logging.LogRecord) -> dict[str, object]:
    """What was logged besides the message; and of the request that is worked on, what it is."""
    told = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    if "request_id" not in told and (exchange := current()) is not None:
        told["request_id"] = exchange.request_id
        if exchange.traceparent:
            told["trace_id"] = exchange.traceparent[3:35]
            told["span_id"] = exchange.traceparent[36:52]
    return told


class ConsoleLines(logging.Formatter):
    """One line an event, extra fields as key=value; a traceback keeps its lines."""

    def __init__(self, *, iso8601: bool = False) -> None:
        """Time as 2026-05-04T03:02:01.123Z, or in local time, as Python's logging has it."""
        super().__init__(_LINE)
        self._iso8601 = iso8601

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        text = super().format(record)
        told = _extra(record).items()
        return text + "".join(f" {key}={one_line(_cut(str(value)))}" for key, value in told)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """All but the traceback and the fields."""
        return one_line(_cut(super().formatMessage(record)))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  logging's name
        """When it happened."""
        return utc(record) if self._iso8601 else super().formatTime(record, datefmt)


class JsonLines(logging.Formatter):
    """One JSON object an event: time (RFC 3339, UTC), level, logger, message, then extra fields,
    exception at last."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told: dict[str, object] = {
            "time": utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _text(_cut(record.getMessage())),
        }
        for key, value in _extra(record).items():
            told.setdefault(_text(key), _plain(value))
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            # The end tells what it was.
            told.setdefault("exception", _text(record.exc_text[-LONGEST_TRACEBACK:]))
        if record.stack_info:
            told.setdefault("stack", _text(_cut(record.stack_info)))
        line = orjson.dumps(told).decode()
        return _BREAKING.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def _text(text: str) -> str:
    """Without lone surrogates, which are no text."""
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(value: object) -> object:
    """A value that JSON has."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) <= _SMALL:
        return int(value)
    return _text(_cut(str(value)))


def utc(record: logging.LogRecord) -> str:
    """When it happened, as 2026-05-04T03:02:01.123Z."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"
