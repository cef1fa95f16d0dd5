"""What is logged and how, at the start and after a change."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nerve.exchange import Exchange, Exchanges
from nerve.log_lines import LONGEST, LONGEST_TRACEBACK, JsonLines
from nerve.logs import ALIKE, ALIKE_S, JSON, Alike, Background, Logs, LogSettings, set_up

LEVELS = ("debug", "info", "warning", "error", "critical")


def logged(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that come of one line of each level."""
    capsys.readouterr()
    for level in LEVELS:
        getattr(logging.getLogger("nerve.test"), level)("it is %s", level, extra={"model": "ner"})
    return capsys.readouterr().err.splitlines()


def levels(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.split(" it is ")[1].split()[0] for line in logged(capsys)]


@pytest.fixture(autouse=True)
def _no_filter_is_left() -> Iterator[None]:
    yield
    assert not logging.getLogger().filters


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_logged_at_the_start(capsys: pytest.CaptureFixture[str], level: str) -> None:
    """To take the same settings once more changes nothing."""
    set_up(level)
    wanted = list(LEVELS[LEVELS.index(level) :])
    assert levels(capsys) == wanted
    if level != "critical":  # which the protocol's settings cannot say
        logs = Logs(level)
        logs.change(logs.settings)
        assert levels(capsys) == wanted


def test_each_severity_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info")
    logs = Logs("info")
    for settings, wanted in [
        (LogSettings(info=False), ["warning", "error", "critical"]),
        (LogSettings(warning=False), ["info", "error", "critical"]),
        (LogSettings(error=False), ["info", "warning"]),
        (LogSettings(info=False, verbose_level=2), ["debug", "warning", "error", "critical"]),
        (LogSettings(info=False, warning=False, error=False), []),
        (LogSettings(), ["info", "warning", "error", "critical"]),
    ]:
        logs.change(settings)
        assert logs.settings == settings
        assert levels(capsys) == wanted
    (handler,) = [each for each in logging.getLogger().handlers if each.filters]
    assert [type(each).__name__ for each in handler.filters] == ["Alike", "_Wanted"]


def test_how_the_time_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    """The rest of the line stays as it is."""
    set_up("info")
    logs = Logs("info")
    rest = r" INFO    nerve\.test: it is info model=ner"
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}}{rest}", logged(capsys)[0])
    logs.change(LogSettings(iso8601=True))
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z{rest}", logged(capsys)[0])
    logs.change(LogSettings())
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:", logged(capsys)[0])


def test_the_time_is_that_of_the_event(capsys: pytest.CaptureFixture[str]) -> None:
    """In UTC."""
    set_up("info")
    Logs("info").change(LogSettings(iso8601=True))
    (handler,) = [each for each in logging.getLogger().handlers if each.filters]
    record = logging.makeLogRecord({"msg": "x", "levelname": "INFO", "name": "n"})
    record.created, record.msecs = 86_399.25, 250.0
    assert handler.format(record) == "1970-01-01T23:59:59.250Z INFO    n: x"


def test_handlers_of_others_are_left_alone() -> None:
    """A program that hosts the server has its own; the level is all that changes."""
    root, own = logging.getLogger(), logging.NullHandler()
    root.addHandler(own)
    before = own.formatter
    Logs("info").change(LogSettings(info=False, iso8601=True))
    assert (own.formatter, own.filters) == (before, [])
    assert root.level == logging.WARNING


def test_what_others_wrote_does_not_look_like_lines_of_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up("info")
    forged = "boom\n2026-01-01 INFO nerve: all is well\x1b[31m\r\u2028"
    logging.getLogger("nerve.test").error("it failed: %s", forged, extra={"model": "a\nb"})
    (line,) = capsys.readouterr().err.splitlines()
    written = r"boom\n2026-01-01 INFO nerve: all is well\x1b[31m\r\u2028 model=a\nb"
    assert line.endswith(f"it failed: {written}")


def test_a_traceback_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info")
    try:
        int("x")
    except ValueError:
        logging.getLogger("nerve.test").exception("it failed")
    assert len(capsys.readouterr().err.splitlines()) > 2


