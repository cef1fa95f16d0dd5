"""An ONNX graph in memory: read with its data, folded, pruned and written. Knows no number format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    inliner,
    numpy_helper,
)

Array = npt.NDArray[Any]

MAX_FILE_BYTES: Final = 2**31 - 1
"""What a single protobuf file can hold."""
MICROSOFT: Final = "com.microsoft"
_DEFAULT_DOMAINS: Final = ("", "ai.onnx")


class ConversionError(Exception):
    """The graph cannot be had in the wanted format; the text says why."""


def read(graph: bytes, external: Mapping[str, bytes]) -> ModelProto:
    """A graph with all its data inside, and without functions.

    Args:
        graph: content of an .onnx file.
        external: its external data, by the location that it names it with.
    Raises:
        ConversionError: it cannot be read.
    """
    try:
        model = onnx.load_from_string(graph)
    except DecodeError as error:
        raise ConversionError(f"it cannot be read: {error}") from error
    buffers = {os.path.normpath(name): content for name, content in external.items()}
    for tensor in _tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            _take_in(tensor, buffers)
    if model.functions:
        model = inliner.inline_local_functions(model)
    return model


def _take_in(tensor: TensorProto, buffers: Mapping[str, bytes]) -> None:
    told = {each.key: each.value for each in tensor.external_data}
    content = buffers.get(os.path.normpath(told.get("location", "")))
    offset = int(told.get("offset", 0))
    end = None if "length" not in told else offset + int(told["length"])
    if content is None or len(content) < (end or offset):
        raise ConversionError(f"the data of {tensor.name!r} is not there")
    tensor.raw_data = content[offset:end]
    del tensor.external_data[:]
    tensor.ClearField("data_location")


def write(model: ModelProto, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The content of an .onnx file.

    Raises:
        ConversionError: it is more than one file can hold.
    """
    try:
        content = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError):  # how protobuf says it
        content = None
    if content is not None and len(content) <= max_bytes:
        return content
    raise ConversionError("it is over 2 GB when converted, and so more than one file can hold")


def opset(model: ModelProto) -> int:
    """Version of the standard operators that the graph uses."""
    found = [each.version for each in model.opset_import if each.domain in _DEFAULT_DOMAINS]
    return max(found, default=1)


def use_microsoft(model: ModelProto) -> None:
    """Allow operators of ONNX Runtime's own."""
    if all(each.domain != MICROSOFT for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))


def is_standard(node: NodeProto, *kinds: str) -> bool:
    """Whether it is one of these standard operators."""
    return node.op_type in kinds and node.domain in _DEFAULT_DOMAINS


def attributes(node: NodeProto) -> dict[str, Any]:
    """By name, as Python values."""
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of If, Loop and Scan."""
    for each in node.attribute:
        if each.type == AttributeProto.GRAPH:
            yield each.g
        yield from each.graphs


def all_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """It, and what is nested in it."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from all_graphs(inner)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    for each in all_graphs(graph):
        yield from each.initializer
        for node in each.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    yield attribute.t
                yield from attribute.tensors


def used_names(graph: GraphProto) -> set[str]:
    """Every name that a node or an output takes, at any depth."""
    names: set[str] = set()
    for each in all_graphs(graph):
        names.update(output.name for output in each.output)
        for node in each.node:
            names.update(node.input)
    return names


def prune(graph: GraphProto) -> None:
    """Drop nodes and weights whose results nobody takes."""
    while True:
        used = used_names(graph)
        kept = [node for node in graph.node if used.intersection(node.output)]
        if len(kept) == len(graph.node):
            break
        replace_nodes(graph, kept)
    for at in reversed(range(len(graph.initializer))):  # in place: weights are not to be copied
        if graph.initializer[at].name not in used:
            del graph.initializer[at]


def replace_nodes(graph: GraphProto, nodes: Sequence[NodeProto]) -> None:
    """Have these nodes and no others; some may be there already."""
    copies = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


