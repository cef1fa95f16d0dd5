"""Time limits and priorities on their way to the model."""

from __future__ import annotations

import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fake_models import PATIENCE_S, World, until, world
from nerve.config.server import ServerConfig
from nerve.metrics.requests import RequestMetrics
from nerve.service.inference import Call, InferenceService, SpanRequest
from nerve.service.shadow import COPY_PRIORITY
from nerve.words import OffsetUnit, Strategy

NOW = 1000.0


def service(made: World, **settings: Any) -> InferenceService:
    config = ServerConfig.model_validate(settings)
    return InferenceService(
        made.catalog, config=config, metrics=RequestMetrics(CollectorRegistry())
    )


async def ask(served: InferenceService, call: Call) -> None:
    """Both questions."""
    await served.spans(call, SpanRequest(["Ada"], Strategy.FIRST))
    await served.tokens(call, ["Ada"], offset_unit=None, default_unit=OffsetUnit.BYTE)


@pytest.mark.parametrize(("timeout_s", "expected"), [(None, 8.0), (3.0, 3.0), (99.0, 8.0)])
async def test_a_caller_can_only_lower_the_servers_limit(
    timeout_s: float | None, expected: float
) -> None:
    async with world() as made:
        served = service(made, request_timeout_s=8)
        assert served.deadline(NOW, timeout_s=timeout_s) == NOW + expected


@pytest.mark.parametrize(
    ("deadline", "timeout_us", "expected"),
    [
        (NOW + 8, None, NOW + 8),
        (NOW + 8, 2_500_000, NOW + 2.5),
        (NOW + 1, 2_500_000, NOW + 1),
        (None, 2_500_000, NOW + 2.5),
        (None, None, None),
    ],
)
async def test_the_models_limit_counts_from_the_arrival(
    deadline: float | None, timeout_us: int | None, expected: float | None
) -> None:
    async with world() as made:
        batching = {"default_timeout_microseconds": timeout_us}
        await made.apply("ner", {1: "one"}, dynamic_batching=batching)
        await ask(service(made), Call("ner", None, deadline, 8, arrived=NOW))
        assert made.model("one").limits == [(expected, None)] * 2


@pytest.mark.parametrize("priority", [None, 1, 10])
async def test_priority_reaches_the_model(priority: int | None) -> None:
    async with world() as made:
        await made.apply("ner", {1: "one"})
        await ask(service(made), Call("ner", None, NOW, 8, priority=priority))
        assert made.model("one").limits == [(NOW, priority)] * 2


async def test_copies_for_a_shadow_version_go_last() -> None:
    """Whatever the request's own priority is."""
    async with world() as made:
        await made.apply("ner", {1: "one", 2: "two"}, shadow={"version": 2, "fraction": 1.0})
        served = service(made)
        await ask(served, Call("ner", None, time.monotonic() + PATIENCE_S, 8, priority=1))
        await until(lambda: len(made.model("two").limits) == 2)
        assert [priority for _, priority in made.model("one").limits] == [1, 1]
        assert [priority for _, priority in made.model("two").limits] == [COPY_PRIORITY] * 2
        await served.aclose()
