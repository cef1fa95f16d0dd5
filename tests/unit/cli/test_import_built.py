"""Built files as the source of an import: those of ours, and those of Encoderfile, which hold less."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nerve._proto.encoderfile import manifest_pb2 as pb
from nerve._proto.encoderfile.metadata_pb2 import EMBEDDING
from nerve.building.contents import pack
from nerve.building.faults import BuiltFileInvalid
from nerve.building.payload import Packing, footer
from nerve.cli.built_source import is_built, taken_apart
from nerve.config.model import load_model_config
from nerve.importing.encoderfile import plan_of, read_build_config
from nerve.importing.install import install
from nerve.importing.plan import ImportFailed
from nerve.importing.source import Wishes

SCRIPT = "function Postprocess(arr) return arr:softmax(3) end"


@pytest.fixture
def packing(tmp_path: Path, tiny_models: Path) -> Packing:
    """What `nerve build` packs."""
    path = tmp_path / "ner.yml"
    path.write_text(
        "encoderfile:\n  name: ner-tagger\n  version: '2.0'\n"
        f"  path: {tiny_models / 'bert'}\n  model_type: token_classification\n"
        f"  transform: {SCRIPT}\n  lua_libs: [math]\n"
    )
    return pack(plan_of(read_build_config(path), building=True), max_tokens=64)


def write(packing: Packing, path: Path) -> Path:
    """A built file: a program, the contents, and the end that says where they begin."""
    with path.open("wb") as file:
        start = file.write(b"#!/bin/sh\n" + bytes(100))
        length = packing.write(file)
        file.write(footer(start, length))
    return path


@pytest.mark.parametrize("ours", [True, False])
def test_a_built_file_is_taken_apart(
    packing: Packing, tmp_path: Path, tiny_models: Path, ours: bool
) -> None:
    if not ours:
        packing.manifest.ClearField("nerve_folder")
    path = write(packing, tmp_path / "x.encoderfile")
    assert is_built(path)
    with taken_apart(path, Wishes(name="other")) as (kind, plan):
        assert (kind, plan.name) == ("built file", "other")
        folder = install(plan, tmp_path / "models", replace=False)
    config = load_model_config(folder / "config.yaml", name="other")
    assert config.transform is not None
    assert (config.transform.text, config.lua_libs) == (SCRIPT, ["math"])
    assert "2.0" in (folder / "config.yaml").read_text().splitlines()[0]
    export = tiny_models / "bert"
    assert (folder / "1/model.onnx").read_bytes() == (export / "model.onnx").read_bytes()
    labels = json.loads((export / "config.json").read_text())["id2label"]
    assert json.loads((folder / "1/config.json").read_text())["id2label"] == labels
    if not ours:
        stated = json.loads((folder / "1/tokenizer_config.json").read_text())
        assert stated == {"model_max_length": 64, "truncation_side": "right"}


def test_files_that_cannot_be_taken(packing: Packing, tmp_path: Path) -> None:
    path = write(packing, tmp_path / "x.encoderfile")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BuiltFileInvalid, match="is damaged"), taken_apart(path, Wishes()):
        pass
    manifest = pb.EncoderfileManifest(model_type=EMBEDDING, name="x")
    empty = Packing()
    empty.manifest.CopyFrom(manifest)
    with (
        pytest.raises(ImportFailed, match="embedding models are not served here"),
        taken_apart(write(empty, tmp_path / "y"), Wishes()),
    ):
        pass
    assert not is_built(tmp_path / "ner.yml")
    assert not is_built(tmp_path / "nope")
