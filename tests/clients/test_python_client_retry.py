"""clients/python against little servers that are busy, break, hang or lie; and nobody at all."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from nerve_client import (
    NO_RETRY,
    AccessDenied,
    ConnectionFailed,
    DeadlineExceeded,
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

from clients.python_support import (
    KINDS,
    PROTOCOLS,
    Caller,
    Fault,
    entity_of,
    little_server,
)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def protocol(kind: str) -> str:
    return kind.removesuffix("-async")


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port that is taken, but where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def first(count: int, fault: Fault) -> Any:
    """The first requests go wrong."""
    return lambda number, _texts: fault if number < count else None


BUSY = Fault(429, "RESOURCE_EXHAUSTED", "2", reason="queue_full")


@pytest.mark.parametrize("fault", [Fault(503, "UNAVAILABLE", "2"), BUSY], ids=["503", "429"])
def test_waits_as_told_and_tries_again(kind: str, fault: Fault) -> None:
    """The server's seconds, and a random part of 0.1 s, 0.2 s, … on top."""
    with little_server(protocol(kind), first(2, fault)) as (url, seen):
        client = Caller(kind, url)
        assert client.extract("Ada") == [entity_of("Ada")]
    assert client.slept == [pytest.approx(2.05), pytest.approx(2.1)]
    assert seen.texts == [["Ada"]] * 3


def test_gives_up_after_so_many_tries(kind: str) -> None:
    """Without the server's advice the pauses are half of 0.1, 0.2, 0.25 s: `longest_s`."""
    with little_server(protocol(kind), lambda *_: Fault(503, "UNAVAILABLE")) as (url, seen):
        client = Caller(kind, url, {"retry": Retry(attempts=4, longest_s=0.25)})
        with pytest.raises(Unavailable, match="in trouble") as raised:
            client.extract("Ada")
        once = Caller(kind, url, {"retry": NO_RETRY})
        with pytest.raises(Unavailable):
            once.extract("Ada")
    assert client.slept == pytest.approx([0.05, 0.1, 0.125])
    assert once.slept == []
    assert len(seen.texts) == 5
    assert raised.value.reason == "trouble"
    assert raised.value.status == 503 or raised.value.code == "UNAVAILABLE"


def test_never_waits_beyond_the_time_of_the_call(kind: str) -> None:
    with little_server(protocol(kind), lambda *_: BUSY) as (url, seen):
        client = Caller(kind, url)
        with pytest.raises(Overloaded) as raised:
            client.extract("Ada", timeout_s=1.5)
        patient = Caller(kind, url, {"retry": Retry(longest_retry_after_s=1)})
        with pytest.raises(Overloaded):
            patient.extract("Ada")
    assert client.slept == patient.slept == []
    assert len(seen.texts) == 2
    assert raised.value.retry_after_s == 2


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "INVALID_ARGUMENT", InvalidRequest),
        (403, "PERMISSION_DENIED", AccessDenied),
        (404, "NOT_FOUND", ModelNotFound),
        (413, "OUT_OF_RANGE", InvalidRequest),
        (422, "FAILED_PRECONDITION", InvalidRequest),
        (500, "INTERNAL", ServerError),
        (501, "UNIMPLEMENTED", Unsupported),
        (502, "UNKNOWN", ServerError),
        (504, "DEADLINE_EXCEEDED", DeadlineExceeded),
    ],
)
def test_other_errors_are_final(kind: str, status: int, code: str, error: type[NerveError]) -> None:
    with little_server(protocol(kind), lambda *_: Fault(status, code, "1")) as (url, seen):
        client = Caller(kind, url)
        with pytest.raises(error) as raised:
            client.extract("Ada")
    assert type(raised.value) is error
    assert raised.value.message == "in trouble"
    assert (raised.value.status, raised.value.code) in ((status, None), (None, code))
    assert len(seen.texts) == 1
    assert client.slept == []


