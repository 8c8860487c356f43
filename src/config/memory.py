"""What to lower where memory is short, with the values in force."""

import re
import traceback
from pathlib import Path

import torch.distributed
from omegaconf import DictConfig, OmegaConf

SHORT = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.IGNORECASE)
WORKER = re.compile(r"DataLoader worker \(.*?\) (?:is )?(killed by signal: (?:Bus error|\w+)|exited unexpectedly)")
TRAINING = ("batch_size_per_device", "model.activation_checkpointing", "data.augment.size")
EVALUATION = ("data.eval_batch_size", "data.resize.short", "data.resize.long")


def is_short(error: BaseException) -> bool:
    """Whether an error says that memory is short, the GPU's or the machine's."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(SHORT.search(str(error))))


def memory_reason(error: BaseException, cfg: DictConfig) -> str | None:
    """Which settings to lower, of an error of memory or of a worker that was killed; None for any other error."""
    settings = settings_of(error)
    if isinstance(error, RuntimeError) and (died := WORKER.search(str(error))):
        settings = settings or TRAINING  # torch raises wherever the signal finds it, outside of all loops too
        said = f"a data worker was {died[1]}" if died[1].startswith("killed") else f"a data worker {died[1]}"
        workers = values(cfg, "data.num_workers", *settings[:1])
        if "Bus error" in said:
            return f"{said}, for lack of shared memory ({workers}): lower data.num_workers, or raise that of /dev/shm"
        why = "" if "signal" in said and "Kill" not in said else ", most likely for lack of memory"
        return f"{said}{why} ({workers}): lower {', then '.join(('data.num_workers', *settings[:1]))}"
    if not is_short(error) or not settings:
        return None
    if "DataLoader worker" in str(error):
        return f"a data worker is out of memory ({values(cfg, 'data.num_workers', *settings[:1])}): lower these"
    where = "training" if settings == TRAINING else "evaluation"
    machine = isinstance(error, MemoryError) or "cpu" in str(error).lower()
    return (
        f"out of {'memory' if machine else 'GPU memory'} in {where} ({values(cfg, *settings)}): "
        f"try {', then '.join(steps(cfg, settings))}"
    )


def settings_of(error: BaseException) -> tuple[str, ...]:
    """The settings that decide how much memory was asked for where an error came from; none outside of all loops."""
    files = {Path(frame.filename).name for frame in traceback.extract_tb(error.__traceback__)}
    if files & {"evaluation_loop.py", "prediction_loop.py"}:
        return EVALUATION
    return TRAINING if "fit_loop.py" in files else ()


def values(cfg: DictConfig, *names: str) -> str:
    """Settings with the values in force, those that there are."""
    pairs = [(name, in_force(cfg, name)) for name in names]
    return ", ".join(f"{name}={str(value).lower()}" for name, value in pairs if value is not None)


def in_force(cfg: DictConfig, name: str) -> object:
    """The value of a setting; of the batch of a device, what it comes to."""
    value = OmegaConf.select(cfg, name)
    if name == "batch_size_per_device" and value is None:
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        return max(cfg.batch_size // (torch.distributed.get_world_size() if several else 1), 1)
    return value


def steps(cfg: DictConfig, settings: tuple[str, ...]) -> list[str]:
    """What to try, the cheapest first."""
    batch, *others = settings
    number = int(str(in_force(cfg, batch)))
    smaller = next((one for one in range(number // 2, 0, -1) if number % one == 0), None)
    tries = [f"{batch}={smaller}"] if smaller else []
    for name in others:
        value = in_force(cfg, name)
        if value is False:
            tries.append(f"{name}=true")
        elif value is not None and value is not True:
            tries.append(f"a smaller {name}")
    return tries or ["a machine with more memory"]
