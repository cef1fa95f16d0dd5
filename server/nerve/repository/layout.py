"""Folder listing -> models, versions and their files. `scan` looks at the disk, the rest is pure.

Accepted (DESIGN, decision 1): `<model>/<version>/model.onnx` with side files in the version folder
or shared in the model folder; a flat export folder (version 1); the hub's `onnx/model.onnx`; a
repository path that is itself one model folder. External data files lie beside the .onnx file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from nerve.config.model import VersionPolicy
from nerve.errors import RepositoryInvalid
from nerve.types import VersionFiles

MODEL_FILE = "model.onnx"
CONFIG_FILES = ("config.yaml", "config.yml")
SIDE_FILES = ("tokenizer.json", "config.json", "tokenizer_config.json", "special_tokens_map.json")
MAX_DEPTH = 4
"""Levels below a repository that matter: model/version/onnx/model.onnx."""
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".h5", ".msgpack")
"""Endings of models that are not exported yet."""
_IGNORED = re.compile(r"\..*|.*~|.*\.(swp|swx|tmp|part|crdownload)|lost\+found|__pycache__")


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds. `problem` says why its content cannot be used, or is empty."""

    path: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    folders: Mapping[str, Folder] = field(default_factory=dict)
    problem: str = ""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Entries that were left out, and why: links that lead nowhere or out of the repository."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model folder: its versions by number, its config file, and what is wrong with all of it."""

    name: str
    path: Path
    config: Path | None
    versions: Mapping[int, VersionFiles]
    problem: str = ""
    warnings: tuple[str, ...] = ()


def scan(repository: Path) -> Folder:
    """List a repository, following links only within it.

    Raises:
        RepositoryInvalid: there is no such folder, or it cannot be read.
    """
    if not repository.exists():
        raise RepositoryInvalid(
            str(repository), "there is no such folder; name one: nerve serve FOLDER"
        )
    if not repository.is_dir():
        raise RepositoryInvalid(str(repository), "is a file, expected a folder of models")
    root = repository.resolve()
    folder = _scan(root, root, MAX_DEPTH, frozenset())
    if folder.problem:
        raise RepositoryInvalid(str(repository), folder.problem)
    return folder


def _scan(path: Path, root: Path, depth: int, above: frozenset[Path]) -> Folder:
    above |= {path.resolve()}
    files: dict[str, Path] = {}
    folders: dict[str, Folder] = {}
    faults: dict[str, str] = {}
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        return Folder(path, problem=f"cannot be read: {error.strerror}")
    for entry in entries:
        if _IGNORED.fullmatch(entry.name):
            continue
        fault = _link_fault(entry, root, above)
        if fault and depth == MAX_DEPTH and not _links_to_file(entry):
            folders[entry.name] = Folder(entry, problem=fault)  # listed, with its reason
        elif fault:
            faults[entry.name] = fault
        elif entry.is_dir():
            if depth > 0:
                folders[entry.name] = _scan(entry, root, depth - 1, above)
        elif entry.is_file():
            files[entry.name] = entry
    return Folder(
        path, MappingProxyType(files), MappingProxyType(folders), "", MappingProxyType(faults)
    )


def _link_fault(entry: Path, root: Path, above: frozenset[Path]) -> str:
    """Why an entry may not be followed, empty if it may."""
    try:
        real = entry.resolve(strict=True)
    except (OSError, RuntimeError):
        return f"{entry.name} is a link that leads nowhere"
    if real in above:
        return f"{entry.name} is a link to a folder that it lies in"
    if real.is_relative_to(root):
        return ""
    return (
        f"{entry.name} is a link that leads out of the repository; copy the files, or serve the "
        "folder that holds them as a repository"
    )


def _links_to_file(entry: Path) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def read_models(root: Folder) -> list[ModelFiles]:
    """The models of a repository, by name. A folder that is no model is one with a problem."""
    if _is_model(root):
        return [read_model(root)]
    return [read_model(folder) for folder in root.folders.values()]


def _is_model(root: Folder) -> bool:
    """Whether a repository path is itself one model's folder, even one that cannot be served.

    A lone .onnx file among model folders does not make it one; `onnx` and `1` could as well be
    the names of models.
    """
    names = {*root.files, *root.faults}
    side_files = any(name in names for name in (*SIDE_FILES, *CONFIG_FILES))
    if any(name.endswith((".onnx", *_WEIGHTS)) for name in names):
        return side_files or not any(map(_has_graph, root.folders.values()))
    return side_files and (_has_graph(root) or any(map(version_number, root.folders)))


