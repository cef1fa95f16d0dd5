"""What the plan brings: callers in a closed loop, on a clock that is only counted."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from nerve.config.running import Scheduler
from nerve.engine.plan import BatchLimits, plan, prices
from nerve.types import CostModel

MINILM = CostModel(run_s=4.2e-3, token_s=1.8e-4, attention_s=2.0e-7, crowding_s=7.4e-5)
"""As measured for the bundled model on one core."""
ROWS, TOKENS = 32, 8192


def log_normal(count: int, seed: int) -> list[int]:
    """Lengths of sentences around 24 tokens, as they are in mixed texts."""
    draw = np.random.default_rng(seed).normal(np.log(24), 0.6, count)
    return [int(each) for each in np.clip(np.exp(draw), 3, 256)]


@dataclass
class Outcome:
    """What a simulation gave: tokens a second, padding's share, waits in seconds and in batches."""

    rate: float
    waste: float
    waits_s: list[float]


def simulate(
    scheduler: Scheduler, lengths: Sequence[int], *, callers: int, workers: int = 2
) -> Outcome:
    """Every caller sends its next text when it has its answer."""
    rows = 1 if scheduler is Scheduler.NONE else ROWS
    limits = BatchLimits(rows, TOKENS, 0.0, 1 << 20, scheduler)
    texts = random.Random(7)
    waiting = [(0.0, texts.choice(lengths)) for _ in range(callers)]
    running: list[tuple[float, int, list[tuple[float, int]]]] = []
    now, idle, tokens, padded, number = 0.0, workers, 0, 0, 0
    waits_s: list[float] = []
    while len(waits_s) < 1500 + 8 * callers:
        while idle and waiting:
            seen = np.array([length for _, length in waiting[: limits.look_ahead]])
            most = -(-len(waiting) // idle)
            price = prices(seen, limits, MINILM)
            chosen = plan(seen, price, np.full(len(seen), np.inf), limits, MINILM, most=most)
            batch = [waiting[position] for position in chosen]
            waiting = [each for place, each in enumerate(waiting) if place not in set(chosen)]
            longest = max(length for _, length in batch)
            tokens += sum(length for _, length in batch)
            padded += len(batch) * longest
            number, idle = number + 1, idle - 1
            took = float(MINILM.seconds(len(batch), longest))
            heapq.heappush(running, (now + took, number, batch))
        now, _, batch = heapq.heappop(running)
        idle += 1
        waits_s += [now - came for came, _ in batch]
        waiting += [(now, texts.choice(lengths)) for _ in batch]
    return Outcome(tokens / now, 1 - tokens / padded, waits_s)


def oracle(lengths: Sequence[int], workers: int = 2) -> float:
    """Tokens a second with all texts known and sorted, in the best size of batches."""
    best = 0.0
    ordered = sorted(lengths)
    for size in (1, 2, 4, 8, 16, 32):
        batches = [ordered[first : first + size] for first in range(0, len(ordered), size)]
        took = sum(float(MINILM.seconds(len(batch), batch[-1])) for batch in batches)
        best = max(best, workers * sum(ordered) / took)
    return best


@pytest.mark.parametrize(("callers", "share"), [(64, 0.9), (256, 0.95)])
def test_many_callers_are_served_at_nearly_the_best_rate(callers: int, share: float) -> None:
    """With little padding, and well before naive padding and no batching."""
    lengths = log_normal(5000, seed=1)
    ours = simulate(Scheduler.COST, lengths, callers=callers)
    assert ours.rate >= share * oracle(lengths)
    assert ours.waste < 0.1
    assert ours.rate >= 2 * simulate(Scheduler.FIFO, lengths, callers=callers).rate
    assert ours.rate >= 1.15 * simulate(Scheduler.NONE, lengths, callers=callers).rate


def test_odd_lengths_wait_no_longer_than_with_naive_padding() -> None:
    """The longest wait of thousands, though only one row a batch goes for its turn's sake."""
    lengths = log_normal(5000, seed=2)
    ours = simulate(Scheduler.COST, lengths, callers=64)
    naive = simulate(Scheduler.FIFO, lengths, callers=64)
    assert max(ours.waits_s) <= max(naive.waits_s)
    assert np.median(ours.waits_s) <= 0.5 * np.median(naive.waits_s)


def test_two_callers_each_have_an_instance() -> None:
    """Nobody waits for company."""
    ours = simulate(Scheduler.COST, log_normal(500, seed=3), callers=2)
    alone = simulate(Scheduler.NONE, log_normal(500, seed=3), callers=2)
    assert ours.waits_s == alone.waits_s
