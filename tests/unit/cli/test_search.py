"""What `nerve tune` tries, against measurements that follow a formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from nerve.cli.drive import Load, Tally, figures
from nerve.cli.search import Machine, Settings, Trial, axes, better, descend
from nerve.config.model import ModelConfig
from nerve.config.running import InstanceGroup, Optimization, Precision

BASE = Settings.of(ModelConfig())
CPU = Machine(
    gpu=False, cores=8, rows_in_flight=64, longest=100, max_tokens=512, counts=True,
    counts_given=False, precisions=(),
)  # fmt: skip


def trial(
    settings: Settings, ratio: float, *, p99_ms: float = 10.0, failed: str = "", refused: str = ""
) -> Trial:
    if refused:
        return Trial(settings, refused=refused)
    tally = Tally(texts=100, seconds=1.0)
    tally.latencies_s.append(p99_ms / 1e3)
    found = figures(Load(1), tally, None)
    return Trial(settings, replace(found, failed={failed: 1} if failed else {}), 100.0, ratio)


async def searched(
    machine: Machine,
    measured: Callable[[Settings], Trial],
    *,
    base: Settings = BASE,
    limit: float | None = None,
    most: int = 1000,
) -> tuple[Trial, list[Trial]]:
    trials: list[Trial] = []

    async def measure(settings: Settings) -> Trial:
        return measured(settings)

    best = await descend(
        base, axes(machine), measure, max_latency_ms=limit, trials=trials,
        time_is_up=lambda: len(trials) >= most,
    )  # fmt: skip
    return best, trials


async def test_it_finds_what_is_best_in_several_directions() -> None:
    def measured(settings: Settings) -> Trial:
        threads = settings.intra_op_threads
        ratio = {1: 1.0, 2: 1.3, 4: 1.1, 8: 0.7}[threads]
        ratio *= 1.5 if settings.max_batch_size == 128 else 1 + settings.max_batch_size / 1000
        return trial(settings, ratio)

    best, trials = await searched(CPU, measured)
    assert (best.settings.intra_op_threads, best.settings.max_batch_size) == (2, 64)
    assert best.settings.count is None  # 4 instances are what 2 threads a run bring by themselves
    wide = replace(CPU, rows_in_flight=128)
    best, _ = await searched(wide, measured)
    assert best.settings.max_batch_size == 128
    assert trials[0].settings == BASE
    assert len({each.settings for each in trials}) == len(trials)


async def test_noise_leads_nowhere() -> None:
    best, trials = await searched(CPU, lambda settings: trial(settings, 1.009))
    assert best.settings == BASE
    assert len(trials) > 4


async def test_the_limit_comes_first() -> None:
    """More texts a second are no use beyond it; if nothing keeps it, the nearest is best."""

    def measured(settings: Settings) -> Trial:
        size = settings.max_batch_size
        return trial(settings, size / 32, p99_ms=size)

    best, _ = await searched(CPU, measured, limit=40)
    assert best.settings.max_batch_size == 32
    best, _ = await searched(CPU, measured, limit=20)
    assert best.settings.max_batch_size == 16
    best, _ = await searched(CPU, measured, limit=0.5)
    assert best.settings.max_batch_size == 1
    assert best.score(0.5) == (False, 0.5)


async def test_what_is_refused_or_fails_is_never_best() -> None:
    machine = replace(CPU, precisions=[Precision.INT8])

    def measured(settings: Settings) -> Trial:
        if settings.precision is Precision.INT8:
            return trial(settings, 0, refused="its conversion to int8 loses too much")
        failed = "queue_full" if settings.max_batch_size > 32 else ""
        return trial(settings, settings.max_batch_size / 32, failed=failed)

    best, trials = await searched(machine, measured)
    assert best.settings == BASE
    assert sum(bool(each.refused) for each in trials) == 1


async def test_a_precision_that_was_refused_is_not_tried_with_other_settings() -> None:
    machine = replace(CPU, precisions=[Precision.INT8])

    def measured(settings: Settings) -> Trial:
        if settings.precision is Precision.INT8:
            return trial(settings, 0, refused="loses too much")
        return trial(settings, settings.max_batch_size / 32)

    best, trials = await searched(machine, measured)
    assert best.settings.max_batch_size == 64
    assert [each.settings.precision for each in trials].count(Precision.INT8) == 1


async def test_it_ends_when_the_time_is_up() -> None:
    best, trials = await searched(CPU, lambda s: trial(s, s.max_batch_size), most=1)
    assert [each.settings for each in trials] == [BASE]
    assert best.settings == BASE


def neighbours(machine: Machine, base: Settings = BASE) -> list[Settings]:
    return [settings for axis in axes(machine) for settings in axis(base)]


def test_what_is_tried_on_the_cpu() -> None:
    layouts = [
        (each.count, each.intra_op_threads)
        for each in neighbours(CPU)
        if (each.max_batch_size, each.max_num_tokens) == (32, 8192)
    ]
    assert layouts == [(None, 2), (None, 4), (None, 8), (4, 1), (1, 1)]
    one_core = replace(CPU, cores=1, rows_in_flight=4)
    assert neighbours(one_core) == []


def test_a_number_that_the_config_states_stays_stated() -> None:
    machine = replace(CPU, counts_given=True)
    counts = [each.count for each in neighbours(machine, replace(BASE, count=3))]
    assert 8 in counts
    assert None not in counts


def test_several_groups_keep_their_numbers() -> None:
    machine = replace(CPU, counts=False)
    assert {each.count for each in neighbours(machine)} == {None}
    assert {each.intra_op_threads for each in neighbours(machine)} == {1, 2, 4, 8}


def test_what_is_tried_on_a_gpu() -> None:
    found = neighbours(replace(CPU, gpu=True, precisions=[Precision.FP16]))
    assert {each.intra_op_threads for each in found} == {1}
    assert {each.count for each in found} == {None, 2, 4}
    assert {each.precision for each in found} == {None, Precision.FP16}


def test_no_trial_cuts_texts_or_changes_nothing() -> None:
    """A budget bounds rows, too; and one that no batch reaches is like any other."""
    tight = replace(BASE, max_num_tokens=600)
    assert {each.max_num_tokens for each in neighbours(CPU, tight)} == {600, 1200}
    assert {each.max_num_tokens for each in neighbours(CPU)} == {8192}
    small = replace(CPU, longest=8192 // 32 + 1)
    assert {each.max_num_tokens for each in neighbours(small)} == {8192, 4096, 16384}
    few = replace(CPU, rows_in_flight=4)
    assert {each.max_batch_size for each in neighbours(few)} == {32}


def test_threads_for_lone_runs_only_where_there_are_some() -> None:
    alone = replace(CPU, rows_in_flight=1)
    assert {each.solo_threads for each in neighbours(alone)} == {None, 1, 4, 8}
    assert {each.solo_threads for each in neighbours(CPU)} == {None}


@pytest.mark.parametrize("given", [None, Precision.FP32])
def test_a_precision_is_not_tried_against_itself(given: Precision | None) -> None:
    machine = replace(CPU, precisions=[Precision.FP32, Precision.INT8])
    found = neighbours(machine, replace(BASE, precision=given))
    assert {each.precision for each in found} == {given, Precision.INT8}


def test_settings_and_their_config() -> None:
    config = ModelConfig(
        instance_group=[InstanceGroup(count=2)], optimization=Optimization(max_f1_loss=0.1)
    )
    base = Settings.of(config)
    assert base.applied(config).model_dump() == config.model_dump()
    wanted = replace(base, count=4, precision=Precision.INT8, max_batch_size=64)
    tuned = wanted.applied(config)
    assert Settings.of(tuned) == wanted
    assert tuned.optimization.max_f1_loss == 0.1
    assert wanted.changes(base) == {
        ("instance_group", 0, "count"): 4,
        ("optimization", "precision"): "int8",
        ("max_batch_size",): 64,
    }
    assert base.changes(base) == {}


def test_better_needs_more_than_noise() -> None:
    one, other = trial(BASE, 1.02), trial(BASE, 1.0)
    assert better(one, other, None)
    assert not better(one, other, None, by=1.03)
    assert not better(other, one, None)
    assert better(trial(BASE, 0.1, p99_ms=4), trial(BASE, 9, p99_ms=6), 5)
