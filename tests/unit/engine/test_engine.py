"""Rows in, logits rows out: order, company, deadlines, faults and the end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from nerve.config.model import ModelConfig
from nerve.config.running import DynamicBatching, InstanceGroup, Kind, Optimization, Scheduler
from nerve.engine.engine import LocalEngine
from nerve.engine.load import Instance
from nerve.engine.padding import Shapes, pad
from nerve.engine.plan import BatchLimits
from nerve.engine.session import Session, gpu_devices
from nerve.errors import (
    DeadlineExceeded,
    InferenceFailed,
    ModelLoadFailed,
    ModelUnloaded,
    QueueFull,
)
from nerve.metrics.engine import EngineMetrics
from nerve.types import FloatArray, IntArray, Row, RowResult

MODELS = Path(__file__).parents[2] / "models"
FAMILIES = ["bert", "distilbert", "roberta", "xlm-roberta", "deberta-v2"]
LONG_US = 10_000_000
PATIENCE_S = 30.0
"""A thread that nobody lets go ends after this, so that a failing test ends."""
BAD = 666
PAD = 9


class FakeSession:
    """A session whose logits are (id, mask), which notes every run and can be held up.

    A batch that holds the id BAD fails.
    """

    device = "cpu"
    gpu: int | None = None
    in_callers_thread = True
    labels = 2
    inputs = frozenset({"input_ids", "attention_mask", "token_type_ids"})

    def __init__(self) -> None:
        self.runs: list[list[list[int]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self._entered: asyncio.Queue[None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def run(self, ids: IntArray, mask: IntArray, type_ids: IntArray | None) -> FloatArray:
        rows = [row[: keep.sum()].tolist() for row, keep in zip(ids, mask, strict=True)]
        self.runs.append(rows)
        self._loop.call_soon_threadsafe(self._entered.put_nowait, None)
        assert self.gate.wait(PATIENCE_S)
        if BAD in ids:
            raise RuntimeError(f"id {BAD} is out of range")
        return np.stack([ids, mask], axis=-1).astype(np.float32)

    def terminate(self) -> None:
        """Runs here are broken off by opening the gate."""
        self.gate.set()

    async def entered(self) -> None:
        """Wait for the next run to begin."""
        await asyncio.wait_for(self._entered.get(), PATIENCE_S)


def row(*ids: int) -> Row:
    return Row(np.array(ids, dtype=np.int64))


def ids_of(result: RowResult) -> list[float]:
    return [float(each) for each in result.logits[:, 0]]


async def everybody_had_a_turn() -> None:
    """Run every callback that is ready, and those that they make ready; no time is waited for."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(
    session: FakeSession,
    *,
    workers: int = 1,
    rows: int = 8,
    tokens: int = 1 << 20,
    delay_s: float = 0.0,
    queue: int = 1 << 20,
    registry: CollectorRegistry | None = None,
) -> AsyncIterator[LocalEngine]:
    """An engine on a fake session, and its end."""
    engine = LocalEngine(
        "ner",
        [Instance(cast("Session", session), None, workers)],
        limits=BatchLimits(rows, tokens, delay_s, queue, Scheduler.FIFO),
        pad_id=PAD,
        metrics=EngineMetrics(registry or CollectorRegistry()).of("ner", 1),
    )
    engine.start()
    try:
        yield engine
    finally:
        session.gate.set()
        await engine.aclose()


