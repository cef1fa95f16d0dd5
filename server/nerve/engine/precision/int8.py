"""Matrix products in 8 bits, each token's row with a scale of its own.

`onnxruntime.quantization.quantize_dynamic` takes one scale over the whole tensor of activations,
all rows of the batch, padding included, so an answer depends on what else is in the batch. Here
row r of X (…, K) becomes q = round(X[r] * 127 / max|X[r]|) + 128 in uint8, column c of W (K, N)
the int8 nearest to W[:, c] * 127 / max|W[:, c]|, and

    Y[r, c] = (sum over k of (q[k] - 128) * w[k, c]) * scale of c * scale of r

The sum is of whole numbers and so exact in any order; all else is done number by number. Nothing
in a row's result comes from another row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from nerve.engine.precision.graph import (
    MICROSOFT,
    Array,
    Constants,
    ConversionError,
    attributes,
    depend_on_inputs,
    is_standard,
    opset,
    prune,
    replace_nodes,
    use_microsoft,
)

_PREFIX: Final = "nerve.int8."
_LEAST: Final = np.float32(1e-30)
"""Takes the place of the largest value of a row of zeros."""
_AXES_AS_INPUT: Final = 18
"""From this opset on ReduceMax takes its axes as an input."""
_MIN_OPSET: Final = 11
_STEPS: Final = 127
_ZERO: Final = 128


def quantize(model: ModelProto, *, unsigned_weights: bool) -> int:
    """Rewrite the matrix products with constant weights, in place.

    The last ones before an output, which decide between labels, stay as they are: they are a
    hundredth of the work. So do those that the runtime computes once, when it loads.

    Args:
        model: a graph that computes in float32.
        unsigned_weights: keep weights as uint8 around 128, for processors whose instruction for
            uint8 times int8 overflows; the results are the same bits.
    Returns:
        How many products were rewritten.
    Raises:
        ConversionError: the operators that are needed came later than the graph's.
    """
    if opset(model) < _MIN_OPSET:
        raise ConversionError(
            f"its opset is {opset(model)}, and int8 needs {_MIN_OPSET} or later: export it anew"
        )
    rewriter = _Rewriter(model, unsigned_weights=unsigned_weights)
    rewriter.run()
    if rewriter.count:
        use_microsoft(model)
        prune(model.graph)
    return rewriter.count


class _Rewriter:
    def __init__(self, model: ModelProto, *, unsigned_weights: bool) -> None:
        self.count = 0
        self._graph, self._opset = model.graph, opset(model)
        self._constants = Constants(model.graph)
        self._changing = depend_on_inputs(model.graph)
        self._kept = last_products(model.graph)
        self._weight_zero = _ZERO if unsigned_weights else 0
        self._rows: dict[str, tuple[str, str]] = {}
        self._weights: dict[str, tuple[str, str]] = {}
        self._nodes: list[NodeProto] = []

    def run(self) -> None:
        for node in self._graph.node:
            weights = self._weights_of(node)
            if weights is None:
                self._nodes.append(node)
            else:
                self.count += 1
                self._rewrite(node, weights)
        replace_nodes(self._graph, self._nodes)

    def _weights_of(self, node: NodeProto) -> Array | None:
        """(K, N) float32 of a product that is to be rewritten."""
        if not is_standard(node, "MatMul", "Gemm") or node.output[0] in self._kept:
            return None
        options = attributes(node)
        plain = options.get("alpha", 1.0) == options.get("beta", 1.0) == 1 and not options.get(
            "transA"
        )
        if not plain or node.input[0] not in self._changing:
            return None
        weights = self._constants.value(node.input[1])
        if weights is None or weights.ndim != 2 or weights.dtype != np.float32:
            return None
        return weights.T if options.get("transB") else weights

    def _rewrite(self, node: NodeProto, weights: Array) -> None:
        (output,), bias = node.output, node.input[2] if len(node.input) > 2 else ""
        rows, row_scale = self._quantized_rows(node.input[0])
        transposed = "t" if attributes(node).get("transB") else ""
        matrix, scale = self._quantized_weights(node.input[1] + transposed, weights)
        zeros = [self._constant("zero", np.uint8(_ZERO))]
        if self._weight_zero:
            zeros.append(zeros[0])
        one = self._constant("one", np.float32(1))
        product, scaled = f"{_PREFIX}{output}.product", f"{_PREFIX}{output}.scaled"
        self._add(
            "MatMulIntegerToFloat", [rows, matrix, one, scale, *zeros], product, domain=MICROSOFT
        )
        self._add("Mul", [product, row_scale], scaled if bias else output)
        if bias:
            self._add("Add", [scaled, bias], output)

    def _quantized_rows(self, name: str) -> tuple[str, str]:
        """uint8 rows (…, K) and their scales (…, 1); made once for all products that take them."""
        if name not in self._rows:
            own = f"{_PREFIX}{name}."
            self._add("Abs", [name], own + "abs")
            if self._opset >= _AXES_AS_INPUT:
                axes = self._constant("last", np.array([-1], dtype=np.int64))
                self._add("ReduceMax", [own + "abs", axes], own + "largest", keepdims=1)
            else:
                self._add("ReduceMax", [own + "abs"], own + "largest", axes=[-1], keepdims=1)
            least = self._constant("least", _LEAST)
            self._add("Max", [own + "largest", least], own + "range")
            steps = self._constant("steps", np.float32(_STEPS))
            self._add("Div", [steps, own + "range"], own + "factor")
            self._add("Mul", [name, own + "factor"], own + "stretched")
            unit, zero = (
                self._constant("one", np.float32(1)),
                self._constant("zero", np.uint8(_ZERO)),
            )
            self._add("QuantizeLinear", [own + "stretched", unit, zero], own + "rows")
            step = self._constant("step", np.float32(1 / _STEPS))
            self._add("Mul", [own + "range", step], own + "scale")
            self._rows[name] = own + "rows", own + "scale"
        return self._rows[name]

    def _quantized_weights(self, name: str, weights: Array) -> tuple[str, str]:
        """8-bit weights (K, N) and their scales (N,); made once for all products that take them."""
        if name not in self._weights:
            values, scales = quantized(weights)
            if self._weight_zero:
                values = (values.astype(np.int16) + self._weight_zero).astype(np.uint8)
            matrix = self._constant(f"{name}.weights", values)
            self._weights[name] = matrix, self._constant(f"{name}.scales", scales)
        return self._weights[name]

    def _constant(self, name: str, value: Array | np.generic) -> str:
        full = _PREFIX + name
        if all(each.name != full for each in self._graph.initializer):
            self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), full))
        return full

    def _add(self, kind: str, takes: list[str], gives: str, **options: object) -> None:
        make: Callable[..., NodeProto] = helper.make_node
        self._nodes.append(make(kind, takes, [gives], name=gives, **options))


def quantized(weights: Array) -> tuple[Array, Array]:
    """Weights (K, N) as int8 in [-127, 127] with a float32 scale (N,) a column. Pure."""
    scales = np.abs(weights).max(axis=0, initial=0).astype(np.float32) / np.float32(_STEPS)
    # Below, float32 has too few digits for a scale: its multiples would drift away.
    np.maximum(scales, np.finfo(np.float32).tiny * 2**10, out=scales, where=scales > 0)
    scales[scales == 0] = 1
    values = np.rint(weights / scales).clip(-_STEPS, _STEPS).astype(np.int8)
    return values, scales


def last_products(graph: GraphProto) -> set[str]:
    """Outputs of the products that lead to the graph's outputs without another one between. Pure."""
    makers = {name: node for node in graph.node for name in node.output}
    waiting, seen, found = [each.name for each in graph.output], set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if is_standard(node, "MatMul", "Gemm"):
            found.add(name)
        else:
            waiting += node.input
    return found
