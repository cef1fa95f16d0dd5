"""Runs by I/O binding equal plain ones, bit for bit; here on the CPU, whose memory needs no copies."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nerve.config.running import GraphLevel
from nerve.engine import binding
from nerve.engine.binding import BoundRuns, CapturedRuns
from nerve.engine.padding import Shapes, pad
from nerve.engine.pinned import cuda_runtime, empty_bytes, pin
from nerve.engine.session import Session, require_runtime
from nerve.engine.signature import Feed, Signature, read_signature
from nerve.types import Row

MODELS = Path(__file__).parents[2] / "models"
FAMILIES = ["bert", "deberta-v2", "distilbert", "roberta", "xlm-roberta"]
LENGTHS = [(9,), (3, 12, 7), (5,), (2, 2), (12, 1, 1, 3) * 15]
"""Of the rows of batches, some larger and some smaller than the ones before; the last takes pages."""


def opened(file: Path) -> Any:
    return require_runtime().InferenceSession(str(file), providers=["CPUExecutionProvider"])


def signature_of(session: Any) -> Signature:
    return read_signature(session.get_inputs(), session.get_outputs())


def batch(lengths: tuple[int, ...], seed: int = 0) -> list[Row]:
    random = np.random.default_rng(seed)
    return [Row(random.integers(5, 60, length)) for length in lengths]


def feed_of(signature: Signature, lengths: tuple[int, ...], seed: int = 0) -> Feed:
    return signature.feed(*pad(batch(lengths, seed), 0))


def plain(session: Any, signature: Signature, feed: Feed) -> Any:
    return session.run([signature.output], feed)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_bound_runs_equal_plain_ones(family: str) -> None:
    """And what they gave stays, whatever is run after."""
    session = opened(MODELS / family / "model.onnx")
    signature = signature_of(session)
    runs = BoundRuns(require_runtime(), session, signature)
    feeds = [feed_of(signature, lengths, seed) for seed, lengths in enumerate(LENGTHS)]
    found = [runs.run(feed, require_runtime().RunOptions()) for feed in feeds]
    for feed, logits in zip(feeds, found, strict=True):
        assert logits.dtype == np.float32
        np.testing.assert_array_equal(logits, plain(session, signature, feed))


@pytest.mark.parametrize("family", FAMILIES)
def test_captured_runs_equal_plain_ones(family: str) -> None:
    """The first run of a shape and every later one; what comes in keeps its own memory."""
    session = opened(MODELS / family / "model.onnx")
    signature = signature_of(session)
    runs = CapturedRuns(require_runtime(), session, signature, device="cpu", number=0)
    feeds = [feed_of(signature, lengths, seed) for seed, lengths in enumerate(LENGTHS * 2)]
    before = [{name: value.copy() for name, value in feed.items()} for feed in feeds]
    found = [runs.run(feed, require_runtime().RunOptions()) for feed in feeds]
    for feed, own, logits in zip(feeds, before, found, strict=True):
        assert logits.dtype == np.float32
        np.testing.assert_array_equal(logits, plain(session, signature, feed))
        for name, value in own.items():
            np.testing.assert_array_equal(feed[name], value)
    assert runs.shapes == [(1, 9), (3, 12), (1, 5), (2, 2), (60, 12)]


def test_no_more_shapes_are_captured_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others run as well."""
    monkeypatch.setattr(binding, "MAX_GRAPHS", 2)
    session = opened(MODELS / "bert" / "model.onnx")
    signature = signature_of(session)
    runs = CapturedRuns(require_runtime(), session, signature, device="cpu", number=0)
    for seed, lengths in enumerate(LENGTHS):
        feed = feed_of(signature, lengths, seed)
        logits = runs.run(feed, require_runtime().RunOptions())
        np.testing.assert_array_equal(logits, plain(session, signature, feed))
    assert runs.shapes == [(1, 9), (3, 12)]


@pytest.mark.parametrize("captured", [False, True])
def test_runs_at_the_same_time_share_no_buffers(captured: bool) -> None:
    session = opened(MODELS / "bert" / "model.onnx")
    signature, runtime = signature_of(session), require_runtime()
    runs = (
        CapturedRuns(runtime, session, signature, device="cpu", number=0)
        if captured
        else BoundRuns(runtime, session, signature)
    )
    together = threading.Barrier(4)

    def work(number: int) -> bool:
        together.wait()
        feeds = [feed_of(signature, LENGTHS[at % 5], number * 100 + at) for at in range(40)]
        return all(
            np.array_equal(runs.run(feed, runtime.RunOptions()), plain(session, signature, feed))
            for feed in feeds
        )

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_in_a_larger_shape_give_the_same(family: str) -> None:
    """Padding to a bucket, and rows of nothing but padding, change no more than a batch does."""
    rows = batch((3, 12, 7))
    session = Session(
        MODELS / family / "model.onnx",
        gpu=None,
        graph_level=GraphLevel.ALL,
        intra_op_threads=1,
        bound=True,
    )
    tight = session.run(*pad(rows, 1))
    wide = session.run(*pad(rows, 1, Shapes((16,), (4,), 100)))
    assert wide.shape[:2] == (4, 16)
    assert np.isfinite(wide).all()
    for at, each in enumerate(rows):
        length = len(each.ids)
        np.testing.assert_allclose(wide[at, :length], tight[at, :length], atol=1e-5)


