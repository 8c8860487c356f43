"""From a config to a task, its data and a trainer: the only place that instantiates."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
import wandb
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ProgressBar
from omegaconf import DictConfig, OmegaConf

ALLOWED = ("src.", "torch.", "torchvision.", "lightning.")

# What Lightning says of itself at every start, and what it warns of that is meant here.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*exists and is not empty")  # the run folder, which Hydra made
warnings.filterwarnings("ignore", message=".*LeafSpec")
warnings.filterwarnings("ignore", message=".*does not have many workers")
warnings.filterwarnings("ignore", message=".*smaller than the logging interval")

OmegaConf.register_new_resolver("cpus", lambda most: min(int(most), os.cpu_count() or 1), replace=True)
OmegaConf.register_new_resolver("wandb_offline", lambda: wandb.api.api_key is None, replace=True)


class Run(NamedTuple):
    """All that runs."""

    task: lightning.LightningModule
    data: lightning.LightningDataModule
    trainer: lightning.Trainer


def compose(cfg: DictConfig, overrides: list[str] | None = None) -> Run:
    """Build everything a config names.

    Args:
        overrides: what the user typed; goes into checkpoints, from where `evaluate` takes up the same settings.

    Raises:
        ValueError: a setting that cannot be, named with its value and what was expected.
        FileNotFoundError: data or weights that are not there.
    """
    if cfg.model.weights is not None:
        cfg.model.backbone.pretrained = False  # they would be overwritten
    settings = OmegaConf.to_container(cfg, resolve=True)
    check_targets(settings)
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    trainer = build_trainer(cfg)
    per_device, accumulate = split_batch(cfg.batch_size, cfg.batch_size_per_device, trainer.world_size)
    trainer.accumulate_grad_batches = accumulate
    if cfg.validate_every is not None:
        trainer.val_check_interval = every = min(cfg.validate_every, trainer.max_steps) * accumulate
        trainer.check_val_every_n_epoch = None
        assert every > 0
    data = instantiate(cfg.data, batch_size=per_device, _convert_="all")
    task = instantiate(cfg.task, categories=data.categories, _convert_="all")
    task.hparams.update({"batch_size": cfg.batch_size, "overrides": overrides or [], "config": settings})
    return Run(task, data, trainer)


def build_trainer(cfg: DictConfig) -> lightning.Trainer:
    """The trainer with its callbacks and loggers."""
    callbacks = [instantiate(node, _convert_="all") for node in (cfg.callbacks or {}).values() if node]
    if not cfg.trainer.enable_progress_bar:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    loggers = [instantiate(node, _convert_="all") for node in (cfg.logger or {}).values() if node]
    precision = best_precision() if cfg.trainer.precision == "auto" else cfg.trainer.precision
    return instantiate(cfg.trainer, callbacks=callbacks, logger=loggers, precision=precision, _convert_="all")


def best_precision() -> str:
    """bfloat16 where the GPU has it, else float16; float32 without a GPU, where halves are slower."""
    if not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"


def split_batch(batch_size: int, per_device: int | None, num_devices: int) -> tuple[int, int]:
    """Images per device, and batches per optimiser step, so that each step sees `batch_size` images in all."""
    per_device = per_device or max(batch_size // num_devices, 1)
    accumulate, rest = divmod(batch_size, per_device * num_devices)
    if rest or not accumulate:
        raise ValueError(
            f"batch_size={batch_size} is no multiple of {per_device} images on each of {num_devices} devices; "
            "set batch_size_per_device to one that divides it"
        )
    return per_device, accumulate


def check_targets(node: Any, path: str = "") -> None:
    """Refuse a config that would call something outside the project and its frameworks."""
    if isinstance(node, dict):
        target = node.get("_target_", "src.")
        if not str(target).startswith(ALLOWED):
            raise ValueError(f"{path}._target_={target}: expected one of ours or of {', '.join(ALLOWED[1:])}")
        for key, value in node.items():
            check_targets(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check_targets(value, f"{path}[{i}]")


def find_checkpoint(cfg: DictConfig) -> str | None:
    """The file that `ckpt_path` means: null, a path, or `last` for the newest run of this name."""
    if cfg.ckpt_path is None:
        return None
    if cfg.ckpt_path != "last":
        if not Path(cfg.ckpt_path).is_file():
            raise FileNotFoundError(f"ckpt_path={cfg.ckpt_path}: no such file, looked in {Path.cwd()}")
        return str(cfg.ckpt_path)
    runs = Path(cfg.paths.runs) / cfg.name
    found = sorted(runs.glob("*/checkpoints/last.ckpt"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"ckpt_path=last: no */checkpoints/last.ckpt under {runs.absolute()}")
    return str(found[-1])
