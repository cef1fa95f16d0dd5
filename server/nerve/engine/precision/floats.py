"""A graph in another float format: 16 bits where its weights work, or 32 bits throughout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nerve.engine.precision.graph import (
    Array,
    Constants,
    ConversionError,
    all_graphs,
    prune,
    replace_nodes,
    subgraphs,
)

_PREFIX: Final = "nerve.float."
_HALVES: Final = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_EXACT: Final = frozenset({"CumSum", "Pow", "Range", "ReduceMean", "ReduceSum", "Sqrt"})
"""Computed in float32 whatever comes in: their results, or the squares in layer norms that are
written out, go beyond what 16 bits hold."""
_TYPE_ATTRIBUTES: Final = ("to", "dtype")
_SMALL_BYTES: Final = 1024
"""What the inference of types may need the values of: shapes, axes."""


def widen(model: ModelProto) -> int:
    """Make every 16-bit float of a graph a float32, in place; returns how many weights were."""
    count = 0
    for graph in all_graphs(model.graph):
        for tensor in graph.initializer:
            count += _widen_tensor(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _HALVES:
                    attribute.i = TensorProto.FLOAT
                elif attribute.type == onnx.AttributeProto.TENSOR:
                    _widen_tensor(attribute.t)
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in _HALVES:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    return count


def _widen_tensor(tensor: TensorProto) -> bool:
    if tensor.data_type not in _HALVES:
        return False
    wide = numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    return True


def narrow(model: ModelProto, kind: int) -> int:
    """Compute in 16 bits what weights have gone into, in place; inputs and outputs keep their types.

    What is computed of ids and masks alone (positions, distances) stays in float32: 16 bits do not
    count far enough.

    Args:
        model: a graph that computes in float32.
        kind: `TensorProto.FLOAT16` or `TensorProto.BFLOAT16`.
    Returns:
        How many nodes compute in 16 bits now.
    Raises:
        ConversionError: it cannot be told what some tensors are.
    """
    narrower = _Narrower(model, kind)
    narrower.run()
    prune(model.graph)
    return narrower.count


class _Narrower:
    def __init__(self, model: ModelProto, kind: int) -> None:
        self.count = 0
        self._graph, self._kind = model.graph, kind
        self._types = element_types(model)
        self._constants = Constants(model.graph)
        self._narrow: set[str] = set()  # tensors that are in 16 bits now
        self._weights: dict[str, bool] = {}
        self._casts: dict[tuple[str, int], str] = {}
        self._nodes: list[NodeProto] = []

    def run(self) -> None:
        for node in list(self._graph.node):
            floats = [name for name in node.input if self._types.get(name) == TensorProto.FLOAT]
            if any(True for _ in subgraphs(node)):
                self._keep(node, floats)  # what is inside knows its values by their names
            elif node.op_type in _EXACT or not any(map(self._heavy, floats)):
                self._keep(node, floats)
            elif all(map(self._constants.is_one, filter(None, node.input))):
                self._nodes.append(node)  # taken by value; it goes if nothing else needs it
            else:
                self._convert(node, floats)
        for output in self._graph.output:
            if output.name in self._narrow:
                self._hand_out(output.name)
        replace_nodes(self._graph, self._nodes)
        del self._graph.value_info[:]

    def _heavy(self, name: str) -> bool:
        """Whether weights have gone into it."""
        if name not in self._weights:
            value = self._constants.value(name)
            self._weights[name] = value is not None and value.size > 1
        return name in self._narrow or self._weights[name]

    def _keep(self, node: NodeProto, floats: list[str]) -> None:
        inside = {name for graph in subgraphs(node) for name in _takes(graph)}
        if inside & self._narrow:
            raise ConversionError(f"{node.op_type} takes what would have 16 bits into its body")
        for at, name in enumerate(node.input):
            if name in floats and name in self._narrow:
                node.input[at] = self._cast(name, TensorProto.FLOAT)
        self._nodes.append(node)

    def _convert(self, node: NodeProto, floats: list[str]) -> None:
        self.count += 1
        for at, name in enumerate(node.input):
            if name in floats and name not in self._narrow:
                node.input[at] = self._narrowed(name)
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT:
                attribute.i = self._kind
        self._narrow.update(
            name for name in node.output if self._types.get(name) == TensorProto.FLOAT
        )
        self._nodes.append(node)

    def _narrowed(self, name: str) -> str:
        """A 16-bit version of a float32 tensor."""
        if not self._constants.is_one(name):
            return self._cast(name, self._kind)
        own = f"{_PREFIX}{name}"
        if (name, self._kind) not in self._casts:
            value = self._constants.value(name)
            if value is None:
                return self._cast(name, self._kind)
            tensor = numpy_helper.from_array(_within(value, self._kind), own)
            self._graph.initializer.append(tensor)
            self._casts[name, self._kind] = own
        return own

    def _cast(self, name: str, kind: int) -> str:
        key = name, kind
        if key not in self._casts:
            self._casts[key] = f"{_PREFIX}{name}.as{kind}"
            node = helper.make_node("Cast", [name], [self._casts[key]], to=kind)
            self._nodes.append(node)
        return self._casts[key]

    def _hand_out(self, name: str) -> None:
        inner = f"{_PREFIX}{name}"
        for node in self._nodes:
            for names in (node.input, node.output):
                for at, each in enumerate(names):
                    if each == name:
                        names[at] = inner
        self._nodes.append(helper.make_node("Cast", [inner], [name], to=TensorProto.FLOAT))


def _within(value: Array, kind: int) -> Array:
    """Values in 16 bits; what is beyond becomes the largest, what is not 0 stays so."""
    target = helper.tensor_dtype_to_np_dtype(kind)
    if kind == TensorProto.FLOAT16:
        limits = np.finfo(np.float16)
        finite = np.isfinite(value)
        value = np.where(finite, value.clip(limits.min, limits.max), value)
        tiny = (value != 0) & (np.abs(value) < limits.smallest_subnormal)
        value = np.where(tiny, np.copysign(limits.smallest_subnormal, value), value)
    narrow: Array = value.astype(target)
    return narrow


def _takes(graph: GraphProto) -> Iterator[str]:
    for inner in all_graphs(graph):
        for node in inner.node:
            yield from node.input


def element_types(model: ModelProto) -> dict[str, int]:
    """The type of every tensor of a graph, its bodies left out.

    Raises:
        ConversionError: operators of others are in it, of which nothing is known.
    """
    light = ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    graph = light.graph
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= _SMALL_BYTES:
            graph.initializer.append(tensor)
        else:  # only its type counts, and the weights are not to be held twice
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    try:
        told = onnx.shape_inference.infer_shapes(light).graph
    except onnx.shape_inference.InferenceError as error:
        raise ConversionError(f"its types cannot be told: {error}") from error
    types = {each.name: each.data_type for each in model.graph.initializer}
    for value in (*told.input, *told.output, *told.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    unknown = [node for node in model.graph.node if any(n and n not in types for n in node.output)]
    if unknown:
        kinds = ", ".join(sorted({f"{n.domain or 'ai.onnx'}.{n.op_type}" for n in unknown})[:3])
        raise ConversionError(f"nothing is known of the results of {kinds}: use the plain export")
    return types
