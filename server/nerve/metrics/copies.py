"""Which versions are loaded, so that their series go with them."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Protocol


class Removable(Protocol):
    """A collector of which series can be dropped."""

    def remove_by_labels(self, labels: dict[str, str]) -> None:
        """Drop the series that have all of these labels."""


class Copies:
    """Counts the loaded copies of each version; a reload has two of one for a while.

    A version's series go with its last copy, and a model's with its last version: by then every
    request that leased one has ended, so nothing brings them back. Names that no copy ever had
    never make a series.
    """

    def __init__(self) -> None:
        self._users: collections.Counter[tuple[str, str]] = collections.Counter()
        self._of_versions: list[Removable] = []
        self._of_models: list[Removable] = []
        self._listeners: list[Callable[[str, str], object]] = []

    def follow(
        self, *, versions: tuple[Removable, ...] = (), models: tuple[Removable, ...] = ()
    ) -> None:
        """Drop series of collectors with the labels `model` and `version`, or with `model` alone."""
        self._of_versions += versions
        self._of_models += models

    def on_gone(self, listener: Callable[[str, str], object]) -> None:
        """Call `listener` with model and version when the last copy of it has gone."""
        self._listeners.append(listener)

    def take(self, model: str, version: str) -> None:
        """One copy more."""
        self._users[model, version] += 1

    def drop(self, model: str, version: str) -> None:
        """One copy less."""
        self._users[model, version] -= 1
        if self._users[model, version] > 0:
            return
        del self._users[model, version]
        for listener in self._listeners:
            listener(model, version)
        for metric in self._of_versions:
            metric.remove_by_labels({"model": model, "version": version})
        if not any(name == model for name, _ in self._users):
            for metric in self._of_models:
                metric.remove_by_labels({"model": model})
