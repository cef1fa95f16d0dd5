"""What of an export folder a load needs: its graph with the data beside it, and the side files.

Unlike in a repository, links are followed wherever they lead: the files are going to be copied, and
in the cache of the Hugging Face hub everything is a link.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from nerve.repository.fingerprint import Digests, with_external
from nerve.repository.layout import CONFIG_FILES, GOLDEN_FILE, MODEL_FILE, SIDE_FILES
from nerve.types import VersionFiles

NEEDED: Final = ("config.json", "tokenizer.json")
"""Side files without which an export is not whole. A server may do without config.json if
config.yaml names the labels, but what comes out of an exporter has it."""
WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".h5", ".msgpack")
"""Endings of models that are not exported yet."""
_GRAPH_FOLDERS: Final = (".", "onnx")


@dataclass(frozen=True)
class Export:
    """Files by their place in a version's folder, and everything that is wrong with them."""

    files: Mapping[str, Path] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_export(folder: Path, *, graph: str = "") -> Export:
    """A folder with model.onnx, or the hub's with onnx/model.onnx. Raises nothing.

    Args:
        folder: the export.
        graph: the graph's file name, if it was stated and is not model.onnx.
    """
    found, problems = _stated(folder, graph) if graph not in ("", MODEL_FILE) else _graph(folder)
    return _export(folder, found, problems)


def _export(folder: Path, graph: Path | None, problems: list[str]) -> Export:
    side: dict[str, Path] = {}
    for name in (*SIDE_FILES, GOLDEN_FILE):
        holders = (graph.parent, folder) if graph is not None else (folder,)
        found = next((each / name for each in holders if is_file(each / name)), None)
        if found is not None:
            side[name] = found
        elif name in NEEDED:
            problems.append(f"{name} is not in {folder}")
    notes = []
    if "tokenizer_config.json" not in side:
        notes.append(
            "tokenizer_config.json is not there: the longest text is what config.json allows, and "
            "the right end of a longer one is cut off"
        )
    notes += [
        f"{name} of {folder} is not taken: it is the config of a model folder, not of an export"
        for name in CONFIG_FILES
        if is_file(folder / name)
    ]
    if graph is None:
        return Export(side, tuple(problems), tuple(notes))
    whole = gathered(graph, side)
    return Export(whole.files, (*problems, *whole.problems), tuple(notes))


def gathered(graph: Path, side: Mapping[str, Path]) -> Export:
    """A graph, wherever it is and whatever its name, with its data files and the side files."""
    version = with_external(VersionFiles(1, graph, dict(side)), Digests())
    data = {PurePosixPath(place).as_posix(): path for place, path in version.external.items()}
    files = {**data, **side, MODEL_FILE: graph}
    return Export(files, (version.problem,) if version.problem else ())


def is_file(path: Path) -> bool:
    """Whether there is a file; a name that cannot be one means no."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder; a name that cannot be one means no."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _stated(folder: Path, name: str) -> tuple[Path | None, list[str]]:
    if Path(name).name == name and is_file(folder / name):
        return folder / name, []
    return None, [f"{name!r:.150}, the stated graph, is not in {folder}"]


def _graph(folder: Path) -> tuple[Path | None, list[str]]:
    """The graph to take, as a repository would; and why there is none."""
    named = [folder / place / MODEL_FILE for place in _GRAPH_FOLDERS]
    if (graph := next(filter(is_file, named), None)) is not None:
        return graph, []
    found = [
        path
        for place in _GRAPH_FOLDERS
        if is_folder(folder / place)
        for path in sorted((folder / place).glob("*.onnx"))
        if is_file(path)
    ]
    if len(found) == 1:
        return found[0], []
    if found:
        names = ", ".join(path.relative_to(folder).as_posix() for path in found)
        return None, [f"several graphs in {folder} ({names}) and none is {MODEL_FILE}; rename one"]
    weights = next((each.name for each in sorted(folder.glob("*")) if each.suffix in WEIGHTS), None)
    if weights is not None:
        return None, [
            f"{MODEL_FILE} is not in {folder}, only {weights}; export it with "
            f"`nerve export {folder}`, and name the folder that this makes"
        ]
    return None, [
        f"{MODEL_FILE} is not in {folder}; `nerve export MODEL {folder}` makes it, or "
        f"optimum-cli export onnx --model MODEL --task token-classification {folder}"
    ]
