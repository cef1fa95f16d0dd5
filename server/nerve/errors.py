"""Everything that can go wrong, as facts and a sentence; statuses and wire shapes live in `frontend`.

NerveError
├── InvalidRequest        the caller's fault: MalformedBody, MalformedMessage, InvalidField, EmptyInput,
│                         TooManyInputs, TextTooLong, UnsupportedMediaType, UnsupportedEncoding,
│                         BodyTooLarge, AsyncBodyTooLarge, MessageTooLarge, BodyTimeout
├── ModelUnavailable      ModelNotFound, VersionNotFound, NoDefaultModel, ModelNotReady, ModelUnloaded,
│                         TransformDown
├── ControlFault          ModelControlDisabled, LogControlDisabled, LoadFailed
├── Refused               Unauthenticated, AccessDenied: by the guard; ForeignOrigin
├── Overloaded            QueueFull, WaitTooLong, ServerBusy, RateLimited, AsyncQueueFull
├── AsyncRequestFault     AsyncRequestNotFound, AsyncResultMissing: of one that was accepted before
├── ServerStopping        it answers nothing more on this connection
├── DeadlineExceeded      the answer did not come in time
├── Unsupported           the protocol has it, this server does not
├── ServerFault           TokenizationFailed, InferenceFailed, NonFiniteScores, TransformFailed,
│   │                     StoreFailed
│   └── TransformFailed   TransformResult, TransformLimit
└── SetupError            ConfigInvalid, ModelLoadFailed, RuntimeMissing, RepositoryInvalid,
                          AddressUnavailable, TlsInvalid, StoreUnavailable
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple


def shown(value: object, limit: int = 64) -> str:
    """What a client sent, as Python writes it; a text is cut before, which may be very long."""
    if isinstance(value, str) and len(value) > limit:
        return repr(f"{value[:limit]}…")
    return repr(value)


_KINDS = {
    type(None): "null", bool: "a boolean", int: "a number", float: "a number", bytes: "bytes",
    str: "a string", list: "a list", dict: "an object",
}  # fmt: skip


def kind_of(value: object) -> str:
    """What a value of a request is, in words."""
    return _KINDS.get(type(value), type(value).__name__)


class NerveError(Exception):
    """Root of the tree. `reason` is stable: clients, logs and metrics may rely on it."""

    reason: ClassVar[str] = "error"


class InvalidRequest(NerveError):
    """The request itself is at fault; sending it again does not help."""

    reason = "invalid_request"


class MalformedBody(InvalidRequest):
    """The body is not a JSON document: syntax, encoding or compression is broken."""

    reason = "malformed_body"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"the body is not valid JSON: {self.detail}"


class MalformedMessage(InvalidRequest):
    """The bytes of a gRPC request are no message of its type (wire format, or invalid UTF-8)."""

    reason = "malformed_message"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return f"the request is not a valid {self.message}: broken wire format or invalid UTF-8"


class InvalidField(InvalidRequest):
    """A field is missing, has the wrong type, or holds a value outside its range."""

    reason = "invalid_field"

    def __init__(self, field: str, fault: str) -> None:
        super().__init__(field, fault)
        self.field, self.fault = field, fault

    def __str__(self) -> str:
        return f"{self.field}: {self.fault}" if self.field else self.fault


class EmptyInput(InvalidRequest):
    """There is no text to work on: an empty list, or an empty string in it."""

    reason = "empty_input"

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field

    def __str__(self) -> str:
        return f"{self.field}: at least one text is needed, and none may be an empty string"


class TooManyInputs(InvalidRequest):
    """One request carries more texts than the server takes at once."""

    reason = "too_many_inputs"

    def __init__(self, given: int, limit: int) -> None:
        super().__init__(given, limit)
        self.given, self.limit = given, limit

    def __str__(self) -> str:
        return f"inputs: {self.given} texts in one request, at most {self.limit} are taken"


class TextTooLong(InvalidRequest):
    """A text is longer than the model, and the caller asked not to have it cut."""

    reason = "text_too_long"

    def __init__(self, given: int, limit: int, unit: str) -> None:
        super().__init__(given, limit, unit)
        self.given, self.limit, self.unit = given, limit, unit

    def __str__(self) -> str:
        return f"inputs: a text of {self.given} {self.unit}, the model takes {self.limit}"


class UnsupportedMediaType(InvalidRequest):
    """The body's Content-Type is not one that the route reads."""

    reason = "unsupported_media_type"

    def __init__(self, given: str) -> None:
        super().__init__(given)
        self.given = given

    def __str__(self) -> str:
        given = f"{self.given!r}" if self.given else "no Content-Type"
        return f"got {given}, expected Content-Type: application/json"


