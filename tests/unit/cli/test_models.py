"""What `nerve models` makes of answers, of config files, and of servers that are none."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nerve.cli.client import (
    AnswerTimeout,
    Client,
    HungUp,
    Refused,
    ServerUnreachable,
    StrangeAnswer,
)
from nerve.cli.https import HandshakeFailed, Identity, told
from nerve.cli.models import config_text, flat, joined
from nerve.errors import ConfigInvalid, InvalidField, NerveError


def test_joined_knows_what_only_one_of_them_knows() -> None:
    """Index and list are asked one after the other; models come and go in between."""
    index = [
        {"name": "both", "version": "1", "state": "READY", "reason": "bad successor"},
        {"name": "both", "version": "10", "state": "LOADING"},
        {"name": "broken", "state": "UNAVAILABLE", "reason": "no graph"},
        {"name": "never"},
    ]
    models = [
        {"name": "both", "state": "READY", "reason": "", "versions": ["1"], "default": True},
        {"name": "gone", "state": "READY", "reason": "", "versions": ["1"], "default": False},
    ]
    found = {each["name"]: each for each in joined(index, models)}
    assert list(found) == ["both", "broken", "gone", "never"]
    assert found["both"]["default"]
    assert [(each["version"], each["reason"]) for each in found["both"]["versions"]] == [
        ("1", "bad successor"), ("10", ""),
    ]  # fmt: skip
    assert (found["broken"]["state"], found["broken"]["reason"]) == ("UNAVAILABLE", "no graph")
    assert (found["never"]["state"], found["never"]["versions"]) == ("", [])


def test_flat_leaves_out_nulls() -> None:
    facts = flat({"a": {"b": 1.5, "c": None}, "labels": ["O", "B-X"], "on": True, "n": [1]})
    assert facts == {"a.b": "1.5", "labels": "O, B-X", "on": "yes", "n": "1"}


def test_config_text(tmp_path: Path) -> None:
    """JSON text goes as it is; a YAML file becomes JSON, keys that are numbers included."""
    assert config_text(' {"a": 1}') == ' {"a": 1}'
    file = tmp_path / "config.yaml"
    file.write_text("routing: {weights: {1: 90}}\nlabels: [O]\n")
    assert json.loads(config_text(str(file))) == {
        "routing": {"weights": {"1": 90}},
        "labels": ["O"],
    }
    tabs = tmp_path / "config.json"
    tabs.write_text('{\n\t"a": 1}')
    assert json.loads(config_text(str(tabs))) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"- a\n- b\n", "expected a mapping"),
        (b"a: 1\n\tb: 2\n", "not valid YAML"),
        (b"a: 1\na: 2\n", "stands twice"),
        (b"labels: !!set {a, b}\n", "--config"),
        (b"a: " + b"9" * 40, "--config"),
        (b"#" * 200_000, "is over"),
    ],
)
def test_config_files_that_cannot_be_sent(tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "config.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises((InvalidField, ConfigInvalid), match=told):
        config_text(str(file))


@pytest.mark.parametrize(
    "url", ["ftp://x", "http://", "http://h:port", "http://a b", "/x", "h?q", "http://ö", "", "h\n"]
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(InvalidField, match="--url: expected http://HOST:PORT"):
        Client(url, timeout_s=1)


def test_urls_may_be_short() -> None:
    assert Client("localhost:8080/", timeout_s=1).url == "http://localhost:8080"
    assert Client("https://h/prefix", timeout_s=1).url == "https://h/prefix"


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """A port that answers its first connection so; None never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):  # a client that hangs up
                if answer is not None:
                    connection.recv(65536)
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # unread bytes would make the close a reset
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(timeout=20)


def http(status: str, body: bytes, *, length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (b"", HungUp, "it may speak TLS: try https://"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", StrangeAnswer, "is no Nerve HTTP server"),
        (http("200 OK", b"hello"), StrangeAnswer, "is no JSON"),
        (http("200 OK", b"{}"), StrangeAnswer, "is no list of rows"),
        (http("200 OK", b"[1]"), StrangeAnswer, "is no list of rows"),
        (http("200 OK", b"[]", length=99), StrangeAnswer, "is no Nerve HTTP server"),
        (http("502 Bad Gateway", b"oops\n"), Refused, "502 Bad Gateway: oops"),
        (http("404 X", b'{"error":"said"}'), Refused, "^said$"),
        (http("401 X", b'{"error":"said"}'), Refused, "^said .*set NERVE_API_KEY, or give --api-k"),
        (http("400 X", b'{"error":7}'), Refused, "400 X"),
        (None, AnswerTimeout, "did not answer within 0.2 s"),
    ],
)
def test_what_is_no_server(answer: bytes | None, kind: type[NerveError], told: str) -> None:
    with answering(answer) as url, pytest.raises(kind, match=told):
        Client(url, timeout_s=0.2 if answer is None else 20).index()


def test_nobody_there() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServerUnreachable, match=r"no server answers at .*start one with nerve"):
            Client(url, timeout_s=20).index()


def test_https_to_a_server_that_speaks_none() -> None:
    with answering(http("400 Bad Request", b"")) as url:
        https = Client(url.replace("http:", "https:"), timeout_s=20)
        with pytest.raises(HandshakeFailed, match="does not speak TLS: try http://"):
            https.index()


@pytest.mark.parametrize(
    ("code", "remedy"), [(62, "name it in --url"), (10, "needs a new one"), (20, "as --ca-file")]
)
def test_a_certificate_that_is_not_trusted(code: int, remedy: str) -> None:
    """Another host's, an old one, one of an authority that is not known."""
    error = ssl.SSLCertVerificationError(1, "as OpenSSL has it")
    error.verify_code, error.verify_message = code, "Why."
    assert remedy in str(told("https://h", error, shown=False))


def test_files_for_https(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    for identity, said in (
        (Identity(ca_file=tmp_path / "nope"), "--ca-file: .*nope cannot be read: No such file"),
        (Identity(ca_file=empty), "--ca-file: .*empty.pem holds no certificate"),
        (Identity(cert_file=tmp_path), "--cert-file: .* cannot be read: Is a directory"),
        (Identity(cert_file=empty), "--cert-file: .* no certificate and key"),
        (Identity(key_file=empty), "--key-file: is nothing without --cert-file"),
    ):
        with pytest.raises(InvalidField, match=said):
            Client("https://h", timeout_s=1, identity=identity)


@pytest.mark.parametrize("name", ["a/b ü%", os.fsdecode(b"no\xffutf8"), "..", ""])
def test_any_name_can_be_asked_for(name: str) -> None:
    with answering(http("404 Not Found", b'{"error":"no"}')) as url, pytest.raises(Refused):
        Client(url, timeout_s=20).load(name, {})


def test_no_proxy_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's proxy reaches this machine's own loopback."""
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:9")
    with answering(http("200 OK", b"[]")) as url:
        assert Client(url, timeout_s=20).index() == []
