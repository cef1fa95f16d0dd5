"""Which rows run next."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerve.config.running import Scheduler
from nerve.engine.plan import HOPELESS, BatchLimits, plan, prices, wait_s
from nerve.types import CostModel, IntArray

MINILM = CostModel(run_s=4.2e-3, token_s=1.8e-4, attention_s=2.0e-7, crowding_s=7.4e-5)
"""As measured for the bundled model on one core."""
FREE = math.inf


def bounds(
    *, rows: int = 8, tokens: int = 1 << 20, scheduler: Scheduler = Scheduler.COST
) -> BatchLimits:
    return BatchLimits(
        max_batch_size=rows,
        max_num_tokens=tokens,
        max_queue_delay_s=0.0,
        max_queue_size=1 << 20,
        scheduler=scheduler,
    )


def decide(
    lengths: Sequence[int],
    limits: BatchLimits,
    *,
    slack_s: Sequence[float] = (),
    cost: CostModel = MINILM,
    most: int = 1 << 20,
    urgency: bool = True,
) -> list[int]:
    slack = np.array(slack_s or [FREE] * len(lengths))
    rows = as_array(lengths)
    price = prices(rows, limits, cost)
    return plan(rows, price, slack, limits, cost, most=most, urgency=urgency)


def as_array(lengths: Sequence[int]) -> IntArray:
    return np.array(lengths, dtype=np.int64)


def seconds(lengths: Sequence[int], chosen: Sequence[int], cost: CostModel = MINILM) -> float:
    """What a batch takes."""
    return float(cost.seconds(len(chosen), max(lengths[position] for position in chosen)))


def worth(
    lengths: Sequence[int], chosen: Sequence[int], limits: BatchLimits, cost: CostModel
) -> float:
    """Prices of a batch's rows per second of it."""
    price = prices(as_array(lengths), limits, cost)
    return float(price[chosen].sum()) / seconds(lengths, chosen, cost)


_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=40)
_limits = st.builds(
    bounds,
    rows=st.integers(1, 8),
    tokens=st.integers(1, 120),
    scheduler=st.sampled_from(Scheduler),
)
_rates = st.floats(0.0, 1e-3, allow_subnormal=False)
_costs = st.builds(
    CostModel,
    run_s=st.floats(1e-6, 1e-1),
    token_s=_rates,
    attention_s=_rates,
    crowding_s=_rates,
)
_slacks = st.one_of(st.just(FREE), st.floats(-0.1, 0.1))


@given(_lengths, _limits, _costs, st.integers(1, 9), st.data())
def test_a_plan_keeps_the_limits(
    lengths: list[int], limits: BatchLimits, cost: CostModel, most: int, data: st.DataObject
) -> None:
    """Ascending positions; padded tokens within the limit unless a row is alone."""
    slack = data.draw(st.lists(_slacks, min_size=len(lengths), max_size=len(lengths)))
    chosen = decide(lengths, limits, slack_s=slack, cost=cost, most=most)
    assert chosen == sorted(set(chosen))
    assert chosen[0] >= 0
    assert chosen[-1] < len(lengths)
    assert len(chosen) <= limits.max_batch_size
    padded = len(chosen) * max(lengths[position] for position in chosen)
    assert len(chosen) == 1 or padded <= limits.max_num_tokens
    if limits.scheduler is Scheduler.COST:
        assert len(chosen) <= most


@given(_lengths, _limits, _costs)
def test_whose_turn_it_is_goes(lengths: list[int], limits: BatchLimits, cost: CostModel) -> None:
    assert decide(lengths, limits, cost=cost)[0] == 0


@given(_lengths, _limits, _costs)
def test_first_come_first_served_among_equal_lengths(
    lengths: list[int], limits: BatchLimits, cost: CostModel
) -> None:
    """Of rows of one length, an older one never stays while a younger one goes."""
    chosen = set(decide(lengths, limits, cost=cost))
    for length in set(lengths):
        went = [place in chosen for place, each in enumerate(lengths) if each == length]
        assert went == sorted(went, reverse=True)


