"""A transform runs in a process of its own: nothing that it does can hold or hurt the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from nerve.errors import (
    DeadlineExceeded,
    ModelLoadFailed,
    ModelUnloaded,
    QueueFull,
    TransformDown,
    TransformFailed,
    TransformLimit,
    TransformResult,
)
from nerve.transforming.host import TransformHost
from nerve.transforming.process import AHEAD_CALLS
from nerve.transforming.worker import ALARM_GRACE_S, PROCESS_NAME
from nerve.types import FloatArray, Limits

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc"
)

LABELS = 9
PATIENCE_S = 60.0
LIMITS = Limits(max_instructions=10**12, timeout_us=30_000_000, max_memory_bytes=2**28)
SOFTMAX = "function Postprocess(arr) return arr:softmax(3) end"
ARGMAX = "function Postprocess(arr) return arr:argmax(3) end"
SAME = "function Postprocess(arr) return arr end"
HANGING = "table.move({}, 1, 1 << 29, 2)"
LOOP = "function Postprocess(arr) while true do end end"


@contextlib.asynccontextmanager
async def opened(
    script: str,
    *,
    validate: bool = False,
    limits: Limits = LIMITS,
    max_waiting: int = 1000,
    libs: Sequence[str] | None = None,
) -> AsyncIterator[TransformHost]:
    host = await TransformHost.open(
        "ner",
        script,
        libs=libs,
        limits=limits,
        labels=LABELS,
        validate=validate,
        max_waiting=max_waiting,
    )
    try:
        yield host
    finally:
        await host.aclose()


def scores(tokens: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((tokens, LABELS), dtype=np.float32)


def softmax(logits: FloatArray) -> FloatArray:
    exps = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: FloatArray = exps / exps.sum(axis=-1, keepdims=True)
    return result


async def apply(
    host: TransformHost, rows: Sequence[FloatArray], deadline: float | None = None
) -> list[FloatArray]:
    """What may be classes is declared as scores: fewer casts."""
    return cast("list[FloatArray]", await host.apply(rows, deadline=deadline))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def reaped(pid: int) -> bool:
    """Gone, and not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def workers() -> set[int]:
    """Processes of transforms that are children of this one, zombies included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            if int(text.rpartition(")")[2].split()[1]) == os.getpid():
                command = (stat.parent / "cmdline").read_bytes()
                if b"transforming.worker" in command or f"({PROCESS_NAME})" in text:
                    found.add(int(stat.parent.name))
    return found


async def stop(host: TransformHost) -> int:
    """Hold the process as a script does that hangs in a C function; its id."""
    os.kill(host.pid, signal.SIGSTOP)
    await until(lambda: state(host.pid) == "T")
    return host.pid


def requests(
    host: TransformHost, count: int, deadline: float | None = None
) -> list[asyncio.Task[object]]:
    """Requests of one row each, whose first score is their number."""

    async def one(number: int) -> object:
        row = np.zeros((2, LABELS), np.float32)
        row[0, 0] = number
        (result,) = await apply(host, [row], deadline=deadline)
        assert result.shape == row.shape
        return int(result[0, 0])

    return [asyncio.create_task(one(number)) for number in range(count)]


async def outcomes(tasks: Sequence[asyncio.Task[object]]) -> list[object]:
    async with asyncio.timeout(PATIENCE_S):
        return list(await asyncio.gather(*tasks, return_exceptions=True))


async def test_scores_go_there_and_back() -> None:
    """Alone as they are, several padded and cut again; no row or none with tokens is no trouble."""
    async with opened(SOFTMAX, validate=True) as host:
        assert host.probabilities
        (one,) = await apply(host, [scores(16)])
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, softmax(scores(16)), rtol=1e-5)
        rows = [scores(length, length) for length in (3, 0, 17, 1, 0)]
        for result, row in zip(await apply(host, rows), rows, strict=True):
            np.testing.assert_allclose(result, softmax(row) if len(row) else row, rtol=1e-5)
        (empty,) = await apply(host, [scores(0)])
        assert empty.shape == (0, LABELS)
        fortran = np.asfortranarray(scores(4))
        (result,) = await apply(host, [fortran])
        np.testing.assert_allclose(result, softmax(fortran), rtol=1e-5)


async def test_classes_are_counted_from_0() -> None:
    async with opened(ARGMAX, validate=True) as host:
        assert not host.probabilities
        (empty,) = await apply(host, [scores(0)])
        assert (empty.shape, empty.dtype.name) == ((0,), "int64")
        rows = [scores(5), scores(0), scores(2, 7)]
        results = await apply(host, rows)
    assert [result.dtype.name for result in results] == ["int64"] * 3
    assert [list(result) for result in results] == [list(row.argmax(1)) for row in rows]


async def test_the_script_sees_one_array_padded_with_zeros() -> None:
    async with opened("function Postprocess(arr) return arr * 0 + #arr + arr:sum() end") as host:
        ones = [np.ones((length, LABELS), np.float32) for length in (2, 5)]
        short, long = await apply(host, ones)
    assert short.shape == (2, LABELS)
    assert (short == 2 * 5 * LABELS + 7 * LABELS).all()
    assert (long == short[0, 0]).all()


async def test_many_callers_get_their_own_results_in_order() -> None:
    async with opened(SAME) as host:
        done: list[int] = []

        async def one(number: int) -> None:
            row = np.full((1 + number % 30, LABELS), number, np.float32)
            (result,) = await apply(host, [row], deadline=time.monotonic() + PATIENCE_S)
            np.testing.assert_array_equal(result, row)
            done.append(number)

        await asyncio.gather(*map(one, range(300)))
        assert done == list(range(300))

        # Larger than what is sent ahead, than a socket holds, and than what is packed on the loop.
        row = scores(60_000)
        requests = ([scores(1)], [row, scores(9)], [row])
        results = await asyncio.gather(*(apply(host, rows) for rows in requests))
    for rows, found in zip(requests, results, strict=True):
        for sent, result in zip(rows, found, strict=True):
            np.testing.assert_array_equal(result, sent)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("function Postprocess(arr", "Transform validation failed: Failed to create transform: "),
        ("x = 1", "Transform validation failed: Could not find `Postprocess` function"),
        ("function Postprocess(arr) error('no luck') end", "no luck"),
        ("function Postprocess(arr) return arr:sum_axis(1) end", "[32, 128, 9]"),
        ("function Postprocess(arr) while true do end end", "timeout_microseconds (200000)"),
    ],
)
async def test_a_script_that_fails_its_trial_is_not_loaded(script: str, reason: str) -> None:
    before = workers()
    with pytest.raises(ModelLoadFailed) as caught:
        async with opened(script, validate=True, limits=LIMITS._replace(timeout_us=200_000)):
            pass
    assert reason in str(caught.value)
    assert workers() == before


async def test_without_a_trial_a_script_may_have_no_postprocess() -> None:
    """Scores pass through, and there is no process for that; a syntax error is refused all the same."""
    async with opened("x = 1") as host:
        assert (host.pid, host.probabilities) == (0, False)
        assert workers() == set()
        host.check_room()
        (result,) = await apply(host, [scores(3)])
        np.testing.assert_array_equal(result, scores(3))
    with pytest.raises(ModelLoadFailed, match="Failed to create transform"):
        async with opened("function Postprocess("):
            pass


async def test_a_script_that_hangs_while_it_is_loaded_is_given_a_second_more() -> None:
    """Within a function of Lua, where nothing looks at the clock."""
    start = time.monotonic()
    limits = Limits(max_instructions=10**12, timeout_us=1000, max_memory_bytes=2**28)
    with pytest.raises(ModelLoadFailed, match=r"timeout_microseconds .1000"):
        async with opened(HANGING, limits=limits):
            pass
    assert time.monotonic() - start < ALARM_GRACE_S


FAULTS = """
function Postprocess(arr)
  local what = arr:max()
  if what == 1 then error("no luck today") end
  if what == 2 then return "a text" end
  if what == 3 then while true do end end
  return arr
