"""Making a runtime: PyInstaller, in a process of its own, on this Nerve and what it needs.

What goes in is said by `frozen/runtime.spec`.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import nerve
from nerve.building.faults import BuildFailed
from nerve.building.runtime import INFO_FILE, host_target

SPEC: Final = Path(__file__).parent / "frozen" / "runtime.spec"
CHECK: Final = "--nerve-check"
"""Argument with which a runtime only tells whether all of its parts can be loaded."""
CHECK_TIMEOUT_S: Final = 120.0
_PACKAGES: Final = ("PyInstaller", "mcp", "opentelemetry.sdk", "opentelemetry.exporter")
_TOOLS: Final = ("objcopy", "objdump", "ldd")
"""Programs that PyInstaller calls."""
_SHOWN_LINES: Final = 15
_WITH_US: Final = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes another program, which ends when we do, however that is (PR_SET_PDEATHSIG)."""


def require_freezer() -> None:
    """See that a runtime can be made here.

    Raises:
        BuildFailed: something is missing; which, and how to get it.
    """
    if not sys.platform.startswith("linux"):
        raise BuildFailed(
            f"nerve build makes programs for Linux, and this is {platform.system()}; build in a "
            "container, or write a model folder instead: --format folder"
        )
    missing = [name for name in _PACKAGES if not _is_there(name)]
    if missing:
        raise BuildFailed(
            f"{', '.join(missing)} not found, which the runtime is made with: pip install "
            "'nerve-server[build]', in the source '.[build]'; or name a runtime that was made "
            "elsewhere: --base-binary-path"
        )
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise BuildFailed(
            f"{', '.join(missing)} not found, which PyInstaller needs (Debian: apt-get install "
            "binutils libc-bin)"
        )


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # nor is what it is a part of
        return False


def make_runtime(folder: Path) -> Path:
    """Make one in a folder of its own, and see that it runs. Takes about a minute.

    Returns:
        The file, in that folder.
    Raises:
        BuildFailed: with the last lines that were said.
    """
    info = {
        "nerve": nerve.__version__,
        "target": host_target(),
        "python": platform.python_version(),
    }
    (folder / INFO_FILE).write_text(json.dumps(info), encoding="utf-8")
    command = [sys.executable, "-P", "-c", _WITH_US, str(os.getpid())]
    command += [sys.executable, "-P", "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN"]
    command += ["--workpath", str(folder / "work"), "--distpath", str(folder / "made"), str(SPEC)]
    environment = {
        **os.environ,
        "NERVE_RUNTIME_FOLDER": str(folder),
        "PYINSTALLER_CONFIG_DIR": str(folder / "cache"),
        "PYINSTALLER_ZLIB_COMPRESSION_LEVEL": "6",  # 9 takes twice as long for 1 % less
        "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path),
    }
    done = subprocess.run(  # noqa: S603  our own interpreter
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    runtime = folder / "runtime"
    if done.returncode != 0 and os.strerror(errno.ENOSPC).encode() in done.stdout:
        raise BuildFailed(
            f"there is no room to make the runtime in {folder.parent}; name a folder with some "
            "750 MB to spare: --cache-dir"
        )
    if done.returncode != 0 or not runtime.is_file():
        raise BuildFailed(f"PyInstaller could not make the runtime:\n{_last_lines(done.stdout)}")
    runtime.chmod(0o755)
    _check(runtime, folder)
    return runtime


def _check(runtime: Path, folder: Path) -> None:
    """Have it load its parts, in an environment as bare as it may meet."""
    try:
        done = subprocess.run(  # noqa: S603  what we have just made
            [runtime, CHECK],
            env={"PATH": "", "TMPDIR": str(folder)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=CHECK_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildFailed("the runtime that was made does not answer") from error
    if done.returncode != 0:
        raise BuildFailed(f"the runtime that was made does not run:\n{_last_lines(done.stdout)}")


def _last_lines(output: bytes) -> str:
    return "\n".join(output.decode(errors="replace").splitlines()[-_SHOWN_LINES:])
