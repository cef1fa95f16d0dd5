"""Facts of the machine and the software that figures were measured with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("onnxruntime", "numpy", "tokenizers", "aiohttp", "uvloop", "orjson")


def facts() -> dict[str, str | int | float]:
    """What to print beside every table. `load` is the load average before the run."""
    found: dict[str, str | int | float] = {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "nerve": _commit(),
        "load": round(os.getloadavg()[0], 2),
    }
    return found


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def busy_s() -> float:
    """Processor seconds of everything on this machine so far, by all cores."""
    first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first.split()[1:9])
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def slug(known: dict[str, str | int | float]) -> str:
    """A short name of the machine for files: CPU and cores."""
    name = re.sub(r"\(R\)|\(TM\)|CPU|Processor|@.*", " ", str(known["cpu"]))
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{words}-{known['cores']}-cores"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """Version and commit, and whether the server's files differ from it."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "server")
    except (OSError, subprocess.CalledProcessError):
        return version("nerve-server")
    return f"{version('nerve-server')} {commit}{' with changes' if changed else ''}"


def _git(*arguments: str) -> str:
    ran = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    )
    return ran.stdout.strip()
