"""A model folder that a repository could serve, Nerve's or Triton's: its versions, as they lie there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from nerve.errors import ConfigInvalid, Problem, RepositoryInvalid
from nerve.importing.export_folder import Export, is_folder, read_export
from nerve.importing.plan import VERSION_FOLDER, ImportFailed
from nerve.repository.fingerprint import Digests, inspect_version
from nerve.repository.layout import (
    CHECKSUM_FILE,
    CONFIG_FILES,
    MODEL_FILE,
    SIDE_FILES,
    Folder,
    read_model,
    scan,
    version_number,
)
from nerve.types import VersionFiles

SCRIPTS: Final = ".lua"


@dataclass(frozen=True)
class Versions:
    """Files by their place in the model's folder."""

    files: Mapping[str, Path]
    texts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def versions_of(folder: Path, *, graph: str = "", checkpoint: Path | None = None) -> Versions:
    """The versions of a model folder; an export folder is version 1.

    Args:
        folder: with version folders, or with a graph in it.
        graph: the graph's file name in each version, if it is not model.onnx.
        checkpoint: an export folder, of which the side files are taken that are not there.
    Raises:
        ConfigInvalid: with every fault of every version.
        ImportFailed: there is none.
    """
    try:
        listing = scan(folder)
    except RepositoryInvalid as error:
        raise ImportFailed(str(error)) from error
    shared = _side_of(checkpoint)
    if not any(map(version_number, listing.folders)):
        export = read_export(folder, graph=graph)
        problems = [each for each in export.problems if each.split(" ", 1)[0] not in shared]
        if problems:
            raise ConfigInvalid(str(folder), [Problem("", each) for each in problems])
        files = {f"{VERSION_FOLDER}/{name}": path for name, path in export.files.items()}
        return Versions(_with(files, shared, folder=f"{VERSION_FOLDER}/"), notes=export.notes)
    return _numbered(listing, graph, shared)


def _numbered(listing: Folder, graph: str, shared: Mapping[str, Path]) -> Versions:
    model = read_model(listing)
    digests = Digests()
    files: dict[str, Path] = {}
    notes = list(model.warnings)
    problems: list[Problem] = []
    for number, version in sorted(model.versions.items()):
        found = _inspected(version, listing, graph, digests)
        if found.problem:
            problems.append(Problem(f"version {number}", found.problem))
            continue
        assert found.onnx is not None  # else there is a problem
        home = found.onnx.parent
        files[(home / MODEL_FILE).relative_to(listing.path).as_posix()] = found.onnx
        for place, path in found.external.items():
            files[(home / place).relative_to(listing.path).as_posix()] = path
        rest = [path for name, path in found.side.items() if name != CHECKSUM_FILE]
        rest += [path for path in (found.golden, found.config) if path is not None]
        files |= {path.relative_to(listing.path).as_posix(): path for path in rest}
        if CHECKSUM_FILE in found.side:
            notes.append(f"{number}/{CHECKSUM_FILE} was checked, and is not copied")
    if problems:
        raise ConfigInvalid(str(listing.path), problems)
    files |= {
        path.relative_to(listing.path).as_posix(): path
        for path in model.everything
        if path.suffix == SCRIPTS
    }
    return Versions(_with(files, shared, folder=""), notes=tuple(notes))


def _inspected(
    version: VersionFiles, listing: Folder, graph: str, digests: Digests
) -> VersionFiles:
    """A version read to the end, with the graph of the given name."""
    own = listing.folders.get(str(version.number))
    if graph and graph != MODEL_FILE and own is not None:
        if graph not in own.files:
            fault = f"default_model_filename is {graph!r:.150}, and there is no such file in it"
            return replace(version, onnx=None, problem=fault)
        version = replace(version, onnx=own.files[graph], problem="")
    return inspect_version(version, digests).files


def _side_of(checkpoint: Path | None) -> dict[str, Path]:
    if checkpoint is None:
        return {}
    if not is_folder(checkpoint):
        raise ImportFailed(f"--checkpoint {checkpoint}: there is no such folder")
    export: Export = read_export(checkpoint)
    return {name: path for name, path in export.files.items() if name in SIDE_FILES}


def _with(files: Mapping[str, Path], shared: Mapping[str, Path], *, folder: str) -> dict[str, Path]:
    """`files`, and side files from elsewhere that are not among them."""
    added = {f"{folder}{name}": path for name, path in shared.items()}
    own = {place.rpartition("/")[2] for place in files}
    return {
        **files,
        **{place: path for place, path in added.items() if place.rpartition("/")[2] not in own},
    }


def own_config(folder: Path) -> Path | None:
    """The config.yaml of a model folder."""
    return next((folder / name for name in CONFIG_FILES if (folder / name).is_file()), None)
