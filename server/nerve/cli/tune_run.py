"""A run of `nerve tune`: trials of settings beside the present ones, and what is best of them."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from nerve.cli.drive import Figures, Load, Tally, drive, figures, in_turn, since
from nerve.cli.in_process import LOAD_TIMEOUT_S, LocalTarget, Source, open_local
from nerve.cli.report import Bar
from nerve.cli.search import GAIN, Machine, Settings, Trial, axes, descend
from nerve.config.model import ModelConfig
from nerve.config.running import Precision
from nerve.conversion import Converter
from nerve.engine.graph_cache import GraphCache
from nerve.engine.instances import cores
from nerve.errors import ModelLoadFailed, NerveError
from nerve.types import CutOptions

WARM_UP_S: Final = 0.3
ROUNDS: Final = 2
"""Turns of a trial and of the present settings: what the machine does meanwhile meets both."""
LAST_ROUNDS: Final = 4
STUCK_S: Final = 60.0
"""Beyond its seconds, for the requests of a trial that are still in flight."""
_CACHE_BYTES: Final = 20 * 2**30


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure with, and how long."""

    texts: Sequence[str]
    concurrency: int
    batch: int
    seconds_per_trial: float
    budget_s: float
    max_latency_ms: float | None
    precisions: Sequence[Precision]


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The best settings and the present ones, measured again in turns."""

    present: Figures
    best: Figures
    ratios: Sequence[float]
    """Of the throughputs, a number a turn."""

    @property
    def ratio(self) -> float:
        """Best over present."""
        return statistics.median(self.ratios)

    def in_time(self, max_latency_ms: float | None) -> bool:
        """Whether the best settings keep the limit, and lose no request."""
        return _in_time(self.best, max_latency_ms)

    def gains(self, max_latency_ms: float | None) -> bool:
        """Whether changing over is worth it: more than noise in throughput, or the limit kept now."""
        if not self.in_time(max_latency_ms):
            return False
        if not _in_time(self.present, max_latency_ms):
            return True
        return self.ratio >= GAIN and min(self.ratios) > 1


def _in_time(each: Figures, max_latency_ms: float | None) -> bool:
    if each.p99_ms is None or each.failed:
        return False
    return max_latency_ms is None or each.p99_ms <= max_latency_ms


@dataclass
class Tuning:
    """The search, and what has come of it so far."""

    source: Source
    wanted: Wanted
    bar: Bar
    trials: list[Trial] = field(default_factory=list)
    best: Trial | None = None
    confirmation: Confirmation | None = None
    ended_early: bool = False
    """Whether the budget ended before the search did."""
    _began: float = 0.0
    _longest_trial_s: float = 0.0
    _passed: set[Precision | None] = field(default_factory=set)
    """Precisions that golden.jsonl has been run with."""
    _converter: Converter = field(init=False)
    _present: LocalTarget = field(init=False)

    async def run(self) -> None:
        """Fill in all of the above. Raises NerveError where nothing can be measured."""
        self._began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="nerve-tune-") as folder:
            cache = GraphCache(Path(folder) / "graphs", _CACHE_BYTES)
            self._converter = Converter(LOAD_TIMEOUT_S, None, cache, fills=True)
            async with (
                self.bar.watch("opening the model", total=None, done=lambda: 0),
                self._open(self._base) as present,
            ):
                self._present = present
                machine = await self._machine(present)
                best = await descend(
                    self._base,
                    axes(machine),
                    self._trial,
                    max_latency_ms=self.wanted.max_latency_ms,
                    trials=self.trials,
                    time_is_up=self._time_is_up,
                )
                self.best = best
                if best.settings != self._base:
                    async with self._open(best.settings) as target:
                        self.confirmation = await self._compare(
                            target, f"once more: {shown(best.settings, self._base)}", LAST_ROUNDS
                        )

    @property
    def _base(self) -> Settings:
        return Settings.of(self.source.config)

    async def _machine(self, present: LocalTarget) -> Machine:
        texts = self.wanted.texts
        encoded = await asyncio.to_thread(present.model.encode, texts, CutOptions())
        longest = max(len(row.ids) for row in present.model.rows(encoded))
        return Machine(
            gpu=present.model.info.device == "gpu",
            cores=cores(),
            rows_in_flight=self.wanted.concurrency * self.wanted.batch,
            longest=longest,
            max_tokens=present.model.info.max_tokens,
            counts=len(self.source.config.instance_group) == 1,
            counts_given=self._base.count is not None,
            precisions=self.wanted.precisions,
        )

    def _time_is_up(self) -> bool:
        """Whether another trial and the last comparison would not end within the budget."""
        rest_s = self._longest_trial_s * (1 + LAST_ROUNDS / ROUNDS)
        self.ended_early = time.monotonic() - self._began + rest_s > self.wanted.budget_s
        return self.ended_early

    @asynccontextmanager
    async def _open(self, settings: Settings) -> AsyncIterator[LocalTarget]:
        """A model with these settings. golden.jsonl is run once for each precision."""
        source, config = self.source, settings.applied(self.source.config)
        if settings.precision in self._passed:
            source = replace(source, files=replace(source.files, golden=None))
            config = config.model_copy(update={"quality_gate": None})
        async with open_local(source, config, self._converter) as target:
            self._passed.add(settings.precision)
            yield target

    async def _trial(self, settings: Settings) -> Trial:
        """Measure settings; what keeps them from being measured becomes the reason of a refusal."""
        began = time.monotonic()
        name = shown(settings, self._base)
        try:
            if settings == self._base:
                found = await self._measure_present(name)
                return Trial(settings, found, found.texts_per_s, 1.0)
            async with self._open(settings) as target:
                compared = await self._compare(target, name, ROUNDS)
        except NerveError as error:
            return Trial(settings, refused=str(error))
        finally:
            self._longest_trial_s = max(self._longest_trial_s, time.monotonic() - began)
        beside = compared.present.texts_per_s
        ratio = compared.best.texts_per_s / max(beside, 1e-9)
        return Trial(settings, compared.best, beside, ratio)

    async def _measure_present(self, name: str) -> Figures:
        await self._warm(self._present)
        tally, before = Tally(), await self._present.statistics()
        seconds = self.wanted.seconds_per_trial / 2
        await self._drive(self._present, tally, seconds, name)
        if not tally.latencies_s:
            first = next(iter(tally.failures.values())).first if tally.failures else "no answer"
            raise ModelLoadFailed(f"it answers nothing as it is: {first}")
        ran = since(before, await self._present.statistics())
        return figures(self._load(seconds), tally, ran)

    async def _compare(self, target: LocalTarget, name: str, rounds: int) -> Confirmation:
        """Both in turns, so many times."""
        seconds = self.wanted.seconds_per_trial / (2 * ROUNDS)
        for each in (self._present, target):
            await self._warm(each)
        before = [await self._present.statistics(), await target.statistics()]
        tallies, ratios = [Tally(), Tally()], []
        for turn in range(rounds):
            rates = []
            for each, tally in zip((self._present, target), tallies, strict=True):
                texts, took = tally.texts, tally.seconds
                label = f"{name} ({turn + 1}/{rounds})"
                await self._drive(each, tally, seconds, label)
                rates.append((tally.texts - texts) / (tally.seconds - took))
            ratios.append(rates[1] / max(rates[0], 1e-9))
        after = [await self._present.statistics(), await target.statistics()]
        present, best = (
            figures(self._load(seconds), tally, since(then, now))
            for tally, then, now in zip(tallies, before, after, strict=True)
        )
        return Confirmation(present, best, ratios)

    async def _warm(self, target: LocalTarget) -> None:
        texts = in_turn(self.wanted.texts, batch=self.wanted.batch)
        seconds = min(WARM_UP_S, self.wanted.seconds_per_trial / 4)
        await drive(target.send, texts, self._load(seconds), Tally())

    async def _drive(self, target: LocalTarget, tally: Tally, seconds: float, name: str) -> None:
        texts, began = in_turn(self.wanted.texts, batch=self.wanted.batch), time.perf_counter()
        label = f"trial {len(self.trials) + 1}: {name}"
        try:
            async with (
                asyncio.timeout(seconds + STUCK_S),
                self.bar.watch(label, total=seconds, done=lambda: time.perf_counter() - began),
            ):
                await drive(target.send, texts, self._load(seconds), tally)
        except TimeoutError:
            raise ModelLoadFailed(f"it did not answer within {STUCK_S:g} s") from None

    def _load(self, seconds: float) -> Load:
        return Load(self.wanted.concurrency, seconds)

    def tuned(self) -> ModelConfig:
        """The config of the best trial."""
        assert self.best is not None  # `run` has ended
        return self.best.settings.applied(self.source.config)


def shown(settings: Settings, base: Settings) -> str:
    """How settings differ from the present ones. Pure."""
    changes = settings.changes(base)
    return ", ".join(f"{path_shown(path)}={value}" for path, value in changes.items()) or "present"


def path_shown(path: Sequence[str | int]) -> str:
    """A path of config.yaml as people write it. Pure."""
    return ".".join(str(part) for part in path if not isinstance(part, int))