@asynccontextmanager
async def opened(
    file: Path, *, pad_id: int = 0, config: ModelConfig | None = None
) -> AsyncIterator[LocalEngine]:
    """An engine on a real session, and its end."""
    engine = await LocalEngine.open(
        "ner",
        file,
        config or ModelConfig(instance_group=[InstanceGroup(count=2)]),
        pad_id=pad_id,
        metrics=EngineMetrics(CollectorRegistry()).of("ner", 1),
    )
    engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No future with an error that nobody looked at, no task that was thrown away."""
    yield
    gc.collect()
    found = [each.getMessage() for each in caplog.records if each.name == "asyncio"]
    assert [text for text in found if "never retrieved" in text or "destroyed" in text] == []


# --- pad ---


def test_pad_fills_up_with_the_pad_id() -> None:
    ids, mask, type_ids = pad([row(1, 2, 3), row(4)], PAD)
    assert ids.tolist() == [[1, 2, 3], [4, PAD, PAD]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert type_ids is None
    assert ids.dtype == mask.dtype == np.dtype(np.int64)


def test_pad_gives_type_ids_when_one_row_has_them() -> None:
    """The others, and the padding, are of type 0."""
    second = Row(np.array([4, 5]), np.array([0, 1]))
    _, _, type_ids = pad([row(1, 2, 3), second], PAD)
    assert type_ids is not None
    assert type_ids.tolist() == [[0, 0, 0], [0, 1, 0]]


# --- order and company ---


@pytest.mark.parametrize(
    ("rows", "tokens", "workers"), [(1, 8, 1), (3, 8, 1), (3, 20, 3), (32, 8192, 2)]
)
async def test_results_are_in_the_order_of_the_request(
    table_graph: Callable[..., Path], tmp_path: Path, rows: int, tokens: int, workers: int
) -> None:
    """However the rows are put into batches: logits of a row are those of its ids, unpadded."""
    random = np.random.default_rng(rows)
    table = random.normal(size=(50, 3)).astype(np.float32)
    config = ModelConfig(
        max_batch_size=rows,
        max_num_tokens=tokens,
        instance_group=[InstanceGroup(count=workers)],
    )
    request = [Row(random.integers(0, 50, size=random.integers(1, 9))) for _ in range(40)]
    async with opened(table_graph(tmp_path / "model.onnx", table), config=config) as engine:
        results = await engine.infer(request, deadline=None)
        statistics = engine.statistics()
    assert len(results) == len(request)
    for each, result in zip(request, results, strict=True):
        np.testing.assert_array_equal(result.logits, table[each.ids])
        assert result.queue_s >= 0
        assert result.inference_s >= 0
    assert statistics.rows == 40
    assert statistics.batches >= 40 / rows
    assert statistics.tokens == sum(len(each.ids) for each in request)
    assert statistics.padded_tokens >= statistics.tokens


async def test_runs_are_counted_by_their_rows() -> None:
    """With the seconds that they took, of which their rows are told, too."""
    session = FakeSession()
    async with serving(session, rows=2) as engine:
        results = await engine.infer([row(1), row(2), row(3)], deadline=None)
        results += await engine.infer([row(4)], deadline=None)
        statistics = engine.statistics()
    one, two = statistics.sizes
    assert (one.rows, one.runs, two.rows, two.runs) == (1, 2, 2, 1)
    assert statistics.batches == 3
    took = sorted({(each.inference_s, each.padding_s) for each in results})
    assert len(took) == 3
    assert sum(each for each, _ in took) == pytest.approx(
        sum(each.padding_s + each.running_s for each in statistics.sizes)
    )
    assert sum(each for _, each in took) == pytest.approx(one.padding_s + two.padding_s)
    for seconds in (*one[2:], *two[2:]):
        assert seconds > 0.0


async def test_a_failed_run_is_not_counted() -> None:
    """Those are that its rows get alone, but for that of the bad row."""
    session = FakeSession()
    session.gate.clear()
    async with serving(session) as engine:
        first = asyncio.create_task(engine.infer([row(1)], deadline=None))
        await session.entered()
        bad = asyncio.create_task(engine.infer([row(BAD)], deadline=None))
        good = asyncio.create_task(engine.infer([row(2)], deadline=None))
        await everybody_had_a_turn()
        session.gate.set()
        await asyncio.gather(first, good)
        with pytest.raises(InferenceFailed):
            await bad
        (one,) = engine.statistics().sizes
    assert (one.rows, one.runs) == (1, 2)


async def test_instances_by_device() -> None:
    """GPUs have a session for each instance, the CPU has one for all."""
    instances = []
    for gpu, workers in [(1, 1), (0, 1), (1, 1), (None, 3)]:
        session = FakeSession()
        session.gpu = gpu
        instances.append(Instance(cast("Session", session), None, workers))
    metrics = EngineMetrics(CollectorRegistry()).of("ner", 1)
    limits = BatchLimits(1, 8, 0.0, 8, Scheduler.FIFO)
    engine = LocalEngine("ner", instances, limits=limits, pad_id=PAD, metrics=metrics)
    assert engine.instances == ((1, 2), (0, 1), (None, 3))
    await engine.aclose()


async def test_rows_of_concurrent_callers_share_a_run() -> None:
    """What came while the only instance was busy goes together when it is free."""
    session = FakeSession()
    session.gate.clear()
    registry = CollectorRegistry()
    async with serving(session, registry=registry) as engine:
        first = asyncio.create_task(engine.infer([row(1)], deadline=None))
        await session.entered()
        others = [
            asyncio.create_task(engine.infer([row(n), row(n, n)], deadline=None)) for n in (2, 3, 4)
        ]
        await everybody_had_a_turn()
        assert engine.statistics().queued_rows == 6
        session.gate.set()
        assert [ids_of(each) for each in await first] == [[1]]
        for number, other in zip((2, 3, 4), others, strict=True):
            assert [ids_of(each) for each in await other] == [[number], [number, number]]
        statistics = engine.statistics()
        told = {
            name: registry.get_sample_value(name, {"model": "ner", "version": "1"})
            for name in COUNTED
        }
    first_run, second_run = session.runs
    assert first_run == [[1]]
    assert sorted(second_run) == [[2], [2, 2], [3], [3, 3], [4], [4, 4]]
    assert (statistics.batches, statistics.rows, statistics.queued_rows) == (2, 7, 0)
    assert (statistics.tokens, statistics.padded_tokens) == (10, 13)
    assert statistics.mean_batch_size == 3.5
    assert told == COUNTED
    for name in COUNTED:  # the last copy of the version has gone, and its series with it
        assert registry.get_sample_value(name, {"model": "ner", "version": "1"}) is None


COUNTED = {
    "nerve_batch_rows_sum": 7,
    "nerve_batch_rows_count": 2,
    "nerve_run_seconds_count": 2,
    "nerve_tokens_total": 10,
    "nerve_padded_tokens_total": 13,
}


async def test_warm_up_reaches_every_session_and_is_not_counted() -> None:
    """Statistics and metrics begin with the traffic; a second device is not cold at READY."""
    sessions = [FakeSession(), FakeSession()]
    registry = CollectorRegistry()
    engine = LocalEngine(
        "ner",
        [Instance(cast("Session", session), None, 1) for session in sessions],
        limits=BatchLimits(8, 1 << 20, 0.0, 8),
        pad_id=PAD,
        metrics=EngineMetrics(registry).of("ner", 1),
    )
    try:
        logits = await engine.warm([row(1, 2), row(1, 2)])
        assert [each.shape for each in logits] == [(2, 2, 2), (2, 2, 2)]
        assert [len(session.runs) for session in sessions] == [1, 1]
        assert (engine.statistics().rows, engine.statistics().mean_batch_size) == (0, 0.0)
        assert (
            registry.get_sample_value("nerve_tokens_total", {"model": "ner", "version": "1"})
            is None
        )
        engine.start()
        await engine.infer([row(1, 2)], deadline=None)
        assert engine.statistics().rows == 1
        assert (
            registry.get_sample_value("nerve_tokens_total", {"model": "ner", "version": "1"}) == 2
        )
    finally:
        await engine.aclose()


async def test_instances_run_at_the_same_time() -> None:
    """Two runs have begun before either may end."""
    session = FakeSession()
    session.gate.clear()
    async with serving(session, workers=2, rows=1) as engine:
        both = asyncio.create_task(engine.infer([row(1), row(2)], deadline=None))
        await session.entered()
        await session.entered()
        session.gate.set()
        assert [ids_of(each) for each in await both] == [[1], [2]]


async def test_a_result_does_not_hold_its_batch() -> None:
    """A slow client keeps its own row in memory, not those of strangers."""
    session = FakeSession()
    async with serving(session, rows=2, delay_s=PATIENCE_S) as engine:
        first, second = await engine.infer([row(1, 2, 3), row(4)], deadline=None)
    for result, shape in ((first, (3, 2)), (second, (1, 2))):
        assert result.logits.shape == shape
        assert result.logits.base is None


@pytest.mark.parametrize("family", FAMILIES)
async def test_company_does_not_change_an_answer(family: str) -> None:
    """Logits of a row in a padded batch of strangers equal those of the row alone."""
    random = np.random.default_rng(3)
    pad_id = 1 if "roberta" in family else 0
    request = [Row(random.integers(5, 1500, size=length)) for length in (3, 60, 17, 1, 128, 8)]
    config = ModelConfig(
        max_batch_size=len(request),
        dynamic_batching=DynamicBatching(
            scheduler=Scheduler.FIFO, max_queue_delay_microseconds=LONG_US
        ),
        instance_group=[InstanceGroup(count=1)],
    )
    file = MODELS / family / "model.onnx"
    async with opened(file, pad_id=pad_id, config=config) as engine:
        together = await engine.infer(request, deadline=None)
        assert engine.statistics().batches == 1
    async with opened(file, pad_id=pad_id) as engine:
        for each, company in zip(request, together, strict=True):
            (alone,) = await engine.infer([each], deadline=None)
            assert alone.logits.shape == (len(each.ids), 9)
            np.testing.assert_allclose(company.logits, alone.logits, rtol=0, atol=1e-5)


# --- deadlines and callers that leave ---


async def test_a_row_whose_deadline_passes_in_the_queue_never_runs() -> None:
    session = FakeSession()
    session.gate.clear()
    async with serving(session) as engine:
        first = asyncio.create_task(engine.infer([row(1)], deadline=None))
        await session.entered()
        with pytest.raises(DeadlineExceeded):
            await engine.infer([row(2), row(3)], deadline=time.monotonic() + 0.01)
        assert engine.statistics().queued_rows == 0
        session.gate.set()
        assert [ids_of(each) for each in await first] == [[1]]
        assert [ids_of(each) for each in await engine.infer([row(4)], deadline=None)] == [[4]]
    assert session.runs == [[[1]], [[4]]]


async def test_a_request_that_comes_too_late_never_runs() -> None:
    """Its deadline has passed before it is queued; a free instance must not take it up."""
    session = FakeSession()
    async with serving(session) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.infer([row(1)], deadline=time.monotonic() - 1.0)
        await everybody_had_a_turn()
    assert session.runs == []


async def test_a_deadline_during_the_run_is_kept() -> None:
    """The caller is answered at once; others of the same batch get their results."""
    session = FakeSession()
    session.gate.clear()
    async with serving(session, rows=2, delay_s=PATIENCE_S) as engine:
        mate = asyncio.create_task(engine.infer([row(1)], deadline=None))
        late = asyncio.create_task(engine.infer([row(2)], deadline=time.monotonic() + 0.2))
        with pytest.raises(DeadlineExceeded):
            await late
        session.gate.set()
        # on a machine so slow that the late row did not even join, somebody else must
        filler = asyncio.create_task(engine.infer([row(3)], deadline=None))
        assert [ids_of(each) for each in await mate] == [[1]]
        filler.cancel()
        await asyncio.gather(filler, return_exceptions=True)


async def test_a_deadline_that_is_kept_changes_nothing() -> None:
    async with serving(FakeSession()) as engine:
        results = await engine.infer([row(1)], deadline=time.monotonic() + PATIENCE_S)
        assert [ids_of(each) for each in results] == [[1]]


async def test_a_caller_that_leaves_frees_its_place() -> None:
    """Its rows never run, and the queue takes another request."""
    session = FakeSession()
    session.gate.clear()
    async with serving(session, queue=1) as engine:
        first = asyncio.create_task(engine.infer([row(1)], deadline=None))
        await session.entered()
        leaving = asyncio.create_task(engine.infer([row(2), row(3)], deadline=None))
        await everybody_had_a_turn()
        with pytest.raises(QueueFull):
            await engine.infer([row(4)], deadline=None)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert leaving.cancelled()
        assert engine.statistics().queued_rows == 0
        last = asyncio.create_task(engine.infer([row(5)], deadline=None))
        await everybody_had_a_turn()
        session.gate.set()
        assert [ids_of(each) for each in await first] == [[1]]
        assert [ids_of(each) for each in await last] == [[5]]
    assert session.runs == [[[1]], [[5]]]


async def test_a_caller_that_leaves_in_mid_run_disturbs_nobody() -> None:
    session = FakeSession()
    session.gate.clear()
    async with serving(session, rows=2, delay_s=PATIENCE_S) as engine:
        leaving = asyncio.create_task(engine.infer([row(1)], deadline=None))
        mate = asyncio.create_task(engine.infer([row(2)], deadline=None))
        await session.entered()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        session.gate.set()
        assert [ids_of(each) for each in await mate] == [[2]]


# --- rows that fail ---


async def test_a_bad_row_fails_alone() -> None:
    """Its batch mates are run again, one by one, and succeed; the instance goes on."""
    session = FakeSession()
    async with serving(session, rows=3, delay_s=PATIENCE_S) as engine:
        good, bad, fine = (
            asyncio.create_task(engine.infer([each], deadline=None))
            for each in (row(1, 2), row(BAD), row(3))
        )
        assert [ids_of(each) for each in await good] == [[1, 2]]
        assert [ids_of(each) for each in await fine] == [[3]]
        with pytest.raises(InferenceFailed, match=r"'ner' failed to run: id 666 is out of range"):
            await bad
        again = [row(4), row(5), row(6)]
        results = await engine.infer(again, deadline=None)
        assert [ids_of(each) for each in results] == [[4], [5], [6]]
    assert session.runs == [
        [[1, 2], [BAD], [3]],
        [[1, 2]],
        [[BAD]],
        [[3]],
        [[4], [5], [6]],
    ]


async def test_a_row_that_failed_alone_is_not_tried_again() -> None:
    session = FakeSession()
    async with serving(session) as engine:
        with pytest.raises(InferenceFailed):
            await engine.infer([row(BAD)], deadline=None)
    assert session.runs == [[[BAD]]]


async def test_a_request_with_a_bad_row_fails_whole() -> None:
    """Rows of it that did not run yet never do."""
    session = FakeSession()
    async with serving(session, rows=2) as engine:
        with pytest.raises(InferenceFailed):
            await engine.infer([row(BAD), row(1), row(2), row(3)], deadline=None)
        assert engine.statistics().queued_rows == 0
        assert [ids_of(each) for each in await engine.infer([row(4)], deadline=None)] == [[4]]
    ran = [ids for rows in session.runs for ids in rows]
    assert [2] not in ran
    assert [3] not in ran


async def test_a_bad_row_on_the_real_runtime(
    table_graph: Callable[..., Path], tmp_path: Path
) -> None:
    """An id beyond the vocabulary."""
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    config = ModelConfig(
        max_batch_size=3,
        dynamic_batching=DynamicBatching(
            scheduler=Scheduler.FIFO, max_queue_delay_microseconds=LONG_US
        ),
        instance_group=[InstanceGroup(count=1)],
    )
    async with opened(table_graph(tmp_path / "model.onnx", table), config=config) as engine:
        tasks = [
            asyncio.create_task(engine.infer([each], deadline=None))
            for each in (row(1, 2), row(5000), row(3))
        ]
        good, bad, fine = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(bad, InferenceFailed)
        assert "out of data bounds" in str(bad)
        for ids, results in (([1, 2], good), ([3], fine)):
            assert isinstance(results, list)
            np.testing.assert_array_equal(results[0].logits, table[ids])
        assert engine.statistics().queued_rows == 0


# --- the end ---


async def test_closing_fails_what_waits_and_what_runs() -> None:
    """Nobody is left waiting for ever, and the run in progress is waited for."""
    session = FakeSession()
    session.gate.clear()
    async with serving(session, rows=1) as engine:
        running = asyncio.create_task(engine.infer([row(1)], deadline=None))
        await session.entered()
        waiting = asyncio.create_task(engine.infer([row(2)], deadline=None))
        await everybody_had_a_turn()
        closing = asyncio.create_task(engine.aclose())
        for each in (running, waiting):
            with pytest.raises(ModelUnloaded, match="'ner'"):
                await each
        assert not closing.done()
        session.gate.set()
        await closing
        with pytest.raises(ModelUnloaded):
            await engine.infer([row(3)], deadline=None)
    assert session.runs == [[[1]]]


async def test_closing_ends_every_task_and_thread() -> None:
    """Twice is no error."""
    session = FakeSession()
    async with serving(session, workers=3) as engine:
        await engine.infer([row(1)], deadline=None)
        assert "nerve-ner_0" in {thread.name for thread in threading.enumerate()}
        await engine.aclose()
        assert not {task.get_name() for task in asyncio.all_tasks()} & {"worker-ner"}
        assert not [t for t in threading.enumerate() if t.name.startswith("nerve-ner")]


# --- open ---


async def test_open_tells_what_the_graph_is(
    table_graph: Callable[..., Path], tmp_path: Path
) -> None:
    table = np.zeros((4, 7), dtype=np.float32)
    async with opened(table_graph(tmp_path / "a.onnx", table)) as engine:
        assert (engine.device, engine.labels) == ("cpu", 7)
        assert "token_type_ids" not in engine.inputs
    file = table_graph(tmp_path / "b.onnx", table, states_labels=False)
    async with opened(file) as engine:
        assert engine.labels is None
    async with opened(MODELS / "bert" / "model.onnx") as engine:
        assert engine.labels == 9
        assert "token_type_ids" in engine.inputs


@pytest.mark.parametrize(
    ("groups", "fault"),
    [
        pytest.param([InstanceGroup()], "cannot be loaded", id="broken file"),
        pytest.param(
            [InstanceGroup(kind=Kind.GPU)],
            "asks for a GPU",
            id="no GPU",
            marks=pytest.mark.skipif(bool(gpu_devices()), reason="this machine has a GPU"),
        ),
    ],
)
async def test_open_that_fails_leaves_nothing(
    tmp_path: Path, groups: Sequence[InstanceGroup], fault: str
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"no graph")
    before = asyncio.all_tasks()
    with pytest.raises(ModelLoadFailed, match=fault):
        async with opened(file, config=ModelConfig(instance_group=list(groups))):
            pass
    assert asyncio.all_tasks() == before


async def test_a_lone_run_has_the_session_for_lone_runs() -> None:
    """It takes what comes while nothing else runs or waits, and teaches the cost model nothing."""
    session, solo = FakeSession(), FakeSession()
    engine = LocalEngine(
        "ner",
        [Instance(cast("Session", session), cast("Session", solo), 2)],
        limits=BatchLimits(8, 1 << 20, 0.0, 8),
        pad_id=PAD,
        metrics=EngineMetrics(CollectorRegistry()).of("ner", 1),
    )
    engine.start()
    try:
        await everybody_had_a_turn()
        solo.gate.clear()
        first = asyncio.create_task(engine.infer([row(1, 2)], deadline=None))
        await solo.entered()
        await engine.infer([row(3)], deadline=None)  # beside the first
        solo.gate.set()
        await first
        await everybody_had_a_turn()
        await engine.infer([row(4)], deadline=None)
        assert (solo.runs, session.runs) == ([[[1, 2]], [[4]]], [[[3]]])
    finally:
        solo.gate.set()
        await engine.aclose()


async def test_shapes_are_measured_before_anything_is_served() -> None:
    """Within the limits, uncounted; then there is a cost model of this session."""
    session = FakeSession()
    engine = LocalEngine(
        "ner",
        [Instance(cast("Session", session), None, 1)],
        limits=BatchLimits(4, 64, 0.0, 8),
        pad_id=PAD,
        metrics=EngineMetrics(CollectorRegistry()).of("ner", 1),
    )
    try:
        before = engine.statistics().cost
        await engine.measure(longest=16)
        shapes = {(len(run), len(run[0])) for run in session.runs}
        assert shapes == {(1, 4), (1, 16), (4, 16)}
        assert {token for run in session.runs for tokens in run for token in tokens} == {PAD}
        statistics = engine.statistics()
        assert statistics.cost != before
        assert (statistics.batches, statistics.padding_waste) == (0, 0.0)
    finally:
        await engine.aclose()


async def test_a_session_that_fails_when_it_is_measured() -> None:
    session = FakeSession()
    engine = LocalEngine(
        "ner",
        [Instance(cast("Session", session), None, 1)],
        limits=BatchLimits(4, 64, 0.0, 8),
        pad_id=BAD,
        metrics=EngineMetrics(CollectorRegistry()).of("ner", 1),
    )
    try:
        with pytest.raises(InferenceFailed, match="out of range"):
            await engine.measure(longest=16)
    finally:
        await engine.aclose()


async def test_a_graph_that_minds_company_gets_none() -> None:
    """`batch_invariant`: a row a run, whatever waits."""
    config = ModelConfig(
        optimization=Optimization(batch_invariant=True, solo_threads=1),
        instance_group=[InstanceGroup(count=1)],
    )
    async with opened(MODELS / "bert" / "model.onnx", config=config) as engine:
        await engine.infer([row(1, 2), row(3, 4), row(5, 6)], deadline=None)
        assert engine.statistics().batches == 3


async def test_a_session_for_lone_runs_gives_the_same_answers() -> None:
    """Bit for bit: two threads or one."""
    request = [Row(np.arange(5, 25))]
    answers = []
    for threads in (1, 2):
        config = ModelConfig(
            optimization=Optimization(solo_threads=threads),
            instance_group=[InstanceGroup(count=2)],
        )
        async with opened(MODELS / "bert" / "model.onnx", config=config) as engine:
            await everybody_had_a_turn()
            (result,) = await engine.infer(request, deadline=None)
            answers.append(result.logits)
    np.testing.assert_array_equal(answers[0], answers[1])


@pytest.mark.parametrize(
    ("device", "padded"), [("gpu", [(1, 4), (4, 4)]), ("cpu", [(1, 3), (3, 4)])]
)
async def test_runs_on_a_gpu_are_padded_to_shapes(
    device: str, padded: list[tuple[int, int]]
) -> None:
    """What is added reaches no caller; it is counted as padding."""
    session = FakeSession()
    session.device = device
    shapes: list[tuple[int, int]] = []
    plain = session.run

    def run(ids: IntArray, mask: IntArray, type_ids: IntArray | None) -> FloatArray:
        shapes.append((ids.shape[0], ids.shape[1]))
        return plain(ids, mask, type_ids)

    session.run = run  # type: ignore[method-assign]
    async with serving(session) as engine:
        engine.round_on_gpus(Shapes((4, 8), (1, 2, 4), 100))
        (one,) = await engine.infer([row(1, 2, 3)], deadline=None)
        three = await engine.infer([row(4), row(5, 6, 7, 8), row(9, 9)], deadline=None)
    assert ids_of(one) == [1, 2, 3]
    assert [ids_of(each) for each in three] == [[4], [5, 6, 7, 8], [9, 9]]
    assert shapes == padded
    assert engine.statistics().padded_tokens == sum(rows * tokens for rows, tokens in padded)
    assert engine.statistics().tokens == 10


async def test_a_batch_that_nobody_waits_for_any_more_is_not_run() -> None:
    """It was taken ahead of the run before it, and its callers have left."""
    session = FakeSession()
    session.gate.clear()
    async with serving(session) as engine:
        first = asyncio.create_task(engine.infer([row(1)], deadline=None))
        await session.entered()
        left = asyncio.create_task(
            engine.infer([row(number) for number in range(2, 10)], deadline=None)
        )
        await everybody_had_a_turn()
        assert engine.statistics().queued_rows == 0  # taken ahead
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        session.gate.set()
        await first
        await engine.infer([row(10)], deadline=None)
    assert session.runs == [[[1]], [[10]]]


async def test_who_runs_alone_waits_for_no_company() -> None:
    config = ModelConfig(
        dynamic_batching=DynamicBatching(max_queue_delay_microseconds=LONG_US),
        optimization=Optimization(batch_invariant=True, solo_threads=1),
        instance_group=[InstanceGroup(count=1)],
    )
    async with opened(MODELS / "bert" / "model.onnx", config=config) as engine:
        (result,) = await engine.infer([row(1, 2)], deadline=time.monotonic() + PATIENCE_S)
        assert result.queue_s < LONG_US / 1e6 / 2
