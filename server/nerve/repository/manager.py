"""Makes what is loaded equal to what is wanted: load, swap, drain, unload.

What the disk holds, and when to look, is `sync`'s business; what requests need is `catalog`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from nerve.config.model import ModelConfig
from nerve.errors import Cause, ModelLoadFailed, NerveError
from nerve.metrics.repository import RepositoryMetrics
from nerve.repository.catalog import Catalog
from nerve.repository.lifecycle import Event, State
from nerve.repository.records import (
    FOLDER_GONE,
    NO_FOLDER,
    Copy,
    Failure,
    Model,
    Version,
    backoff_s,
    cut,
)
from nerve.repository.selection import Selection, select, superseded
from nerve.repository.wanted import Wanted, WantedVersion
from nerve.types import ServedModel, VersionFiles

log = logging.getLogger(__name__)

CHANGED: Final = "its files changed while it was being loaded"
OpenModel = Callable[[str, VersionFiles, ModelConfig], Awaitable[ServedModel]]
"""(model name, files, config) -> a warmed-up model. Raises NerveError."""


class ModelManager:
    """Loads and unloads the models of a catalog. `apply` what the disk holds; `aclose` drains."""

    def __init__(
        self,
        *,
        open_model: OpenModel,
        catalog: Catalog,
        load_threads: int,
        metrics: RepositoryMetrics,
        announce: Callable[[str, int], None],
    ) -> None:
        self._open_model, self._catalog = open_model, catalog
        self._slots = asyncio.Semaphore(load_threads)
        self._metrics, self._announce = metrics, announce
        self._models = catalog.entries
        self._leaving: set[asyncio.Task[None]] = set()  # copies that wait for their last user
        self._closing = False

    # What the disk asks for

    async def apply(self, wanted: Wanted, *, again: bool = False) -> list[Cause]:
        """Make what serves equal to what is wanted, as far as it can be loaded.

        Versions are loaded side by side with those that serve, and each takes over as soon as it
        is READY; then those that are wanted no longer are unloaded.

        Args:
            wanted: the model as it is on the disk.
            again: try what failed before although its bytes are the same.
        Returns:
            What is not served as it is wanted.
        """
        if self._closing:
            return [Cause(0, "the server is stopping")]
        model = self._models.setdefault(wanted.name, Model(wanted.name, Wanted(wanted.name)))
        model.asked, model.coming = True, wanted
        self._give_up_obsolete(model)
        async with model.lock:
            if model.coming is None:
                return [Cause(0, "the model was unloaded or removed before its turn came")]
            wanted = model.coming  # it may be newer than what this call brought
            if wanted.warnings != model.wanted.warnings or not model.tried:
                for warning in wanted.warnings:
                    log.warning("model %s: %s", wanted.name, warning)
            model.asked = model.tried = True
            if wanted.problem:
                self._refuse(model, wanted.problem)
                return [Cause(0, wanted.problem)]
            model.reason, model.wanted = "", wanted
            if not model.ready():
                model.serving = wanted.config
            selection = select(wanted.versions, wanted.config)
            await self._load_selected(model, wanted, selection, again)
            self._tell_change(model)
            return [
                Cause(number, row.reason)
                for number, row in sorted(model.versions.items())
                if row.reason and number in (*selection.wanted, *selection.missing)
            ]

    def refuse(self, name: str, problem: str) -> None:
        """Tell why a model is not even tried. What serves goes on."""
        model = self._models.setdefault(name, Model(name, Wanted(name)))
        model.asked = model.tried = True
        self._refuse(model, problem)

    def _refuse(self, model: Model, problem: str) -> None:
        problem = cut(problem)
        if model.reason != problem:
            serves = "; what served goes on" if model.ready() else ""
            log.error("model %s cannot be loaded%s: %s", model.name, serves, problem)
            self._metrics.loads.labels(model.name, "failed").inc()
        model.reason = problem
        self._tell_change(model)

    async def _load_selected(
        self, model: Model, wanted: Wanted, selection: Selection, again: bool
    ) -> None:
        for number in selection.missing:
            row = model.versions.setdefault(number, Version(number))
            if row.state is not State.READY and row.reason != NO_FOLDER:
                row.reason = NO_FOLDER
                log.error("model %s version %d: %s", model.name, number, NO_FOLDER)

        async def bring(numbers: Sequence[int]) -> None:
            for number in numbers:
                model.versions.setdefault(number, Version(number))
            await asyncio.gather(
                *(self._bring(model, wanted.versions[number], again) for number in numbers)
            )

        await bring(selection.wanted)
        stand_ins: list[int] = []
        for spare in selection.spare:
            if model.coming is not wanted:
                break
            lacking = [each for each in selection.newest if each not in model.ready()]
            if len([each for each in stand_ins if each in model.ready()]) >= len(lacking):
                break
            await bring([spare])
            stand_ins.append(spare)
        if model.coming is not wanted:
            return  # what is wanted now decides who stands in and who leaves
        # Not before: a shadow that is called off must not answer while its successor loads.
        model.serving = wanted.config
        for number in superseded(selection, model.ready(), stand_ins):
            self._retire(model, model.versions[number])
        for number, row in list(model.versions.items()):
            if number in (*selection.wanted, *stand_ins):
                continue
            if row.state is State.READY:
                row.reason = "" if number in wanted.versions else FOLDER_GONE
            elif number in selection.missing:
                continue
            elif row.state is State.UNAVAILABLE and (
                row.reason != "unloaded" or number not in wanted.versions
            ):
                self._forget_row(model, number)

    async def _bring(self, model: Model, wanted: WantedVersion, again: bool) -> None:
        """Load a version unless that is done, or failed with the same bytes a short time ago."""
        row = model.versions[wanted.number]
        if _is_obsolete(model, wanted.number, wanted.identity):
            return
        if row.copy is not None and row.copy.identity == wanted.identity:
            row.reason, row.failure = "", None
            return
        failure = row.failure
        same = failure is not None and failure.identity == wanted.identity
        if same and failure is not None and not again and time.monotonic() < failure.retry_at:
            return
        task = asyncio.create_task(self._load(model, row, wanted), name=f"load-{model.name}")
        model.loads[wanted.number], row.loading = task, wanted.identity
        try:
            await asyncio.wait([task])  # given up by itself when it is obsolete: no error of ours
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            model.loads.pop(wanted.number, None)
            row.loading = ""
        if not task.cancelled():
            task.result()

    async def _load(self, model: Model, row: Version, wanted: WantedVersion) -> None:
        row.advance(Event.LOAD, row.reason if row.state is State.READY else "")
        self._tell_change(model)
        began = time.monotonic()
        outcome = "discarded"
        served: ServedModel | None = None
        try:
            served = await self._open(model.name, wanted)
            if await asyncio.to_thread(wanted.untouched):
                copy = Copy(served, wanted.identity, wanted.config)
                served, outcome = None, "loaded"
                self._swap(model, row, copy)
            else:
                row.advance(Event.FAILED, CHANGED)
        except NerveError as error:
            same_files = wanted.problem != "" or await asyncio.to_thread(wanted.untouched)
            if same_files:
                outcome = "failed"
                self._fail(model, row, wanted, str(error))
            else:
                row.advance(Event.FAILED, CHANGED)
        except Exception as error:  # boundary: one model must not stop the others
            outcome = "failed"
            log.exception("model %s version %d broke its loader", model.name, row.number)
            self._fail(model, row, wanted, f"{type(error).__name__}: {error}")
        finally:
            if outcome == "discarded" and row.reason != CHANGED:  # cancelled, wherever it was
                row.advance(Event.FAILED, "its load was given up")
            if served is not None:
                self._free(model, row, Copy(served, wanted.identity))
            self._metrics.loads.labels(model.name, outcome).inc()
            took_s = time.monotonic() - began
            if row.copy is not None and self._models.get(model.name) is model:
                self._metrics.load_seconds.labels(model.name, str(row.number)).set(took_s)
            if outcome != "failed":
                log.info(
                    "model %s version %d %s in %.2f s", model.name, row.number, outcome, took_s
                )
            self._tell_change(model)

    async def _open(self, name: str, wanted: WantedVersion) -> ServedModel:
        if wanted.problem:
            raise ModelLoadFailed(wanted.problem)
        async with self._slots:
            return await self._open_model(name, wanted.files, wanted.config)

    def _swap(self, model: Model, row: Version, copy: Copy) -> None:
        """Let a loaded copy answer from now on; whoever has the old one keeps it to the end."""
        old, row.copy, row.failure = row.copy, copy, None
        row.advance(Event.LOADED)
        self._metrics.ready.labels(model.name, str(row.number)).set(1)
        if old is not None:
            self._free(model, row, old)
        self._announce(model.name, row.number)

    def _fail(self, model: Model, row: Version, wanted: WantedVersion, reason: str) -> None:
        before = row.failure
        same = before is not None and before.identity == wanted.identity
        attempts = before.attempts + 1 if before is not None and same else 1
        row.failure = Failure(wanted.identity, attempts, time.monotonic() + backoff_s(attempts))
        row.advance(Event.FAILED, reason)
        log.log(
            logging.INFO if same else logging.ERROR,
            "model %s version %d cannot load%s: %s",
            model.name,
            row.number,
            "; what served goes on" if row.state is State.READY else "",
            reason,
        )

    @staticmethod
    def _give_up_obsolete(model: Model) -> None:
        """Break off loads of what is wanted no longer."""
        for number, task in model.loads.items():
            if _is_obsolete(model, number, model.versions[number].loading):
                task.cancel()

    def retries(self, now: float) -> tuple[list[str], float | None]:
        """Models with a failed version that is to be tried again, and when (monotonic s) the next
        one is."""
        due: set[str] = set()
        later: list[float] = []
        for model in self._models.values():
            for number, row in model.versions.items() if not model.reason else ():
                there = model.wanted.versions.get(number)
                if row.failure is None or there is None or there.problem or row.loading:
                    continue  # nothing that only time could mend
                if row.failure.retry_at <= now:
                    due.add(model.name)
                else:
                    later.append(row.failure.retry_at)
        return sorted(due), min(later, default=None)

    # Leaving

    async def remove(self, name: str) -> None:
        """Forget a model: unknown at once, freed when its last user has gone."""
        model = self._models.pop(name, None)
        if model is None:
            return
        log.info("model %s: its folder is gone; unloading it", name)
        model.coming = None
        self._give_up_obsolete(model)
        self._metrics.forget(name)
        self._tell_change(None)
        # Whoever gives up waiting for this leaves it to `aclose`.
        await asyncio.shield(self._keep(self._retire_forgotten(model)))

    async def _retire_forgotten(self, model: Model) -> None:
        async with model.lock:
            self._retire_all(model)

    async def unload(self, name: str, *, wait: bool = False) -> None:
        """Unload every version of a model until it is asked for again.

        Args:
            name: of the model.
            wait: return when its users have given it back, not before.
        Raises:
            ModelNotFound.
        """
        model = self._catalog.model(name)
        model.asked, model.coming = False, None
        self._give_up_obsolete(model)
        async with model.lock:
            self._retire_all(model)
            for row in model.versions.values():
                row.failure = None
            self._tell_change(model)
        if wait:
            await self.drained(name)

    async def drained(self, name: str) -> None:
        """Return when the users of all copies that are on their way out have given them back."""
        model = self._models.get(name)
        rows = model.versions.values() if model is not None else ()
        if leaving := [task for row in rows for task in row.leaving]:
            await asyncio.wait(leaving)

    def _retire_all(self, model: Model) -> None:
        for row in model.versions.values():
            if row.state is State.READY:
                self._retire(model, row)

    def _retire(self, model: Model, row: Version) -> None:
        copy, row.copy = row.copy, None
        assert copy is not None  # READY says so
        row.advance(Event.UNLOAD)
        if self._models.get(model.name) is model:  # else the gauge is another one's
            self._metrics.ready.labels(model.name, str(row.number)).set(0)
        self._free(model, row, copy)

    def _free(self, model: Model, row: Version, copy: Copy) -> None:
        """Close a copy once its users have given it back."""

        async def close() -> None:
            await copy.wait_idle()
            try:
                await copy.served.aclose()
            except Exception:  # boundary: nobody waits for this but us
                log.exception("model %s version %d could not be closed", model.name, row.number)
            finally:
                row.leaving.discard(task)
                if row.state is State.UNLOADING and not row.leaving:
                    self._drained(model, row)
                self._tell_change(model)

        task = self._keep(close())
        row.leaving.add(task)

    def _drained(self, model: Model, row: Version) -> None:
        missing = (
            model.asked and row.number in select(model.wanted.versions, model.wanted.config).missing
        )
        row.advance(Event.DRAINED, NO_FOLDER if missing else "unloaded")
        if self._models.get(model.name) is model:
            self._metrics.forget_load(model.name, row.number)
        if row.number not in model.wanted.versions and not missing:
            self._forget_row(model, row.number)

    def _forget_row(self, model: Model, number: int) -> None:
        model.versions.pop(number, None)
        if self._models.get(model.name) is model:
            self._metrics.forget_version(model.name, number)

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task

    async def aclose(self) -> None:
        """Unload every version once its users have given it back."""
        self._closing = True
        for model in self._models.values():
            model.coming = None
            self._give_up_obsolete(model)
        for model in self._catalog.models():
            async with model.lock:
                self._retire_all(model)
        while self._leaving:
            await asyncio.wait(self._leaving)

    def _tell_change(self, model: Model | None) -> None:
        if model is not None and self._models.get(model.name) is model:
            self._metrics.stale.labels(model.name).set(model.stale)
        self._catalog.tell_change()


def _is_obsolete(model: Model, number: int, identity: str) -> bool:
    """Whether a version with these contents is not what was asked for last."""
    there = model.coming.versions.get(number) if model.coming is not None else None
    return there is None or there.identity != identity
