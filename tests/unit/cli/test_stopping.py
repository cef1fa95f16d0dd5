"""Ctrl-C and its like: whatever a command is at, it cleans up and says nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import run_here
from nerve.cli.stopping import run, stoppable

ENDINGS = [
    (signal.SIGINT, KeyboardInterrupt),
    (signal.SIGTERM, SystemExit),
    (signal.SIGHUP, SystemExit),
]


@pytest.fixture(autouse=True)
def _as_python_starts() -> Iterator[None]:
    """Whoever runs the tests may ignore SIGINT: a shell does so for what runs in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "raised"), ENDINGS)
def test_work_is_cancelled_and_cleans_up(
    number: signal.Signals, raised: type[BaseException]
) -> None:
    handlers = [signal.getsignal(each) for each, _ in ENDINGS]
    cleaned: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    with pytest.raises(raised) as caught, stoppable():
        run(work())
    assert cleaned == ["up"]
    assert raised is KeyboardInterrupt or caught.value.args == (128 + number,)
    assert [signal.getsignal(each) for each, _ in ENDINGS] == handlers


@pytest.mark.parametrize(("number", "raised"), ENDINGS)
def test_a_step_of_the_loop_is_not_broken_off(
    number: signal.Signals, raised: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """As when the result of a thread is handed over: between `cancelled()` and `set_result`."""
    steps: list[bool] = []

    async def work() -> None:
        waited: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle() -> None:
            if not waited.cancelled():
                os.kill(os.getpid(), number)
                waited.set_result(None)
                steps.append(True)

        asyncio.get_running_loop().call_soon(settle)
        await waited
        await asyncio.Event().wait()

    with caplog.at_level(logging.ERROR), pytest.raises(raised), stoppable():
        run(work())
    assert steps == [True]
    assert caplog.records == []


def test_a_second_request_ends_it_at_once() -> None:
    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError

    asyncio_log = logging.getLogger("asyncio")
    try:
        with pytest.raises(KeyboardInterrupt):
            run(work())
        assert asyncio_log.disabled
    finally:
        asyncio_log.disabled = False


def test_results_and_errors_come_out() -> None:
    async def work(value: int) -> int:
        return 7 // value

    assert run(work(1)) == 7
    with pytest.raises(ZeroDivisionError):
        run(work(0))


def test_what_is_ignored_stays_so() -> None:
    """`nohup nerve import …`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_build_is_stopped(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is set to make something; then the signal is what it was before."""
    before = signal.getsignal(number)

    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr("nerve.importing.encoderfile.read_build_config", interrupted)
    assert run_here("build", "-f", "x.yml").returncode == 128 + number
    assert signal.getsignal(number) is before


def test_an_interrupt_while_all_is_imported_is_quiet(tmp_path: Path) -> None:
    """The first second of a command: a module stands in for one that takes its time."""
    (tmp_path / "typer.py").write_text("print('here', flush=True)\nimport time\ntime.sleep(60)\n")
    with subprocess.Popen(
        [sys.executable, "-m", "nerve", "--version"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        timer = threading.Timer(30, process.kill)
        timer.start()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == ""
        timer.cancel()
    assert process.returncode in (130, -signal.SIGINT)
