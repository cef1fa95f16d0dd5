"""The OpenAPI 3.1 document, made from the routes and their pydantic models. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

import nerve
from nerve.config.described import DescribedJsonSchema
from nerve.exchange import Access
from nerve.frontend.http.call import DEADLINE_HEADER, TIMEOUT_HEADER
from nerve.frontend.http.dialect import (
    MODEL_HEADER,
    TRUNCATED_HEADER,
    VERSION_HEADER,
    Dialect,
    Route,
)
from nerve.frontend.http.native import ErrorBody
from nerve.frontend.http.openinference.schemas import OpenInferenceError
from nerve.frontend.http.tei import PredictTokensError
from nerve.frontend.priority import LOWEST, PRIORITY_KEY

TEMPLATE = "#/components/schemas/{model}"
PARAMETERS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "model": ("Name of a model in the repository.", {"type": "string"}),
    "version": ("One of its versions.", {"type": "string", "pattern": "^[1-9][0-9]*$"}),
    "repository": ("Name of a repository, which means nothing here.", {"type": "string"}),
    "region": ("Name of a region of shared memory.", {"type": "string"}),
    "request_id": ("What a request that is answered later was accepted with.", {"type": "string"}),
}
REQUEST_HEADERS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    TIMEOUT_HEADER: ("Milliseconds that the caller waits for the answer.", {"type": "number"}),
    DEADLINE_HEADER: (
        "Until when the caller waits, in milliseconds since 1970 began (UTC).",
        {"type": "number"},
    ),
    PRIORITY_KEY: (
        f"1 goes first, {LOWEST} last; by default the model's `default_priority`.",
        {"type": "integer", "minimum": 1, "maximum": LOWEST},
    ),
}
"""Of inference."""
INFERENCE_HEADERS = {
    MODEL_HEADER: ("The model that answered.", "string"),
    VERSION_HEADER: ("Its version.", "string"),
    TRUNCATED_HEADER: (
        "How many texts were cut because they are too long; absent if none.",
        "integer",
    ),
}
COMPUTE_HEADERS = {
    "x-compute-type": ("`cpu` or `gpu`.", "string"),
    "x-compute-time": ("Milliseconds in the server.", "integer"),
    "x-compute-characters": ("Size of the texts in bytes.", "integer"),
    "x-compute-tokens": ("Tokens, special ones counted.", "integer"),
    "x-total-time": ("Milliseconds in the server.", "integer"),
    "x-tokenization-time": ("Milliseconds, mean over the texts.", "integer"),
    "x-queue-time": ("Milliseconds, mean over the texts.", "integer"),
    "x-inference-time": ("Milliseconds, mean over the texts.", "integer"),
}  # fmt: skip
SCHEMES: Mapping[str, Mapping[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
"""How a key is sent. Roles are scopes of keys."""
DESCRIPTIONS = {
    "201": "Accepted: it is kept, and will be answered.",
    "400": "The body is not JSON, or there is no text.",
    "401": "There is no API key with the request, or one that is not known.",
    "403": "The API key has not the scope that this takes.",
    "404": "There is no such model or version.",
    "408": "The body did not arrive in time.",
    "409": "The server was not started to load and unload on request.",
    "413": "The body, the number of texts or a text is over a limit.",
    "415": "The Content-Type is not JSON, or the Content-Encoding is not known.",
    "422": "A field is missing, has the wrong type or a wrong value.",
    "424": "The model failed to run.",
    "429": "Too many texts are waiting; try again.",
    "500": "The server failed.",
    "501": "The protocol has it, this server does not.",
    "503": "The model is not ready, or too many texts are waiting.",
    "504": "There was no answer in time.",
}
ERRORS = {
    "encoderfile": ("400", "404", "408", "413", "415", "422", "500", "503", "504"),
    "baseten": ("400", "404", "408", "413", "415", "422", "424", "429", "500", "503", "504"),
    "openinference": ("400", "404", "408", "413", "415", "500", "501", "503"),
}
"""Of inference; other operations list their own."""
ERROR_MODELS: Mapping[str, type[object]] = {
    "async": PredictTokensError,
    "baseten": PredictTokensError,
    "bei": PredictTokensError,
    "native": ErrorBody,
    "openinference": OpenInferenceError,
}


def build_document(dialects: Sequence[Dialect], *, keyed: bool = False) -> dict[str, Any]:
    """The document for every documented route; with `keyed` they want API keys."""
    schemas = _schemas(dialects)
    paths: dict[str, dict[str, Any]] = {}
    for dialect in dialects:
        for route in dialect.routes():
            if route.documented:
                operation = _operation(route, dialect.name)
                if keyed:
                    _guard(operation, route.access, dialect.name)
                paths.setdefault(route.template, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Nerve",
            "version": nerve.__version__,
            "description": (
                "Named-entity recognition with ONNX models. Every path is also served below the "
                "prefixes of a hosted deployment: /production/sync, /development/sync, "
                "/environments/{env}/sync and /deployment/{id}/sync; those of async inference without "
                "/sync."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "."}],
        "tags": [
            {"name": "Baseten", "description": "Entities and tokens, as BEI-Bert answers"},
            {"name": "Async", "description": "The same for who does not wait, as Baseten has it"},
            {"name": "Encoderfile", "description": "Tokens and scores, as Encoderfile answers"},
            {"name": "Models", "description": "What is loaded"},
            {
                "name": "Open Inference",
                "description": "The Open Inference Protocol (KServe V2), as Triton serves it",
            },
            {"name": "Repository", "description": "Loading and unloading, by the same protocol"},
            {"name": "Probes", "description": "Health and metrics"},
            {"name": "Documentation", "description": "This API"},
        ],
        "paths": paths,
        "components": {"schemas": schemas} | ({"securitySchemes": SCHEMES} if keyed else {}),
    }


def _guard(operation: dict[str, Any], access: Access, dialect: str) -> None:
    """Tell which scope of a key it takes, and what is answered without."""
    operation["security"] = []
    if access is not Access.OPEN:
        operation["security"] = [{name: [access.value]} for name in SCHEMES]
        for status in ("401", "403", "429"):
            operation["responses"].setdefault(status, _error_response(status, dialect))


def _schemas(dialects: Sequence[Dialect]) -> dict[str, Any]:
    models: dict[Any, None] = {}
    for dialect in dialects:
        if dialect.name in ERROR_MODELS:
            models[ERROR_MODELS[dialect.name]] = None
        for route in dialect.routes():
            described = [route.operation.get("request")]
            described += [
                each.get("model") for each in route.operation.get("responses", {}).values()
            ]
            models |= dict.fromkeys(each for each in described if each is not None)
    plain = [each for each in models if hasattr(each, "model_json_schema")]
    _, found = models_json_schema(
        [(each, "validation") for each in plain],
        ref_template=TEMPLATE,
        schema_generator=DescribedJsonSchema,
    )
    schemas: dict[str, Any] = dict(found.get("$defs", {}))
    for each in models:
        if each not in plain:
            schema = TypeAdapter(each).json_schema(
                ref_template=TEMPLATE, schema_generator=DescribedJsonSchema
            )
            schemas |= schema.pop("$defs", {})
            if isinstance(each, type):  # a list has no name, only what is in it
                schemas[each.__name__] = schema
    return dict(sorted(schemas.items()))


def _operation(route: Route, dialect: str) -> dict[str, Any]:
    described = route.operation
    operation: dict[str, Any] = {
        key: described[key] for key in ("operationId", "summary", "tags") if key in described
    }
    inference = "request" in described and "errors" not in described
    if parameters := _parameters(route.template, described, inference=inference):
        operation["parameters"] = parameters
    if "request" in described:
        content = {"schema": {"$ref": TEMPLATE.format(model=described["request"].__name__)}}
        content["example"] = described["example"]
        required = described.get("required", inference)
        bodies = {"application/json": content} | _also(described)
        operation["requestBody"] = {"required": required, "content": bodies}
    operation["responses"] = {
        status: _response(status, answer, dialect, inference=inference)
        for status, answer in described["responses"].items()
    }
    if also := _also(described):
        operation["responses"]["200"]["content"] |= also
    for status in ERRORS[dialect] if inference else described.get("errors", ()):
        operation["responses"][status] = _error_response(status, dialect)
    for status, description in described.get("descriptions", {}).items():
        operation["responses"][status]["description"] = description
    return operation


def _also(described: Mapping[str, Any]) -> dict[str, Any]:
    """The other type of an operation's bodies, if there is one: bytes."""
    if "also" not in described:
        return {}
    return {described["also"]: {"schema": {"type": "string", "format": "binary"}}}


