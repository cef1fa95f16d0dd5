"""The queue in which rows wait."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np
import pytest

from nerve.engine.batcher import MIN_AHEAD, Batcher, Waiter
from nerve.engine.cost import Run
from nerve.engine.plan import BatchLimits
from nerve.errors import InferenceFailed, ModelUnloaded, QueueFull, WaitTooLong
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


async def test_a_batch_full_of_tokens_does_not_wait_for_company() -> None:
    batcher = Batcher("ner", bounds(tokens=20, delay_s=3600.0), workers=1)
    batcher.submit([row(10, mark=1), row(10, mark=2), row(10, mark=3)])
    assert marks((await batcher.next_batch()).waiters) == [1, 2]


async def test_rows_of_different_callers_go_together_in_order() -> None:
    batcher = Batcher("ner", bounds(), workers=1)
    batcher.submit([row(9, mark=1)])
    batcher.submit([row(9, mark=2), row(8, mark=3)])
    assert batcher.queued == 3
    assert marks((await batcher.next_batch()).waiters) == [1, 2, 3]
    assert batcher.queued == 0


async def test_what_does_not_fit_stays_in_order() -> None:
    batcher = Batcher("ner", bounds(rows=2), workers=1)
    for mark in range(1, 6):
        batcher.submit([row(1, mark=mark)])
    assert [marks((await batcher.next_batch()).waiters) for _ in range(3)] == [[1, 2], [3, 4], [5]]


async def test_a_worker_that_waits_is_woken() -> None:
    batcher = Batcher("ner", bounds(), workers=1)
    worker = asyncio.create_task(batcher.next_batch())
    await everybody_had_a_turn()
    assert not worker.done()
    batcher.submit([row(1, mark=1)])
    assert marks((await worker).waiters) == [1]


async def test_every_worker_that_waits_is_woken() -> None:
    """A request of several batches keeps all instances busy."""
    batcher = Batcher("ner", bounds(rows=2), workers=3)
    workers = [asyncio.create_task(batcher.next_batch()) for _ in range(3)]
    await everybody_had_a_turn()
    batcher.submit([row(1, mark=mark) for mark in range(6)])
    assert [marks((await worker).waiters) for worker in workers] == [[0, 1], [2, 3], [4, 5]]


async def test_a_delay_waits_for_company_until_the_batch_is_full() -> None:
    batcher = Batcher("ner", bounds(rows=3, delay_s=LONG_S), workers=1)
    worker = asyncio.create_task(batcher.next_batch())
    for mark in (1, 2):
        batcher.submit([row(1, mark=mark)])
        await everybody_had_a_turn()
        assert not worker.done()
    batcher.submit([row(1, mark=3)])
    assert marks((await worker).waiters) == [1, 2, 3]


async def test_a_delay_ends_by_itself() -> None:
    """A row that stays alone goes alone, and not before its time."""
    batcher = Batcher("ner", bounds(delay_s=0.01), workers=1)
    batcher.submit([row(1, mark=1)])
    ((waiter,), _) = await batcher.next_batch()
    assert marks([waiter]) == [1]
    assert time.monotonic() >= waiter.arrived + 0.01


async def test_a_delay_counts_from_the_oldest_row_that_is_left() -> None:
    """When the row that started the clock is given up, the next one has its whole time."""
    batcher = Batcher("ner", bounds(delay_s=0.01), workers=1)
    given_up = batcher.submit([row(1, mark=1)])
    await asyncio.wait(given_up, timeout=0.02)  # its time is over, and nobody came for it
    given_up[0].cancel()
    batcher.submit([row(1, mark=2)])
    ((waiter,), _) = await batcher.next_batch()
    assert marks([waiter]) == [2]
    assert time.monotonic() >= waiter.arrived + 0.01


async def test_rows_whose_caller_has_gone_are_left_out() -> None:
    batcher = Batcher("ner", bounds(), workers=1)
    first, second = batcher.submit([row(1, mark=1)]), batcher.submit([row(1, mark=2)])
    first[0].cancel()
    assert batcher.queued == 1
    assert marks((await batcher.next_batch()).waiters) == [2]
    assert not second[0].done()


async def test_a_queue_of_none_but_gone_callers_gives_no_batch() -> None:
    """The worker goes on waiting, with and without a delay."""
    for delay_s in (0.0, LONG_S):
        batcher = Batcher("ner", bounds(delay_s=delay_s), workers=1)
        worker = asyncio.create_task(batcher.next_batch())
        for future in batcher.submit([row(1), row(1)]):
            future.cancel()
        await everybody_had_a_turn()
        assert not worker.done()
        batcher.submit([row(1, mark=mark) for mark in range(4)])
        assert marks((await worker).waiters) == [0, 1, 2, 3]


async def test_a_worker_that_is_stopped_takes_nothing_along() -> None:
    """Rows stay for the others."""
    batcher = Batcher("ner", bounds(delay_s=LONG_S), workers=1)
    worker = asyncio.create_task(batcher.next_batch())
    batcher.submit([row(1, mark=1)])
    await everybody_had_a_turn()
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    assert worker.cancelled()
    batcher.submit([row(1), row(1), row(1)])
    assert len((await batcher.next_batch()).waiters) == 4


async def test_a_full_queue_refuses_and_then_works_again() -> None:
    """The error names the model and its limit; what was refused is not queued."""
    batcher = Batcher("ner", bounds(queue=2), workers=1)
    batcher.submit([row(1)])
    batcher.submit([row(1)])
    with pytest.raises(QueueFull) as caught:
        batcher.submit([row(1)])
    assert (caught.value.model, caught.value.limit) == ("ner", 2)
    assert batcher.queued == 2
    await batcher.next_batch()
    batcher.submit([row(1)])
    assert batcher.queued == 1


async def test_a_queue_with_too_many_tokens_refuses() -> None:
    """However few rows they are of; rows whose callers have gone count no more."""
    batcher = Batcher("ner", dataclasses.replace(bounds(rows=8), max_queue_tokens=10), workers=1)
    (first,) = batcher.submit([row(9)])
    batcher.submit([row(9)])
    with pytest.raises(QueueFull, match="already has 10 tokens waiting"):
        batcher.submit([row(1)])
    first.cancel()
    batcher.submit([row(1)])
    with pytest.raises(QueueFull):
        batcher.submit([row(1)])
    await batcher.next_batch()
    batcher.submit([row(1)])


async def test_gone_callers_make_room() -> None:
    batcher = Batcher("ner", bounds(queue=2), workers=1)
    first, _ = batcher.submit([row(1)]), batcher.submit([row(1)])
    first[0].cancel()
    batcher.submit([row(1)])
    with pytest.raises(QueueFull):
        batcher.submit([row(1)])


async def test_a_request_larger_than_the_limit_is_taken_when_there_is_room() -> None:
    """Whole or not at all; else it would be refused for ever."""
    batcher = Batcher("ner", bounds(rows=8, queue=2), workers=1)
    batcher.submit([row(1)])
    assert len(batcher.submit([row(1) for _ in range(5)])) == 5
    assert batcher.queued == 6
    with pytest.raises(QueueFull):
        batcher.submit([row(1)])
    assert len((await batcher.next_batch()).waiters) == 6


async def test_closing_fails_what_waits_and_takes_nothing_more() -> None:
    batcher = Batcher("ner", bounds(), workers=1)
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
    answered, failed, gone = (
        Waiter(row(1), 1, 0.0, 0.0, math.inf, 0.0, loop.create_future()) for _ in range(3)
    )
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


# --- whose turn it is ---


async def test_idle_workers_share_what_waits() -> None:
    """Two rows and two idle instances: one each, at once."""
    batcher = Batcher("ner", bounds(), workers=2)
    workers = [asyncio.create_task(batcher.next_batch()) for _ in range(2)]
    await everybody_had_a_turn()
    batcher.submit([row(3, mark=1)])
    batcher.submit([row(3, mark=2)])
    assert [marks((await worker).waiters) for worker in workers] == [[1], [2]]


async def test_a_batch_is_alone_when_the_others_are_idle_and_nothing_waits() -> None:
    batcher = Batcher("ner", bounds(), workers=2)
    workers = [asyncio.create_task(batcher.next_batch()) for _ in range(2)]
    await everybody_had_a_turn()
    batcher.submit([row(3, mark=1)])
    assert (await workers[0]).alone
    batcher.submit([row(3, mark=2)])  # while the first one runs
    assert not (await workers[1]).alone
    workers = [asyncio.create_task(batcher.next_batch()) for _ in range(2)]
    await everybody_had_a_turn()
    batcher.submit([row(3, mark=3), row(3, mark=4)])
    assert not (await workers[0]).alone
    assert not (await workers[1]).alone


async def test_a_large_request_holds_up_no_small_one() -> None:
    """Of 1,000 rows only those go before a later one that would be done by then."""
    batcher = Batcher("ner", bounds(rows=4), workers=1)
    batcher.begin([Run(1, 20, 1000.0), Run(4, 20, 4000.0)])  # to submit takes nothing beside that
    batcher.submit([row(20, mark=number) for number in range(1000)])
    await batcher.next_batch()
    batcher.submit([row(20, mark=9999)])
    assert 9999 in marks((await batcher.next_batch()).waiters)
    batcher.close()


async def test_priorities_come_first_but_not_for_ever() -> None:
    """A level is worth a second of waiting."""
    batcher = Batcher("ner", bounds(rows=1), workers=1)
    for mark, priority in enumerate((10, None, 5, 1)):
        batcher.submit([row(3, mark=mark)], priority=priority)
    assert [marks((await batcher.next_batch()).waiters) for _ in range(4)] == [[3], [1], [2], [0]]
    step_s = 1e-9  # so that whatever came first has waited long enough
    limits = dataclasses.replace(bounds(rows=1), priority_step_s=step_s)
    batcher = Batcher("ner", limits, workers=1)
    for mark, priority in enumerate((10, 1)):
        batcher.submit([row(3, mark=mark)], priority=priority)
        came = time.monotonic()
        while time.monotonic() - came < 20 * step_s:
            await asyncio.sleep(0)
    assert [marks((await batcher.next_batch()).waiters) for _ in range(2)] == [[0], [1]]


async def test_a_near_deadline_goes_before_its_turn() -> None:
    """A row that would miss its deadline by waiting for the batch before it leads that batch."""
    batcher = Batcher("ner", bounds(rows=2), workers=1)
    batcher.begin([Run(1, 1, 1.1), Run(1, 100, 11.0), Run(2, 100, 21.0)])
    batcher.submit([row(90, mark=1)])
    batcher.submit([row(90, mark=2)])
    batcher.submit([row(10, mark=3)], deadline=time.monotonic() + 60.0)
    batcher.submit([row(10, mark=4)])
    assert marks((await batcher.next_batch()).waiters) == [1, 2]  # there is time enough
    batcher.submit([row(90, mark=5)])
    batcher.submit([row(90, mark=6)])
    batcher.close()
    batcher = Batcher("ner", bounds(rows=2), workers=1)
    batcher.begin([Run(1, 1, 1.1), Run(1, 100, 11.0), Run(2, 100, 21.0)])
    urgent = time.monotonic() + 15.0
    batcher.submit([row(10, mark=3)], deadline=urgent, priority=10)
    batcher.submit([row(90, mark=1)])
    batcher.submit([row(90, mark=2)])
    assert marks((await batcher.next_batch()).waiters) == [3]
    assert marks((await batcher.next_batch()).waiters) == [1, 2]


async def test_what_cannot_be_met_is_refused_with_the_wait() -> None:
    """Behind seconds of work a second is too little, and a minute is enough."""
    batcher = Batcher("ner", bounds(rows=1), workers=2)
    batcher.begin([Run(1, 10, 1.0), Run(1, 20, 2.0)])
    batcher.submit([row(10) for _ in range(20)], deadline=time.monotonic() + 1.0)
    with pytest.raises(WaitTooLong) as caught:
        batcher.submit([row(10)], deadline=time.monotonic() + 0.5)
    assert caught.value.model == "ner"
    assert 0.0 < caught.value.wait_s <= 10.5
    with pytest.raises(WaitTooLong) as caught:
        batcher.submit([row(10)], deadline=time.monotonic() + 3.0, priority=10)
    assert 5.0 <= caught.value.wait_s <= 6.0  # of the ten, what goes before one five seconds later
    assert batcher.queued == 20
    batcher.submit([row(10)], deadline=time.monotonic() + 60.0, priority=10)
    batcher.submit([row(10)])
    assert batcher.queued == 22
    batcher.close()


async def test_an_empty_queue_refuses_no_deadline() -> None:
    """Else an estimate that is wrong would never be put right."""
    batcher = Batcher("ner", bounds(), workers=1)
    batcher.begin([Run(1, 10, 100.0)])
    batcher.submit([row(10)], deadline=time.monotonic() + 1.0)
    assert batcher.queued == 1
    batcher.close()


async def test_a_full_queue_tells_how_long_it_will_take() -> None:
    batcher = Batcher("ner", bounds(rows=1, queue=4), workers=2)
    batcher.begin([Run(1, 10, 1.0), Run(1, 20, 2.0)])
    batcher.submit([row(10) for _ in range(4)])
    with pytest.raises(QueueFull) as caught:
        batcher.check_room()
    assert caught.value.wait_s == pytest.approx(2.0, rel=0.1)
    batcher.close()


async def test_waits_are_told_in_the_time_that_runs_are_waited_for() -> None:
    """A busy machine: runs are waited for five times as long as they take of a core."""
    batcher = Batcher("ner", bounds(rows=1), workers=1)
    batcher.begin([Run(1, 10, 1.0), Run(1, 20, 2.0)])
    for _ in range(200):
        batcher.observe(Run(1, 10, 1.0), took_s=5.0)
    batcher.submit([row(10) for _ in range(4)])
    with pytest.raises(WaitTooLong) as caught:
        batcher.submit([row(10)], deadline=time.monotonic() + 10.0, priority=10)
    assert caught.value.wait_s == pytest.approx(20.0, rel=0.1)
    batcher.close()


async def test_lengths_are_planned_as_they_are_padded() -> None:
    """With buckets, rows of one bucket are of one length; without, 20 tokens do not suit 60."""
    for buckets, expected in ((), [1]), ((64,), [1, 2]), ((16,), [1]):
        batcher = Batcher("ner", bounds(rows=2), workers=1)
        batcher.round_up(buckets)
        batcher.begin([Run(1, 10, 0.105), Run(1, 100, 1.005), Run(2, 100, 2.005)])
        batcher.submit([row(20, mark=1)])
        batcher.submit([row(60, mark=2)])
        assert marks((await batcher.next_batch()).waiters) == expected
        batcher.close()


async def test_a_batch_is_taken_ahead_only_from_many_rows() -> None:
    """Of two takers one runs: the other takes what is a choice, not what is there."""
    batcher = Batcher("ner", bounds(rows=3), workers=1, ahead=1)
    takers = [asyncio.create_task(batcher.next_batch()) for _ in range(2)]
    await everybody_had_a_turn()
    batcher.submit([row(3, mark=1)])
    assert (await takers[0]).alone
    for mark in range(2, 1 + MIN_AHEAD):
        batcher.submit([row(3, mark=mark)])
        await everybody_had_a_turn()
        assert not takers[1].done()
    batcher.submit([row(3, mark=99)])
    batch = await takers[1]
    assert (marks(batch.waiters), batch.alone) == ([2, 3, 4], False)


async def test_what_waits_goes_to_the_first_taker_that_is_free() -> None:
    """A row that is no reason to take a batch ahead waits for the run to end, and no longer."""
    batcher = Batcher("ner", bounds(rows=3), workers=1, ahead=1)
    takers = [asyncio.create_task(batcher.next_batch()) for _ in range(2)]
    await everybody_had_a_turn()
    batcher.submit([row(3, mark=1)])
    await takers[0]
    batcher.submit([row(3, mark=2)])
    await everybody_had_a_turn()
    assert not takers[1].done()
    assert marks((await batcher.next_batch()).waiters) == [2]  # the one that has run comes back
    takers[1].cancel()
    await asyncio.gather(takers[1], return_exceptions=True)


async def test_lone_runs_end_the_memory_of_a_busy_machine() -> None:
    """Runs that had the machine to themselves teach that nothing delays runs any more."""
    batcher = Batcher("ner", bounds(rows=1), workers=1)
    batcher.begin([Run(1, 10, 1.0), Run(1, 20, 2.0)])
    for _ in range(100):
        batcher.observe(Run(1, 10, 1.0), took_s=50.0)
    batcher.submit([row(10)])
    with pytest.raises(WaitTooLong):
        batcher.submit([row(10)], deadline=time.monotonic() + 10.0)
    for _ in range(200):
        batcher.observe_lone()
    batcher.submit([row(10)], deadline=time.monotonic() + 10.0)
    batcher.close()


async def test_rows_are_served_whatever_is_wrong_with_the_plan(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In their order, and the log tells."""

    def broken(*_: object, **__: object) -> list[int]:
        raise ZeroDivisionError

    monkeypatch.setattr("nerve.engine.batcher.plan", broken)
    batcher = Batcher("ner", bounds(), workers=1)
    batcher.submit([row(3, mark=1), row(3, mark=2)])
    assert marks((await batcher.next_batch()).waiters) == [1]
    assert "no batch could be planned" in caplog.text
    assert marks((await batcher.next_batch()).waiters) == [2]
