"""Folder listing -> models, versions and their files. `scan` looks at the disk, the rest is pure.

Contents are none of this module's business, nor is what is loaded.

Accepted (DESIGN, decision 1): `<model>/<version>/model.onnx` with side files in the version folder
or shared in the model folder; a flat export folder (version 1); the hub's `onnx/model.onnx`; a
repository path that is itself one model folder. External data files lie beside the .onnx file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from nerve.errors import RepositoryInvalid
from nerve.types import VersionFiles

MODEL_FILE = "model.onnx"
CONFIG_FILES = ("config.yaml", "config.yml")
SIDE_FILES = ("tokenizer.json", "config.json", "tokenizer_config.json", "special_tokens_map.json")
GOLDEN_FILE = "golden.jsonl"
CHECKSUM_FILE = "SHA256SUMS"
"""Optional, in a version's own folder: what sha256sum(1) writes."""
_EXPECTED_FILES = frozenset({*CONFIG_FILES, *SIDE_FILES, GOLDEN_FILE, CHECKSUM_FILE})
MAX_DEPTH = 4
"""Levels below a repository that matter: model/version/onnx/model.onnx."""
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NEVER_READ = (".log", ".txt", ".md", ".csv", ".lock", ".out", ".err")
"""Endings of what lies beside models and may always be changing. (A graph that names such a file as
its external data is noticed when the file is read, not when it changes.)"""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".h5", ".msgpack")
"""Endings of models that are not exported yet."""
_PASSING = re.compile(r".*~|.*\.(swp|swx|tmp|part|crdownload)")
_IGNORED = re.compile(rf"\..*|{_PASSING.pattern}|lost\+found|__pycache__")


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
    everything: tuple[Path, ...] = ()
    """Every file in the folder that may be part of it, used or not."""


def scan(repository: Path) -> Folder:
    """List a repository, following links only within it.

    Raises:
        RepositoryInvalid: there is no such folder, or it cannot be read.
    """
    if not repository.exists():
        raise RepositoryInvalid(
            str(repository),
            "there is no such folder; name one that is: nerve serve FOLDER, nerve infer -r FOLDER",
        )
    if not repository.is_dir():
        raise RepositoryInvalid(str(repository), "is a file, expected a folder of models")
    root = repository.resolve()
    # By the name that it is given: what a link is called stays when it is turned.
    place = repository.absolute()
    if place.name in ("", ".."):
        place = root
    folder = _scan(place, root, MAX_DEPTH, frozenset((root,)))
    if folder.problem:
        raise RepositoryInvalid(str(repository), folder.problem)
    return folder


def _scan(path: Path, root: Path, depth: int, above: frozenset[Path]) -> Folder:
    """`above` holds the real paths of this folder and of those that it lies in."""
    files: dict[str, Path] = {}
    folders: dict[str, Folder] = {}
    faults: dict[str, str] = {}
    try:
        with os.scandir(path) as listing:
            entries = sorted(listing, key=lambda each: each.name)
    except OSError as error:
        return Folder(path, problem=f"cannot be read: {error.strerror}")
    for entry in entries:
        if _IGNORED.fullmatch(entry.name):
            continue
        place = path / entry.name
        link = entry.is_symlink()
        kind = _kind(entry)
        fault = _link_fault(place, root, above) if link else ""
        if not fault and kind == "special":
            fault = f"{entry.name} is a pipe, socket or device, expected a file"
        if fault and link and depth == MAX_DEPTH and kind != "file":
            folders[entry.name] = Folder(place, problem=fault)  # listed, with its reason
        elif fault:
            faults[entry.name] = fault
        elif kind == "folder":
            if entry.name in _EXPECTED_FILES:
                faults[entry.name] = f"{entry.name} is a folder, expected a file"
            elif depth > 0:
                real = place.resolve()
                folders[entry.name] = _scan(place, root, depth - 1, above | {real})
        elif kind == "file":
            files[entry.name] = place
    return Folder(
        path, MappingProxyType(files), MappingProxyType(folders), "", MappingProxyType(faults)
    )


