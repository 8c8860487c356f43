"""What made a number: the code's revision, torch, and the class of machine; never its name or a path."""

import subprocess
from functools import cache
from pathlib import Path

import torch

from src.system.cpus import processors

ROOT = Path(__file__).resolve().parents[2]
CODE = ("src/", "conf/")  # where a file that git does not know yet changes what runs


def made_by(device: torch.device, num_devices: int = 1) -> dict[str, str | None]:
    """Git revision (null outside a checkout), torch version and device, as JSON can hold them."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type.upper()}, {cores()}"
    device_class = f"{num_devices} x {name}" if num_devices > 1 else name
    return {"git": revision(), "torch": torch.__version__, "device": device_class}


def cores() -> str:
    count = processors()
    return "1 core" if count == 1 else f"{count} cores"


@cache  # what runs is what was there when the process began, whatever is edited meanwhile
def revision(root: Path = ROOT) -> str | None:
    """Twelve digits of the commit, a `+` behind them if files differ from it; None if `root` is no checkout of git."""
    top = git(root, "rev-parse", "--show-toplevel")
    commit = git(root, "rev-parse", "--short=12", "HEAD")
    if top is None or commit is None or Path(top.strip()).resolve() != root.resolve():
        return None  # a copy inside someone else's repository has that one's revision, not ours
    changes = (git(root, "status", "--porcelain") or "").splitlines()
    dirty = any(not line.startswith("??") or line[3:].strip('"').startswith(CODE) for line in changes)
    return commit.strip() + "+" * dirty


def git(root: Path, *arguments: str) -> str | None:
    """What git answers; None if it is not there or refuses."""
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
