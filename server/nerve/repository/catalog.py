"""The models that there are: finding one, lending it out, listing them all. Never awaits.

Loading and unloading are `manager`'s business; this is what requests touch.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nerve.errors import (
    ModelNotFound,
    ModelNotReady,
    NerveError,
    NoDefaultModel,
    VersionNotFound,
)
from nerve.repository.layout import version_number
from nerve.repository.lifecycle import State
from nerve.repository.records import NOT_LOADED, Copy, IndexRow, Model, Version
from nerve.repository.selection import choose
from nerve.repository.wanted import Wanted
from nerve.types import ServedModel

log = logging.getLogger(__name__)


class Catalog:
    """Models by name. `lease` one to use it."""

    def __init__(self, *, default_model: str | None = None) -> None:
        self.default_model = default_model
        self.entries: dict[str, Model] = {}
        """Changed by the manager only."""
        self.loaded = False
        """True once every model of the start has been tried."""
        self._implied: str | None = None
        self._warned = False
        self._listeners: list[Callable[[], None]] = []

    def expect(self, name: str, *, asked: bool) -> None:
        """List a model that was found; `asked` tells that it is going to be loaded."""
        model = self.entries.setdefault(name, Model(name, Wanted(name)))
        model.asked = model.asked or asked

    @contextmanager
    def lease(self, name: str | None, version: str | None) -> Iterator[ServedModel]:
        """Borrow a READY version; it is not freed before the block ends. Never awaits.

        Args:
            name: of the model, or None for the default one.
            version: its number as the client wrote it; None leaves it to routing, or means the
                highest READY one.
        Raises:
            ModelNotFound, NoDefaultModel, VersionNotFound, ModelNotReady.
        """
        copy = self._choose(name, version)
        copy.leases += 1
        try:
            yield copy.served
        finally:
            copy.give_back()

    def current(self, name: str | None, version: str | None) -> Copy:
        """What `lease` lends, to be looked at before the next await; the highest version where
        routing would roll dice. Raises what `lease` raises."""
        return self._choose(name, version, routed=False)

    def _choose(self, name: str | None, version: str | None, *, routed: bool = True) -> Copy:
        model = self.model(name)
        if version is None:
            routing = model.serving.routing if routed else None
            number = choose(
                model.ready(),
                weights=routing.weights if routing else None,
                shadow=model.shadow,
                roll=random.random() if routing else 0.0,  # noqa: S311  no secret
            )
            if number is None:
                state, cause = model.leading
                raise ModelNotReady(model.name, "", state.value, cause)
        else:
            number = version_number(version)
        row = model.versions.get(number)
        if row is None or row.copy is None:
            raise self._not_served(model, version or "", row)
        return row.copy

    @staticmethod
    def _not_served(model: Model, version: str, row: Version | None) -> NerveError:
        """Why a version that was named cannot answer."""
        if row is not None:
            return ModelNotReady(model.name, version, row.state.value, row.reason)
        if not model.versions and (model.reason or not model.tried):
            state, cause = model.leading
            return ModelNotReady(model.name, version, state.value, cause)
        return VersionNotFound(model.name, version, model.ready())

    def shadow_of(self, name: str) -> tuple[int, float] | None:
        """The READY version that gets copies of a model's requests, and the share of them."""
        model = self.entries.get(name)
        config = model.serving.shadow if model is not None else None
        if model is None or config is None or config.version not in model.ready():
            return None
        return config.version, config.fraction

    def model(self, name: str | None) -> Model:
        """A model by name; None means the default one: configured, or the only usable one.

        A model that was the only one stays the default when others come: nobody who calls it
        without a name may be refused because somebody drops a folder into the repository.

        Raises:
            ModelNotFound, NoDefaultModel.
        """
        if name is None:
            name = self.default_model or self._implied
        if name is not None:
            if name not in self.entries:
                raise ModelNotFound(name, sorted(self.entries))
            return self.entries[name]
        if len(self.entries) == 1:
            return next(iter(self.entries.values()))
        usable = [
            model for model in self.entries.values() if model.leading[0] is not State.UNAVAILABLE
        ]
        if len(usable) != 1:
            raise NoDefaultModel(sorted(model.name for model in usable))
        return usable[0]

    def models(self) -> list[Model]:
        """Every model, by name."""
        return [self.entries[name] for name in sorted(self.entries)]

    def index(self) -> list[IndexRow]:
        """Every version of every model, in order."""
        rows = []
        for model in self.models():
            if not model.versions:
                state, reason = model.leading
                told = "" if reason == NOT_LOADED else reason  # the protocol lists only its name
                rows.append(IndexRow(model.name, 0, state, told))
            for number in sorted(model.versions):
                row = model.versions[number]
                shared = model.reason if row.state is State.READY else ""
                reason = "; ".join(each for each in (shared, row.reason) if each)
                rows.append(IndexRow(model.name, number, row.state, reason))
        return rows

    @property
    def ready(self) -> bool:
        """The start is over, and if models are to be served, one of them answers."""
        if not self.loaded:
            return False
        asked = [model for model in self.entries.values() if model.asked]
        return not asked or any(model.ready() for model in asked)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a state may have changed."""
        self._listeners.append(listener)

    def tell_change(self) -> None:
        """A state may have changed."""
        if self.default_model is None and self.loaded:
            self._imply_default()
        for listener in self._listeners:
            listener()

    def _imply_default(self) -> None:
        ready = [model.name for model in self.models() if model.ready()]
        if self._implied not in ready:
            self._implied = ready[0] if len(ready) == 1 else None
            self._warned = False
        elif len(ready) > 1 and not self._warned:
            self._warned = True
            log.warning(
                "requests that name no model still get %s; start with --default-model to have it so "
                "after the next start, too",
                self._implied,
            )
