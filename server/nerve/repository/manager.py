"""Loads models, knows the state of every version, lends them out, and waits for them to come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nerve.config.model import ModelConfig, load_model_config
from nerve.errors import (
    ConfigInvalid,
    ModelNotFound,
    ModelNotReady,
    NerveError,
    NoDefaultModel,
    VersionNotFound,
)
from nerve.metrics import RequestMetrics
from nerve.repository.layout import (
    ModelFiles,
    read_models,
    scan,
    select_versions,
    version_number,
)
from nerve.repository.lifecycle import Event, State, advance
from nerve.types import ServedModel, VersionFiles

log = logging.getLogger(__name__)

OpenModel = Callable[[str, VersionFiles, ModelConfig], Awaitable[ServedModel]]
"""(model name, files, config) -> a warmed-up model. Raises NerveError."""


@dataclass(slots=True)
class Version:
    """One version: its state, why it is in it, and the loaded model with its users."""

    number: int
    state: State = State.UNAVAILABLE
    reason: str = ""
    served: ServedModel | None = None
    leases: int = 0
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    def advance(self, event: Event, reason: str = "") -> None:
        """Move on, or raise IllegalTransition."""
        self.state, self.reason = advance(self.state, event), reason


@dataclass(slots=True)
class Model:
    """A model folder. `reason` is set when it cannot be used at all; `tried` after a load."""

    name: str
    files: ModelFiles
    versions: dict[int, Version] = field(default_factory=dict)
    reason: str = ""
    tried: bool = False

    @property
    def leading(self) -> tuple[State, str]:
        """State and reason of the version that speaks for the model: READY before the others."""
        if self.reason:
            return State.UNAVAILABLE, self.reason
        if not self.versions:
            return (State.UNAVAILABLE, "") if self.tried else (State.LOADING, "")
        best = max(
            self.versions.values(),
            key=lambda each: (each.state is State.READY, each.state is State.LOADING, each.number),
        )
        return best.state, best.reason


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A line of the index; `version` 0 stands for a model without a usable version."""

    name: str
    version: int
    state: State
    reason: str