def _kind(entry: os.DirEntry[str]) -> str:
    """`folder`, `file`, `special`, or `nothing` for what cannot be followed; links are followed."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        return "special" if Path(entry.path).exists() else "nothing"
    except OSError:  # a loop of links
        return "nothing"


def _link_fault(link: Path, root: Path, above: frozenset[Path]) -> str:
    """Why a link may not be followed, empty if it may."""
    try:
        real = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return f"{link.name} is a link that leads nowhere"
    if real in above:
        return f"{link.name} is a link to a folder that it lies in"
    if real.is_relative_to(root):
        return ""
    return (
        f"{link.name} is a link that leads out of the repository; copy the files, or serve the "
        "folder that holds them as a repository"
    )


def is_passing(name: str) -> bool:
    """Whether a file name is one that editors and copies use for a while."""
    return bool(_PASSING.fullmatch(name))


def every_file(folder: Folder) -> Iterator[Path]:
    """Every file that was listed and may be part of a model, in order."""
    for name, path in folder.files.items():
        if not name.endswith(_NEVER_READ):
            yield path
    for child in folder.folders.values():
        yield from every_file(child)


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
    if root.folders.keys() <= {"onnx"}:  # its graph is gone, or still to come
        return side_files
    return side_files and (_has_graph(root) or any(map(version_number, root.folders)))


def read_model(folder: Folder) -> ModelFiles:
    """One model folder."""
    # a name that is no UTF-8 must still be one that can be listed
    name = os.fsencode(folder.path.name).decode("utf-8", "backslashreplace")
    own, config = _own_config(folder)
    versions: dict[int, VersionFiles] = {}
    warnings = []
    problem = own or folder.problem
    if not NAME_PATTERN.fullmatch(name):
        problem = (
            f"{name!r} cannot be a model name: letters, digits, '.', '_' and '-' only, "
            "starting with a letter or digit, at most 128"
        )
    for child_name, child in folder.folders.items():
        number = version_number(child_name)
        if number:
            versions[number] = _read_version(number, child, folder)
        elif re.fullmatch(r"[-+]?\d+([.,_]\d*)?", child_name):
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
    everything = tuple(every_file(folder))
    return ModelFiles(name, folder.path, config, versions, problem, tuple(warnings), everything)


def _no_graph(name: str, folder: Folder) -> str:
    """What to say of a folder without a graph."""
    expected = f"{name}/<version>/{MODEL_FILE}, {name}/{MODEL_FILE} or {name}/onnx/{MODEL_FILE}"
    weights = next((each for each in folder.files if each.endswith(_WEIGHTS)), None)
    if any(MODEL_FILE in place.folders for place in (folder, *_graph_places(folder))):
        return f"{MODEL_FILE} is a folder without a graph in it, expected a file"
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
    for name in (*SIDE_FILES, GOLDEN_FILE):
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
    own, config = _own_config(folder) if folder is not model else ("", None)
    if own:
        faults.append(own)
    if CHECKSUM_FILE in folder.files:
        side[CHECKSUM_FILE] = folder.files[CHECKSUM_FILE]
    golden = side.pop(GOLDEN_FILE, None)
    if faults:
        problem = "; ".join(dict.fromkeys(faults))
        return VersionFiles(number, None, side, problem, config=config, golden=golden)
    if graph is not None:
        return VersionFiles(number, graph, side, config=config, golden=golden)
    found = [path for place in places for name, path in place.files.items() if name[-5:] == ".onnx"]
    if len(found) == 1:
        return VersionFiles(number, found[0], side, config=config, golden=golden)
    problem = (
        f"several .onnx files ({', '.join(path.name for path in found)}) and none of them is "
        f"{MODEL_FILE}; rename the one to serve"
        if found
        else f"version {number} has no {MODEL_FILE}"
    )
    return VersionFiles(number, None, side, problem, config=config, golden=golden)


def _own_config(folder: Folder) -> tuple[str, Path | None]:
    """What is wrong with the config files of a folder, and the one to read."""
    configs = [folder.files[each] for each in CONFIG_FILES if each in folder.files]
    faults = [folder.faults[each] for each in CONFIG_FILES if each in folder.faults]
    if faults:  # never served without what it says
        return faults[0], None
    if len(configs) > 1:
        return f"both {' and '.join(CONFIG_FILES)} are there; remove one", None
    return "", configs[0] if configs else None
