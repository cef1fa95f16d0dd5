"""The OpenAPI document: valid, complete, and true of what the server really answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator, ValidationError
from openapi_spec_validator import OpenAPIV31SpecValidator

from nerve.frontend.http.application import PREFIXES

if TYPE_CHECKING:
    from api.conftest import Answer, Client, Repository, Serve, Server

REQUEST_HEADERS = {"request-timeout-ms", "request-deadline-ms", "x-nerve-priority"}
PARAMETERS = {
    "{model}": "minilm-ner", "{version}": "1", "{repository}": "any", "{region}": "any",
    "{request_id}": "any",
}  # fmt: skip
PAGES = ("/docs", "/playground/")
RUNS = ("/predict", "/predict_tokens", "/infer", "/generate", "/generate_stream")
"""Ends of the paths that run a model."""
LATER = "/async"
"""What is answered later begins like that; the ring's server has no store for it."""
INFERENCE = [
    f"{prefix}/{route}"
    for route in ("predict", "predict_tokens")
    for prefix in ("", "/v1/models/{model}", "/v1/models/{model}/versions/{version}")
]


class Document:
    """The served document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def operations(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Method, path and operation of each."""
        return [
            (method, path, operation)
            for path, item in self.document["paths"].items()
            for method, operation in item.items()
        ]

    def validator(self, schema: dict[str, Any]) -> Draft202012Validator:
        """Of a schema in this document."""
        Draft202012Validator.check_schema(schema)
        return Draft202012Validator(schema | {"components": self.document["components"]})

    def check(self, method: str, path: str, answer: Answer) -> None:
        """Status, content type and body of a real answer are as documented."""
        responses = self.document["paths"][path][method]["responses"]
        assert str(answer.status) in responses, (method, path, answer)
        content = responses[str(answer.status)].get("content")
        if content is None:
            assert answer.body == b"", (method, path, answer)
            return
        kind = answer.headers["Content-Type"].split(";")[0]
        assert kind in content, (method, path, answer)
        value = answer.json() if kind == "application/json" else answer.text
        self.validator(content[kind]["schema"]).validate(value)


def filled(path: str, **names: str) -> str:
    """A template with its parameters."""
    for parameter, value in (PARAMETERS | {f"{{{k}}}": v for k, v in names.items()}).items():
        path = path.replace(parameter, value)
    return path


@pytest.fixture
async def api(http: Client) -> Document:
    """The document of the ring's server."""
    return Document((await http.get("/openapi.json")).json())


async def test_document_is_valid(api: Document) -> None:
    """OpenAPI 3.1, by the reference validator."""
    assert api.document["openapi"].startswith("3.1.")
    errors = [str(error) for error in OpenAPIV31SpecValidator(api.document).iter_errors()]
    assert errors == []


async def test_schemas_are_valid_and_used(api: Document) -> None:
    """Each is JSON Schema, described, and referred to; no reference dangles."""
    schemas = api.document["components"]["schemas"]
    wanted = set()

    def collect(value: object) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                wanted.add(str(value["$ref"]))
            for each in value.values():
                collect(each)
        elif isinstance(value, list):
            for each in value:
                collect(each)

    collect(api.document)
    assert wanted == {f"#/components/schemas/{name}" for name in schemas}
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


async def test_operations_are_described(api: Document) -> None:
    """Each has an id of its own, a summary, a known tag, and its parameters."""
    ids = [operation["operationId"] for _, _, operation in api.operations()]
    assert len(ids) == len(set(ids))
    tags = {tag["name"] for tag in api.document["tags"]}
    for _, path, operation in api.operations():
        assert operation["summary"]
        assert operation["tags"]
        assert set(operation["tags"]) <= tags
        parameters = operation.get("parameters", [])
        named = {f"{{{each['name']}}}" for each in parameters if each["in"] == "path"}
        assert named == {each for each in PARAMETERS if each in path}
        headers = {each["name"] for each in parameters if each["in"] == "header"}
        runs = path.endswith(RUNS) and not path.startswith(LATER)
        assert headers == (REQUEST_HEADERS if runs else set())


async def test_every_served_route_is_documented(api: Document, server: Server) -> None:
    """And nothing else; deployment prefixes, pages for people and HEAD are left out."""
    served = set()
    for route in server.app.http_app.router.routes():
        assert route.resource is not None
        path = route.resource.canonical
        if any(prefix and path.startswith(prefix) for prefix in PREFIXES):
            continue
        if route.method != "HEAD" and path != "/" and not path.startswith(PAGES):
            served.add((route.method.lower(), path))
    assert served == {(method, path) for method, path, _ in api.operations()}
    assert ("post", "/predict_tokens") in served


