"""From bytes to bytes: external data, what cannot be had, and the process that does it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import orjson
import pytest
from onnx import helper
from onnxruntime.quantization import quantize_dynamic

from graph_runs import run
from nerve.config.running import Precision
from nerve.engine.precision.convert import adds_exactly, convert
from nerve.engine.precision.graph import ConversionError, write

ROWS = [[5, 6, 7, 8], [9]]
TIMEOUT_S = 60


def external_copy(graph: Path, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save_model(
        onnx.load(graph), path, save_as_external_data=True, location="data", size_threshold=100
    )
    return path


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP16])
def test_external_data_is_taken_in(tiny_models: Path, tmp_path: Path, precision: Precision) -> None:
    """The result is the same, byte for byte."""
    inside = tiny_models / "bert" / "model.onnx"
    graph = external_copy(inside, tmp_path)
    content = (tmp_path / "data").read_bytes()
    assert convert(graph.read_bytes(), {"./data": content}, precision) == convert(
        inside.read_bytes(), {}, precision
    )
    with pytest.raises(ConversionError, match=r"the data of .* is not there"):
        convert(graph.read_bytes(), {"data": content[:-1]}, precision)
    with pytest.raises(ConversionError, match=r"the data of .* is not there"):
        convert(graph.read_bytes(), {}, precision)


def test_int8_of_fp16(tiny_models: Path) -> None:
    """A half-precision export is made wide first; inside it is computed in float32."""
    graph = (tiny_models / "bert" / "model.onnx").read_bytes()
    half = convert(graph, {}, Precision.FP16)
    assert half is not None
    made = convert(half, {}, Precision.INT8)
    assert made is not None
    for ours, theirs in zip(run(made, ROWS), run(graph, ROWS), strict=True):
        assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


def test_fp32_of_fp32_is_what_it_was(tiny_models: Path) -> None:
    assert convert((tiny_models / "bert" / "model.onnx").read_bytes(), {}, Precision.FP32) is None


def test_a_graph_that_is_quantised_already(tiny_models: Path, tmp_path: Path) -> None:
    quantize_dynamic(tiny_models / "bert" / "model.onnx", tmp_path / "dynamic.onnx")
    with pytest.raises(ConversionError, match="quantised already\\? Convert the float export"):
        convert((tmp_path / "dynamic.onnx").read_bytes(), {}, Precision.INT8)


def test_what_is_no_graph() -> None:
    with pytest.raises(ConversionError, match="cannot be read"):
        convert(b"\xff" * 100, {}, Precision.INT8)


def test_functions_are_looked_into(tiny_models: Path) -> None:
    """As the newer exporter of PyTorch writes them: here all products are calls."""
    graph = (tiny_models / "bert" / "model.onnx").read_bytes()
    model = onnx.load_from_string(graph)
    body = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Linear", ["a", "b"], ["c"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    for node in model.graph.node:
        if node.op_type == "MatMul":
            node.op_type, node.domain = "Linear", "own"
    made = convert(model.SerializeToString(), {}, Precision.INT8)
    plain = convert(graph, {}, Precision.INT8)
    assert made is not None
    assert plain is not None
    ours, theirs = run(made, ROWS), run(plain, ROWS)
    assert [each.tobytes() for each in ours] == [each.tobytes() for each in theirs]


def test_too_large_for_one_file_is_refused(tiny_models: Path) -> None:
    model = onnx.load(tiny_models / "bert" / "model.onnx")
    size = len(model.SerializeToString())
    assert len(write(model, max_bytes=size)) == size
    with pytest.raises(ConversionError, match="over 2 GB"):
        write(model, max_bytes=size - 1)


def test_processors_are_told_apart() -> None:
    """Here by what Linux says of this one."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    x86 = "GenuineIntel" in text or "AuthenticAMD" in text
    assert adds_exactly() is (not x86 or "avx512_vnni" in text or "avx_vnni" in text)


def ordered(order: dict[str, object]) -> dict[str, object]:
    """What the process says."""
    command = [sys.executable, "-m", "nerve.engine.precision"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(orjson.dumps(order) + b"\n")
        process.stdin.flush()
        said: dict[str, object] = orjson.loads(process.stdout.read())
        assert process.wait(TIMEOUT_S) == 0
    return said


def order_of(graph: Path, target: Path, **other: object) -> dict[str, object]:
    return {
        "graph": str(graph),
        "external": {},
        "digests": {},
        "precision": "int8",
        "target": str(target),
        "memory_bytes": None,
    } | other


def test_the_process(tiny_models: Path, tmp_path: Path) -> None:
    graph, target = tiny_models / "bert" / "model.onnx", tmp_path / "made"
    content = graph.read_bytes()
    digests = {str(graph): hashlib.sha256(content).hexdigest()}
    said = ordered(order_of(graph, target, digests=digests))
    assert target.read_bytes() == convert(content, {}, Precision.INT8)
    assert said["digest"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert ordered(order_of(graph, target, precision="fp32"))["unchanged"] is True
    changed = order_of(graph, target, digests={str(graph): "0" * 64})
    assert ordered(changed)["failed"] == "its files have changed meanwhile"
    missing = ordered(order_of(tmp_path / "none", target))
    assert missing["failed"] == "No such file or directory"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is Linux's")
def test_the_process_has_a_limit(bundled: Path, tmp_path: Path) -> None:
    graph = bundled / "minilm-ner" / "1" / "model.onnx"
    said = ordered(order_of(graph, tmp_path / "made", precision="fp16", memory_bytes=2**20))
    assert said["out_of_memory"] is True


def test_the_process_ends_with_its_input(tiny_models: Path, tmp_path: Path) -> None:
    """So that none outlives the daemon: here it waits for ever for what it is to read."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "nerve.engine.precision"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(orjson.dumps(order_of(pipe, tmp_path / "made")) + b"\n")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.stdin.close()
        assert process.wait(TIMEOUT_S) == 1
