"""Programs that tests run beside them, and what to do where one cannot be had."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

import pytest

TESTS: Final = Path(__file__).parents[1]
BOUND_S: Final = 120.0


async def run(*command: str | Path, cwd: Path = TESTS, env: Mapping[str, str] | None = None) -> str:
    """What a program prints; it must end with 0."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env={**os.environ, **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(BOUND_S):
            printed = (await process.communicate())[0].decode(errors="replace")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{command[0]} ended with {process.returncode}:\n{printed}"
    return printed


async def run_python(module: str, *arguments: str | Path) -> str:
    """What a module below tests/ prints, run as a program; it must end with 0."""
    return await run(sys.executable, "-m", module, *arguments)


def cannot(reason: str) -> NoReturn:
    """Skip a test for want of a client; fail it where all of them are to be there."""
    if os.environ.get("TEST_CLIENTS") == "all":
        pytest.fail(reason)
    pytest.skip(reason)
