"""8-bit products: no row's answer depends on another's, and little is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from graph_runs import run
from nerve.engine.precision.graph import ConversionError, read
from nerve.engine.precision.int8 import last_products, quantize, quantized

FAMILIES = ["bert", "deberta-v2", "distilbert", "roberta", "xlm-roberta"]
RANDOM = np.random.default_rng(7)
ROWS = [RANDOM.integers(5, 60, count).tolist() for count in (1, 3, 31, 8, 60, 2)]
Values = npt.NDArray[np.float32]


def int8(graph: bytes, *, unsigned: bool = False) -> bytes:
    model = read(graph, {})
    assert quantize(model, unsigned_weights=unsigned)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def kinds(graph: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


def changed(graph: bytes) -> int:
    """How many of ROWS get other bits in company than alone."""
    together = run(graph, ROWS)
    alone = [run(graph, [row])[0] for row in ROWS]
    return sum(one.tobytes() != other.tobytes() for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_do_not_depend_on_company(tiny_models: Path, family: str) -> None:
    graph = (tiny_models / family / "model.onnx").read_bytes()
    made = int8(graph)
    assert changed(made) == 0
    # six products a layer, two layers; what is left is attention, the classifier and, in deberta,
    # what does not depend on the text
    assert kinds(made)["MatMulIntegerToFloat"] == 12
    assert kinds(made)["MatMul"] == kinds(graph)["MatMul"] - 12
    for ours, theirs in zip(run(made, ROWS), run(graph, ROWS), strict=True):
        assert 0 < np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


def test_those_of_quantize_dynamic_do(tiny_models: Path, tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    quantize_dynamic(tiny_models / "bert" / "model.onnx", tmp_path / "dynamic.onnx")
    assert changed((tmp_path / "dynamic.onnx").read_bytes()) > 0


def test_unsigned_weights_give_the_same_bits(tiny_models: Path) -> None:
    graph = (tiny_models / "bert" / "model.onnx").read_bytes()
    signed, unsigned = (run(int8(graph, unsigned=each), ROWS) for each in (False, True))
    assert [each.tobytes() for each in signed] == [each.tobytes() for each in unsigned]


def test_rows_are_quantised_once(tiny_models: Path) -> None:
    """Query, key and value of a layer take the same rows: four different ones a layer."""
    made = int8((tiny_models / "bert" / "model.onnx").read_bytes())
    assert kinds(made)["QuantizeLinear"] == 2 * 4


def test_the_bundled_model_keeps_its_weights(bundled: Path) -> None:
    """They are stored as int8 with a scale a column, and are found behind what unpacks them."""
    graph = (bundled / "minilm-ner" / "1" / "model.onnx").read_bytes()
    made = int8(graph)
    stored, kept = (
        {
            numpy_helper.to_array(each).tobytes()
            for each in onnx.load_from_string(content).graph.initializer
            if each.data_type == TensorProto.INT8 and len(each.dims) == 2
        }
        for content in (graph, made)
    )
    assert kept == stored
    assert len(made) < 1.1 * len(graph)


def graph_of(
    nodes: list[onnx.NodeProto], weights: dict[str, Values], *, rank: int = 2, opset: int = 17
) -> onnx.ModelProto:
    """`x` (rows, 8) to `y`."""
    shape = [None] * (rank - 1) + [8]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


MATRIX = RANDOM.normal(size=(8, 6)).astype(np.float32)
BIAS = RANDOM.normal(size=6).astype(np.float32)
LAST = RANDOM.normal(size=(6, 2)).astype(np.float32)


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
@pytest.mark.parametrize("transposed", [False, True])
def test_gemm(opset: int, transposed: bool) -> None:
    """With its bias, and weights either way up; the last product stays as it is."""
    weights = {"w": MATRIX.T.copy() if transposed else MATRIX, "b": BIAS, "v": LAST}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=int(transposed)),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    model = graph_of(nodes, weights, opset=opset)
    assert quantize(model, unsigned_weights=False) == 1
    x = RANDOM.normal(size=(5, 8)).astype(np.float32)
    np.testing.assert_allclose(answered(model, x), (x @ MATRIX + BIAS) @ LAST, atol=0.1)


def answered(model: onnx.ModelProto, x: Values) -> Values:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    y: Values = session.run(["y"], {"x": x})[0]
    return y


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Gemm", ["x", "w"], ["h"], alpha=0.5)],
        [helper.make_node("Gemm", ["x", "w"], ["h"], transA=1)],
        [
            helper.make_node("Transpose", ["x"], ["t"]),
            helper.make_node("MatMul", ["w", "t"], ["h"]),
        ],
        [helper.make_node("MatMul", ["w", "w"], ["c"]), helper.make_node("Add", ["x", "c"], ["h"])],
    ],
)
def test_what_is_left_alone(nodes: list[onnx.NodeProto]) -> None:
    """Products that are scaled, turned round, or the same in every run."""
    square = RANDOM.normal(size=(8, 8)).astype(np.float32)
    last = helper.make_node("MatMul", ["h", "w"], ["y"])
    model = graph_of([*nodes, last], {"w": square})
    before = model.SerializeToString()
    assert quantize(model, unsigned_weights=False) == 0
    assert model.SerializeToString() == before


def test_an_old_opset_is_refused() -> None:
    model = graph_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": MATRIX}, opset=10)
    with pytest.raises(ConversionError, match="opset is 10, and int8 needs 11"):
        quantize(model, unsigned_weights=False)


@pytest.mark.parametrize("value", [0.0, 1e-38, 1e30])
def test_rows_of_zeros_and_of_extremes(value: float) -> None:
    weights = {"w": MATRIX, "v": np.eye(6, dtype=np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    model = graph_of(nodes, weights)
    quantize(model, unsigned_weights=False)
    x = np.full((2, 8), value, dtype=np.float32)
    x[1] = 1
    y = answered(model, x)
    np.testing.assert_allclose(y[1], MATRIX.sum(axis=0), atol=0.1)
    np.testing.assert_allclose(y[0], value * MATRIX.sum(axis=0), atol=value / 10 + 1e-30)


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(-(2.0**99), 2.0**99, width=32),
    )
)
@example(np.array([[4.333e-42]], np.float32))
def test_weights_are_within_half_a_step(weights: Values) -> None:
    values, scales = quantized(weights)
    assert values.dtype == np.int8
    assert scales.shape == (weights.shape[1],)
    error = np.abs(values.astype(np.float64) * scales - weights)
    assert (error <= 0.5001 * scales).all()


def test_the_last_products_are_found_behind_anything() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["l"]),
        helper.make_node("Add", ["l", "l"], ["a"]),
        helper.make_node("Identity", ["a"], ["y"]),
    ]
    assert last_products(graph_of(nodes, {"w": MATRIX, "v": LAST}).graph) == {"l"}
