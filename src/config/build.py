"""From a config to a task, its data and a trainer: the only place that instantiates."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ProgressBar
from omegaconf import DictConfig, OmegaConf

from src.config.checkpoints import newest, read_checkpoint, whole
from src.config.class_names import check_classes, learnt_categories, what_to_do
from src.config.errors import reason
from src.config.monitors import check_monitors
from src.config.saved_settings import settings_to_keep
from src.config.schema import check_settings
from src.records.run_folder import finished
from src.system.cpus import processors
from src.weights.checkpoint import OtherClassesError, fitting, read

# What Lightning says of itself at every start, and what it warns of that is meant here.
for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*exists and is not empty")  # the run folder, which Hydra made
warnings.filterwarnings("ignore", message=".*LeafSpec")
warnings.filterwarnings("ignore", message=".*does not have many workers")
warnings.filterwarnings("ignore", message=".*sync_dist=True")  # scores are those of all processes already
warnings.filterwarnings("ignore", message=".*smaller than the logging interval")

if "OMP_NUM_THREADS" not in os.environ:  # torch starts as many threads as affinity allows, whatever the quota is
    torch.set_num_threads(min(torch.get_num_threads(), processors()))

JOB_TYPES = {"Segmentation": "parent", "ExitOracle": "oracle", "GateTraining": "gate", "GatedEvaluation": "evaluation"}
OmegaConf.register_new_resolver(
    "job_type", lambda target: JOB_TYPES.get(str(target).rpartition(".")[-1], "run"), replace=True
)


class Experiment(NamedTuple):
    """All that runs."""

    task: lightning.LightningModule
    data: lightning.LightningDataModule
    trainer: lightning.Trainer


def build_run(cfg: DictConfig, overrides: list[str] | None = None) -> Experiment:
    """Build everything a config names.

    Args:
        overrides: what the user typed; goes into checkpoints, from where `evaluate` takes up the same settings.

    Raises:
        ValueError: a setting that cannot be, named with its value and what was expected.
        FileNotFoundError: data or weights that are not there.
    """
    if OmegaConf.select(cfg, "model.weights") is not None:
        cfg.model.backbone.pretrained = False  # they would be overwritten
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
    task = task_of(cfg, **data.for_task)
    if hasattr(task, "score_names"):
        check_monitors(trainer.callbacks, task.score_names())  # type: ignore[attr-defined]
    task.hparams.update({"batch_size": cfg.batch_size, **kept, **data.for_checkpoint})
    for logger in trainer.loggers:
        logger.log_hyperparams({"config": kept["config"]})
    return Experiment(task, data, trainer)


def build_task(cfg: DictConfig) -> Any:
    """The task of a config and its weights, ready to run; data need not be there where weights name their classes.

    Raises as `build_run` does.
    """
    cfg.model.backbone.pretrained = False
    check_settings(OmegaConf.to_container(cfg, resolve=True))
    try:
        return task_of(cfg, categories=categories_of(cfg))
    except InstantiationException as error:
        raise ValueError(reason(error)) from error


def task_of(cfg: DictConfig, **facts: Any) -> Any:
    """The task, which is given facts of the data. Raises ValueError for weights of other classes."""
    try:
        return instantiate(cfg.task, **facts, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, OtherClassesError):
            raise ValueError(f"{error.__cause__}: {what_to_do(cfg)}") from error
        raise


def categories_of(cfg: DictConfig) -> list[Any]:
    """The classes that `categories` names, or else the checkpoint, or else the data."""
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
    """A model without weights, and its data, which need not be there: enough to count what the model costs."""

    model: Any
    data: Any


def sketch(cfg: DictConfig, num_classes: int | None = None) -> Sketch:
    """What a config names, on the meta device, for so many classes; null: as its weights, or else the data, have.

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
        fitting(model, weights, drop_class_head=True)  # else a cost would be told that is not theirs
    return Sketch(model, data)


def data_of(cfg: DictConfig) -> Any:
    """The data alone, which need not be there. Raises ValueError as `build_run` does."""
    check_settings(OmegaConf.to_container(cfg, resolve=True))
    return instantiate(cfg.data, batch_size=1, _convert_="all")


