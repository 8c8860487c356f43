"""From a config to a task, its data and a trainer: the only place that instantiates."""

import logging
import os
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ProgressBar
from omegaconf import DictConfig, OmegaConf

from src.config.class_names import check_classes, learnt_categories, what_to_do
from src.config.errors import reason
from src.config.monitors import check_monitors
from src.config.saved_settings import settings_to_keep
from src.config.schema import check_settings
from src.config.times import times_for
from src.system.cpus import processors
from src.weights.checkpoint import OtherClassesError, fitting, read

# Lightning's notes on itself at every start, and its warnings of what is intended here
for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*exists and is not empty")  # the run folder, which Hydra made
warnings.filterwarnings("ignore", message=".*LeafSpec")
warnings.filterwarnings("ignore", message=".*does not have many workers")
warnings.filterwarnings("ignore", message=".*sync_dist=True")  # scores are those of all processes already
warnings.filterwarnings("ignore", message=".*smaller than the logging interval")

if "OMP_NUM_THREADS" not in os.environ:  # torch starts as many threads as affinity allows, whatever the quota is
    torch.set_num_threads(min(torch.get_num_threads(), processors()))

CPU = torch.device("cpu")
JOB_TYPES = {"Segmentation": "parent", "ExitOracle": "oracle", "GateTraining": "gate", "GatedEvaluation": "evaluation"}
OmegaConf.register_new_resolver(
    "job_type", lambda target: JOB_TYPES.get(str(target).rpartition(".")[-1], "run"), replace=True
)


class Experiment(NamedTuple):
    """What a config builds."""

    task: lightning.LightningModule
    data: lightning.LightningDataModule
    trainer: lightning.Trainer


def build_run(cfg: DictConfig, overrides: list[str] | None = None) -> Experiment:
    """Build everything a config names. Command-line `overrides` are kept in checkpoints, for commands that use them.

    Raises ValueError for a wrong setting, with its value and what was expected; FileNotFoundError for missing files.
    """
    if OmegaConf.select(cfg, "model.weights") is not None:
        cfg.model.backbone.pretrained = False  # model.weights would overwrite them
    elif OmegaConf.select(cfg, "model.drop_class_head"):
        raise ValueError("model.drop_class_head=true: of which weights? Expected model.weights=SOURCE beside it")
    kept = settings_to_keep(cfg, overrides)
    check_settings(kept["config"])
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    trainer = build_trainer(cfg)
    per_device, accumulate = split_batch(cfg.batch_size, cfg.batch_size_per_device, trainer.world_size)
    trainer.accumulate_grad_batches = accumulate
    if cfg.validate_every is not None:
        trainer.val_check_interval = min(cfg.validate_every, trainer.max_steps) * accumulate
        trainer.check_val_every_n_epoch = None
    data = instantiate(cfg.data, batch_size=per_device, _convert_="all")
    if OmegaConf.select(cfg, "model") is not None:
        check_classes(cfg, [category.name for category in data.categories])
    parent = data.for_task.get("table", {}).get("source")  # of a gate
    times = times_for(cfg, trainer.strategy.root_device, str(trainer.precision), parent)
    task = task_of(cfg, **data.for_task, **times)
    if hasattr(task, "score_names"):
        check_monitors(trainer.callbacks, task.score_names())  # type: ignore[attr-defined]
    task.hparams.update({"batch_size": cfg.batch_size, **kept, **data.for_checkpoint})
    for logger in trainer.loggers:
        logger.log_hyperparams({"config": kept["config"]})
    return Experiment(task, data, trainer)


def build_task(
    cfg: DictConfig,
    device: torch.device = CPU,
    precision: str = "32-true",
    categories: Sequence[Any] | None = None,
) -> Any:
    """Build the task with its weights, without data if weights or `categories` name the classes. Raises ValueError.

    Args:
        device, precision: with which it will run, for the times that a budget in milliseconds goes by.
        categories: the classes; null: as said above.
    """
    cfg.model.backbone.pretrained = False
    check_settings(OmegaConf.to_container(cfg, resolve=True))
    try:
        times = times_for(cfg, device, precision)
        return task_of(cfg, categories=categories_of(cfg) if categories is None else categories, **times)
    except InstantiationException as error:
        raise ValueError(reason(error)) from error


def task_of(cfg: DictConfig, **facts: Any) -> Any:
    """Build the task with facts about the data. Raises ValueError for weights with another number of classes."""
    try:
        return instantiate(cfg.task, **facts, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, OtherClassesError):
            raise ValueError(f"{error.__cause__}: {what_to_do(cfg)}") from error
        raise


