"""Provenance of results: git revision, torch version and hardware; never a host name or a path."""

import subprocess
from functools import cache
from pathlib import Path

import torch

from src.system.cpus import processors

ROOT = Path(__file__).resolve().parents[2]
CODE = ("src/", "conf/")  # an untracked file in these folders changes the code


def made_by(device: torch.device, num_devices: int = 1) -> dict[str, str | None]:
    """Return the git revision (None outside a checkout), the torch version and the device."""
    cores = "1 core" if processors() == 1 else f"{processors()} cores"
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type.upper()}, {cores}"
    if num_devices > 1:
        hardware = f"{num_devices} x {hardware}"
    return {"git": revision(), "torch": torch.__version__, "device": hardware}


@cache  # the running code was loaded at the start, whatever is edited later
def revision(root: Path = ROOT) -> str | None:
    """Return twelve digits of the commit, with a trailing `+` if files differ; None if `root` is no checkout."""
    top = git(root, "rev-parse", "--show-toplevel")
    commit = git(root, "rev-parse", "--short=12", "HEAD")
    if top is None or commit is None or Path(top.strip()).resolve() != root.resolve():
        return None  # a copy inside another repository
    changes = (git(root, "status", "--porcelain") or "").splitlines()
    dirty = any(not line.startswith("??") or line[3:].strip('"').startswith(CODE) for line in changes)
    return f"{commit.strip()}+" if dirty else commit.strip()


def git(root: Path, *arguments: str) -> str | None:
    """Return the output of a git command, None if it fails or git is not installed."""
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
