"""Where traces are sent, by whom, and what is told if they cannot be."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from nerve.config.settings.observing import ObserveSettings
from nerve.errors import SetupError
from nerve.tracing.export import (
    MAX_COMPLAINTS,
    QUIET_S,
    Complaints,
    collector_url,
    new_exporter,
    new_provider,
    protocol_of,
    share_of,
    traces_url,
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROTOCOL", "TRACES_PROTOCOL", "ENDPOINT", "TRACES_ENDPOINT"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        (None, "grpc"),
        ("http://a:4317", "grpc"),
        ("https://a:4317/", "grpc"),
        ("http://a", "grpc"),
        ("http://a:4318", "http/protobuf"),
        ("https://a/v1/traces", "http/protobuf"),
    ],
)
def test_a_url_tells_its_protocol(url: str | None, protocol: str) -> None:
    assert protocol_of(ObserveSettings(otel_exporter_url=url)) == protocol


def test_who_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting, the variable for traces, that for all, the URL."""
    http = ObserveSettings(otel_exporter_url="http://a:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert protocol_of(http) == "grpc"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    assert protocol_of(ObserveSettings()) == "http/protobuf"
    assert protocol_of(ObserveSettings(otel_exporter_protocol="grpc")) == "grpc"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")
    with pytest.raises(SetupError, match="TRACES_PROTOCOL: expected grpc or http/protobuf, got"):
        protocol_of(ObserveSettings())


@pytest.mark.parametrize(
    ("url", "posted"),
    [
        ("http://a:4318", "http://a:4318/v1/traces"),
        ("http://a:4318/", "http://a:4318/v1/traces"),
        ("https://a/otlp/v1/traces?x=1", "https://a/otlp/v1/traces?x=1"),
    ],
)
def test_a_url_without_a_path_gets_the_specifications(url: str, posted: str) -> None:
    assert traces_url(url) == posted


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (ObserveSettings(), "nerve"),
        (ObserveSettings(otel_service_name="tagger"), "tagger"),
    ],
)
def test_the_services_name(
    settings: ObserveSettings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting wins over the variable, which wins over ours."""

    def named() -> object:
        provider, _ = new_provider(settings, exporter := new_exporter(settings))
        try:
            return provider.resource.attributes["service.name"]
        finally:
            provider.shutdown()
            exporter.shutdown()

    assert named() == name
    monkeypatch.setenv("OTEL_SERVICE_NAME", "theirs")
    assert named() == (settings.otel_service_name or "theirs")


def test_a_variable_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    with pytest.raises(
        SetupError, match=r"traces cannot be sent: OTEL_EXPORTER_OTLP_TIMEOUT: .*soon"
    ):
        new_exporter(ObserveSettings())
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TIMEOUT")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    exporter = new_exporter(ObserveSettings())
    with pytest.raises(SetupError, match="OTEL_BSP_"):
        new_provider(ObserveSettings(), exporter)
    exporter.shutdown()


@pytest.mark.parametrize(
    ("ratio", "variable", "share"),
    [
        (None, "", 1.0),
        (0.25, "always_off", 0.25),
        (None, "always_off", 0.0),
        (None, "parentbased_always_on", 1.0),
        (None, "parentbased_traceidratio", 0.125),
        (None, "traceidratio", 0.125),
    ],
)
def test_the_share_that_is_traced_is_known(
    monkeypatch: pytest.MonkeyPatch, ratio: float | None, variable: str, share: float
) -> None:
    """By the setting, else by the variables."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", variable)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.125")
    settings = ObserveSettings(otel_sample_ratio=ratio)
    provider, _ = new_provider(settings, exporter := new_exporter(settings))
    try:
        assert share_of(provider) == share
    finally:
        provider.shutdown()
        exporter.shutdown()


@contextmanager
def complaining(
    clock: Callable[[], float] = time.monotonic, url: str = ""
) -> Iterator[logging.Logger]:
    """A logger of the SDK's. Within a test: pytest looks who propagates when it begins."""
    complaints = Complaints(clock, url=url)
    complaints.begin()
    try:
        yield logging.getLogger("opentelemetry.sdk.anything")
    finally:
        complaints.end()


def test_the_sdk_complains_in_our_words(caplog: pytest.LogCaptureFixture) -> None:
    """One line of each kind in a while, without a traceback."""
    now = 100.0
    with complaining(lambda: now) as sdk:
        for number in range(5):
            sdk.error("it failed: %s", number, exc_info=ValueError("x"))
            sdk.info("nobody needs that")
        assert [each.getMessage() for each in caplog.records] == ["traces: it failed: 0"]
        (told,) = caplog.records
        assert (told.name, told.exc_info) == ("nerve.tracing.export", None)
        sdk.warning("something else")
        now += QUIET_S
        sdk.warning("it failed: %s", 7)
        assert [each.getMessage() for each in caplog.records[1:]] == [
            "traces: something else",
            "traces: it failed: 7",
        ]


def test_complaints_tell_of_which_collector(caplog: pytest.LogCaptureFixture) -> None:
    with complaining(url="http://a:4318/v1/traces") as sdk:
        sdk.error("code: 404")
    (told,) = caplog.records
    assert told.getMessage() == "traces to http://a:4318/v1/traces: code: 404"


def test_where_spans_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting, the variable for traces as it stands, that for all."""
    http = ObserveSettings(otel_exporter_protocol="http/protobuf")
    assert collector_url(http) == ""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:4318")
    assert collector_url(http) == "http://b:4318/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/x")
    assert collector_url(http) == "http://c/x"
    assert collector_url(ObserveSettings(otel_exporter_url="http://a:4317")) == "http://a:4317"


def test_complaints_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    with complaining() as sdk:
        for number in range(2 * MAX_COMPLAINTS):
            sdk.warning(f"of many kinds {number}")
    assert len(caplog.records) == MAX_COMPLAINTS


def test_the_sdk_is_left_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    with complaining():
        pass
    logging.getLogger("opentelemetry.sdk").warning("as it is")
    assert [each.name for each in caplog.records] == ["opentelemetry.sdk"]
