"""What clients/python decides without a socket: pauses, parts, isolation, addresses, values."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nerve_client import (
    Answer,
    AsyncClient,
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    Entity,
    InvalidRequest,
    ItemError,
    ModelNotFound,
    NerveError,
    Overloaded,
    Retry,
    ServerError,
    Unavailable,
    Unsupported,
)
from nerve_client.address import parse
from nerve_client.bulk import Outcome, batches, isolate
from nerve_client.errors import of_code, of_status
from nerve_client.http_wire import Reply, error_of, retry_after_s
from nerve_client.requests import Packer
from nerve_client.retry import Tries


@pytest.mark.parametrize("url", ["https://h", "grpcs://h"])
def test_files_for_tls(url: str, tmp_path: Path) -> None:
    """What cannot be used is told when the client is made, by setting and file."""
    empty = tmp_path / "empty.pem"
    empty.touch()
    for files, said in (
        ({"ca_file": "nope.pem"}, "ca_file: nope.pem cannot be read: No such file"),
        ({"ca_file": empty}, "ca_file: .*empty.pem holds no certificate"),
        ({"cert_file": "nope.pem"}, "cert_file: nope.pem cannot be read"),
        ({"cert_file": empty, "key_file": "nope.pem"}, "key_file: nope.pem cannot be read"),
        ({"cert_file": empty}, "cert_file: .* no certificate and key"),
        ({"key_file": empty}, "key_file is nothing without cert_file"),
    ):
        for kind in (Client, AsyncClient):
            with pytest.raises(ValueError, match=said):
                kind(url, **files)


@given(
    failed=st.integers(1, 2000),
    advice=st.none() | st.floats(0, 60),
    draw=st.floats(0, 1),
)
def test_a_pause_is_within_its_bounds(failed: int, advice: float | None, draw: float) -> None:
    policy = Retry(attempts=2001, first_s=0.1, longest_s=5)
    pause = policy.pause_s(failed, advice, draw=draw)
    assert pause is not None
    least = advice or 0.0
    assert least <= pause <= least + min(5, 0.1 * 2 ** min(failed - 1, 20)) + 1e-9
    assert policy.pause_s(2001, advice, draw=draw) is None


def test_tries_end_with_their_time() -> None:
    now = 100.0
    tries = Tries(Retry(), deadline=103.0, random=lambda: 1.0, clock=lambda: now)
    assert tries.left_s() == 3.0
    assert tries.pause_s(Unavailable("busy", retry_after_s=1)) == pytest.approx(1.1)
    late = Overloaded("busy", retry_after_s=2.9)
    with pytest.raises(Overloaded) as raised:
        tries.pause_s(late)
    assert raised.value is late
    now = 103.0
    with pytest.raises(DeadlineExceeded):
        tries.left_s()


@given(
    sizes=st.lists(st.integers(0, 12), max_size=40),
    most=st.integers(1, 7),
    most_bytes=st.integers(1, 20),
)
def test_parts_hold_all_texts_within_the_limits(
    sizes: list[int], most: int, most_bytes: int
) -> None:
    packer = Packer(most, most_bytes)
    texts = ["é" * size for size in sizes]
    parts = [part for text in texts if (part := packer.add(text))]
    parts += [rest] if (rest := packer.rest()) else []
    assert [text for part in parts for text in part] == texts
    for part in parts:
        assert len(part) <= most
        assert len(part) == 1 or sum(len(text.encode()) for text in part) <= most_bytes


@given(bad=st.lists(st.booleans(), min_size=1, max_size=33))
def test_isolation_finds_just_what_is_bad(bad: list[bool]) -> None:
    texts = [f"{'bad' if each else 'good'} {index}" for index, each in enumerate(bad)]
    steps = isolate(texts)
    asked = next(steps)
    said: list[Outcome] | NerveError
    sent = 0
    try:
        while True:
            sent += 1
            if any(text.startswith("bad") for text in asked):
                said = InvalidRequest("no")
            else:
                said = [[Entity(text, "X", 0, 1, 1.0)] for text in asked]
            asked = steps.send(said)
    except StopIteration as end:
        outcomes = end.value
    for text, each, outcome in zip(texts, bad, outcomes, strict=True):
        assert isinstance(outcome, InvalidRequest) if each else outcome[0].text == text
    assert sent <= 1 + 2 * sum(bad) * len(texts).bit_length()


def test_what_is_everyones_fault_is_not_isolated() -> None:
    steps = isolate(["a", "b"])
    next(steps)
    with pytest.raises(ModelNotFound):
        steps.send(ModelNotFound("gone"))
    steps = isolate(["a", "b"])
    next(steps)
    late = DeadlineExceeded("late")
    with pytest.raises(StopIteration) as end:
        steps.send(late)
    assert end.value.value == [late, late]


@given(texts=st.lists(st.sampled_from(["", "a", "\ud800"]), max_size=30), size=st.integers(1, 8))
def test_batches_keep_places(texts: list[str], size: int) -> None:
    places: list[tuple[int, str]] = []
    for batch in batches(texts, size):
        assert 1 <= len(batch) <= size
        outcomes: list[Outcome] = [[Entity(text, "X", 0, 1, 1.0)] for text in batch.texts]
        for position, result in enumerate(batch.results(outcomes, "return")):
            places.append((batch.first + position, "" if isinstance(result, ItemError) else "a"))
    assert places == [(index, "a" if text == "a" else "") for index, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("url", "target", "tls"),
    [
        ("http://h:1/a", "", False),
        ("https://h", "", True),
        ("grpc://h", "h:50051", False),
        ("grpc://[::1]:7", "[::1]:7", False),
        ("grpcs://h.example:443/", "h.example:443", True),
    ],
)
def test_addresses(url: str, target: str, tls: bool) -> None:
    address = parse(url)
    assert (address.target, address.tls) == (target, tls)
    assert address.url == ("" if target else url)


@pytest.mark.parametrize("url", ["h:8080", "ftp://h", "http://", "grpc://h/a", "grpc://u@h"])
def test_wrong_addresses(url: str) -> None:
    with pytest.raises(ValueError, match=r"grpc|gRPC"):
        parse(url)


@pytest.mark.parametrize("scheme", ["http", "https", "grpc", "grpcs"])
@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "http"])
def test_ports_that_there_are_not(scheme: str, port: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="the port of an address must be 1 to 65535"):
            kind(f"{scheme}://localhost:{port}")


def test_addresses_in_messages() -> None:
    assert parse("http://user:secret@h:1/a/?b=c").shown == "http://h:1/a"
    assert parse("https://[::1]:7/").shown == "https://[::1]:7"


def test_settings_are_checked() -> None:
    wrong: list[tuple[str, Any, type[Exception]]] = [
        ("timeout_s", "5", TypeError), ("timeout_s", 0, ValueError),
        ("timeout_s", math.inf, ValueError), ("timeout_s", math.nan, ValueError),
        ("max_texts", 1.5, TypeError), ("max_texts", 0, ValueError),
        ("url", None, TypeError), ("url", "", ValueError),
    ]  # fmt: skip
    for kind in (Client, AsyncClient):
        for name, value, error in wrong:
            with pytest.raises(error, match=name):
                kind(**{name: value})
    policy: list[tuple[str, Any, type[Exception]]] = [
        ("attempts", 0, ValueError), ("attempts", "3", TypeError), ("attempts", 1.5, TypeError),
        ("first_s", -1, ValueError), ("factor", math.nan, ValueError),
        ("longest_s", "5", TypeError), ("longest_retry_after_s", None, TypeError),
    ]  # fmt: skip
    for name, value, error in policy:
        with pytest.raises(error, match=name):
            Retry(**{name: value})


def test_errors_of_statuses() -> None:
    assert type(of_status(503, "x", reason="queue_full")) is Overloaded
    assert type(of_status(418, "x")) is InvalidRequest
    assert type(of_status(302, "x")) is ServerError
    assert type(of_code("UNAVAILABLE", "no route")) is ConnectionFailed
    assert type(of_code("UNAVAILABLE", "x", retry_after_s=1)) is Unavailable
    assert type(of_code("RESOURCE_EXHAUSTED", "x")) is Overloaded
    large = of_code("RESOURCE_EXHAUSTED", "CLIENT: Sent message larger than max (9 vs. 4)")
    assert type(large) is InvalidRequest
    assert type(of_code("DATA_LOSS", "x")) is ServerError


def test_errors_in_every_shape() -> None:
    """JSON of two kinds, text, a page of something before the server, nothing."""

    def told(body: bytes, kind: str, **headers: str) -> tuple[str, str]:
        error = error_of(Reply(503, {"content-type": kind, **headers}, body), "/predict")
        return error.message, error.reason

    assert told(b'{"error": "e", "reason": "r"}', "application/json") == ("e", "r")
    assert told(b'{"error": "e", "error_type": "t"}', "application/json")[0] == "e"
    assert told(b"busy", "text/plain; charset=utf-8")[0] == "busy"
    assert told(b"<p>Bad</p>", "text/html")[0] == "HTTP 503 from /predict"
    assert told(b"\xff", "")[0] == "HTTP 503 from /predict"
    assert told(b"[1]", "application/json")[0] == "HTTP 503 from /predict"
    headers = {"x-nerve-reason": "queue_full"}
    assert told(b"busy", "text/plain", **headers) == ("busy", "queue_full")


def test_what_is_not_there() -> None:
    """The URL, whoever says so; or a model."""

    def told(body: bytes, **headers: str) -> tuple[type[NerveError], str]:
        error = error_of(Reply(404, headers, body), "http://h/a/predict")
        return type(error), error.message

    nothing = (Unsupported, "nothing is served at http://h/a/predict")
    assert told(b"") == told(b"<p>Not found</p>") == nothing
    assert told(b'{"error": "no route", "reason": "not_found"}') == nothing
    assert told(b"", **{"x-nerve-reason": "not_served"}) == nothing
    for reason in ("model_not_found", "version_not_found"):
        headers = {"x-nerve-reason": reason, "content-type": "text/plain"}
        assert told(b"no such", **headers) == (ModelNotFound, "no such")


def test_retry_after() -> None:
    assert retry_after_s("3", 0) == 3
    assert retry_after_s("-3", 0) == 0
    assert retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 20) == 40
    for nonsense in ("", "soon", "nan", "inf"):
        assert retry_after_s(nonsense, 0) is None


def test_values_can_be_copied_and_pickled() -> None:
    answer = Answer([Entity("Ada", "PER", 0, 3, 0.5)], model="m", version="1", truncated_texts=2)
    for other in (copy.copy(answer), pickle.loads(pickle.dumps(answer))):
        assert other == answer
        assert (other.model, other.version, other.truncated_texts) == ("m", "1", 2)
    error = pickle.loads(pickle.dumps(ItemError(3, Overloaded("busy", retry_after_s=1))))
    assert (error.index, error.retry_after_s, type(error.error)) == (3, 1, Overloaded)
