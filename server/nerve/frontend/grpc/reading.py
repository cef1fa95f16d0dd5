"""Messages of unary calls: read within limits of size and time, and counted while they are in memory.

grpc has one limit of size for all methods of a server, so what may be long for one method is taken
in whole for every other. Strangers, who need no key for probes, are therefore read a few at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from nerve.errors import BodyTimeout, InvalidRequest, MessageTooLarge, ServerBusy
from nerve.exchange import Access
from nerve.frontend.admission import Admission
from nerve.frontend.grpc.metadata import Context

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # not in the stubs

MAX_BYTES: Final[Mapping[Access, int]] = {Access.OPEN: 4 * 1024, Access.READ: 64 * 1024}
"""Longest message where there is little to say."""
STRANGERS: Final = 4
"""Messages of strangers that are read at the same time: what these may hold until they are known to be
too long is so many times the server's limit."""
QUICK_S: Final = 0.1
"""After so long a stranger's message that has not come gives way to others."""
STRANGERS_S: Final = 5.0
"""How long it may take if nobody waits."""


class Reader:
    """Reads for all services of a server."""

    def __init__(self, admission: Admission, *, timeout_s: float) -> None:
        """`admission` counts the bytes; a client may take `timeout_s` to send a message."""
        self.hold = admission.hold
        self._timeout_s = timeout_s
        self._strangers = asyncio.Semaphore(STRANGERS)

    async def read(self, message: type[Message], context: Context, access: Access) -> bytes:
        """The one message of a call that was admitted; its bytes are held by the current exchange.

        Raises:
            InvalidRequest: there is none, or one over grpc's limit, whose sender knows.
            BodyTimeout: it did not come in time.
            MessageTooLarge: it is longer than such messages are.
            ServerBusy: with this one, the server would have too much in memory; or it does not come,
                and others wait to be read.
        """
        body = await (self._stranger(context) if access is Access.OPEN else self._known(context))
        if body is None:
            raise InvalidRequest(f"the call ended without a {message.DESCRIPTOR.full_name}")
        if len(body) > (most := MAX_BYTES.get(access, len(body))):
            raise MessageTooLarge(len(body), most)
        self.hold(len(body))
        return body

    async def _known(self, context: Context) -> bytes | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                return _given(await context.read())
        except TimeoutError:
            raise BodyTimeout(self._timeout_s) from None

    async def _stranger(self, context: Context) -> bytes | None:
        async with self._strangers:
            reading = asyncio.ensure_future(context.read())
            try:
                for _ in range(round(STRANGERS_S / QUICK_S)):
                    await asyncio.wait({reading}, timeout=QUICK_S)
                    if reading.done():
                        return _given(reading.result())
                    if self._strangers.locked():
                        raise ServerBusy("probes to read", STRANGERS)
                raise BodyTimeout(STRANGERS_S)
            finally:
                reading.cancel()


def _given(read: object) -> bytes | None:
    """What a call gave; None at its end."""
    return read if isinstance(read, bytes) else None
