"""What the daemon's settings say of keys and TLS, as objects; changed files are read again."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from nerve.config.settings.security import SecuritySettings
from nerve.errors import SetupError
from nerve.metrics.security import SecurityMetrics
from nerve.security.guard import KeyGuard
from nerve.security.keys import read_keys
from nerve.security.tls import Tls
from nerve.security.watched import LOOK_S, Signature, signature, watch

log = logging.getLogger(__name__)

T = TypeVar("T")
Watch = Callable[[], asyncio.Task[None]]

READ_BY_ALL: Final = stat.S_IROTH
WRITTEN_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


class Security:
    """Keys and TLS. `start` has changed files read again, `aclose` ends that."""

    def __init__(self, settings: SecuritySettings, metrics: SecurityMetrics) -> None:
        """Read the files.

        Raises:
            ConfigInvalid, TlsInvalid: one of them cannot be used.
        """
        self._metrics = metrics
        self._watches: list[Watch] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.guard = self._new_guard(settings.api_keys_file)
        """None: whoever can connect may ask."""
        self.tls = self._new_tls(settings)
        """None: there is none."""

    def start(self) -> None:
        """Look at the files from now on."""
        self._tasks = [watch() for watch in self._watches]

    async def aclose(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _new_guard(self, path: Path | None) -> KeyGuard | None:
        if path is None:
            return None
        seen = signature([path])
        guard = KeyGuard(read_keys(path))
        _warn(path, WRITTEN_BY_OTHERS, "the file of API keys, %s, can be written by others")
        self._have_watched("api_keys", [path], seen, lambda: read_keys(path), guard.replace)
        return guard

    def _new_tls(self, settings: SecuritySettings) -> Tls | None:
        if settings.cert_file is None or settings.key_file is None:
            return None
        files = settings.cert_file, settings.key_file, settings.client_ca_file
        paths = [path for path in files if path is not None]
        seen = signature(paths)
        tls = Tls(*files)
        self._metrics.certificate(lambda: tls.validity.until)
        _warn(settings.key_file, READ_BY_ALL, "every user here can read the private key in %s")
        self._have_watched("tls", paths, seen, tls.read, tls.use)
        return tls

    def _have_watched(
        self,
        kind: str,
        paths: Sequence[Path],
        seen: Signature,
        read: Callable[[], T],
        use: Callable[[T], None],
    ) -> None:
        async def again() -> None:
            names = ", ".join(map(str, paths))
            try:
                use(await asyncio.to_thread(read))
            except SetupError as error:
                log.error("changed files are not used, what they held before stays: %s", error)
                self._metrics.reloaded(kind, "failed")
            except Exception:  # boundary: the next change is to be seen, too
                log.exception("changed files were not read: %s", names)
                self._metrics.reloaded(kind, "failed")
            else:
                log.info("changed files are in use from now on: %s", names)
                self._metrics.reloaded(kind, "loaded")

        self._metrics.started(kind)
        self._watches.append(
            lambda: asyncio.create_task(
                watch(paths, seen, again, look_s=LOOK_S), name=f"changes of {kind}"
            )
        )


def _warn(path: Path, bits: int, sentence: str) -> None:
    if os.name == "posix" and path.stat().st_mode & bits:
        log.warning(sentence, path)