@given(_lengths, _limits, _costs)
def test_never_worse_than_padding_in_order(
    lengths: list[int], limits: BatchLimits, cost: CostModel
) -> None:
    """By the model, no batch is worth less per second than that of rows in their order."""
    ours = decide(lengths, dataclasses.replace(limits, scheduler=Scheduler.COST), cost=cost)
    naive = decide(lengths, dataclasses.replace(limits, scheduler=Scheduler.FIFO), cost=cost)
    assert worth(lengths, ours, limits, cost) >= worth(lengths, naive, limits, cost) * (1 - 1e-9)


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=7),
    st.builds(bounds, rows=st.integers(1, 4), tokens=st.integers(1, 40)),
    _costs,
)
def test_no_batch_with_the_first_row_is_worth_more(
    lengths: list[int], limits: BatchLimits, cost: CostModel
) -> None:
    """Against all of them."""
    best = 0.0
    for mask in range(1, 1 << len(lengths), 2):
        rows = [position for position in range(len(lengths)) if mask >> position & 1]
        padded = len(rows) * max(lengths[position] for position in rows)
        if len(rows) <= limits.max_batch_size and (
            len(rows) == 1 or padded <= limits.max_num_tokens
        ):
            best = max(best, worth(lengths, rows, limits, cost))
    chosen = decide(lengths, limits, cost=cost)
    assert worth(lengths, chosen, limits, cost) >= best * (1 - 1e-9)


@given(_lengths, st.lists(_lengths, max_size=60), _limits, _costs)
def test_no_row_starves(
    lengths: list[int], arrivals: list[list[int]], limits: BatchLimits, cost: CostModel
) -> None:
    """Whatever keeps arriving, a row goes after at most as many batches as rows were before it."""
    waiting = list(enumerate(lengths))
    born = dict.fromkeys(range(len(lengths)), 0)
    ahead = {number: number for number in range(len(lengths))}
    gone: list[int] = []
    steps = 0
    total = len(lengths)
    pending = iter(arrivals)
    while waiting:
        positions = set(decide([length for _, length in waiting], limits, cost=cost))
        for position in positions:
            number = waiting[position][0]
            gone.append(number)
            assert steps - born[number] <= ahead[number]
        waiting = [each for place, each in enumerate(waiting) if place not in positions]
        steps += 1
        for length in next(pending, []):
            born[total], ahead[total] = steps, len(waiting)
            waiting.append((total, length))
            total += 1
    assert sorted(gone) == list(range(total))  # each once


@given(_lengths, _costs, st.data())
def test_urgent_rows_starve_nobody(
    lengths: list[int], cost: CostModel, data: st.DataObject
) -> None:
    """Without urgency, the first row that is not hopeless always goes."""
    limits = bounds()
    slack = data.draw(st.lists(_slacks, min_size=len(lengths), max_size=len(lengths)))
    chosen = decide(lengths, limits, slack_s=slack, cost=cost, urgency=False)
    alone = cost.seconds(1, as_array(lengths))
    alive = [place for place, left in enumerate(slack) if left >= HOPELESS * alone[place]]
    assert (alive or [0])[0] in chosen


@given(_lengths, _costs, st.data())
def test_company_makes_nobody_late(
    lengths: list[int], cost: CostModel, data: st.DataObject
) -> None:
    """Who would be in time alone is in time in the batch."""
    slack = data.draw(st.lists(_slacks, min_size=len(lengths), max_size=len(lengths)))
    chosen = decide(lengths, bounds(), slack_s=slack, cost=cost)
    took = seconds(lengths, chosen, cost)
    alone = cost.seconds(1, as_array(lengths))
    for position in chosen:
        assert slack[position] >= took or slack[position] < alone[position]


