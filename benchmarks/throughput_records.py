"""What throughput.py measures, as records."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from counters import Window
from doors import Door
from lone import Lone
from oracle import Rate
from wrk import Sent

COMPARED_AT: Final = 64
"""Concurrency at which the schedulers are compared."""
TRANSFORM: Final = "transform"
"""The model that is served with one."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The server with one scheduler at one concurrency: what it counted, and what wrk saw."""

    scheduler: str
    concurrency: int
    server: Window
    client: Sent


@dataclass(slots=True)
class Round:
    """One round: the oracle (its best ways) at the beginning and the end, one caller with and
    without a server, and the server under load."""

    oracle: list[Rate] = field(default_factory=list)
    lone: list[Lone] = field(default_factory=list)
    caller: Lone | None = None
    cells: list[Cell] = field(default_factory=list)
    pairs: list[dict[str, Cell]] = field(default_factory=list)
    """The default scheduler without and with a transform, right after one another."""
    doors: list[Door] = field(default_factory=list)

    @property
    def best(self) -> Rate:
        """The better of the oracle's ways, with the mean rates of its measurements."""
        ways: dict[tuple[str, int], list[Rate]] = {}
        for rate in self.oracle:
            ways.setdefault((rate.set_up, rate.batch_size), []).append(rate)
        means = [
            replace(
                rates[0],
                tokens_per_s=statistics.fmean(rate.tokens_per_s for rate in rates),
                texts_per_s=statistics.fmean(rate.texts_per_s for rate in rates),
                cpu_ms_per_token=statistics.fmean(rate.cpu_ms_per_token for rate in rates),
            )
            for rates in ways.values()
        ]
        return max(means, key=lambda rate: rate.tokens_per_s)

    def cell(self, scheduler: str, concurrency: int) -> Cell:
        """One of the cells."""
        return next(
            each
            for each in self.cells
            if (each.scheduler, each.concurrency) == (scheduler, concurrency)
        )

    def of_oracle(self, cell: Cell) -> float:
        """Tokens a second, as a part of the oracle's."""
        return cell.server.tokens_per_s / self.best.tokens_per_s

    def work_of_oracle(self, cell: Cell) -> float:
        """Tokens a second of processor time, as a part of the oracle's; other programs that run
        meanwhile disturb this less."""
        seen = cell.server
        cpu_ms = (seen.loop_cpu_ms + seen.other_cpu_ms) * seen.texts_per_s / seen.tokens_per_s
        return self.best.cpu_ms_per_token / cpu_ms

    def over(self, scheduler: str) -> float:
        """What the default scheduler brings over another one."""
        ours = self.cell("cost", COMPARED_AT).server.tokens_per_s
        return ours / self.cell(scheduler, COMPARED_AT).server.tokens_per_s

    @property
    def with_transform(self) -> list[float]:
        """Texts a second with a transform, as a part of those without; one for each pair."""
        return [
            pair[TRANSFORM].server.texts_per_s / pair["cost"].server.texts_per_s
            for pair in self.pairs
        ]

    def door(self, protocol: str) -> Door:
        """One of the transports of the Open Inference Protocol."""
        return next(each for each in self.doors if each.protocol == protocol)

    @property
    def grpc_of_http(self) -> float:
        """Texts a second over gRPC, as a part of those over HTTP."""
        return self.door("grpc").server.texts_per_s / self.door("http").server.texts_per_s

    def of_loop(self, value: Callable[[Lone], float]) -> float:
        """One caller's time at the server over that of the better loop."""
        assert self.caller is not None
        return value(self.caller) / min(map(value, self.lone))


@dataclass(slots=True)
class Measured:
    """Everything about one model. `texts` of `mean_tokens` tokens were sent."""

    model: str
    texts: int
    mean_tokens: float
    searched: list[Rate] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
