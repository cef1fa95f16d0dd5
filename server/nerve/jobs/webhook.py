"""The HTTP client that messages to webhooks are sent with: the only code that goes out to where a
client of ours said.

Nothing is read of an answer but its head, no redirect is followed, no proxy of the environment is used,
and an address is judged when the connection is made, so that what was looked up is what is reached.
"""

from __future__ import annotations

import asyncio
import io
import logging
import socket
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

from aiohttp import (
    ClientConnectionError,
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientError,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    InvalidURL,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from nerve import __version__
from nerve.errors import shown
from nerve.jobs.addresses import Networks, literal, may_reach, refusal
from nerve.threads import in_thread

log = logging.getLogger(__name__)

AGAIN: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
"""Statuses below 500 after which a message is sent again."""
KEEPALIVE_S: Final = 15.0
READ_BYTES: Final = 4096
"""Of an answer, twice as much is in memory at most."""


class NotTaken(Exception):
    """A webhook did not take a message; the text is for the client whose webhook it is."""

    def __init__(self, message: str, *, again: bool) -> None:
        """`again`: another time it may."""
        super().__init__(message)
        self.again = again


class _Forbidden(OSError):
    """A name leads to no place where messages may go."""


class _Resolver(AbstractResolver):
    """Looks names up, and gives of their addresses those where messages may go.

    In threads of its own: a name whose server hangs must not hold up others, nor the end of the
    process.
    """

    def __init__(self, networks: Networks, slots: asyncio.Semaphore, *, public: bool) -> None:
        self._networks, self._slots, self._public = networks, slots, public

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError: it cannot be looked up, or (`_Forbidden`) leads elsewhere."""
        await self._slots.acquire()
        looking = asyncio.wrap_future(
            in_thread(lambda: _look_up(host, port, family), name="webhook-name")
        )
        looking.add_done_callback(self._looked_up)
        found = await asyncio.shield(looking)
        allowed = [each for each in found if self._may_reach(each["host"])]
        if found and not allowed:
            addresses = ", ".join(each["host"] for each in found)
            log.warning("a webhook at %s leads to %s, where none may be", host, addresses)
            raise _Forbidden(None, refusal(public=self._public))
        return allowed

    async def close(self) -> None:
        """There is nothing to close."""

    def _may_reach(self, host: str) -> bool:
        return may_reach(ip_address(host), self._networks, public=self._public)

    def _looked_up(self, looking: asyncio.Future[list[ResolveResult]]) -> None:
        self._slots.release()
        if not looking.cancelled():
            looking.exception()  # perhaps nobody waits for it any more


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=port,
            family=kind,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for kind, _, protocol, _, address in found
    ]


class Webhooks:
    """Sends messages; `aclose` ends that."""

    def __init__(self, networks: Networks, *, timeout_s: float, connections: int) -> None:
        """`timeout_s` is for all of a message: name, connection, sending, and the answer's head."""
        self._networks, self._timeout_s = networks, timeout_s
        self._looking_up = asyncio.Semaphore(connections)
        self._sessions: dict[str, ClientSession] = {}
        """One each, as it depends on the scheme where messages may go."""

    async def aclose(self) -> None:
        """Close what is open."""
        for session in self._sessions.values():
            await session.close()

    async def post(self, webhook: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a message.

        Raises:
            NotTaken: it did not answer 2xx.
        """
        try:
            url = URL(webhook)
        except ValueError:
            raise NotTaken("the webhook's address is not valid", again=False) from None
        host, public = url.raw_host or "", url.scheme == "https"
        address = literal(host)  # which is not looked up, so that the resolver does not see it
        if address is not None and not may_reach(address, self._networks, public=public):
            raise NotTaken(f"{shown(host)} {refusal(public=public)}", again=False)
        try:
            async with asyncio.timeout(self._timeout_s):
                status = await self._post(url, body, headers)
        except TimeoutError:
            fault = f"the webhook did not answer within {self._timeout_s:g} s"
            raise NotTaken(fault, again=True) from None
        except (ClientError, OSError, ValueError) as error:
            raise _not_taken(host, error) from error
        if not 200 <= status < 300:
            raise _refused(status)

    async def _post(self, url: URL, body: bytes, headers: Mapping[str, str]) -> int:
        session = self._sessions.get(url.scheme) or await self._new_session(url.scheme)
        # A file, as large bodies then go out in parts.
        answer = await session.post(
            url, data=io.BytesIO(body), headers=headers, allow_redirects=False
        )
        # What it says is of no interest: a connection on which more is to come is closed.
        if answer.content.at_eof():
            answer.release()
        else:
            answer.close()
        return answer.status

    async def _new_session(self, scheme: str) -> ClientSession:
        """Certificates that are trusted are those of the machine, or of SSL_CERT_FILE; reading them
        takes tens of milliseconds, so it is left until somebody wants them."""
        public = scheme == "https"
        context = await asyncio.to_thread(ssl.create_default_context) if public else True
        if scheme in self._sessions:  # somebody was faster
            return self._sessions[scheme]
        connector = TCPConnector(
            resolver=_Resolver(self._networks, self._looking_up, public=public),
            ssl=context,
            limit=0,  # whoever sends sees to that
            keepalive_timeout=KEEPALIVE_S,
        )
        self._sessions[scheme] = session = ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None, sock_connect=None),  # `post` has one for all
            headers={"User-Agent": f"nerve/{__version__}"},
            auto_decompress=False,
            read_bufsize=READ_BYTES,
            trust_env=False,
        )
        return session


def _refused(status: int) -> NotTaken:
    if 300 <= status < 400:
        fault = (
            f"the webhook answered {status}: redirects are not followed, name their target instead"
        )
        return NotTaken(fault, again=False)
    return NotTaken(f"the webhook answered {status}", again=status >= 500 or status in AGAIN)


def _not_taken(host: str, error: Exception) -> NotTaken:
    """Without what the libraries say of it: addresses of networks are not for everybody."""
    if isinstance(error, ClientConnectorDNSError) and isinstance(error.os_error, _Forbidden):
        return NotTaken(f"{shown(host)} {error.os_error.strerror}", again=False)
    if isinstance(error, InvalidURL):
        return NotTaken("the webhook's address is not valid", again=False)
    return NotTaken(_no_answer(shown(host), error), again=True)


def _no_answer(host: str, error: Exception) -> str:
    if isinstance(error, ClientConnectorDNSError):
        return f"{host} cannot be looked up"
    if isinstance(error, ClientConnectorCertificateError | ClientConnectorSSLError):
        reason = getattr(error.os_error, "verify_message", "") or "TLS failed"
        return f"no safe connection to {host}: {reason}"
    if isinstance(error, ClientConnectorError):
        return f"{host} takes no connection"
    if isinstance(error, ClientConnectionError | OSError):
        return "the webhook closed the connection without an answer"
    return "the webhook gave no valid answer of HTTP"
