"""What the page puts on the clipboard, run as a reader would run it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any, Final

from browser.tagging import parsed

BOUND_S: Final = 60.0
STAND_IN: Final = Path(__file__).parent / "grpcurl.py"


async def printed(*command: str, folder: Path, said: str = "", key: str = "") -> list[Any]:
    """The JSON documents that a program prints; it must end with 0.

    Args:
        command: program and arguments.
        folder: where it runs; programs in its `bin` come first.
        said: its standard input.
        key: the API key, as the variable that what is copied names.
    """
    path = os.pathsep.join(
        (str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"])
    )
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env={**os.environ, "PATH": path, "PYTHONUTF8": "1", "NERVE_API_KEY": key},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(BOUND_S):
            out, errors = await process.communicate(said.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode(errors="replace")
    return parsed(out.decode())


async def in_shell(text: str, folder: Path, key: str = "") -> list[Any]:
    """Have bash read lines as it reads a terminal's."""
    return await printed("bash", "-s", folder=folder, said=text + "\n", key=key)


async def in_python(text: str, folder: Path) -> list[Any]:
    """Keep it as a file and run that."""
    program = folder / "copied.py"
    program.write_text(text, encoding="utf-8")
    return await printed(sys.executable, str(program), folder=folder)


def install_grpcurl(folder: Path) -> None:
    """Put our stand-in on the path of `folder`, for machines that have no grpcurl."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "grpcurl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
    program.chmod(0o755)