class Constants:
    """The values in a graph that do not depend on its inputs, computed when they are asked for.

    Exporters and those who make files smaller leave weights behind a few simple operators; what
    is behind others is no constant here, which is no fault.
    """

    def __init__(self, graph: GraphProto) -> None:
        given = {each.name for each in graph.input}  # may replace an initializer of the same name
        self._tensors = {each.name: each for each in graph.initializer if each.name not in given}
        self._nodes = {
            name: node
            for node in graph.node
            if node.op_type in _FOLDED and node.domain in _DEFAULT_DOMAINS
            for name in node.output
        }
        self._known: dict[str, bool] = {}

    def is_one(self, name: str) -> bool:
        """Whether `value` would find something."""
        if name not in self._known:
            node = self._nodes.get(name)
            self._known[name] = name in self._tensors or (
                node is not None and all(map(self.is_one, filter(None, node.input)))
            )
        return self._known[name]

    def value(self, name: str) -> Array | None:
        """The value of that name, None if it is no constant."""
        if not name or not self.is_one(name):
            return None
        if name in self._tensors:
            return numpy_helper.to_array(self._tensors[name])
        node = self._nodes[name]
        values = [self.value(each) for each in node.input]
        return _FOLDED[node.op_type](values, attributes(node))


_Inputs = Sequence[Array | None]


def _given(values: _Inputs) -> list[Array]:
    return [each for each in values if each is not None]


def _constant(_: _Inputs, options: Mapping[str, Any]) -> Array | None:
    tensor = options.get("value")
    if isinstance(tensor, TensorProto):
        return numpy_helper.to_array(tensor)
    kinds: dict[str, npt.DTypeLike] = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    for name, kind in kinds.items():
        if name in options:
            return np.array(options[name], dtype=kind)
    return None


def _cast(values: _Inputs, options: Mapping[str, Any]) -> Array:
    (value,) = _given(values)
    return value.astype(helper.tensor_dtype_to_np_dtype(options["to"]))


def _transpose(values: _Inputs, options: Mapping[str, Any]) -> Array:
    (value,) = _given(values)
    return np.transpose(value, options.get("perm"))


def _dequantize(values: _Inputs, options: Mapping[str, Any]) -> Array | None:
    value, scale, *zero = _given(values)
    if options.get("block_size"):
        return None
    shape = [1] * value.ndim
    if scale.ndim == 1 and scale.size > 1:
        shape[options.get("axis", 1)] = scale.size
    elif scale.size > 1:
        return None
    scale = scale.reshape(shape)
    offset = zero[0].astype(np.int32).reshape(shape) if zero else np.int32(0)
    result: Array = (value.astype(np.int32) - offset).astype(scale.dtype) * scale
    return result


def _multiply(values: _Inputs, _: Mapping[str, Any]) -> Array:
    first, second = _given(values)
    product: Array = np.multiply(first, second)
    return product


def _identity(values: _Inputs, _: Mapping[str, Any]) -> Array:
    return _given(values)[0]


_FOLDED: Final[Mapping[str, Callable[[_Inputs, Mapping[str, Any]], Array | None]]] = {
    "Constant": _constant,
    "Identity": _identity,
    "Cast": _cast,
    "Mul": _multiply,
    "Transpose": _transpose,
    "DequantizeLinear": _dequantize,
}


def depend_on_inputs(graph: GraphProto) -> set[str]:
    """Names of what changes from run to run; the rest the runtime computes once, when it loads."""
    changing = {each.name for each in graph.input}
    for node in graph.node:
        takes: Iterable[str] = node.input
        if any(True for _ in subgraphs(node)):
            takes = [*node.input, *(name for g in subgraphs(node) for name in used_names(g))]
        if changing.intersection(takes) or node.op_type.startswith(("Random", "Multinomial")):
            changing.update(node.output)
    return changing
