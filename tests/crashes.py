"""Servers that are killed while requests are submitted, worked on and delivered; and what came of them.

For a test, and for the longer run in benchmarks/async_crashes.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from later import Message, Receiver, receiving
from nerve.config.server import ServerConfig
from nerve.jobs.records import JobRecord, NewJob, Status, WebhookStatus
from nerve.jobs.stores import new_job_store

SECRET: Final = "the-secret-of-crashes"
TEXTS: Final = tuple(f"{who} lived in {where}" for who in ("Ada", "Bob", "Zoë") for where in (
    "London", "Paris", "Rome", "Berlin", "Warsaw",
))  # fmt: skip
CALLERS: Final = 8
CANCEL_EVERY, EXPIRED_AT_ONCE = 100, 5
PATIENCE_S: Final = 120.0
GONE: Final = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen: kills are spread over the submissions, one server at a time."""

    repository: Path
    """With a model `bert`."""
    folder: Path
    store: str
    requests: int
    kills: int
    servers: int = 1
    """More than one want a store that can be shared."""


@dataclass(slots=True)
class Outcome:
    """What came of it; `faults` should be empty."""

    accepted: int
    statuses: Counter[str]
    messages: int
    twice: int
    """Messages that came again."""
    seconds: float
    faults: list[str]


