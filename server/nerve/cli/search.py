"""Which settings `nerve tune` tries, and in which order; knows no model: trials are asked for."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nerve.cli.drive import Figures
from nerve.config.model import ModelConfig
from nerve.config.running import Precision

STEP: Final = 1.01
"""A trial must be so much better to be gone on from; less is noise."""
GAIN: Final = 1.03
"""What is left of it when it is measured again must be at least this; less is noise, too."""
LARGEST_BATCH: Final = 256
_GPU_COUNTS: Final = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Settings:
    """The keys of config.yaml that are tried; None is a key's default."""

    count: int | None
    intra_op_threads: int
    solo_threads: int | None
    precision: Precision | None
    max_batch_size: int
    max_num_tokens: int

    @classmethod
    def of(cls, config: ModelConfig) -> Settings:
        """What a config has."""
        return cls(
            config.instance_group[0].count,
            config.optimization.intra_op_threads,
            config.optimization.solo_threads,
            config.optimization.precision,
            config.max_batch_size,
            config.max_num_tokens,
        )

    def applied(self, config: ModelConfig) -> ModelConfig:
        """A config with these in it."""
        own = Settings.of(config)
        first, *others = config.instance_group
        if self.count != own.count:
            first = first.model_copy(update={"count": self.count})
        return config.model_copy(
            update={
                "instance_group": [first, *others],
                "optimization": config.optimization.model_copy(
                    update={
                        "intra_op_threads": self.intra_op_threads,
                        "solo_threads": self.solo_threads,
                        "precision": self.precision,
                    }
                ),
                "max_batch_size": self.max_batch_size,
                "max_num_tokens": self.max_num_tokens,
            }
        )

    def changes(self, base: Settings) -> dict[tuple[str | int, ...], int | str | None]:
        """Paths in config.yaml at which these differ from others, with the new values. Pure."""
        paths: dict[str, tuple[str | int, ...]] = {
            "count": ("instance_group", 0, "count"),
            "intra_op_threads": ("optimization", "intra_op_threads"),
            "solo_threads": ("optimization", "solo_threads"),
            "precision": ("optimization", "precision"),
            "max_batch_size": ("max_batch_size",),
            "max_num_tokens": ("max_num_tokens",),
        }
        found: dict[tuple[str | int, ...], int | str | None] = {}
        for name, path in paths.items():
            value = getattr(self, name)
            if value != getattr(base, name):
                found[path] = str(value) if isinstance(value, Precision) else value
        return found


@dataclass(frozen=True, slots=True)
class Machine:
    """What bounds the trials."""

    gpu: bool
    cores: int
    rows_in_flight: int
    """Texts that callers have sent and wait for."""
    longest: int
    """Tokens of the longest text."""
    max_tokens: int
    """Tokens of the longest row that the model takes now; no trial may cut it shorter."""
    counts: bool
    """Whether the instances are one group, so that their number can be changed."""
    counts_given: bool
    """Whether the config states their number; where it does not, the usual one stays unsaid."""
    precisions: Sequence[Precision]
    """Those that may be tried."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of settings: figures, or a refusal."""

    settings: Settings
    figures: Figures | None = None
    beside: float = 0.0
    """Texts a second that the present settings had meanwhile."""
    ratio: float = 0.0
    """Of the throughput to that."""
    refused: str = ""

    def score(self, max_latency_ms: float | None) -> tuple[bool, float]:
        """The larger the better: first whether p99 is in time, then how much or how late."""
        p99 = self.figures.p99_ms if self.figures else None
        if p99 is None or (self.figures and self.figures.failed):
            return False, -math.inf
        if max_latency_ms is not None and p99 > max_latency_ms:
            return False, max_latency_ms / p99
        return True, self.ratio


Axis = Callable[[Settings], Iterator[Settings]]
Measure = Callable[[Settings], Awaitable[Trial]]


