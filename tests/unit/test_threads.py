"""Loads in threads of their own: what they bring, and what is left of them when nobody waits."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from nerve import threads as loading
from nerve.config.model import ModelConfig
from nerve.engine.engine import LocalEngine
from nerve.engine.memory import give_memory_back, map_large_blocks
from nerve.errors import ModelLoadFailed
from nerve.metrics.engine import EngineMetrics
from nerve.threads import in_own_thread

NAME = "nerve-load-probe"
PATIENCE_S = 30.0


def running() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == NAME]


class Work:
    """Work that can be held up; `began` is set in its thread."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go_on = threading.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> threading.Thread:
        self._loop.call_soon_threadsafe(self.began.set)
        assert self.go_on.wait(PATIENCE_S)
        return threading.current_thread()


async def test_the_result_of_a_thread_of_its_own() -> None:
    """One that does not keep the process from ending."""
    thread = await in_own_thread(threading.current_thread, name=NAME)
    assert thread.name == NAME
    assert thread.daemon
    thread.join()


async def test_an_error_is_raised_where_it_is_awaited() -> None:
    def work() -> None:
        raise ModelLoadFailed("no")

    with pytest.raises(ModelLoadFailed, match=r"^no$"):
        await in_own_thread(work, name=NAME)


async def test_the_pool_is_left_to_others() -> None:
    """However many loads there are."""
    works = [Work() for _ in range(100)]
    loads = [asyncio.create_task(in_own_thread(work, name=NAME)) for work in works]
    for work in works:
        await work.began.wait()
    assert await asyncio.to_thread(lambda: 5) == 5
    for work in works:
        work.go_on.set()
    assert len(set(await asyncio.gather(*loads))) == 100


async def test_a_cancelled_load_is_told_to_stop_and_waited_for() -> None:
    work = Work()
    load = asyncio.create_task(in_own_thread(work, name=NAME, stop=work.go_on.set))
    await work.began.wait()
    (thread,) = running()
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


async def test_a_cancelled_load_that_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it for ever; what it brings in the end is dropped without a word."""
    monkeypatch.setattr(loading, "STOP_WAIT_S", 0)
    work = Work()

    def fail() -> None:
        work()
        raise ModelLoadFailed("too late")

    load = asyncio.create_task(in_own_thread(fail, name=NAME))
    await work.began.wait()
    (thread,) = running()
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert thread.is_alive()
    work.go_on.set()
    thread.join(PATIENCE_S)


async def test_an_engine_whose_load_is_cancelled(bundled: Path) -> None:
    """A load of half a second ends at once; nothing of it is left."""
    metrics = EngineMetrics(CollectorRegistry()).of("m", 1)
    file = bundled / "minilm-ner" / "1" / "model.onnx"
    load = asyncio.create_task(
        LocalEngine.open("probe", file, ModelConfig(), pad_id=0, metrics=metrics)
    )
    async with asyncio.timeout(PATIENCE_S):
        while not running():
            await asyncio.sleep(0)
    (thread,) = running()
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_memory_can_be_given_back_at_any_time() -> None:
    map_large_blocks()
    give_memory_back()
