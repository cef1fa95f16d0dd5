"""What a graph tells of its data files, and how a file that is no whole graph is told."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nerve.repository.onnx_file import (
    MESSAGES,
    ExternalFiles,
    batch_dependence,
    op_types,
    read_external,
    read_external_from,
)
from nerve.types import VersionFiles


def external(name: str, location: str, *, offset: int = 0, length: int = 0) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location} | ({"offset": offset, "length": length} if length else {})
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def graph(
    *tensors: TensorProto, nodes: Iterable[onnx.NodeProto] = (), name: str = "g"
) -> onnx.GraphProto:
    nodes = list(nodes) or [helper.make_node("Identity", ["w"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])]
    return helper.make_graph(nodes, name, [], outputs, list(tensors))


def write(path: Path, model: onnx.ModelProto | onnx.GraphProto) -> Path:
    if isinstance(model, onnx.GraphProto):
        model = helper.make_model(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def test_field_numbers_are_those_of_onnx() -> None:
    """Each message of the table leads on to the messages that the table says, and to no others.

    Except: training, which is not run; and devices, which hold no tensors.
    """
    left_out = {("ModelProto", 20)}

    def holds_tensor(message: Descriptor, seen: frozenset[str] = frozenset()) -> bool:
        if message.name == "TensorProto":
            return True
        return message.name not in seen and any(
            field.message_type is not None
            and holds_tensor(field.message_type, seen | {message.name})
            for field in message.fields
        )

    for name, expected in MESSAGES.items():
        message: Descriptor = getattr(onnx, name).DESCRIPTOR
        found = {
            field.number: field.message_type.name
            for field in message.fields
            if field.message_type is not None and holds_tensor(field.message_type)
            if (name, field.number) not in left_out
        }
        assert found == dict(expected), name


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "distilbert", "roberta", "xlm-roberta"])
def test_the_tiny_models_are_whole(tiny_models: Path, family: str) -> None:
    assert read_external(tiny_models / family / "model.onnx") == ExternalFiles()


def test_a_model_saved_with_external_data(tiny_models: Path, path: Path) -> None:
    """As `onnx` and the exporters write it; the size is that of the data file."""
    model = onnx.load(tiny_models / "bert" / "model.onnx")
    onnx.save_model(
        model, str(path), save_as_external_data=True, location="model.onnx_data", size_threshold=0
    )
    found = read_external(path)
    assert found.locations == ("model.onnx_data",)
    assert found.sizes_bytes == ((path.parent / "model.onnx_data").stat().st_size,)
    assert found.fault == ""


def test_names_are_told_once_and_in_order_with_the_largest_size(path: Path) -> None:
    tensors = [
        external("a", "z", offset=8, length=8),
        external("b", "a"),
        external("c", "z", length=8),
        numpy_helper.from_array(np.zeros(2, np.float32), "d"),
    ]
    assert read_external(write(path, graph(*tensors))) == ExternalFiles(
        ("a", "z"), sizes_bytes=(0, 16)
    )


def test_tensors_everywhere(path: Path) -> None:
    """Initializers, sparse ones, attributes, subgraphs in them, and functions."""
    sparse = onnx.SparseTensorProto(
        values=external("v", "sparse values"), indices=external("i", "sparse indices"), dims=[2]
    )
    deeper = graph(external("w", "subgraph in a subgraph"))
    deep = graph(
        external("w", "subgraph"), nodes=[helper.make_node("If", ["c"], ["y"], then_branch=deeper)]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=deep)
    for number, attribute in enumerate(
        (
            onnx.AttributeProto(t=external("t", "attribute"), type=onnx.AttributeProto.TENSOR),
            onnx.AttributeProto(tensors=[external("t", "attributes")]),
            onnx.AttributeProto(graphs=[graph(external("t", "subgraphs"))]),
            onnx.AttributeProto(sparse_tensor=sparse),
            onnx.AttributeProto(sparse_tensors=[onnx.SparseTensorProto(values=external("t", "s"))]),
        )
    ):
        attribute.name = f"a{number}"
        node.attribute.append(attribute)
    top = graph(external("w", "initializer"), nodes=[node])
    top.sparse_initializer.append(onnx.SparseTensorProto(values=external("v", "sparse top")))
    function = onnx.FunctionProto(name="f", node=[helper.make_node("Constant", [], ["y"])])
    function.node[0].attribute.append(onnx.AttributeProto(t=external("t", "function")))
    function.attribute_proto.append(onnx.AttributeProto(t=external("t", "function default")))
    model = helper.make_model(top)
    model.functions.append(function)
    assert read_external(write(path, model)).locations == tuple(
        sorted(
            [
                "attribute",
                "attributes",
                "function",
                "function default",
                "initializer",
                "s",
                "sparse indices",
                "sparse top",
                "sparse values",
                "subgraph",
                "subgraph in a subgraph",
                "subgraphs",
            ]
        )
    )


def test_what_is_not_external(path: Path) -> None:
    """The location of a tensor that is not marked as external means nothing; nor one without."""
    inside = external("a", "inside")
    inside.data_location = TensorProto.DEFAULT
    nowhere = external("b", "x")
    del nowhere.external_data[:]
    assert read_external(write(path, graph(inside, nowhere))) == ExternalFiles()


def head(number: int, length: int) -> bytes:
    """The beginning of a field of that length."""
    varint = b""
    while length > 0x7F:
        varint += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + varint + bytes([length])


OPSET = head(8, 2) + b"\x10\x11"


def test_weights_are_not_read(path: Path) -> None:
    """A file of 8 GiB (one hole) is done at once."""
    weights_bytes = 8 << 30
    rest = graph(external("w", "data")).SerializeToString()
    raw_data = head(9, weights_bytes)
    initializer = head(5, len(raw_data) + weights_bytes) + raw_data
    with path.open("wb") as file:
        file.write(head(7, len(initializer) + weights_bytes + len(rest)) + initializer)
        file.seek(weights_bytes, os.SEEK_CUR)
        file.write(rest + OPSET)
    assert read_external(path) == ExternalFiles(("data",), sizes_bytes=(0,))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        pytest.param(b"", "is an empty file", id="empty"),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "is only a Git LFS pointer; run `git lfs pull`",
            id="Git LFS",
        ),
        pytest.param(b"<!DOCTYPE html><html></html>", "is no ONNX file", id="HTML"),
        pytest.param(b"PK\x03\x04" + b"zip" * 50, "is no ONNX file", id="zip"),
        pytest.param(b'{"id2label": {}}', "is no ONNX file", id="JSON"),
        pytest.param(b"Entry not found", "is no ONNX file", id="text"),
        pytest.param(b"\x7fELF" + b"\x02" * 60, "is no ONNX file", id="a program"),
        pytest.param(b"\0" * 4096, "is no ONNX file", id="zeros"),
        pytest.param(b"\xff" * 4096, "is no ONNX file", id="ones"),
        pytest.param(b"\x08\x08", "has no graph: it is incomplete, or no ONNX file", id="head"),
        pytest.param(b"\x08", "ends in the middle of a field: it is incomplete", id="one byte"),
        pytest.param(
            b"\x08\x08\x3a\x80\x01", "ends in the middle of a field: it is incomplete", id="cut"
        ),
        pytest.param(b"\x08\x08\x3a\x02\x0a\x05", "is damaged at byte 6", id="overrun inside"),
        pytest.param(b"\x08\x08\x3a\x02\0\0", "is damaged at byte 4", id="zeros inside"),
        pytest.param(b"\x08\x08\x3a\x01\x80\x42\x00", "is damaged at byte 5", id="a number cut"),
        pytest.param(b"\x08\x08\x3a\x02\x08\x08", "is damaged at byte 6", id="no message"),
        pytest.param(
            b"\x08\x08\x3a\0", "ends before its opset_import: it is incomplete", id="no opset"
        ),
    ],
)
def test_files_that_are_no_whole_graph(path: Path, content: bytes, fault: str) -> None:
    path.write_bytes(content)
    assert read_external(path) == ExternalFiles(fault=f"model.onnx {fault}")


@pytest.mark.parametrize(
    "location",
    ["", "a\0b", "a\nb", "x" * 5000, b"caf\xe9"],
    ids=["empty", "nul", "nl", "long", "bytes"],
)
def test_locations_that_cannot_be_names(path: Path, location: str | bytes) -> None:
    """Neither used nor printed as they are."""
    text = location if isinstance(location, str) else "y" * len(location)
    content = write(path, graph(external("w", text))).read_bytes()
    if isinstance(location, bytes):
        path.write_bytes(content.replace(text.encode(), location))
    found = read_external(path)
    assert found.locations == ()
    assert found.fault.startswith("model.onnx names an external data file that cannot be one: '")
    assert found.fault.isprintable()
    assert len(found.fault) < 200


@pytest.mark.parametrize(("depth", "fault"), [(30, ""), (40, "deep"), (20_000, "deep")])
def test_deep_nesting_ends(path: Path, depth: int, fault: str) -> None:
    """Of what the runtime reads nothing either: graph in attribute in node in graph."""
    content = b""
    for _ in range(depth):
        for number in (6, 5, 1):
            content = head(number, len(content)) + content
    path.write_bytes(head(7, len(content)) + content + OPSET)
    expected = "model.onnx holds messages nested over 100 deep" if fault else ""
    assert read_external(path) == ExternalFiles(fault=expected)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """A pipe is not waited for."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    faults = {
        name: read_external(tmp_path / name).fault for name in ("pipe", "folder", "none", "loop")
    }
    assert faults == {
        "pipe": "pipe cannot be read: it is no regular file",
        "folder": "folder cannot be read: Is a directory",
        "none": "none cannot be read: No such file or directory",
        "loop": "loop cannot be read: Too many levels of symbolic links",
    }
    assert read_external(Path(os.fsdecode(b"\xff.onnx"))).fault.isprintable()
    assert read_external(Path("a\0b")).fault


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_every_way_to_cut_a_model_short(tiny_models: Path, path: Path, family: str) -> None:
    """Noticed at every byte: at the head, at the tail, and at a sample of those between."""
    whole = (tiny_models / family / "model.onnx").read_bytes()
    boundaries = top_level_boundaries(whole)
    chance = random.Random(family)
    middle = chance.sample(range(len(whole)), 500)
    cuts = {*range(200), *range(len(whole) - 200, len(whole)), *middle, *boundaries}
    path.write_bytes(whole)
    for cut in sorted(cuts, reverse=True):
        os.truncate(path, cut)
        found = read_external(path)
        assert found.locations == ()
        if not is_whole(whole[:cut]):
            assert found.fault, cut
        else:  # only what may be missing is
            assert cut in boundaries


