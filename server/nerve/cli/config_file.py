"""A model's config.yaml with a few keys changed, and everything else as its author wrote it.

The only code that needs ruamel.yaml, which keeps comments and order; what a config means is read by
`nerve.config.model`, here too: a change is written only if that reads it as intended.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nerve.cli.in_process import Source
from nerve.config.model import ModelConfig, load_model_config
from nerve.config.problems import parse_yaml
from nerve.errors import ConfigInvalid, NerveError

Changes = Mapping[tuple[str | int, ...], int | str | None]
_LAYOUTS: Final = tuple((mapping, dash + 2, dash) for mapping in (2, 4) for dash in (2, 0, 4))
"""Indents that people use: of mappings, of what is in lists, of their dashes; the usual one first."""
_WIDTH: Final = 1 << 16


class CannotWrite(NerveError):
    """config.yaml cannot be changed so that it says what is meant."""

    reason = "cannot_write"

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path, self.detail = path, detail

    def __str__(self) -> str:
        return f"{self.path} is left as it is: {self.detail}"


def write_changes(source: Source, changes: Changes, tuned: ModelConfig) -> None:
    """Put changes into a model's config.yaml, which is made if there is none.

    Args:
        source: the version that was looked at.
        changes: by path.
        tuned: the config that the version must have afterwards.
    Raises:
        CannotWrite: it has changed since, would not say what it must, or cannot be written.
    """
    path = source.config_file
    shown = str(path)
    try:
        content = path.read_bytes().decode() if path.exists() else ""
        now = load_model_config(path if path.exists() else None, name=source.name)
    except (OSError, UnicodeDecodeError, ConfigInvalid) as error:
        raise CannotWrite(shown, str(error)) from error
    if now != source.model_config:
        raise CannotWrite(shown, "somebody has changed it meanwhile; run this again")
    try:
        text = changed(content, changes)
        value, _ = parse_yaml(text, source=path.name)
        meant = source.config_of(
            load_model_config(
                None, name=source.name, override=value, folder=source.config_file.parent
            )
        )
    except (ValueError, ConfigInvalid) as error:
        raise CannotWrite(shown, f"it cannot be changed safely: {error}") from error
    if meant.model_dump() != tuned.model_dump():
        own = source.files.config
        why = f"{own} says otherwise" if own else "it is written in a way that hides these keys"
        raise CannotWrite(shown, f"{why}; add this by hand:\n{as_yaml(changes)}")
    write(path, text)


def changed(text: str, changes: Changes) -> str:
    """The text of a config.yaml with other values at some paths; None takes a key out. Pure.

    Comments and order stay. Where the layout of a file is one that the library can write, every
    other line stays byte for byte, else white space may change.

    Raises:
        ValueError: it is no YAML that can be changed there.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    newline = "\r\n" if "\r\n" in text else "\n"
    content = text.removeprefix("\ufeff").replace("\r\n", "\n")
    yaml = _yaml_like(content)
    try:
        document = yaml.load(content)
        if document is None:  # nothing but comments
            written = content + ("\n" if content and not content.endswith("\n") else "")
            written += as_yaml(changes)
        else:
            for path, value in changes.items():
                _set(document, path, value)
            written = _dumped(yaml, document)
    except (YAMLError, AttributeError, TypeError, KeyError, IndexError) as error:
        raise ValueError(str(error)) from error
    return mark + written.replace("\n", newline)


def as_yaml(changes: Changes) -> str:
    """Changes as a config.yaml of their own; keys that are to go are left out. Pure."""
    document: dict[str, Any] = {}
    for path, value in changes.items():
        if value is not None:
            _set(document, path, value)
    return _dumped(_yaml(*_LAYOUTS[0]), document) if document else ""


def write(path: Path, text: str) -> None:
    """Replace a file in one step, so that nobody reads half of it; its mode and links stay.

    Raises:
        CannotWrite: the folder or the file cannot be written.
    """
    target = path.resolve()
    try:
        descriptor, aside = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, aside)
                with contextlib.suppress(PermissionError):  # only root may give a file away
                    os.chown(aside, target.stat().st_uid, target.stat().st_gid)
            else:
                Path(aside).chmod(0o644)  # like a file of an editor: a server is somebody else
            Path(aside).replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(aside).unlink()
            raise
    except OSError as error:
        raise CannotWrite(str(path), error.strerror or str(error)) from error


def _set(document: Any, path: tuple[str | int, ...], value: int | str | None) -> None:  # noqa: ANN401  YAML
    """Change a value in nested mappings and lists, which are made where there are none."""
    first, *rest = path
    if not rest:
        if value is None:
            document.pop(first, None)
        else:
            document[first] = value
        return
    if isinstance(first, str) and document.get(first) is None:
        document[first] = [{}] if isinstance(rest[0], int) else {}
    below = document[first]
    if isinstance(rest[0], int) and isinstance(below, dict):
        rest = rest[1:]  # a single mapping means a list of one
    _set(below, tuple(rest), value)


def _yaml(mapping: int, sequence: int, offset: int) -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    yaml.indent(mapping=mapping, sequence=sequence, offset=offset)
    return yaml


def _yaml_like(content: str) -> YAML:
    """A reader and writer that leaves this text as it is when nothing is changed, if there is one."""
    for layout in _LAYOUTS:
        yaml = _yaml(*layout)
        try:
            if _dumped(yaml, yaml.load(content)) == content:
                return yaml
        except YAMLError:
            break
    return _yaml(*_LAYOUTS[0])


def _dumped(yaml: YAML, document: Any) -> str:  # noqa: ANN401  YAML
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()
