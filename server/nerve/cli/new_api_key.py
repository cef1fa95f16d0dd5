"""`nerve new-api-key`: a key for a client, and the entry by which the server knows it."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from nerve.cli.report import remark
from nerve.cli.terminal import print_lines
from nerve.errors import ConfigInvalid, InvalidField, Problem

if TYPE_CHECKING:
    from nerve.security.keys import ApiKey

_ITEM = re.compile(r"^( *)- ", re.MULTILINE)
_NO_ITEMS = re.compile(r"^keys:\s*\[\s*\][ \t\r]*$", re.MULTILINE)
LOCK_S: Final = 10.0
"""Longest wait for others who add to the same file; each takes milliseconds."""
_LOOK_S: Final = 0.02


def new_api_key(
    name: Annotated[
        str, typer.Argument(help="Of whom it is; stands in logs and metrics.", show_default=False)
    ],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="read (models, metrics), predict, or admin (everything). May be repeated. "
            "Default: predict"
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests per second that it may make. Default: any number")
    ] = None,
    burst: Annotated[
        int | None,
        typer.Option(help="Requests at once after a pause. Default: those of one second"),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Day or time, UTC, from which on it is refused.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Add the entry to this file of --api-keys-file; it is made if it is not there."
        ),
    ] = None,
) -> None:
    """Make an API key, and print it: it is kept nowhere, the server only has its SHA-256."""
    from nerve.config.problems import validate  # noqa: PLC0415  keeps `--help` fast
    from nerve.security.keys import ApiKey, new_key  # noqa: PLC0415

    if burst is not None and rate is None:
        raise InvalidField("--burst", "is nothing without --rate")
    key, digest = new_key()
    entry: dict[str, object] = {"name": name, "sha256": digest, "scopes": scope or ["predict"]}
    if rate is not None:
        entry["rate_limit"] = {"requests_per_second": rate}
        if burst is not None:
            entry["rate_limit"]["burst"] = burst  # type: ignore[index]  # a dict
    if expires is not None:
        entry["expires"] = expires
    made = validate(ApiKey, entry, source="the new key")
    if file is not None:
        add_to(file, made)
    remark("The key, which is told only now:" if file is None else f"Added to {file}. The key:")
    print_lines([key])
    if file is None:
        remark("The entry for the file of --api-keys-file:")
        print_lines(["keys:", *lines_of(made, "  ")])


def lines_of(key: ApiKey, indent: str) -> list[str]:
    """The entry as lines of YAML. Pure."""
    lines = [
        f'name: "{key.name}"',  # else YAML takes 123, true or 2024-01-01 for something else
        f'sha256: "{key.sha256}"',
        f"scopes: [{', '.join(key.scopes)}]",
    ]
    if key.rate_limit is not None:
        # Exactly, and never as 1e-05, which YAML takes for a word.
        rate = Decimal(repr(key.rate_limit.requests_per_second)).normalize()
        limit = f"requests_per_second: {rate:f}"
        if key.rate_limit.burst is not None:
            limit += f", burst: {key.rate_limit.burst}"
        lines.append(f"rate_limit: {{{limit}}}")
    if key.expires is not None:
        lines.append(f'expires: "{key.expires.isoformat()}"')
    return [f"{indent}{'- ' if at == 0 else '  '}{line}" for at, line in enumerate(lines)]


def add_to(file: Path, key: ApiKey) -> None:
    """Add an entry to a file, which is replaced as a whole; its comments stay.

    Several may do so at the same time (but on Windows).

    Raises:
        ConfigInvalid: the file cannot be used, has a key of that name, is full, or is not laid out
            so that an entry can be added at its end.
    """
    from nerve.security.keys import text_of  # noqa: PLC0415  keeps `--help` fast

    if file.suffix == ".json":
        raise _refused(file, "is JSON: add the entry by hand")
    try:
        target = file.resolve()
        with _locked(target):
            old = text_of(file) if file.exists() else None
            _replace(target, _with(old, key, file))
    except OSError as error:
        raise _refused(file, f"cannot be written: {error.strerror}") from error


def _with(old: str | None, key: ApiKey, file: Path) -> str:
    """The text of a file with an entry more. Pure; raises as `add_to`."""
    from nerve.security.keys import MAX_FILE_BYTES, MAX_KEYS, keys_in  # noqa: PLC0415  as above

    there = [] if old is None else list(keys_in(old, source=str(file)))
    if any(each.name == key.name for each in there):
        raise _refused(file, f"has a key with the name {key.name!r} already")
    if len(there) >= MAX_KEYS:
        raise _refused(file, f"has {MAX_KEYS} keys, which is the most")
    text = "keys:\n" if old is None else old
    indents = _ITEM.findall(text)
    base = _NO_ITEMS.sub("keys:", text).rstrip("\r\n")
    new = "\n".join([base, *lines_of(key, indents[0] if indents else "  "), ""])
    if len(new.encode()) > MAX_FILE_BYTES:
        raise _refused(file, f"would be over {MAX_FILE_BYTES} bytes")
    try:
        added = list(keys_in(new, source=str(file)))
    except ConfigInvalid:
        added = []
    if {each.name: each for each in added} != {each.name: each for each in [*there, key]}:
        raise _refused(file, "is not a plain list under keys: add the entry by hand")
    return new


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Be the only one who changes `target`.

    The lock is a file beside it, as the file itself is replaced; it is gone when the block ends.
    """
    if sys.platform == "win32":
        yield
        return
    path, until = target.with_name(f".{target.name}.lock"), time.monotonic() + LOCK_S
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if _taken(number, path):
                try:
                    yield
                    return
                finally:
                    path.unlink(missing_ok=True)
        finally:
            os.close(number)
        if time.monotonic() > until:
            raise _refused(target, f"is being changed by another program, which holds {path}")
        time.sleep(_LOOK_S)


def _taken(number: int, path: Path) -> bool:
    """Whether the open file is locked now, and is still the one at `path`."""
    import fcntl  # noqa: PLC0415  not on Windows

    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(number), path.stat(follow_symlinks=False))
    except (BlockingIOError, FileNotFoundError):  # another's, or its owner has just removed it
        return False


def _replace(target: Path, text: str) -> None:
    """Owner and mode stay; a new file is for its owner only."""
    number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(number, "w", encoding="utf-8", newline="") as written:
            written.write(text)
            if target.exists():
                before = target.stat()
                Path(name).chmod(before.st_mode & 0o777)
                if sys.platform != "win32":
                    with suppress(PermissionError):
                        os.chown(name, before.st_uid, before.st_gid)
            written.flush()
            os.fsync(written.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _refused(file: Path, fault: str) -> ConfigInvalid:
    return ConfigInvalid(str(file), [Problem("", fault)])