async def test_every_documented_operation_is_served(http: Client, api: Document) -> None:
    """With its own example it answers 200, as documented, with the documented headers."""
    for method, path, operation in api.operations():
        url = filled(path)
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]
            api.validator(content["schema"]).validate(content["example"])
            answer = await http.post(url, content["example"])
        else:
            answer = await http.send(method.upper(), url)
        expected = 200
        if path.startswith("/v2/repository/models/"):
            expected = 409  # the ring's server was not started to load and unload on request
        elif path.startswith(LATER) or "200" not in operation["responses"]:
            expected = 501
        assert answer.status == expected, (method, path, answer)
        api.check(method, path, answer)
        for name in operation["responses"].get("200", {}).get("headers", {}):
            assert name in answer.headers or name == "x-nerve-truncated-inputs"


@pytest.mark.parametrize("path", INFERENCE)
async def test_answers_of_inference_routes(http: Client, api: Document, path: str) -> None:
    """Real answers, good ones and errors, fit the schema of their status."""
    baseten = path.endswith("predict_tokens")
    url = filled(path)
    named = "{model}" in path

    async def ask(expected: int, url: str, value: object) -> None:
        answer = await http.post(url, value)
        assert answer.status == expected, answer
        api.check("post", path, answer)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65536

    choices: list[dict[str, object]] = [
        {},
        {"metadata": {"a": "b"}},
        {"aggregation_strategy": "max"},
        {"raw_scores": True},
        {"ignore_labels": []},
        {"truncate": True},
    ]
    for fields in choices:
        await ask(200, url, {"inputs": ["Zoë 🚀 in Paris", " ", "x" * 4000]} | fields)
    await ask(422, url, {"inputs": 3})
    await ask(400 if baseten else 422, url, {"inputs": [""]})
    await ask(413, url, {"inputs": ["a"] * 1025})
    answer = await http.send("POST", url, data=b"{")
    assert answer.status == 400
    api.check("post", path, answer)
    answer = await http.send("POST", url, data=endless())
    assert answer.status == 413
    api.check("post", path, answer)
    if not baseten:
        answer = await http.send("POST", url, data=b"{}", content_type="text/plain")
        assert answer.status == 415
        api.check("post", path, answer)
    if named:
        await ask(404, filled(path, model="nope"), {"inputs": ["a"]})
        await ask(503, filled(path, model="broken"), {"inputs": ["a"]})
        await ask(424 if baseten else 500, filled(path, model="rule"), {"inputs": ["early"]})
        await ask(500, filled(path, model="rule"), {"inputs": ["night"]})
        if baseten:
            late = {"request-timeout-ms": "1"}
            patient = filled(path, model="patient")
            answer = await http.post(patient, {"inputs": ["a"]}, headers=late)
            assert answer.status == 504
            api.check("post", path, answer)
        async with http.waiting(http.predict_tokens(["people"], model="patient")):
            await http.queued("patient", 1)
            patient = filled(path, model="patient")
            await ask(429 if baseten else 503, patient, {"inputs": ["a"]})
        await http.queued("patient", 0)


@pytest.mark.parametrize("verb", ["generate", "infer"])
@pytest.mark.parametrize("version", ["", "/versions/{version}"])
async def test_answers_of_open_inference(
    http: Client, api: Document, version: str, verb: str
) -> None:
    """Good ones and errors of the routes that run models, by the Open Inference Protocol."""
    path = f"/v2/models/{{model}}{version}/{verb}"

    async def ask(expected: int, text: str, *, model: str = "minilm-ner", **fields: object) -> None:
        tensor = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
        value = {"TEXT": text} if verb == "generate" else {"inputs": [tensor]}
        answer = await http.post(filled(path, model=model), value | fields)
        assert answer.status == expected, answer
        api.check("post", path, answer)

    await ask(200, "Zoë 🚀 in Paris", id="7", parameters={"aggregation": "max"})
    await ask(400, "Paris", id=7)
    await ask(404, "Paris", model="nope")
    await ask(503, "Paris", model="broken")
    await ask(500, "early", model="rule")
    for coding, status in (("br", 415), ("gzip", 400)):
        headers = {"Content-Encoding": coding}
        answer = await http.send("POST", filled(path), data=b"{}", headers=headers)
        assert answer.status == status
        api.check("post", path, answer)


async def test_answers_of_model_routes(http: Client, api: Document) -> None:
    """Errors of the routes that have a model in the path."""
    asked = 0
    for method, path, _ in api.operations():
        if method == "get" and "{model}" in path and not path.startswith(LATER):
            told = path in {"/v1/models/{model}", "/v2/models/{model}/trace/setting"}
            v2 = path.endswith(("/ready", "/stats", "/trace/setting"))  # as Triton has it
            answer = await http.get(filled(path, model="nope"))
            assert answer.status == (400 if v2 else 404)
            api.check("get", path, answer)
            answer = await http.get(filled(path, model="broken"))
            assert answer.status == (200 if told else 400 if v2 else 503)
            api.check("get", path, answer)
            asked += 1
    assert asked == 16


