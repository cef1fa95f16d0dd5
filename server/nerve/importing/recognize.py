"""What a source is, told by its content, and the plan of it."""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from nerve.config.model import ModelConfig
from nerve.config.problems import parse_yaml
from nerve.errors import ConfigInvalid, RepositoryInvalid
from nerve.importing import encoderfile, truss
from nerve.importing.export_folder import is_file, is_folder
from nerve.importing.model_folder import own_config, versions_of
from nerve.importing.plan import ImportFailed, ImportPlan, folder_name, name_fault
from nerve.importing.source import Wishes, read_text
from nerve.importing.triton import CONFIG, read_triton
from nerve.repository.files import told
from nerve.repository.layout import read_models, scan, version_number

KINDS: Final = (
    "an Encoderfile build file, a Truss config.yaml with trt_llm, a Triton model folder or its "
    "config.pbtxt, a folder that `optimum-cli export onnx` made, a model folder of Nerve's, or a built "
    ".encoderfile"
)
_YAML: Final = (".yaml", ".yml")
_TRUSS: Final = ("config.yaml", "config.yml")


class Recognized(NamedTuple):
    """What a source is in words, and what it comes to."""

    kind: str
    plan: ImportPlan


def recognize(source: Path, wishes: Wishes) -> Recognized:
    """Read a source, whatever it is.

    Args:
        source: a file or folder.
        wishes: what was said beside it; `name` wins over every other.
    Raises:
        ConfigInvalid: with every problem of the source's config file.
        ImportFailed: it is nothing that can be brought in; says what could be.
    """
    if is_folder(source):
        found = _folder(source, wishes)
    elif is_file(source):
        found = _file(source, wishes)
    else:
        raise ImportFailed(f"{source} {_what_else(source)}; expected {KINDS}")
    plan = found.plan
    if wishes.name is not None:
        plan = replace(plan, name=wishes.name)
    if fault := name_fault(plan.name):
        raise ImportFailed(f"{fault}; add --name NAME")
    return Recognized(found.kind, plan)


def _what_else(source: Path) -> str:
    """What that is which is neither file nor folder."""
    try:
        mode = source.stat().st_mode
    except FileNotFoundError:
        leads = "is a link that leads nowhere"
        return leads if source.is_symlink() else "is not there: there is no such file or folder"
    except (OSError, ValueError) as error:
        looping = isinstance(error, OSError) and error.errno == errno.ELOOP
        return "is a link that leads to itself" if looping else f"cannot be read: {told(error)}"
    kinds = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return f"is a {kinds.get(stat.S_IFMT(mode), 'device')}, expected a file or folder"


def _file(path: Path, wishes: Wishes) -> Recognized:
    suffix = path.suffix.lower()
    if suffix == ".pbtxt":
        return Recognized("Triton model", read_triton(path.parent, wishes))
    if suffix in _YAML or _has_known_key(path):
        return _yaml(path, wishes)
    if suffix == ".onnx":
        raise ImportFailed(f"{path} is a graph alone; name the folder that has its tokenizer.json")
    raise ImportFailed(f"{path} is not known; expected {KINDS}")


def _has_known_key(path: Path) -> bool:
    """Whether a file is a config of another tool, whatever its name."""
    try:
        value, _ = parse_yaml(read_text(path), source=str(path))
    except ConfigInvalid:  # a graph, for example
        return False
    return encoderfile.ROOT in value or truss.ROOT in value


def _yaml(path: Path, wishes: Wishes) -> Recognized:
    value, lines = parse_yaml(read_text(path), source=str(path))
    if encoderfile.ROOT in value:
        config = encoderfile.checked(value, lines, path=path, directory=wishes.directory)
        return Recognized("Encoderfile build file", encoderfile.plan_of(config))
    if truss.ROOT in value:
        return Recognized("Truss config", truss.read_truss(value, lines, path=path, wishes=wishes))
    if truss.PYTHON_KEYS & value.keys():
        raise ImportFailed(
            f"{path} is a Truss config without trt_llm: its model is Python code, which is not run "
            "here; export the checkpoint with `nerve export` and import that folder"
        )
    if value and value.keys() <= ModelConfig.model_fields.keys():
        raise ImportFailed(
            f"{path} is the config of a model folder; name the folder: {path.parent}"
        )
    raise ImportFailed(
        f"{path} has neither {encoderfile.ROOT}: nor {truss.ROOT}:; expected {KINDS}"
    )


