"""A built file, of `nerve build` or of Encoderfile, as the source of an import.

Here and not in `nerve.importing`, which `nerve.building` builds on.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from nerve._proto.encoderfile import manifest_pb2 as pb
from nerve._proto.encoderfile.metadata_pb2 import TOKEN_CLASSIFICATION, ModelType
from nerve.building.contents import unpack
from nerve.building.faults import BuiltFileInvalid
from nerve.building.payload import FOOTER, MAGIC, BuiltFile, read_built_file
from nerve.importing.encoderfile_keys import MODEL_TYPE
from nerve.importing.plan import SCRIPT, VERSION_FOLDER, ImportFailed, ImportPlan, name_fault
from nerve.importing.recognize import Recognized, recognize
from nerve.importing.source import Wishes

KIND: Final = "built file"
ENDING: Final = ".encoderfile"
"""What has this name and does not end as a built file was cut short."""
_NO_LIMIT: Final = 1 << 24
"""Larger lengths stand for none."""


def is_built(path: Path) -> bool:
    """Whether a file ends as a built one does."""
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
            file.seek(max(0, size_bytes - FOOTER.size))
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


@contextmanager
def taken_apart(path: Path, wishes: Wishes) -> Iterator[Recognized]:
    """What a built file comes to; the files of the plan are there until the end of the block.

    Raises:
        BuiltFileInvalid: it is damaged.
        ImportFailed: it is for another kind of model, or has no name that a model can have.
    """
    built = read_built_file(path)
    built.check()
    found = built.manifest
    if found.model_type != TOKEN_CLASSIFICATION:
        kind = found.model_type
        named = ModelType.Name(kind).lower() if kind in ModelType.values() else str(kind)
        raise ImportFailed(f"{path}: {named} models are not served here, only {MODEL_TYPE}")
    name = wishes.name or found.name
    if fault := name_fault(name):
        raise ImportFailed(f"{path}: {fault}; add --name NAME")
    with tempfile.TemporaryDirectory(prefix="nerve-import-") as folder:
        if name_fault(found.name):  # it would be a folder's name
            built.manifest.name = name
        if found.nerve_folder.files:
            yield recognize(unpack(built, Path(folder)), Wishes(name=name))._replace(kind=KIND)
        else:
            yield Recognized(KIND, _plan(built, Path(folder), name))


def _plan(built: BuiltFile, folder: Path, name: str) -> ImportPlan:
    """Of a file that Encoderfile has made; it holds less than an export folder does."""
    found = built.manifest
    weights = folder / "model.onnx"
    with weights.open("wb") as target:
        built.copy(found.weights, target)
    tokenizer = _json(built, found.tokenizer, "tokenizer")
    settings: Mapping[str, Any] = tokenizer.get("config") or {}
    padding, truncation = settings.get("padding") or {}, settings.get("truncation") or {}
    model = _json(built, found.model_config, "model config")
    length = truncation.get("max_length")
    side = str(truncation.get("direction") or "right").lower()
    limit = {"model_max_length": length} if _is_length(length) else {}
    texts = {
        f"{VERSION_FOLDER}/config.json": _text({**model, "pad_token_id": padding.get("pad_id", 0)}),
        f"{VERSION_FOLDER}/tokenizer.json": _text(tokenizer.get("tokenizer")),
        f"{VERSION_FOLDER}/tokenizer_config.json": _text({**limit, "truncation_side": side}),
    }
    notes = [f"version {found.version} is kept as a comment in config.yaml"]
    if not limit:
        notes.append(
            "the file states no longest text: it is 512 tokens; if the model takes more, set "
            "model_max_length in tokenizer_config.json"
        )
    config: dict[str, object] = {}
    if found.HasField("transform"):
        script = pb.Transform.FromString(built.content(found.transform))
        if script.transform.strip():
            texts[SCRIPT] = script.transform
            config["transform"] = {"path": SCRIPT}
            if script.HasField("lua_libs"):
                config["lua_libs"] = list(script.lua_libs.libs)
    return ImportPlan(
        name=name,
        files={f"{VERSION_FOLDER}/model.onnx": weights},
        config=config,
        notes=tuple(notes),
        texts=texts,
        version=found.version,
        head=(f"{found.name} {found.version}, from {built.path.name} (Encoderfile)",),
    )


def _is_length(value: object) -> bool:
    return isinstance(value, int) and 0 < value < _NO_LIMIT


def _json(built: BuiltFile, artifact: pb.Artifact, what: str) -> dict[str, Any]:
    try:
        # the stdlib's, as a tokenizer's may hold numbers of more than 64 bits
        value = json.loads(built.content(artifact))
    except ValueError as error:
        raise BuiltFileInvalid(str(built.path), f"is damaged: its {what} is no JSON") from error
    if not isinstance(value, dict):
        raise BuiltFileInvalid(str(built.path), f"is damaged: its {what} is no JSON object")
    return value


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
