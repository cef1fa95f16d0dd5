"""Our own routes: models, probes, metrics, documentation; and models that are not there."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from api.conftest import Client, Repository, Serve, Server, ServerOf

NAMES = [
    *("bert", "broken", "configured", "deberta-v2", "distilbert", "minilm-ner", "multi"),
    *("patient", "picky", "roberta", "rule", "strided", "xlm-roberta"),
]
STATISTICS = [
    *("batches", "rows", "tokens", "padded_tokens", "queued_rows", "mean_batch_size"),
    "padding_waste",
]
COST = ["run_s", "token_s", "attention_s", "crowding_s"]


# --- models


async def test_list_of_models(http: Client) -> None:
    """Every model by name, the broken one included, and which is the default."""
    answer = await http.get("/v1/models")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    models = answer.json()["models"]
    assert [model["name"] for model in models] == NAMES
    by_name = {model["name"]: model for model in models}
    for name, model in by_name.items():
        assert list(model) == ["name", "state", "reason", "versions", "default"]
        assert model["state"] == ("UNAVAILABLE" if name == "broken" else "READY")
        assert bool(model["reason"]) == (name == "broken")
        assert model["versions"] == (["1", "2"] if name == "multi" else ["1"])
        assert model["default"] == (name == "minilm-ner")


async def test_model(http: Client) -> None:
    """State, labels and limits of the bundled model."""
    answer = await http.get("/v1/models/minilm-ner")
    assert answer.status == 200
    model = answer.json()
    assert model["name"] == "minilm-ner"
    assert model["task"] == "token-classification"
    assert (model["state"], model["reason"], model["default"]) == ("READY", "", True)
    assert model["labels"][:3] == ["O", "B-MISC", "I-MISC"]
    assert len(model["labels"]) == 9
    assert model["limits"] == {
        "max_tokens": 512,
        "stride": None,
        "max_batch_size": 32,
        "max_num_tokens": 8192,
        "max_queue_size": 2048,
    }
    (version,) = model["versions"]
    assert (version["version"], version["state"], version["reason"]) == ("1", "READY", "")
    assert version["device"] in {"cpu", "gpu"}
    assert version["labels"] == model["labels"]
    assert version["limits"] == model["limits"]
    assert list(version["statistics"]) == STATISTICS
    assert list(version["cost_model"]) == COST
    assert sum(version["cost_model"].values()) > 0
    assert min(version["cost_model"].values()) >= 0


async def test_configured_limits_are_shown(http: Client) -> None:
    """What config.yaml says."""
    strided = (await http.get("/v1/models/strided")).json()["limits"]
    assert (strided["max_tokens"], strided["stride"]) == (32, 8)
    patient = (await http.get("/v1/models/patient")).json()["limits"]
    assert (patient["max_batch_size"], patient["max_queue_size"]) == (2, 1)


async def test_statistics_count(http: Client) -> None:
    """Batches, rows, tokens and padding, of this model only."""
    before, others = await http.statistics("patient"), await http.statistics("bert")
    answer = await http.predict_tokens(["people", "people people people"], model="patient")
    assert answer.status == 200
    after = await http.statistics("patient")
    assert after["batches"] - before["batches"] == 1
    assert after["rows"] - before["rows"] == 2
    assert after["tokens"] - before["tokens"] == 3 + 5
    assert after["padded_tokens"] - before["padded_tokens"] == 2 * 5
    assert after["queued_rows"] == 0
    assert after["mean_batch_size"] == round(after["rows"] / after["batches"], 3)
    assert after["padding_waste"] == round(1 - after["tokens"] / after["padded_tokens"], 4)
    assert await http.statistics("bert") == others


async def test_several_versions(http: Client) -> None:
    """Each version has a row."""
    model = (await http.get("/v1/models/multi")).json()
    assert [row["version"] for row in model["versions"]] == ["1", "2"]
    assert {row["state"] for row in model["versions"]} == {"READY"}


async def test_broken_model(http: Client) -> None:
    """UNAVAILABLE with the reason; nothing else is known of it."""
    model = (await http.get("/v1/models/broken")).json()
    assert model["state"] == "UNAVAILABLE"
    assert "model.onnx" in model["reason"]
    assert (model["labels"], model["limits"]) == (None, None)
    (version,) = model["versions"]
    assert version["state"] == "UNAVAILABLE"
    assert version["reason"] == model["reason"]
    unknown = ("device", "labels", "limits", "statistics")
    assert [version[name] for name in unknown] == [None] * 4


async def test_requests_to_a_broken_model(http: Client) -> None:
    """503 with the reason, in each dialect's shape; the good one beside it answers."""
    for prefix in ("/v1/models/broken", "/v1/models/broken/versions/1"):
        answers = [
            await http.post(f"{prefix}/predict", {"inputs": ["a"]}),
            await http.get(f"{prefix}/model"),
            await http.get(f"{prefix}/health"),
        ]
        for answer in answers:
            assert answer.status == 503
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert "model.onnx" in answer.text
            assert "Retry-After" not in answer.headers
        answer = await http.post(f"{prefix}/predict_tokens", {"inputs": ["a"]})
        assert answer.status == 503
        assert answer.json()["error_type"] == "Unhealthy"
        assert "model.onnx" in answer.json()["error"]
    assert (await http.predict(["a"], model="bert")).status == 200