class UnsupportedEncoding(InvalidRequest):
    """The body's Content-Encoding is not one that is read."""

    reason = "unsupported_encoding"

    def __init__(self, given: str, known: Sequence[str]) -> None:
        super().__init__(given, known)
        self.given, self.known = given, tuple(known)

    def __str__(self) -> str:
        known = " or ".join(self.known)
        return f"Content-Encoding {shown(self.given)} is not read; use {known}, or none"


class BodyTooLarge(InvalidRequest):
    """The body is over the limit of its route."""

    reason = "body_too_large"

    def __init__(self, limit_bytes: int, part: str = "body") -> None:
        super().__init__(limit_bytes, part)
        self.limit_bytes, self.part = limit_bytes, part

    def __str__(self) -> str:
        return f"length limit exceeded: the {self.part} is over {self.limit_bytes} bytes"


class AsyncBodyTooLarge(InvalidRequest):
    """A request that is answered later is over its limit."""

    reason = "async_body_too_large"

    def __init__(self, given_bytes: int, limit_bytes: int) -> None:
        super().__init__(given_bytes, limit_bytes)
        self.given_bytes, self.limit_bytes = given_bytes, limit_bytes

    def __str__(self) -> str:
        return (
            f"payload size of {self.given_bytes} bytes exceeds maximum size of "
            f"{self.limit_bytes} bytes"
        )


class MessageTooLarge(InvalidRequest):
    """A gRPC message is over the limit of its service."""

    reason = "message_too_large"

    def __init__(self, given_bytes: int, limit_bytes: int) -> None:
        super().__init__(given_bytes, limit_bytes)
        self.given_bytes, self.limit_bytes = given_bytes, limit_bytes

    def __str__(self) -> str:
        return f"a message of {self.given_bytes} bytes, at most {self.limit_bytes} are taken"


class BodyTimeout(InvalidRequest):
    """The client did not send the whole body in time."""

    reason = "body_timeout"

    def __init__(self, limit_s: float) -> None:
        super().__init__(limit_s)
        self.limit_s = limit_s

    def __str__(self) -> str:
        return f"the body did not arrive within {self.limit_s:g} s"


class ModelUnavailable(NerveError):
    """The request names (or means) a model that cannot answer it."""

    reason = "model_unavailable"


class ModelNotFound(ModelUnavailable):
    """No model of that name is in the repository."""

    reason = "model_not_found"

    def __init__(self, model: str, known: Sequence[str]) -> None:
        super().__init__(model, known)
        self.model, self.known = model, tuple(known)

    def __str__(self) -> str:
        known = ", ".join(self.known) if self.known else "none"
        return f"model {shown(self.model)} is not in the repository; it holds: {known}"


class VersionNotFound(ModelUnavailable):
    """The model has no such version, or its version policy does not serve it."""

    reason = "version_not_found"

    def __init__(self, model: str, version: str, known: Sequence[int]) -> None:
        super().__init__(model, version, known)
        self.model, self.version, self.known = model, version, tuple(known)

    def __str__(self) -> str:
        known = ", ".join(map(str, self.known)) if self.known else "none"
        return (
            f"model {self.model!r} has no version {shown(self.version)}; served versions: {known}"
        )


class NoDefaultModel(ModelUnavailable):
    """The route names no model and the server has no single one to mean."""

    reason = "no_default_model"

    def __init__(self, known: Sequence[str]) -> None:
        super().__init__(known)
        self.known = tuple(known)

    def __str__(self) -> str:
        if not self.known:
            return "no model is ready to answer; GET /v1/models tells why"
        return (
            f"there are several models ({', '.join(self.known)}): name one in the path, "
            "/v1/models/{name}/…, or start with --default-model"
        )


