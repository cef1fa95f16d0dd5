"""The daemon before and after: what it says, what it holds, what it logged."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from dataclasses import dataclass
from typing import Any, Final

import grpc

from fuzz.campaign import Outcome, clients, send_all
from fuzz.http_cases import SERVING, TEXTS, VICTIM
from fuzz.serving import Fuzzed, Held
from nerve._proto.nerve.v1 import nerve_pb2 as nerve

CALM_S: Final = 30.0
"""How long the daemon may take to be as it was; clients themselves may need a stream's deadline."""
QUIET_S: Final = 2.5
SEED: Final = 7
WARM_UP: Final = 300
"""Cases before the daemon is first looked at: they start its threads and open what it opens once."""
MOST_GROWTH_BYTES: Final = 64 * 2**20
"""Of resident memory. If something of each case were kept, it would be more. Less is chance: bodies of
up to 4 MB are parsed in threads, and malloc keeps an arena for each thread as large as it once was."""


@dataclass(frozen=True, slots=True)
class Report:
    """A campaign, what the daemon held around it, and why that is not well, if it is not."""

    outcome: Outcome
    before: Held
    after: Held
    problems: list[str]


async def run(daemon: Fuzzed, *, cases: int, seed: int = SEED) -> Report:
    """Send cases 0 to `cases` and look what became of the daemon."""
    answers = await said(daemon)
    warm = await send_all(daemon, seed=seed, numbers=range(-WARM_UP, 0))
    await as_at_first(daemon)
    before = await settled(daemon, None)
    outcome = await send_all(daemon, seed=seed, numbers=range(cases))
    await as_at_first(daemon)
    after = await settled(daemon, before)
    problems = [str(failure) for failure in (*warm.failures, *outcome.failures)]
    problems += [f"no case for {door} went well" for door in outcome.doors_without_success()]
    problems += daemon.wild_lines()
    if await said(daemon) != answers:
        problems.append("valid requests are answered in another way than before")
    if after.exceeds(before):
        problems.append(f"something is left:\n  before {before}\n  after  {after}")
    if after.rss_bytes - before.rss_bytes > MOST_GROWTH_BYTES:
        grown = (after.rss_bytes - before.rss_bytes) / 2**20
        problems.append(f"resident memory grew by {grown:.0f} MiB")
    return Report(outcome, before, after, problems)


async def said(daemon: Fuzzed) -> tuple[object, ...]:
    """What valid requests are answered, over both transports."""
    text = {"inputs": list(TEXTS)}
    tensor = {"name": "TEXT", "shape": [len(TEXTS), 1], "datatype": "BYTES", "data": list(TEXTS)}
    asked = [
        (f"/v1/models/{SERVING[0]}/predict", text),
        (f"/v1/models/{SERVING[1]}/predict_tokens", text | {"aggregation_strategy": "simple"}),
        (f"/v2/models/{SERVING[0]}/infer", {"inputs": [tensor]}),
    ]
    answers: list[object] = []
    async with clients(daemon) as senders:
        for path, value in asked:
            response = await senders.http[0].post(path, json.dumps(value).encode())
            assert response.status == 200, (path, response)
            answers.append(json.loads(response.body))
        channel: Any  # its stubs know nothing of calls with bytes
        async with grpc.aio.insecure_channel(f"127.0.0.1:{daemon.grpc_port}") as channel:
            stub = channel.unary_unary("/nerve.v1.Nerve/Extract")
            body = await stub(
                nerve.ExtractRequest(model=SERVING[0], texts=TEXTS).SerializeToString()
            )
            answers.append(nerve.ExtractResponse.FromString(body))
    return tuple(answers)


async def as_at_first(daemon: Fuzzed) -> None:
    """Undo what cases change on purpose: the log's level, and the model that they load and unload."""
    async with clients(daemon) as senders:
        settings = {"log_verbose_level": 0, "log_info": True, "log_format": "default"}
        answer = await senders.http[0].post("/v2/logging", json.dumps(settings).encode())
        assert answer.status == 200, answer
        for verb in ("unload", "load"):
            body = b'{"parameters": {"wait": true}}' if verb == "unload" else b""
            answer = await senders.http[0].post(f"/v2/repository/models/{VICTIM}/{verb}", body)
            assert answer.status == 200, answer


async def settled(daemon: Fuzzed, before: Held | None) -> Held:
    """What the daemon holds when it is as it was, or when it had its time; for the first time, when
    nothing changes for longer than a session may be idle."""
    until = time.monotonic() + CALM_S
    last, since = await daemon.held(), time.monotonic()
    while time.monotonic() < until:
        if before is not None and not last.exceeds(before):
            break
        if before is None and time.monotonic() - since > QUIET_S:
            break
        await asyncio.sleep(0.25)
        gc.collect()  # a stream that ended while we wrote keeps its connection, in a cycle
        now = await daemon.held()
        if now.counts != last.counts:
            since = time.monotonic()
        last = now
    return last
