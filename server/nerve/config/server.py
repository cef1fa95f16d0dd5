"""Settings of the daemon: command-line flags over `NERVE_*` variables over a YAML file."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from nerve.config.problems import parse_yaml, validate
from nerve.errors import ConfigInvalid, Problem
from nerve.types import OffsetUnit

ENV_PREFIX = "NERVE_"


_LISTS = {"repositories": os.pathsep, "load_model": ",", "mcp_allowed_origins": ","}
"""Settings that are lists, and what separates their items in a variable."""


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _no_flag(value: object) -> object:
    """YAML's `yes` is true, which would count as 1."""
    if isinstance(value, bool):
        raise ValueError("expected a port number, got a boolean")  # noqa: TRY004  pydantic wants it
    return value


def _origin(value: str) -> str:
    """As a browser writes it, or it would never be the same."""
    if not re.fullmatch(r"\*|https?://[^/\s?#@A-Z]+", value):
        raise ValueError(
            f"expected scheme://host[:port] in lower case and without a path, or *, got {value!r:.80}"
        )
    return value


Port = Annotated[int, BeforeValidator(_no_flag), Field(ge=0, le=65535)]


class ControlMode(StrEnum):
    """Who decides what is loaded; the names are Triton's, but for watch."""

    WATCH = "watch"
    POLL = "poll"
    EXPLICIT = "explicit"
    NONE = "none"


