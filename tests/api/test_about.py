"""What the page has to know: /v1/server and /v1/metrics, against the settings and against /metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import nerve
from grpc_calls import LISTENING, port_of
from metric_names import documented
from nerve.config.server import ServerConfig

if TYPE_CHECKING:
    from api.conftest import Client, Repository, Serve, Server

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def test_server(http: Client, server: Server) -> None:
    """Of a server with default settings."""
    answer = await http.get("/v1/server")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    config = ServerConfig()
    assert answer.json() == {
        "name": "nerve",
        "version": nerve.__version__,
        "http": {"tls": False},
        "grpc": {"port": None, "tls": False},
        "model_control": False,
        "keys": False,
        "metrics": True,
        "async": False,
        "limits": {
            "max_client_batch_size": config.max_client_batch_size,
            "max_inputs": config.max_inputs,
            "max_body_bytes": config.max_body_bytes,
            "max_predict_tokens_bytes": 2_000_000,
            "max_infer_bytes": config.max_infer_bytes,
            "request_timeout_s": config.request_timeout_s,
        },
    }


async def test_server_with_other_settings(serve: Serve, repository: Repository) -> None:
    """The port that gRPC got, and what was asked for."""
    repository.add("ner")
    http = await serve(
        repository.path,
        allow_model_control=True,
        max_client_batch_size=7,
        max_body_bytes=4096,
        metrics_port=0,
        metrics_hostname="127.0.0.1",
        **LISTENING,
    )
    told = (await http.get("/v1/server")).json()
    assert told["grpc"] == {"port": port_of(http.server.announced), "tls": False}
    assert (told["model_control"], told["metrics"]) == (True, False)
    assert told["limits"]["max_client_batch_size"] == 7
    assert told["limits"]["max_body_bytes"] == told["limits"]["max_predict_tokens_bytes"] == 4096
    answer = await http.get("/v1/metrics?name=nerve_texts_total")
    assert answer.status == 404
    assert answer.headers["x-nerve-reason"] == "not_served"
    assert "a port of its own (metrics_port)" in answer.json()["error"]
    assert "/v1/metrics" not in (await http.get("/openapi.json")).json()["paths"]


async def text_page(http: Client) -> tuple[dict[str, str], Samples]:
    """Types by name, and samples, of Prometheus' page."""
    text = (await http.get("/metrics")).text
    kinds = dict(line.split(" ")[2:4] for line in text.splitlines() if line.startswith("# TYPE "))
    return kinds, {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def samples_of(families: list[dict[str, Any]]) -> Samples:
    return {
        (sample["name"], frozenset(sample["labels"].items())): float(sample["value"])
        for family in families
        for sample in family["samples"]
    }


async def test_metrics_are_those_of_prometheus(http: Client) -> None:
    """Every family with its type and its samples; values that did not change meanwhile are the same."""
    assert (await http.predict_tokens(["people"])).status == 200
    await http.get("/v1/metrics")  # so that no label comes up for the first time
    kinds, before = await text_page(http)
    answer = await http.get("/v1/metrics")
    assert answer.status == 200
    kinds_after, after = await text_page(http)
    families = answer.json()["metrics"]
    assert answer.json()["time"] > 1.7e9
    assert {family["name"]: family["type"] for family in families} == kinds == kinds_after
    assert [family["name"] for family in families] == sorted(kinds)
    assert all(family["help"] for family in families)
    got = samples_of(families)
    assert set(got) == set(before) == set(after)
    still = {key for key, value in before.items() if after[key] == value}
    assert len(still) > 100
    assert {key: got[key] for key in still} == {key: before[key] for key in still}


async def test_some_metrics(http: Client, root: Path) -> None:
    """Each that is documented can be had alone, and is what it is among all; several come by name."""
    assert (await http.predict_tokens(["people"])).status == 200
    whole = {each["name"]: each for each in (await http.get("/v1/metrics")).json()["metrics"]}
    names = sorted(name for name in documented(root) if not name.startswith("nerve_gpu_"))
    assert set(names) <= set(whole)
    for name in names:
        (family,) = (await http.get(f"/v1/metrics?name={name}")).json()["metrics"]
        assert {**family, "samples": []} == {**whole[name], "samples": []}
        assert set(samples_of([family])) >= set(samples_of([whole[name]]))
    asked = "?name=nerve_run_seconds&name=nerve_batch_rows&name=nerve_run_seconds"
    found = (await http.get(f"/v1/metrics{asked}")).json()["metrics"]
    assert [each["name"] for each in found] == ["nerve_batch_rows", "nerve_run_seconds"]
    bounds = [each["labels"]["le"] for each in found[1]["samples"] if "le" in each["labels"]]
    assert "+Inf" in bounds


async def test_a_metric_of_which_nothing_was_counted(serve: Serve, repository: Repository) -> None:
    """It is there, without samples."""
    repository.add("ner")
    http = await serve(repository.path)
    (family,) = (await http.get("/v1/metrics?name=nerve_texts_total")).json()["metrics"]
    assert family == {
        "name": "nerve_texts_total",
        "type": "counter",
        "help": "Texts tagged",
        "samples": [],
    }


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nerve_run_second", "did you mean 'nerve_run_seconds'?"),
        ("nerve_texts", "did you mean 'nerve_texts_total'?"),
        ("nerve_run_seconds_count", "did you mean 'nerve_run_seconds'?"),
        ("", "see GET /metrics"),
        ("x" * 500, "see GET /metrics"),
    ],
)
async def test_a_metric_that_is_not_there(http: Client, name: str, hint: str) -> None:
    """422 with the name and the nearest one."""
    answer = await http.get(f"/v1/metrics?name=nerve_queue_rows&name={name}")
    assert answer.status == 422
    body = answer.json()
    assert body["reason"] == "invalid_field"
    assert body["error"].startswith(f"name: {name[:64]!r}"[:-1])
    assert body["error"].endswith(hint)
