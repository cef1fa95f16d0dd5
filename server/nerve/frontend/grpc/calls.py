"""What the calls of every gRPC service share: bytes to messages, errors to statuses, metrics.

Streams are in `streams.py`, metadata in `metadata.py`; what a message means is its service's business.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from nerve.errors import (
    DeadlineExceeded,
    MalformedMessage,
    MessageTooLarge,
    NerveError,
    ServerFault,
    ServerStopping,
)
from nerve.exchange import Access, Exchange, Exchanges, clean_request_id, current
from nerve.frontend.grpc.metadata import REQUEST_ID_KEY, Context, identity, texts_in
from nerve.frontend.grpc.reading import Reader
from nerve.frontend.guard import Guard
from nerve.frontend.status import outcome, retry_after_s
from nerve.offload import INLINE_BYTES

log = logging.getLogger(__name__)

REASON_KEY: Final = "x-nerve-reason"
WELL: Final = "OK"
MAX_TEXT_BYTES: Final = 2048
"""Longest text of a status, in UTF-8; written it may be three times as long, and clients refuse headers
over 8 KiB altogether."""
OWN_DEADLINE_S: Final = 0.05
"""With less left, it was the call's own deadline that passed: its client is about to say the same as we
do, and what comes first is chance. V2's word for a timeout would tell it to try again."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Bind: TypeAlias = Callable[[str, Reader], Handler]
"""Makes the handler of a method from its path, /package.Service/Method, and what reads for it."""
RequestT = TypeVar("RequestT", bound=Message)
Method: TypeAlias = Callable[[RequestT, Context, int], Awaitable[bytes]]
"""Makes the answer to a request that had so many bytes."""


def native_code(error: NerveError) -> grpc.StatusCode:
    """The status code of Encoderfile's service and our own."""
    return grpc.StatusCode[outcome(error).grpc]


@dataclass(frozen=True, slots=True)
class Shell:
    """What all calls of one service have in common.

    `dialect` is its name in metrics; requests are reported to `exchanges`, `guard` lets them in;
    `code` and `text` say what an error becomes; `max_bytes` is the service's own limit of a
    message, below the server's; `drain` is set when the server stops: it ends streams, which else
    would hold it up.
    """

    dialect: str
    exchanges: Exchanges
    guard: Guard
    code: Callable[[NerveError], grpc.StatusCode] = native_code
    text: Callable[[NerveError], str] = str
    max_bytes: int | None = None
    drain: asyncio.Event = field(default_factory=asyncio.Event)

    async def parse(self, message: type[RequestT], body: bytes) -> RequestT:
        """The message in `body`; large ones are parsed in a thread.

        Not by grpc's deserializers: those run on the event loop whatever the size, and a message
        that cannot be read would be UNKNOWN with a traceback.

        Raises:
            MessageTooLarge, MalformedMessage.
        """
        if self.max_bytes is not None and len(body) > self.max_bytes:
            raise MessageTooLarge(len(body), self.max_bytes)
        try:
            if len(body) <= INLINE_BYTES:
                return message.FromString(body)
            return await asyncio.to_thread(message.FromString, body)
        except DecodeError as error:
            raise MalformedMessage(message.DESCRIPTOR.full_name) from error

    async def abort(
        self, context: Context, error: Exception, *, told: Callable[[str], str] = str
    ) -> NoReturn:
        """End a call with the status of `error`, its text as `told` has it; faults of the server
        are logged."""
        fault = presentable(error)
        text = clipped(told(self.text(fault)))
        # grpc keeps the error that ends a call, and with it what the frames of its causes hold:
        # the request, which may be large, until the garbage collector gets round to it.
        del told
        traceback.clear_frames(error.__traceback__)
        seconds = retry_after_s(fault)
        sent = ((REASON_KEY, fault.reason), *identity(context))
        if seconds is not None:  # in words of HTTP, and in gRPC's own
            sent += (("retry-after", str(seconds)), ("grpc-retry-pushback-ms", f"{seconds}000"))
        left = context.time_remaining()
        own = isinstance(fault, DeadlineExceeded) and left is not None and left < OWN_DEADLINE_S
        code = grpc.StatusCode.DEADLINE_EXCEEDED if own else self.code(fault)
        if (exchange := current()) is not None:
            exchange.reason, exchange.code = fault.reason, code.name
        await context.abort(code, text, sent)
        raise AssertionError("abort raises")  # pragma: no cover  grpc's stubs do not say so

    def reported(
        self, path: str, context: Context, *, began: float | None = None
    ) -> AbstractContextManager[Exchange]:
        """Put this around the work of a request; it went well if its `status` becomes `WELL`.

        `path` is the method's; `began` says since when, monotonic seconds, if not from now on.
        """
        headers = texts_in(context)
        exchange = Exchange("grpc", self.dialect, "", path, peer=context.peer(), status="ERROR")
        if given := clean_request_id(headers.get(REQUEST_ID_KEY, "")):
            exchange.request_id = given
        if began is not None:
            exchange.began = began
        return self.exchanges.open(exchange, headers)

    def admit(self, exchange: Exchange, context: Context, access: Access) -> None:
        """Raises what the guard raises."""
        exchange.key = self.guard.admit(texts_in(context), access, exchange.peer)

    def check(self, context: Context, access: Access) -> None:
        """As `admit`, but it is no request of its own; raises what the guard raises."""
        self.guard.check(texts_in(context), access)

    async def turn_away(self, path: str, context: Context, access: Access) -> None:
        """End a call that the guard will not let in, before anything of it is read."""
        try:
            self.check(context, access)
        except NerveError as error:
            with self.reported(path, context):
                await self.abort(context, error)