async def test_answers_without_a_default_model(serve: Serve, repository: Repository) -> None:
    """Routes that name no model may find none: that is documented, too."""
    repository.add("one")
    repository.add("two")
    http = await serve(repository.path)
    api = Document((await http.get("/openapi.json")).json())
    for path in ("/predict", "/predict_tokens", "/tokenize", "/decode"):
        answer = await http.post(path, {"inputs": ["a"], "ids": [5]})
        assert answer.status == 404
        api.check("post", path, answer)
    for path in ("/model", "/info"):
        answer = await http.get(path)
        assert answer.status == 404
        api.check("get", path, answer)


async def test_answer_without_a_ready_model(serve: Serve, repository: Repository) -> None:
    """The same while the only model is not ready."""
    repository.add_broken("only")
    http = await serve(repository.path)
    api = Document((await http.get("/openapi.json")).json())
    for path in ("/predict", "/predict_tokens", "/tokenize", "/decode"):
        answer = await http.post(path, {"inputs": ["a"], "ids": [5]})
        assert answer.status == 503
        api.check("post", path, answer)
    for path in ("/model", "/info", "/ping", "/readyz"):
        answer = await http.get(path)
        assert answer.status == 503
        api.check("get", path, answer)


async def test_request_schema_of_predict_tokens(http: Client, api: Document) -> None:
    """What it allows is answered, what it forbids is refused."""
    operation = api.document["paths"]["/predict_tokens"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    validator = api.validator(schema)
    good: list[dict[str, object]] = [
        {"inputs": "a"},
        {"inputs": ["a", "b"]},
        {"inputs": [["a"], ["b", "c"]]},
        {"inputs": ["a", ["b"]]},
        {"inputs": ["a"], "truncate": None},
        {"inputs": ["a"], "truncation_direction": "left"},
        {"inputs": ["a"], "aggregation_strategy": "average", "raw_scores": True},
        {"inputs": ["a"], "ignore_labels": [], "unknown": 1},
    ]
    for value in good:
        validator.validate(value)
        assert (await http.post("/predict_tokens", value)).status == 200, value
    bad: list[dict[str, object]] = [
        {},
        {"inputs": []},
        {"inputs": ""},
        {"inputs": [""]},
        {"inputs": None},
        {"inputs": [1]},
        {"inputs": [[["a"]]]},
        {"inputs": ["a"], "truncate": "yes"},
        {"inputs": ["a"], "truncation_direction": "LEFT"},
        {"inputs": ["a"], "aggregation_strategy": "Max"},
        {"inputs": ["a"], "ignore_labels": "O"},
        {"inputs": ["a"], "offset_unit": "char"},
    ]
    for value in bad:
        with pytest.raises(ValidationError):
            validator.validate(value)
        assert (await http.post("/predict_tokens", value)).status in {400, 422}, value


async def test_request_schema_of_predict(http: Client, api: Document) -> None:
    """The same for Encoderfile's route."""
    operation = api.document["paths"]["/predict"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    validator = api.validator(schema)
    good: list[dict[str, object]] = [
        {"inputs": ["a"]},
        {"inputs": ["a", "b"], "metadata": None},
        {"inputs": ["a"], "metadata": {"k": "v"}, "unknown": 1},
        {"inputs": ["a"], "metadata": {}},
    ]
    for value in good:
        validator.validate(value)
        assert (await http.post("/predict", value)).status == 200, value
    bad: list[dict[str, object]] = [
        {},
        {"inputs": []},
        {"inputs": [""]},
        {"inputs": "a"},
        {"inputs": [["a"]]},
        {"inputs": ["a"], "metadata": {"k": 1}},
        {"inputs": ["a"], "offset_unit": "char"},
    ]
    for value in bad:
        with pytest.raises(ValidationError):
            validator.validate(value)
        assert (await http.post("/predict", value)).status == 422, value


@pytest.mark.parametrize("path", ["/predict", "/predict_tokens"])
async def test_documented_offset_units(http: Client, api: Document, path: str) -> None:
    """Every value that the document lists is taken."""
    operation = api.document["paths"][path]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    for unit in (None, "codepoint", "byte", "utf16"):
        value = {"inputs": ["a"], "offset_unit": unit}
        api.validator(schema).validate(value)
        assert (await http.post(path, value)).status == 200, unit


async def test_names_of_encoderfile(api: Document) -> None:
    """Schema names and operation ids that generated clients know (encoderfile 1.7)."""
    names = set(api.document["components"]["schemas"])
    assert {
        "TokenClassificationRequest",
        "TokenClassificationResponse",
        "TokenClassificationResult",
        "TokenClassification",
        "TokenInfo",
        "GetModelMetadataResponse",
        "ModelType",
    } <= names
    ids = {path: operation["operationId"] for _, path, operation in api.operations()}
    assert ids["/health"] == "health"
    assert ids["/model"] == "get_model_metadata"
    assert ids["/predict"] == "predict"
    assert ids["/openapi.json"] == "openapi"