def _parameters(
    path: str, operation: Mapping[str, Any], *, inference: bool
) -> list[dict[str, Any]]:
    """Those in the path, those of a query, which are lists of texts, and what a request for inference
    may say in its head."""
    described = [("path", name, *PARAMETERS[name]) for name in re.findall(r"{(\w+)}", path)]
    texts = {"type": "array", "items": {"type": "string"}}
    described += [("query", name, text, texts) for name, text in operation.get("query", {}).items()]
    if inference:
        described += [("header", name, *row) for name, row in REQUEST_HEADERS.items()]
    return [
        {
            "name": name,
            "in": place,
            "required": place == "path",
            "description": text,
            "schema": schema,
        }
        for place, name, text, schema in described
    ]


def _response(
    status: str, answer: Mapping[str, Any], dialect: str, *, inference: bool
) -> dict[str, Any]:
    model = answer.get("model")
    if not answer:
        return {"description": "Done; the body is empty."}
    if model is None:
        schema: dict[str, Any] = answer["schema"]
    elif isinstance(model, type) and not hasattr(model, "__origin__"):
        schema = {"$ref": TEMPLATE.format(model=model.__name__)}
    else:
        schema = TypeAdapter(model).json_schema(
            ref_template=TEMPLATE, schema_generator=DescribedJsonSchema
        )
        schema.pop("$defs", None)
    response: dict[str, Any] = {
        "description": "The answer." if status == "200" else DESCRIPTIONS[status],
        "content": {answer.get("type", "application/json"): {"schema": schema}},
    }
    if inference:
        headers = INFERENCE_HEADERS | (COMPUTE_HEADERS if dialect == "baseten" else {})
        response["headers"] = {
            name: {"description": text, "schema": {"type": kind}}
            for name, (text, kind) in headers.items()
        }
    return response


def _error_response(status: str, dialect: str) -> dict[str, Any]:
    if dialect == "encoderfile":
        content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    else:
        name = ERROR_MODELS[dialect].__name__
        content = {"application/json": {"schema": {"$ref": TEMPLATE.format(model=name)}}}
    return {"description": DESCRIPTIONS[status], "content": content}