@pytest.mark.parametrize("model", ["nope", "BERT", "bert.", "minilm", "minilm-ner "])
async def test_unknown_model(http: Client, model: str) -> None:
    """404 in each dialect's shape, naming what there is."""
    name = model.replace(" ", "%20")
    native = await http.get(f"/v1/models/{name}")
    assert native.status == 404
    assert list(native.json()) == ["error", "reason"]
    assert native.json()["reason"] == "model_not_found"
    assert repr(model) in native.json()["error"]
    assert "minilm-ner" in native.json()["error"]
    for path in (f"/v1/models/{name}", f"/v1/models/{name}/versions/1"):
        for plain in (
            await http.post(f"{path}/predict", {"inputs": ["a"]}),
            await http.get(f"{path}/model"),
            await http.get(f"{path}/health"),
        ):
            assert plain.status == 404
            assert plain.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert repr(model) in plain.text
        typed = await http.post(f"{path}/predict_tokens", {"inputs": ["a"]})
        assert typed.status == 404
        assert typed.json()["error_type"] == "Validation"
        assert repr(model) in typed.json()["error"]


@pytest.mark.parametrize("version", ["2", "0", "7", "x", "latest", "1.0"])
async def test_unknown_version(http: Client, version: str) -> None:
    """404 in each dialect's shape, naming what is served."""
    path = f"/v1/models/minilm-ner/versions/{version}"
    for plain in (
        await http.post(f"{path}/predict", {"inputs": ["a"]}),
        await http.get(f"{path}/model"),
        await http.get(f"{path}/health"),
    ):
        assert plain.status == 404
        assert plain.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert repr(version) in plain.text
        assert "served versions: 1" in plain.text
    typed = await http.post(f"{path}/predict_tokens", {"inputs": ["a"]})
    assert typed.status == 404
    assert typed.json()["error_type"] == "Validation"
    assert repr(version) in typed.json()["error"]


@pytest.mark.parametrize(
    "path", ["/v1/", "/v1/models/", "/v1/nope", "/v1/models/a/b", "/production/sync/v1/nope"]
)
async def test_unknown_path(http: Client, path: str) -> None:
    """404 in our shape below /v1."""
    answer = await http.get(path)
    assert answer.status == 404
    assert answer.json()["reason"] == "not_found"


@pytest.mark.parametrize("path", ["/v1/models", "/livez", "/readyz", "/metrics", "/docs"])
async def test_wrong_method(http: Client, path: str) -> None:
    """405 and what is allowed."""
    answer = await http.send("POST", path)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET,HEAD"
    assert answer.json()["reason"] == "method_not_allowed"


# --- which model a route without a name means


async def test_default_beside_a_broken_model(serve: Serve, repository: Repository) -> None:
    """With one usable model that one answers, and the server is ready."""
    repository.add("good")
    repository.add_broken("bad")
    http = await serve(repository.path)
    assert (await http.predict(["a"])).json()["model_id"] == "good"
    assert (await http.get("/readyz")).status == 200
    states = {m["name"]: m["state"] for m in (await http.get("/v1/models")).json()["models"]}
    assert states == {"bad": "UNAVAILABLE", "good": "READY"}


async def test_no_default_among_several(serve: Serve, repository: Repository) -> None:
    """404 in each dialect's shape, telling how to name one; named routes and liveness work."""
    repository.add("one")
    repository.add("two", of="roberta")
    http = await serve(repository.path)
    plain = await http.predict(["a"])
    assert plain.status == 404
    assert plain.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "--default-model" in plain.text
    typed = await http.predict_tokens(["a"])
    assert typed.status == 404
    assert "one, two" in typed.json()["error"]
    assert (await http.get("/model")).status == 404
    assert (await http.get("/health")).status == 200
    assert (await http.predict(["a"], model="two")).status == 200
    models = (await http.get("/v1/models")).json()["models"]
    assert [model["default"] for model in models] == [False, False]


