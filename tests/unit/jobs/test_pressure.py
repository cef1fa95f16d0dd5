"""No model holds up requests to another: neither one that has no room, nor one that is slow."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from job_tools import QUICK, Running, job_config, new_job, running, until
from nerve.errors import ModelNotReady, QueueFull
from nerve.jobs.pace import Pace
from nerve.jobs.pressure import Pressure, room
from nerve.jobs.records import ClaimedJob, JobStore, Status
from nerve.jobs.runner import Answered
from nerve.jobs.stores import new_job_store

FINE = b'[["fine"]]'
QUEUED = 40


async def several(jobs: Running, model: str) -> list[str]:
    """Requests to it."""
    made = [new_job(model=model) for _ in range(QUEUED)]
    for job in made:
        await jobs.service.submit(job)
    return [job.request_id for job in made]


@pytest.mark.parametrize(
    "error",
    [ModelNotReady("slow", "", "LOADING", ""), QueueFull("slow", 8)],
    ids=["loading", "overloaded"],
)
async def test_a_model_without_room_holds_up_no_other(tmp_path: Path, error: Exception) -> None:
    """Its requests wait for as long as it takes; those to others are run at once."""

    async def work(claimed: ClaimedJob, deadline: float) -> Answered:
        if claimed.job.model == "slow":
            raise error
        return Answered("1", FINE)

    pace = QUICK._replace(busy_s=1000.0, busy_max_s=1000.0)
    async with running(job_config(tmp_path), work, pace=pace) as jobs:
        await several(jobs, "slow")

        async def postponed() -> bool:
            return jobs.value("nerve_async_attempts_total", outcome="postponed") > 0

        await until(postponed)
        for _ in range(2):
            job = new_job(model="fast")
            await jobs.service.submit(job)
            assert (await jobs.ended(job.request_id)).status is Status.SUCCEEDED
        assert (await jobs.service.counts("slow")).queued == QUEUED


async def test_all_that_waited_for_a_model_is_run_once_it_has_room(tmp_path: Path) -> None:
    """Also what was never tried, as others had been before it."""
    loaded, seen = asyncio.Event(), Counter[str]()

    async def work(claimed: ClaimedJob, deadline: float) -> Answered:
        seen[claimed.job.request_id] += 1
        if not loaded.is_set():
            raise ModelNotReady("slow", "", "LOADING", "")
        return Answered("1", FINE)

    async with running(job_config(tmp_path, async_max_in_progress=4), work) as jobs:
        made = await several(jobs, "slow")

        async def tried() -> bool:
            return seen.total() > QUEUED

        await until(tried)
        loaded.set()
        for request_id in made:
            assert (await jobs.ended(request_id)).status is Status.SUCCEEDED


class Slow:
    """A store whose claims take longer than a model rests."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def claim(self, *args: Any, **named: Any) -> list[ClaimedJob]:
        await asyncio.sleep(2 * QUICK.busy_max_s)
        return await self._store.claim(*args, **named)


async def test_a_rest_that_ends_during_a_claim_is_over_after_it(tmp_path: Path) -> None:
    """The claim left its model out, and nothing in the store tells that it may be tried again."""
    left = 6

    async def work(claimed: ClaimedJob, deadline: float) -> Answered:
        nonlocal left
        left -= 1
        if left:
            raise ModelNotReady("slow", "", "LOADING", "")
        return Answered("1", FINE)

    config = job_config(tmp_path)
    async with running(config, work, store=Slow(new_job_store(config))) as jobs:
        job = new_job()
        await jobs.service.submit(job)
        assert (await jobs.ended(job.request_id)).status is Status.SUCCEEDED


async def test_a_slow_model_does_not_take_all_places(tmp_path: Path) -> None:
    """What only waits in it leaves some to requests to others."""
    done, held = asyncio.Event(), Counter[str]()

    async def work(claimed: ClaimedJob, deadline: float) -> Answered:
        held[claimed.job.model] += 1
        if claimed.job.model == "slow":
            await done.wait()
        return Answered("1", FINE)

    async with running(job_config(tmp_path, async_max_in_progress=8), work) as jobs:
        slow = await several(jobs, "slow")

        async def taken() -> bool:
            return held["slow"] == 6

        await until(taken)
        for request_id in await several(jobs, "fast"):
            assert (await jobs.ended(request_id)).status is Status.SUCCEEDED
        assert held["slow"] == 6
        assert (await jobs.service.counts("slow")).in_progress == 6
        done.set()
        for request_id in slow:
            assert (await jobs.ended(request_id)).status is Status.SUCCEEDED


