"""What both clients have in common: settings, and the tries of a request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Final, get_args

from nerve_client import checks
from nerve_client.address import parse
from nerve_client.bulk import OnError
from nerve_client.retry import Retry, Tries
from nerve_client.tls import check

TIMEOUT_S: Final = 60.0
MAX_TEXTS: Final = 128
"""Below the server's own limit for a request, unless that was configured."""
BULK_OPTIONS: Final = ("batch_size", "concurrency", "on_error")
"""What `extract_many` takes beside the options of `extract`."""
DEFAULT_RETRY: Final = Retry()
AGENT: Final = "nerve-client"


class Core:
    """Settings of a client. Nothing is opened here."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        retry: Retry,
        api_key: str | None,
        headers: Mapping[str, str] | None,
        ca_file: str | PathLike[str] | None,
        cert_file: str | PathLike[str] | None,
        key_file: str | PathLike[str] | None,
        max_texts: int,
        random: Callable[[], float],
    ) -> None:
        """Raises ValueError, TypeError: a setting has a wrong value."""
        checks.seconds("timeout_s", timeout_s)
        checks.whole("max_texts", max_texts, 1)
        files = (None if each is None else Path(each) for each in (ca_file, cert_file, key_file))
        self.address = parse(url, *files)
        check(self.address)
        self.timeout_s, self.max_texts = timeout_s, max_texts
        self.headers = {**(headers or {}), **_credentials(api_key, headers or {})}
        self.closed = False
        self._retry, self._random = retry, random

    def deadline(self, timeout_s: float | None) -> float:
        """When a call that begins now must be over, in monotonic seconds.

        Raises:
            RuntimeError: the client is closed.
            ValueError, TypeError: it is no time.
        """
        if timeout_s is not None:
            checks.seconds("timeout_s", timeout_s)
        if self.closed:
            raise RuntimeError("the client is closed")
        return time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)

    def tries(self, deadline: float) -> Tries:
        """Of one request."""
        return Tries(self._retry, deadline=deadline, random=self._random)


def grpc_is_missing() -> ImportError:
    """What to raise where gRPC's packages cannot be imported."""
    return ImportError("gRPC needs more packages: pip install 'nerve-client[grpc]'")


def check_bulk(texts: object, batch_size: int, concurrency: int, on_error: str) -> None:
    """Raises TypeError, ValueError where an argument of `extract_many` is wrong."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable | AsyncIterable):
        raise checks.wrong_type("texts", "an iterable of texts", texts)
    checks.whole("batch_size", batch_size, 1)
    checks.whole("concurrency", concurrency, 1)
    checks.one_of("on_error", on_error, get_args(OnError))


def _credentials(api_key: str | None, headers: Mapping[str, str]) -> dict[str, str]:
    """The header for an API key. Raises ValueError, TypeError, which never tell the key."""
    if api_key is None:
        return {}
    checks.word("api_key", api_key)
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise ValueError("api_key must have printable ASCII characters without spaces")
    if any(name.lower() == "authorization" for name in headers):
        raise ValueError("api_key and a header Authorization: give one of them")
    return {"authorization": f"Bearer {api_key}"}