def build_trainer(cfg: DictConfig) -> lightning.Trainer:
    """The trainer with its callbacks and loggers."""
    callbacks = [instantiate(node, _convert_="all") for node in (cfg.get("callbacks") or {}).values() if node]
    loggers = [instantiate(node, _convert_="all") for node in (cfg.get("logger") or {}).values() if node]
    idle = (() if cfg.trainer.enable_progress_bar else (ProgressBar,)) + (() if loggers else (LearningRateMonitor,))
    callbacks = [callback for callback in callbacks if not isinstance(callback, idle)]
    precision = best_precision() if cfg.trainer.precision == "auto" else cfg.trainer.precision
    try:
        ours = {"callbacks": callbacks, "logger": loggers, "default_root_dir": cfg.paths.run, "precision": precision}
        keeps = any(isinstance(callback, Checkpoint) for callback in callbacks)  # else Lightning adds one of its own
        trainer = instantiate(cfg.trainer, **ours, enable_checkpointing=keeps, _convert_="all")
    except InstantiationException as error:
        given = ", ".join(f"{name}={cfg.trainer[name]}" for name in ("accelerator", "devices", "strategy", "precision"))
        raise ValueError(f"no trainer with {given}: {error.__cause__}") from error
    if trainer.precision != precision:
        raise ValueError(f"trainer.precision={precision}: not on this accelerator, expected {trainer.precision}")
    return trainer


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


def find_checkpoint(cfg: DictConfig) -> str | None:
    """The file that `ckpt_path` means: null, a path, or `last` for the newest run of this name.

    Raises FileNotFoundError if there is none, ValueError if it cannot be read, both before anything is built.
    """
    if cfg.ckpt_path is None:
        return None
    if cfg.ckpt_path == "auto":
        raise ValueError("ckpt_path=auto: is for src.train, which goes on in its run folder; expected a file or last")
    file = Path(cfg.ckpt_path)
    if cfg.ckpt_path == "last":
        runs = Path(cfg.paths.runs)
        found = newest(runs, cfg.name)
        if found is None:
            place = (runs / cfg.name).absolute()
            raise FileNotFoundError(f"ckpt_path=last: no checkpoints/last.ckpt below {place}; name= says whose run")
        file = found
    if not file.is_file():
        raise FileNotFoundError(f"ckpt_path={cfg.ckpt_path}: no such file, looked in {Path.cwd()}")
    read_checkpoint(file)
    return str(file)


def take_weights(cfg: DictConfig, purpose: str) -> str | None:
    """Have the model start from what `ckpt_path` means, class head included, or else `model.weights`; that checkpoint.

    Raises ValueError if neither is there; `purpose` is what weights are for, and comes into it.
    """
    file = find_checkpoint(cfg)
    if file is not None:
        cfg.model.weights, cfg.model.drop_class_head = file, False  # which an experiment may set, for its training
    if cfg.model.weights is None:
        raise ValueError(
            f"nothing to {purpose}: give ckpt_path=FILE (of ours) or model.weights=SOURCE (docs/weights.md)"
        )
    return file


def find_progress(cfg: DictConfig) -> str | None:
    """The checkpoint that a training goes on from: as above, or of `auto` the last one in its run folder.

    With `auto`, none that is there, or none that is whole, means to start from scratch.
    """
    if cfg.ckpt_path != "auto":
        return find_checkpoint(cfg)
    last = Path(cfg.paths.run) / "checkpoints" / "last.ckpt"
    file = whole(last) if last.is_file() else None
    return None if file is None else str(file)


def is_finished(cfg: DictConfig, checkpoint: str | None) -> bool:
    """Whether a training that goes on by itself has had all its steps, and the scores of the last one."""
    if cfg.ckpt_path != "auto" or checkpoint is None:
        return False
    return finished(Path(cfg.paths.run)) and read_checkpoint(Path(checkpoint))["global_step"] >= cfg.trainer.max_steps
