"""What is served, and when it is loaded."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from nerve.config.settings.kinds import Settings, lower


class ControlMode(StrEnum):
    """Who decides what is loaded; the names are Triton's, but for watch."""

    WATCH = "watch"
    POLL = "poll"
    EXPLICIT = "explicit"
    NONE = "none"


class RepositorySettings(Settings):
    """What is served, and when it is loaded."""

    repositories: Annotated[list[Path], Field(min_length=1)] = [Path("model_repository")]  # noqa: RUF012  pydantic copies it
    """Folders of models; in NERVE_REPOSITORIES separated as in PATH."""
    default_model: str | None = None
    """The model that routes without a name mean; by default the only one."""
    model_control_mode: Annotated[ControlMode, BeforeValidator(lower)] = ControlMode.WATCH
    """How a changed repository is noticed: watch (events, and a slow poll as a net), poll, explicit
    (only the repository API loads and unloads), none (never)."""
    load_model: list[str] = []  # noqa: RUF012  as above
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
