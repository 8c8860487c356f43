"""The class of the machine that a measurement is of: processors of a kind and how many threads, or a GPU of a kind."""

import platform
import re
from pathlib import Path

import torch


def machine_of(device: torch.device) -> str:
    """Return, for example, "x86_64, AMD EPYC 7B13, 2 threads", or the name of the GPU; never a host name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{platform.machine()}, {processor_name()}, {threads} thread{'s' * (threads != 1)}"


def processor_name(root: Path = Path("/")) -> str:
    """Return the model of the processor; where Linux does not say, what the platform calls it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", (root / "proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    return found[1].strip() if found else platform.processor() or "processor unknown"