class ModelNotReady(ModelUnavailable):
    """The model is known, but this version of it is loading, failed to load, or is going away."""

    reason = "model_not_ready"

    def __init__(self, model: str, version: str, state: str, cause: str) -> None:
        super().__init__(model, version, state, cause)
        self.model, self.version, self.state, self.cause = model, version, state, cause

    def __str__(self) -> str:
        version = f" version {self.version:.32}" if self.version else ""
        cause = f": {self.cause}" if self.cause else ""
        return f"model {self.model!r}{version} is {self.state}{cause}"


class ModelUnloaded(ModelUnavailable):
    """The model was taken away while the request was waiting."""

    reason = "model_unloaded"

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return f"model {self.model!r} was unloaded before the request was run"


class TransformDown(ModelUnavailable):
    """The process that runs the model's transform does not stay alive; another one is to come."""

    reason = "transform_down"

    def __init__(self, model: str, detail: str, wait_s: float) -> None:
        """`wait_s` is the time to the next attempt."""
        super().__init__(model, detail, wait_s)
        self.model, self.detail, self.wait_s = model, detail, wait_s

    def __str__(self) -> str:
        return (
            f"the transform of model {self.model!r} is not available just now: {self.detail}; the "
            f"next attempt is in {self.wait_s:g} s"
        )


class ControlFault(NerveError):
    """A request to load or unload a model could not be carried out."""

    reason = "control"


class ModelControlDisabled(ControlFault):
    """The server was not started to take load and unload requests."""

    reason = "model_control_disabled"

    def __init__(self, mode: str) -> None:
        super().__init__(mode)
        self.mode = mode

    def __str__(self) -> str:
        return (
            f"load and unload are refused in model control mode {self.mode!r}; start the server "
            "with --allow-model-control or --model-control-mode explicit"
        )


class LogControlDisabled(ControlFault):
    """The server was not started to have clients say what it logs."""

    reason = "log_control_disabled"

    def __str__(self) -> str:
        return (
            "log settings are not changed by clients; start the server with --allow-model-control, "
            "or with API keys, one of which has the scope 'admin'"
        )


class Cause(NamedTuple):
    """A version that is not served as it is on the disk (0: the whole model), and why."""

    version: int
    reason: str

    def __str__(self) -> str:
        return f"version {self.version}: {self.reason}" if self.version else self.reason


class LoadFailed(ControlFault):
    """A model was to be loaded, and a version of it could not be. What served before still does."""

    reason = "load_failed"

    def __init__(self, model: str, causes: Sequence[Cause]) -> None:
        super().__init__(model, causes)
        self.model, self.causes = model, tuple(causes)

    def __str__(self) -> str:
        return f"failed to load {self.model!r}: {'; '.join(map(str, self.causes))}"


class Overloaded(NerveError):
    """The server is at a limit right now; the same request may succeed after `wait_s` seconds."""

    reason = "overloaded"
    wait_s: float = 0.0


class QueueFull(Overloaded):
    """The model already has as many rows, or tokens of them, waiting as its config allows."""

    reason = "queue_full"

    def __init__(self, model: str, limit: int, wait_s: float = 0.0, what: str = "texts") -> None:
        super().__init__(model, limit, wait_s, what)
        self.model, self.limit, self.wait_s, self.what = model, limit, wait_s, what

    def __str__(self) -> str:
        return (
            f"model {self.model!r} already has {self.limit} {self.what} waiting, "
            f"which will take about {self.wait_s:.3g} s"
        )


class WaitTooLong(Overloaded):
    """So much is waiting that the answer would come after the request's deadline."""

    reason = "wait_too_long"

    def __init__(self, model: str, wait_s: float, left_s: float) -> None:
        super().__init__(model, wait_s, left_s)
        self.model, self.wait_s, self.left_s = model, wait_s, left_s

    def __str__(self) -> str:
        return (
            f"model {self.model!r} has work for {self.wait_s:.3g} s waiting, but the request must "
            f"be answered within {self.left_s:.3g} s"
        )


class ServerBusy(Overloaded):
    """The server as a whole is at one of its limits: `what`, of which it takes `limit`."""

    reason = "server_busy"

    def __init__(self, what: str, limit: int, wait_s: float = 0.0) -> None:
        super().__init__(what, limit, wait_s)
        self.what, self.limit, self.wait_s = what, limit, wait_s

    def __str__(self) -> str:
        return (
            f"the server has {self.limit} {self.what} already, which is its limit; "
            f"try again in {self.wait_s:.3g} s"
        )