def read_model(folder: Folder) -> ModelFiles:
    """One model folder."""
    # a name that is no UTF-8 must still be one that can be listed
    name = os.fsencode(folder.path.name).decode("utf-8", "backslashreplace")
    configs = [folder.files[each] for each in CONFIG_FILES if each in folder.files]
    config = configs[0] if configs else None
    versions: dict[int, VersionFiles] = {}
    warnings = []
    problem = folder.problem
    if faults := [folder.faults[each] for each in CONFIG_FILES if each in folder.faults]:
        problem = faults[0]  # never served without what it says
    if len(configs) > 1:
        problem = f"both {' and '.join(CONFIG_FILES)} are there; remove one"
    if not NAME_PATTERN.fullmatch(name):
        problem = (
            f"{name!r} cannot be a model name: letters, digits, '.', '_' and '-' only, "
            "starting with a letter or digit, at most 128"
        )
    for child_name, child in folder.folders.items():
        number = version_number(child_name)
        if number:
            versions[number] = _read_version(number, child, folder)
        elif child_name.isdecimal():
            warnings.append(
                f"folder {child_name!r} is ignored: a version is a whole number from 1 on, "
                "without leading zeros"
            )
    for entry, fault in folder.faults.items():
        if number := version_number(entry):
            versions[number] = VersionFiles(number, None, {}, fault)
    if versions and _has_graph(folder):
        warnings.append(f"{MODEL_FILE} beside version folders is ignored")
    elif _has_graph(folder):
        versions[1] = _read_version(1, folder, folder)
    if not versions and not problem:
        linked = next(iter(folder.faults.values()), "")
        problem = linked or _no_graph(name, folder)
    return ModelFiles(name, folder.path, config, versions, problem, tuple(warnings))


def _no_graph(name: str, folder: Folder) -> str:
    """What to say of a folder without a graph."""
    expected = f"{name}/<version>/{MODEL_FILE}, {name}/{MODEL_FILE} or {name}/onnx/{MODEL_FILE}"
    weights = next((each for each in folder.files if each.endswith(_WEIGHTS)), None)
    if weights is None:
        return f"no {MODEL_FILE} found; expected {expected}"
    return (
        f"no {MODEL_FILE}, only {weights}; export the model to ONNX "
        "(optimum-cli export onnx --model … --task token-classification …)"
    )


def version_number(name: str) -> int:
    """The version that a text means, as a folder name or in a request; 0 if none."""
    return int(name) if re.fullmatch(r"[1-9][0-9]{0,17}", name) else 0


def _graph_places(folder: Folder) -> Iterable[Folder]:
    """Where a graph may lie: here, in `onnx/`, in a folder called like the file (Triton)."""
    yield folder
    for name in ("onnx", MODEL_FILE):
        if name in folder.folders:
            yield folder.folders[name]


def _has_graph(folder: Folder) -> bool:
    return any(name.endswith(".onnx") for place in _graph_places(folder) for name in place.files)


def _read_version(number: int, folder: Folder, model: Folder) -> VersionFiles:
    places = list(_graph_places(folder))
    own_faults = {name: fault for place in places for name, fault in place.faults.items()}
    side: dict[str, Path] = {}
    faults = [folder.problem] if folder.problem else []
    for name in SIDE_FILES:
        # the version's own file wins over one beside its graph, and that over the shared one
        holder = next((place for place in (*places, model) if name in place.files), None)
        if name in own_faults:
            faults.append(own_faults[name])
        elif holder is not None:
            side[name] = holder.files[name]
        elif name in model.faults:
            faults.append(model.faults[name])
    graph = next((each.files[MODEL_FILE] for each in places if MODEL_FILE in each.files), None)
    if graph is None:
        faults += [fault for name, fault in own_faults.items() if name.endswith(".onnx")]
    if faults:
        return VersionFiles(number, None, side, "; ".join(dict.fromkeys(faults)))
    if graph is not None:
        return VersionFiles(number, graph, side)
    found = [path for place in places for name, path in place.files.items() if name[-5:] == ".onnx"]
    if len(found) == 1:
        return VersionFiles(number, found[0], side)
    problem = (
        f"several .onnx files ({', '.join(path.name for path in found)}) and none of them is "
        f"{MODEL_FILE}; rename the one to serve"
        if found
        else f"version {number} has no {MODEL_FILE}"
    )
    return VersionFiles(number, None, side, problem)


def select_versions(available: Iterable[int], policy: VersionPolicy) -> tuple[list[int], list[int]]:
    """Versions that a policy serves, and those that it names but that are not there, ascending."""
    numbers = sorted(available)
    if policy.all is not None:
        return numbers, []
    if policy.specific is not None:
        wanted = sorted(set(policy.specific.versions))
        return (
            [number for number in wanted if number in numbers],
            [number for number in wanted if number not in numbers],
        )
    return numbers[-(policy.latest.num_versions if policy.latest else 1) :], []