end
"""


async def test_a_request_fails_alone_and_the_loop_goes_on_meanwhile() -> None:
    async with opened(FAULTS, limits=LIMITS._replace(timeout_us=300_000)) as host:
        pid, ticks = host.pid, 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticker = asyncio.create_task(tick())
        tasks = requests(host, 5)
        zero, error, wrong, limit, four = await outcomes(tasks)
        ticker.cancel()
        rows = [np.zeros((80_000, LABELS), np.float32), *(scores(1) for _ in range(100))]
        with pytest.raises(TransformLimit, match=r"max_memory_bytes .268435456"):
            await apply(host, rows)  # padded; it is not even sent
    assert ticks >= 5  # of about 30; a loop that is held makes none
    assert (zero, four) == (0, 4)
    assert type(error) is TransformFailed
    assert "no luck today" in str(error)
    assert type(wrong) is TransformResult
    assert type(limit) is TransformLimit
    assert (limit.limit, limit.value) == ("timeout_microseconds", 300_000)
    assert reaped(pid)


async def test_a_process_that_hangs_is_killed_and_what_waits_runs_in_a_new_one() -> None:
    async with opened(SAME, limits=LIMITS._replace(timeout_us=100_000)) as host:
        pid = await stop(host)
        head, *others = await outcomes(requests(host, AHEAD_CALLS + 3))
        assert type(head) is TransformLimit
        assert head.limit == "timeout_microseconds"
        assert others == list(range(1, AHEAD_CALLS + 3))
        assert host.pid not in {0, pid}
        assert reaped(pid)


async def test_a_process_that_dies_fails_only_what_it_was_at() -> None:
    async with opened(SAME) as host:
        pid = await stop(host)
        tasks = requests(host, AHEAD_CALLS + 3)
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGABRT)
        os.kill(pid, signal.SIGCONT)
        head, *others = await outcomes(tasks)
        assert type(head) is TransformFailed
        assert "SIGABRT" in str(head)
        assert others == list(range(1, AHEAD_CALLS + 3))
        assert reaped(pid)

        # With nothing to do: at once, and again and again less often; requests are told so.
        first = host.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: host.pid not in {0, first})
        os.kill(host.pid, signal.SIGKILL)
        await until(lambda: refused(host))
        with pytest.raises(TransformDown, match=r"does not stay alive.*SIGKILL") as caught:
            await apply(host, [scores(1)])
        assert 0 <= caught.value.wait_s <= 1
        await until(lambda: not refused(host))  # it comes back by itself
        assert await outcomes(requests(host, 3)) == [0, 1, 2]
        pid = host.pid
        os.kill(pid, signal.SIGKILL)  # an answer made it good again
        await until(lambda: host.pid not in {0, pid})
        assert not refused(host)


def refused(host: TransformHost) -> bool:
    try:
        host.check_room()
    except TransformDown:
        return True
    return False


async def test_what_nobody_waits_for_is_not_run(caplog: pytest.LogCaptureFixture) -> None:
    """Also a test of what a script prints: it is logged, a line of its own cannot be made up."""
    caplog.set_level("INFO", "nerve.transform")
    script = "function Postprocess(arr) print('sum', arr:sum(), '\\n\\27') return arr end"
    async with opened(script) as host:
        pid = await stop(host)
        tasks = requests(host, AHEAD_CALLS + 3)
        await asyncio.sleep(0)
        tasks[AHEAD_CALLS].cancel()
        expired = host.apply(
            [np.full((1, LABELS), 50, np.float32)], deadline=time.monotonic() + 0.05
        )
        with pytest.raises(DeadlineExceeded):
            await expired
        with pytest.raises(DeadlineExceeded):
            await apply(host, [scores(1)], deadline=time.monotonic())
        os.kill(pid, signal.SIGCONT)
        results = await outcomes(tasks)
    numbers = [number for number in range(AHEAD_CALLS + 3) if number != AHEAD_CALLS]
    assert [result for result in results if isinstance(result, int)] == numbers
    assert isinstance(results[AHEAD_CALLS], asyncio.CancelledError)
    printed = [each.getMessage() for each in caplog.records if "printed" in each.getMessage()]
    assert len(printed) == len(numbers)
    for number, line in zip(numbers, printed, strict=True):
        assert line.startswith(f"model ner: its transform printed: sum {number}")
        assert line.isprintable()


async def test_the_queue_has_a_bound() -> None:
    """Twice as much for requests that were let in before their scores were made."""
    async with opened(SAME, max_waiting=2) as host:
        pid = await stop(host)
        tasks = requests(host, AHEAD_CALLS + 1)
        await asyncio.sleep(0)
        host.check_room()
        tasks += requests(host, 1)
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as caught:
            host.check_room()
        assert caught.value.limit == 2
        tasks += requests(host, 3)
        await asyncio.sleep(0)
        assert isinstance(tasks[-1].exception() if tasks[-1].done() else None, QueueFull)
        tasks[-2].cancel()
        tasks[-3].cancel()
        tasks[-4].cancel()
        await asyncio.sleep(0)
        host.check_room()
        os.kill(pid, signal.SIGCONT)
        results = await outcomes(tasks)
        assert results[: AHEAD_CALLS + 1] == list(range(AHEAD_CALLS + 1))


async def test_closing_ends_a_process_that_is_busy() -> None:
    async with opened(LOOP) as host:
        pid = host.pid
        tasks = requests(host, AHEAD_CALLS + 3)
        await until(lambda: state(pid) == "R")
        await host.aclose()
        assert reaped(pid)
        results = await outcomes(tasks)
        assert {type(result) for result in results} == {ModelUnloaded}
        with pytest.raises(ModelUnloaded):
            host.check_room()
        await host.aclose()  # twice is no harm


@pytest.mark.parametrize("born", [False, True])
async def test_an_opening_that_is_cancelled_leaves_nothing(born: bool) -> None:
    before = workers()
    task = asyncio.create_task(opened(LOOP, validate=True).__aenter__())
    if born:
        await until(lambda: workers() - before)
    else:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert workers() == before


ABANDONED = f"""
import asyncio, numpy as np, uvloop
from nerve.transforming.host import TransformHost
from nerve.types import Limits

