"""The protocol's operations in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nerve.frontend.http.openinference import schemas

Operation = Mapping[str, Any]

_FAULT: Final = {"400": "The request is at fault."}
_UNAVAILABLE: Final = {"400": "There is no such model or version, or it is not ready."}
_OF_BODY: Final = ("400", "408", "413", "415", "500")
"""Errors of an operation that reads a body."""
_WHOSE: Final = {"model": "the version that the server picks", "model_version": "a version"}


def _get(name: str, summary: str, model: object, **more: object) -> Operation:
    return {
        "operationId": f"v2_{name}",
        "tags": ["Open Inference"],
        "summary": summary,
        "responses": {"200": {"model": model}},
    } | more


def _post(name: str, summary: str, request: type, example: object, **more: object) -> Operation:
    asked: dict[str, object] = {"request": request, "example": example, "errors": _OF_BODY}
    return _get(name, summary, None, **(asked | {"descriptions": _FAULT} | more))


SERVER: Final = _get(
    "server_metadata",
    "The server, and which extensions of the protocol it has",
    schemas.ServerMetadata,
)
LIVE: Final = _get("live", "Liveness: the process answers", schemas.ServerLive)
READY: Final = _get("ready", "Readiness: 200, or 400 while it is not", None, responses={
    "200": {"model": schemas.ServerReady}, "400": {"model": schemas.ServerReady},
}, descriptions={"400": "Not ready."})  # fmt: skip
STATISTICS: Final = _get(
    "statistics", "Statistics of all READY versions", schemas.StatisticsResponse
)


def _bad_where_unavailable(of: str) -> Operation:
    """Errors of an operation with 400 for what others have 404 or 503 for."""
    if of == "model":
        return {"errors": ("400",), "descriptions": _UNAVAILABLE}
    described = {**_UNAVAILABLE, "404": "The version is no number."}
    return {"errors": ("400", "404"), "descriptions": described}


def metadata(of: str) -> Operation:
    """Of a model or version: `of` as in `bodies.PLACES`, here and below."""
    summary = f"Tensors of {_WHOSE[of]}"
    return _get(f"{of}_metadata", summary, schemas.ModelMetadata, errors=("404", "503"))


def ready(of: str) -> Operation:
    """Whether it answers."""
    summary = f"Whether {_WHOSE[of]} answers: 200 or 400"
    return _get(f"{of}_ready", summary, schemas.ModelReady, **_bad_where_unavailable(of))


def config(of: str) -> Operation:
    """Its configuration."""
    summary = f"Configuration of {_WHOSE[of]}, in Triton's shape"
    return _get(f"{of}_config", summary, schemas.ModelConfiguration, errors=("404", "503"))


def stats(of: str) -> Operation:
    """Its statistics."""
    summary = "Statistics of " + ("a model's READY versions" if of == "model" else _WHOSE[of])
    return _get(
        f"{of}_statistics", summary, schemas.StatisticsResponse, **_bad_where_unavailable(of)
    )


def inference(verb: str, of: str) -> Operation:
    """infer, generate or generate_stream."""
    described: dict[str, Any] = dict(_INFERENCE[verb])
    described["operationId"] += "" if of == "model" else "_of_version"
    return described | {"descriptions": _FAULT}


_TEXT: Final = "Apple is looking at buying U.K. startup for $1 billion"
_EXAMPLE: Final = {
    "id": "42",
    "parameters": {"threshold": 0.5},
    "inputs": [{"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": [_TEXT]}],
}
_BYTES: Final = "application/octet-stream"
_INFERENCE: Final = {
    "infer": _get(
        "infer", "Run a model on tensors", schemas.InferenceResponse,
        request=schemas.InferenceRequest, example=_EXAMPLE, also=_BYTES,
    ),
    "generate": _get(
        "generate", "Find entities in a text, without tensors", schemas.GenerateResponse,
        request=schemas.GenerateRequest, example={"TEXT": _TEXT, "threshold": 0.5},
    ),
    "generate_stream": _get(
        "generate_stream", "The same as a server-sent event", None,
        request=schemas.GenerateRequest, example={"TEXT": _TEXT},
        responses={"200": {"schema": {"type": "string"}, "type": "text/event-stream"}},
    ),
}  # fmt: skip

LOGGING: Final = _get("logging", "Log settings", schemas.LoggingSettings)
_SETTINGS_ERRORS: Final = (*_OF_BODY, "501")
CHANGE_LOGGING: Final = _post(
    "change_logging", "Change log settings; any of them may be named", schemas.LoggingSettings,
    {"log_verbose_level": 0}, errors=_SETTINGS_ERRORS,
    responses={"200": {"model": schemas.LoggingSettings}},
)  # fmt: skip


def trace(of: str) -> Operation:
    """Of the server, or "_of_model"."""
    errors = {"errors": ("400",), "descriptions": _UNAVAILABLE} if of else {}
    return _get(f"trace{of}", "Trace settings", schemas.TraceSettings, **errors)


def change_trace(of: str) -> Operation:
    """Likewise."""
    return _post(
        f"change_trace{of}", "Name trace settings; nothing but OFF is taken",
        schemas.TraceSettings, {"trace_level": ["OFF"]}, errors=_SETTINGS_ERRORS,
        responses={"200": {"model": schemas.TraceSettings}},
    )  # fmt: skip


def memory_status(kind: str, of: str) -> Operation:
    """Of system or cuda shared memory; all, or "_of_region"."""
    return _get(f"{kind}_memory_status{of}", "Regions of shared memory: there are none",
                list[dict[str, object]])  # fmt: skip


def memory_unregister(kind: str, of: str) -> Operation:
    """Likewise."""
    return _get(f"{kind}_memory_unregister{of}", "Forget regions of shared memory", None,
                responses={"200": {}})  # fmt: skip


def memory_register(kind: str) -> Operation:
    """Likewise."""
    return _get(f"{kind}_memory_register", "Refused: send tensors in the request", None,
                responses={}, errors=("501",))  # fmt: skip


def _repository(name: str, summary: str, **more: object) -> Operation:
    return {"operationId": name, "tags": ["Repository"], "summary": summary} | more


def index(of: str = "") -> Operation:
    """Of all, or "_of_repository", which is the same."""
    return _repository(
        f"repository_index{of}",
        "Every version of every model, with its state and why it is in it",
        request=schemas.RepositoryIndexRequest, example={"ready": True},
        responses={"200": {"model": list[schemas.RepositoryIndexRow]}},
        errors=_OF_BODY, descriptions=_FAULT,
    )  # fmt: skip


LOAD: Final = _repository(
    "repository_model_load",
    "Load a model, or what changed of it; answers when it is READY",
    request=schemas.ModelLoadRequest,
    example={"parameters": {"config": '{"max_batch_size": 16}'}},
    responses={"200": {}}, errors=("404", "409", *_OF_BODY),
    descriptions={"400": "The request is at fault, or a version cannot be loaded: "
                  "`error` has the reason of each."},
)  # fmt: skip
UNLOAD: Final = _repository(
    "repository_model_unload",
    "Unload a model; requests in flight end first",
    request=schemas.ModelUnloadRequest, example={"parameters": {"wait": True}},
    responses={"200": {}}, errors=("404", "409", *_OF_BODY), descriptions=_FAULT,
)  # fmt: skip


def of_repository(verb: str) -> Operation:
    """load or unload, with a repository's name."""
    return _repository(
        f"repository_model_{verb}_of_repository", "Refused: leave out the repository's name",
        responses={}, errors=("501",),
    )  # fmt: skip