@pytest.mark.parametrize("kind", ["http", "http-async"])
def test_a_broken_connection_names_the_server(kind: str) -> None:
    with little_server("http", lambda *_: Fault(drop=True)) as (url, _seen):
        client = Caller(kind, url.replace("://", "://user:secret@"), {"retry": NO_RETRY})
        with pytest.raises(ConnectionFailed) as raised:
            client.extract("Ada")
    assert raised.value.message.startswith(f"{url}: ")
    assert "secret" not in repr(raised.value)


def test_broken_connections(kind: str) -> None:
    fault = Fault(drop=True, code="UNAVAILABLE")
    with little_server(protocol(kind), first(1, fault)) as (url, seen):
        client = Caller(kind, url)
        assert client.extract("Ada") == [entity_of("Ada")]
    assert len(seen.texts) == 2
    assert client.slept == [pytest.approx(0.05)]


def test_nobody_there(kind: str, nobody: int) -> None:
    client = Caller(kind, f"{protocol(kind)}://127.0.0.1:{nobody}")
    with pytest.raises(ConnectionFailed) as raised:
        client.extract("Ada")
    assert raised.value.reason == "connection_failed"
    assert f"127.0.0.1:{nobody}" in raised.value.message
    assert len(client.slept) == 3
    assert client.ready() is False
    assert client.live() is False
    with pytest.raises(ConnectionFailed):
        client.many(["Ada"], on_error="return")


def test_an_answer_that_never_comes(kind: str) -> None:
    """Ends with the time of the call, in `extract` and for each item of `extract_many`."""
    end = threading.Event()

    def hang(_number: int, texts: Sequence[str]) -> None:
        if "Eve" in texts:
            assert end.wait(60)

    with little_server(protocol(kind), hang) as (url, _seen):
        client = Caller(kind, url)
        began = time.monotonic()
        try:
            with pytest.raises(DeadlineExceeded):
                client.extract("Eve", timeout_s=0.3)
            assert 0.25 < time.monotonic() - began < 20
            results = client.many(
                ["Ada", "Eve", "Bob"], batch_size=1, timeout_s=0.3, on_error="return"
            )
        finally:
            end.set()
    assert results[0] == [entity_of("Ada")]
    assert isinstance(results[1], ItemError)
    assert isinstance(results[1].error, DeadlineExceeded)
    assert results[2] == [entity_of("Bob")]


@pytest.mark.parametrize("kind", ["http", "http-async"])
def test_an_answer_that_trickles(kind: str) -> None:
    """Each byte comes in time, all of them do not."""
    end = threading.Event()

    def trickle(listening: socket.socket) -> None:
        with listening.accept()[0] as connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
            with contextlib.suppress(OSError):  # the client has gone
                while not end.wait(0.02):
                    connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=trickle, args=(listening,))
        thread.start()
        client = Caller(kind, f"http://127.0.0.1:{listening.getsockname()[1]}")
        began = time.monotonic()
        try:
            with pytest.raises(DeadlineExceeded):
                client.extract("Ada", timeout_s=0.3)
            assert time.monotonic() - began < 20
        finally:
            end.set()
            thread.join()


def test_what_is_sent_along(kind: str) -> None:
    """Time, priority, and headers of the client's."""
    with little_server(protocol(kind)) as (url, seen):
        client = Caller(kind, url, {"headers": {"X-Api-Key": "k"}})
        client.extract("Ada", model="a b", version=2, timeout_s=1.5, priority=3)
        client.many(["Ada"], priority=4)
    sent, streamed = seen.headers
    assert (sent["x-nerve-priority"], streamed["x-nerve-priority"]) == ("3", "4")
    assert (sent["x-api-key"], streamed["x-api-key"]) == ("k", "k")
    if protocol(kind) == "http":
        assert sent["path"] == "/v1/models/a%20b/versions/2/predict_tokens"
        assert 1000 < int(sent["request-timeout-ms"]) <= 1500
        assert sent["user-agent"].startswith("nerve-client")
    else:
        assert streamed["path"] == "stream"


