"""The model repository extension over HTTP (contract kserve-v2, section 4)."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from api.conftest import Answer, Client, Repository, Serve

INDEX = "/v2/repository/index"
MODELS = "/v2/repository/models"
EXPLICIT: dict[str, Any] = {"model_control_mode": "explicit"}


async def rows(http: Client, **body: object) -> list[dict[str, str]]:
    """The index."""
    answer = await http.post(INDEX, body)
    assert answer.status == 200, answer
    found: list[dict[str, str]] = answer.json()
    return found


async def load(http: Client, name: str, **parameters: object) -> Answer:
    return await http.post(f"{MODELS}/{name}/load", {"parameters": parameters})


async def unload(http: Client, name: str, **parameters: object) -> Answer:
    return await http.post(f"{MODELS}/{name}/unload", {"parameters": parameters})


def said(answer: Answer, status: int) -> str:
    """The sentence of an error, which has the protocol's shape."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].split(";")[0] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    sentence: str = body["error"]
    assert sentence
    return sentence


def done(answer: Answer) -> None:
    """200, and nothing in it."""
    assert (answer.status, answer.body) == (200, b""), answer


async def test_index(http: Client) -> None:
    """A row a version, by name and number; every value a string; a reason where there is one."""
    found = await rows(http)
    assert [(row["name"], int(row.get("version", 0))) for row in found] == sorted(
        (row["name"], int(row.get("version", 0))) for row in found
    )
    assert all(isinstance(value, str) for row in found for value in row.values())
    assert {"name": "minilm-ner", "version": "1", "state": "READY"} in found
    assert [row["version"] for row in found if row["name"] == "multi"] == ["1", "2"]
    (broken,) = [row for row in found if row["name"] == "broken"]
    assert broken["state"] == "UNAVAILABLE"
    assert broken["reason"]
    ready = await rows(http, ready=True)
    assert ready == [row for row in found if row.get("state") == "READY"]


@pytest.mark.parametrize("body", [None, b"", b"  \n", b"{}", b'{"ready":false}', b'{"other":[1]}'])
@pytest.mark.parametrize("kind", [None, "application/json", "application/octet-stream"])
async def test_clients_say_nothing_in_many_ways(
    http: Client, body: bytes | None, kind: str | None
) -> None:
    """No body, no Content-Type, or any; the path below a deployment's prefix, too."""
    for prefix in ("", "/production/sync"):
        answer = await http.send("POST", prefix + INDEX, data=body, content_type=kind)
        assert answer.status == 200, answer
        assert len(answer.json()) > 5


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[]", "expected a JSON object, got a list"),
        (b"null", "expected a JSON object, got null"),
        (b'{"ready":1}', "ready: "),
        (b'{"ready":"yes"}', "ready: "),
    ],
)
async def test_bad_index_requests(http: Client, body: bytes, sentence: str) -> None:
    assert sentence in said(await http.send("POST", INDEX, data=body), 400)


@pytest.mark.parametrize(
    ("verb", "body", "sentence"),
    [
        ("load", b"{", "not valid JSON"),
        ("load", b"[]", "expected a JSON object, got a list"),
        ("load", b'{"parameters":null}', "parameters: expected a JSON object, got null"),
        ("load", b'{"parameters":[]}', "parameters: expected a JSON object, got a list"),
        ("load", b'{"parameters":{"confg":"{}"}}', "'confg'; known: config"),
        ("load", b'{"parameters":{"config":7}}', "parameters.config: expected a JSON object"),
        ("load", b'{"parameters":{"config":"max_batch_size: 4"}}', "is not valid JSON"),
        ("load", b'{"parameters":{"config":"[1]"}}', "JSON object, got that of a list"),
        ("load", b'{"parameters":{"file:1/model.onnx":"eA=="}}', "put them into the repository"),
        ("load", b'{"parameters":{"file:../x":"eA==","config":"{}"}}', "put them into the repo"),
        ("load", b"x" * 3_000_000, "put them into the repository"),
        ("unload", b'{"parameters":{"wait":"yes"}}', "parameters.wait: "),
        ("unload", b'{"parameters":{"unload_dependents":1}}', "parameters.unload_dependents: "),
        ("unload", b'{"parameters":{"force":true}}', "known: unload_dependents, wait"),
    ],
)
async def test_bad_parameters(http: Client, verb: str, body: bytes, sentence: str) -> None:
    """Refused before anything is done, whatever the mode."""
    answer = await http.send("POST", f"{MODELS}/bert/{verb}", data=body)
    assert sentence in said(answer, 400)


