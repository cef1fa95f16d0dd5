"""Metrics of a server that has served on every door: what there is, and what makes no series."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from api.mcp_wire import call as tool
from api.mcp_wire import open_session, post
from grpc_calls import LISTENING, calling, port_of
from metric_names import documented, family_of, in_dashboard, in_rules
from nerve._proto.nerve.v1 import nerve_pb2 as pb

if TYPE_CHECKING:
    from api.conftest import Client, Repository, Serve, Server

from api.conftest import in_thread, settings

MOODY = """
function Postprocess(arr)
    if arr:shape()[2] == 4 then error("no pairs today") end
    return arr
end
"""
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Server]:
    """One model of each kind that has metrics of its own."""
    from api.conftest import Repository  # noqa: PLC0415  for typing only above

    folder = tmp_path_factory.mktemp("metrics")
    repository = Repository(folder / "models", tiny_models)
    repository.add_rule("rule")
    repository.add_rule("scripted")
    repository.configure("scripted", {"transform": MOODY})
    repository.add("cached", response_cache=True)
    repository.add("shadowed", version=1)
    shadow = {"shadow": {"version": 2, "fraction": 1.0}, "version_policy": "all"}
    repository.add("shadowed", version=2)
    repository.configure("shadowed", shadow)
    repository.add_picky("picky")
    more = {"enable_mcp": True, "metrics_compat": "triton,tei", "default_model": "rule"}
    more["async_store"] = str(folder / "jobs.db")
    with in_thread(settings(repository.path, **LISTENING, **more)) as server:
        yield server


@pytest.fixture
async def http(server: Server) -> AsyncIterator[Client]:
    async with server.client() as client:
        yield client


async def page(http: Client) -> tuple[Series, dict[str, str]]:
    """Every sample by name and labels, and the type of each metric."""
    text = (await http.get("/metrics")).text
    families = list(text_string_to_metric_families(text))
    kinds = dict(line.split(" ")[2:4] for line in text.splitlines() if line.startswith("# TYPE "))
    return {
        (_plain(sample.name, kinds), frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }, kinds


def _plain(name: str, kinds: dict[str, str]) -> str:
    """As it is on the page; the parser adds `_total` to every counter."""
    bare = name.removesuffix("_total")
    return bare if bare in kinds else name


def at(series: Series, name: str, **labels: str) -> float:
    return series.get((name, frozenset(labels.items())), 0.0)


async def use_all(http: Client, server: Server) -> None:
    """Ask every model, every door."""
    assert (await http.predict(["german people"], model="rule")).status == 200
    assert (await http.predict(["people"] * 2000)).status == 413
    assert (await http.predict(["people"], model="scripted")).status == 200
    assert (await http.predict(["people german"], model="scripted")).status == 500
    for _ in range(2):
        assert (await http.predict(["people"], model="cached")).status == 200
    assert (await http.predict(["people"], model="shadowed")).status == 200
    session = await open_session(http)
    asked = tool("run_encoder", {"text": "people", "model": "rule"})
    assert (await post(http, asked, session=session)).status == 200
    async with calling(port_of(server.announced)) as caller:
        stream = caller.stream("ExtractStream")
        items = [pb.ExtractItem(id=text, text=text) for text in ("people", "german", "")]
        request = pb.ExtractStreamRequest(items=items, model="picky")
        await stream.write(request.SerializeToString())
        await stream.done_writing()
        got = pb.ExtractStreamResponse.FromString(await stream.read())
        assert [result.error.reason for result in got.results] == [
            "",
            "tokenization_failed",
            "empty_input",
        ]


async def test_every_metric_that_is_told_of_is_there(
    http: Client, server: Server, root: Path
) -> None:
    """After use: with the type and the labels of the documentation; and so is whatever the
    dashboard and the rules ask for."""
    before, _ = await page(http)
    await use_all(http, server)

    async def copied() -> bool:
        series, _ = await page(http)
        name = "nerve_shadow_requests_total"
        return at(series, name, model="shadowed", version="2", outcome="equal") >= 1

    await http.until(copied)
    series, kinds = await page(http)
    told = documented(root)
    assert {name: kind for name, kind in kinds.items() if name.startswith("nerve_")} == {
        name: row.kind for name, row in told.items()
    }
    # no keys and no TLS here
    unused = {"nerve_credential_reloads_total", "nerve_certificate_expiry_timestamp_seconds"}
    seen = set()
    for name, labels in series:
        if (family := family_of(name, kinds)) in told:
            seen.add(family)
            assert {key for key, _ in labels} - {"le"} == told[family].labels, name
    assert set(told) - seen == unused
    wanted = in_dashboard(root) | in_rules(root)
    lacking = {name for name in wanted if family_of(name, kinds) is None}
    assert {name for name in lacking if not name.startswith("nerve_gpu_")} == set()

    def more(name: str, **labels: str) -> float:
        return at(series, name, **labels) - at(before, name, **labels)

    assert more("nerve_stream_items_total", outcome="ok") == 1
    assert more("nerve_stream_items_total", outcome="tokenization_failed") == 1
    assert more("nerve_stream_items_total", outcome="empty_input") == 1
    assert more("nerve_refused_requests_total", reason="too_many_inputs") == 1
    assert more("nerve_transform_seconds_count", model="scripted") == 1
    failed = {"model": "scripted", "reason": "transform_failed"}
    assert more("nerve_transform_failures_total", **failed) == 1
    outcome = {"model": "scripted", "version": "1"}
    assert more("nerve_model_requests_total", outcome="transform_failed", **outcome) == 1
    assert more("nerve_model_requests_total", outcome="ok", **outcome) == 1
    assert more("nerve_entities_total", model="rule", label="PER") == 1  # german
    assert more("nerve_entity_score_count", model="rule") == 1
    of_cached = {"model": "cached", "version": "1"}
    assert more("nerve_queue_seconds_count", **of_cached) == 1  # and one from the cache
    assert more("nerve_sequence_tokens_sum", **of_cached) == 3


async def test_aliases_say_what_our_own_metrics_say(http: Client) -> None:
    """Of requests, runs, failures and texts; and the statistics of the protocol say the same."""
    assert (await http.predict(["german", "people"], model="rule")).status == 200
    assert (await http.predict(["people german"], model="scripted")).status == 500
    series, kinds = await page(http)
    rule = {"model": "rule", "version": "1"}
    ok = at(series, "nerve_model_requests_total", outcome="ok", **rule)
    assert at(series, "nv_inference_request_success", **rule) == ok > 0
    assert at(series, "nv_inference_exec_count", **rule) == at(
        series, "nerve_run_seconds_count", **rule
    )
    count = at(series, "nv_inference_count", **rule)
    assert count == at(series, "nerve_texts_total", model="rule")
    waited_us = at(series, "nv_inference_queue_duration_us", **rule)
    assert waited_us == pytest.approx(1e6 * at(series, "nerve_queue_seconds_sum", **rule))
    broken = {"model": "scripted", "version": "1", "reason": "BACKEND"}
    assert at(series, "nv_inference_request_failure", **broken) >= 1
    assert kinds["nv_inference_count"] == kinds["te_request_count"] == "counter"
    shown = (await http.get("/v2/models/rule/versions/1/stats")).json()["model_stats"][0]
    assert shown["inference_count"] == count
    assert shown["inference_stats"]["success"]["count"] == ok
    assert at(series, "te_request_success", method="batch") >= 1
    assert at(series, "te_request_failure", err="inference") >= 1


async def test_what_a_client_makes_up_makes_no_series(http: Client) -> None:
    """Models, versions, paths, methods, labels to filter by: the same series as before."""

    async def ask() -> None:
        await http.predict(["people"], model="made-up")
        await http.send("POST", "/v1/models/rule/versions/77/predict", data=b'{"inputs":["a"]}')
        await http.get("/made/up")
        await http.send("MADEUP", "/predict", data=b"{}")
        await http.send("POST", "/v2/models/made-up/infer", data=b'{"inputs": []}')

    await ask()  # statuses come up for the first time
    await page(http)  # so does that of the page
    before, _ = await page(http)
    await http.predict(["people"], model="made-up-2")
    await http.get("/made/up/2")
    await ask()
    after, _ = await page(http)
    assert set(after) - set(before) == set()
    assert not any("made" in value for _, labels in after for _, value in labels)


async def test_refusals_of_the_mcp_sdk_are_counted(http: Client) -> None:
    """By status: a session that is not known (404), and an Accept that it has no answer for (406)."""
    before, _ = await page(http)
    lost = tool("list_models", {})
    statuses = [
        (await post(http, lost, session="not-a-session")).status,
        (await post(http, lost, Accept="text/html")).status,
    ]
    assert all(status >= 400 for status in statuses)
    after, _ = await page(http)
    for status in statuses:
        labels = {"dialect": "mcp", "status": str(status)}
        name = "nerve_requests_total"
        assert at(after, name, **labels) - at(before, name, **labels) == statuses.count(status)


async def test_nothing_of_other_servers_without_being_asked(
    serve: Serve, repository: Repository
) -> None:
    """And what was unloaded has no series, while the rest keeps its own."""
    repository.add("stays")
    gone = repository.add("gone")
    http = await serve(repository.path, repository_poll_seconds=0.05, model_control_mode="poll")
    for model in ("stays", "gone"):
        assert (await http.predict(["people"], model=model)).status == 200
    text = (await http.get("/metrics")).text
    assert "\nnv_" not in text
    assert "\nte_" not in text
    assert 'model="gone"' in text
    shutil.rmtree(gone)

    async def only_loads() -> bool:
        lines = [
            line for line in (await http.get("/metrics")).text.splitlines() if '"gone"' in line
        ]
        return all(line.startswith("nerve_model_loads_total") for line in lines)

    await http.until(only_loads)
    assert await http.metric("nerve_texts_total", model="stays") == 1
    assert (await http.predict(["people"], model="stays")).status == 200
    assert await http.metric("nerve_texts_total", model="stays") == 2


async def test_what_waits_is_seen(serve: Serve, repository: Repository) -> None:
    """Rows and age, while they wait; a request in flight likewise; and each there is no room for."""
    repository.add_patient("patient", max_queue_size=1)
    http = await serve(repository.path)
    labels = {"model": "patient", "version": "1"}
    async with http.waiting(http.predict(["people"], model="patient")):

        async def waits() -> bool:
            series, _ = await page(http)
            age = at(series, "nerve_queue_age_seconds", **labels)
            return at(series, "nerve_queue_rows", **labels) == 1 and 0 < age < 10

        await http.until(waits)
        assert await http.metric("nerve_in_flight_requests", protocol="http") == 2
        for _ in range(5):  # most of these without a look at the model
            assert (await http.predict(["people"], model="patient")).status == 503
        full = {**labels, "outcome": "queue_full"}
        assert await http.metric("nerve_model_requests_total", **full) == 5

    async def gone() -> bool:
        return await http.metric("nerve_queue_rows", **labels) == 0

    await http.until(gone)
    cancelled = {"model": "patient", "version": "1", "outcome": "cancelled"}
    assert await http.metric("nerve_model_requests_total", **cancelled) == 1
    assert await http.metric("nerve_queue_age_seconds", **labels) == 0


@pytest_asyncio.fixture
async def apart(serve: Serve, repository: Repository) -> tuple[Client, str]:
    """A server with a port for metrics, and that port's root."""
    repository.add("ner")
    http = await serve(repository.path, metrics_port=0, metrics_hostname="127.0.0.1")
    (line,) = [line for line in http.server.announced if "metrics server" in line]
    assert line.startswith("Starting metrics server on 127.0.0.1:")
    return http, f"http://127.0.0.1:{line.rpartition(':')[2]}"