def _folder(folder: Path, wishes: Wishes) -> Recognized:
    if is_file(folder / CONFIG):
        return Recognized("Triton model", read_triton(folder, wishes))
    config = own_config(folder)
    if config is not None:
        value, lines = parse_yaml(read_text(config), source=str(config))
        if {truss.ROOT, encoderfile.ROOT, *truss.PYTHON_KEYS} & value.keys():
            return _yaml(config, wishes)
        return Recognized("model folder", _nerve(folder, config, value, lines, wishes))
    _refuse_several(folder)
    found = versions_of(folder, checkpoint=wishes.checkpoint)
    plan = ImportPlan(
        name=wishes.name or _name_of(folder),
        files=found.files,
        texts=found.texts,
        notes=found.notes,
    )
    return Recognized("export folder" if "1/model.onnx" in found.files else "model folder", plan)


def _nerve(
    folder: Path,
    config: Path,
    value: Mapping[str, object],
    lines: Mapping[tuple[int | str, ...], int],
    wishes: Wishes,
) -> ImportPlan:
    """A model folder with a config.yaml of ours, which is taken as it was written."""
    found = versions_of(folder, checkpoint=wishes.checkpoint)
    stated = value.get("name")
    name = wishes.name or (stated if isinstance(stated, str) else _name_of(folder))
    text = config.read_text(encoding="utf-8")
    if isinstance(stated, str) and stated != name:
        text = _renamed(text, lines.get(("name",), 0), name, config)
    scripts = {path.name: path for path in sorted(folder.glob("*.lua")) if is_file(path)}
    own = f"{config.name} of "  # of an export it would not be taken
    return ImportPlan(
        name=name,
        files={**scripts, **found.files},
        texts={**found.texts, config.name: text},
        notes=tuple(note for note in found.notes if not note.startswith(own)),
    )


def _renamed(text: str, line: int, name: str, config: Path) -> str:
    """A config.yaml that states another name, and is otherwise as its author wrote it."""
    lines = text.splitlines(keepends=True)
    stated = lines[line - 1] if 0 < line <= len(lines) else ""
    changed = re.sub(r"^(name\s*:\s*)[^#\s][^#\n]*?(\s*(?:#.*)?)$", rf"\g<1>{name}\g<2>", stated)
    after = "".join([*lines[: max(line - 1, 0)], changed, *lines[line:]])
    try:
        value, _ = parse_yaml(after, source=str(config))
    except ConfigInvalid:
        value = {}
    if value.get("name") != name:
        raise ImportFailed(f"{config} states another name in a way that hides it; change it there")
    return after


def _refuse_several(folder: Path) -> None:
    """A repository is many models: each is imported by itself."""
    try:
        models = read_models(scan(folder))
    except RepositoryInvalid as error:
        raise ImportFailed(str(error)) from error
    inner = [
        model.path for model in models if model.versions and model.path.parent.samefile(folder)
    ]
    if any(map(version_number, (path.name for path in inner))):
        return
    if inner and not any(model.path.samefile(folder) for model in models):
        names = "\n".join(f"  nerve import {path}" for path in inner[:20])
        raise ImportFailed(f"{folder} is a repository; import its models one by one:\n{names}")


def _name_of(folder: Path) -> str:
    """Of a version, that of the model; of a snapshot in the cache of the hub, not its hash."""
    place = folder.resolve()
    own = place.name
    if version_number(own) or own == "onnx":
        return _name_of(place.parent)
    if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
        own = place.parent.parent.name.rpartition("--")[2]
    name = folder_name(own)
    if not name:
        raise ImportFailed(f"{own!r:.150} has no name that a model can have; add --name NAME")
    return name
