"""Which rows run next, and the queue they wait in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerve.engine.batcher import Batcher, BatchLimits, Waiter, plan, wait_s
from nerve.errors import InferenceFailed, ModelUnloaded, QueueFull
from nerve.types import Row, RowResult

LONG_S = 3600.0
"""A delay that no test waits for."""


def bounds(
    *, rows: int = 4, tokens: int = 1 << 20, delay_s: float = 0.0, queue: int = 1 << 20
) -> BatchLimits:
    return BatchLimits(
        max_batch_size=rows,
        max_num_tokens=tokens,
        max_queue_delay_s=delay_s,
        max_queue_size=queue,
    )


def row(length: int, *, mark: int = 0) -> Row:
    """A row that can be told from others by its first id."""
    ids = np.zeros(length, dtype=np.int64)
    ids[0] = mark
    return Row(ids)


def marks(batch: Sequence[Waiter]) -> list[int]:
    return [int(waiter.row.ids[0]) for waiter in batch]


def result() -> RowResult:
    return RowResult(np.zeros((1, 1), dtype=np.float32), queue_s=0.0, inference_s=0.0)


async def everybody_had_a_turn() -> None:
    """Run every callback that is ready, and those that they make ready; no time is waited for."""
    for _ in range(10):
        await asyncio.sleep(0)


# --- plan ---

_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=40)
_limits = st.builds(bounds, rows=st.integers(1, 8), tokens=st.integers(1, 120))


@given(_lengths, _limits)
def test_plan_holds_the_oldest_and_keeps_the_limits(
    lengths: list[int], limits: BatchLimits
) -> None:
    """Ascending positions, 0 among them; padded tokens within the limit unless a row is alone."""
    chosen = plan(lengths, limits)
    assert chosen == sorted(set(chosen))
    assert chosen[0] == 0
    assert chosen[-1] < len(lengths)
    assert len(chosen) <= limits.max_batch_size
    padded = len(chosen) * max(lengths[position] for position in chosen)
    assert len(chosen) == 1 or padded <= limits.max_num_tokens


@given(_lengths, _limits)
def test_plan_leaves_room_only_to_longer_rows(lengths: list[int], limits: BatchLimits) -> None:
    """A row no longer than the batch's longest stays only if the batch is full."""
    chosen = plan(lengths, limits)
    longest = max(lengths[position] for position in chosen)
    room = len(chosen) < limits.max_batch_size
    fits = (len(chosen) + 1) * longest <= limits.max_num_tokens
    left = [length for place, length in enumerate(lengths) if place not in chosen]
    if room and fits:
        assert all(length > longest for length in left)


@given(_lengths, _limits)
def test_plan_is_first_come_first_served_among_equal_lengths(
    lengths: list[int], limits: BatchLimits
) -> None:
    """Of rows of one length, an older one never stays while a younger one goes."""
    chosen = set(plan(lengths, limits))
    for length in set(lengths):
        went = [place in chosen for place, each in enumerate(lengths) if each == length]
        assert went == sorted(went, reverse=True)


@given(_lengths, st.lists(_lengths, max_size=60), _limits)
def test_no_row_starves(lengths: list[int], arrivals: list[list[int]], limits: BatchLimits) -> None:
    """Whatever keeps arriving, a row goes after at most as many batches as rows were before it."""
    waiting = list(enumerate(lengths))
    born = dict.fromkeys(range(len(lengths)), 0)
    ahead = {number: number for number in range(len(lengths))}
    steps = 0
    total = len(lengths)
    pending = iter(arrivals)
    while waiting:
        positions = set(plan([length for _, length in waiting], limits))
        for position in positions:
            number = waiting[position][0]
            assert steps - born[number] <= ahead[number]
        waiting = [each for place, each in enumerate(waiting) if place not in positions]
        steps += 1
        for length in next(pending, []):
            born[total], ahead[total] = steps, len(waiting)
            waiting.append((total, length))
            total += 1
    assert steps <= total