async def test_broken_bodies(http: Client) -> None:
    """Over the limit, and badly compressed; well compressed is fine."""
    answer = await http.send("POST", INDEX, data=b" " * 3_000_000)
    assert "length limit exceeded" in said(answer, 413)
    encoded = {"Content-Encoding": "gzip"}
    answer = await http.send("POST", INDEX, data=b"no gzip", headers=encoded)
    assert "encoding is broken" in said(answer, 400)
    answer = await http.send("POST", INDEX, data=gzip.compress(b"{}"), headers=encoded)
    assert answer.status == 200


async def test_other_verbs_and_paths(http: Client) -> None:
    """In the protocol's shape; a trailing slash is another path."""
    for path in (INDEX, f"{MODELS}/bert/load", f"{MODELS}/bert/unload"):
        answer = await http.get(path)
        said(answer, 405)
        assert answer.headers["Allow"] == "POST"
    for path in (f"{INDEX}/", f"{MODELS}/bert/reload", f"{MODELS}//load", "/v2/nothing"):
        said(await http.send("POST", path), 404)


@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_refused_unless_allowed(http: Client, verb: str) -> None:
    """The ring's server was not told to take control requests; names are not told apart."""
    for name in ("bert", "nope"):
        sentence = said(await http.send("POST", f"{MODELS}/{name}/{verb}"), 409)
        assert "--allow-model-control" in sentence
        assert "--model-control-mode explicit" in sentence
    assert {"name": "bert", "version": "1", "state": "READY"} in await rows(http)


async def test_load_and_unload(serve: Serve, repository: Repository) -> None:
    """From never loaded to READY and back, with tritonclient's bodies and with none at all."""
    repository.add("one")
    repository.add("two")
    http = await serve(repository.path, **EXPLICIT, load_model=["two"])
    assert await rows(http) == [{"name": "one"}, {"name": "two", "version": "1", "state": "READY"}]
    assert await rows(http, ready=True) == [{"name": "two", "version": "1", "state": "READY"}]
    assert (await http.predict_tokens("people", model="one")).status == 503

    done(await http.send("POST", f"{MODELS}/one/load", data=b"{}"))
    done(await http.send("POST", f"{MODELS}/one/load"))  # nothing has changed
    assert (await http.predict_tokens("people", model="one")).status == 200
    assert (await rows(http))[0] == {"name": "one", "version": "1", "state": "READY"}

    done(await unload(http, "one", unload_dependents=False, wait=True))
    assert (await rows(http))[0] == {
        "name": "one", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded",
    }  # fmt: skip
    assert (await http.predict_tokens("people", model="one")).status == 503
    done(await unload(http, "one", unload_dependents=True))  # once more does no harm
    done(await load(http, "one"))
    assert (await http.predict_tokens("people", model="one")).status == 200
    assert (await http.predict_tokens("people", model="two")).status == 200


async def test_allowed_in_watch_mode(serve: Serve, repository: Repository) -> None:
    """A load is a look at once; what was unloaded by request stays so."""
    repository.add("one")
    http = await serve(repository.path, allow_model_control=True)
    http.server.app.sync._settling._settle_s = 30.0  # nothing below is the watcher's doing
    repository.add("new")
    done(await load(http, "new"))
    assert (await http.predict_tokens("people", model="new")).status == 200
    done(await unload(http, "one", wait=True))
    assert [row["name"] for row in await rows(http, ready=True)] == ["new"]


async def test_unknown_models(serve: Serve, repository: Repository) -> None:
    """404, with the names that there are; a name is decoded once."""
    repository.add("one")
    http = await serve(repository.path, **EXPLICIT)
    for name in ("nope", "a%20b", "%25", "x" * 300, "o%2Fne", "%FF", "%00"):
        for verb in ("load", "unload"):
            sentence = said(await http.send("POST", f"{MODELS}/{name}/{verb}"), 404)
            assert "it holds: one" in sentence
    assert "'a b'" in said(await http.send("POST", f"{MODELS}/a%20b/load"), 404)


async def test_failed_loads_tell_each_version(serve: Serve, repository: Repository) -> None:
    """400 with `version N: reason`; good versions are served all the same."""
    repository.add("multi", version=1)
    repository.add("multi", version=2, version_policy="all")
    (repository.path / "multi" / "2" / "model.onnx").write_bytes(b"this is no graph")
    http = await serve(repository.path, **EXPLICIT)
    sentence = said(await load(http, "multi"), 400)
    assert "version 2: " in sentence
    assert "version 1" not in sentence
    found = await rows(http)
    assert [(row["version"], row["state"]) for row in found] == [
        ("1", "READY"), ("2", "UNAVAILABLE"),
    ]  # fmt: skip
    assert found[1]["reason"] in sentence


