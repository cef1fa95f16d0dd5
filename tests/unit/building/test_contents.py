"""What is in a built file: the model's folder, and the same in Encoderfile's terms."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from nerve._proto.encoderfile import manifest_pb2 as pb
from nerve._proto.encoderfile.metadata_pb2 import EMBEDDING
from nerve.building.contents import inspected, model_config, pack, tokenizer_document, unpack
from nerve.building.faults import BuiltFileInvalid
from nerve.building.payload import Blob, BuiltFile, Packing, footer, read_built_file
from nerve.config.model import load_model_config
from nerve.importing.plan import ImportPlan

FAMILIES = ("bert", "deberta-v2", "distilbert", "roberta", "xlm-roberta")


def built(packing: Packing, path: Path) -> BuiltFile:
    target = io.BytesIO()
    length = packing.write(target)
    path.write_bytes(target.getvalue() + footer(0, length))
    return read_built_file(path)


def test_the_folder_comes_back(plan: ImportPlan, tmp_path: Path) -> None:
    file = built(pack(plan, max_tokens=64), tmp_path / "x")
    folder = unpack(file, tmp_path / "models")
    assert folder == tmp_path / "models" / "ner-tagger"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == {*plan.files, "transform.lua", "config.yaml"}
    for place, source in plan.files.items():
        assert (folder / place).read_bytes() == source.read_bytes()
    config = load_model_config(folder / "config.yaml", name="ner-tagger")
    assert config.transform is not None
    assert "softmax(3)" in config.transform.text
    assert config.lua_libs == ["math"]
    # the graph, by far the largest, is in there once
    size_bytes = (tmp_path / "x").stat().st_size
    assert size_bytes < 1.5 * plan.files["1/model.onnx"].stat().st_size


def test_inspect_has_the_shape_of_encoderfiles(plan: ImportPlan, tmp_path: Path) -> None:
    file = built(pack(plan, max_tokens=64), tmp_path / "x")
    source = json.loads(plan.files["1/config.json"].read_bytes())
    assert inspected(file) == {
        "model_config": {
            "model_type": "bert",
            "num_labels": source.get("num_labels"),
            "id2label": source["id2label"],
            "label2id": source["label2id"],
            "height": None,
            "width": None,
            "image_size": None,
            "num_channels": None,
        },
        "encoderfile_config": {
            "name": "ner-tagger",
            "version": "2.0",
            "model_type": "token_classification",
            "transform": "function Postprocess(arr) return arr:softmax(3) end",
            "lua_libs": {
                "coroutine": False, "table": False, "io": False, "os": False, "string": False,
                "utf8": False, "math": True, "package": False, "debug": False,
            },
        },
    }  # fmt: skip


def test_a_file_of_encoderfiles_own_is_inspected_but_not_unpacked(tmp_path: Path) -> None:
    """One of another model type, even; without a transform, and without what we add."""
    packing = Packing()
    packing.manifest.model_type, packing.manifest.name = EMBEDDING, "e"
    packing.put(packing.manifest.model_config, Blob.of(b'{"model_type": "bert"}'))
    file = built(packing, tmp_path / "x")
    assert inspected(file)["encoderfile_config"] == {
        "name": "e", "version": "", "model_type": "embedding", "transform": None, "lua_libs": None,
    }  # fmt: skip
    with pytest.raises(BuiltFileInvalid, match="was not built by `nerve build`"):
        unpack(file, tmp_path / "models")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_model_config_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    packing = Packing()
    packing.put(packing.manifest.model_config, Blob.of(content))
    with pytest.raises(BuiltFileInvalid, match="damaged"):
        inspected(built(packing, tmp_path / "x"))


@pytest.mark.parametrize("place", ["/etc/passwd", "../../x", "a/../../x"])
def test_nothing_is_written_outside_of_the_folder(place: str, tmp_path: Path) -> None:
    packing = Packing()
    packing.manifest.name = "m"
    packing.put(packing.manifest.nerve_folder.files.add(place=place).content, Blob.of(b"x"))
    with pytest.raises(BuiltFileInvalid, match="is no place in a folder"):
        unpack(built(packing, tmp_path / "x"), tmp_path / "models")


@pytest.mark.parametrize("name", ["..", "a/b", "", "."])
def test_nor_by_the_name_of_the_model(name: str, tmp_path: Path) -> None:
    packing = Packing()
    packing.manifest.name = name
    packing.put(packing.manifest.nerve_folder.files.add(place="f").content, Blob.of(b"x"))
    with pytest.raises(BuiltFileInvalid, match="cannot be a model's name"):
        unpack(built(packing, tmp_path / "x"), tmp_path / "models")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokenizer_is_one_that_the_library_reads(family: str, tiny_models: Path) -> None:
    """Whatever the form of its vocabulary: the pad token is found, and texts are cut and padded."""
    folder = tiny_models / family
    tokenizer: dict[str, Any] = json.loads((folder / "tokenizer.json").read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    document = tokenizer_document(tokenizer, config, max_tokens=8, side=None)
    read = Tokenizer.from_str(json.dumps(document["tokenizer"]))
    assert read.padding is not None
    assert document["config"]["padding"]["pad_id"] == read.token_to_id(read.padding["pad_token"])
    short, long = read.encode_batch(["a", "Ada Lovelace lived in London " * 9])
    assert len(short.ids) == len(long.ids) == 8
    assert short.attention_mask.count(0) > 0


def test_what_the_tokenizers_config_says_counts() -> None:
    document = tokenizer_document(
        {"model": {"vocab": [["<unk>", 0.0], ["<pad>", 0.0]]}},
        {"pad_token": {"content": "<pad>"}, "padding_side": "left", "pad_to_multiple_of": 8},
        max_tokens=5,
        side="left",
    )
    assert document["config"] == {
        "padding": {
            "strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": 8,
            "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>",
        },
        "truncation": {
            "direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0,
        },
    }  # fmt: skip
    assert document["tokenizer"]["padding"] == document["config"]["padding"]


def test_a_script_without_libs_keeps_the_default_ones(plan: ImportPlan) -> None:
    config = {key: value for key, value in plan.config.items() if key != "lua_libs"}
    packing = pack(ImportPlan(plan.name, plan.files, config, texts=plan.texts), max_tokens=8)
    script = pb.Transform()
    (content,) = (
        blob.source for blob in packing.blobs if blob.sha256 == packing.manifest.transform.sha256
    )
    script.ParseFromString(content)  # type: ignore[arg-type]
    assert not script.HasField("lua_libs")


def test_only_four_keys_of_config_json_are_kept() -> None:
    assert model_config({"model_type": "bert", "hidden_size": 8, "id2label": {"0": "O"}}) == {
        "model_type": "bert", "num_labels": None, "id2label": {"0": "O"}, "label2id": None,
    }  # fmt: skip
