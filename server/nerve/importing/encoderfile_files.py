"""The files that an Encoderfile build file means, or where each was looked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nerve.config.transform import MAX_SCRIPT_BYTES
from nerve.errors import Problem
from nerve.importing.export_folder import Export, gathered, is_file, is_folder, read_export
from nerve.repository.files import told

_ROLES: Final = {
    "model_config_path": "config.json",
    "tokenizer_path": "tokenizer.json",
    "tokenizer_config_path": "tokenizer_config.json",
}
_GRAPH: Final = "model_weights_path"


@dataclass(frozen=True)
class Sources:
    """The model's files by their place in a version's folder, and the script's text."""

    files: Mapping[str, Path] = field(default_factory=dict)
    script: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Search:
    """Where relative paths start, and where people would look for them: beside the build file."""

    directory: Path
    beside: Path
    lines: Mapping[tuple[int | str, ...], int]

    def problem(self, keys: tuple[str, ...], fault: str) -> Problem:
        """A fault of what stands at a path of keys."""
        path = ("encoderfile", *keys)
        line = next((found for n in range(3, 0, -1) if (found := self.lines.get(path[:n]))), 0)
        return Problem(".".join(path), fault, line)

    def missing(self, what: str, name: str) -> str:
        """That something is not there, and how to say where it is."""
        fault = f"there is no {what} {name} in {self.directory.absolute()}"
        if Path(name).is_absolute():
            return f"there is no {what} {name}"
        home = self.beside.absolute().parent
        there = is_file(home / name) if what == "file" else is_folder(home / name)
        if home == self.directory.absolute() or not there:
            return fault
        return (
            f"{fault}, the working directory; there is one beside {self.beside.name}: add "
            f"--directory {self.beside.parent}"
        )


def find_sources(section: object, search: Search) -> tuple[Sources, list[Problem]]:
    """What is meant by `path` and `transform`, as far as they are well formed.

    Args:
        section: what stands below `encoderfile:`, not validated.
    Returns:
        The files that are there, and a problem for each that is not. Raises nothing.
    """
    if not isinstance(section, Mapping):
        return Sources(), []
    problems: list[Problem] = []
    export = _model(section.get("path"), search, problems)
    script = _script(section.get("transform"), search, problems)
    return Sources(export.files, script, export.notes), problems


def _model(path: object, search: Search, problems: list[Problem]) -> Export:
    if isinstance(path, str):
        folder = search.directory / path
        if not is_folder(folder):
            problems.append(search.problem(("path",), search.missing("folder", path)))
            return Export()
        export = read_export(folder)
        problems += [search.problem(("path",), fault) for fault in export.problems]
        return export
    if not isinstance(path, Mapping):
        return Export()
    found = dict(_named(path, search, problems))
    graph = found.pop(_GRAPH, None)
    side = {_ROLES[key]: file for key, file in found.items()}
    if graph is None:
        return Export(side)
    export = gathered(graph, side)
    problems += [search.problem(("path", _GRAPH), fault) for fault in export.problems]
    return export


def _named(
    path: Mapping[str, object], search: Search, problems: list[Problem]
) -> Iterator[tuple[str, Path]]:
    for key in (*_ROLES, _GRAPH):
        name = path.get(key)
        if not isinstance(name, str):
            continue
        if is_file(search.directory / name):
            yield key, search.directory / name
        else:
            problems.append(search.problem(("path", key), search.missing("file", name)))


def _script(transform: object, search: Search, problems: list[Problem]) -> str | None:
    """The text of the script; None if there is none, or none that can be used."""
    keys: tuple[str, ...] = ("transform",)
    if isinstance(transform, str):
        text = transform
    elif isinstance(transform, Mapping) and isinstance(name := transform.get("path"), str):
        keys = ("transform", "path")
        if not is_file(search.directory / name):
            problems.append(search.problem(keys, search.missing("file", name)))
            return None
        try:
            with (search.directory / name).open("rb") as file:
                text = file.read(MAX_SCRIPT_BYTES + 1).decode()
        except UnicodeDecodeError as error:
            problems.append(search.problem(keys, f"{name} is not UTF-8: {error.reason}"))
            return None
        except OSError as error:
            problems.append(search.problem(keys, f"{name} cannot be read: {told(error)}"))
            return None
    else:
        return None
    fault = "" if text.strip() else "the script is empty"
    if len(text.encode()) > MAX_SCRIPT_BYTES:
        fault = f"the script is over {MAX_SCRIPT_BYTES} bytes"
    if fault:
        problems.append(search.problem(keys, fault))
        return None
    return text