class Servers:
    """The daemons: each is killed and started again, on another port."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._secrets = plan.folder / "secrets"
        self._secrets.write_text(SECRET)
        self._secrets.chmod(0o600)
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self.urls: dict[int, str] = {}
        self._changed = asyncio.Event()

    async def start(self, number: int) -> None:
        """Return when it is ready."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "nerve", "serve", str(self._plan.repository),
            "--http-hostname", "127.0.0.1", "--http-port", "0", "--disable-grpc",
            "--no-prove-models", "--default-model", "bert", "--log-level", "error",
            "--async-store", self._plan.store, "--async-webhook-secrets-file", str(self._secrets),
            "--async-webhook-networks", "127.0.0.0/8",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._processes[number] = process
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while not (line := (await process.stdout.readline()).decode()).startswith("{"):
                assert line, f"server {number} ended with {await process.wait()}"
        self.urls[number] = f"http://127.0.0.1:{json.loads(line)['ports']['http']}"
        self._changed.set()

    async def kill(self, number: int) -> None:
        """As the kernel does where memory is short."""
        self.urls.pop(number, None)
        self._processes[number].kill()
        await self._processes[number].wait()

    async def url(self) -> str:
        """Of one that is up."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.urls:
                self._changed.clear()
                await self._changed.wait()
        return next(iter(self.urls.values()))

    async def stop(self) -> list[int]:
        """Their exit codes."""
        for process in self._processes.values():
            if process.returncode is None:
                process.terminate()
        return list(await asyncio.gather(*(each.wait() for each in self._processes.values())))

    def end(self) -> None:
        """Leave nothing behind."""
        for process in self._processes.values():
            if process.returncode is None:
                process.kill()


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan, servers: Servers, receiver: Receiver) -> None:
        self._plan, self._servers, self._receiver = plan, servers, receiver
        self._accepted: dict[str, str] = {}
        """Texts by request."""
        self._canceled: set[str] = set()
        self._expired: set[str] = set()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))

    async def aclose(self) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask whoever is up until there is an answer other than to come again."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    url = await self._servers.url()
                    async with self._session.request(method, url + path, json=body) as answer:
                        told = await answer.json()
                        if answer.status not in (429, 503):
                            return answer.status, told
                except GONE:
                    pass
                await asyncio.sleep(0.05)

    async def submit_all(self) -> None:
        """As several callers do, who try again what was not accepted."""
        numbers = iter(range(self._plan.requests))

        async def call() -> None:
            for number in numbers:
                await self._submit(number)

        await asyncio.gather(*(call() for _ in range(CALLERS)))

    async def _submit(self, number: int) -> None:
        text = TEXTS[number % len(TEXTS)]
        body = {
            "model_input": {"inputs": text, "aggregation_strategy": "simple"},
            "webhook_endpoint": f"{self._receiver.url}/ok",
            "priority": number % 3,
        }
        status, told = await self.ask("POST", "/async_predict", body)
        assert status == 201, told
        self._accepted[told["request_id"]] = text
        if number % CANCEL_EVERY == 0:
            _, told = await self.ask("DELETE", f"/async_request/{told['request_id']}")
            if told["canceled"] or told["message"] == "the request was canceled before":
                self._canceled.add(told["request_id"])

    async def kill_all(self) -> None:
        """Kill a server whenever so many more were accepted, and start it again."""
        plan = self._plan
        for number in range(plan.kills):
            while len(self._accepted) < plan.requests * (number + 1) // (plan.kills + 1):
                await asyncio.sleep(0.01)
            victim = number % plan.servers
            await self._servers.kill(victim)
            if number == 0:
                await self._leave_expired()
            await self._servers.start(victim)

    async def _leave_expired(self) -> None:
        """Requests whose time was over while their server was down."""
        store = new_job_store(ServerConfig(async_store=self._plan.store))
        await store.open()
        try:
            now = time.time()
            for _ in range(EXPIRED_AT_ONCE):
                request_id = f"{time.time_ns():032x}"
                self._expired.add(request_id)
                await store.add(NewJob(
                    request_id=request_id, key=None, model="bert", version=None,
                    body=b'{"inputs":["Ada"]}', webhook=f"{self._receiver.url}/ok", priority=0,
                    created_at=now - 11, expires_at=now - 1, max_attempts=3,
                    initial_delay_s=1, max_delay_s=5,
                ))  # fmt: skip
        finally:
            await store.aclose()

    async def judge(self, began: float) -> Outcome:
        """Wait for all that is to come, end the servers, then look at everything."""
        expected = {text: await self._at_once(text) for text in TEXTS}
        await self._delivered()
        codes = await self._servers.stop()
        records = await self._records()
        ends = Counter("lost" if each is None else each.status.value for each in records.values())
        got = Counter(message.request_id for message in self._receiver.messages)
        return Outcome(
            accepted=len(self._accepted),
            statuses=ends,
            messages=got.total(),
            twice=got.total() - len(got),
            seconds=time.monotonic() - began,
            faults=[
                *(f"a server ended with {code}" for code in codes if code not in (0, -9)),
                *(
                    fault
                    for each in self._receiver.messages
                    if (fault := self._wrong(each, expected))
                ),
                *(
                    fault
                    for request_id, record in records.items()
                    if (fault := self._fate(request_id, record, got[request_id]))
                ),
            ],
        )

    def _wrong(self, message: Message, expected: Mapping[str, Any]) -> str:
        """What is wrong with a message, "" if nothing is."""
        request_id, told = message.request_id, message.told
        text = self._accepted.get(request_id)
        if not message.signed_by(SECRET):
            return f"{request_id}: the signature is wrong"
        if request_id in self._expired and (told["data"] is not None or not told["errors"]):
            return f"{request_id}: expired, and its message does not say so"
        if text is not None and told["data"] != expected[text]:
            return f"{request_id}: the answer is wrong"
        return ""

    def _fate(self, request_id: str, record: JobRecord | None, messages: int) -> str:
        """What is wrong with how a request ended, "" if nothing is."""
        due = (Status.SUCCEEDED, WebhookStatus.SUCCEEDED, True)
        if request_id in self._canceled:
            due = (Status.CANCELED, WebhookStatus.CANCELED, False)
        if request_id in self._expired:
            due = (Status.EXPIRED, WebhookStatus.SUCCEEDED, True)
        if record is None:
            return f"{request_id}: lost"
        if (record.status, record.webhook_status, messages > 0) == due:
            return ""
        return f"{request_id}: {record.status}, {record.webhook_status}, {messages} messages"

    async def _at_once(self, text: str) -> Any:
        body = {"inputs": text, "aggregation_strategy": "simple"}
        return (await self.ask("POST", "/predict_tokens", body))[1]

    async def _delivered(self) -> None:
        """Wait until there is a message of each request, or for as long as there is patience."""
        due = {*self._accepted, *self._expired} - self._canceled
        by = time.monotonic() + PATIENCE_S
        while due and time.monotonic() < by:
            await asyncio.sleep(0.1)
            due -= {message.request_id for message in self._receiver.messages}

    async def _records(self) -> dict[str, JobRecord | None]:
        """What the store says of each request when no server is up."""
        store = new_job_store(ServerConfig(async_store=self._plan.store))
        await store.open()
        try:
            ids = [*self._accepted, *self._expired]
            return {each: await store.record(each) for each in ids}
        finally:
            await store.aclose()


async def crash(plan: Plan) -> Outcome:
    """Carry a plan out."""
    began = time.monotonic()
    async with receiving() as receiver:
        servers = Servers(plan)
        run = Run(plan, servers, receiver)
        try:
            await asyncio.gather(*(servers.start(each) for each in range(plan.servers)))
            await asyncio.gather(run.submit_all(), run.kill_all())
            outcome = await run.judge(began)
        finally:
            servers.end()
            await run.aclose()
    return outcome
