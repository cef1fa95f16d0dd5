"""A run of `nerve bench`: the target that is meant, and a row of figures for each number of callers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from nerve.cli.client import NOBODY
from nerve.cli.drive import Figures, Load, Tally, Target, drive, figures, in_turn, since
from nerve.cli.https import Identity
from nerve.cli.in_process import find_source, open_local
from nerve.cli.models import DEFAULT_URL
from nerve.cli.remote import open_remote
from nerve.cli.report import Bar, progress_bar, rounded


@dataclass
class Run:
    """What is asked for, and the rows that there are so far."""

    model: str
    url: str | None
    levels: Sequence[int]
    texts: Sequence[str]
    _: KW_ONLY
    duration_s: float
    requests: int | None
    warm_up_s: float
    batch: int
    timeout_s: float
    identity: Identity = NOBODY
    rows: list[Figures] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """What the first failure of each kind said."""

    @property
    def folder(self) -> Path | None:
        """The folder that is meant, None if it is a name on a server."""
        folder = Path(self.model)
        # Neither can be in the name of a model.
        is_path = "/" in self.model or self.model.startswith(".")
        return folder if is_path or (self.url is None and folder.is_dir()) else None

    @property
    def place(self) -> str:
        """Where the model is."""
        return "this process" if self.folder else self.url or DEFAULT_URL

    @property
    def title(self) -> str:
        """What is measured, in a sentence."""
        extent = f"{self.duration_s:g} s" if self.requests is None else f"{self.requests} requests"
        texts = f"{len(self.texts)} different text{'' if len(self.texts) == 1 else 's'}"
        return f"{self.model} in {self.place}: {texts}, {self.batch} a request, {extent} a row"

    def document(self) -> dict[str, object]:
        """The result as JSON."""
        return {
            "model": self.model,
            "place": self.place,
            "texts": len(self.texts),
            "texts_per_request": self.batch,
            "rows": [rounded(each) for each in self.rows],
        }

    async def measure(self) -> None:
        """Fill `rows`. Raises NerveError where nothing can be measured."""
        with progress_bar() as bar:
            async with AsyncExitStack() as stack:
                async with bar.watch(f"opening {self.model}", total=None, done=lambda: 0):
                    target = await stack.enter_async_context(self._open())
                for level in self.levels:
                    await self._row(target, level, bar)

    def _open(self) -> AbstractAsyncContextManager[Target]:
        if self.folder is None:
            url, connections = self.url or DEFAULT_URL, max(self.levels)
            return open_remote(
                url,
                self.model,
                timeout_s=self.timeout_s,
                connections=connections,
                identity=self.identity,
            )
        source = find_source(self.folder)
        return open_local(source, source.config)

    async def _row(self, target: Target, level: int, bar: Bar) -> None:
        """Measure one; whatever there is of it when this is cancelled becomes a row, too."""
        texts = in_turn(self.texts, batch=self.batch)
        if self.warm_up_s:
            async with bar.watch(f"{level} callers, warming up", total=None, done=lambda: 0):
                await drive(target.send, texts, Load(level, self.warm_up_s), Tally())
        before = await target.statistics()
        load = (
            Load(level, self.duration_s)
            if self.requests is None
            else Load(level, math.inf, self.requests)
        )
        tally = Tally()
        total, done = self._extent(tally)
        try:
            async with bar.watch(f"{level} callers", total=total, done=done):
                await drive(target.send, texts, load, tally)
        finally:
            if tally.latencies_s or tally.failures:
                ran = since(before, await target.statistics())
                self.rows.append(figures(load, tally, ran))
            for kind, failure in tally.failures.items():
                self.failures.setdefault(kind, failure.first)

    def _extent(self, tally: Tally) -> tuple[float, Callable[[], float]]:
        """How much a row is, and how much of it there is from now on."""
        if self.requests is not None:
            return self.requests, lambda: len(tally.latencies_s) + tally.failed
        began = time.perf_counter()
        return self.duration_s, lambda: time.perf_counter() - began


def run_loop(work: Coroutine[None, None, None]) -> None:
    """Run to the end, on the kind of loop that a server has. Ctrl-C cancels it and is raised."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  not on Windows
    except ImportError:
        return None
    return uvloop.new_event_loop