class RateLimited(Overloaded):
    """The key's own rate is used up; others are not affected."""

    reason = "rate_limited"

    def __init__(self, key: str, rate: float, wait_s: float) -> None:
        super().__init__(key, rate, wait_s)
        self.key, self.rate, self.wait_s = key, rate, wait_s

    def __str__(self) -> str:
        return (
            f"the API key {self.key!r} may ask {self.rate:g} times a second; "
            f"try again in {self.wait_s:.3g} s"
        )


class AsyncQueueFull(Overloaded):
    """As many requests that are answered later are kept as may be: `what`, of which `limit`."""

    reason = "async_queue_full"

    def __init__(self, what: str, limit: int, wait_s: float = 0.0) -> None:
        super().__init__(what, limit, wait_s)
        self.what, self.limit, self.wait_s = what, limit, wait_s

    def __str__(self) -> str:
        wait = f"; there may be room in {self.wait_s:.1f} s" if self.wait_s else ""
        return f"the server keeps {self.limit} {self.what} already, which is its limit{wait}"


class AsyncRequestFault(NerveError):
    """A request that is answered later cannot be told of."""

    reason = "async_request"


class AsyncRequestNotFound(AsyncRequestFault):
    """There is none of that id: never, not any more, or of another key."""

    reason = "async_request_not_found"

    def __init__(self, request_id: str, retention_s: float) -> None:
        super().__init__(request_id, retention_s)
        self.request_id, self.retention_s = request_id, retention_s

    def __str__(self) -> str:
        return (
            f"there is no async request {shown(self.request_id)}; they are kept for "
            f"{self.retention_s:g} s after they have ended"
        )


class AsyncResultMissing(AsyncRequestFault):
    """The request has no result: not yet, or it ended without one."""

    reason = "async_result_missing"

    def __init__(self, request_id: str, status: str, detail: str = "") -> None:
        super().__init__(request_id, status, detail)
        self.request_id, self.status, self.detail = request_id, status, detail

    def __str__(self) -> str:
        cause = f": {self.detail}" if self.detail else ""
        return f"async request {shown(self.request_id)} is {self.status}{cause}"


class Refused(NerveError):
    """Whoever asks may not."""

    reason = "not_admitted"


class Unauthenticated(Refused):
    """No key came with the request, or one that is not known; `detail` says which, never the key."""

    reason = "unauthenticated"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return (
            f"{self.detail}; send an API key as Authorization: Bearer KEY (or Api-Key KEY), "
            "over gRPC as metadata of that name"
        )


class AccessDenied(Refused):
    """The key is known, but not good for this."""

    reason = "access_denied"

    def __init__(self, key: str, scope: str) -> None:
        super().__init__(key, scope)
        self.key, self.scope = key, scope

    def __str__(self) -> str:
        return f"the API key {self.key!r} has no scope {self.scope!r}, which this request needs"


class ForeignOrigin(Refused):
    """A page of another web site asks for what changes the server."""

    reason = "foreign_origin"

    def __init__(self, page: str) -> None:
        super().__init__(page)
        self.page = page

    def __str__(self) -> str:
        return (
            f"pages from {shown(self.page)} may not change this server; its operator can allow it "
            "with NERVE_CORS_ALLOWED_ORIGINS"
        )


class ServerStopping(NerveError):
    """The server ends; what it did not answer is for another one."""

    reason = "server_stopping"

    def __str__(self) -> str:
        return "the server is shutting down; send what it did not answer again"


class DeadlineExceeded(NerveError):
    """The answer was not ready by the deadline of the caller or of the server."""

    reason = "deadline_exceeded"

    def __str__(self) -> str:
        return "there was no answer before the request's deadline"


class Unsupported(NerveError):
    """The protocol has such a call or setting, and this server does not."""

    reason = "unsupported"

    def __init__(self, what: str, detail: str) -> None:
        super().__init__(what, detail)
        self.what, self.detail = what, detail

    def __str__(self) -> str:
        return f"{self.what} is not supported: {self.detail}"


class ServerFault(NerveError):
    """Something broke on our side; the request was fine as far as we can tell."""

    reason = "internal"


class StoreFailed(ServerFault):
    """What keeps requests that are answered later could not be read or written."""

    reason = "store_failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"the store of async requests failed: {self.detail}"


