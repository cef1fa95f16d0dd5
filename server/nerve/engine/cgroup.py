"""CPU quota of this process's control groups (cgroup v2): what of a machine's cores it may use up."""

from __future__ import annotations

from pathlib import Path


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The smallest quota of its group and those above it, in cores; None if there is none.

    In a container the group is the root of what it sees; under systemd (`CPUQuota=`) it is a path
    below the machine's. Format: Documentation/admin-guide/cgroup-v2.rst of the kernel.

    Args:
        root: of the file system.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if own is None:
        return None
    top = root / "sys/fs/cgroup"
    group, quotas = top / own, []
    for folder in (group, *group.parents):
        try:
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            quotas.append(int(quota) / int(period))
        except (OSError, ValueError, ZeroDivisionError):  # no such file at the top; "max"
            pass
        if folder == top:
            break
    return min(quotas, default=None)