def top_level_boundaries(whole: bytes) -> set[int]:
    """Where a field of the model ends; what `onnx` leaves of a model cut there is its whole head."""
    model = onnx.ModelProto.FromString(whole)
    ends, sizes = set(), 0
    for field, value in model.ListFields():
        values = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
        for each in values:
            part = onnx.ModelProto()
            target = getattr(part, field.name)
            if hasattr(target, "append"):
                target.append(each)
            elif field.message_type is not None:
                target.CopyFrom(each)
            else:
                setattr(part, field.name, each)
            sizes += part.ByteSize()
            ends.add(sizes)
    assert sizes == len(whole)
    return ends


def is_whole(content: bytes) -> bool:
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        return False
    return model.HasField("graph") and len(model.opset_import) > 0


@given(st.binary(max_size=300))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No crash, and never less strict than protobuf on what is a model."""
    path = tmp_path_factory.mktemp("any") / "model.onnx"
    path.write_bytes(content)
    found = read_external(path)
    assert found.fault or is_whole(content)


@given(st.data())
def test_any_damage(
    tmp_path_factory: pytest.TempPathFactory, tiny_models: Path, data: st.DataObject
) -> None:
    """Bytes of a model overwritten somewhere: no crash."""
    whole = bytearray((tiny_models / "bert" / "model.onnx").read_bytes()[:20_000])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "model.onnx"
    path.write_bytes(whole)
    assert read_external(path).fault


class Shrinking(FileIO):
    """A file that is cut short after its first reading."""

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        os.truncate(str(self.name), 100)
        return content


def test_a_file_cut_short_while_it_is_read(tiny_models: Path, path: Path) -> None:
    """Where a memory map would have ended the process."""
    shutil.copy(tiny_models / "bert" / "model.onnx", path)
    with Shrinking(path) as file:
        found = read_external_from(file, "model.onnx")
    assert found == ExternalFiles(fault="model.onnx was cut short while it was read")


# --- operators ---


def test_kinds_of_operators_are_found_at_any_depth(path: Path) -> None:
    body = graph(nodes=[helper.make_node("DynamicQuantizeLinear", ["w"], ["y", "s", "z"])])
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=graph()),
        helper.make_node("Exp", ["y"], ["e"], domain="own"),
    ]
    assert op_types(write(path, graph(nodes=nodes))) == {
        "If",
        "Identity",
        "Exp",
        "DynamicQuantizeLinear",
    }


@pytest.mark.parametrize(
    ("kind", "told"),
    [("DynamicQuantizeLinear", True), ("DynamicQuantizeMatMul", True), ("QuantizeLinear", False)],
)
def test_answers_that_depend_on_the_batch(path: Path, kind: str, told: bool) -> None:
    write(path, graph(nodes=[helper.make_node(kind, ["w"], ["y"])]))
    assert ("batch_invariant: true" in batch_dependence(VersionFiles(1, path, {}))) is told


def test_what_cannot_be_read_has_no_operators(path: Path) -> None:
    assert op_types(path) == frozenset()
    path.write_bytes(b"\xff" * 50)
    assert op_types(path) == frozenset()
    assert batch_dependence(VersionFiles(1, None, {})) == ""