async def test_model_with_a_bad_config(serve: Serve, repository: Repository) -> None:
    """UNAVAILABLE, the reason names the key and the nearest valid one."""
    repository.add("good")
    repository.add("bad", max_batchsize=3)
    http = await serve(repository.path)
    model = (await http.get("/v1/models/bad")).json()
    assert model["state"] == "UNAVAILABLE"
    assert "max_batchsize" in model["reason"]
    assert "max_batch_size" in model["reason"]
    assert model["reason"] in (await http.predict(["a"], model="bad")).text


# --- probes


async def test_live(http: Client) -> None:
    """The process answers."""
    answer = await http.get("/livez")
    assert (answer.status, answer.text) == (200, '{"live":true}')


async def test_ready(http: Client) -> None:
    """Ready, although one model of many is broken."""
    answer = await http.get("/readyz")
    assert answer.status == 200
    body = answer.json()
    assert body["ready"] is True
    assert list(body["models"]) == NAMES
    assert {name for name, state in body["models"].items() if state != "READY"} == {"broken"}


async def test_not_ready_when_every_model_failed(serve: Serve, repository: Repository) -> None:
    """503, but alive, and the reason can be had."""
    repository.add_broken("one")
    repository.add_broken("two")
    http = await serve(repository.path)
    answer = await http.get("/readyz")
    assert answer.status == 503
    assert answer.json() == {
        "ready": False,
        "models": {"one": "UNAVAILABLE", "two": "UNAVAILABLE"},
    }
    assert (await http.get("/livez")).status == 200
    assert (await http.get("/health")).body == b'"OK!"'
    assert "model.onnx" in (await http.get("/v1/models/one")).json()["reason"]


async def test_only_model_failed(serve: Serve, repository: Repository) -> None:
    """It is still the one that is meant: 503 with its reason, not 404."""
    repository.add_broken("only")
    http = await serve(repository.path)
    for answer in (await http.predict(["a"]), await http.predict_tokens(["a"])):
        assert answer.status == 503
        assert "model.onnx" in answer.text


async def test_while_loading(server_of: ServerOf, repository: Repository) -> None:
    """The port is open, nothing is ready, and requests are told to come back."""
    repository.add("quick")
    # its warm-up is far more work than the test waits for; closing breaks it off
    repository.add("slow", model_warmup=[{"count": 1000, "batch_size": 1024}])
    async with server_of(repository.path) as server, server.client() as http:

        async def slow_is_loading() -> bool:
            states = (await http.get("/readyz")).json()["models"]
            return bool(states == {"quick": "READY", "slow": "LOADING"})

        await http.until(slow_is_loading)
        answer = await http.get("/readyz")
        assert answer.status == 503
        assert answer.json() == {"ready": False, "models": {"quick": "READY", "slow": "LOADING"}}
        assert (await http.get("/livez")).status == 200
        assert (await http.get("/health")).status == 200
        assert (await http.get("/v1/models/slow")).json()["state"] == "LOADING"
        plain = await http.predict(["a"], model="slow")
        assert plain.status == 503
        assert "LOADING" in plain.text
        assert int(plain.headers["Retry-After"]) >= 1
        typed = await http.predict_tokens(["a"], model="slow")
        assert (typed.status, typed.json()["error_type"]) == (503, "Unhealthy")
        assert (await http.predict(["a"], model="quick")).status == 200


async def test_before_loading(repository: Repository, server_of: ServerOf) -> None:
    """An app that was only built and told of its models is not ready yet."""
    repository.add("bert")
    async with server_of(repository.path, started=False) as server:
        await server.app.sync.find()
        async with server.client() as http:
            answer = await http.get("/readyz")
            assert (answer.status, answer.json()["ready"]) == (503, False)
            assert (await http.predict(["a"])).status == 503
            await server.app.sync.load_all()
            assert (await http.get("/readyz")).json() == {
                "ready": True,
                "models": {"bert": "READY"},
            }
            assert (await http.predict(["a"])).status == 200


# --- metrics