@pytest.mark.parametrize("date", [True, False])
def test_retry_after_as_a_date_or_nonsense(date: bool) -> None:
    """Proxies send dates; what nobody can read is no advice."""
    text = formatdate(time.time() + 30, usegmt=True) if date else "soon"
    with little_server("http", first(1, Fault(503, retry_after=text))) as (url, _seen):
        client = Caller("http", url)
        assert client.extract("Ada")
    (pause,) = client.slept
    assert 20 < pause < 31 if date else pause == pytest.approx(0.05)


@pytest.mark.parametrize("kind", ["http", "http-async"])
def test_something_else_answers(kind: str) -> None:
    """Another server's page is no answer, and no crash."""
    fault = Fault(200)
    with little_server("http", lambda *_: fault) as (url, _seen):
        with pytest.raises(ServerError, match="does not speak") as raised:
            Caller(kind, url).extract("Ada")
        with pytest.raises(
            Unsupported, match=r"HTTP 501 from http://127.0.0.1:\d+/v1/models"
        ) as other:
            Caller(kind, url).models()
    assert raised.value.reason == "invalid_answer"
    assert other.value.status == 501


def test_reads_no_further_than_it_must(kind: str) -> None:
    """An endless iterable; nothing goes on running behind results that are not wanted."""
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        for taken in itertools.count(1):
            yield f"text {taken}"

    with little_server(protocol(kind)) as (url, _seen):
        results = Caller(kind, url).many(texts(), most=1001, batch_size=10, concurrency=3)
    assert results == [[entity_of(f"text {number}")] for number in range(1, 1002)]
    assert 1001 <= taken <= 1001 + 30
    assert not [each for each in threading.enumerate() if each.name.startswith("nerve-extract")]


def test_batches_go_side_by_side(kind: str) -> None:
    """The first answer comes only when the second batch has arrived; results are in order."""
    both = threading.Event()

    def wait(_number: int, texts: Sequence[str]) -> None:
        if "text 2" in texts:
            both.set()
        if "text 0" in texts and protocol(kind) == "http":
            assert both.wait(30)

    with little_server(protocol(kind), wait) as (url, _seen):
        texts = [f"text {number}" for number in range(8)]
        results = Caller(kind, url).many(texts, batch_size=2, concurrency=2)
    assert results == [[entity_of(text)] for text in texts]


@pytest.mark.parametrize("fault", [Fault(422, "INVALID_ARGUMENT"), Fault(500, "INTERNAL")],
                         ids=["refused", "failed"])  # fmt: skip
def test_a_bad_item_stands_alone(kind: str, fault: Fault) -> None:
    def bad(_number: int, texts: Sequence[str]) -> Fault | None:
        return fault if any("bad" in text for text in texts) else None

    texts = [f"text {number}" for number in range(64)]
    texts[5] = texts[6] = texts[40] = "bad"
    with little_server(protocol(kind), bad) as (url, seen):
        client = Caller(kind, url)
        results = client.many(iter(texts), batch_size=32, on_error="return")
    for index, (text, result) in enumerate(zip(texts, results, strict=True)):
        if text == "bad":
            assert isinstance(result, ItemError)
            assert (result.index, result.reason) == (index, "trouble")
            assert type(result.error) in (InvalidRequest, ServerError)
        else:
            assert result == [entity_of(text)]
    assert len(seen.texts) == (2 if protocol(kind) == "grpc" else 13 + 11)
    assert client.slept == []


