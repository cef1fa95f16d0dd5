"""The control plane: health, and what is known of models and their versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

from nerve.config.model import ModelConfig
from nerve.config.server import ServerConfig
from nerve.config.versions import VersionPolicy
from nerve.errors import ModelControlDisabled, ModelUnavailable
from nerve.repository.catalog import Catalog
from nerve.repository.lifecycle import State
from nerve.repository.records import IndexRow, Version
from nerve.repository.sync import RepositorySync
from nerve.service.inference import unit_of
from nerve.types import ModelInfo
from nerve.words import OffsetUnit


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request or one run may hold."""

    max_tokens: int
    """Tokens of a text, special ones counted; longer ones are cut, refused or tagged in windows."""
    stride: int | None
    """Tokens that windows over long texts share; null when long texts are cut."""
    max_batch_size: int
    """Rows in one run."""
    max_num_tokens: int
    """Tokens in one run, padding counted."""
    max_queue_size: int
    """Texts that may wait."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Totals since the version was loaded and warmed up."""

    batches: int
    rows: int
    tokens: int
    padded_tokens: int
    queued_rows: int
    mean_batch_size: float
    padding_waste: float
    """Share of the tokens run that was padding."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a run of n = rows x length tokens, padding counted, as measured (on the CPU those
    of a core): run_s + n (token_s + attention_s length + crowding_s n / (n + 256))."""

    run_s: float
    token_s: float
    attention_s: float
    crowding_s: float


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version. All but the first three are null unless it is READY."""

    version: str
    state: State
    reason: str
    device: str | None = None
    labels: tuple[str, ...] | None = None
    limits: Limits | None = None
    statistics: Statistics | None = None
    cost_model: Cost | None = None


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A line of the list of models. `state` is that of the version that answers, or the best."""

    name: str
    state: State
    reason: str
    versions: tuple[str, ...]
    default: bool


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Everything about a model. `labels` and `limits` are those of the version that answers."""

    name: str
    task: str
    state: State
    reason: str
    default: bool
    labels: tuple[str, ...] | None
    limits: Limits | None
    config_override: bool
    """Whether it was loaded with a config that is not the one on the disk."""
    versions: tuple[VersionStatus, ...]


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A version that answers: what it is, and what it was loaded with."""

    info: ModelInfo
    config: ModelConfig
    """Of this version: the model's config.yaml with the version's own over it."""
    version_policy: VersionPolicy
    """Of the model, as it is in force."""
    ready: tuple[str, ...]
    """Versions of the model that are READY, ascending."""
    offset_unit: OffsetUnit
    """What start and end count for requests that do not say, but on Encoderfile's routes."""


class ControlService:
    """Answers questions about the server and its models, and loads and unloads on request."""

    def __init__(self, catalog: Catalog, sync: RepositorySync, *, config: ServerConfig) -> None:
        self._catalog, self._sync, self._config = catalog, sync, config
        self.draining = False
        """Set when the server stops: it finishes what it has and wants nothing more."""

    @property
    def ready(self) -> bool:
        """Whether the server should get traffic."""
        return self._catalog.ready and not self.draining

    def states(self) -> dict[str, str]:
        """State of every model, by name."""
        return {model.name: model.leading[0].value for model in self._catalog.models()}

    def models(self) -> list[ModelSummary]:
        """Every model, by name."""
        default = self._default()
        return [
            ModelSummary(
                model.name,
                *model.leading,
                versions=tuple(str(number) for number in sorted(model.versions)),
                default=model.name == default,
            )
            for model in self._catalog.models()
        ]

    def model(self, name: str | None) -> ModelStatus:
        """One model; None means the default one.

        Raises:
            ModelNotFound.
        """
        model = self._catalog.model(name)
        versions = tuple(_version(model.versions[number]) for number in sorted(model.versions))
        answering = next((each for each in reversed(versions) if each.state is State.READY), None)
        state, reason = model.leading
        return ModelStatus(
            name=model.name,
            task="token-classification",
            state=state,
            reason=reason,
            default=model.name == self._default(),
            labels=answering.labels if answering else None,
            limits=answering.limits if answering else None,
            config_override=model.wanted.overridden,
            versions=versions,
        )

    def knows(self, name: str) -> bool:
        """Whether a model of that name is known, ready or not."""
        return name in self._catalog.entries

    def served(self, name: str, version: str | None) -> ServedVersion:
        """The version that answers; without a `version` the highest one that does.

        Raises:
            What `Catalog.lease` raises.
        """
        copy, model = self._catalog.current(name, version), self._catalog.model(name)
        return ServedVersion(
            copy.served.info,
            copy.config,
            model.serving.version_policy,
            tuple(map(str, model.ready())),
            unit_of(None, copy.served.info, self._config, OffsetUnit.CODEPOINT),
        )

    async def index(self, *, ready_only: bool = False) -> list[IndexRow]:
        """A row a version, by name and version; one with version 0 for a model without any."""
        await self._sync.refresh()
        rows = self._catalog.index()
        return [row for row in rows if row.state is State.READY] if ready_only else rows

    async def load(self, name: str, *, config: Mapping[str, object] | None = None) -> None:
        """Load a model as it is on the disk now, and return when it is served.

        Args:
            name: of the model.
            config: in place of its config.yaml, with the same keys, until the next plain load.
        Raises:
            ModelControlDisabled, ModelNotFound, ConfigInvalid (`config` is faulty), LoadFailed.
        """
        self._check_control()
        await self._sync.load(name, override=config)

    async def unload(self, name: str, *, wait: bool = False) -> None:
        """Take a model out of service; with `wait`, return when its last user has gone.

        Raises:
            ModelControlDisabled, ModelNotFound.
        """
        self._check_control()
        await self._sync.unload(name, wait=wait)

    def _check_control(self) -> None:
        if not self._config.model_control:
            raise ModelControlDisabled(self._config.model_control_mode.value)

    def _default(self) -> str | None:
        try:
            return self._catalog.model(None).name
        except ModelUnavailable:
            return None


def _version(version: Version) -> VersionStatus:
    if version.served is None:
        return VersionStatus(str(version.number), version.state, version.reason)
    info, statistics = version.served.info, version.served.statistics()
    cost = statistics.cost
    return VersionStatus(
        str(version.number),
        version.state,
        version.reason,
        device=info.device,
        labels=info.labels,
        limits=Limits(
            info.max_tokens,
            info.stride,
            info.max_batch_size,
            info.max_num_tokens,
            info.max_queue_size,
        ),
        statistics=Statistics(
            statistics.batches,
            statistics.rows,
            statistics.tokens,
            statistics.padded_tokens,
            statistics.queued_rows,
            round(statistics.mean_batch_size, 3),
            round(statistics.padding_waste, 4),
        ),
        cost_model=None if cost is None else Cost(*map(_rounded, astuple(cost))),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
