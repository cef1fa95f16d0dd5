"""A gRPC client for tests: methods by name, answers parsed, refusals told apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message

BOUND_S = 60.0
"""No call lasts longer; nothing measures time."""
NERVE = "nerve.v1.Nerve"
LISTENING: dict[str, Any] = {"disable_grpc": False, "grpc_hostname": "127.0.0.1", "grpc_port": 0}
"""Settings of a server that is to be called."""
AnswerT = TypeVar("AnswerT", bound=Message)
OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


class Caller:
    """Calls methods of one service on a channel."""

    def __init__(self, channel: Any, service: str = NERVE) -> None:
        """`channel` is grpc.aio's; its stubs know nothing of calls with bytes."""
        self.channel, self.service = channel, service

    def start(
        self,
        method: str,
        request: Message | bytes,
        *,
        sent: Sequence[tuple[str, str]] = (),
        timeout: float | None = BOUND_S,
        **more: Any,
    ) -> Any:
        """Send, and return grpc's call object."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        stub = self.channel.unary_unary(f"/{self.service}/{method}")
        return stub(body, metadata=tuple(sent), timeout=timeout, **more)

    async def call(
        self, method: str, request: Message | bytes, answer: type[AnswerT], **more: Any
    ) -> AnswerT:
        """Send, and wait for the answer."""
        return answer.FromString(await self.start(method, request, **more))

    def stream(self, method: str, *, sent: Sequence[tuple[str, str]] = ()) -> Any:
        """Open a bidirectional stream."""
        stub = self.channel.stream_stream(f"/{self.service}/{method}")
        return stub(metadata=tuple(sent), timeout=BOUND_S)


def port_of(announced: Iterable[str]) -> int:
    """Where a server that announced these lines takes gRPC."""
    (line,) = [line for line in announced if line.startswith("Starting gRPC server")]
    return int(line.rpartition(":")[2])


@asynccontextmanager
async def calling(
    port: int, service: str = NERVE, options: Sequence[tuple[str, Any]] = OPTIONS
) -> AsyncIterator[Caller]:
    """A caller with a channel of its own."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield Caller(channel, service)


async def refusal(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def trailers(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The metadata of a refusal."""
    pairs: Any = error.trailing_metadata()
    return dict(pairs or ())