def fill(held: Counter[str], places: int, *models: str) -> Counter[str]:
    """Give places to models that all want more, in turn, until none may be given."""
    while True:
        free = places - held.total()
        may = room(held, free, ())
        wanting = [model for model in models if model not in may.without]
        if not may.limit or not wanting:
            return held
        held.update(wanting[turn % len(wanting)] for turn in range(may.limit))


@pytest.mark.parametrize("places", [1, 2, 3, 4, 5, 8, 32, 33, 1024])
def test_a_model_has_its_share_of_places(places: int) -> None:
    """Three quarters if it is alone; who comes then finds a place."""
    held = fill(Counter(), places, "a")
    assert held["a"] == math.ceil(places * 3 / 4)
    held = fill(held, places, "b")
    assert (held["b"] > 0) == (places >= 4)
    assert held.total() <= places


def test_the_greediest_is_who_gets_all_that_is_claimed() -> None:
    """A claim does not say whom it will be for: nobody may get more than its share by it."""
    for places in range(1, 40):
        held: Counter[str] = Counter()
        while True:
            free = places - held.total()
            may = room(held, free, ())
            greedy = [model for model in ("a", "b", "c") if model not in may.without]
            if not may.limit or not greedy:
                break
            most = max(greedy, key=lambda model: held[model])
            for _ in range(may.limit):
                assert held[most] < 3 * free
                held[most], free = held[most] + 1, free - 1
        assert held.total() <= places


def test_models_that_are_busy_have_as_much() -> None:
    held = fill(Counter(), 32, "a", "b")
    assert abs(held["a"] - held["b"]) <= 2
    assert held.total() >= 26


def test_models_that_rest_get_no_place() -> None:
    assert room({"a": 2}, 6, {"b"}) == (4, frozenset({"b"}))
    assert room({"a": 6}, 2, {"b"}) == (2, frozenset({"a", "b"}))
    assert room({"b": 5}, 3, {"b"}) == (3, frozenset({"b"}))
    assert room({}, 0, ()).limit == 0


def test_a_model_rests_for_longer_each_time_that_it_has_no_room() -> None:
    """Those that were tried together count once; another model is not concerned."""
    pressure = Pressure(Pace(busy_s=1.0, busy_max_s=5.0))
    assert (pressure.resting(0.0), pressure.rested_at(0.0)) == (frozenset(), math.inf)
    assert [pressure.full("a", now) for now in (0.0, 0.25)] == [1.0, 0.75]
    assert pressure.full("b", 0.75) == 1.0
    assert pressure.resting(0.75) == {"a", "b"}
    assert pressure.rested_at(0.75) == 1.0
    assert pressure.resting(1.0) == {"b"}
    assert pressure.rested_at(1.0) == 1.75
    rests, now = [], 1.0
    for _ in range(4):
        rests.append(pressure.full("a", now))
        assert pressure.resting(now) >= {"a"}
        now += rests[-1]
    assert rests == [2.0, 4.0, 5.0, 5.0]


def test_a_model_that_has_room_starts_anew() -> None:
    """But not by what was begun before it rested."""
    pressure = Pressure(Pace(busy_s=1.0, busy_max_s=5.0))
    pressure.full("a", 0.0)
    pressure.room("a", 0.5)
    assert pressure.resting(0.5) == {"a"}
    assert pressure.full("a", 1.0) == 2.0
    pressure.room("a", 3.0)
    assert pressure.full("a", 3.0) == 1.0


def test_models_that_nobody_asks_for_are_forgotten() -> None:
    """They come and go; one that is asked for in time is remembered."""
    pressure = Pressure(Pace(busy_s=1.0, busy_max_s=5.0))
    for model in ("a", "b"):
        pressure.full(model, 0.0)
    assert pressure.resting(5.5) == frozenset()
    assert pressure.full("a", 5.5) == 2.0
    assert pressure.resting(6.0) == {"a"}
    assert pressure.full("b", 6.0) == 1.0
