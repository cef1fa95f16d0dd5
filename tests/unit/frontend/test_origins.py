"""Which web pages may talk to the server."""

from __future__ import annotations

import pytest

from nerve.frontend.http.origins import allowed, own_names

NAMES = {"ner-box"}
MORE = ["https://app.example", "http://intra:8000"]


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3000", "localhost:8080"),
        ("http://localhost:3000", "ner.example.com"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://127.8.8.8", "127.0.0.1"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://192.168.1.7:9100", "192.168.1.7:9100"),
        ("http://[fd00::7]:9100", "[fd00::7]:9100"),
        ("http://ner-box:9100", "ner-box:9100"),
        ("http://NER-BOX:9100", "ner-box:9100"),
        ("https://ner.example.com", "ner.example.com"),
        ("https://ner.example.com:8443", "ner.example.com"),
        ("https://app.example", "ner.example.com"),
        ("http://intra:8000", "10.0.0.1"),
    ],
)
def test_welcome(origin: str, host: str) -> None:
    assert allowed(origin, host, names=NAMES, more=MORE)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "localhost:8080"),
        ("https://evil.example", "ner.example.com"),
        ("http://evil.example:8080", "evil.example:8080"),  # may have been rebound
        ("http://192.168.1.8", "192.168.1.7"),
        ("http://localhost.evil.example", "localhost.evil.example"),
        ("http://127.0.0.1.evil.example", "127.0.0.1.evil.example"),
        ("http://ner-box", "other"),
        ("https://app.example:444", "ner.example.com"),
        ("https://app.example.evil.example", "ner.example.com"),
        ("http://intra", "10.0.0.1"),
        ("file://", "localhost"),
        ("ftp://localhost", "localhost"),
        ("null", "localhost"),
        ("", "localhost"),
        ("http://[::1", "localhost"),
        ("https://evil.example", ""),
        ("https://localhost.", "localhost."),
    ],
)
def test_not_welcome(origin: str, host: str) -> None:
    assert not allowed(origin, host, names=NAMES, more=MORE)


def test_any() -> None:
    assert allowed("https://evil.example", "localhost", more=["*"])


def test_own_names() -> None:
    """What it listens on is one of its names, however it is written."""
    assert {"ner.local", "::1"} < own_names("NER.local", "[::1]")