class TokenizationFailed(ServerFault):
    """The tokenizer raised on a text."""

    reason = "tokenization_failed"

    def __init__(self, model: str, detail: str) -> None:
        super().__init__(model, detail)
        self.model, self.detail = model, detail

    def __str__(self) -> str:
        return f"model {self.model!r} could not tokenize the text: {self.detail}"


class InferenceFailed(ServerFault):
    """The runtime raised while running the model."""

    reason = "inference_failed"

    def __init__(self, model: str, detail: str) -> None:
        super().__init__(model, detail)
        self.model, self.detail = model, detail

    def __str__(self) -> str:
        return f"model {self.model!r} failed to run: {self.detail}"


class NonFiniteScores(ServerFault):
    """The model answered NaN or infinity, which is no score and cannot be written as JSON."""

    reason = "non_finite_scores"

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return f"model {self.model!r} gave a score that is NaN or infinite"


class TransformFailed(ServerFault):
    """The model's transform raised an error, or the process that ran it died."""

    reason = "transform_failed"

    def __init__(self, model: str, detail: str) -> None:
        super().__init__(model, detail)
        self.model, self.detail = model, detail

    def __str__(self) -> str:
        return f"the transform of model {self.model!r} failed: {self.detail}"


class TransformResult(TransformFailed):
    """What the model's transform returned cannot stand for scores."""

    reason = "transform_result"

    def __str__(self) -> str:
        return f"the transform of model {self.model!r} gave no usable scores: {self.detail}"


class TransformLimit(TransformFailed):
    """The model's transform wanted more than `transform_limits` of its config allow."""

    reason = "transform_limit"

    def __init__(self, model: str, limit: str, value: int) -> None:
        """`limit` is the key of the config, `value` what it is set to."""
        super().__init__(model, f"the script went over {limit} ({value}) of transform_limits")
        self.limit, self.value = limit, value

    def __reduce__(self) -> tuple[type[TransformLimit], tuple[str, str, int]]:
        return type(self), (self.model, self.limit, self.value)


class SetupError(NerveError):
    """The server or a model cannot be set up from what it was given."""

    reason = "setup"


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a config file: where (dotted path, 1-based line or 0) and what."""

    path: str
    message: str
    line: int = 0

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.path}: {self.message}" if self.path else f"{place}{self.message}"


class ConfigInvalid(SetupError):
    """A config has faults; all of them are listed at once."""

    reason = "config_invalid"

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        super().__init__(source, problems)
        self.source, self.problems = source, tuple(problems)

    def __str__(self) -> str:
        return f"{self.source}: " + "; ".join(map(str, self.problems))


class ModelLoadFailed(SetupError):
    """A model version cannot be loaded."""

    reason = "model_load_failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class RuntimeMissing(SetupError):
    """Neither onnxruntime nor onnxruntime-gpu is installed, or `detail` says why it is broken."""

    reason = "runtime_missing"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        if self.detail:
            return f"ONNX Runtime is installed but cannot be imported: {self.detail}"
        return (
            "ONNX Runtime is not installed: run `pip install 'nerve-server[cpu]'`, "
            "or `pip install 'nerve-server[gpu]'` on a machine with an NVIDIA GPU "
            "(in the source: '.[cpu]' or '.[gpu]')"
        )


class RepositoryInvalid(SetupError):
    """A repository path cannot be scanned."""

    reason = "repository_invalid"

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path, self.detail = path, detail

    def __str__(self) -> str:
        return f"model repository {self.path!r}: {self.detail}"


class AddressUnavailable(SetupError):
    """The server cannot listen where it was told to."""

    reason = "address_unavailable"

    def __init__(self, host: str, port: int, detail: str) -> None:
        super().__init__(host, port, detail)
        self.host, self.port, self.detail = host, port, detail

    def __str__(self) -> str:
        return f"cannot listen on {self.host}:{self.port}: {self.detail}"


class TlsInvalid(SetupError):
    """A file for TLS cannot be used."""

    reason = "tls_invalid"

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path, self.detail = path, detail

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


class StoreUnavailable(SetupError):
    """Requests that are answered later cannot be kept where the server was told to; `where` without a
    password."""

    reason = "store_unavailable"

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(where, detail)
        self.where, self.detail = where, detail

    def __str__(self) -> str:
        return f"--async-store {self.where}: {self.detail}"