def categories_of(cfg: DictConfig) -> list[Any]:
    """The classes that `categories` names, else those of the checkpoint, else those of the data."""
    own = learnt_categories(cfg.model.weights)
    source = cfg.categories or own
    if source is not None:
        categories = instantiate(cfg.read_categories, _convert_="all")(source)
        if own is not None and len(categories) != len(own):
            raise ValueError(f"categories={source}: has {len(categories)}, expected {len(own)}, as was learnt")
        return categories
    try:
        return instantiate(cfg.data, batch_size=1, _convert_="all").categories
    except FileNotFoundError as error:
        raise ValueError(
            "categories=null: the weights do not name their classes, and the data are not there; expected "
            f"coco_panoptic, another benchmark or a file that lists them, or the data ({error})"
        ) from error


class Sketch(NamedTuple):
    """A model without weights, and its data, whose files may be missing: enough to count the cost."""

    model: Any
    data: Any


def sketch(cfg: DictConfig, num_classes: int | None = None) -> Sketch:
    """Build a config's model on the meta device, by default for the classes of its weights, else of its data.

    Raises as `build_run` does.
    """
    if cfg.get("model") is None:
        raise ValueError("model=null: a gate alone has no cost to count; name an experiment that has a model")
    weights = None if cfg.model.weights is None else read(cfg.model.weights)
    if num_classes is None and weights is not None and not cfg.model.drop_class_head:
        num_classes = weights.architecture().num_classes
    cfg.model.weights, cfg.model.drop_class_head, cfg.model.backbone.pretrained = None, False, False
    data = data_of(cfg)
    num_classes = data.num_classes if num_classes is None else num_classes
    with torch.device("meta"):
        model = instantiate(cfg.model, _convert_="all")(num_classes=num_classes)
    if weights is not None:
        fitting(model, weights, drop_class_head=True)  # otherwise the cost would not be theirs
    return Sketch(model, data)


def data_of(cfg: DictConfig) -> Any:
    """Build the data alone, whose files may be missing. Raises ValueError as `build_run` does."""
    check_settings(OmegaConf.to_container(cfg, resolve=True))
    return instantiate(cfg.data, batch_size=1, _convert_="all")


def build_trainer(cfg: DictConfig) -> lightning.Trainer:
    """Build the trainer with its callbacks and loggers. Raises ValueError for devices or a precision not there."""
    callbacks = [instantiate(node, _convert_="all") for node in (cfg.get("callbacks") or {}).values() if node]
    loggers = [instantiate(node, _convert_="all") for node in (cfg.get("logger") or {}).values() if node]
    idle = (() if cfg.trainer.enable_progress_bar else (ProgressBar,)) + (() if loggers else (LearningRateMonitor,))
    callbacks = [callback for callback in callbacks if not isinstance(callback, idle)]
    precision = best_precision() if cfg.trainer.precision == "auto" else cfg.trainer.precision
    ours = {"callbacks": callbacks, "logger": loggers, "default_root_dir": cfg.paths.run, "precision": precision}
    saves = any(isinstance(callback, Checkpoint) for callback in callbacks)  # otherwise Lightning adds its own
    try:
        trainer = instantiate(cfg.trainer, **ours, enable_checkpointing=saves, _convert_="all")
    except InstantiationException as error:
        given = ", ".join(f"{name}={cfg.trainer[name]}" for name in ("accelerator", "devices", "strategy", "precision"))
        raise ValueError(f"no trainer with {given}: {error.__cause__}") from error
    if trainer.precision != precision:
        raise ValueError(f"trainer.precision={precision}: not on this accelerator, expected {trainer.precision}")
    return trainer


def best_precision() -> str:
    """bfloat16 if the GPU has it, else float16; float32 without a GPU, where 16 bits are slower."""
    if not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"


def split_batch(batch_size: int, per_device: int | None, num_devices: int) -> tuple[int, int]:
    """Return images per device and batches per optimiser step, which make up `batch_size`, else raise ValueError."""
    per_device = per_device or max(batch_size // num_devices, 1)
    accumulate, rest = divmod(batch_size, per_device * num_devices)
    if rest or not accumulate:
        raise ValueError(
            f"batch_size={batch_size} is no multiple of {per_device} images on each of {num_devices} devices; "
            "set batch_size_per_device to one that divides it"
        )
    return per_device, accumulate
