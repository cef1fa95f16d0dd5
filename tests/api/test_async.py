"""Async inference over HTTP, in process: what is refused before it is accepted, and what is told.

What needs time, a webhook or an end of the server is in tests/async.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from nerve.errors import StoreFailed
from nerve.frontend.http.dialect import ASYNC
from nerve.jobs.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from api.conftest import Client, Repository

SUBMIT = "/async/predict_tokens"
GOOD: dict[str, Any] = {
    "model_input": {"inputs": ["Ada lived in London"], "aggregation_strategy": "simple"}
}
UNKNOWN = "0" * 32
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def later(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: Path
) -> AsyncIterator[Client]:
    """A client of an app with a store and a few models."""
    from api.conftest import Repository, serving  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("async")
    repository = Repository(folder / "repository", tiny_models)
    for name in ("bert", "named", "broken"):
        repository.add(name)
    (repository.path / "broken" / "model.onnx").write_bytes(b"this is no graph")
    store = str(folder / "jobs.db")
    async with serving(
        repository.path, default_model="bert", async_store=store, async_max_body_bytes=4096
    ) as client:
        yield client


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ended(http: Client, request_id: str) -> dict[str, Any]:
    """Its status when it has one that is final."""
    told: dict[str, Any] = {}

    async def there() -> bool:
        told.update((await http.get(f"/async_request/{request_id}")).json())
        return told["status"] not in ("QUEUED", "IN_PROGRESS")

    await http.until(there)
    return told


@pytest.mark.parametrize("prefix", [each.format(environment="x", deployment="y") for each in ASYNC])
@pytest.mark.parametrize("path", ["/async_predict", SUBMIT])
async def test_every_place(later: Client, prefix: str, path: str) -> None:
    """Where Baseten has it: submitted, told, and answered as predict_tokens answers."""
    accepted = await later.post(prefix + path, GOOD, headers={"x-request-id": "mine"})
    assert accepted.status == 201, accepted
    assert accepted.headers["x-request-id"] == "mine"
    (name, request_id), *more = accepted.json().items()
    assert (name, more) == ("request_id", [])
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    told = await ended(later, request_id)
    assert MOMENT.fullmatch(told.pop("created_at"))
    assert MOMENT.fullmatch(told.pop("status_at"))
    assert told == {
        "request_id": request_id,
        "model_id": "bert",
        "deployment_id": "1",
        "status": "SUCCEEDED",
        "webhook_status": "NO_WEBHOOK_PROVIDED",
        "errors": [],
    }
    result = await later.get(f"{prefix}/async_request/{request_id}/result")
    at_once = await later.post("/predict_tokens", GOOD["model_input"])
    assert (result.status, result.body) == (200, at_once.body)
    assert result.headers["Content-Type"] == "application/json"
    queue = await later.get(f"{prefix}/async_queue_status")
    assert queue.json() == {
        "model_id": "bert",
        "deployment_id": "1",
        "num_queued_requests": 0,
        "num_in_progress_requests": 0,
    }


@pytest.mark.parametrize("path", ["/production/sync" + SUBMIT, "/staging" + SUBMIT, "/async"])
async def test_no_other_place(later: Client, path: str) -> None:
    assert (await later.post(path, GOOD)).status == 404


@pytest.mark.parametrize("version", ["", "/versions/1"])
async def test_a_named_model(later: Client, version: str) -> None:
    path = f"/async/v1/models/named{version}/predict_tokens"
    accepted = await later.post(path, GOOD)
    assert accepted.status == 201, accepted
    told = await ended(later, accepted.json()["request_id"])
    assert (told["model_id"], told["deployment_id"], told["status"]) == ("named", "1", "SUCCEEDED")
    queue = await later.get("/async/v1/models/named/async_queue_status")
    assert queue.json()["model_id"] == "named"


async def test_ids_of_clients_are_no_ids(later: Client) -> None:
    """A client that sends twice with one id has two requests; the id comes back."""
    headers = {"x-baseten-customer-request-id": "perfclient-1-0"}
    answers = [await later.post(SUBMIT, GOOD, headers=headers) for _ in range(2)]
    assert {each.headers["x-baseten-customer-request-id"] for each in answers} == {"perfclient-1-0"}
    assert len({each.json()["request_id"] for each in answers}) == 2


@pytest.mark.parametrize(
    "asked",
    [
        {"inputs": "Ada"},
        {"inputs": [["Ada"], ["Bob", "Zoë 🚀 in Paris"]], "aggregation_strategy": "max"},
        {"inputs": ["Ada"], "raw_scores": True, "ignore_labels": []},
        {"inputs": ["Ada met Bob"], "truncation_direction": "left", "offset_unit": "byte"},
        {"inputs": ["Ada"], "threshold": 0.01, "labels": ["PER"], "aggregation_strategy": "first"},
    ],
)
async def test_the_answer_is_that_of_predict_tokens(later: Client, asked: dict[str, Any]) -> None:
    """Byte by byte, whatever the request says."""
    at_once = await later.post("/predict_tokens", asked)
    assert at_once.status == 200, at_once
    accepted = await later.post(SUBMIT, {"model_input": asked, "unknown": 1})
    request_id = accepted.json()["request_id"]
    assert (await ended(later, request_id))["status"] == "SUCCEEDED"
    assert (await later.get(f"/async_request/{request_id}/result")).body == at_once.body


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_input": None}, "model_input: expected a JSON object, got null"),
        ({"model_input": "Ada"}, "model_input: expected a JSON object, got 'Ada'"),
        (
            {"inference_retry_config": []},
            "inference_retry_config: expected a JSON object, got a list",
        ),
        ({"model_input": {}}, "model_input.inputs: this field is required"),
        (
            {"model_input": {"inputs": 3}},
            "model_input.inputs: expected a string or a list of texts",
        ),
        (
            {"model_input": {"inputs": ["a"], "aggregation_strategy": "Max"}},
            "model_input.aggregation_strategy: ",
        ),
        (
            {"model_input": {"inputs": ["a"], "labels": ["NOPE"]}},
            "model_input.labels: 'NOPE' is no label of 'bert'",
        ),
        ({"model_input": {"inputs": ["a"], "threshold": 2}}, "model_input.threshold: "),
        ({"priority": 3}, "priority: input should be less than or equal to 2, got 3"),
        ({"priority": "high"}, "priority: input should be a valid integer, got 'high'"),
        ({"max_time_in_queue_seconds": 9}, "max_time_in_queue_seconds: "),
        ({"max_time_in_queue_seconds": 259201}, "max_time_in_queue_seconds: "),
        ({"inference_retry_config": {"max_attempts": 0}}, "inference_retry_config.max_attempts: "),
        ({"inference_retry_config": {"max_attempts": 11}}, "inference_retry_config.max_attempts: "),
        (
            {"inference_retry_config": {"initial_delay_ms": 10_001}},
            "inference_retry_config.initial_delay_ms: ",
        ),
        (
            {"inference_retry_config": {"max_delay_ms": 60_001}},
            "inference_retry_config.max_delay_ms: ",
        ),
        ({"webhook_endpoint": 3}, "webhook_endpoint: "),
        ({"webhook_endpoint": "nowhere"}, "webhook_endpoint: expected https://"),
        ({"webhook_endpoint": "http://example.com/"}, "webhook_endpoint: expected https://"),
        (
            {"webhook_endpoint": "https://169.254.169.254/latest"},
            "webhook_endpoint: '169.254.169.254' is not on the public internet",
        ),
    ],
)
async def test_what_is_wrong_is_told_by_its_path(
    later: Client, fields: dict[str, Any], said: str
) -> None:
    answer = await later.post(SUBMIT, GOOD | fields)
    assert answer.status == 422, answer
    assert answer.json()["error"].startswith(said), answer.text
    assert answer.json()["error_type"] == "Validation"
    assert answer.headers["x-nerve-reason"] == "invalid_field"


async def test_model_input_is_required(later: Client) -> None:
    answer = await later.post(SUBMIT, {"inputs": ["a"]})
    assert (answer.status, answer.json()["error"]) == (422, "model_input: this field is required")


@pytest.mark.parametrize("texts", [[], [""], ["a", ""], ["a"] * 129])
async def test_texts_are_refused_as_at_once(later: Client, texts: list[str]) -> None:
    """With the same body."""
    at_once = await later.post("/predict_tokens", {"inputs": texts})
    answer = await later.post(SUBMIT, {"model_input": {"inputs": texts}})
    assert (answer.status, answer.body) == (at_once.status, at_once.body)
    assert answer.status in (400, 413)


@pytest.mark.parametrize(
    ("place", "status"),
    [("v1/models/nope", 404), ("v1/models/bert/versions/7", 404), ("v1/models/broken", 503)],
)
async def test_models_are_refused_as_at_once(later: Client, place: str, status: int) -> None:
    """One that failed to load, too: nobody knows whether it will ever be."""
    at_once = await later.post(f"/{place}/predict_tokens", GOOD["model_input"])
    answer = await later.post(f"/async/{place}/predict_tokens", GOOD)
    assert (answer.status, answer.body) == (at_once.status, at_once.body)
    assert answer.status == status


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model_input": {"inputs": "\xff"}}'])
async def test_no_json(later: Client, body: bytes) -> None:
    at_once = await later.send("POST", "/predict_tokens", data=body)
    answer = await later.send("POST", SUBMIT, data=body)
    assert (answer.status, answer.body) == (at_once.status, at_once.body)
    assert answer.status in (400, 422)


async def test_large_bodies(later: Client) -> None:
    """The size is told, also where it only shows when it is unpacked."""
    large = b'{"model_input": {"inputs": "%s"}}' % (b"a" * 4096)
    answer = await later.send("POST", SUBMIT, data=large)
    assert answer.status == 413
    assert answer.json() == {
        "error": f"payload size of {len(large)} bytes exceeds maximum size of 4096 bytes",
        "error_type": "Validation",
    }
    headers = {"Content-Encoding": "gzip"}
    answer = await later.send("POST", SUBMIT, data=gzip.compress(large), headers=headers)
    assert answer.status == 413
    assert answer.json()["error"].endswith("exceeds maximum size of 4096 bytes")
    packed = gzip.compress(b'{"model_input": {"inputs": ["Ada"]}}')
    assert (await later.send("POST", SUBMIT, data=packed, headers=headers)).status == 201


@pytest.mark.parametrize(("method", "end"), [("GET", ""), ("GET", "/result"), ("DELETE", "")])
async def test_what_is_not_there(later: Client, method: str, end: str) -> None:
    for request_id in (UNKNOWN, "nope", "%00"):
        answer = await later.send(method, f"/async_request/{request_id}{end}")
        assert answer.status == 404, answer
        assert answer.json()["error"].startswith("there is no async request ")
        assert answer.json()["error_type"] == "Validation"
        assert answer.headers["x-nerve-reason"] == "async_request_not_found"


@pytest.mark.parametrize("request_id", ["nope", "a%00b", UNKNOWN[1:], UNKNOWN + "0", "A" * 32])
async def test_what_is_no_id_is_not_looked_for(
    later: Client, monkeypatch: pytest.MonkeyPatch, request_id: str
) -> None:
    """PostgreSQL fails at one with NUL, which would be told as a fault of the server's."""

    async def record(_store: SqliteJobStore, _request_id: str) -> None:
        raise StoreFailed("it cannot look for that")

    monkeypatch.setattr(SqliteJobStore, "record", record)
    for method, end in (("GET", ""), ("GET", "/result"), ("DELETE", "")):
        answer = await later.send(method, f"/async_request/{request_id}{end}")
        assert answer.status == 404, answer
    answer = await later.get(f"/async_request/{UNKNOWN}")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


