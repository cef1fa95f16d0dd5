"""The engine in this process: sessions, one worker task an instance, and the batcher between them."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np

from nerve.config.model import GraphLevel, ModelConfig
from nerve.engine.batcher import Batcher, BatchLimits, Waiter
from nerve.engine.instances import Placement, cores, place
from nerve.engine.memory import give_memory_back
from nerve.engine.session import LoadStop, Session, gpu_devices
from nerve.errors import DeadlineExceeded, InferenceFailed, ModelUnloaded
from nerve.metrics import RunMetrics
from nerve.threads import in_own_thread
from nerve.types import EngineStatistics, FloatArray, IntArray, Row, RowResult

log = logging.getLogger(__name__)


def pad(rows: Sequence[Row], pad_id: int) -> tuple[IntArray, IntArray, IntArray | None]:
    """Ragged rows -> ids, attention mask, type ids (None when all zero), each (rows, longest)."""
    if len(rows) == 1:  # the usual batch of an idle server needs no padding
        (row,) = rows
        ids = row.ids[None]
        return ids, np.ones_like(ids), None if row.type_ids is None else row.type_ids[None]
    lengths = np.array([len(row.ids) for row in rows])
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    filled = mask.astype(np.bool_)
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[filled] = np.concatenate([row.ids for row in rows])
    if all(row.type_ids is None for row in rows):
        return ids, mask, None
    type_ids = np.zeros_like(ids)
    type_ids[filled] = np.concatenate(
        [np.zeros_like(row.ids) if row.type_ids is None else row.type_ids for row in rows]
    )
    return ids, mask, type_ids


def _load(
    file: Path,
    config: ModelConfig,
    external: Mapping[str, Path],
    stop: LoadStop,
    optimised: Path | None,
) -> list[tuple[Session, Placement]]:
    """A session for each placement."""
    optimization = config.optimization
    placements = place(
        config.instance_group,
        gpus=gpu_devices(),
        cores=cores(),
        threads_per_run=optimization.intra_op_threads,
    )
    sessions = []
    for placement in placements:
        ready = None if placement.gpu is not None else optimised  # it was made for the CPU
        session = Session(
            ready or file,
            gpu=placement.gpu,
            graph_level=GraphLevel.DISABLE if ready else optimization.graph_level,
            intra_op_threads=optimization.intra_op_threads,
            external={} if ready else external,
            stop=stop,
        )
        sessions.append((session, placement))
    return sessions


class LocalEngine:
    """`nerve.types.Engine` on this machine's devices. Use `LocalEngine.open`, then `aclose`."""

    def __init__(
        self,
        model: str,
        sessions: Sequence[tuple[Session, Placement]],
        *,
        limits: BatchLimits,
        pad_id: int,
        metrics: RunMetrics,
    ) -> None:
        self._model, self._pad_id, self._metrics = model, pad_id, metrics
        self._sessions = list(sessions)
        self._batcher = Batcher(model, limits)
        self._batches = self._rows = self._tokens = self._padded = 0
        count = sum(placement.workers for _, placement in self._sessions)
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
        Raises:
            ModelLoadFailed, RuntimeMissing: from `place` and `Session`.
        """
        batching = config.dynamic_batching
        limits = BatchLimits(
            max_batch_size=config.max_batch_size,
            max_num_tokens=config.max_num_tokens,
            max_queue_delay_s=batching.max_queue_delay_microseconds / 1e6,
            max_queue_size=batching.max_queue_size,
        )
        stop = LoadStop()
        load = functools.partial(_load, file, config, external or {}, stop, optimised)
        sessions = await in_own_thread(load, name=f"nerve-load-{model}", stop=stop.set)
        return cls(model, sessions, limits=limits, pad_id=pad_id, metrics=metrics)

    async def warm(self, rows: Sequence[Row]) -> list[FloatArray]:
        """Run `rows` as one batch on every session, uncounted; (rows, longest, labels) of each.

        Raises:
            InferenceFailed: the runtime raised.
        """
        loop = asyncio.get_running_loop()
        try:
            return [
                await loop.run_in_executor(self._threads, self._compute, session, rows)
                for session, _ in self._sessions
            ]
        except Exception as error:
            raise InferenceFailed(self._model, str(error)) from error

    def start(self) -> None:
        """Begin to take rows off the queue."""
        for session, placement in self._sessions:
            for _ in range(placement.workers):
                worker = self._serve(session)
                self._workers.append(asyncio.create_task(worker, name=f"worker-{self._model}"))

    @property
    def device(self) -> str:
        """`gpu` if any instance runs on one, else `cpu`."""
        return "gpu" if any(session.device == "gpu" for session, _ in self._sessions) else "cpu"

    @property
    def labels(self) -> int | None:
        """Width of the logits, if the graph states it."""
        return self._sessions[0][0].labels

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the graph's inputs."""
        return self._sessions[0][0].inputs

    def statistics(self) -> EngineStatistics:
        """Totals so far."""
        return EngineStatistics(
            self._batches, self._rows, self._tokens, self._padded, self._batcher.queued
        )

    def check_room(self) -> None:
        """See `nerve.types.Engine.check_room`."""
        self._batcher.check_room()

    async def infer(self, rows: Sequence[Row], *, deadline: float | None) -> list[RowResult]:
        """See `nerve.types.Engine.infer`."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise DeadlineExceeded
        futures = self._batcher.submit(rows)
        try:
            async with asyncio.timeout(left):
                return await asyncio.gather(*futures)
        except TimeoutError:
            raise DeadlineExceeded from None
        finally:
            for future in futures:  # rows of a failed or abandoned request must not run
                future.cancel()

    async def _serve(self, session: Session) -> None:
        while True:
            batch = await self._batcher.next_batch()
            try:
                await self._run(session, batch)
            except Exception as error:  # noqa: BLE001  boundary: a bad row must not stop its queue
                await self._run_alone(session, batch, error)
            finally:  # unloaded in mid-run: nobody is left waiting for ever
                for waiter in batch:
                    waiter.fail(ModelUnloaded(self._model))

    async def _run(self, session: Session, batch: Sequence[Waiter]) -> None:
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        rows = [waiter.row for waiter in batch]
        logits = await loop.run_in_executor(self._threads, self._compute, session, rows)
        took = time.monotonic() - began
        self._count(rows, padded_tokens=logits.shape[0] * logits.shape[1], took_s=took)
        for waiter, scores in zip(batch, logits, strict=True):
            own = scores[: len(waiter.row.ids)]
            if len(batch) > 1:  # one row kept by a slow client must not hold the whole batch
                own = own.copy()
            waiter.settle(RowResult(own, queue_s=began - waiter.arrived, inference_s=took))

    def _count(self, rows: Sequence[Row], *, padded_tokens: int, took_s: float) -> None:
        tokens = sum(len(row.ids) for row in rows)
        self._batches += 1
        self._rows += len(rows)
        self._tokens += tokens
        self._padded += padded_tokens
        self._metrics.observe(len(rows), tokens, padded_tokens, took_s)

    def _compute(self, session: Session, rows: Sequence[Row]) -> FloatArray:
        return session.run(*pad(rows, self._pad_id))

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
        for session, _ in self._sessions:
            session.terminate()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._workers.clear()  # with the frames that hold sessions
        self._metrics.close()
        await asyncio.to_thread(self._free)

    def _free(self) -> None:
        self._threads.shutdown()
        self._sessions.clear()
        give_memory_back()
