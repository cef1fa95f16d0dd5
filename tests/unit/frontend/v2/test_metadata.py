"""Metadata of both views; which name means which; every answer fits its message."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict

import nerve
from controlled import controlled
from model_folders import write_model
from nerve._proto.inference import inference_pb2 as pb
from nerve.errors import ModelLoadFailed, ModelNotFound, ModelNotReady, VersionNotFound
from nerve.frontend.v2.metadata import look_up, model_metadata, server_metadata
from nerve.frontend.v2.views import View

TEXT = {"name": "TEXT", "datatype": "BYTES", "shape": [-1, 1]}
ENTITIES = {"name": "ENTITIES", "datatype": "BYTES", "shape": [-1, 1]}
LOGITS = {"name": "logits", "datatype": "FP32", "shape": [-1, -1, 2]}


def ids(name: str) -> dict[str, object]:
    return {"name": name, "datatype": "INT64", "shape": [-1, -1]}


def test_the_servers_metadata() -> None:
    """What is not served is not listed; perf_analyzer asks for statistics where they are."""
    told = server_metadata()
    message = ParseDict(told, pb.ServerMetadataResponse())
    assert (message.name, message.version) == ("nerve", nerve.__version__)
    assert "statistics" in message.extensions
    assert not {"trace", "sequence", "classification", "cuda_shared_memory"} & {*message.extensions}
    told["extensions"] = []
    assert server_metadata()["extensions"]


async def test_the_text_view(tmp_path: Path) -> None:
    write_model(tmp_path / "a", "version_policy: all", v1="x", v10="y", v2="bad")
    broken: dict[str, Exception] = {"bad": ModelLoadFailed("broken")}
    async with controlled(tmp_path, failures=broken, load_model=["*"]) as made:
        told = model_metadata(made.control, "a")
        assert told == {
            "name": "a",
            "versions": ["1", "10"],
            "platform": "onnxruntime_onnx",
            "inputs": [TEXT],
            "outputs": [ENTITIES],
        }
        assert ParseDict(told, pb.ModelMetadataResponse()).inputs[0].shape == [-1, 1]
        assert model_metadata(made.control, "a", "1") == {**told, "versions": ["1"]}


@pytest.mark.parametrize("type_ids", [False, True])
async def test_the_raw_view(tmp_path: Path, type_ids: bool) -> None:
    """token_type_ids only where the graph takes them."""
    write_model(tmp_path / "a", v3="x")
    async with controlled(tmp_path, load_model=["*"]) as made:
        made.model("x").change_info(type_ids=type_ids)
        told = model_metadata(made.control, "a.raw")
        assert (told["name"], told["versions"]) == ("a.raw", ["3"])
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if type_ids else [])]
        assert told["inputs"] == [ids(name) for name in names]
        assert told["outputs"] == [LOGITS]
        assert ParseDict(told, pb.ModelMetadataResponse()).outputs[0].shape == [-1, -1, 2]


async def test_a_model_with_the_name_of_a_view_is_itself(tmp_path: Path) -> None:
    for name in ("a", "a.raw"):
        write_model(tmp_path / name, v1=name)
    async with controlled(tmp_path, load_model=["*"]) as made:
        for name, view, model in [
            ("a", View.TEXT, "a"),
            ("a.raw", View.TEXT, "a.raw"),
            ("a.raw.raw", View.RAW, "a.raw"),
        ]:
            found, served = look_up(made.control, name)
            assert (found, served.info.name) == (view, model)


async def test_what_does_not_answer_says_why(tmp_path: Path) -> None:
    """Under either name."""
    write_model(tmp_path / "a", v1="bad")
    write_model(tmp_path / "b", v1="x")
    broken: dict[str, Exception] = {"bad": ModelLoadFailed("broken")}
    async with controlled(tmp_path, failures=broken, load_model=["*"]) as made:
        for suffix in ("", ".raw"):
            for kind, name, version in [
                (ModelNotReady, "a", ""),
                (ModelNotReady, "a", "1"),
                (VersionNotFound, "b", "2"),
                (VersionNotFound, "b", "x"),
                (ModelNotFound, "c", ""),
            ]:
                with pytest.raises(kind):
                    model_metadata(made.control, f"{name}{suffix}", version)
        made.control.served("b", None)
        await made.control.unload("b")
        with pytest.raises(ModelNotReady):
            model_metadata(made.control, "b")
