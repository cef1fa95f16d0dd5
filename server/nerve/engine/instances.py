"""Where a model runs: instance groups and the machine's devices -> placements. Pure but for `cores`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nerve.config.running import InstanceGroup, Kind, Optimization
from nerve.engine.cgroup import cpu_quota
from nerve.errors import ModelLoadFailed


@dataclass(frozen=True, slots=True)
class Placement:
    """One session, and how many batches it runs at the same time. `gpu` None is the CPU."""

    gpu: int | None
    workers: int


def place(
    groups: Sequence[InstanceGroup], *, gpus: Sequence[int], cores: int, threads_per_run: int
) -> list[Placement]:
    """Decide on sessions and workers.

    On the CPU all instances share one session, so that the weights are in memory once; a run
    happens in its worker's thread. On a GPU each instance has a session (and stream) of its own.

    Args:
        groups: of the model's config.
        gpus: device numbers of this machine.
        cores: that this process may use.
        threads_per_run: of a CPU session.
    Raises:
        ModelLoadFailed: a GPU is asked for that is not there.
    """
    on_cpu = 0
    placements: list[Placement] = []
    for number, group in enumerate(groups):
        missing = sorted(set(group.gpus or ()) - set(gpus))
        if group.kind is Kind.GPU and (missing or not gpus):
            wanted = f"GPU {missing[0]}" if missing else "a GPU"
            raise ModelLoadFailed(
                f"instance_group[{number}] asks for {wanted} (KIND_GPU), but ONNX Runtime finds "
                f"{'GPUs ' + ', '.join(map(str, gpus)) if gpus else 'none'} on this machine; use "
                "KIND_AUTO to run on the CPU where there is no GPU"
            )
        usable = [gpu for gpu in gpus if group.gpus is None or gpu in group.gpus]
        if group.kind is Kind.CPU or not usable:
            on_cpu += group.count or max(1, cores // threads_per_run)
        else:
            placements += [Placement(gpu, 1) for gpu in usable for _ in range(group.count or 1)]
    if on_cpu:
        placements.append(Placement(None, on_cpu))
    return placements


MAX_SOLO_THREADS: Final = 8
MAX_SOLO_GRAPH_BYTES: Final = 256 * 2**20


def solo_threads(
    optimization: Optimization, placement: Placement, *, cores: int, graph_bytes: int
) -> int:
    """Threads of the session for runs that have the machine to themselves; 0 for no such session.

    Args:
        optimization: of the model's config.
        placement: on the CPU.
        cores: that this process may use.
        graph_bytes: size of the graph with its data, which a second session holds once more.
    """
    threads = optimization.solo_threads
    if threads is None:
        if graph_bytes > MAX_SOLO_GRAPH_BYTES:
            return 0
        # An instance group of fewer runs than cores leaves some to others.
        own = placement.workers * optimization.intra_op_threads
        threads = min(cores, own, MAX_SOLO_THREADS)
    return threads if threads > optimization.intra_op_threads else 0


def cores() -> int:
    """Cores that this process may use: its CPU set, and the quota of its control groups."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = cpu_quota()
    return count if quota is None else max(1, min(count, round(quota)))
