"""Model folders for tests that load nothing: graphs that are valid ONNX and hold a word."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

DATA = "model.onnx.data"
DATA_BYTES = 64


def graph_bytes(word: str, *, external: bool = False) -> bytes:
    """An ONNX graph; with `external`, one whose weights are the `DATA_BYTES` of `DATA`."""
    weights = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[DATA_BYTES // 4])
    if external:
        weights.data_location = TensorProto.EXTERNAL
        for key, value in (("location", DATA), ("offset", "0"), ("length", str(DATA_BYTES))):
            weights.external_data.add(key=key, value=value)
    else:
        weights.raw_data = bytes(DATA_BYTES)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["weights"], ["logits"])],
        "words",
        [],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [DATA_BYTES // 4])],
        [weights],
    )
    graph.doc_string = word
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def word_of(graph: Path) -> str:
    """The word of a graph."""
    return onnx.load_model_from_string(graph.read_bytes()).graph.doc_string


def write_model(folder: Path, config: str = "", **versions: str) -> Path:
    """A model folder: `config.yaml`, and words by version: `v1="x", v2="y"`.

    Each file comes into place whole, by a rename.
    """
    for version, word in versions.items():
        place(folder / version.removeprefix("v") / "model.onnx", graph_bytes(word))
    if config:
        place(folder / "config.yaml", config.encode())
    return folder


def place(path: Path, content: bytes) -> None:
    """Write a file beside its place, then move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    aside.write_bytes(content)
    aside.replace(path)
