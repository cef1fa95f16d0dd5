"""Requests that are answered later, for tests: how they are made, worked on, waited for and received."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry

from nerve.config.server import ServerConfig, load_server_config
from nerve.errors import StoreFailed
from nerve.jobs.pace import Pace
from nerve.jobs.records import ClaimedJob, JobRecord, JobStore, NewJob, Status, WebhookStatus
from nerve.jobs.runner import Answered
from nerve.jobs.service import JobService
from nerve.jobs.stores import new_job_store
from nerve.metrics.jobs import JobMetrics

PATIENCE_S = 60.0
QUICK = Pace(
    lease_s=30.0,
    poll_s=0.05,
    counts_s=0.05,
    sweep_s=0.05,
    store_s=0.01,
    store_max_s=0.05,
    busy_s=0.01,
    busy_max_s=0.05,
    webhook_s=0.01,
    webhook_max_s=0.05,
    slow_s=0.1,
    postponed_max_s=0.5,
)
"""As the server's, and fast."""
ENDED = frozenset(Status) - {Status.QUEUED, Status.IN_PROGRESS}


def new_job(**given: Any) -> NewJob:
    """A request like most."""
    now = time.time()
    return NewJob(
        **{
            "request_id": uuid4().hex,
            "key": None,
            "model": "ner",
            "version": None,
            "body": b'{"inputs":[["Ada"]]}',
            "webhook": None,
            "priority": 0,
            "created_at": now,
            "expires_at": now + 600,
            "max_attempts": 3,
            "initial_delay_s": 0.01,
            "max_delay_s": 0.02,
        }
        | given
    )


def job_config(folder: Path, **given: Any) -> ServerConfig:
    """Of a server with a store in the folder, whose webhooks may be on this machine."""
    settings = {
        "async_store": str(folder / "jobs.db"),
        "async_webhook_networks": ["127.0.0.0/8"],
    }
    return load_server_config(settings | given, {}, None)


class Worker:
    """Does what it is told for each attempt, and notes them."""

    def __init__(self, *outcomes: Exception | bytes | Callable[[], Awaitable[bytes]]) -> None:
        """One an attempt; the last for all that follow."""
        self.outcomes = list(outcomes) or [b'[["fine"]]']
        self.seen: list[ClaimedJob] = []
        self.together = self.most_together = 0

    async def __call__(self, claimed: ClaimedJob, deadline: float) -> Answered:
        assert deadline > time.monotonic()
        self.seen.append(claimed)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        try:
            if isinstance(outcome, Exception):
                raise outcome
            body = outcome if isinstance(outcome, bytes) else await outcome()
        finally:
            self.together -= 1
        return Answered("7", body)


@dataclass
class Running:
    """A service, and what it counts."""

    service: JobService
    store: JobStore
    registry: CollectorRegistry

    def value(self, name: str, **labels: str) -> float:
        """Of a series; 0 without one."""
        return self.registry.get_sample_value(name, labels) or 0.0

    async def when(
        self, request_id: str, told: Callable[[JobRecord], bool], *, key: str | None = None
    ) -> JobRecord:
        """The record, once that is so of it."""
        found: list[JobRecord] = []

        async def look() -> bool:
            found[:] = [await self.service.status(request_id, key)]
            return told(found[0])

        await until(look)
        return found[0]

    async def ended(self, request_id: str) -> JobRecord:
        """The record, once it has ended and its webhook has been told."""
        return await self.when(
            request_id,
            lambda record: (
                record.status in ENDED and record.webhook_status is not WebhookStatus.PENDING
            ),
        )


@asynccontextmanager
async def running(
    config: ServerConfig,
    work: Callable[[ClaimedJob, float], Awaitable[Answered]],
    *,
    store: JobStore | None = None,
    pace: Pace = QUICK,
    close_s: float = PATIENCE_S,
) -> AsyncIterator[Running]:
    """A service that works."""
    registry = CollectorRegistry()
    store = store or new_job_store(config)
    service = JobService(store, config, JobMetrics(registry), work=work, pace=pace)
    await service.start()
    try:
        yield Running(service, store, registry)
    finally:
        await service.aclose(close_s)


async def until(told: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not await told():
            await asyncio.sleep(0.01)


class Failing:
    """A store whose calls fail while it is `down`, before or after they were written."""

    def __init__(self, store: JobStore, *, shared: bool | None = None) -> None:
        self._store, self.down, self.calls = store, False, 0
        self.failed_at = 0.0
        self.shared = store.shared if shared is None else shared
        self.after: set[str] = set()
        """What is done and fails all the same, once each, where it did something."""

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)

        async def call(*args: object, **named: object) -> object:
            if self.down and name not in ("open", "aclose"):
                self.calls, self.failed_at = self.calls + 1, time.monotonic()
                raise StoreFailed("disk I/O error")
            result = await real(*args, **named)
            if result and name in self.after:
                self.after.remove(name)
                raise StoreFailed("no answer")
            return result

        return call


async def die_with(store: JobStore, owner: str) -> None:
    """A server that is killed while it works on all that it can get."""
    await store.open()
    now = time.time()
    await store.recover(frozenset({owner}), now, 5)
    for alone in (True, False):
        await store.claim(owner, now, 30.0, 100, alone=alone)
    await store.aclose()


async def killed(folder: Path, times: int, *made: NewJob) -> None:
    """Accept requests, and be killed with them that often."""
    config = job_config(folder)
    store = new_job_store(config)
    await store.open()
    for job in made:
        await store.add(job)
    await store.aclose()
    for number in range(times):
        await die_with(new_job_store(config), f"gone {number}")


@dataclass
class Receiver:
    """A webhook: answers with statuses in turn, the last one for ever, and keeps what it got."""

    statuses: list[int] = field(default_factory=lambda: [200])
    got: list[tuple[bytes, dict[str, str]]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    """Answers only once it is set."""
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        """A message."""
        self.got.append((await request.read(), dict(request.headers)))
        if self.gate is not None:
            await self.gate.wait()
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.Response(status=status, headers={"Location": self.url} if status < 400 else {})

    def messages(self) -> list[dict[str, Any]]:
        """Parsed."""
        return [orjson.loads(body) for body, _ in self.got]


@asynccontextmanager
async def receiving(receiver: Receiver, host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    """A real server for it, by plain http."""
    app = web.Application(client_max_size=2**30)
    app.router.add_post("/hook", receiver.take)
    server = TestServer(app, host=host, shutdown_timeout=0.1)
    await server.start_server()
    receiver.url = str(server.make_url("/hook?token=s3cret"))
    try:
        yield receiver
    finally:
        if receiver.gate is not None:
            receiver.gate.set()
        await server.close()


def signed(body: bytes, secrets: Iterable[str]) -> str:
    """The header that a receiver expects, computed as Baseten's documentation does."""
    values = (hmac.new(each.encode(), body, hashlib.sha256).hexdigest() for each in secrets)
    return ",".join(f"v1={value}" for value in values)
