"""Secrets that messages to webhooks are signed with (Baseten's contract, section 9.3)."""

from __future__ import annotations

import hmac
import logging
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nerve.errors import ConfigInvalid, Problem

log = logging.getLogger(__name__)

MAX_SECRETS: Final = 4
LEAST_CHARACTERS: Final = 16
MAX_FILE_BYTES: Final = 64 * 2**10
LOOK_S: Final = 1.0
"""Time between two looks at the file."""


def signature(body: bytes, secrets: Sequence[bytes]) -> str:
    """The header X-BASETEN-SIGNATURE of a message: a value a secret, of HMAC-SHA256. Pure."""
    return ",".join(f"v1={hmac.digest(each, body, 'sha256').hex()}" for each in secrets)


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """The secrets of a file: one a line; empty lines and those that begin with # do not count.

    Raises:
        ConfigInvalid: it cannot be read, is open to everybody, or holds none, too many, or a short one.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}") from error
    if os.name == "posix" and mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise _invalid(
            path,
            f"every user here may read it or others may write it (mode {mode & 0o777:o}): chmod 600, "
            "or 640 for a group",
        )
    if len(content) > MAX_FILE_BYTES:
        raise _invalid(path, f"is over {MAX_FILE_BYTES} bytes")
    return _parse(path, content)


def _parse(path: Path, content: bytes) -> tuple[bytes, ...]:
    """What is wrong is told by its line: the secret itself is not to be in a log."""
    secrets: dict[bytes, None] = {}
    for number, line in enumerate(content.splitlines(), 1):
        secret = line.strip()
        if not secret or secret.startswith(b"#"):
            continue
        if len(secret) < LEAST_CHARACTERS:
            fault = f"the secret is shorter than {LEAST_CHARACTERS} characters"
            raise _invalid(path, fault, line=number)
        if not all(0x21 <= byte < 0x7F for byte in secret):
            fault = "a secret is one word of ASCII, as `openssl rand -hex 32` prints it"
            raise _invalid(path, fault, line=number)
        secrets[secret] = None
    if not secrets:
        raise _invalid(path, "holds no secret: one a line, as `openssl rand -hex 32` prints it")
    if len(secrets) > MAX_SECRETS:
        raise _invalid(path, f"holds {len(secrets)} secrets, at most {MAX_SECRETS} are taken")
    return tuple(secrets)


class Secrets:
    """Those of a file. One that has changed is read again at the next message; one that cannot be
    used is reported once, and what it held before stays."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigInvalid: see `read_secrets`."""
        self._path = path
        self._seen = self._look()
        self._secrets = read_secrets(path)
        self._looked_at = time.monotonic()

    def sign(self, body: bytes, now: float | None = None) -> str:
        """The header for a message; `now` is monotonic."""
        now = time.monotonic() if now is None else now
        if now >= self._looked_at + LOOK_S:
            self._looked_at = now
            self._read_again()
        return signature(body, self._secrets)

    def _read_again(self) -> None:
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._secrets = read_secrets(self._path)
        except ConfigInvalid as error:
            log.error("changed secrets of webhooks are not used, those from before stay: %s", error)
        else:
            log.info("changed secrets of webhooks are in use from now on: %s", self._path)

    def _look(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError as error:
            return (error.errno or -1,)
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def new_secrets(path: Path | None) -> Secrets | None:
    """Those of a file; None without one: messages are not signed.

    Raises:
        ConfigInvalid: see `read_secrets`.
    """
    return None if path is None else Secrets(path)


def _invalid(path: Path, fault: str, *, line: int = 0) -> ConfigInvalid:
    return ConfigInvalid(f"async_webhook_secrets_file {path}", [Problem("", fault, line)])