@pytest.mark.parametrize(
    ("lengths", "limits", "expected"),
    [
        pytest.param([5], bounds(), [0], id="one"),
        pytest.param([5, 5, 5, 5, 5, 5], bounds(rows=4), [0, 1, 2, 3], id="rows"),
        pytest.param([10, 10, 10], bounds(tokens=20), [0, 1], id="tokens"),
        pytest.param([10, 2, 2, 2], bounds(tokens=20), [0, 1], id="padding counts"),
        pytest.param([99, 1], bounds(tokens=20), [0], id="too long for any batch, alone"),
        pytest.param([2, 99, 2], bounds(tokens=20), [0, 2], id="a long one is passed"),
        pytest.param([5, 5], bounds(rows=1), [0], id="no batching"),
    ],
)
def test_plan_cases(lengths: list[int], limits: BatchLimits, expected: list[int]) -> None:
    assert plan(lengths, limits) == expected


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
    assert wait_s(batch, queued, 10.0, bounds(delay_s=delay_s), now) == expected


async def test_a_batch_full_of_tokens_does_not_wait_for_company() -> None:
    batcher = Batcher("ner", bounds(tokens=20, delay_s=3600.0))
    batcher.submit([row(10, mark=1), row(10, mark=2), row(10, mark=3)])
    assert marks(await batcher.next_batch()) == [1, 2]


# --- Batcher ---


async def test_rows_of_different_callers_go_together_in_order() -> None:
    batcher = Batcher("ner", bounds())
    batcher.submit([row(3, mark=1)])
    batcher.submit([row(9, mark=2), row(1, mark=3)])
    assert batcher.queued == 3
    assert marks(await batcher.next_batch()) == [1, 2, 3]
    assert batcher.queued == 0


async def test_what_does_not_fit_stays_in_order() -> None:
    batcher = Batcher("ner", bounds(rows=2))
    for mark in range(1, 6):
        batcher.submit([row(1, mark=mark)])
    assert [marks(await batcher.next_batch()) for _ in range(3)] == [[1, 2], [3, 4], [5]]


async def test_a_worker_that_waits_is_woken() -> None:
    batcher = Batcher("ner", bounds())
    worker = asyncio.create_task(batcher.next_batch())
    await everybody_had_a_turn()
    assert not worker.done()
    batcher.submit([row(1, mark=1)])
    assert marks(await worker) == [1]


async def test_every_worker_that_waits_is_woken() -> None:
    """A request of several batches keeps all instances busy."""
    batcher = Batcher("ner", bounds(rows=2))
    workers = [asyncio.create_task(batcher.next_batch()) for _ in range(3)]
    await everybody_had_a_turn()
    batcher.submit([row(1, mark=mark) for mark in range(6)])
    assert [marks(await worker) for worker in workers] == [[0, 1], [2, 3], [4, 5]]


async def test_a_delay_waits_for_company_until_the_batch_is_full() -> None:
    batcher = Batcher("ner", bounds(rows=3, delay_s=LONG_S))
    worker = asyncio.create_task(batcher.next_batch())
    for mark in (1, 2):
        batcher.submit([row(1, mark=mark)])
        await everybody_had_a_turn()
        assert not worker.done()
    batcher.submit([row(1, mark=3)])
    assert marks(await worker) == [1, 2, 3]


async def test_a_delay_ends_by_itself() -> None:
    """A row that stays alone goes alone, and not before its time."""
    batcher = Batcher("ner", bounds(delay_s=0.01))
    batcher.submit([row(1, mark=1)])
    (waiter,) = await batcher.next_batch()
    assert marks([waiter]) == [1]
    assert time.monotonic() >= waiter.arrived + 0.01


async def test_a_delay_counts_from_the_oldest_row_that_is_left() -> None:
    """When the row that started the clock is given up, the next one has its whole time."""
    batcher = Batcher("ner", bounds(delay_s=0.01))
    given_up = batcher.submit([row(1, mark=1)])
    await asyncio.wait(given_up, timeout=0.02)  # its time is over, and nobody came for it
    given_up[0].cancel()
    batcher.submit([row(1, mark=2)])
    (waiter,) = await batcher.next_batch()
    assert marks([waiter]) == [2]
    assert time.monotonic() >= waiter.arrived + 0.01