def test_too_many_lines_that_are_alike() -> None:
    """Of each kind so many are written in a while; the next one tells how many were not."""
    now = 100.0
    alike = Alike(lambda: now)

    def record(
        level: int = logging.ERROR, text: str = "it failed: %s", name: str = "nerve.frontend.http"
    ) -> logging.LogRecord:
        return logging.LogRecord(name, level, "", 0, text, ("x",), None)

    assert [alike.filter(record()) for _ in range(ALIKE + 7)] == [True] * ALIKE + [False] * 7
    assert alike.filter(record(text="something else: %s"))
    assert all(alike.filter(record(logging.INFO)) for _ in range(2 * ALIKE))
    assert all(alike.filter(record(name="nerve.repository")) for _ in range(2 * ALIKE))
    now += ALIKE_S
    later = record()
    assert alike.filter(later)
    assert vars(later)["alike_left_out"] == 7
    assert alike.filter(again := record())
    assert "alike_left_out" not in vars(again)


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """The lines that were written, each of which must be one JSON object."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info", form=JSON)
    logging.getLogger("nerve.test").info("it is %s", "so", extra={"model": "ner", "rows": 3})
    (told,) = objects(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(told.pop("time")))
    assert told == {
        "level": "info",
        "logger": "nerve.test",
        "message": "it is so",
        "model": "ner",
        "rows": 3,
    }


HOSTILE = [
    "a\nb\r\x00\x1b[31m",
    "\x7f\x85\x9f\u2028\u2029",
    "\ud800 alone",
    "x" * 1_000_000,
    "😀" * 100_000,
    2**70,
    -(2**63),
    float("nan"),
    {"a": object},
    b"\xff\x00",
    None,
    True,
]
"""What somebody else may have written, as message, field or name."""


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("form", ["console", "json"])
def test_whatever_is_logged_is_one_bounded_line(
    capsys: pytest.CaptureFixture[str], form: str, value: object
) -> None:
    set_up("info", form=form)
    logging.getLogger("nerve.test").info("it is %s", value, extra={"field": value})
    written = capsys.readouterr().err
    (line,) = written.splitlines()
    assert len(line) < 3 * 6 * LONGEST
    if form == "json":
        told = json.loads(line)
        assert told["message"].startswith("it is ")
        assert "field" in told


def test_what_a_json_line_is_of_cannot_be_forged(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info", form=JSON)
    forged = {"time": "never", "level": "debug", "logger": "x", "\ud800": 1}
    logging.getLogger("nerve.test").info("it is", extra=forged)
    (told,) = objects(capsys)
    assert (told["level"], told["logger"], told[r"\ud800"]) == ("info", "nerve.test", 1)
    assert told["time"] != "never"


def test_an_exception_is_a_field_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a long one the end, which tells what it was."""
    set_up("info", form=JSON)
    for text in ("x", "y\n" * 100_000 + "the end"):
        try:
            raise ValueError(text)  # noqa: TRY301
        except ValueError:
            logging.getLogger("nerve.test").exception("it failed")
    short, long = objects(capsys)
    assert str(short["exception"]).startswith("Traceback (most recent call last):\n")
    assert str(short["exception"]).endswith("ValueError: x")
    assert str(long["exception"]).endswith("the end")
    assert len(str(long["exception"])) == LONGEST_TRACEBACK


@pytest.mark.parametrize("form", ["console", "json"])
def test_lines_tell_whose_request_they_are_about(
    capsys: pytest.CaptureFixture[str], form: str
) -> None:
    set_up("info", form=form)
    exchange = Exchange("http", "native", "GET", "/", request_id="mine")
    with Exchanges().open(exchange, {}):
        logging.getLogger("nerve.test").info("inside")
        exchange.traceparent = f"00-{'1' * 32}-{'2' * 16}-01"
        logging.getLogger("nerve.test").info("traced")
        logging.getLogger("nerve.test").info("its own", extra={"request_id": "other"})
    logging.getLogger("nerve.test").info("outside")
    lines = capsys.readouterr().err.splitlines()
    told = [
        [field in line for field in ("mine", "1" * 32, "2" * 16, "other", "request_id")]
        for line in lines
    ]
    assert told == [
        [True, False, False, False, True],
        [True, True, True, False, True],
        [False, False, False, True, True],
        [False] * 5,
    ]


def test_v2s_settings_leave_json_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info", form=JSON)
    logs = Logs("info")
    for iso8601 in (True, False):
        logs.change(LogSettings(info=False, iso8601=iso8601))
        for level in LEVELS:
            getattr(logging.getLogger("nerve.test"), level)("it is %s", level)
        assert [each["level"] for each in objects(capsys)] == ["warning", "error", "critical"]


def said(handler: Background, text: str, level: int = logging.INFO) -> None:
    handler.handle(logging.LogRecord("nerve.test", level, "", 0, text, (), None))


def test_nobody_waits_for_whoever_reads_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a pipe that is full lines are left out, which a later one tells; those that were taken come
    in order, and the process ends in time."""
    monkeypatch.setattr("nerve.logs.MAX_WAITING", 200_000)
    monkeypatch.setattr("nerve.logs.LAST_S", 0.05)
    read, write = os.pipe()
    handler, lines = Background(write), 10_000
    handler.setFormatter(JsonLines())
    began = time.monotonic()
    for number in range(lines):
        said(handler, f"line {number}")
    handler.flush()
    assert time.monotonic() - began < 30  # of for ever
    kept: list[int] = []
    left_out = 0
    with os.fdopen(read) as reader:
        while len(kept) + left_out < lines:
            told = json.loads(reader.readline())["message"]
            if told.startswith("line "):
                kept.append(int(told.removeprefix("line ")))
            else:
                left_out += int(told.split(" lines were left out")[0])
        said(handler, "after that")
        assert json.loads(reader.readline())["message"] == "after that"
    assert left_out > 0
    assert kept == sorted(kept)
    said(handler, "which nobody reads any more")
    handler.flush()
    os.close(write)


def test_a_line_in_the_background_is_of_the_request_that_it_was_logged_in(tmp_path: Path) -> None:
    """And is there after a flush."""
    with (tmp_path / "log").open("wb") as file:
        handler = Background(file.fileno())
        handler.setFormatter(JsonLines())
        with Exchanges().open(Exchange("http", "native", "GET", "/", request_id="mine"), {}):
            said(handler, "inside \ud800")
        said(handler, "outside")
        handler.flush()
    lines = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert [line.get("request_id") for line in lines] == ["mine", None]
