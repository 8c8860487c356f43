"""The measured times that `budget_ms` goes by: which file, and which table in it."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from src.records.latency_table import MEASURES, PRECISIONS, find, latency_file, read
from src.system.machine import machine_of


def times_for(cfg: DictConfig, device: torch.device, precision: str, parent: str | None = None) -> dict[str, Any]:
    """Return {"latency": the table of this machine} for a task with `budget_ms`, else nothing.

    Args:
        precision: as Lightning spells it.
        parent: the weights that times are of; null: those of the model.

    Raises FileNotFoundError or ValueError, in one line, if there is no such table.
    """
    if OmegaConf.select(cfg, "task.budget_ms") is None or OmegaConf.select(cfg, "task.budget_gflops") is not None:
        return {}  # of two budgets, the task says that they exclude each other
    setting = f"budget_ms={cfg.budget_ms:g}"
    if cfg.latency is not None:
        file = Path(cfg.latency)
    else:
        source = parent or OmegaConf.select(cfg, "model.weights")
        if (beside := latency_file(source)) is None:
            raise ValueError(
                f"{setting}: no run folder has the times of {source}; expected latency=FILE, of {MEASURES}"
            )
        if not beside.is_file():
            raise FileNotFoundError(f"{setting}: no {beside}; {MEASURES} writes it, or name another with latency=FILE")
        file = beside
    return {"latency": find(read(file), machine_of(device), "torch", PRECISIONS[precision])}