def test_items_of_a_busy_server_are_asked_again(kind: str) -> None:
    refused: set[str] = set()

    def busy(_number: int, texts: Sequence[str]) -> Fault | None:
        hit = [text for text in texts if text.endswith("3") and text not in refused]
        if len(texts) == 1 or protocol(kind) == "http":
            refused.update(hit)
        return BUSY if hit else None

    texts = [f"text {number}" for number in range(20)]
    with little_server(protocol(kind), busy) as (url, _seen):
        client = Caller(kind, url)
        assert client.many(texts, batch_size=10) == [[entity_of(text)] for text in texts]
    assert client.slept == [pytest.approx(2.05)] * 2


@pytest.mark.parametrize("kind", ["grpc", "grpc-async"])
@pytest.mark.parametrize(
    "fault",
    [Fault(code="UNAVAILABLE", retry_after="1"), Fault(code="CANCELLED", drop=True)],
    ids=["drain", "break"],
)
def test_a_stream_that_breaks(kind: str, fault: Fault) -> None:
    """What had no answer is asked again, in order; then there is a new stream."""
    with little_server("grpc", lambda number, _: fault if number == 2 else None) as (url, seen):
        texts = [f"text {number}" for number in range(40)]
        client = Caller(kind, url)
        results = client.many(texts, batch_size=4, concurrency=3)
    assert results == [[entity_of(text)] for text in texts]
    paths = [headers["path"] for headers in seen.headers]
    assert paths.count("unary") >= 1
    assert paths[-1] == "stream"
    assert client.slept


@pytest.mark.parametrize("kind", ["grpc", "grpc-async"])
def test_a_text_that_no_message_holds(kind: str) -> None:
    """grpc's own limit, 4 MiB here, ends the stream; only the long text fails, at once."""
    huge = "x" * 6_000_000
    texts = ["Ada", huge, "Bob", "Eve"]
    with little_server("grpc") as (url, _seen):
        client = Caller(kind, url)
        with pytest.raises(InvalidRequest, match="larger than max"):
            client.extract(huge)
        assert client.slept == []
        results = client.many(texts, batch_size=3, on_error="return")
    assert isinstance(results[1], ItemError)
    assert isinstance(results[1].error, InvalidRequest)
    assert results[::2] == [[entity_of("Ada")], [entity_of("Bob")]]
    assert results[3] == [entity_of("Eve")]


def test_what_all_would_meet_is_raised(kind: str) -> None:
    """After what came before it, even with on_error="return"."""

    def gone(_number: int, texts: Sequence[str]) -> Fault | None:
        return Fault(404, "NOT_FOUND") if "text 9" in texts else None

    found: list[Any] = []
    texts = (f"text {number}" for number in range(100))
    with little_server(protocol(kind), gone) as (url, _seen), pytest.raises(ModelNotFound):
        Caller(kind, url).many_into(found, texts, batch_size=3, on_error="return")
    assert found == [[entity_of(f"text {number}")] for number in range(9)]


def test_an_iterable_that_fails(kind: str) -> None:
    """Its error comes in its place."""

    def texts() -> Iterator[str]:
        yield from ("Ada", "Bob", "Eve")
        raise OSError("no more")

    found: list[Any] = []
    with little_server(protocol(kind)) as (url, _seen), pytest.raises(OSError, match="no more"):
        Caller(kind, url).many_into(found, texts(), batch_size=2, concurrency=4)
    assert found == [[entity_of("Ada")], [entity_of("Bob")], [entity_of("Eve")]]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
@pytest.mark.parametrize("name", PROTOCOLS)
def test_tls(name: str, tmp_path: Path) -> None:
    """A certificate of one's own is trusted by name, and no other way."""
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subject = ["-subj", "/CN=nerve", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", chain, *subject], check=True, capture_output=True
    )
    with little_server(name, tls=(key, chain)) as (url, seen):
        for kind in (name, f"{name}-async"):
            assert Caller(kind, url, {"ca_file": chain}).extract("Ada") == [entity_of("Ada")]
            with pytest.raises(ConnectionFailed):
                Caller(kind, url, {"retry": NO_RETRY}).extract("Ada")
    assert len(seen.texts) == 2
