"""Time limits and priorities in the head of a request, on every inference route."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from api.conftest import Answer, Client, Repository, Serve

BODIES = {"predict": {"inputs": ["people"]}, "predict_tokens": {"inputs": "people"}}
ROUTES = [
    f"{prefix}/{route}"
    for prefix in ("", "/v1/models/minilm-ner", "/v1/models/minilm-ner/versions/1")
    for route in BODIES
]


async def ask(http: Client, path: str, **headers: str) -> Answer:
    """One text on any inference route; `_` in names stands for `-`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await http.post(path, BODIES[path.rpartition("/")[2]], headers=sent)


@pytest.mark.parametrize("path", ROUTES)
async def test_every_route_takes_them(http: Client, path: str) -> None:
    for number in ("1", "10"):
        assert (await ask(http, path, x_nerve_priority=number)).status == 200
    until = str(round(time.time() * 1e3) + 60_000)
    answer = await ask(http, path, request_timeout_ms="60000", request_deadline_ms=until)
    assert answer.status == 200


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x_nerve_priority", "0"),
        ("x_nerve_priority", "11"),
        ("x_nerve_priority", "first"),
        ("x_nerve_priority", ""),
        ("request_timeout_ms", "soon"),
        ("request_deadline_ms", "nan"),
    ],
)
async def test_wrong_values(http: Client, path: str, name: str, value: str) -> None:
    """422 in the dialect's own shape, naming the header; the connection stays usable."""
    answer = await ask(http, path, **{name: value})
    assert answer.status == 422
    assert f"header {name.replace('_', '-')}: expected" in answer.text
    plain = path.endswith("predict")
    assert answer.headers["Content-Type"].startswith("text/plain" if plain else "application/json")
    assert (await ask(http, path)).status == 200


async def test_a_deadline_that_just_passed(http: Client) -> None:
    """Not run, on Encoderfile's route either."""
    late = str(round(time.time() * 1e3) - 2000)
    answer = await ask(http, "/predict", request_deadline_ms=late)
    assert (answer.status, answer.headers["Content-Type"]) == (504, "text/plain; charset=utf-8")


@pytest.mark.parametrize("route", list(BODIES))
async def test_limit_of_the_caller(http: Client, route: str) -> None:
    """The text leaves the queue and never runs."""
    before = await http.statistics("patient")
    answer = await ask(http, f"/v1/models/patient/{route}", request_timeout_ms="150")
    assert answer.status == 504
    assert await http.statistics("patient") == before


@pytest.mark.parametrize("route", list(BODIES))
async def test_limit_of_the_model(serve: Serve, repository: Repository, route: str) -> None:
    """A caller cannot raise it, the server's own is longer."""
    repository.add_patient("patient", default_timeout_microseconds=150_000)
    http = await serve(repository.path, request_timeout_s=60)
    answer = await ask(http, f"/{route}", request_timeout_ms="3600000")
    assert answer.status == 504
    assert (await http.statistics("patient"))["rows"] == 0


async def test_the_first_priority_goes_first(serve: Serve, repository: Repository) -> None:
    """One row a run: of two requests that wait behind a third, the one that came later."""
    batching = {"scheduler": "fifo", "priority_step_microseconds": 60_000_000}
    group = {"count": 1, "kind": "KIND_CPU"}
    repository.add("bert", max_batch_size=1, dynamic_batching=batching, instance_group=group)
    http = await serve(repository.path)
    body = {"inputs": ["people " * 100] * 100}
    order: list[str] = []

    async def send(priority: str) -> None:
        sent = {"x-nerve-priority": priority}
        assert (await http.post("/predict_tokens", body, headers=sent)).status == 200
        order.append(priority)

    async def waiting(rows: int) -> None:
        async def there() -> bool:
            return bool((await http.statistics("bert"))["queued_rows"] >= rows)

        await http.until(there)

    async with asyncio.TaskGroup() as group_of_callers:
        group_of_callers.create_task(send("5"))
        await waiting(50)
        group_of_callers.create_task(send("10"))
        await waiting(110)
        group_of_callers.create_task(send("1"))
    assert order.index("1") < order.index("10")


async def test_what_cannot_be_met_is_refused_at_once(http: Client) -> None:
    """Behind seconds of work: refused with the wait, while who goes first is answered."""
    text = "Ada Lovelace met Charles Babbage in London. " * 12
    bulk = [asyncio.create_task(http.predict_tokens([text] * 128)) for _ in range(8)]

    async def much_waits() -> bool:
        return bool((await http.statistics("minilm-ner"))["queued_rows"] >= 600)

    try:
        await http.until(much_waits)
        for path, status in (("/predict_tokens", 429), ("/predict", 503)):
            refused = await ask(http, path, x_nerve_priority="10", request_timeout_ms="1000")
            assert refused.status == status
            assert int(refused.headers["Retry-After"]) >= 2
        assert (await ask(http, "/predict_tokens", x_nerve_priority="1")).status == 200
        assert (await http.statistics("minilm-ner"))["queued_rows"] > 0
    finally:
        for each in bulk:
            each.cancel()
        await asyncio.gather(*bulk, return_exceptions=True)
    await http.queued("minilm-ner", 0)
    assert (await ask(http, "/predict_tokens", request_timeout_ms="30000")).status == 200
