"""The protocol's JSON as models: those of the repository are checked, the others only documented.

On the hot path checks are written by hand, see `codec`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nerve.frontend.v2.repository import LoadParameters, UnloadParameters


class OpenInferenceError(BaseModel):
    """Why there is no answer."""

    error: str


class ServerMetadata(BaseModel):
    """What the server is, and which extensions of the protocol it has."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """The process answers."""

    live: bool


class ServerReady(BaseModel):
    """Whether the server should get traffic."""

    ready: bool


class ModelReady(BaseModel):
    """The model answers."""

    name: str
    ready: bool


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives."""

    name: str
    datatype: str
    shape: list[int]
    """-1 is any length; the first is the batch."""


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    """Those that are READY."""
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelConfiguration(BaseModel):
    """Triton's ModelConfig as JSON, defaults included."""

    model_config = ConfigDict(extra="allow")

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[dict[str, object]]
    output: list[dict[str, object]]


class DurationStatistics(BaseModel):
    """How often, and how long in all."""

    count: int
    ns: int


class BatchStatistics(BaseModel):
    """Runs of one size."""

    batch_size: int
    compute_input: DurationStatistics
    compute_infer: DurationStatistics
    compute_output: DurationStatistics


class ModelStatistics(BaseModel):
    """Totals of a version since it was loaded."""

    name: str
    version: str
    last_inference: int
    """Milliseconds since 1970 began (UTC)."""
    inference_count: int
    """Texts, or rows, of requests that were answered."""
    execution_count: int
    """Runs of the model."""
    inference_stats: dict[str, DurationStatistics]
    """Of requests: success, fail, queue, compute_input, compute_infer, compute_output."""
    response_stats: dict[str, object]
    batch_stats: list[BatchStatistics]
    memory_usage: list[dict[str, object]]


class StatisticsResponse(BaseModel):
    """Statistics of READY versions."""

    model_stats: list[ModelStatistics]


class TensorParameters(BaseModel):
    """How the content of a tensor comes."""

    binary_data_size: int | None = None
    """Bytes of it behind the JSON, in place of `data`."""


class InferInput(BaseModel):
    """An input."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    """Its values, flat or nested by dimension; strings for BYTES."""
    parameters: TensorParameters | None = None


class OutputParameters(BaseModel):
    """How an output shall come."""

    binary_data: bool | None = None


class InferOutputRequest(BaseModel):
    """An output that is wanted."""

    name: str
    parameters: OutputParameters | None = None


class InferenceRequest(BaseModel):
    """Tensors for a model. Unknown fields are ignored, unknown parameters refused."""

    id: str = ""
    """Echoed."""
    parameters: dict[str, bool | int | float | str] = {}
    """`priority`, `timeout` (microseconds), `binary_data_output`, and those of the model."""
    inputs: list[InferInput]
    outputs: list[InferOutputRequest] = []
    """None means those of the metadata."""


class InferOutput(BaseModel):
    """An output."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    """Flat; left out where the content is behind the JSON."""
    parameters: TensorParameters | None = None


class InferenceResponse(BaseModel):
    """Tensors of a model."""

    id: str | None = None
    model_name: str
    model_version: str
    outputs: list[InferOutput]


class GenerateRequest(BaseModel):
    """Text in. What is none of these fields is a request parameter, as is what `parameters` holds."""

    model_config = ConfigDict(extra="allow")

    id: str = ""
    TEXT: str | list[str]
    """A text or a list; `text_input` is another name of it."""
    parameters: dict[str, bool | int | float | str] = {}


class GenerateResponse(BaseModel):
    """Text out."""

    id: str | None = None
    model_name: str
    model_version: str
    ENTITIES: str | list[str]
    """The JSON text of a text's entities; a list if a list was sent."""


class LoggingSettings(BaseModel):
    """Log settings; a change may name any of them."""

    log_file: str = ""
    """Cannot be changed."""
    log_info: bool = True
    log_warning: bool = True
    log_error: bool = True
    log_verbose_level: int = 0
    """Over 0, debug lines are logged."""
    log_format: Literal["default", "ISO8601"] = "default"


class TraceSettings(BaseModel):
    """Trace settings. This server does not trace: they can be named, but not changed."""

    trace_level: str | list[str] | None = None
    trace_rate: str | None = None
    trace_count: str | None = None
    log_frequency: str | None = None
    trace_file: str | None = None
    trace_mode: str | None = None


class RepositoryIndexRow(BaseModel):
    """A version; or a model that has none that can be used, or that was never loaded."""

    name: str
    version: str | None = None
    """Left out where there is no version to speak of."""
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"] | None = None
    """Left out for a model that was never loaded."""
    reason: str | None = None
    """Why it is not READY; with READY, why the last attempt to replace it failed."""


class RepositoryIndexRequest(BaseModel):
    """What to list."""

    ready: bool = False
    """Only what is READY."""


class ModelLoadRequest(BaseModel):
    """How to load."""

    model_config = ConfigDict(extra="forbid")

    parameters: LoadParameters = Field(default_factory=LoadParameters)


class ModelUnloadRequest(BaseModel):
    """How to unload."""

    model_config = ConfigDict(extra="forbid")

    parameters: UnloadParameters = Field(default_factory=UnloadParameters)
