"""What goes wrong beside the server: a full disk, nobody to take its log, a clock that jumps."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from faults.mistreated import ONE, calm, post, serving, statuses

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
async def test_a_full_disk(repository: Path, tmp_path: Path) -> None:
    """Requests are answered although no line of the log can be written, and the cache of graphs is
    done without: files of this process may have no more than 4 KiB, which is how that looks to it."""
    cache, models = tmp_path / "cache", tmp_path / "models"
    shutil.copytree(repository / "bert", models / "bert")
    flags = "--graph-cache", str(cache), "--log-level", "debug"
    async with serving(models, Path("/dev/full"), *flags, shell="ulimit -f 4") as served:
        for _ in range(3):
            assert await served.ask() == 200
            assert statuses(await served.tell(b"nonsense\r\n\r\n")) == [400]
        assert not [each for each in cache.rglob("*") if each.suffix in (".onnx", ".ort")]
        served.terminate()
        assert await served.ended() == 0


@pytest.mark.skipif(not FAKETIME.exists(), reason="no libfaketime here (apt: libfaketime)")
async def test_a_clock_that_jumps(repository: Path, tmp_path: Path) -> None:
    """Deadlines, queues and connections go by a clock that does not."""
    log, stamp = tmp_path / "stderr", tmp_path / "stamp"
    stamp.write_text("+0")
    env = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(stamp),
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }
    async with serving(repository, log, env=env) as served:
        for jump in ("+10d", "-10d"):
            kept, writer = await served.dial()
            writer.write(post("slow"))
            while await served.at_work("http") < 2:
                pass
            stamp.write_text(jump)
            async with asyncio.timeout(30):
                told = await kept.readuntil(b"}")
            assert statuses(told) == [200]
            began = time.monotonic()
            assert [await served.ask() for _ in range(3)] == [200] * 3
            for model, header, status in (
                ("slow", "request-timeout-ms: 50", 504),
                (
                    "bert",
                    f"request-deadline-ms: {time.time() * 1e3 + 5000:.0f}",
                    200,
                ),  # a right clock's
            ):
                asked = post(model, ONE, header, "Connection: close")
                assert statuses(await served.tell(asked)) == [status], header
            assert await served.status("/readyz") == 200
            assert time.monotonic() - began < 30
            writer.close()
        served.terminate()
        assert await served.ended() == 0
    calm(log.read_text())
    year_day = time.strftime("%Y-%m-%d")
    assert any(not line.startswith(year_day) for line in log.read_text().splitlines()), "no jump"
