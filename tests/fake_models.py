"""A manager of models that a fake opens: it loads nothing, and fails or waits as a test says.

What a version holds is a word, the name of its graph: `wanted("ner", {1: "old", 2: "new"})`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from nerve.config.model import ModelConfig
from nerve.errors import Cause
from nerve.metrics.repository import RepositoryMetrics
from nerve.repository.catalog import Catalog
from nerve.repository.fingerprint import stamp
from nerve.repository.lifecycle import State
from nerve.repository.manager import ModelManager
from nerve.repository.wanted import Wanted, WantedVersion, paths
from nerve.types import (
    CallStatistics,
    CostModel,
    CutOptions,
    EngineStatistics,
    LogitsAnswer,
    ModelInfo,
    Row,
    ServedModel,
    Span,
    SpanAnswer,
    SpanOptions,
    TextTokens,
    TokenAnswer,
    VersionFiles,
)
from nerve.words import OffsetUnit

PATIENCE_S = 60.0
COST = CallStatistics(0, 0, 0.0, 0.0, 0.0)


async def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds; fail if it does not within `PATIENCE_S`."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.001)


async def everybody_had_a_turn() -> None:
    """Run every callback that is ready, and those that they make ready; no time is waited for."""
    for _ in range(20):
        await asyncio.sleep(0)


def _timeout_s(config: ModelConfig | None) -> float | None:
    timeout_us = config and config.dynamic_batching.default_timeout_microseconds
    return timeout_us / 1e6 if timeout_us else None


class FakeModel:
    """A loaded version: knows who it is, what it holds, and whether it was closed.

    It answers with `spans_found`, after `answer` (if any) was awaited.
    """

    def __init__(
        self, name: str, version: int, *, content: str = "", config: ModelConfig | None = None
    ) -> None:
        self._info = ModelInfo(
            name=name,
            version=version,
            labels=("O", "B-PER"),
            max_tokens=8,
            max_batch_size=1,
            max_num_tokens=8,
            max_queue_size=1,
            stride=None,
            device="cpu",
            aggregation_strategy=None,
            offset_unit=config.offset_unit if config else None,
            default_timeout_s=_timeout_s(config),
        )
        self.content = content
        self.config = config or ModelConfig()
        self.closed = False
        self.close_failure: Exception | None = None
        self.asked: list[Sequence[str]] = []
        self.limits: list[tuple[float | None, int | None]] = []
        """Deadline and priority of each."""
        self.spans_found: list[list[Span]] = []
        self.cost = COST
        """Of each."""
        self.answer: Callable[[], Awaitable[object]] | None = None

    @property
    def info(self) -> ModelInfo:
        """Who it is."""
        return self._info

    def change_info(self, **facts: Any) -> None:
        """Be another one from now on."""
        self._info = replace(self._info, **facts)

    async def spans(
        self,
        texts: Sequence[str],
        options: SpanOptions,
        *,
        deadline: float | None,
        priority: int | None = None,
    ) -> SpanAnswer:
        """What the test put into `spans_found`."""
        self.limits.append((deadline, priority))
        await self._answer(texts)
        return SpanAnswer(self.spans_found, self.cost)

    async def tokens(
        self,
        texts: Sequence[str],
        *,
        unit: OffsetUnit,
        cut: CutOptions,
        deadline: float | None,
        priority: int | None = None,
    ) -> TokenAnswer:
        """Nothing."""
        self.limits.append((deadline, priority))
        await self._answer(texts)
        return TokenAnswer([], self.cost)

    async def spans_and_tokens(
        self,
        texts: Sequence[str],
        options: SpanOptions,
        *,
        deadline: float | None,
        priority: int | None = None,
    ) -> tuple[SpanAnswer, TokenAnswer]:
        """As the two."""
        self.limits.append((deadline, priority))
        await self._answer(texts)
        return SpanAnswer(self.spans_found, self.cost), TokenAnswer([], self.cost)

    async def logits(
        self, rows: Sequence[Row], *, deadline: float | None, priority: int | None = None
    ) -> LogitsAnswer:
        """Zeros."""
        self.limits.append((deadline, priority))
        await self._answer([])
        return LogitsAnswer([np.zeros((len(row.ids), 2), np.float32) for row in rows], self.cost)

    async def _answer(self, texts: Sequence[str]) -> None:
        assert not self.closed
        self.asked.append(texts)
        if self.answer is not None:
            await self.answer()

    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        add_special_tokens: bool | None,
        unit: OffsetUnit,
        max_tokens: int,
    ) -> list[TextTokens]:
        """A special token for each text."""
        await self._answer(texts)
        return [TextTokens([0], ["[CLS]"], [True], [None], [None]) for _ in texts]

    async def decode(self, rows: Sequence[list[int]], *, skip_special_tokens: bool) -> list[str]:
        """The numbers themselves."""
        await self._answer([])
        return [" ".join(map(str, row)) for row in rows]

    def statistics(self) -> EngineStatistics:
        """Two rows in one batch."""
        return EngineStatistics(
            batches=1, rows=2, tokens=6, padded_tokens=8, cost=CostModel(0.00123416, 0.0, 0.0, 0.0)
        )

    async def aclose(self) -> None:
        """Note it; twice is a fault."""
        assert not self.closed
        self.closed = True
        if self.close_failure is not None:
            raise self.close_failure


class FakeOpener:
    """`open_model`: fails or waits as a test says, and keeps what it made.

    `failures`, `close_failures` and `hold` go by content. `key` makes the content of a version's
    files, by default the name of its graph.
    """

    def __init__(self, key: Callable[[Path], str] = lambda graph: graph.name) -> None:
        self._key = key
        self.opened: list[FakeModel] = []
        self.begun: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.close_failures: dict[str, Exception] = {}
        self.loading = self.most_loading = 0
        self.slow_to_end: asyncio.Event | None = None
        """If given, a load that is broken off ends when this is set, and not before."""
        self._gates: dict[str, asyncio.Event] = {}

    def hold(self, *contents: str) -> asyncio.Event:
        """Let loads of these wait until the event is set."""
        gate = asyncio.Event()
        self._gates.update(dict.fromkeys(contents, gate))
        return gate

    async def has_begun(self, content: str, times: int = 1) -> None:
        """Wait until a load has begun, so many times."""
        await until(lambda: self.begun.count(content) >= times)

    @property
    def contents(self) -> list[str]:
        """What was opened, in order."""
        return [model.content for model in self.opened]

    async def __call__(self, name: str, files: VersionFiles, config: ModelConfig) -> ServedModel:
        """Open a version."""
        assert not files.problem
        assert files.onnx is not None
        content = self._key(files.onnx)
        self.begun.append(content)
        self.loading += 1
        self.most_loading = max(self.most_loading, self.loading)
        try:
            if content in self._gates:
                await self._gates[content].wait()
            if content in self.failures:
                raise self.failures[content]
        except asyncio.CancelledError:
            if self.slow_to_end is not None:
                await self.slow_to_end.wait()
            raise
        finally:
            self.loading -= 1
        model = FakeModel(name, files.number, content=content, config=config)
        model.close_failure = self.close_failures.get(content)
        self.opened.append(model)
        return model


def version(number: int, content: str, config: ModelConfig | None = None) -> WantedVersion:
    """A version that holds a word. One that begins with `?` shows that it cannot be loaded."""
    files = VersionFiles(number, Path(content), {})
    problem = f"{content} shows that" if content.startswith("?") else ""
    loading = config or ModelConfig()
    return WantedVersion(
        number,
        files,
        loading,
        f"{content} {loading.max_batch_size}",
        stamp(paths(files)),
        problem,
    )


def wanted(
    name: str,
    versions: Mapping[int, str | WantedVersion],
    *,
    problem: str = "",
    warnings: tuple[str, ...] = (),
    **config: Any,
) -> Wanted:
    """A model as the disk has it: contents by version, and keys of its config."""
    checked = ModelConfig.model_validate(config)
    made = {
        number: each if isinstance(each, WantedVersion) else version(number, each, checked)
        for number, each in versions.items()
    }
    return Wanted(name, checked, made, problem, warnings)


class World:
    """A manager and everything around it that a test may ask about."""

    def __init__(
        self,
        *,
        load_threads: int = 4,
        default_model: str | None = None,
        opener: FakeOpener | None = None,
    ) -> None:
        self.opener = opener or FakeOpener()
        self.registry = CollectorRegistry()
        self.announced: list[tuple[str, int]] = []
        self.catalog = Catalog(default_model=default_model)
        self.manager = ModelManager(
            open_model=self.opener,
            catalog=self.catalog,
            load_threads=load_threads,
            metrics=RepositoryMetrics(self.registry),
            announce=lambda name, version: self.announced.append((name, version)),
        )
        self._applying: list[asyncio.Task[list[Cause]]] = []

    async def apply(
        self,
        name: str,
        versions: Mapping[int, str | WantedVersion],
        *,
        again: bool = False,
        **config: Any,
    ) -> list[Cause]:
        """Have the manager follow a model of these contents."""
        return await self.manager.apply(wanted(name, versions, **config), again=again)

    def begin(
        self, name: str, versions: Mapping[int, str | WantedVersion], **config: Any
    ) -> asyncio.Task[list[Cause]]:
        """`apply` in the background."""
        task = asyncio.create_task(self.apply(name, versions, **config))
        self._applying.append(task)
        return task

    def rows(self) -> dict[tuple[str, int], tuple[State, str]]:
        """The index: state and reason by name and version."""
        index = self.catalog.index()
        return {(row.name, row.version): (row.state, row.reason) for row in index}

    def answering(self, name: str | None = None, number: str | None = None) -> str:
        """What holds the version that would answer."""
        with self.catalog.lease(name, number) as model:
            assert isinstance(model, FakeModel)
            assert not model.closed
            return model.content

    def model(self, content: str) -> FakeModel:
        """The copy opened last that holds this."""
        return next(each for each in reversed(self.opener.opened) if each.content == content)

    def ready(self, name: str, number: int) -> float | None:
        """The metric."""
        labels = {"model": name, "version": str(number)}
        return self.registry.get_sample_value("nerve_model_version_ready", labels)

    def stale(self, name: str) -> float | None:
        """The metric."""
        return self.registry.get_sample_value("nerve_model_stale", {"model": name})

    def loads(self, name: str, outcome: str) -> float:
        """The metric."""
        labels = {"model": name, "outcome": outcome}
        return self.registry.get_sample_value("nerve_model_loads_total", labels) or 0.0

    async def aclose(self) -> None:
        """End what is in progress; afterwards every model that was opened is closed."""
        for task in self._applying:
            task.cancel()
        await asyncio.gather(*self._applying, return_exceptions=True)
        async with asyncio.timeout(PATIENCE_S):
            await self.manager.aclose()
        left = [model.content for model in self.opener.opened if not model.closed]
        assert not left, f"opened and never closed: {left}"


@asynccontextmanager
async def world(*, load_threads: int = 4, default_model: str | None = None) -> AsyncIterator[World]:
    """A manager without models, in the end closed."""
    made = World(load_threads=load_threads, default_model=default_model)
    try:
        yield made
    finally:
        await made.aclose()
