"""A planned model as the contents of a built file, and back: what its files and artifacts mean.

Everything is in there twice over: as the folder that a repository of Nerve has, which a built
program serves, and in Encoderfile's own terms, for its tools; the graph of both is the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

import orjson

from nerve._proto.encoderfile import manifest_pb2 as pb
from nerve._proto.encoderfile.metadata_pb2 import TOKEN_CLASSIFICATION, ModelType
from nerve.building.faults import BuildFailed, BuiltFileInvalid
from nerve.building.payload import Blob, BuiltFile, Packing
from nerve.importing.config_text import config_text
from nerve.importing.plan import SCRIPT, VERSION_FOLDER, ImportPlan, name_fault

LUA_LIBS: Final = (
    "coroutine", "table", "io", "os", "string", "utf8", "math", "package", "debug",
)  # fmt: skip
"""In the order in which Encoderfile's `inspect` tells them."""
_MODEL_KEYS: Final = ("model_type", "num_labels", "id2label", "label2id")
_IMAGE_KEYS: Final = ("height", "width", "image_size", "num_channels")
_CONFIG: Final = "config.yaml"


def pack(plan: ImportPlan, *, max_tokens: int) -> Packing:
    """What goes into a file for this plan, which has been validated.

    Args:
        plan: of the model.
        max_tokens: longest row, special tokens counted.
    Raises:
        BuildFailed: a file cannot be read any more.
    """
    packing = Packing()
    found = packing.manifest
    found.model_type, found.name, found.version = TOKEN_CLASSIFICATION, plan.name, plan.version
    blobs = {place: Blob.of(path) for place, path in sorted(plan.files.items())}
    blobs |= {place: Blob.of(text.encode()) for place, text in sorted(plan.texts.items())}
    blobs[_CONFIG] = Blob.of(config_text(plan.config, plan.head).encode())
    config = _json_of(plan, "config.json")
    packing.put(found.model_config, Blob.of(orjson.dumps(model_config(config))))
    tokenizer = tokenizer_document(
        _json_of(plan, "tokenizer.json"),
        _json_of(plan, "tokenizer_config.json"),
        max_tokens=max_tokens,
        side=_truncation_side(plan.config),
    )
    packing.put(found.tokenizer, Blob.of(orjson.dumps(tokenizer)))
    if SCRIPT in plan.texts:
        script = pb.Transform(transform_type=pb.LUA, transform=plan.texts[SCRIPT].strip())
        if (libs := plan.config.get("lua_libs")) is not None:
            script.lua_libs.SetInParent()
            script.lua_libs.libs.extend(map(str, _listed(libs)))
        packing.put(found.transform, Blob.of(script.SerializeToString()))
    packing.put(found.weights, blobs[f"{VERSION_FOLDER}/model.onnx"])
    for place, blob in blobs.items():
        file = found.nerve_folder.files.add(place=place)
        packing.put(file.content, blob)
    return packing


def unpack(built: BuiltFile, repository: Path) -> Path:
    """Write the model's folder into a folder of models. Returns it.

    Raises:
        BuiltFileInvalid: there is none in the file, or it is damaged.
        OSError: it cannot be written.
    """
    if not built.manifest.nerve_folder.files:
        detail = "was not built by `nerve build`; there is no model folder of Nerve in it"
        raise BuiltFileInvalid(str(built.path), detail)
    name = built.manifest.name
    if fault := name_fault(name):
        raise BuiltFileInvalid(str(built.path), fault)
    folder = repository / name
    for file in built.manifest.nerve_folder.files:
        parts = PurePosixPath(file.place)
        if parts.is_absolute() or ".." in parts.parts:
            raise BuiltFileInvalid(str(built.path), f"{file.place!r} is no place in a folder")
        place = folder / parts
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as target:
            built.copy(file.content, target)
    return folder


def inspected(built: BuiltFile) -> dict[str, Any]:
    """What `inspect` prints of a file, in the shape of Encoderfile's own.

    Raises:
        BuiltFileInvalid: it is damaged.
    """
    found = built.manifest
    try:
        config, script = {}, pb.Transform()
        if found.HasField("model_config"):
            config = orjson.loads(built.content(found.model_config))
        if found.HasField("transform"):
            script.ParseFromString(built.content(found.transform))
    except ValueError as error:  # DecodeError is one
        raise BuiltFileInvalid(str(built.path), f"is damaged: {error}") from None
    if not isinstance(config, dict):
        detail = "is damaged: its model config is no JSON object"
        raise BuiltFileInvalid(str(built.path), detail)
    libs = set(script.lua_libs.libs) if script.HasField("lua_libs") else None
    kind = found.model_type
    return {
        "model_config": {key: config.get(key) for key in (*_MODEL_KEYS, *_IMAGE_KEYS)},
        "encoderfile_config": {
            "name": found.name,
            "version": found.version,
            "model_type": ModelType.Name(kind).lower() if kind in ModelType.values() else kind,
            "transform": script.transform or None,
            "lua_libs": None if libs is None else {name: name in libs for name in LUA_LIBS},
        },
    }


def model_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config.json that Encoderfile keeps. Pure."""
    return {key: config.get(key) for key in _MODEL_KEYS}


def tokenizer_document(
    tokenizer: Mapping[str, Any], config: Mapping[str, Any], *, max_tokens: int, side: str | None
) -> dict[str, Any]:
    """Encoderfile's form of a tokenizer: tokenizer.json, padding and truncation filled in. Pure.

    Args:
        tokenizer, config: tokenizer.json and tokenizer_config.json.
        max_tokens: longest row.
        side: where too long texts are cut, if not where `config` says.
    """
    pad = config.get("pad_token") or "[PAD]"
    pad = pad.get("content", "[PAD]") if isinstance(pad, dict) else str(pad)
    multiple = config.get("pad_to_multiple_of")
    padding = {
        "strategy": "BatchLongest",
        "direction": str(config.get("padding_side") or "right").capitalize(),
        "pad_to_multiple_of": multiple if isinstance(multiple, int) else None,
        "pad_id": _token_id(tokenizer, pad),
        "pad_type_id": config.get("pad_token_type_id") or 0,
        "pad_token": pad,
    }
    truncation = {
        "direction": str(side or config.get("truncation_side") or "right").capitalize(),
        "max_length": max_tokens,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    filled = {**tokenizer, "truncation": truncation, "padding": padding}
    return {"tokenizer": filled, "config": {"padding": padding, "truncation": truncation}}


def _token_id(tokenizer: Mapping[str, Any], token: str) -> int:
    """By the vocabulary, in any of the library's forms; 0 for one that is not in it."""
    for added in tokenizer.get("added_tokens") or ():
        if added.get("content") == token:
            return int(added["id"])
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    if isinstance(vocabulary, dict):
        return int(vocabulary.get(token, 0))
    pieces = enumerate(vocabulary or ())  # Unigram: pairs of piece and score
    return next((number for number, piece in pieces if piece[0] == token), 0)


def _truncation_side(config: Mapping[str, object]) -> str | None:
    options = config.get("tokenizer")
    side = options.get("truncation_side") if isinstance(options, dict) else None
    return None if side is None else str(side)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _json_of(plan: ImportPlan, name: str) -> dict[str, Any]:
    path = plan.files.get(f"{VERSION_FOLDER}/{name}")
    if path is None:
        return {}
    try:
        # the stdlib's, as a tokenizer's may hold numbers of more than 64 bits
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BuildFailed(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise BuildFailed(f"{path} must hold a JSON object, and holds something else")
    return value
