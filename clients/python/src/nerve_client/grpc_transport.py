"""Requests over gRPC; this and `grpc_stream` are all that knows grpc."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import grpc

from nerve_client.address import Address
from nerve_client.grpc_stream import AsyncStream, Stream, of_rpc
from nerve_client.grpc_wire import exchange
from nerve_client.requests import Request
from nerve_client.tls import pem
from nerve_client.trace_context import trace_context

ResultT = TypeVar("ResultT")

OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),  # logits of many texts are long
    ("grpc.max_send_message_length", -1),  # the server says what is too much
    # A channel that found nobody refuses calls until it looks again: at once, not after seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


class GrpcTransport:
    """Calls from any thread, on one channel."""

    def __init__(self, address: Address, headers: Mapping[str, str]) -> None:
        self._headers = _metadata(headers)
        self._channel = (
            grpc.secure_channel(address.target, _credentials(address), options=OPTIONS)
            if address.tls
            else grpc.insecure_channel(address.target, options=OPTIONS)
        )

    def send(self, request: Request[ResultT], *, timeout_s: float) -> ResultT:
        """Ask once.

        Raises:
            NerveError: of any kind but ItemError.
        """
        made = exchange(request)
        method = self._channel.unary_unary(
            made.method,
            request_serializer=type(made.message).SerializeToString,
            response_deserializer=made.answer.FromString,
        )
        try:
            said = method(
                made.message,
                timeout=timeout_s,
                metadata=(*self._headers, *made.metadata, *trace_context().items()),
            )
        except grpc.RpcError as error:
            raise of_rpc(error) from error
        return made.read(said)

    def stream(self, priority: int | None) -> Stream:
        """A stream of texts, to be closed."""
        return Stream(self._channel, self._headers, priority)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class AsyncGrpcTransport:
    """The same for one event loop: that in which it is first used."""

    def __init__(self, address: Address, headers: Mapping[str, str]) -> None:
        self._address, self._headers = address, _metadata(headers)
        self._opened: grpc.aio.Channel | None = None

    def _channel(self) -> grpc.aio.Channel:
        if self._opened is None:  # a channel belongs to the loop that runs when it is made
            target = self._address.target
            self._opened = (
                grpc.aio.secure_channel(target, _credentials(self._address), options=OPTIONS)
                if self._address.tls
                else grpc.aio.insecure_channel(target, options=OPTIONS)
            )
        return self._opened

    async def send(self, request: Request[ResultT], *, timeout_s: float) -> ResultT:
        """See `GrpcTransport.send`."""
        made = exchange(request)
        method = self._channel().unary_unary(
            made.method,
            request_serializer=type(made.message).SerializeToString,
            response_deserializer=made.answer.FromString,
        )
        try:
            said = await method(
                made.message,
                timeout=timeout_s,
                metadata=(*self._headers, *made.metadata, *trace_context().items()),
            )
        except grpc.RpcError as error:
            raise of_rpc(error) from error
        return made.read(said)

    def stream(self, priority: int | None) -> AsyncStream:
        """A stream of texts, to be closed."""
        return AsyncStream(self._channel(), self._headers, priority)

    async def close(self) -> None:
        """Close the channel."""
        if self._opened is not None:
            await self._opened.close(None)


def _metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name.lower(), value) for name, value in headers.items())


def _credentials(address: Address) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(*pem(address))