class ServerConfig(BaseModel):
    """Everything that `nerve serve` can be told. Each key is also a `NERVE_<KEY>` variable."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    repositories: Annotated[list[Path], Field(min_length=1)] = [Path("model_repository")]
    """Folders of models; in NERVE_REPOSITORIES separated as in PATH."""
    http_hostname: str = "0.0.0.0"  # noqa: S104  the contract's default; a server is there to be reached
    """Address that HTTP listens on."""
    http_port: Port = 8080
    """Port of HTTP; 0 lets the kernel pick one, which is then announced."""
    disable_http: bool = False
    """Do not listen for HTTP."""
    grpc_hostname: str = "[::]"
    """Address that gRPC listens on."""
    grpc_port: Port = 50051
    """Port of gRPC; 0 lets the kernel pick one, which is then announced."""
    disable_grpc: bool = False
    """Do not listen for gRPC."""
    grpc_keepalive_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 60.0
    """Time without a sign of life after which a gRPC client is pinged; one that does not answer within
    20 s is given up."""
    grpc_min_ping_interval_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    """Clients may ping as often as this without calls; the connection of one that does so more often
    is closed."""
    grpc_max_connection_age_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    """Age at which a gRPC connection is closed so that its client looks for a server anew; calls in
    flight get request_timeout_s to end. By default never."""
    enable_mcp: bool = False
    """Offer tools to language models at /mcp on HTTP's port, by the Model Context Protocol."""
    mcp_allowed_origins: list[Annotated[str, AfterValidator(_origin)]] = []
    """Web pages that may use /mcp, as scheme://host[:port], beside those of this machine; "*" is
    any. In NERVE_MCP_ALLOWED_ORIGINS separated by commas."""
    mcp_max_sessions: Annotated[int, Field(ge=1)] = 1000
    """Most sessions of MCP clients that are open at the same time."""
    mcp_session_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    """Time without a request or an open stream after which such a session is ended."""
    default_model: str | None = None
    """The model that routes without a name mean; by default the only one."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = (
        "info"
    )
    """Least severe line that is logged (to stderr)."""
    offset_unit: OffsetUnit | None = None
    """What start and end count where neither the request nor the model says; by default the
    dialect's own."""
    request_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """Longest time from a request's arrival to its answer."""
    body_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """Longest time that a client may take to send a request's body."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 2_097_152
    """Largest request body, after decompression; on predict_tokens, tokenize and decode 2,000,000 if
    that is less. In requests for inference by the Open Inference Protocol, the largest JSON."""
    max_infer_bytes: Annotated[int, Field(ge=1024, le=2**31 - 1)] = 64 * 2**20
    """Largest request of the Open Inference Protocol, over HTTP after decompression, and largest gRPC
    message."""
    max_inputs: Annotated[int, Field(ge=1)] = 1024
    """Most texts in one request on Encoderfile's routes and over gRPC."""
    max_client_batch_size: Annotated[int, Field(ge=1)] = 128
    """Most texts in one request on predict_tokens and tokenize."""
    shutdown_timeout_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    """Longest time that requests in flight are waited for on SIGTERM."""
    model_control_mode: Annotated[ControlMode, BeforeValidator(_lower)] = ControlMode.WATCH
    """How a changed repository is noticed: watch (events, and a slow poll as a net), poll, explicit
    (only the repository API loads and unloads), none (never)."""
    load_model: list[str] = []
    """Models that are loaded at start in mode explicit; "*" means all. In NERVE_LOAD_MODEL separated
    by commas."""
    allow_model_control: bool = False
    """Take load and unload requests in the other modes, too."""
    repository_poll_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Time between two looks at the repositories; by default 30 with watch, 15 with poll."""
    settle_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """How long a changed model folder must have been quiet before it is loaded."""
    load_threads: Annotated[int, Field(ge=1, le=64)] = 4
    """Versions that are loaded at the same time."""
    load_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 120.0
    """Longest time to prove a version, and again to load it."""
    prove_models: bool = True
    """Load and run a version in a throw-away process first, so that one that crashes or hangs the
    runtime takes nothing with it."""
    proof_memory_bytes: Annotated[int, Field(ge=64 * 2**20)] | None = None
    """Most memory that a model may take in such a process, by default without a limit. CPU only."""
    graph_cache: Path | None = None
    """Folder for graphs as ONNX Runtime has optimised them, so that a later load is faster; made with
    access for this user only. By default nothing is kept. CPU only."""
    graph_cache_bytes: Annotated[int, Field(ge=1)] = 10 * 2**30
    """Most that is kept there; what was not used for longest goes first."""
    exit_on_error: bool = False
    """End with an error if a model cannot be loaded at start."""

    @property
    def model_control(self) -> bool:
        """Whether load and unload requests are taken."""
        return self.allow_model_control or self.model_control_mode is ControlMode.EXPLICIT

    @property
    def poll_s(self) -> float:
        """Seconds between two looks at the repositories."""
        if self.repository_poll_seconds is not None:
            return self.repository_poll_seconds
        return 15.0 if self.model_control_mode is ControlMode.POLL else 30.0

    @model_validator(mode="after")
    def _load_model_is_explicit(self) -> Self:
        if self.load_model and self.model_control_mode is not ControlMode.EXPLICIT:
            raise ValueError(
                "load_model is for model_control_mode explicit; the other modes load every model"
            )
        return self

    @model_validator(mode="after")
    def _something_listens(self) -> Self:
        if self.disable_http and self.disable_grpc:
            raise ValueError("Cannot disable both gRPC and HTTP")
        return self

    @model_validator(mode="after")
    def _mcp_has_a_door(self) -> Self:
        if self.enable_mcp and self.disable_http:
            raise ValueError(
                "enable_mcp offers /mcp on the port of HTTP, which is disabled; `nerve mcp` has one "
                "of its own"
            )
        return self


def load_server_config(
    flags: Mapping[str, object], environment: Mapping[str, str], file: Path | None
) -> ServerConfig:
    """Merge the three sources; a flag wins over a variable, a variable over the file.

    Args:
        flags: only those that were given, named as the fields.
        environment: all variables; those that start with NERVE_ and name a field are read.
        file: YAML with the fields as keys, or None.
    Raises:
        ConfigInvalid: every problem at once.
    """
    merged: dict[str, object] = {}
    lines: dict[tuple[int | str, ...], int] = {}
    source = "settings"
    if file is not None:
        source = str(file)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            detail = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            raise ConfigInvalid(source, [Problem("", f"cannot be read: {detail}")]) from error
        merged, lines = parse_yaml(text, source=source)
    for name in ServerConfig.model_fields:
        value = environment.get(ENV_PREFIX + name.upper())
        if value is not None and value != "":
            separator = _LISTS.get(name)
            merged[name] = value if separator is None else value.split(separator)
            lines.pop((name,), None)
    merged.update(flags)
    return validate(ServerConfig, merged, source=source, lines=lines)


def misspelt(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """NERVE_ variables that name no setting but nearly do, with the nearest one.

    Others are left alone: Kubernetes sets NERVE_SERVICE_HOST and the like for a service `nerve`.
    """
    known = [ENV_PREFIX + name.upper() for name in (*ServerConfig.model_fields, "config")]
    found = []
    for name in sorted(environment):
        if name.startswith(ENV_PREFIX) and name not in known:
            found += [(name, near) for near in difflib.get_close_matches(name, known, 1, 0.85)]
    return found
