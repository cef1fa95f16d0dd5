"""`nerve new-api-key`: a key for a client, and the entry by which the server knows it."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nerve.cli.report import remark
from nerve.cli.terminal import print_lines
from nerve.errors import ConfigInvalid, InvalidField, Problem

if TYPE_CHECKING:
    from nerve.security.keys import ApiKey

_ITEM = re.compile(r"^( *)- ", re.MULTILINE)
_NO_ITEMS = re.compile(r"^keys:\s*\[\s*\][ \t]*$", re.MULTILINE)


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
        f"name: {key.name}",
        f'sha256: "{key.sha256}"',
        f"scopes: [{', '.join(key.scopes)}]",
    ]
    if key.rate_limit is not None:
        limit = f"requests_per_second: {key.rate_limit.requests_per_second:g}"
        if key.rate_limit.burst is not None:
            limit += f", burst: {key.rate_limit.burst}"
        lines.append(f"rate_limit: {{{limit}}}")
    if key.expires is not None:
        lines.append(f'expires: "{key.expires.isoformat()}"')
    return [f"{indent}{'- ' if at == 0 else '  '}{line}" for at, line in enumerate(lines)]


def add_to(file: Path, key: ApiKey) -> None:
    """Add an entry to a file, which is replaced as a whole; its comments stay.

    Raises:
        ConfigInvalid: the file cannot be used, has a key of that name, or is not laid out so that
            an entry can be added at its end.
    """
    from nerve.security.keys import keys_in, read_keys  # noqa: PLC0415  keeps `--help` fast

    if file.suffix == ".json":
        raise _refused(file, "is JSON: add the entry by hand")
    try:
        there = list(read_keys(file)) if file.exists() else []
        old = file.read_text(encoding="utf-8") if file.exists() else "keys:\n"
        if any(each.name == key.name for each in there):
            raise _refused(file, f"has a key with the name {key.name!r} already")
        indents = _ITEM.findall(old)
        base = _NO_ITEMS.sub("keys:", old).rstrip("\n")
        new = "\n".join([base, *lines_of(key, indents[0] if indents else "  "), ""])
        try:
            added = list(keys_in(new, source=str(file)))
        except ConfigInvalid:
            added = []
        if {each.name: each for each in added} != {each.name: each for each in [*there, key]}:
            raise _refused(file, "is not a plain list under keys: add the entry by hand")
        _replace(file, new)
    except OSError as error:
        raise _refused(file, f"cannot be written: {error.strerror}") from error


def _replace(file: Path, text: str) -> None:
    """Owner and mode stay; a new file is for its owner only."""
    target = file.resolve()
    number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as written:
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
