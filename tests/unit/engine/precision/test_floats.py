"""16-bit graphs, and back: what is computed in what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graph_runs import run
from nerve.engine.precision.floats import element_types, narrow, widen
from nerve.engine.precision.graph import ConversionError, read, write

FAMILIES = ["bert", "deberta-v2", "distilbert", "roberta", "xlm-roberta"]
ROWS = [np.random.default_rng(3).integers(5, 60, count).tolist() for count in (4, 60, 17)]


def in_fp16(graph: bytes) -> onnx.ModelProto:
    model = read(graph, {})
    assert narrow(model, TensorProto.FLOAT16)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_fp16_answers_nearly_the_same(tiny_models: Path, family: str) -> None:
    """And its file is about half as large."""
    graph = (tiny_models / family / "model.onnx").read_bytes()
    made = write(in_fp16(graph))
    for ours, theirs in zip(run(made, ROWS), run(graph, ROWS), strict=True):
        assert 0 < np.abs(ours - theirs).max() < 0.005 * np.abs(theirs).max()
    assert len(made) < 0.6 * len(graph)


def test_the_bundled_model_in_fp16(bundled: Path) -> None:
    """Whose weights are stored as int8."""
    graph = (bundled / "minilm-ner" / "1" / "model.onnx").read_bytes()
    for ours, theirs in zip(run(write(in_fp16(graph)), ROWS), run(graph, ROWS), strict=True):
        assert np.abs(ours - theirs).max() < 0.01 * np.abs(theirs).max()


@pytest.mark.parametrize("family", FAMILIES)
def test_products_are_in_16_bits_and_the_interface_is_not(tiny_models: Path, family: str) -> None:
    model = in_fp16((tiny_models / family / "model.onnx").read_bytes())
    types = element_types(model)
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert {types[name] for node in products for name in node.input} == {TensorProto.FLOAT16}
    assert types["logits"] == TensorProto.FLOAT
    assert types["input_ids"] == TensorProto.INT64


def test_positions_are_not_counted_in_16_bits(tiny_models: Path) -> None:
    """deberta takes logarithms of distances between tokens."""
    model = in_fp16((tiny_models / "deberta-v2" / "model.onnx").read_bytes())
    types = element_types(model)
    logs = [node for node in model.graph.node if node.op_type in {"Log", "Ceil"}]
    assert len(logs) == 2
    assert {types[node.output[0]] for node in logs} == {TensorProto.FLOAT}


@pytest.mark.parametrize("family", FAMILIES)
def test_fp32_of_fp16_is_fp32_throughout(tiny_models: Path, family: str) -> None:
    graph = (tiny_models / family / "model.onnx").read_bytes()
    model = in_fp16(graph)
    assert widen(model) > 0
    onnx.checker.check_model(model, full_check=True)
    assert TensorProto.FLOAT16 not in element_types(model).values()
    for ours, theirs in zip(run(write(model), ROWS), run(graph, ROWS), strict=True):
        assert np.abs(ours - theirs).max() < 0.005 * np.abs(theirs).max()


def test_nothing_to_widen(tiny_models: Path) -> None:
    model = read((tiny_models / "bert" / "model.onnx").read_bytes(), {})
    before = model.SerializeToString()
    assert widen(model) == 0
    assert model.SerializeToString() == before


def test_weights_beyond_what_16_bits_hold() -> None:
    """The largest there is takes the place of what is larger; what is tiny is not 0."""
    values = np.array([1e30, -1e30, 1e-12, -1e-12, 0, 1], dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6])],
        [numpy_helper.from_array(values, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert narrow(model, TensorProto.FLOAT16) == 1
    (weights,) = map(numpy_helper.to_array, model.graph.initializer)
    smallest = np.finfo(np.float16).smallest_subnormal
    assert weights.tolist() == [65504, -65504, smallest, -smallest, 0, 1]


def test_unknown_operators_are_refused() -> None:
    graph = helper.make_graph(
        [helper.make_node("Mystery", ["x"], ["h"], domain="some.one"),
         helper.make_node("Identity", ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("some.one", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(
        ConversionError, match=r"nothing is known of the results of some\.one\.Myst"
    ):
        narrow(model, TensorProto.FLOAT16)
