"""Requests over HTTP, by httpx2, which nothing else here knows."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import httpx2

from nerve_client.address import Address
from nerve_client.errors import ConnectionFailed, DeadlineExceeded, ServerError
from nerve_client.http_wire import Exchange, Reply, exchange
from nerve_client.requests import Request
from nerve_client.tls import context_of
from nerve_client.trace_context import trace_context

ResultT = TypeVar("ResultT")

LIMITS: Final = httpx2.Limits(max_connections=100, max_keepalive_connections=100)


class HttpTransport:
    """Sends from any thread; connections are kept and used again."""

    def __init__(self, address: Address, headers: Mapping[str, str]) -> None:
        self._shown = address.shown
        self._http = httpx2.Client(
            base_url=address.url,
            headers=headers,
            verify=_verify(address),
            timeout=None,
            limits=LIMITS,
        )

    def send(self, request: Request[ResultT], *, timeout_s: float) -> ResultT:
        """Ask once.

        Raises:
            NerveError: of any kind but ItemError.
        """
        made = exchange(request, timeout_s)
        deadline = time.monotonic() + timeout_s
        with (
            _errors(self._shown, timeout_s),
            self._http.stream(**_sent(made, timeout_s)) as response,
        ):
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if time.monotonic() > deadline:  # the library's limit is for each read
                    raise httpx2.ReadTimeout("the answer took too long")
            reply = _reply(response, bytes(body))
        return made.result(reply, self._shown)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class AsyncHttpTransport:
    """The same for one event loop."""

    def __init__(self, address: Address, headers: Mapping[str, str]) -> None:
        self._shown = address.shown
        self._http = httpx2.AsyncClient(
            base_url=address.url,
            headers=headers,
            verify=_verify(address),
            timeout=None,
            limits=LIMITS,
        )

    async def send(self, request: Request[ResultT], *, timeout_s: float) -> ResultT:
        """See `HttpTransport.send`."""
        made = exchange(request, timeout_s)
        with _errors(self._shown, timeout_s):
            async with asyncio.timeout(timeout_s):
                response = await self._http.request(**_sent(made, timeout_s))
        return made.result(_reply(response, response.content), self._shown)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _verify(address: Address) -> ssl.SSLContext:
    if address.tls:
        return context_of(address, httpx2.create_ssl_context)
    # One that trusts nobody: reading the system's certificates takes 0.1 s, for nothing.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _sent(made: Exchange[ResultT], timeout_s: float) -> dict[str, Any]:
    return {
        "method": made.method,
        "url": made.path,
        "content": made.body,
        "headers": {**made.headers, **trace_context()},
        "timeout": timeout_s,
    }


def _reply(response: httpx2.Response, body: bytes) -> Reply:
    return Reply(response.status_code, dict(response.headers.items()), body)


@contextmanager
def _errors(shown: str, timeout_s: float) -> Iterator[None]:
    """Errors of the library as ours, with the server's URL; its texts never have what was sent."""
    try:
        yield
    except (httpx2.TimeoutException, TimeoutError) as error:
        raise DeadlineExceeded(f"there was no answer within {timeout_s:.3g} s") from error
    except (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError) as error:
        raise ConnectionFailed(f"{shown}: {str(error) or type(error).__name__}") from error
    except httpx2.DecodingError as error:
        raise ServerError(f"{shown}: {error}", reason="invalid_answer") from error
