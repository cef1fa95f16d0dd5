"""Where a model runs: instance groups and devices to sessions and workers."""

from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

from nerve.config.running import InstanceGroup, Kind, Optimization
from nerve.engine.instances import MAX_SOLO_GRAPH_BYTES, Placement, cores, place, solo_threads
from nerve.errors import ModelLoadFailed

AUTO, GPU, CPU = Kind.AUTO, Kind.GPU, Kind.CPU


def group(
    kind: Kind = AUTO, *, count: int | None = None, gpus: list[int] | None = None
) -> InstanceGroup:
    return InstanceGroup(kind=kind, count=count, gpus=gpus)


def on_cpu(workers: int) -> Placement:
    return Placement(None, workers)


def on_gpu(*numbers: int) -> list[Placement]:
    return [Placement(number, 1) for number in numbers]


@pytest.mark.parametrize(
    ("groups", "gpus", "cores", "threads", "expected"),
    [
        pytest.param([group()], [], 8, 1, [on_cpu(8)], id="auto, no GPU: one a core"),
        pytest.param([group()], [], 8, 2, [on_cpu(4)], id="two threads a run"),
        pytest.param([group()], [], 8, 3, [on_cpu(2)], id="rounded down"),
        pytest.param([group()], [], 2, 16, [on_cpu(1)], id="more threads than cores"),
        pytest.param([group(count=3)], [], 8, 2, [on_cpu(3)], id="auto, no GPU, count"),
        pytest.param([group()], [0], 8, 1, on_gpu(0), id="auto: the GPU"),
        pytest.param([group()], [0, 1], 8, 1, on_gpu(0, 1), id="auto: every GPU"),
        pytest.param([group(count=2)], [0, 1], 8, 1, on_gpu(0, 0, 1, 1), id="count is per GPU"),
        pytest.param([group(gpus=[1])], [0, 1], 8, 1, on_gpu(1), id="auto, chosen GPU"),
        pytest.param([group(gpus=[5])], [0, 1], 8, 1, [on_cpu(8)], id="auto, chosen GPU is gone"),
        pytest.param([group(gpus=[5, 1])], [0, 1], 8, 1, on_gpu(1), id="auto, one of them is gone"),
        pytest.param([group(gpus=[0])], [], 8, 1, [on_cpu(8)], id="auto, chosen, none there"),
        pytest.param([group(GPU)], [0, 2], 8, 1, on_gpu(0, 2), id="GPU: every one"),
        pytest.param([group(GPU, gpus=[2], count=2)], [0, 2], 8, 1, on_gpu(2, 2), id="GPU chosen"),
        pytest.param([group(CPU)], [0], 8, 1, [on_cpu(8)], id="CPU beside a GPU"),
        pytest.param([group(CPU, count=20)], [], 8, 1, [on_cpu(20)], id="more than cores"),
        pytest.param(
            [group(CPU, count=2), group(CPU, count=3)], [], 8, 1, [on_cpu(5)], id="one CPU session"
        ),
        pytest.param(
            [group(CPU, count=2), group(GPU), group(count=1)],
            [0],
            8,
            1,
            [*on_gpu(0, 0), on_cpu(2)],
            id="mixed",
        ),
    ],
)
def test_place(
    groups: list[InstanceGroup],
    gpus: list[int],
    cores: int,
    threads: int,
    expected: list[Placement],
) -> None:
    """A session a GPU instance; one session for all instances on the CPU."""
    assert place(groups, gpus=gpus, cores=cores, threads_per_run=threads) == expected


@pytest.mark.parametrize(
    ("groups", "gpus", "sentence"),
    [
        pytest.param(
            [group(CPU), group(GPU)],
            [],
            "instance_group[1] asks for a GPU (KIND_GPU), but ONNX Runtime finds none on this "
            "machine; use KIND_AUTO",
            id="no GPU",
        ),
        pytest.param(
            [group(GPU, gpus=[3])],
            [],
            "instance_group[0] asks for GPU 3 (KIND_GPU), but ONNX Runtime finds none",
            id="chosen, no GPU",
        ),
        pytest.param(
            [group(GPU, gpus=[0, 7, 3])],
            [0, 1],
            "instance_group[0] asks for GPU 3 (KIND_GPU), but ONNX Runtime finds GPUs 0, 1",
            id="one of them is not there",
        ),
    ],
)
def test_a_gpu_that_is_not_there(
    groups: list[InstanceGroup], gpus: list[int], sentence: str
) -> None:
    """The sentence says which group, what it wants, what there is, and what to do."""
    with pytest.raises(ModelLoadFailed) as caught:
        place(groups, gpus=gpus, cores=8, threads_per_run=1)
    assert str(caught.value).startswith(sentence)


def test_an_empty_list_of_gpus_never_means_the_cpu() -> None:
    """KIND_GPU is a promise: refuse the list, or find no GPU in it."""
    with pytest.raises((ValidationError, ModelLoadFailed)):
        place([group(GPU, gpus=[])], gpus=[0, 1], cores=8, threads_per_run=1)


def test_cores_are_at_most_those_of_the_machine() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("wanted", "own", "workers", "cores", "graph_bytes", "expected"),
    [
        pytest.param(None, 1, 2, 2, 1, 2, id="all cores"),
        pytest.param(None, 1, 1, 1, 1, 0, id="one core: no second session"),
        pytest.param(None, 1, 64, 64, 1, 8, id="more threads bring little"),
        pytest.param(None, 1, 2, 8, 1, 2, id="no more cores than the group takes"),
        pytest.param(None, 4, 2, 8, 1, 8, id="runs of several threads"),
        pytest.param(None, 1, 2, 2, MAX_SOLO_GRAPH_BYTES + 1, 0, id="too large to hold twice"),
        pytest.param(4, 1, 2, 2, MAX_SOLO_GRAPH_BYTES + 1, 4, id="as the config says"),
        pytest.param(1, 1, 2, 2, 1, 0, id="none is wanted"),
        pytest.param(2, 2, 2, 4, 1, 0, id="no more than a run has anyway"),
    ],
)
def test_solo_threads(
    wanted: int | None, own: int, workers: int, cores: int, graph_bytes: int, expected: int
) -> None:
    optimization = Optimization(solo_threads=wanted, intra_op_threads=own)
    found = solo_threads(optimization, on_cpu(workers), cores=cores, graph_bytes=graph_bytes)
    assert found == expected
