"""Baseten's performance client against the daemon (its contract, sections 10 and 13)."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from baseten_performance_client import PerformanceClient, RequestProcessingPreference

from support import Daemon

MANY = 300


async def test_batch_post(bundled_daemon: Daemon) -> None:
    """300 payloads, 256 at once: 300 bodies in their order."""
    texts = [f"{'very ' * (number % 17)}old Paris {number}" for number in range(MANY)]
    payloads = [{"inputs": [[text]], "truncate": True, "ignore_labels": []} for text in texts]
    client = PerformanceClient(base_url=bundled_daemon.url, api_key="unused")
    wide = RequestProcessingPreference(max_concurrent_requests=256)
    response = await asyncio.to_thread(
        client.batch_post, "/predict_tokens", payloads, preference=wide
    )
    assert len(response.data) == len(response.response_headers) == MANY
    for number, (text, body) in enumerate(zip(texts, response.data, strict=True)):
        (tokens,) = body
        assert "".join(each["token"] for each in tokens) == text.replace(" ", "")
        told = response.response_headers[number]
        assert told["x-baseten-customer-request-id"].endswith(f"-{number}-0")
    async with aiohttp.ClientSession(bundled_daemon.url) as http:
        for number in (0, MANY // 2, MANY - 1):
            async with http.post("/predict_tokens", json=payloads[number]) as alone:
                expected = alone.headers["x-compute-tokens"]
            assert response.response_headers[number]["x-compute-tokens"] == expected


async def test_refusal_is_shown(bundled_daemon: Daemon) -> None:
    """Not tried again; the client's error holds our body."""
    client = PerformanceClient(base_url=bundled_daemon.url, api_key="unused")
    payload = {"inputs": ["a"], "aggregation_strategy": "Max"}
    with pytest.raises(Exception, match=r"422.*aggregation_strategy") as caught:
        await asyncio.to_thread(client.batch_post, "/predict_tokens", [payload])
    assert type(caught.value).__name__ == "HTTPError"


async def test_overload_is_tried_again(controlled_daemon: Daemon) -> None:
    """429 while the queue of `patient` is full; answered when there is room."""
    path = "/v1/models/patient"
    client = PerformanceClient(base_url=controlled_daemon.url, api_key="unused")
    two = {"inputs": [["London"], ["Paris"]], "ignore_labels": []}
    async with aiohttp.ClientSession(controlled_daemon.url) as http:

        async def metric(line: str) -> float:
            async with http.get("/metrics") as answer:
                text = await answer.text()
            return sum(float(row.split()[-1]) for row in text.splitlines() if row.startswith(line))

        async def queued() -> int:
            async with http.get(path) as answer:
                (version,) = (await answer.json())["versions"]
            return int(version["statistics"]["queued_rows"])

        refused = 'nerve_requests_total{dialect="baseten",status="429"}'
        before = await metric(refused)
        alone = asyncio.create_task(
            http.post(f"{path}/predict_tokens", json={"inputs": ["alone"]}).__aenter__()
        )
        async with asyncio.timeout(20):
            while await queued() != 1:
                await asyncio.sleep(0.02)
            sending = asyncio.create_task(
                asyncio.to_thread(client.batch_post, f"{path}/predict_tokens", [two])
            )
            while await metric(refused) == before:
                await asyncio.sleep(0.02)
            alone.cancel()
            response = await sending
    assert ["".join(each["token"] for each in text) for text in response.data[0]] == [
        "London",
        "Paris",
    ]