async def test_rows_whose_caller_has_gone_are_left_out() -> None:
    batcher = Batcher("ner", bounds())
    first, second = batcher.submit([row(1, mark=1)]), batcher.submit([row(1, mark=2)])
    first[0].cancel()
    assert batcher.queued == 1
    assert marks(await batcher.next_batch()) == [2]
    assert not second[0].done()


async def test_a_queue_of_none_but_gone_callers_gives_no_batch() -> None:
    """The worker goes on waiting, with and without a delay."""
    for delay_s in (0.0, LONG_S):
        batcher = Batcher("ner", bounds(delay_s=delay_s))
        worker = asyncio.create_task(batcher.next_batch())
        for future in batcher.submit([row(1), row(1)]):
            future.cancel()
        await everybody_had_a_turn()
        assert not worker.done()
        batcher.submit([row(1, mark=mark) for mark in range(4)])
        assert marks(await worker) == [0, 1, 2, 3]


async def test_a_worker_that_is_stopped_takes_nothing_along() -> None:
    """Rows stay for the others."""
    batcher = Batcher("ner", bounds(delay_s=LONG_S))
    worker = asyncio.create_task(batcher.next_batch())
    batcher.submit([row(1, mark=1)])
    await everybody_had_a_turn()
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    assert worker.cancelled()
    batcher.submit([row(1), row(1), row(1)])
    assert len(await batcher.next_batch()) == 4


async def test_a_full_queue_refuses_and_then_works_again() -> None:
    """The error names the model and its limit; what was refused is not queued."""
    batcher = Batcher("ner", bounds(queue=2))
    batcher.submit([row(1)])
    batcher.submit([row(1)])
    with pytest.raises(QueueFull) as caught:
        batcher.submit([row(1)])
    assert (caught.value.model, caught.value.limit) == ("ner", 2)
    assert batcher.queued == 2
    await batcher.next_batch()
    batcher.submit([row(1)])
    assert batcher.queued == 1


async def test_gone_callers_make_room() -> None:
    batcher = Batcher("ner", bounds(queue=2))
    first, _ = batcher.submit([row(1)]), batcher.submit([row(1)])
    first[0].cancel()
    batcher.submit([row(1)])
    with pytest.raises(QueueFull):
        batcher.submit([row(1)])


async def test_a_request_larger_than_the_limit_is_taken_when_there_is_room() -> None:
    """Whole or not at all; else it would be refused for ever."""
    batcher = Batcher("ner", bounds(rows=8, queue=2))
    batcher.submit([row(1)])
    assert len(batcher.submit([row(1) for _ in range(5)])) == 5
    assert batcher.queued == 6
    with pytest.raises(QueueFull):
        batcher.submit([row(1)])
    assert len(await batcher.next_batch()) == 6


async def test_closing_fails_what_waits_and_takes_nothing_more() -> None:
    batcher = Batcher("ner", bounds())
    futures = batcher.submit([row(1), row(1)])
    futures[0].cancel()
    batcher.close()
    assert futures[0].cancelled()
    with pytest.raises(ModelUnloaded, match="'ner'"):
        await futures[1]
    with pytest.raises(ModelUnloaded, match="'ner'"):
        batcher.submit([row(1)])
    assert batcher.queued == 0
    batcher.close()


async def test_a_waiter_is_settled_once() -> None:
    """What comes second has no effect, nor what comes after the caller has gone."""
    loop = asyncio.get_running_loop()
    answered, failed, gone = (Waiter(row(1), 0.0, loop.create_future()) for _ in range(3))
    first = result()
    answered.settle(first)
    answered.settle(result())
    answered.fail(ModelUnloaded("ner"))
    assert await answered.future is first
    failed.fail(InferenceFailed("ner", "first"))
    failed.fail(ModelUnloaded("ner"))
    failed.settle(result())
    with pytest.raises(InferenceFailed, match="first"):
        await failed.future
    gone.future.cancel()
    gone.settle(result())
    gone.fail(ModelUnloaded("ner"))
    assert gone.future.cancelled()