@pytest.mark.parametrize(
    ("lengths", "limits", "expected"),
    [
        pytest.param([5], bounds(), [0], id="one"),
        pytest.param([5] * 6, bounds(rows=4), [0, 1, 2, 3], id="rows"),
        pytest.param([10, 10, 10], bounds(tokens=20), [0, 1], id="tokens"),
        pytest.param([99, 1], bounds(tokens=20), [0], id="too long for any batch, alone"),
        pytest.param([5, 5], bounds(rows=1), [0], id="no batching"),
        pytest.param([20, 200, 21, 20, 190], bounds(), [0, 2, 3], id="its like"),
        pytest.param([200, 20, 190, 20], bounds(), [0], id="190 tokens are batch enough"),
        pytest.param(
            [5] + [50] * 31 + [5] * 31, bounds(rows=32), [0, *range(32, 63)], id="no ride"
        ),
        pytest.param(
            [8, 8, 40, 40], bounds(scheduler=Scheduler.FIFO), [0, 1, 2, 3], id="fifo pads"
        ),
        pytest.param(
            [10, 2, 2, 2], bounds(tokens=20, scheduler=Scheduler.FIFO), [0, 1], id="padding counts"
        ),
        pytest.param(
            [2, 99, 2], bounds(tokens=20, scheduler=Scheduler.FIFO), [0, 2], id="too long is passed"
        ),
    ],
)
def test_cases(lengths: list[int], limits: BatchLimits, expected: list[int]) -> None:
    assert decide(lengths, limits) == expected


SECOND_A_TOKEN = CostModel(run_s=1e-3, token_s=1.0, attention_s=0.0, crowding_s=0.0)


@pytest.mark.parametrize(
    ("lengths", "slack_s", "expected"),
    [
        pytest.param([9, 9, 2], [FREE, FREE, 60.0], [0, 1], id="time enough"),
        pytest.param([9, 9, 2], [FREE, FREE, 15.0], [2], id="would be missed"),
        pytest.param([9, 9, 2, 3], [FREE, FREE, 19.0, 6.0], [3], id="the most urgent"),
        pytest.param([9, 9, 2, 2], [FREE, FREE, 3.0, 3.0], [2], id="not both in time"),
        pytest.param([9, 9, 9], [10.0, 10.0, FREE], [0], id="no company, to be in time"),
        pytest.param([9, 9, 9], [1.0, FREE, FREE], [1, 2], id="hopeless"),
        pytest.param([9, 9], [1.0, 1.0], [0], id="all are hopeless"),
    ],
)
def test_deadlines(lengths: list[int], slack_s: list[float], expected: list[int]) -> None:
    assert decide(lengths, bounds(rows=2), slack_s=slack_s, cost=SECOND_A_TOKEN) == expected


@pytest.mark.parametrize(
    ("batch", "queued", "now", "delay_s", "expected"),
    [
        pytest.param(1, 1, 10.0, 0.0, 0.0, id="no delay is wanted"),
        pytest.param(1, 1, 10.0, 2.0, 2.0, id="just arrived"),
        pytest.param(1, 1, 11.5, 2.0, 0.5, id="waited for a while"),
        pytest.param(1, 1, 12.0, 2.0, 0.0, id="waited long enough"),
        pytest.param(1, 1, 99.0, 2.0, 0.0, id="waited too long"),
        pytest.param(3, 3, 10.0, 2.0, 2.0, id="not full"),
        pytest.param(4, 4, 10.0, 2.0, 0.0, id="full of rows"),
        pytest.param(4, 9, 10.0, 2.0, 0.0, id="more than full"),
        pytest.param(2, 3, 10.0, 2.0, 0.0, id="full of tokens: one row does not fit"),
    ],
)
def test_wait_s(batch: int, queued: int, now: float, delay_s: float, expected: float) -> None:
    limits = dataclasses.replace(bounds(rows=4), max_queue_delay_s=delay_s)
    assert wait_s(batch, queued, 10.0, limits, now) == expected


@pytest.mark.parametrize("rows", [64, 65, 300, 2000])
def test_large_batches_are_found(rows: int) -> None:
    """Where more rows are always better, as on a GPU, all of them go."""
    cost = CostModel(run_s=1.0, token_s=1e-6, attention_s=0.0, crowding_s=0.0)
    limits = bounds(rows=rows)
    assert len(decide([20] * 2048, limits, cost=cost)) == rows


def test_a_near_deadline_leads_where_rows_run_alone() -> None:
    """Deadlines count without batching as well."""
    slack_s = [FREE, FREE, 5.0]
    assert decide([9, 9, 2], bounds(rows=1), slack_s=slack_s, cost=SECOND_A_TOKEN) == [2]
