"""Changes on the disk -> "this path has changed" on the event loop; what it means is decided there.

Events are a hint and never the truth: a network file system sends none, and the library says nothing
where the kernel's queue overflowed or a new folder could not be watched. So somebody has to poll as
well, if seldom. The only module that knows watchfiles.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from watchfiles._rust_notify import RustNotify  # documented; `watch` cannot say that it has begun

log = logging.getLogger(__name__)

OnChange = Callable[[Path, Path], None]
"""(root, path): something happened to `path`, which is `root` itself or lies below it."""

_STEP_MS: Final = 50
"""How often the library looks whether it has something to tell; a change is told at the second."""
_REST_S: Final = 1.0
"""Before a watch that failed is told of: a name that the library cannot decode ends it each time."""
_MAX_PATHS: Final = 2_000
"""Waiting to be handed over, for each root; above that it is everything."""
_NOT_TOLD: Final = ".git"
"""A folder that is never part of a model, with much going on in it."""


class Watcher:
    """Calls `on_change` on the loop when something happens in a root. `watch`, then `aclose`.

    A root is a folder as the caller names it, and the paths told lie below that name. When `path`
    is the root itself, anything may have changed, and `watch` should be called again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_change: OnChange) -> None:
        self._loop, self._on_change = loop, on_change
        self._watches: dict[Path, _Watch] = {}
        self._faults: dict[Path, str] = {}
        self._suspect: set[Path] = set()
        self._work = threading.Lock()  # held by the thread that starts or stops watches
        self._lock = threading.Lock()  # held for moments, guards what is below
        self._changed: dict[Path, set[Path]] = {}
        self._woken = self._closed = False

    @property
    def broken(self) -> frozenset[Path]:
        """Roots whose events do not come, as far as is known; `watch` tries them again."""
        return frozenset(self._faults.keys() | self._suspect)

    async def watch(self, roots: Iterable[Path]) -> bool:
        """Watch these roots and no others. Raises nothing; to be called again at every poll.

        A root that is watched already is watched anew if its name leads to another folder by now,
        or if anything was told of it: what came with it may have been lost, new folders as well.
        Changes between the end of an old watch and this call's return may be missed: look at the
        roots afterwards.

        Returns:
            Whether all of them are watched; a log line told what is wrong, once.
        """
        self._suspect.clear()
        await asyncio.to_thread(self._rebuild, list(dict.fromkeys(roots)))
        return not self._faults

    async def aclose(self) -> None:
        """Stop and join all threads; `on_change` is not called any more."""
        with self._lock:
            self._closed = True
            self._changed.clear()
        await asyncio.to_thread(self._rebuild, [])

    def _rebuild(self, roots: list[Path]) -> None:
        """Start what is wanted and stop what is not; runs in a thread."""
        with self._work:
            if self._closed:
                roots = []
            faults = dict(self._faults)
            for root, watch in list(self._watches.items()):
                if root not in roots or not watch.intact():
                    del self._watches[root]
                    watch.stop()
                    faults[root] = watch.fault
            for root in roots:
                if root not in self._watches:
                    faults[root] = self._start(root, faults.get(root, ""))
            self._faults = {root: faults[root] for root in roots if faults.get(root)}

    def _start(self, root: Path, known: str) -> str:
        """Watch one root, and say what is wrong, if anything."""
        watch = _Watch(root, self._collect)
        fault = watch.start()
        if not fault:
            self._watches[root] = watch
            if known:
                log.info("repository is watched again: %s", root)
        elif fault != known:
            _warn(root, fault)
        return fault

    def _collect(self, root: Path, paths: set[Path]) -> None:
        """Note changes; called by threads, wakes the loop if it has not been woken yet."""
        with self._lock:
            if self._closed:
                return
            waiting = self._changed.setdefault(root, set())
            waiting |= paths
            if len(waiting) > _MAX_PATHS:
                self._changed[root] = {root}
            if self._woken:
                return
            self._woken = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, {}
            self._woken = False
        for root, paths in changed.items():
            everything = root in paths
            if everything:
                self._suspect.add(root)
            for path in [root] if everything else paths:
                self._on_change(root, path)


class _Watch:
    """The watch of one root, with a thread that waits for the library. All methods block."""

    def __init__(self, root: Path, report: Callable[[Path, set[Path]], None]) -> None:
        self._root, self._report = root, report
        self._place = (0, 0)
        self._end = _End()
        self._thread: threading.Thread | None = None
        self._told = False
        self.fault = ""
        """Why it has ended by itself."""

    def start(self) -> str:
        """Start, and say what is wrong, or nothing; called once, raises nothing."""
        try:
            real = self._root.resolve(strict=True)
            self._place = _place(real)
            os.scandir(real).close()  # the library would take a file as well
            # Walks the tree with the interpreter's lock held: 30 ms for a thousand folders.
            notify = RustNotify([str(real)], False, False, 0, True, False)
            # No daemon: such a thread brings the process down at its end (watchfiles 1.0 to 1.2).
            thread = threading.Thread(target=self._serve, args=(notify, real), name="nerve-watch")
            thread.start()
        except BaseException as error:  # noqa: BLE001 - a panic of the library is no Exception
            return _why(error)
        self._thread = thread
        return ""

    def intact(self) -> bool:
        """Whether it certainly tells of all that its root's name leads to."""
        # The library forgets a folder when a link to it is removed, and what could not be watched,
        # and drops the kernel's word that events were lost. Without any change, none of it happens.
        if self.fault or self._told:
            return False
        try:
            return _place(self._root) == self._place
        except OSError:
            return False

    def stop(self) -> None:
        """Stop and join the thread."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _serve(self, notify: RustNotify, real: Path) -> None:
        fault = "the library ended"
        try:
            # Without a timeout: changes that come at its very end would be lost.
            while not isinstance(changes := notify.watch(0, _STEP_MS, 0, self._end), str):
                below = [Path(path).relative_to(real) for _, path in changes]
                paths = {self._root / path for path in below if _NOT_TOLD not in path.parts}
                if paths:
                    self._told = True
                    self._report(self._root, paths)
        except BaseException as error:  # noqa: BLE001 - boundary of the thread; see above
            fault = _why(error)
        finally:
            if not self._end.is_set() and not self._end.wait(_REST_S):
                self.fault = fault
                _warn(self._root, fault)
                self._report(self._root, {self._root})
            with contextlib.suppress(BaseException):
                notify.close()


class _End(threading.Event):
    """Tells a thread to end, which the library asks for at every step; set when the process ends."""

    def is_set(self) -> bool:
        return super().is_set() or not threading.main_thread().is_alive()


def _place(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _warn(root: Path, fault: str) -> None:
    log.warning(
        "repository is not watched, its changes are only found by polling: %s: %s", root, fault
    )


def _why(error: BaseException) -> str:
    """Why a root cannot be watched, and what helps. The library passes no errno on."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if isinstance(error, FileNotFoundError):
        return "there is no such folder"
    if "watch limit" in text:
        return "the kernel's limit of watched folders is reached; raise fs.inotify.max_user_watches"
    if "Too many open files" in text:
        return (
            "the limit of inotify instances or of open files is reached; raise "
            "fs.inotify.max_user_instances or ulimit -n"
        )
    return text