async def test_a_failed_reload_shows_beside_ready(serve: Serve, repository: Repository) -> None:
    """What served goes on, and the index says what is wrong with its successor, until it is mended."""
    folder = repository.add("one")
    http = await serve(repository.path, **EXPLICIT, load_model=["one"])
    good = folder.with_name(".good")  # dot files are no models
    shutil.copy(folder / "model.onnx", good)
    (folder / "model.onnx").write_bytes(b"this is no graph")
    reason = said(await load(http, "one"), 400)
    (row,) = await rows(http)
    assert row["state"] == "READY"
    assert row["reason"] in reason
    assert (await http.predict_tokens("people")).status == 200
    good.replace(folder / "model.onnx")
    done(await load(http, "one"))
    assert await rows(http) == [{"name": "one", "version": "1", "state": "READY"}]


async def test_a_broken_config_is_a_failed_load(serve: Serve, repository: Repository) -> None:
    """With every problem and its line."""
    folder = repository.add("one")
    (folder / "config.yaml").write_text("max_batchsize: 3\nname: two\n")
    http = await serve(repository.path, **EXPLICIT)
    sentence = said(await load(http, "one"), 400)
    assert "line 1: max_batchsize: unknown key; did you mean 'max_batch_size'?" in sentence
    assert "line 2: name: " in sentence
    (row,) = await rows(http)
    assert "max_batchsize" in row["reason"]


@pytest.mark.parametrize("as_text", [True, False])
async def test_config_override(serve: Serve, repository: Repository, as_text: bool) -> None:
    """Taken in place of config.yaml, shown, and taken back by a plain load."""
    repository.add("one", max_batch_size=7)
    http = await serve(repository.path, **EXPLICIT, load_model=["one"])

    async def limit() -> int:
        about = (await http.get("/v1/models/one")).json()
        return int(about["limits"]["max_batch_size"])

    assert await limit() == 7
    config = {"name": "one", "max_batch_size": 5}
    done(await load(http, "one", config=json.dumps(config) if as_text else config))
    assert await limit() == 5
    assert (await http.get("/v1/models/one")).json()["config_override"] is True
    done(await load(http, "one"))
    assert await limit() == 7
    assert (await http.get("/v1/models/one")).json()["config_override"] is False


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"max_batchsize": 3, "labels": []}, "did you mean 'max_batch_size'?"),
        ({"max_batch_size": 0}, "parameters.config: max_batch_size: "),
        ({"name": "two"}, "parameters.config: name: "),
        ({"platform": "onnxruntime_onnx"}, "platform: unknown key"),
    ],
)
async def test_faulty_overrides(
    serve: Serve, repository: Repository, config: dict[str, object], sentence: str
) -> None:
    """400, and nothing has changed, neither now nor for the next load."""
    repository.add("one")
    http = await serve(repository.path, **EXPLICIT, load_model=["one"])
    assert sentence in said(await load(http, "one", config=config), 400)
    assert await rows(http) == [{"name": "one", "version": "1", "state": "READY"}]
    done(await load(http, "one"))


async def test_unload_can_wait(serve: Serve, repository: Repository) -> None:
    """With `wait` it answers when the last request has its answer; without, at once."""
    repository.add_patient("one")
    repository.add_patient("two")
    http = await serve(repository.path, **EXPLICIT, load_model=["*"])
    for name, wait in (("one", False), ("two", True)):
        async with http.waiting(http.predict_tokens(["people"], model=name)) as asked:
            await http.queued(name, 1)
            async with http.waiting(unload(http, name, wait=wait)) as unloading:
                await http.until(lambda name=name: _state(http, name, "UNLOADING"))  # type: ignore[misc]
                if not wait:
                    done(await unloading)
                assert unloading.done() != wait
                assert not asked.done()
                assert (await http.predict_tokens(["people"], model=name)).status == 503
                asked.cancel()
                done(await unloading)
            await http.until(lambda name=name: _state(http, name, "UNAVAILABLE"))  # type: ignore[misc]


async def _state(http: Client, name: str, state: str) -> bool:
    return any((row["name"], row.get("state")) == (name, state) for row in await rows(http))


async def test_a_folder_that_came_and_went(serve: Serve, repository: Repository) -> None:
    """In explicit mode the index is a look at the disk; a removed model that serves goes on."""
    repository.add("one")
    http = await serve(repository.path, **EXPLICIT, load_model=["one"])
    repository.add("late")
    assert {"name": "late"} in await rows(http)
    shutil.rmtree(Path(repository.path / "late"))
    assert [row["name"] for row in await rows(http)] == ["one"]


async def test_what_belongs_into_parameters(repository: Repository, serve: Serve) -> None:
    """Beside them it would have been ignored, and the model loaded as it is."""
    repository.add("bert")
    http = await serve(repository.path, allow_model_control=True)
    answer = await http.post("/v2/repository/models/bert/load", {"config": {"max_batch_size": 3}})
    assert answer.status == 400
    assert answer.json()["error"].startswith("config: ")
