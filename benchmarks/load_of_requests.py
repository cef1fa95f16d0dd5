"""Callers that keep asking models for known answers, and judge every answer that they get."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson
from aiohttp import ClientError, ClientSession
from placing import Placing
from variants import TEXTS, Variant

TEXTS_OF_A_BATCH: Final = 4
REQUEST_S: Final = 30.0
KNOWN_BODIES: Final = 50_000


@dataclass(slots=True)
class Generation:
    """One state of a model folder. A broken one has no variant: no answer may come from it."""

    number: int
    variant: Variant | None
    version: int
    served: asyncio.Event = field(default_factory=asyncio.Event)
    first_answer: float = 0.0


@dataclass(slots=True)
class Target:
    """A model under load. Its answers come from generation `floor`, or from a later one."""

    name: str
    placing: Placing
    generations: list[Generation] = field(default_factory=list)
    floor: int = 0

    def begin(self, variant: Variant | None, version: int) -> Generation:
        """Note that a generation is about to be placed: from now on it may answer."""
        generation = Generation(len(self.generations), variant, version)
        self.generations.append(generation)
        return generation


@dataclass(slots=True)
class Tally:
    """What came of the requests of a while."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Callers:
    """A closed loop of callers, each with one connection. `targets` may change at any time."""

    def __init__(
        self, http: ClientSession, url: str, variants: Sequence[Variant], *, think_s: float
    ) -> None:
        self.targets: Sequence[Target] = ()
        self.tally = Tally()
        """Requests count in the tally that is here when they begin."""
        self._http, self._url, self._variants, self._think_s = http, url, variants, think_s
        self._known: dict[tuple[tuple[int, ...], bytes], Variant] = {}

    async def call(self, number: int) -> None:
        """One caller, until cancelled."""
        choose = random.Random(number)
        while True:
            if self.targets:
                target = choose.choice(self.targets)
                size = TEXTS_OF_A_BATCH if choose.random() < 0.25 else 1
                await self._ask(target, tuple(choose.choices(range(len(TEXTS)), k=size)))
            await asyncio.sleep(self._think_s * choose.uniform(0.5, 1.5))

    async def _ask(self, target: Target, texts: tuple[int, ...]) -> None:
        tally, floor = self.tally, target.floor
        body = {"inputs": [TEXTS[text] for text in texts], "raw_scores": True, "ignore_labels": []}
        url = f"{self._url}/v1/models/{target.name}/predict_tokens"
        began = time.perf_counter()
        try:
            async with asyncio.timeout(REQUEST_S), self._http.post(url, json=body) as response:
                answer = await response.read()
        except (ClientError, TimeoutError, OSError) as error:
            tally.failed.append(f"{target.name}: {type(error).__name__}: {error}")
            return
        ended = time.perf_counter()
        tally.seconds.append(ended - began)
        if response.status != 200:
            tally.failed.append(f"{target.name}: {response.status} {answer[:200]!r}")
            return
        version = int(response.headers["x-nerve-model-version"])
        fault = self._judge(target, self._whose(texts, answer), version, floor, ended)
        if fault:
            tally.wrong.append(f"{target.name}: {fault}")

    def _whose(self, texts: tuple[int, ...], answer: bytes) -> Variant | None:
        """The variant that gave all of an answer; None if none did."""
        known = self._known.get((texts, answer))
        if known is not None:
            return known
        try:
            rows = orjson.loads(answer)
        except orjson.JSONDecodeError:
            return None
        for variant in self._variants:
            if len(rows) == len(texts) and all(map(variant.gave, texts, rows)):
                if len(self._known) < KNOWN_BODIES:
                    self._known[texts, answer] = variant
                return variant
        return None

    @staticmethod
    def _judge(
        target: Target, variant: Variant | None, version: int, floor: int, now: float
    ) -> str:
        """Why an answer is wrong, empty if it is right: one whole generation that was in place.

        `floor` is the newest one that had answered when the request began.
        """
        if variant is None:
            return f"the answer of no variant (version {version}), after generation {floor}"
        for generation in reversed(target.generations[floor:]):
            if generation.variant is variant and generation.version == version:
                target.floor = max(target.floor, generation.number)
                if not generation.served.is_set():
                    generation.first_answer = now
                    generation.served.set()
                return ""
        newest = len(target.generations) - 1
        return (
            f"an answer of variant {variant.number}, version {version}, which is none of "
            f"generations {floor} to {newest}"
        )
