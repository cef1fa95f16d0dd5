"""Many cases sent to one daemon, each judged; `aftermath` judges the daemon."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import grpc

from fuzz.grpc_cases import GrpcCase, grpc_case
from fuzz.http_cases import HttpCase, http_case
from fuzz.senders import Answer, GrpcSender, HttpSender
from fuzz.serving import Fuzzed

WORKERS: Final = 12
"""Half of them send over HTTP, half over gRPC."""
CHANNELS: Final = 3
GOOD: Final = frozenset({"200", "202", "OK", "left"})
"""Statuses of cases that were served; "left" is a stream that its client left."""
MANY: Final = 40
Case = HttpCase | GrpcCase


def case_of(seed: int, number: int) -> Case:
    """The case with this number: the same whatever ran before it. Pure."""
    rng = Random(f"{seed}:{number}")
    return http_case(rng) if number % 2 == 0 else grpc_case(rng)


@dataclass(slots=True)
class Failure:
    """A case with an answer that it should not have; `number` runs it again."""

    number: int
    case: Case
    problem: str

    def __str__(self) -> str:
        shown = (
            self.case.body if isinstance(self.case, HttpCase) else b" | ".join(self.case.messages)
        )
        where = self.case.path if isinstance(self.case, HttpCase) else self.case.method
        return f"case {self.number}: {where}: {self.problem}\n    sent: {shown[:300]!r}"


@dataclass(slots=True)
class Outcome:
    """What came of the cases."""

    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    slowest_s: dict[str, float] = field(default_factory=dict)
    took_s: float = 0.0

    def note(self, number: int, case: Case, answer: Answer, took_s: float) -> None:
        """Count one."""
        self.statuses.setdefault(case.door, Counter())[answer.status] += 1
        self.slowest_s[case.door] = max(took_s, self.slowest_s.get(case.door, 0.0))
        if answer.problem is not None:
            self.failures.append(Failure(number, case, answer.problem))

    @property
    def count(self) -> int:
        """Cases that were sent."""
        return sum(sum(counts.values()) for counts in self.statuses.values())

    def doors_without_success(self) -> list[str]:
        """Doors where each of many cases was refused: mutations there are too coarse to show anything.

        Shared memory is always refused.
        """
        return sorted(
            door
            for door, counts in self.statuses.items()
            if sum(counts.values()) >= MANY and not GOOD & counts.keys() and "Register" not in door
        )


@dataclass(slots=True)
class Senders:
    """Clients of one daemon."""

    http: list[HttpSender]
    grpc: list[GrpcSender]

    async def send(self, case: Case, worker: int) -> Answer:
        """By the client of that worker."""
        if isinstance(case, HttpCase):
            return await self.http[worker % len(self.http)].send(case)
        return await self.grpc[worker % len(self.grpc)].send(case)


@asynccontextmanager
async def clients(daemon: Fuzzed) -> AsyncIterator[Senders]:
    """Clients that leave when the block ends."""
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    channels: list[Any] = [
        grpc.aio.insecure_channel(f"127.0.0.1:{daemon.grpc_port}", options=options)
        for _ in range(CHANNELS)
    ]
    senders = Senders(
        [HttpSender(daemon.http_port) for _ in range(WORKERS)],
        [GrpcSender(each) for each in channels],
    )
    try:
        yield senders
    finally:
        for each in senders.http:
            await each.close()
        for channel in channels:
            await channel.close()


async def send_all(daemon: Fuzzed, *, seed: int, numbers: range) -> Outcome:
    """Send the cases of these numbers, a few at a time."""
    outcome, began = Outcome(), time.monotonic()
    left: Iterator[int] = iter(numbers)

    async def work(worker: int, senders: Senders) -> None:
        for number in left:
            case, at = case_of(seed, number), time.monotonic()
            outcome.note(number, case, await senders.send(case, worker), time.monotonic() - at)

    async with clients(daemon) as senders, asyncio.TaskGroup() as group:
        for worker in range(WORKERS):
            group.create_task(work(worker, senders))
    outcome.took_s = time.monotonic() - began
    return outcome
