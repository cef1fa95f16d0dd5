"""What a client of async inference does, and a server that gets messages, for tests and benchmarks.

`tests/async` cannot be imported from: `async` is a word of Python's.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from aiohttp import web

PATIENCE_S: Final = 60.0
ENDED: Final = ("SUCCEEDED", "FAILED", "EXPIRED", "CANCELED", "WEBHOOK_FAILED")
CHUNK: Final = bytes(2**16)
ENDLESS_BYTES: Final = 2**31


def signature(body: bytes, secret: str) -> str:
    """What Baseten's documentation has a receiver compute."""
    return "v1=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Message:
    """What a webhook got."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)

    @property
    def request_id(self) -> str:
        return self.headers["X-BASETEN-REQUEST-ID"]

    def signed_by(self, *secrets: str) -> bool:
        """Whether its signatures are those of these secrets, in that order."""
        expected = ",".join(signature(self.body, each) for each in secrets)
        return hmac.compare_digest(self.headers.get("X-BASETEN-SIGNATURE", ""), expected)


@dataclass(slots=True)
class Receiver:
    """A server for webhooks: `/ok` takes messages; `/hang`, `/redirect`, `/fails`, `/endless` do not,
    `/flaky` takes a message the second time."""

    url: str = ""
    messages: list[Message] = field(default_factory=list)
    sent_bytes: int = 0
    """By `/endless`."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, request_id: str) -> list[Message]:
        """All that it got for a request."""
        return [each for each in self.messages if each.request_id == request_id]

    async def first(self, request_id: str) -> Message:
        """The first for a request."""
        async with asyncio.timeout(PATIENCE_S):
            while not (found := self.of(request_id)):
                self.changed.clear()
                await self.changed.wait()
        return found[0]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """By path."""
        headers = {name.upper(): text for name, text in request.headers.items()}
        message = Message(request.path, headers, await request.read())
        self.messages.append(message)
        self.changed.set()
        match request.path:
            case "/hang":
                await asyncio.sleep(PATIENCE_S)
            case "/redirect":
                return web.Response(status=307, headers={"Location": "/ok"})
            case "/fails":
                return web.Response(status=500)
            case "/flaky":
                return web.Response(status=503 if len(self.of(message.request_id)) == 1 else 200)
            case "/endless":
                return await self._endless(request)
        return web.Response()

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while self.sent_bytes < ENDLESS_BYTES:
            await response.write(CHUNK)
            self.sent_bytes += len(CHUNK)
        return response


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver until the block ends."""
    receiver, app = Receiver(), web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield receiver
    finally:
        await runner.cleanup()


class Later:
    """A client. Every method raises AssertionError where the server does not do its part."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def send(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON."""
        data = None if body is None else json.dumps(body).encode()
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        async with self.http.request(method, path, data=data, headers=sent) as answer:
            content = await answer.read()
            return answer.status, json.loads(content) if content else None

    async def submit(self, *texts: str, model: str | None = None, **fields: object) -> str:
        """Its id."""
        place = "/async" + ("" if model is None else f"/v1/models/{model}") + "/predict_tokens"
        body = {"model_input": {"inputs": texts, "aggregation_strategy": "simple"}} | fields
        status, told = await self.send("POST", place, body)
        assert status == 201, told
        return str(told["request_id"])

    async def predict(self, *texts: str) -> Any:
        """What predict_tokens answers at once."""
        body = {"inputs": texts, "aggregation_strategy": "simple"}
        status, told = await self.send("POST", "/predict_tokens", body)
        assert status == 200, told
        return told

    async def status(self, request_id: str) -> dict[str, Any]:
        """Where it is."""
        status, told = await self.send("GET", f"/async_request/{request_id}")
        assert status == 200, told
        return dict(told)

    async def until(self, request_id: str, *statuses: str, webhook: str = "") -> dict[str, Any]:
        """Ask until it has one of these; by default one that it ends with. And that of the webhook."""
        told: dict[str, Any] = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    told = await self.status(request_id)
                    fits = told["status"] in (statuses or ENDED)
                    if fits and webhook in ("", told["webhook_status"]):
                        return told
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"waited for {statuses} {webhook} in vain: {told}") from None

    async def result(self, request_id: str) -> tuple[int, Any]:
        """Its answer."""
        return await self.send("GET", f"/async_request/{request_id}/result")

    async def cancel(self, request_id: str) -> dict[str, Any]:
        """What DELETE answers."""
        status, told = await self.send("DELETE", f"/async_request/{request_id}")
        assert status == 200, told
        return dict(told)

    async def queue(self, model: str = "") -> dict[str, int]:
        """How many wait, and how many are worked on."""
        place = f"/async/v1/models/{model}" if model else ""
        status, told = await self.send("GET", f"{place}/async_queue_status")
        assert status == 200, told
        return {name[4:-9]: count for name, count in told.items() if name.startswith("num_")}
