"""What runs are thought to take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerve.engine.cost import UNMEASURED, CostEstimator, Run
from nerve.types import CostModel

TRUE = CostModel(run_s=3e-3, token_s=2.5e-4, attention_s=4e-7, crowding_s=7e-5)
SHAPES = [(1, 4), (1, 16), (1, 64), (4, 16), (16, 16), (4, 64), (16, 32), (8, 128)]
SERVED = [(1, 24), (6, 30), (12, 20), (3, 70)]


def runs(cost: CostModel, shapes: list[tuple[int, int]] = SHAPES) -> list[Run]:
    return [Run(rows, length, float(cost.seconds(rows, length))) for rows, length in shapes]


def error(found: CostModel, true: CostModel, shapes: list[tuple[int, int]]) -> float:
    """The largest relative error over some shapes."""
    rows, lengths = np.array(shapes).T
    return float(np.abs(found.seconds(rows, lengths) / true.seconds(rows, lengths) - 1).max())


def times(cost: CostModel, factor: float) -> CostModel:
    return CostModel(
        cost.run_s * factor,
        cost.token_s * factor,
        cost.attention_s * factor,
        cost.crowding_s * factor,
    )


def test_a_model_is_found_again() -> None:
    estimator = CostEstimator()
    estimator.begin(runs(TRUE))
    assert error(estimator.cost, TRUE, [*SHAPES, *SERVED, (2, 400), (64, 64)]) < 0.02


def test_without_a_run_there_is_a_guess() -> None:
    estimator = CostEstimator()
    estimator.begin([])
    assert estimator.cost is UNMEASURED


@pytest.mark.parametrize("count", range(1, 5))
def test_few_runs_are_enough_for_their_shapes(count: int) -> None:
    """A large model on a slow machine is measured at few shapes."""
    estimator = CostEstimator()
    estimator.begin(runs(TRUE, SHAPES[:count]))
    assert error(estimator.cost, TRUE, SHAPES[:count]) < 0.05


@given(
    st.lists(
        st.builds(Run, st.integers(1, 64), st.integers(1, 512), st.floats(1e-6, 10.0)),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_is_measured_longer_takes_longer(measured: list[Run]) -> None:
    """No noise makes a term negative, or all of them 0."""
    estimator = CostEstimator()
    estimator.begin(measured)
    cost = estimator.cost
    assert min(cost.run_s, cost.token_s, cost.attention_s, cost.crowding_s) >= 0
    assert cost.seconds(1, 8) > 0
    assert cost.seconds(4, 32) >= cost.seconds(2, 32) >= cost.seconds(2, 16)


@pytest.mark.parametrize("factor", [0.2, 0.7, 1.5, 5.0])
def test_serving_runs_lead_to_a_slower_or_faster_machine(factor: float) -> None:
    """All shapes follow, those that are not served as well."""
    estimator = CostEstimator()
    estimator.begin(runs(TRUE))
    now = times(TRUE, factor)
    for number in range(600):
        rows, length = SERVED[number % len(SERVED)]
        estimator.observe(Run(rows, length, float(now.seconds(rows, length))))
    assert error(estimator.cost, now, SERVED) < 0.05
    assert error(estimator.cost, now, SHAPES) < 0.2


def test_interrupted_runs_and_noise_do_not_lead_astray() -> None:
    """One run of twenty takes a hundred times as long, all are off by up to a fifth."""
    random = np.random.default_rng(4)
    estimator = CostEstimator()
    estimator.begin(runs(TRUE))
    for number in range(2000):
        rows, length = SERVED[number % len(SERVED)]
        took = float(TRUE.seconds(rows, length)) * random.uniform(0.8, 1.2)
        estimator.observe(Run(rows, length, took * (100 if random.random() < 0.05 else 1)))
    assert error(estimator.cost, TRUE, SERVED) < 0.15
    assert error(estimator.cost, TRUE, SHAPES) < 0.3


def test_one_shape_for_ever_leaves_the_others_as_they_were() -> None:
    estimator = CostEstimator()
    estimator.begin(runs(TRUE))
    for _ in range(5000):
        estimator.observe(Run(1, 24, float(TRUE.seconds(1, 24))))
    assert error(estimator.cost, TRUE, SHAPES) < 0.05


def test_a_clock_that_stands_still() -> None:
    """Runs that took no time at all, as far as the clock can tell."""
    estimator = CostEstimator()
    estimator.begin([Run(1, 4, 0.0), Run(4, 16, 0.0), Run(1, 64, 0.01)])
    assert estimator.cost.seconds(1, 8) > 0
    estimator.observe(Run(1, 8, 0.0))