async def main():
    host = await TransformHost.open("ner", {LOOP!r}, libs=None, limits=Limits(10**12, 500_000, 2**28),
        labels=9, validate=False, max_waiting=9)
    request = asyncio.create_task(host.apply([np.zeros((1, 9), np.float32)], deadline=None))
    await asyncio.sleep(0)
    print(host.pid, flush=True)
    await request

uvloop.run(main())  # as the daemon does
"""


async def test_nothing_is_left_when_the_daemon_is_killed() -> None:
    """Though the script loops: its limits end it."""
    daemon = subprocess.Popen([sys.executable, "-c", ABANDONED], stdout=subprocess.PIPE, text=True)
    with daemon:
        assert daemon.stdout is not None
        line = await asyncio.to_thread(daemon.stdout.readline)
        daemon.kill()
    await until(lambda: reaped(int(line)) or state(int(line)) == "Z")  # init's, once it looks


async def test_the_process_has_hardly_any_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERVE_TEST_SECRET", "hidden")
    async with opened(SAME) as host:
        proc = Path("/proc") / str(host.pid)
        environment = (proc / "environ").read_bytes()
        limits = {
            line[:26].strip(): line[26:].split()[:2]
            for line in (proc / "limits").read_text().splitlines()
        }
        status = dict(
            line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
        )
        sockets = [str(each.readlink()) for each in (proc / "fd").iterdir()]
    assert b"NERVE_TEST_SECRET" not in environment
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max file size"] == ["0", "0"]
    assert limits["Max processes"] == ["0", "0"]
    assert int(limits["Max open files"][1]) < 20
    assert 2**29 < int(limits["Max data size"][1]) < 2**31
    assert status["NoNewPrivs"].strip() == "1"
    assert len([each for each in sockets if each.startswith("socket:")]) == 1