async def test_a_port_of_their_own(apart: tuple[Client, str]) -> None:
    """Metrics and probes, and nothing else; that of HTTP has no metrics then, and says so in our
    own shape, but has the probes."""
    http, root = apart
    assert (await http.predict(["people"])).status == 200
    refused = await http.get("/metrics")
    assert refused.status == 404
    assert refused.json() == {
        "error": "/metrics is served on a port of its own (metrics_port), not here",
        "reason": "not_found",
    }
    assert (await http.get("/livez")).status == (await http.get("/readyz")).status == 200
    assert "/metrics" not in (await http.get("/openapi.json")).json()["paths"]
    async with aiohttp.ClientSession(root) as client:

        async def ask(path: str, **headers: str) -> tuple[int, Any]:
            async with client.get(path, headers=headers) as answer:
                return answer.status, await answer.text()

        status, text = await ask("/metrics")
        assert status == 200
        assert 'nerve_texts_total{model="ner"} 1.0' in text
        assert (await ask("/metrics", Accept="application/openmetrics-text"))[1].endswith("# EOF\n")
        assert json.loads((await ask("/livez"))[1]) == {"live": True}
        assert json.loads((await ask("/readyz"))[1]) == {"ready": True, "models": {"ner": "READY"}}
        assert (await ask("/v1/models"))[0] == 404
        answers = await asyncio.gather(*(ask("/metrics") for _ in range(8)))
        assert {status for status, _ in answers} == {200}