def axes(machine: Machine) -> list[Axis]:
    """The directions of the search, those that matter most first. Pure."""

    def stated(count: int, usual: int) -> int | None:
        return count if machine.counts_given or count != usual else None

    def layouts(now: Settings) -> Iterator[Settings]:
        if machine.gpu:
            for count in _GPU_COUNTS if machine.counts else ():
                if count != (now.count or 1):
                    yield replace(now, count=stated(count, 1))
            return
        cores = machine.cores
        threads = sorted({1, 2, max(1, cores // 2), cores})
        pairs = [(max(1, cores // each), each) for each in threads if each <= cores]
        pairs += [(max(1, cores // 2), 1), (1, 1)]
        present = (now.count or max(1, cores // now.intra_op_threads), now.intra_op_threads)
        for count, each in dict.fromkeys(pairs):
            if (count, each) == present:
                continue
            if machine.counts:
                usual = max(1, cores // each)
                yield replace(now, count=stated(count, usual), intra_op_threads=each)
            elif each != now.intra_op_threads:
                yield replace(now, intra_op_threads=each)

    def precisions(now: Settings) -> Iterator[Settings]:
        for precision in machine.precisions:
            # A graph as it is has a precision, too, most often this one.
            if precision is not (now.precision or Precision.FP32):
                yield replace(now, precision=precision)

    def batch_sizes(now: Settings) -> Iterator[Settings]:
        for size in (now.max_batch_size * 2, now.max_batch_size // 2):
            # One that can never be full is no other than the next larger one.
            if 1 <= size <= LARGEST_BATCH and size < 2 * machine.rows_in_flight:
                yield replace(now, max_batch_size=size)

    def budgets(now: Settings) -> Iterator[Settings]:
        largest = now.max_batch_size * machine.longest
        for tokens in (now.max_num_tokens // 2, now.max_num_tokens * 2):
            if tokens >= machine.max_tokens and min(tokens, now.max_num_tokens) < largest:
                yield replace(now, max_num_tokens=tokens)

    def solo(now: Settings) -> Iterator[Settings]:
        # Only a run that has the machine to itself is made by that session.
        if machine.gpu or machine.rows_in_flight > 1:
            return
        for threads in dict.fromkeys((1, max(1, machine.cores // 2), machine.cores)):
            if threads != now.solo_threads:
                yield replace(now, solo_threads=threads)

    return [precisions, layouts, batch_sizes, budgets, solo]


async def descend(
    base: Settings,
    directions: Sequence[Axis],
    measure: Measure,
    *,
    max_latency_ms: float | None,
    trials: list[Trial],
    time_is_up: Callable[[], bool],
) -> Trial:
    """Coordinate descent: the best of each direction in turn, until none is better any more.

    Args:
        base: where to begin.
        directions: neighbours of settings.
        measure: makes a trial of settings; none is measured twice.
        max_latency_ms: that p99 may have, or None.
        trials: every trial is put in, the first of `base`.
        time_is_up: whether to end where it is.
    Returns:
        The best trial.
    """
    known: dict[Settings, Trial] = {}
    refused: set[Precision | None] = set()

    async def trial(settings: Settings) -> Trial:
        if settings not in known:
            known[settings] = await measure(settings)
            trials.append(known[settings])
        return known[settings]

    best = await trial(base)
    while True:
        before = best
        for direction in directions:
            for settings in list(direction(best.settings)):
                if settings.precision in refused:
                    continue
                if settings not in known and time_is_up():
                    return best
                candidate = await trial(settings)
                if candidate.refused and settings.precision != best.settings.precision:
                    refused.add(settings.precision)  # with other settings it is no better
                if better(candidate, best, max_latency_ms):
                    best = candidate
        if best is before:
            return best


def better(one: Trial, other: Trial, max_latency_ms: float | None, *, by: float = STEP) -> bool:
    """Whether a trial is better by more than noise. Pure."""
    (in_time, value), (other_in_time, other_value) = (
        one.score(max_latency_ms), other.score(max_latency_ms),
    )  # fmt: skip
    return in_time > other_in_time or (in_time == other_in_time and value > other_value * by)