class ModelManager:
    """The models of all repositories. `find`, `load_all`, then `lease`; `aclose` drains."""

    def __init__(
        self,
        *,
        open_model: OpenModel,
        default_model: str | None,
        load_threads: int,
        metrics: RequestMetrics,
        announce: Callable[[str, int], None],
    ) -> None:
        self._open_model, self._default = open_model, default_model
        self._slots = asyncio.Semaphore(load_threads)
        self._metrics, self._announce = metrics, announce
        self._models: dict[str, Model] = {}
        self.loaded = False
        """True once every model of the start has been tried."""

    async def find(self, repositories: Sequence[Path]) -> None:
        """List every model of the repositories, and load none.

        Raises:
            RepositoryInvalid: a repository itself cannot be read.
        """
        found: dict[str, list[ModelFiles]] = {}
        for repository in dict.fromkeys(path.resolve() for path in repositories):
            for files in read_models(await asyncio.to_thread(scan, repository)):
                found.setdefault(files.name, []).append(files)
        for name in sorted(found):
            files, *others = found[name]
            model = self._models[name] = Model(name, files)
            if others:
                names = ", ".join(each.path.parent.name for each in found[name])
                model.reason = f"is in several repositories ({names}); remove or rename one"
            elif files.problem:
                model.reason = files.problem
        if not found:
            shown = ", ".join(str(repository) for repository in repositories)
            log.warning("there is no model folder in %s", shown)
        if self._default is not None and self._default not in self._models:
            log.error("--default-model: %s", ModelNotFound(self._default, sorted(self._models)))

    async def load_all(self) -> None:
        """Load every model that was found; those that fail are listed with their reason."""
        await asyncio.gather(*(self.load(name) for name in self._models))
        self.loaded = True

    async def load(self, name: str) -> None:
        """Load the versions of a model that its policy selects.

        Raises:
            ModelNotFound.
        """
        model = self.model(name)
        for warning in model.files.warnings:
            log.warning("model %s: %s", name, warning)
        if not model.reason:
            try:
                config = await asyncio.to_thread(load_model_config, model.files.config, name=name)
            except ConfigInvalid as error:
                model.reason = str(error)
        model.tried = True
        if model.reason:
            log.error("model %s is not served: %s", name, model.reason)
            return
        selected, missing = select_versions(model.files.versions, config.version_policy)
        for number in missing:
            reason = "named by version_policy.specific, but there is no such folder"
            model.versions[number] = Version(number, reason=reason)
            log.error("model %s version %d: %s", name, number, reason)
        for number in selected:
            model.versions[number] = Version(number)
        await asyncio.gather(
            *(self._load(model, model.files.versions[number], config) for number in selected)
        )

    async def _load(self, model: Model, files: VersionFiles, config: ModelConfig) -> None:
        version = model.versions[files.number]
        version.advance(Event.LOAD)
        try:
            async with self._slots:
                version.served = await self._open_model(model.name, files, config)
        except NerveError as error:
            version.advance(Event.FAILED, str(error))
            log.error("model %s version %d cannot load: %s", model.name, files.number, error)
        except Exception as error:  # boundary: one model must not stop the others
            version.advance(Event.FAILED, f"{type(error).__name__}: {error}")
            log.exception("model %s version %d cannot load", model.name, files.number)
        else:
            version.advance(Event.LOADED)
            self._metrics.versions.labels(model.name, str(files.number)).set(1)
            self._announce(model.name, files.number)

    @contextmanager
    def lease(self, name: str | None, version: str | None) -> Iterator[ServedModel]:
        """Borrow a READY version; it is not freed before the block ends. Never awaits.

        Args:
            name: of the model, or None for the default one.
            version: its number as the client wrote it, or None for the highest READY one.
        Raises:
            ModelNotFound, NoDefaultModel, VersionNotFound, ModelNotReady.
        """
        chosen = self._choose(name, version)
        assert chosen.served is not None  # READY says so
        chosen.leases += 1
        try:
            yield chosen.served
        finally:
            chosen.leases -= 1
            if chosen.leases == 0:
                chosen.drained.set()

    def _choose(self, name: str | None, version: str | None) -> Version:
        model = self.model(name)
        if version is None:
            ready = [each for each in model.versions.values() if each.state is State.READY]
            if ready:
                return max(ready, key=lambda each: each.number)
            state, cause = model.leading
            raise ModelNotReady(model.name, "", state.value, cause)
        if model.reason or not model.tried:
            state, cause = model.leading
            raise ModelNotReady(model.name, version, state.value, cause)
        known = model.versions.get(version_number(version))
        if known is None:
            served = [each.number for each in model.versions.values() if each.served is not None]
            raise VersionNotFound(model.name, version, sorted(served))
        if known.state is not State.READY:
            raise ModelNotReady(model.name, version, known.state.value, known.reason)
        return known

    def model(self, name: str | None) -> Model:
        """A model by name; None means the default one: configured, or the only usable one.

        Raises:
            ModelNotFound, NoDefaultModel.
        """
        if name is None:
            name = self._default
        if name is not None:
            if name not in self._models:
                raise ModelNotFound(name, sorted(self._models))
            return self._models[name]
        if len(self._models) == 1:
            return next(iter(self._models.values()))
        usable = [
            model for model in self._models.values() if model.leading[0] is not State.UNAVAILABLE
        ]
        if len(usable) != 1:
            raise NoDefaultModel(sorted(model.name for model in usable))
        return usable[0]

    def models(self) -> list[Model]:
        """Every model, by name."""
        return [self._models[name] for name in sorted(self._models)]

    def index(self) -> list[IndexRow]:
        """Every version of every model, in order."""
        rows = []
        for model in self.models():
            if not model.versions:
                rows.append(IndexRow(model.name, 0, *model.leading))
            for number in sorted(model.versions):
                version = model.versions[number]
                rows.append(IndexRow(model.name, number, version.state, version.reason))
        return rows

    @property
    def ready(self) -> bool:
        """The start is over, and if there are models, one of them answers."""
        if not self.loaded:
            return False
        states = [row.state for row in self.index()]
        return not states or State.READY in states

    async def aclose(self) -> None:
        """Unload every version once its users have given it back."""
        versions = [each for model in self.models() for each in model.versions.values()]
        outcomes = await asyncio.gather(
            *(self._unload(version) for version in versions), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                log.error("a model could not be closed", exc_info=outcome)

    async def _unload(self, version: Version) -> None:
        if version.state is not State.READY or version.served is None:
            return
        version.advance(Event.UNLOAD)
        version.drained.clear()
        if version.leases:
            await version.drained.wait()
        served, version.served = version.served, None
        self._metrics.versions.labels(served.info.name, str(version.number)).set(0)
        try:
            await served.aclose()
        finally:
            version.advance(Event.DRAINED, "unloaded")
