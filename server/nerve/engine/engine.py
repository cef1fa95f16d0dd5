"""The engine in this process: sessions, one worker task an instance, and the batcher between them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np

from nerve.config.model import ModelConfig
from nerve.config.running import Scheduler
from nerve.engine.batcher import Batcher, Waiter
from nerve.engine.cost import Run
from nerve.engine.load import Graph, Instance, load_instances
from nerve.engine.memory import give_memory_back
from nerve.engine.padding import Shapes, pad
from nerve.engine.plan import BatchLimits
from nerve.engine.session import Session
from nerve.engine.totals import Totals
from nerve.engine.traced import traced_run
from nerve.errors import DeadlineExceeded, InferenceFailed, ModelUnloaded
from nerve.metrics.engine import RunMetrics
from nerve.types import EngineStatistics, FloatArray, Row, RowResult

log = logging.getLogger(__name__)

MEASURE_S: Final = 0.25
"""A run that begins within so many seconds is still measured."""
MEASURED_SHAPES: Final = (
    (1, 4), (1, 16), (1, 64), (4, 16), (16, 16), (4, 64), (16, 32), (8, 128),
)  # fmt: skip
"""Rows and tokens, from short to long."""


class _Done(NamedTuple):
    """What a run gave.

    `logits` (rows, longest, labels), on a GPU with what `Shapes` adds; `began` in monotonic seconds;
    `took_s`, of that `padding_s` before the run; `cost_s` for the cost model: where a run happens in
    one thread, seconds of its core, as what else the machine does meanwhile says nothing of the run.
    """

    logits: FloatArray
    began: float
    took_s: float
    padding_s: float
    cost_s: float


def _limits(config: ModelConfig) -> BatchLimits:
    batching = config.dynamic_batching
    alone = config.optimization.batch_invariant or batching.scheduler is Scheduler.NONE
    return BatchLimits(
        max_batch_size=1 if alone else config.max_batch_size,
        max_num_tokens=config.max_num_tokens,
        max_queue_delay_s=batching.max_queue_delay_microseconds / 1e6,
        max_queue_size=batching.max_queue_size,
        max_queue_tokens=batching.max_queue_tokens,
        scheduler=batching.scheduler,
        priority_step_s=batching.priority_step_microseconds / 1e6,
        default_priority=batching.default_priority,
    )


class LocalEngine:
    """`nerve.types.Engine` on this machine's devices. Use `LocalEngine.open`, then `aclose`."""

    def __init__(
        self,
        model: str,
        instances: Sequence[Instance],
        *,
        limits: BatchLimits,
        pad_id: int,
        metrics: RunMetrics,
    ) -> None:
        self._model, self._pad_id, self._metrics = model, pad_id, metrics
        self._instances = list(instances)
        count = sum(instance.workers for instance in instances)
        # A batch waits in the threads' queue for the run before it to end, so that none waits for
        # the loop. It could only go to one of several sessions, which may be the busy one.
        self._ahead = 1 if len(instances) == 1 else 0
        self._batcher = Batcher(model, limits, workers=count, ahead=self._ahead)
        self._totals = Totals()
        self._shapes: Shapes | None = None
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=f"nerve-{model}")
        self._workers: list[asyncio.Task[None]] = []

    @classmethod
    async def open(
        cls,
        model: str,
        file: Path,
        config: ModelConfig,
        *,
        pad_id: int,
        metrics: RunMetrics,
        external: Mapping[str, Path] | None = None,
        optimised: Path | None = None,
        lean: bool = False,
    ) -> Self:
        """Load the sessions. `warm` them, then `start`.

        When this is cancelled, the load is broken off and what there is of it is freed.

        Args:
            model: name, for errors and threads.
            file: the graph.
            config: of the model.
            pad_id: token id that fills short rows.
            metrics: what batches are counted in.
            external: see `Session`.
            optimised: the same graph, optimised for this CPU; sessions on the CPU are made of it.
            lean: do without sessions that only make answers quicker.
        Raises:
            ModelLoadFailed, RuntimeMissing: from `place` and `Session`.
        """
        graph = Graph(file, external or {}, optimised, lean)
        instances = await load_instances(graph, config, name=f"nerve-load-{model}")
        return cls(model, instances, limits=_limits(config), pad_id=pad_id, metrics=metrics)

    def round_on_gpus(self, shapes: Shapes | None) -> None:
        """Pad the runs on GPUs to `shapes`; said before the first run."""
        self._shapes = shapes
        if shapes is not None and self.device == "gpu":
            self._batcher.round_up(shapes.lengths)

    async def warm(self, rows: Sequence[Row]) -> list[FloatArray]:
        """Run `rows` as one batch on every session, uncounted; (rows, longest, labels) of each.

        Raises:
            InferenceFailed: the runtime raised.
        """
        loop = asyncio.get_running_loop()
        longest = max(len(row.ids) for row in rows)
        try:
            return [
                (await loop.run_in_executor(self._threads, self._compute, session, rows)).logits[
                    : len(rows), :longest
                ]
                for session in self._sessions()
            ]
        except Exception as error:
            raise InferenceFailed(self._model, str(error)) from error

    async def measure(self, longest: int) -> None:
        """Learn what runs take, from some of rows of up to `longest` tokens, in bounded time.

        Raises:
            InferenceFailed: the runtime raised.
        """
        loop = asyncio.get_running_loop()
        session = self._instances[0].session
        runs: dict[tuple[int, int], float] = {}
        until = time.monotonic() + MEASURE_S
        shapes = [
            (rows, length)
            for rows, length in MEASURED_SHAPES
            if length <= longest
            and rows <= self._batcher.limits.max_batch_size
            and (rows == 1 or rows * length <= self._batcher.limits.max_num_tokens)
        ]
        # The second time around counts: the first may include what is done once for a shape.
        for rows, length in shapes * 2:
            batch = [Row(np.full(length, self._pad_id, dtype=np.int64))] * rows
            try:
                done = await loop.run_in_executor(self._threads, self._compute, session, batch)
            except Exception as error:
                raise InferenceFailed(self._model, str(error)) from error
            shape = done.logits.shape[0], done.logits.shape[1]
            runs[shape] = min(done.cost_s, runs.get(shape, done.cost_s))
            if time.monotonic() > until:
                break
        self._batcher.begin([Run(*shape, took) for shape, took in runs.items()])

    def start(self) -> None:
        """Begin to take rows off the queue."""
        self._metrics.watch(self._batcher.look)
        for instance in self._instances:
            for _ in range(instance.workers + self._ahead):
                worker = self._serve(instance)
                self._workers.append(asyncio.create_task(worker, name=f"worker-{self._model}"))

    @property
    def device(self) -> str:
        """`gpu` if any instance runs on one, else `cpu`."""
        return "gpu" if any(session.device == "gpu" for session in self._sessions()) else "cpu"

    @property
    def labels(self) -> int | None:
        """Width of the logits, if the graph states it."""
        return self._instances[0].session.labels

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the graph's inputs."""
        return self._instances[0].session.inputs

    @property
    def instances(self) -> tuple[tuple[int | None, int], ...]:
        """See `nerve.types.ModelInfo`."""
        counts: Counter[int | None] = Counter()
        for instance in self._instances:
            counts[instance.session.gpu] += instance.workers
        return tuple(counts.items())

    def statistics(self) -> EngineStatistics:
        """Totals so far."""
        batcher = self._batcher
        return self._totals.statistics(queued_rows=batcher.queued, cost=batcher.cost)

    def check_room(self) -> None:
        """See `nerve.types.Engine.check_room`."""
        self._batcher.check_room()

    async def infer(
        self, rows: Sequence[Row], *, deadline: float | None, priority: int | None = None
    ) -> list[RowResult]:
        """See `nerve.types.Engine.infer`."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise DeadlineExceeded
        futures = self._batcher.submit(rows, deadline=deadline, priority=priority)
        try:
            async with asyncio.timeout(left):
                if len(futures) == 1:  # most requests
                    return [await futures[0]]
                return await asyncio.gather(*futures)
        except TimeoutError:
            raise DeadlineExceeded from None
        finally:
            for future in futures:  # rows of a failed or abandoned request must not run
                future.cancel()

    async def _serve(self, instance: Instance) -> None:
        while True:
            batch = await self._batcher.next_batch()
            session = instance.solo if batch.alone and instance.solo else instance.session
            try:
                await self._run(session, batch.waiters)
            except Exception as error:  # noqa: BLE001  boundary: a bad row must not stop its queue
                await self._run_alone(session, batch.waiters, error)
            finally:  # unloaded in mid-run: nobody is left waiting for ever
                for waiter in batch.waiters:
                    waiter.fail(ModelUnloaded(self._model))

    async def _run(self, session: Session, batch: Sequence[Waiter]) -> None:
        loop = asyncio.get_running_loop()
        rows = [waiter.row for waiter in batch]

        def work() -> _Done | None:
            # It may have waited in the threads' queue, and all its callers have gone meanwhile.
            wanted = any(not waiter.future.done() for waiter in batch)
            return self._compute(session, rows) if wanted else None

        done = await loop.run_in_executor(self._threads, work)
        if done is None:
            return
        came, logits = time.monotonic(), done.logits
        count, length = logits.shape[:2]
        run = traced_run(
            batch,
            began=done.began,
            took_s=done.took_s,
            padded_tokens=count * length,
            device=session.device,
        )
        for waiter, scores in zip(batch, logits[: len(batch)], strict=True):
            own = scores[: len(waiter.row.ids)]
            if count > 1:  # one row kept by a slow client must not hold the whole batch
                own = own.copy()
            queue_s = done.began - waiter.arrived
            waiter.settle(RowResult(own, queue_s, done.took_s, done.padding_s, run))
        self._count(rows, done, output_s=time.monotonic() - came)
        if any(session is instance.solo for instance in self._instances):
            self._batcher.observe_lone()
        else:
            self._batcher.observe(Run(count, length, done.cost_s), took_s=done.took_s)

    def _count(self, rows: Sequence[Row], done: _Done, *, output_s: float) -> None:
        lengths = [len(row.ids) for row in rows]
        padded_tokens = done.logits.shape[0] * done.logits.shape[1]
        self._totals.count(
            len(rows),
            tokens=sum(lengths),
            padded_tokens=padded_tokens,
            padding_s=done.padding_s,
            running_s=done.took_s - done.padding_s,
            output_s=output_s,
        )
        self._metrics.observe(lengths, padded_tokens, done.took_s)

    def _compute(self, session: Session, rows: Sequence[Row]) -> _Done:
        began, used = time.monotonic(), time.thread_time()
        shapes = self._shapes if session.device == "gpu" else None
        padded = pad(rows, self._pad_id, shapes)
        padding = time.monotonic() - began
        logits = session.run(*padded)
        took, used = time.monotonic() - began, time.thread_time() - used
        # Some systems count a thread's time in steps of 10 ms and more.
        cost = used if session.in_callers_thread and used > 0 else took
        return _Done(logits, began, took, padding, cost)

    def _sessions(self) -> list[Session]:
        """Every session once."""
        return [
            session
            for instance in self._instances
            for session in (instance.session, instance.solo)
            if session is not None
        ]

    async def _run_alone(self, session: Session, batch: Sequence[Waiter], error: Exception) -> None:
        """After a failed batch: run its rows one by one, so that only the bad one fails."""
        log.error("a batch of %d failed", len(batch), exc_info=error, extra={"model": self._model})
        for waiter in batch:
            if waiter.future.done():
                continue
            if len(batch) > 1:
                try:
                    await self._run(session, [waiter])
                except Exception as alone:  # noqa: BLE001  boundary, as above
                    waiter.fail(InferenceFailed(self._model, str(alone)))
            else:
                waiter.fail(InferenceFailed(self._model, str(error)))

    async def aclose(self) -> None:
        """Stop the workers; a run in progress is broken off, rows that wait fail."""
        self._batcher.close()
        for session in self._sessions():
            session.terminate()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._workers.clear()  # with the frames that hold sessions
        self._metrics.close()
        await asyncio.to_thread(self._free)

    def _free(self) -> None:
        self._threads.shutdown()
        self._instances.clear()
        give_memory_back()