async def test_metrics_parse(http: Client) -> None:
    """In Prometheus' own text format, by Prometheus' own parser."""
    await http.predict_tokens(["people"])
    answer = await http.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == CONTENT_TYPE_PLAIN_0_0_4
    families = {each.name: each for each in text_string_to_metric_families(answer.text)}
    for name in (
        *("nerve_requests", "nerve_request_seconds", "nerve_texts", "nerve_truncated_texts"),
        *("nerve_model_version_ready", "nerve_batch_rows", "nerve_run_seconds"),
        *("nerve_tokens", "nerve_padded_tokens"),
    ):
        assert families[name].samples
        assert families[name].documentation


async def test_metrics_count(http: Client) -> None:
    """Requests by dialect and status, texts by model, rows and runs, ready versions."""

    async def numbers() -> dict[str, float]:
        requests = "nerve_requests_total"
        return {
            "good": await http.metric(requests, dialect="encoderfile", status="200"),
            "bad": await http.metric(requests, dialect="baseten", status="422"),
            "lost": await http.metric(requests, dialect="native", status="404"),
            "texts": await http.metric("nerve_texts_total", model="patient"),
            "rows": await http.metric("nerve_batch_rows_sum", model="patient", version="1"),
            "runs": await http.metric("nerve_batch_rows_count", model="patient", version="1"),
            "timed": await http.metric("nerve_run_seconds_count", model="patient", version="1"),
            "tokens": await http.metric("nerve_tokens_total", model="patient", version="1"),
            "padded": await http.metric("nerve_padded_tokens_total", model="patient", version="1"),
        }

    before = await numbers()
    assert (await http.predict(["people", "people people"], model="patient")).status == 200
    assert (await http.predict_tokens(3)).status == 422
    assert (await http.get("/v1/models/nope")).status == 404
    after = await numbers()
    assert {name: after[name] - before[name] for name in after} == {
        "good": 1,
        "bad": 1,
        "lost": 1,
        "texts": 2,
        "rows": 2,
        "runs": 1,
        "timed": 1,
        "tokens": 7,
        "padded": 8,
    }
    ready = "nerve_model_version_ready"
    assert await http.metric(ready, model="minilm-ner", version="1") == 1
    assert await http.metric(ready, model="multi", version="2") == 1
    assert await http.metric(ready, model="broken", version="1") == 0


# --- documentation


class Links(HTMLParser):
    """What a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.scripts = ""
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect."""
        self._in_script = tag == "script"
        self.urls += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        """Collect."""
        if self._in_script:
            self.scripts += data


@pytest.mark.parametrize("prefix", ["", "/production/sync"])
async def test_docs_page(http: Client, prefix: str) -> None:
    """A page that fetches only from this server, and all that it fetches is there."""
    answer = await http.get(f"{prefix}/docs")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    page = Links()
    page.feed(answer.text)
    page.close()
    assert "//" not in answer.text
    named = re.search(r'url: "([^"]+)"', page.scripts)
    assert named is not None
    assert "StandaloneLayout" not in page.scripts  # it would ask validator.swagger.io
    fetched = [url for url in page.urls if not url.startswith("data:")]
    assert len(fetched) == 2
    kinds = {}
    for url in (*fetched, named[1]):
        assert not url.startswith("/")
        got = await http.get(f"{prefix}/{url}")
        assert got.status == 200
        assert got.body
        kinds[url.rpartition(".")[2]] = got.headers["Content-Type"]
    assert kinds == {"css": "text/css", "js": "text/javascript", "json": "application/json"}


async def test_docs_styles_fetch_nothing(http: Client) -> None:
    """The style sheet brings its images along."""
    text = (await http.get("/docs/swagger-ui.css")).text
    assert "@import" not in text
    for url in re.findall(r"url\(([^)]*)\)", text):
        assert url.strip("\"'").startswith("data:"), url[:80]


@pytest.mark.parametrize(
    "asset",
    ["nope.js", "..", "%2e%2e", "..%2f..%2fserver.py", "LICENSE", "swagger-ui.css/x", "", "%00"],
)
async def test_other_assets(http: Client, asset: str) -> None:
    """Only what the page needs is served."""
    assert (await http.get(f"/docs/{asset}")).status == 404


async def test_announcements(server: Server) -> None:
    """What the operator reads at start."""
    assert server.announced[0] == f"Starting HTTP server on 127.0.0.1:{server.port}"
    assert "Model: minilm-ner v1" in server.announced
    assert {"Model: multi v1", "Model: multi v2"} < set(server.announced)
    assert "Model: broken v1" not in server.announced