async def test_what_has_ended_is_not_canceled(later: Client) -> None:
    accepted = await later.post(SUBMIT, GOOD)
    request_id = accepted.json()["request_id"]
    await ended(later, request_id)
    answer = await later.send("DELETE", f"/async_request/{request_id}")
    assert (answer.status, answer.json()) == (
        200,
        {
            "request_id": request_id,
            "canceled": False,
            "message": "only a queued request can be canceled; this one is SUCCEEDED",
        },
    )


async def test_it_is_in_the_metrics_as_what_it_was(later: Client) -> None:
    """Its acceptance, and the work."""

    async def count(dialect: str, status: str) -> float:
        return await later.metric("nerve_requests_total", dialect=dialect, status=status)

    accepted, answered = await count("async", "201"), await count("baseten", "200")
    told = await later.post(SUBMIT, GOOD)
    await ended(later, told.json()["request_id"])
    assert await count("async", "201") == accepted + 1
    assert await count("baseten", "200") == answered + 1


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/async_predict"),
        ("POST", "/production" + SUBMIT),
        ("GET", f"/async_request/{UNKNOWN}"),
        ("GET", f"/async_request/{UNKNOWN}/result"),
        ("DELETE", f"/async_request/{UNKNOWN}"),
        ("GET", "/async_queue_status"),
    ],
)
async def test_without_a_store(http: Client, method: str, path: str) -> None:
    """The sentence says how to have one."""
    answer = await http.send(method, path, data=b"{}" if method == "POST" else None)
    assert answer.status == 501
    assert "start it with --async-store FILE" in answer.json()["error"]


