"""ExtractStream: messages of texts go out, outcomes come in, in order; a stream breaks as a whole."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc

from nerve_client._proto import nerve_pb2 as pb
from nerve_client.bulk import Outcome
from nerve_client.errors import ConnectionFailed, DeadlineExceeded, NerveError
from nerve_client.grpc_wire import STREAM, error_of, metadata, stream_message, stream_results
from nerve_client.requests import Extract
from nerve_client.trace_context import trace_context


class Stream:
    """A stream for one thread. grpc takes the messages in a thread of its own, and another reads."""

    def __init__(
        self, channel: grpc.Channel, headers: tuple[tuple[str, str], ...], priority: int | None
    ) -> None:
        self.broken: NerveError | None = None
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        method = channel.stream_stream(
            STREAM,
            request_serializer=pb.ExtractStreamRequest.SerializeToString,
            response_deserializer=pb.ExtractStreamResponse.FromString,
        )
        self._call: Any = method(
            iter(self._messages.get, None),
            metadata=(*headers, *metadata(priority), *trace_context().items()),
        )
        # The call's own iterator waits without a limit.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def put(self, request: Extract) -> None:
        """Send texts; returns at once."""
        self._messages.put(stream_message(request))

    def get(self, timeout_s: float) -> list[Outcome]:
        """Outcomes of the oldest texts that have none yet.

        Raises:
            NerveError: the stream is broken, or there was no answer in time.
        """
        if self.broken is not None:
            raise self.broken
        try:
            said = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            self.broken = _given_up()
            raise _late(timeout_s) from None
        if isinstance(said, NerveError):
            self.broken = said
            raise said
        return stream_results(said)

    def close(self) -> None:
        """End it, whatever is under way."""
        self._messages.put(None)
        self._call.cancel()
        self._reader.join()

    def _read(self) -> None:
        try:
            for said in self._call:
                self._answers.put(said)
            self._answers.put(_ended())
        except grpc.RpcError as error:
            self._answers.put(of_rpc(error))


class AsyncStream:
    """The same for a task."""

    def __init__(
        self, channel: grpc.aio.Channel, headers: tuple[tuple[str, str], ...], priority: int | None
    ) -> None:
        self.broken: NerveError | None = None
        self._messages: asyncio.Queue[pb.ExtractStreamRequest | None] = asyncio.Queue()
        method = channel.stream_stream(
            STREAM,
            request_serializer=pb.ExtractStreamRequest.SerializeToString,
            response_deserializer=pb.ExtractStreamResponse.FromString,
        )
        # An iterator, not `write`: that waits where the server does, for us to read.
        self._call: Any = method(
            self._send(), metadata=(*headers, *metadata(priority), *trace_context().items())
        )

    async def _send(self) -> AsyncIterator[pb.ExtractStreamRequest]:
        while (message := await self._messages.get()) is not None:
            yield message

    def put(self, request: Extract) -> None:
        """See `Stream.put`."""
        self._messages.put_nowait(stream_message(request))

    async def get(self, timeout_s: float) -> list[Outcome]:
        """See `Stream.get`."""
        if self.broken is not None:
            raise self.broken
        try:
            async with asyncio.timeout(timeout_s):
                said = await self._call.read()
        except TimeoutError:
            self.broken = _given_up()
            raise _late(timeout_s) from None
        except grpc.RpcError as error:
            self.broken = of_rpc(error)
            raise self.broken from error
        if said is grpc.aio.EOF:  # type: ignore[attr-defined]  # not in the stubs
            self.broken = _ended()
            raise self.broken
        return stream_results(said)

    def close(self) -> None:
        """See `Stream.close`."""
        self._messages.put_nowait(None)
        self._call.cancel()


def _late(timeout_s: float) -> NerveError:
    return DeadlineExceeded(f"there was no answer within {timeout_s:.3g} s")


def _given_up() -> NerveError:
    return ConnectionFailed("the stream was given up: an answer before this one did not come")


def _ended() -> NerveError:
    return ConnectionFailed("the server ended the stream")


def of_rpc(error: grpc.RpcError) -> NerveError:
    """grpc's error as ours."""
    call = cast("grpc.Call", error)  # it is a call that ended, with all that the server said
    return error_of(call.code().name, call.details(), call.trailing_metadata())
