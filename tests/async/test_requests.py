"""A daemon that works on one request at a time, and what becomes of those that wait. In these tests, in
this order, they wait behind some that take 10 s each, or until the last test lets them go."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from faults.mistreated import calm, serving
from later import Later, Receiver

BLOCKERS, MOST_QUEUED = 4, 12
pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(slots=True)
class Blocked:
    """A client of the daemon; `blockers` are in progress one by one, `expiring` waits behind them."""

    later: Later
    webhook: str
    blockers: list[str] = field(default_factory=list)
    expiring: str = ""
    waiting: dict[int, str] = field(default_factory=dict)
    """By priority."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def blocked(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, receiver: Receiver
) -> AsyncIterator[Blocked]:
    folder = tmp_path_factory.mktemp("blocked")
    log = folder / "stderr"
    arguments = (
        "--async-store", str(folder / "jobs.db"), "--default-model", "bert",
        "--async-max-in-progress", "1", "--async-max-queued", str(MOST_QUEUED),
        "--async-webhook-networks", "127.0.0.0/8",
    )  # fmt: skip
    async with (
        serving(repository, log, *arguments) as daemon,
        aiohttp.ClientSession(daemon.url) as http,
    ):
        yield Blocked(Later(http), f"{receiver.url}/ok")
        daemon.terminate()
        assert await daemon.ended() == 0
    calm(log.read_text())


async def test_the_life_of_a_request(blocked: Blocked, receiver: Receiver) -> None:
    """Queued, in progress, answered, delivered; times go on, and the answer is the sync one."""
    later = blocked.later
    request_id = await later.submit("Ada lived in London", webhook_endpoint=blocked.webhook)
    told = await later.until(request_id, "SUCCEEDED", webhook="SUCCEEDED")
    assert (told["model_id"], told["deployment_id"], told["errors"]) == ("bert", "1", [])
    assert told["created_at"] <= told["status_at"]
    at_once = await later.predict("Ada lived in London")
    assert await later.result(request_id) == (200, at_once)
    message = await receiver.first(request_id)
    assert message.headers["CONTENT-TYPE"] == "application/json"
    assert "X-BASETEN-SIGNATURE" not in message.headers  # there is no secret
    body = message.told
    assert body.pop("time").startswith(told["created_at"][:10])
    assert body == {
        "request_id": request_id,
        "model_id": "bert",
        "deployment_id": "1",
        "type": "async_request_completed",
        "data": at_once,
        "errors": [],
    }


async def test_one_is_in_progress_and_the_others_wait(blocked: Blocked) -> None:
    """What is asked of them meanwhile: there is no result yet."""
    later, hook = blocked.later, {"webhook_endpoint": blocked.webhook}
    for _ in range(BLOCKERS):
        blocked.blockers.append(await later.submit("Ada", model="patient"))
    await later.until(blocked.blockers[0], "IN_PROGRESS")
    blocked.expiring = await later.submit("Bob", max_time_in_queue_seconds=10, **hook)
    told = await later.status(blocked.expiring)
    assert (told["status"], told["webhook_status"]) == ("QUEUED", "PENDING")
    for request_id, state in ((blocked.blockers[0], "IN_PROGRESS"), (blocked.expiring, "QUEUED")):
        status, body = await later.result(request_id)
        assert status == 409
        assert body["error"] == f"async request '{request_id}' is {state}"
    assert await later.queue("patient") == {"queued": BLOCKERS - 1, "in_progress": 1}
    assert await later.queue() == {"queued": 1, "in_progress": 0}


async def test_only_what_waits_can_be_canceled(blocked: Blocked) -> None:
    later = blocked.later
    request_id = await later.submit("Bob", webhook_endpoint=blocked.webhook)
    assert await later.cancel(request_id) == {
        "request_id": request_id,
        "canceled": True,
        "message": "the request is canceled",
    }
    told = await later.status(request_id)
    assert (told["status"], told["webhook_status"]) == ("CANCELED", "CANCELED")
    again = await later.cancel(request_id)
    assert (again["canceled"], again["message"]) == (False, "the request was canceled before")
    assert (await later.result(request_id))[0] == 409
    assert not (await later.cancel(blocked.blockers[0]))["canceled"]
    assert (await later.status(blocked.blockers[0]))["status"] in ("IN_PROGRESS", "SUCCEEDED")


async def test_no_more_than_the_limit_wait(blocked: Blocked) -> None:
    """One more is refused at once, and told when to come again."""
    later = blocked.later
    for priority in itertools.cycle((2, 1, 0)):
        body = {"model_input": {"inputs": "Bob"}, "priority": priority}
        async with later.http.post("/async_predict", json=body) as answer:
            told: dict[str, Any] = await answer.json()
            if answer.status != 201:
                break
        blocked.waiting.setdefault(priority, told["request_id"])
    assert (answer.status, told["error_type"]) == (429, "Overloaded")
    assert int(answer.headers["Retry-After"]) >= 1
    assert f"keeps {MOST_QUEUED} queued async requests already" in told["error"]
    queued = [(await later.queue(model))["queued"] for model in ("bert", "patient")]
    assert MOST_QUEUED - 1 <= sum(queued) <= MOST_QUEUED  # if another blocker has begun just now


async def test_what_waits_for_too_long_expires(blocked: Blocked, receiver: Receiver) -> None:
    """It is never run, and its webhook is told."""
    later = blocked.later
    told = await later.until(blocked.expiring, "EXPIRED", webhook="SUCCEEDED")
    message = (await receiver.first(blocked.expiring)).told
    assert message["data"] is None
    assert message["errors"] == told["errors"]
    assert len(told["errors"]) == 1
    status, body = await later.result(blocked.expiring)
    assert (status, body["error"].split(":")[0].split(" ")[-1]) == (409, "EXPIRED")


async def test_what_is_urgent_goes_first(blocked: Blocked) -> None:
    """By priority, when there is room at last: what is in progress needed a second text."""
    later = blocked.later

    async def keep_company() -> None:
        while True:
            await later.send("POST", "/v1/models/patient/predict_tokens", {"inputs": "Bob"})

    company = asyncio.create_task(keep_company())
    for blocker in blocked.blockers:
        await later.until(blocker, "SUCCEEDED")
    company.cancel()
    await asyncio.gather(company, return_exceptions=True)
    ends = [
        (await later.until(blocked.waiting[priority], "SUCCEEDED"))["status_at"]
        for priority in (0, 1, 2)
    ]
    assert ends == sorted(ends)
    assert (await later.status(blocked.blockers[-1]))["status_at"] <= ends[0]
