"""A graph in sessions: where they go, how many there are, and their load side by side."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from nerve.config.model import ModelConfig
from nerve.config.running import GraphLevel
from nerve.engine.instances import Placement, cores, place, solo_threads
from nerve.engine.providers import OnGpu
from nerve.engine.session import LoadStop, Session, gpu_devices
from nerve.errors import ModelLoadFailed
from nerve.threads import in_own_thread, in_thread

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Instance:
    """A session with its workers. `solo`, if any, runs what has the machine to itself."""

    session: Session
    solo: Session | None
    workers: int


@dataclass(frozen=True, slots=True)
class Graph:
    """What sessions are made of.

    `external` are its data files by the location that it names them with; `optimised` is the same
    graph, optimised for this CPU; `lean` does without sessions that only make answers quicker.
    """

    file: Path
    external: Mapping[str, Path]
    optimised: Path | None
    lean: bool

    @property
    def size_bytes(self) -> int:
        """Of all its files, or 0 if one cannot be looked at; the load will tell."""
        try:
            return sum(each.stat().st_size for each in (self.file, *self.external.values()))
        except OSError:
            return 0


async def load_instances(graph: Graph, config: ModelConfig, *, name: str) -> list[Instance]:
    """Load the instances of a model in threads called `name`; broken off when this is cancelled.

    Raises:
        ModelLoadFailed, RuntimeMissing: from `place` and `Session`.
    """
    stop = LoadStop()
    load = functools.partial(_load, graph, config, stop, name)
    return await in_own_thread(load, name=name, stop=stop.set)


def _load(graph: Graph, config: ModelConfig, stop: LoadStop, name: str) -> list[Instance]:
    optimization, usable = config.optimization, cores()
    placements = place(
        config.instance_group,
        gpus=gpu_devices(),
        cores=usable,
        threads_per_run=optimization.intra_op_threads,
    )
    instances = []
    for placement in placements:
        solo: Future[Session] | None = None
        threads = _solo_threads(graph, config, placement, usable)
        if threads:
            work = functools.partial(_session, graph, config, None, stop, threads, spin=True)
            solo = in_thread(work, name=f"{name}-solo")
        try:
            own = optimization.intra_op_threads
            session = _session(graph, config, placement.gpu, stop, own, spin=False)
        except BaseException:
            stop.set()  # nobody will want the other one
            raise
        instances.append(Instance(session, _if_loaded(solo, stop, name), placement.workers))
    return instances


def _if_loaded(solo: Future[Session] | None, stop: LoadStop, name: str) -> Session | None:
    """The session for lone runs, without which a model serves as well."""
    if solo is None:
        return None
    try:
        return solo.result()
    except ModelLoadFailed as error:
        if stop.wanted:
            raise
        log.warning("%s: lone runs have no session of their own: %s", name, error)
        return None


def _solo_threads(graph: Graph, config: ModelConfig, placement: Placement, usable: int) -> int:
    if placement.gpu is not None or graph.lean:
        return 0
    size = graph.size_bytes
    return solo_threads(config.optimization, placement, cores=usable, graph_bytes=size)


def _session(
    graph: Graph, config: ModelConfig, gpu: int | None, stop: LoadStop, threads: int, *, spin: bool
) -> Session:
    ready = None if gpu is not None else graph.optimised  # it was made for the CPU
    return Session(
        ready or graph.file,
        gpu=gpu,
        graph_level=GraphLevel.DISABLE if ready else config.optimization.graph_level,
        intra_op_threads=threads,
        spin=spin,
        external={} if ready else graph.external,
        stop=stop,
        use=OnGpu.of(config),
    )
