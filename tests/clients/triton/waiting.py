"""Requests that wait: overload, timeouts, deadlines and callers that leave, by every kind of client.

The model `patient` holds one text back for ten seconds, and has room for no second one.
"""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import tritonclient.http
from tritonclient.utils import InferenceServerException

from clients.triton.client import Client
from clients.triton.truth import MODEL, TEXTS, Truth, read, same

PATIENT: Final = "patient"
FULL: Final[dict[str, Any]] = {"http": 503, "grpc": "UNAVAILABLE"}
BOUND_S: Final = 60.0
MANY: Final = 24


def queued(truth: Truth) -> int:
    """Texts that wait for the patient model."""
    with urllib.request.urlopen(f"{truth.url}/v1/models/{PATIENT}", timeout=10) as answer:
        (version,) = json.load(answer)["versions"]
    return int(version["statistics"]["queued_rows"])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.02)


async def check_timeout(client: Client, truth: Truth) -> None:
    """The `timeout` of a request, in microseconds, ends its waiting."""
    await client.refused("infer", PATIENT, client.texts("a"), timeout=150_000, **FULL)
    await until(lambda: queued(truth) == 0)


async def check_overload(client: Client, truth: Truth) -> None:
    """A full queue answers at once; what waits leaves when its caller does."""
    if client.kind.endswith("aio"):
        waiting = asyncio.create_task(client.call("infer", PATIENT, client.texts("a")))
        await until(lambda: queued(truth) == 1)
        await client.refused("infer", PATIENT, client.texts("b"), **FULL, says=PATIENT)
        waiting.cancel()
        with suppress(asyncio.CancelledError, InferenceServerException):
            await waiting
    elif client.grpc:
        ended = threading.Event()
        told: list[Any] = []

        def tell(result: Any, error: Any) -> None:
            told.append(error)
            ended.set()

        call = client.native.async_infer(PATIENT, client.texts("a"), tell)
        await until(lambda: queued(truth) == 1)
        await client.refused("infer", PATIENT, client.texts("b"), **FULL, says=PATIENT)
        call.cancel()
        assert ended.wait(BOUND_S)
        assert told[0].status() == "StatusCode.CANCELLED"
    else:  # the blocking HTTP client gives up by its own timeout only
        hasty = tritonclient.http.InferenceServerClient(
            truth.url.removeprefix("http://"), network_timeout=0.5
        )
        with suppress(TimeoutError):
            raise AssertionError(hasty.infer(PATIENT, client.texts("a")))
        hasty.close()
    await until(lambda: queued(truth) == 0)


async def check_deadline(client: Client, truth: Truth) -> None:
    """gRPC's own deadline, which `client_timeout` sets."""
    if not client.grpc:
        return
    error = await client.failure("infer", PATIENT, client.texts("a"), client_timeout=0.2)
    assert error.status() == "StatusCode.DEADLINE_EXCEEDED", error
    await until(lambda: queued(truth) == 0)
    for method in ("get_server_metadata", "get_model_repository_index"):
        await client.call(method, client_timeout=BOUND_S)


async def check_many_at_once(client: Client, truth: Truth) -> None:
    """Each of many calls gets its own answer."""
    texts = [f"{TEXTS[number % len(TEXTS)]} {number}" for number in range(MANY)]
    if client.kind.endswith("aio"):
        calls = (client.call("infer", MODEL, client.texts(text)) for text in texts)
        results = await asyncio.gather(*calls)
    elif client.grpc:
        results = await asyncio.to_thread(_callbacks, client, texts)
    else:
        wide = tritonclient.http.InferenceServerClient(
            truth.url.removeprefix("http://"), concurrency=4
        )
        requests = [wide.async_infer(MODEL, client.texts(text)) for text in texts]
        results = [request.get_result() for request in requests]
        wide.close()
    for text, result in zip(texts, results, strict=True):
        same(read(result)[0], truth.entities(text))


def _callbacks(client: Client, texts: list[str]) -> list[Any]:
    """Results of async_infer, in the order of the texts."""
    found: list[Any] = [None] * len(texts)
    left = threading.Semaphore(0)

    def kept(number: int) -> Callable[[Any, Any], None]:
        def keep(result: Any, error: Any) -> None:
            found[number] = error or result
            left.release()

        return keep

    for number, text in enumerate(texts):
        client.native.async_infer(MODEL, client.texts(text), kept(number))
    for _ in texts:
        assert left.acquire(timeout=BOUND_S)
    return found


CHECKS = (check_timeout, check_overload, check_deadline, check_many_at_once)
