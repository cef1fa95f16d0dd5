"""What clients may change of the process, what they are refused, and how both transports say it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict

from controlled import controlled
from model_folders import write_model
from nerve._proto.inference import inference_pb2 as pb
from nerve.errors import InvalidField, ModelNotFound, Unsupported
from nerve.frontend.v2.settings import (
    Settings,
    logging_message,
    refuse_shared_memory,
    shared_memory_status,
    trace_message,
)
from nerve.logs import Logs, set_up

LOGGING = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
TRACE = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    """Of a server with one model, `a`, which logs from info on."""
    write_model(tmp_path / "a", v1="x")
    async with controlled(tmp_path, load_model=["*"]) as made:
        yield Settings(Logs("info"), made.control, changes_logs=True)


async def test_log_settings_are_changed_in_part(settings: Settings) -> None:
    """The whole is told each time."""
    assert settings.logging() == LOGGING
    changed = {"log_info": False, "log_verbose_level": 3, "log_format": "ISO8601"}
    assert settings.change_logging(changed) == {**LOGGING, **changed}
    assert settings.logging() == {**LOGGING, **changed}
    assert settings.change_logging({"log_info": True})["log_verbose_level"] == 3
    assert settings.change_logging(LOGGING) == LOGGING  # a whole one that was read before


async def test_log_settings_have_an_effect(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the lines themselves."""
    set_up("info")
    settings.change_logging({"log_info": False, "log_verbose_level": 1})
    capsys.readouterr()
    for level in ("debug", "info", "warning"):
        getattr(logging.getLogger("nerve.test"), level)("a line of %s", level)
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["debug", "warning"]


async def test_a_change_is_logged(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Once; nothing is said of what stays as it is."""
    settings.change_logging({"log_format": "ISO8601"})
    settings.change_logging({"log_format": "ISO8601"})
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert "iso8601=True" in caplog.text


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({"log_inf": True}, "log_inf: unknown log setting; known: log_file, log_info"),
        ({"log_info": 1}, "log_info: expected a boolean, got a number"),
        ({"log_error": None}, "log_error: expected a boolean, got null"),
        ({"log_warning": "true"}, "log_warning: expected a boolean, got a string"),
        ({"log_verbose_level": True}, "log_verbose_level: expected a whole number, got a boolean"),
        ({"log_verbose_level": "1"}, "log_verbose_level: expected a whole number, got a string"),
        ({"log_verbose_level": 1.0}, "log_verbose_level: expected a whole number, got a number"),
        ({"log_verbose_level": -1}, "log_verbose_level: expected 0 to 4294967295, got -1"),
        ({"log_verbose_level": 2**32}, "log_verbose_level: expected 0 to 4294967295, got 4294967"),
        ({"log_format": "iso8601"}, "log_format: expected default or ISO8601, got 'iso8601'"),
        ({"log_format": []}, "log_format: expected a string, got a list"),
        ({"log_file": 7}, "log_file: expected a string, got a number"),
    ],
)
async def test_wrong_log_settings_change_nothing(
    settings: Settings, asked: dict[str, object], fault: str
) -> None:
    """Nor does what is right beside them."""
    with pytest.raises(InvalidField) as caught:
        settings.change_logging({"log_info": False, **asked})
    assert str(caught.value).startswith(fault)
    assert settings.logging() == LOGGING


async def test_the_log_file_cannot_be_chosen(settings: Settings) -> None:
    with pytest.raises(Unsupported, match="log_file is not supported: lines go to stderr"):
        settings.change_logging({"log_info": False, "log_file": "/tmp/x"})
    assert settings.logging() == LOGGING


@pytest.mark.parametrize(
    ("share", "level", "rate", "mode"),
    [
        (1.0, "TIMESTAMPS", "1", "opentelemetry"),
        (0.01, "TIMESTAMPS", "100", "opentelemetry"),
        (0.0, "OFF", "1000", "triton"),
    ],
)
async def test_trace_settings_tell_of_tracing(
    settings: Settings, share: float, level: str, rate: str, mode: str
) -> None:
    """One request in `trace_rate` is traced; no client changes that."""
    traced = Settings(Logs("info"), settings._control, traced=lambda: share)
    told = {**TRACE, "trace_level": [level], "trace_rate": rate, "trace_mode": mode}
    assert traced.trace("a") == told
    assert traced.change_trace({**told}) == told
    with pytest.raises(Unsupported, match="tracing is set where the server is started"):
        traced.change_trace({"trace_rate": "7"})


@pytest.mark.parametrize("model", ["", "a", "a.raw"])
async def test_trace_settings_are_the_defaults(settings: Settings, model: str) -> None:
    """To ask for them is fine, in all the ways that clients have; unknown names mean nothing."""
    assert settings.trace(model) == TRACE
    fine: list[dict[str, object]] = [
        {},
        {**TRACE},
        {"trace_level": "OFF", "trace_rate": ["1000"]},
        {"trace_rate": 1000, "trace_count": -1, "log_frequency": 0},
        {"trace_level": None, "trace_rate": [], "trace_file": None},
        {"trace_of_something": "else"},
    ]
    for asked in fine:
        assert settings.change_trace(asked, model) == TRACE


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"trace_level": ["TIMESTAMPS"]}, "trace_level TIMESTAMPS is not supported"),
        ({"trace_level": "TENSORS"}, "trace_level TENSORS is not"),
        ({"trace_level": ["OFF", "TIMESTAMPS"]}, "trace_level OFF, TIMESTAMPS is not"),
        ({"trace_rate": "1"}, "trace_rate 1 is not"),
        ({"trace_count": 5}, "trace_count 5 is not"),
        ({"trace_file": "/tmp/t.json"}, "trace_file /tmp/t.json is not"),
        ({"trace_mode": "opentelemetry"}, "trace_mode opentelemetry is not"),
    ],
)
async def test_tracing_is_refused(settings: Settings, asked: dict[str, object], text: str) -> None:
    with pytest.raises(Unsupported, match=text):
        settings.change_trace(asked)


@pytest.mark.parametrize("value", [True, {}, 1.5, [None], [["OFF"]]])
async def test_wrong_trace_settings(settings: Settings, value: object) -> None:
    with pytest.raises(InvalidField, match="trace_level: expected text or a list of texts"):
        settings.change_trace({"trace_level": value})


async def test_trace_settings_of_no_model(settings: Settings) -> None:
    for call in (settings.trace, lambda name: settings.change_trace({}, name)):
        with pytest.raises(ModelNotFound):
            call("b")


async def test_there_is_no_shared_memory() -> None:
    assert shared_memory_status() == []
    with pytest.raises(Unsupported, match="CUDA shared memory is not supported"):
        refuse_shared_memory("CUDA")


async def test_the_messages(settings: Settings) -> None:
    """Each value is in the field of its type; over gRPC all trace settings are lists."""
    logs = ParseDict(logging_message(settings.logging()), pb.LogSettingsResponse()).settings
    assert {
        name: getattr(each, str(each.WhichOneof("parameter_choice"))) for name, each in logs.items()
    } == LOGGING
    kinds = {name: each.WhichOneof("parameter_choice") for name, each in logs.items()}
    assert kinds["log_info"] == "bool_param"
    assert kinds["log_verbose_level"] == "uint32_param"
    traces = ParseDict(trace_message(settings.trace()), pb.TraceSettingResponse()).settings
    assert {name: list(each.value) for name, each in traces.items()} == {
        name: each if isinstance(each, list) else [each] for name, each in TRACE.items()
    }
