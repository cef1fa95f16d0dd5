"""Streaming by tritonclient's blocking and asyncio clients."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc.aio
from tritonclient.utils import InferenceServerException

from clients.triton.client import Client
from clients.triton.truth import MODEL, TEXTS, Truth, read, same
from clients.triton.waiting import BOUND_S, PATIENT, queued, until

MANY: Final = 40
BAD: Final = 7
"""Which item of a stream is refused."""


def _items(client: Client, count: int, bad: int = -1) -> list[dict[str, Any]]:
    return [
        {
            "model_name": MODEL,
            "inputs": client.texts(TEXTS[number % len(TEXTS)]),
            "outputs": [client.wanted("NOPE" if number == bad else "ENTITIES")],
            "request_id": f"item-{number}",
            "parameters": {"aggregation": "max"},
        }
        for number in range(count)
    ]


async def _all(
    client: Client,
    items: list[dict[str, Any]],
    headers: dict[str, str] | None = None,
    **options: Any,
) -> list[tuple[Any, Any]]:
    """(result, error) of each answer, until the stream has ended."""
    if client.kind == "grpc.aio":

        async def asked() -> AsyncIterator[dict[str, Any]]:
            for item in items:
                yield item

        answers = client.native.stream_infer(asked(), headers=headers, **options)
        return [answer async for answer in answers]
    told: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.native.start_stream(
        lambda result, error: told.put((result, error)), headers=headers, **options
    )
    for item in items:
        client.native.async_stream_infer(**item)
    await asyncio.to_thread(client.native.stop_stream)
    return [told.get_nowait() for _ in range(told.qsize())]


def _right(truth: Truth, number: int, result: Any) -> None:
    answer = result.get_response(as_json=True)
    assert answer["id"] == f"item-{number}"
    same(read(result)[0], truth.entities(TEXTS[number % len(TEXTS)], "max"))


async def check_order(client: Client, truth: Truth) -> None:
    """An answer a request, in their order."""
    for options in ({}, {"compression_algorithm": "gzip"}, {"stream_timeout": BOUND_S}):
        answers = await _all(client, _items(client, MANY), **options)
        assert len(answers) == MANY
        for number, (result, error) in enumerate(answers):
            assert error is None
            _right(truth, number, result)


async def check_one_bad_item(client: Client, truth: Truth) -> None:
    """It alone fails, and says why; the stream goes on."""
    answers = await _all(client, _items(client, MANY, bad=BAD))
    assert [number for number, (_, error) in enumerate(answers) if error] == [BAD]
    assert "NOPE" in answers[BAD][1].message()
    for number, (result, _) in enumerate(answers):
        if number != BAD:
            _right(truth, number, result)


async def check_triton_grpc_error(client: Client, truth: Truth) -> None:
    """With this header, the first error is the stream's status."""
    headers = {"triton_grpc_error": "true"}
    items = _items(client, BAD + 1, bad=BAD)
    if client.kind == "grpc":
        *answered, (result, error) = await _all(client, items, headers)
        assert result is None
        assert error.status() == "StatusCode.INVALID_ARGUMENT", error.status()
        assert "NOPE" in error.message()
        assert len(answered) == BAD
        return
    codes = []
    try:
        await _all(client, items, headers)
    except grpc.aio.AioRpcError as error:  # this client lets it out as it is
        codes.append(error.code())
    assert codes == [grpc.StatusCode.INVALID_ARGUMENT]


async def check_final_response(client: Client, truth: Truth) -> None:
    """Every answer says that it is its request's last; asked for, too, none is empty."""
    items = _items(client, 3)
    if client.kind == "grpc":
        items = [item | {"enable_empty_final_response": True} for item in items]
    answers = await _all(client, items)
    assert len(answers) == 3
    for number, (result, _) in enumerate(answers):
        _right(truth, number, result)
        final = result.get_response().parameters["triton_final_response"]
        assert final.bool_param is True


async def check_cancelled(client: Client, truth: Truth) -> None:
    """A stream that is left takes what waits with it."""
    item = {"model_name": PATIENT, "inputs": client.texts("a")}
    if client.kind == "grpc":
        told: queue.Queue[Any] = queue.Queue()
        client.native.start_stream(lambda result, error: told.put(error))
        client.native.async_stream_infer(**item)
        await until(lambda: queued(truth) == 1)
        await asyncio.to_thread(client.native.stop_stream, cancel_requests=True)
        error = told.get(timeout=BOUND_S)
        assert isinstance(error, InferenceServerException)
        assert error.status() == "StatusCode.CANCELLED"
    else:
        ended = asyncio.Event()

        async def asked() -> AsyncIterator[dict[str, Any]]:
            yield item
            await ended.wait()

        answers = client.native.stream_infer(asked())
        reading = asyncio.create_task(anext(answers))
        await until(lambda: queued(truth) == 1)
        answers.cancel()
        await asyncio.wait([reading], timeout=BOUND_S)
        assert reading.cancelled()
        ended.set()
    await until(lambda: queued(truth) == 0)


CHECKS = (
    check_order,
    check_one_bad_item,
    check_triton_grpc_error,
    check_final_response,
    check_cancelled,
)
