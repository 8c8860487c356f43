"""Workers and threads follow the processors that a process may use."""

import os
from pathlib import Path

import pytest

from src.system.cpus import processors


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A root folder whose process is in a cgroup, with some files below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


V1 = "4:memory:/docker/a\n2:cpu,cpuacct:/docker/a\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),  # a part of a processor is one
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 8),
        ("0::/slurm/job/step\n", {"slurm/job/cpu.max": "400000 100000\n", "slurm/job/step/cpu.max": "max 100000"}, 4),
        (V1, {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        (V1, {"cpu/docker/a/cpu.cfs_quota_us": "500000\n", "cpu/docker/a/cpu.cfs_period_us": "100000\n"}, 5),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        (V1, {"cpu/cpu.cfs_quota_us": "what\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_quotas_bound_the_processors(
    cgroup: str, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight that the process may run on, as many as its cgroup and those around it grant, in both versions."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert processors(machine(tmp_path, cgroup, files)) == expected


def test_affinity_bounds_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine that has more, and without cgroups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert processors(tmp_path) == 2
