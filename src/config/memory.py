"""Which settings to lower when memory runs out, with their values."""

import re
import traceback
from pathlib import Path
from typing import Any

import torch.distributed
from omegaconf import DictConfig, ListConfig, OmegaConf

from src.config.overrides import spell

SHORT = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.IGNORECASE)
WORKER = re.compile(r"DataLoader worker \(.*?\) (?:is )?(killed by signal: (?:Bus error|\w+)|exited unexpectedly)")
TRAINING = ("batch_size_per_device", "model.activation_checkpointing", "data.augment.size")
EVALUATION = ("data.eval_batch_size", "data.resize.short", "data.resize.long")


def is_short(error: BaseException) -> bool:
    """Whether an error says that the GPU or the machine is out of memory."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(SHORT.search(str(error))))


def memory_reason(error: BaseException, cfg: DictConfig) -> str | None:
    """Return which settings to lower after a lack of memory or the death of a data worker; None for other errors."""
    names, text = settings_of(error), str(error)
    died = WORKER.search(text) if isinstance(error, RuntimeError) else None  # raised also outside of all loops
    if not died and not (names and is_short(error)):
        return None
    workers = in_words(in_force(cfg, "data.num_workers", (names or TRAINING)[0]))
    if died:
        said = f"a data worker {died[1]}" if died[1].startswith("exited") else f"a data worker was {died[1]}"
        if "Bus error" in said:
            return f"{said}, for lack of shared memory ({workers}): lower data.num_workers, or raise that of /dev/shm"
        why = "" if "signal" in said and "Kill" not in said else ", most likely for lack of memory"
        return f"{said}{why} ({workers}): lower data.num_workers, then {(names or TRAINING)[0]}"
    if "DataLoader worker" in text:
        return f"a data worker is out of memory ({workers}): lower these"
    settings = in_force(cfg, *names)
    memory = "memory" if isinstance(error, MemoryError) or "cpu" in text.lower() else "GPU memory"
    where = "training" if names == TRAINING else "evaluation"
    return f"out of {memory} in {where} ({in_words(settings)}): try {', then '.join(ways_out(settings))}"


def settings_of(error: BaseException) -> tuple[str, ...]:
    """The settings that determine the memory of the loop an error was raised in; none outside of all loops."""
    files = {Path(frame.filename).name for frame in traceback.extract_tb(error.__traceback__)}
    if files & {"evaluation_loop.py", "prediction_loop.py"}:
        return EVALUATION
    return TRAINING if "fit_loop.py" in files else ()


def in_force(cfg: DictConfig, *names: str) -> dict[str, Any]:
    """Those of some settings that have a value, with it; a batch per device of null has that which results."""
    settings = {name: OmegaConf.select(cfg, name) for name in names}
    if "batch_size_per_device" in settings and settings["batch_size_per_device"] is None:
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        devices = torch.distributed.get_world_size() if several else 1
        settings["batch_size_per_device"] = max(cfg.batch_size // devices, 1)
    return {name: value for name, value in settings.items() if value is not None}


def in_words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name}={spell(value)}" for name, value in settings.items())


def ways_out(settings: dict[str, Any]) -> list[str]:
    """What to try, the cheapest first."""
    ways = []
    for name, value in settings.items():
        if "batch_size" in name:
            divisors = [smaller for smaller in range(1, value // 2 + 1) if value % smaller == 0]
            ways += [f"{name}={smaller}" for smaller in divisors[-1:]]
        elif value is False or isinstance(value, ListConfig):
            ways.append(f"{name}=true")
        elif value is not True:
            ways.append(f"a smaller {name}")
    return ways or ["a machine with more memory"]
