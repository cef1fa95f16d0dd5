"""Looks at the repositories, waits until a changed model is quiet, and has the manager follow.

Decides when to look and what to hand over; what is loaded then is `manager`'s business.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from nerve.config.model import load_model_config
from nerve.config.server import ServerConfig
from nerve.config.settings.repositories import ControlMode
from nerve.errors import Cause, LoadFailed, ModelNotFound, RepositoryInvalid, ServerStopping
from nerve.repository.catalog import Catalog
from nerve.repository.files import FileId
from nerve.repository.fingerprint import Digests, Stamp, stamp
from nerve.repository.layout import ModelFiles, is_passing, read_models, scan
from nerve.repository.manager import CHANGED, ModelManager
from nerve.repository.settling import Settling
from nerve.repository.wanted import Wanted, read_wanted
from nerve.repository.watcher import Watcher
from nerve.threads import in_own_thread

log = logging.getLogger(__name__)
T = TypeVar("T")

ALL: Final = "*"
KEEPS_CHANGING: Final = "its files keep changing; they are loaded when all is there"
READERS: Final = 4
"""Models that are read at the same time."""
LOOKS: Final = 5
"""Tries to read a model while somebody writes to it."""
LOOK_AGAIN_S: Final = 0.1
REST: Final = 5.0
"""Least time between two looks, in seconds and in times that the last one took."""
TRY_AGAIN_S: Final = 5.0
TRY_AGAIN_LONGEST_S: Final = 300.0
"""What could not be read is read again after the first, then twice that, at most the second."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A model folder at a glance: its files, and a value that differs when any of them does.

    `every` are all files of that name, `stamp` is theirs.
    """

    files: ModelFiles
    every: tuple[Path, ...]
    stamp: Stamp
    seen: Hashable


class RepositorySync:
    """Keeps a manager in step with the disk. `find`, `load_all`, `start`; `aclose` stops looking."""

    def __init__(self, manager: ModelManager, catalog: Catalog, *, config: ServerConfig) -> None:
        self._manager, self._catalog, self._config = manager, catalog, config
        self._digests = Digests()
        self._settling = Settling(config.settle_seconds)
        self._sightings: dict[str, Sighting] = {}
        self._lists: dict[Path, list[ModelFiles]] = {}  # by repository, as of the last good look
        self._devices: dict[Path, int] = {}
        self._unreadable: dict[Path, str] = {}
        self._overrides: dict[str, Mapping[str, object]] = {}
        self._reading: dict[str, asyncio.Lock] = {}  # so that what is read last is applied last
        self._jobs: set[asyncio.Task[Any]] = set()
        self._looking = asyncio.Lock()
        self._look_s = 0.0  # how long the last look took
        self._shared: asyncio.Task[None] | None = None  # a look that several requests wait for
        self._readers = asyncio.Semaphore(READERS)
        self._tries: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._watcher: Watcher | None = None
        self._rewatch_due = False

    async def find(self) -> None:
        """List every model of the repositories, and load none.

        Raises:
            RepositoryInvalid: a repository itself cannot be read.
        """
        await self._look(strict=True)
        for name in self._sightings:
            self._catalog.expect(name, asked=self._is_for_start(name))
        names = sorted(self._sightings)
        if not names:
            shown = ", ".join(str(repository) for repository in self._config.repositories)
            log.warning("there is no model folder in %s", shown)
        default = self._config.default_model
        for name in ([default] if default else []) + self._config.load_model:
            if name not in (ALL, *names):
                log.error("named in the settings: %s", ModelNotFound(name, names))

    def _is_for_start(self, name: str) -> bool:
        if self._config.model_control_mode is not ControlMode.EXPLICIT:
            return True
        return name in self._config.load_model or ALL in self._config.load_model

    async def load_all(self) -> dict[str, list[Cause]]:
        """Load what is to be loaded at start. Returns what could not be loaded, by model."""
        names = [name for name in self._sightings if self._is_for_start(name)]
        outcomes = await asyncio.gather(*(self._start_with(name) for name in names))
        self._catalog.loaded = True
        self._catalog.tell_change()
        return {name: causes for name, causes in zip(names, outcomes, strict=True) if causes}

    async def _start_with(self, name: str) -> list[Cause]:
        """Load a model at start, a moment later where somebody has just written to it."""
        for _ in range(LOOKS):
            age_s = time.time() - _changed_at(self._sightings[name])
            left_s = self._config.settle_seconds - age_s
            if not 0 < left_s <= self._config.settle_seconds:  # the clock may have been set back
                break
            await asyncio.sleep(left_s)
            await self._look()
            if name not in self._sightings:
                break
        else:
            if self._config.model_control_mode in (ControlMode.WATCH, ControlMode.POLL):
                self._manager.refuse(name, KEEPS_CHANGING)  # and `start` goes on with it
                return []
        if name in self._sightings:
            self._settling.taken(name, self._sightings[name].seen)
        return await self._follow_at_once(name)

    def start(self) -> None:
        """Look again from now on, as the control mode says."""
        mode = self._config.model_control_mode
        if mode in (ControlMode.WATCH, ControlMode.POLL):
            self._task = asyncio.create_task(self._run(watch=mode is ControlMode.WATCH))

    # Requests

    async def refresh(self) -> None:
        """Where nobody looks by itself: list models that have come, drop those that have gone and
        are not loaded."""
        if self._config.model_control_mode is not ControlMode.EXPLICIT:
            return
        if self._shared is None or self._shared.done():  # anybody may ask, as often as they like
            self._shared = asyncio.create_task(self._look())
        await shared(self._shared)
        for name in self._sightings:
            self._catalog.expect(name, asked=False)
        for name, model in list(self._catalog.entries.items()):
            if name not in self._sightings and not model.in_use:
                await self._manager.remove(name)

    async def load(self, name: str, *, override: Mapping[str, object] | None = None) -> None:
        """Look now, and load a model as it is on the disk; what failed before is tried again.

        Args:
            name: of the model.
            override: config to take in place of its config.yaml, until it is loaded without one.
        Raises:
            ModelNotFound, ConfigInvalid (the override is faulty), LoadFailed.
        """
        if override is not None:
            await asyncio.to_thread(load_model_config, None, name=name, override=override)
        await self._look()
        if name not in self._sightings:
            raise ModelNotFound(name, sorted(self._sightings))
        # Whoever asked may leave; the load goes on, or it would be left half-way.
        loading = asyncio.create_task(self._load_with(name, override), name=name)
        self._jobs.add(loading)
        loading.add_done_callback(self._jobs.discard)
        causes = await shared(loading)
        if causes:
            raise LoadFailed(name, causes)

    async def _load_with(self, name: str, override: Mapping[str, object] | None) -> list[Cause]:
        before = self._overrides.pop(name, None)
        if override is not None:
            self._overrides[name] = override
        causes = await self._follow_at_once(name, again=True)
        if not causes or override is None or self._overrides.get(name) is not override:
            return causes
        # What did not work is not what was wanted, neither now nor at the next change.
        del self._overrides[name]
        if before is not None:
            self._overrides[name] = before
        known = self._catalog.entries.get(name)
        if known is not None and known.ready():
            await self._follow_at_once(name)
        return causes

    async def unload(self, name: str, *, wait: bool = False) -> None:
        """Unload a model; it stays so until it is loaded by request. Raises ModelNotFound."""
        async with self._reading.setdefault(name, asyncio.Lock()):  # after a load that was first
            self._overrides.pop(name, None)
            await self._manager.unload(name)
        if wait:
            await self._manager.drained(name)

    # Looking

    async def _look(self, *, strict: bool = False) -> None:
        """Update what is seen. A repository that cannot be read any more keeps its models."""
        async with self._looking:
            began = time.monotonic()
            look = functools.partial(self._look_at_disk, strict)
            self._sightings = await in_own_thread(look, name="nerve-look")
            self._look_s = time.monotonic() - began

    def _look_at_disk(self, strict: bool) -> dict[str, Sighting]:
        """Runs in a thread."""
        lists: dict[Path, list[ModelFiles]] = {}
        for repository in self._config.repositories:
            real = Path(os.path.realpath(repository))
            if real in lists:
                continue
            try:
                lists[real] = self._list(repository)
            except (RepositoryInvalid, OSError, RuntimeError) as error:
                if strict:
                    raise
                lists[real] = self._lists.get(repository, [])
                if self._unreadable.get(repository) != str(error):
                    log.error("%s; what was loaded from it goes on", error)
                self._unreadable[repository] = str(error)
            else:
                if self._unreadable.pop(repository, None):
                    log.info("model repository %s can be read again", repository)
            self._lists[repository] = lists[real]
        every = {path for models in lists.values() for each in models for path in each.everything}
        self._digests.forget(every)
        found: dict[str, list[ModelFiles]] = {}
        for models in lists.values():
            for files in models:
                found.setdefault(files.name, []).append(files)
        return {name: _sighting(found[name]) for name in sorted(found)}

    def _list(self, repository: Path) -> list[ModelFiles]:
        models = read_models(scan(repository))
        device = repository.stat().st_dev
        if not models and self._lists.get(repository) and self._devices[repository] != device:
            raise RepositoryInvalid(
                str(repository), "is empty and on another file system than before: is it mounted?"
            )
        self._devices[repository] = device
        return models

    async def _run(self, *, watch: bool) -> None:
        if watch:
            self._watcher = Watcher(asyncio.get_running_loop(), self._on_event)
            self._rewatch_due = True
        while True:
            try:
                await self._step()
                await self._pause()
            except Exception:  # boundary: whatever a file system does, the next look is made
                log.exception("looking at the repositories failed")
                await asyncio.sleep(self._config.poll_s)

    async def _rewatch(self) -> None:
        """Follow the repositories to where they are now."""
        if self._watcher is not None:
            self._rewatch_due = False
            await self._watcher.watch(self._config.repositories)

    def _on_event(self, root: Path, path: Path) -> None:
        if path == root:  # it may be another folder now
            self._rewatch_due = True
        if not is_passing(path.name):
            self._wake.set()

    async def _step(self) -> None:
        self._wake.clear()
        if self._rewatch_due:
            await self._rewatch()
        await self._look()
        now = time.monotonic()
        seen = {name: sighting.seen for name, sighting in self._sightings.items()}
        for name in self._settling.observe(seen, now):
            self._settling.taken(name, seen.get(name))
            self._submit(name)
        due, _ = self._manager.retries(now)
        for name in set(due) - {task.get_name() for task in self._jobs}:
            if not self._settling.waits(name):  # what is there now is not what failed
                self._submit(name, again=True)

    async def _pause(self) -> None:
        """Wait until there is a reason to look again."""
        now = time.monotonic()
        waits = [self._config.poll_s, self._settling.due(now)]
        _, retry_at = self._manager.retries(now)
        if retry_at is not None:
            waits.append(retry_at - now)
        wait_s = min(each for each in waits if each is not None)
        # Large copies make thousands of events, large repositories take long to look at.
        rest_s = max(min(LOOK_AGAIN_S, self._config.settle_seconds), REST * self._look_s)
        try:
            async with asyncio.timeout(max(wait_s, rest_s)):
                await self._wake.wait()
                await asyncio.sleep(rest_s)
        except TimeoutError:
            self._rewatch_due = self._rewatch_due or wait_s == self._config.poll_s

    # Following

    def _submit(self, name: str, *, again: bool = False) -> None:
        """Follow what was just seen of a model in the background: its load holds up nothing else."""
        sighting = self._sightings.get(name)

        async def work() -> None:
            done = False
            try:
                done = await self._follow(name, sighting, again=again)
            except Exception:  # boundary: the other models are followed on
                log.exception("model %s could not be brought up to date", name)
            if done:
                self._tries.pop(name, None)
                return
            tries = self._tries[name] = self._tries.get(name, 0) + 1
            delay_s = min(TRY_AGAIN_S * 2.0 ** min(tries - 1, 10), TRY_AGAIN_LONGEST_S)
            self._settling.again(name, time.monotonic() + delay_s - self._config.settle_seconds)
            self._wake.set()

        task = asyncio.create_task(work(), name=name)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _follow(self, name: str, sighting: Sighting | None, *, again: bool) -> bool:
        """Have the manager follow what has settled, unless it is different already: then it has to
        settle again. A model that was unloaded by request stays so.

        Returns:
            Whether all could be read and was followed; else another look may find more, even if
            nobody touches the files: a disk had a bad moment, or a handle was lacking.
        """
        if sighting is None:
            self._overrides.pop(name, None)
            self._reading.pop(name, None)
            await self._manager.remove(name)
            return True
        async with self._reading.setdefault(name, asyncio.Lock()):
            if self._is_unloaded(name):
                return True
            wanted = await self._read(sighting)
        if wanted is None:
            return False
        if self._is_unloaded(name):
            return True
        causes = await self._manager.apply(wanted, again=again)
        problems = any(version.problem for version in wanted.versions.values())
        return not problems and not any(cause.reason == CHANGED for cause in causes)

    async def _follow_at_once(self, name: str, *, again: bool = False) -> list[Cause]:
        """Have the manager follow what is there now, settled or not: somebody wants it."""
        async with self._reading.setdefault(name, asyncio.Lock()):
            for _ in range(LOOKS):
                sighting = self._sightings.get(name)
                if sighting is None:
                    return [Cause(0, "its folder is gone")]
                wanted = await self._read(sighting)
                if wanted is not None:
                    break
                await self._look()
            else:
                self._manager.refuse(name, KEEPS_CHANGING)
                return [Cause(0, KEEPS_CHANGING)]
        return await self._manager.apply(wanted, again=again)

    async def _read(self, sighting: Sighting) -> Wanted | None:
        """What is wanted of a model; None if its files are not those of the sighting any more."""
        files = sighting.files

        def read() -> Wanted | None:
            found = read_wanted(files, self._digests, override=self._overrides.get(files.name))
            return found if stamp(sighting.every) == sighting.stamp else None

        async with self._readers:
            return await in_own_thread(read, name=f"nerve-read-{files.name}")

    def _is_unloaded(self, name: str) -> bool:
        known = self._catalog.entries.get(name)
        return known is not None and not known.asked

    async def aclose(self) -> None:
        """Stop looking; loads in progress are given up."""
        others = [task for task in (self._task, self._shared) if task is not None]
        tasks = [*self._jobs, *others]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._watcher is not None:
            await self._watcher.aclose()


def _sighting(found: Sequence[ModelFiles]) -> Sighting:
    files = found[0]
    if len(found) > 1:
        depth = next(
            n for n in range(2, 99) if len({e.path.parts[-n:-1] for e in found}) > 1 or n > 9
        )
        names = ", ".join("/".join(each.path.parts[-depth:-1]) for each in found)
        problem = f"is in several repositories ({names}); remove or rename one"
        files = replace(files, problem=problem)
    every = tuple(path for each in found for path in each.everything)
    told = tuple((number, version.problem) for number, version in sorted(files.versions.items()))
    seen = stamp(every)
    return Sighting(files, every, seen, (seen, files.problem, files.warnings, told))


def _changed_at(sighting: Sighting) -> float:
    """When a file of a model was last changed, in seconds since the epoch."""
    times = [file.changed_ns for _, file in sighting.stamp if isinstance(file, FileId)]
    return max(times, default=0) / 1e9


async def shared(task: asyncio.Task[T]) -> T:
    """What a task gives that outlives whoever waits for it.

    Raises:
        ServerStopping: the task was given up.
    """
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.cancelled():
            raise ServerStopping from None
        raise