def unary(
    message: type[RequestT],
    method: Method[RequestT],
    *,
    shell: Shell,
    access: Access,
    told: Callable[[RequestT], Callable[[str], str]] = lambda _: str,
) -> Bind:
    """A method of one request and one answer; `method` raises a NerveError to refuse.

    `access` is what it takes to be answered; `told` gives, for a request, what makes the text of an
    error of what the shell says.
    """

    async def answer(path: str, reader: Reader, _messages: object, context: Context) -> bytes:
        request: RequestT | None = None
        body = b""
        named: Callable[[str], str] = str
        with shell.reported(path, context) as exchange:
            try:
                context.set_trailing_metadata(identity(context))
                shell.admit(exchange, context, access)  # before anything of it is read
                body = await reader.read(message, context, access)
                exchange.received_bytes = len(body)
                request = await shell.parse(message, body)
                named = told(request)
                written = await method(request, context, len(body))
                exchange.status, exchange.sent_bytes = WELL, len(written)
            except asyncio.CancelledError:
                if left_by_its_client():
                    raise
                await shell.abort(context, ServerStopping())
            except Exception as error:  # noqa: BLE001  boundary: one request must not end the connection
                request, body = None, b""  # see `abort`
                await shell.abort(context, error, told=named)
        return written

    # For grpc a stream, so that we are asked before the message is read.
    return lambda path, reader: grpc.stream_unary_rpc_method_handler(
        functools.partial(answer, path, reader)
    )


def left_by_its_client() -> bool:
    """Whether this call's own task was cancelled, and not something that it waited for: nobody
    would be told then."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def presentable(error: Exception) -> NerveError:
    """What the client is told of an error; it is logged if it is the server's fault."""
    if not isinstance(error, NerveError):
        log.error("request failed: %s", error, exc_info=error)
        return ServerFault("the server failed; its log tells why")
    if isinstance(error, ServerFault):
        log.error("request failed: %s", error)
    return error


def clipped(text: str) -> str:
    """As much of a status' text as fits in headers. Pure."""
    written = text.encode("utf-8", "replace")
    if len(written) <= MAX_TEXT_BYTES:
        return written.decode()
    return written[:MAX_TEXT_BYTES].decode("utf-8", "ignore") + "…"