@pytest.mark.asyncio(loop_scope="function")
async def test_a_model_that_is_loading_is_waited_for(
    repository: Repository, tmp_path: Path
) -> None:
    """A request is taken before its model is there, and answered when it is."""
    from api.conftest import LOOPBACK, Server, settings  # noqa: PLC0415
    from nerve.app import App  # noqa: PLC0415
    from nerve.frontend.http.server import HttpServer  # noqa: PLC0415

    repository.add("late")
    config = settings(repository.path, async_store=str(tmp_path / "jobs.db"))
    app = App(config, announce=lambda _line: None)
    web = HttpServer(app.http_app, config)
    try:
        await app.sync.find()
        assert app._jobs is not None
        await app._jobs.start()
        async with Server(app, await web.start(LOOPBACK, 0)).client() as client:
            retries = {"max_attempts": 1}
            accepted = await client.post(SUBMIT, GOOD | {"inference_retry_config": retries})
            assert accepted.status == 201, accepted
            request_id = accepted.json()["request_id"]

            async def put_off() -> bool:
                told = (await client.get(f"/async_request/{request_id}")).json()
                return [each["code"] for each in told["errors"]] == ["MODEL_NOT_READY"]

            await client.until(put_off)  # that was no attempt: it has only one
            app._loader.start()
            await app.sync.load_all()
            assert (await ended(client, request_id))["status"] == "SUCCEEDED"
    finally:
        await web.stop()
        await app.stop()
