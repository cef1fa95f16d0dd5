"""What the calls of every gRPC service share: bytes to messages, errors to statuses, metadata, metrics.

Streams are in `streams.py`; what a message means is its service's business.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
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
    TooManyInputs,
)
from nerve.exchange import Access, Exchange, Exchanges, clean_request_id, current
from nerve.frontend.guard import Guard
from nerve.frontend.priority import PRIORITY_KEY, parse_priority
from nerve.frontend.status import outcome, retry_after_s
from nerve.offload import INLINE_BYTES
from nerve.service.inference import Call, InferenceService
from nerve.types import ModelInfo

log = logging.getLogger(__name__)

MODEL_KEY: Final = "model-name"
VERSION_KEY: Final = "model-version"
ANSWERED_BY_KEYS: Final = ("x-nerve-model", "x-nerve-model-version")
REASON_KEY: Final = "x-nerve-reason"
REQUEST_ID_KEY: Final = "x-request-id"
TRACE_KEY: Final = "traceparent"
WELL: Final = "OK"
MAX_TEXT_BYTES: Final = 2048
"""Longest text of a status, in UTF-8; written it may be three times as long, and clients refuse headers
over 8 KiB altogether."""
OWN_DEADLINE_S: Final = 0.05
"""With less left, it was the call's own deadline that passed: its client is about to say the same as we
do, and what comes first is chance. V2's word for a timeout would tell it to try again."""

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # not in the stubs

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # a string: generic in the stubs only
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Bind: TypeAlias = Callable[[str], Handler]
"""Makes the handler of a method from its path, /package.Service/Method."""
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

    async def read(self, message: type[Message], context: Context) -> bytes:
        """The one message of a call; ends the call if there is none."""
        if (body := await context.read()) is EOF:  # or one over grpc's limit, whose sender knows
            text = f"the call ended without a {message.DESCRIPTOR.full_name}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        return bytes(body)


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

    async def answer(path: str, _messages: object, context: Context) -> bytes:
        request: RequestT | None = None
        named: Callable[[str], str] = str
        await shell.turn_away(path, context, access)
        body = await shell.read(message, context)
        with shell.reported(path, context) as exchange:
            try:
                exchange.received_bytes = len(body)
                context.set_trailing_metadata(identity(context))
                shell.admit(exchange, context, access)
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
    return lambda path: grpc.stream_unary_rpc_method_handler(functools.partial(answer, path))


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


def sent(context: Context) -> dict[str, str | bytes]:
    """The call's metadata; of a key that is there twice, the last value."""
    return dict(context.invocation_metadata() or ())


def texts_in(context: Context) -> dict[str, str]:
    """The metadata that is text."""
    return {name: value for name, value in sent(context).items() if isinstance(value, str)}


def target(context: Context) -> tuple[str | None, str | None]:
    """Model and version that the metadata names; None for what it does not."""
    return _target(sent(context))


def call(
    context: Context,
    inference: InferenceService,
    *,
    max_texts: int,
    model: str = "",
    version: str = "",
) -> Call:
    """Whom a request is for and how long it may take, by itself, then by the call's metadata.

    Args:
        context: of the call; its deadline is kept.
        inference: knows the server's own limit.
        max_texts: of the service.
        model, version: as the request names them; "" leaves it to the metadata.
    Raises:
        InvalidField: the metadata's priority is none.
    """
    arrived, metadata = time.monotonic(), sent(context)
    named, numbered = _target(metadata)
    name = model or named
    ours = named is None or named == name  # else its version is one of another model
    return Call(
        name,
        version or (numbered if ours else None),
        inference.deadline(arrived, timeout_s=context.time_remaining()),
        max_texts,
        priority=parse_priority(metadata.get(PRIORITY_KEY), place="metadata"),
        arrived=arrived,
    )


def texts_of(texts: Sequence[str], limit: int) -> list[str]:
    """A request's texts; counted before they are taken out of it one by one.

    Raises:
        TooManyInputs.
    """
    if len(texts) > limit:
        raise TooManyInputs(len(texts), limit)
    return list(texts)


def answered_by(context: Context, info: ModelInfo) -> None:
    """Have the trailing metadata tell which version answered; leading ones cost a turn of the loop."""
    values = (info.name, str(info.version))
    told = zip(ANSWERED_BY_KEYS, values, strict=True)
    context.set_trailing_metadata((*told, *identity(context)))


def identity(context: Context) -> tuple[tuple[str, str], ...]:
    """Metadata by which a call is found in logs and traces; of a stream, whose messages are
    requests of their own, the id that its client gave it."""
    if (exchange := current()) is None:
        given = clean_request_id(texts_in(context).get(REQUEST_ID_KEY, ""))
        return ((REQUEST_ID_KEY, given),) if given else ()
    known = ((REQUEST_ID_KEY, exchange.request_id), (TRACE_KEY, exchange.traceparent))
    return tuple(pair for pair in known if pair[1])


def _target(metadata: dict[str, str | bytes]) -> tuple[str | None, str | None]:
    model, version = metadata.get(MODEL_KEY), metadata.get(VERSION_KEY)
    return (
        model if isinstance(model, str) and model else None,
        version if isinstance(version, str) and version else None,
    )
