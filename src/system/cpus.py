"""How many processors this process may use, which on a shared machine are fewer than it has."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

V1_MOUNTS = ("cpu,cpuacct", "cpu")  # of the controller of processors


def processors(root: Path = Path("/")) -> int:
    """The smaller of those the process may run on (affinity) and what its cgroups' quotas come to; at least one.

    Args:
        root: the folder that /proc and /sys are in.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min([allowed, *map(math.ceil, quotas(root))]), 1)


def quotas(root: Path) -> Iterator[float]:
    """The quotas in processors that stand in the process's cgroup and the cgroups around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if not controllers:  # cgroup v2
            mounts = [root / "sys/fs/cgroup"]
        elif "cpu" in controllers.split(","):
            mounts = [root / "sys/fs/cgroup" / name for name in V1_MOUNTS]
        else:
            continue
        path = PurePosixPath(place.lstrip("/"))
        for mount in mounts:  # a container sees its own cgroup at the mount itself
            yield from (found for part in (path, *path.parents) if (found := quota(mount / part)) is not None)


def quota(cgroup: Path) -> float | None:
    """Processors that a cgroup may use; None where it has no quota."""
    try:
        if (cgroup / "cpu.max").is_file():
            most, period = (cgroup / "cpu.max").read_text().split()
        else:
            most, period = ((cgroup / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return None if most in ("max", "-1") else int(most) / int(period)
    except (OSError, ValueError):
        return None