def save(path: Path, nodes: list[Any], labels: int | str, constants: list[Any]) -> Path:
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", labels])
    graph = helper.make_graph(nodes, "test", [ids], [logits], constants)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def test_an_answer_whose_size_only_the_run_shows(tmp_path: Path) -> None:
    """The graph states no number of labels."""
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    file = save(
        tmp_path / "model.onnx",
        [
            helper.make_node("Gather", ["table", "input_ids"], ["found"]),
            helper.make_node("Compress", ["found", "which"], ["logits"], axis=2),
        ],
        "labels",
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([True, False, True]), "which"),
        ],
    )
    session = Session(file, gpu=None, graph_level=GraphLevel.ALL, intra_op_threads=1, bound=True)
    assert session.labels is None
    ids = np.array([[1, 2]])
    np.testing.assert_array_equal(session.run(ids, ids, None), table[ids][..., [0, 2]])


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that needs minutes: a wide matrix, multiplied by itself again and again."""
    width, times = 256, 3000
    nodes = [
        helper.make_node("Gather", ["matrix", "input_ids"], ["x0"]),
        *[helper.make_node("MatMul", [f"x{at}", "matrix"], [f"x{at + 1}"]) for at in range(times)],
        helper.make_node("Identity", [f"x{times}"], ["logits"]),
    ]
    matrix = np.full((width, width), 1 / width, dtype=np.float32)
    file = tmp_path_factory.mktemp("endless") / "model.onnx"
    return save(file, nodes, width, [numpy_helper.from_array(matrix, "matrix")])


LONG = np.zeros((32, 512), dtype=np.int64)


@pytest.mark.parametrize("bound", [False, True])
def test_a_run_can_be_broken_off(endless: Path, bound: bool) -> None:
    """By either way; and the session can still be used."""
    session = Session(
        endless, gpu=None, graph_level=GraphLevel.DISABLE, intra_op_threads=1, bound=bound
    )
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(session.run, LONG, LONG, None)
        until = time.monotonic() + 20
        while not run.done() and time.monotonic() < until:
            time.sleep(0.05)
            session.terminate()
        with pytest.raises(Exception, match="terminate"):
            run.result(timeout=20)
    assert session.run(LONG[:1, :1], LONG[:1, :1], None).shape == (1, 1, 256)


def test_a_captured_run_can_be_broken_off(endless: Path) -> None:
    runtime, session = require_runtime(), opened(endless)
    runs = CapturedRuns(runtime, session, signature_of(session), device="cpu", number=0)
    options = runtime.RunOptions()
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(runs.run, {"input_ids": LONG}, options)
        time.sleep(0.1)
        options.terminate = True
        with pytest.raises(Exception, match="terminate"):
            run.result(timeout=20)
    assert runs.run({"input_ids": LONG[:1, :1]}, runtime.RunOptions()).shape == (1, 1, 256)


def test_a_captured_graph_that_answers_otherwise_is_refused() -> None:
    """A graph that counts its runs: the second and third would have to equal the first."""
    session = opened(MODELS / "bert" / "model.onnx")
    signature = signature_of(session)
    runs = CapturedRuns(require_runtime(), Drifting(session), signature, device="cpu", number=0)
    with pytest.raises(RuntimeError, match=r"\(1, 9\) answers otherwise .*cuda_graphs: false"):
        runs.run(feed_of(signature, (9,)), require_runtime().RunOptions())
    assert runs.shapes == []


class Drifting:
    """A session that takes its ids from elsewhere once a graph was captured, as a replay with
    stale addresses would."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def io_binding(self) -> Any:
        return self.session.io_binding()

    def run_with_iobinding(self, bound: Any, options: Any) -> None:
        if options.get_run_config_entry("gpu_graph_id") != "-1":
            other = np.full((1, 9), 50)
            bound.bind_ortvalue_input(
                "input_ids", require_runtime().OrtValue.ortvalue_from_numpy(other)
            )
        self.session.run_with_iobinding(bound, options)


# --- pinned memory ---


@pytest.mark.parametrize("version", [None, "", "13.0", "12.4"])
def test_without_cuda_nothing_is_pinned(version: str | None) -> None:
    """And everything works the same."""
    assert not pin(empty_bytes(100), cuda_runtime(version))


@pytest.mark.parametrize("size", [1, 4096, 5000])
def test_a_buffer_shares_its_pages_with_nothing(size: int) -> None:
    buffer = empty_bytes(size)
    assert buffer.nbytes >= size
    assert buffer.nbytes % 4096 == 0
    assert buffer.ctypes.data % 4096 == 0
