"""How many processors this process may use: on a shared machine fewer than there are."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

V2_MOUNTS, V1_MOUNTS = ("",), ("cpu,cpuacct", "cpu")  # of cgroups, below /sys/fs/cgroup


def processors(root: Path = Path("/")) -> int:
    """Return the smaller of the processors that the process may run on and its cgroups' quotas, at least 1.

    Args:
        root: the folder of /proc and /sys.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min([allowed, *map(math.ceil, quotas(root))]), 1)


def quotas(root: Path) -> Iterator[float]:
    """Yield the quotas, in processors, of the process's cgroup and the cgroups around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        path = PurePosixPath(place.lstrip("/"))
        for mount in V1_MOUNTS if controllers else V2_MOUNTS:  # a container sees its own cgroup at the mount itself
            found = (quota(root / "sys/fs/cgroup" / mount / part) for part in (path, *path.parents))
            yield from (processors for processors in found if processors is not None)


def quota(cgroup: Path) -> float | None:
    """Return the processors that a cgroup may use, None without a quota."""
    try:
        if (cgroup / "cpu.max").is_file():
            most, period = (cgroup / "cpu.max").read_text().split()
        else:
            most, period = ((cgroup / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return None if most in ("max", "-1") else int(most) / int(period)
    except (OSError, ValueError):
        return None
