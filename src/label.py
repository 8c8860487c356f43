"""Label images with the quality and cost of each exit: python -m src.label ckpt_path=runs/.../best.ckpt.

Settings are those of the parent; command-line overrides take precedence.
"""

import sys
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from src.config.build import build_run
from src.config.checkpoints import take_weights
from src.config.command_line import CONF, run
from src.config.errors import report_errors
from src.config.saved_settings import saved_overrides
from src.config.search_path import overrides_of
from src.records import run_folder
from src.records.scores import NOTHING
from src.weights.files import records

DECIDES = ("model", "data", "segmentation", "task.postprocess", "trainer.precision")  # settings that affect quality
LATER = {"task.quality": "score", "task.mirrored": False}  # recorded only if different, as older tables lack them
NO_EFFECT = (  # parts of these that change no quality
    "weights",
    "drop_class_head",
    "pretrained",
    "activation_checkpointing",
    "compile",
    "num_workers",
    "augment",
    "on_flaw",
)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="label")
@report_errors
def label(cfg: DictConfig) -> None:
    """Write the exit table, or its missing shards."""
    checkpoint = take_weights(cfg, "label with")
    folder = Path(cfg.table) if cfg.table else beside(checkpoint, cfg.paths.runs) / "exit_table" / cfg.split
    settings = recorded(cfg)
    source = cfg.model.weights
    task, data, trainer = cast(Any, build_run(cfg, overrides_of(HydraConfig.get())))
    check_trained(source, task.model.exits, task.model.pixel_decoder.encoder.depth)
    about = {"shard_size": cfg.shard_size, "source": source, "settings": settings, **task.about()}
    labelling = data.label(folder, cfg.split, **about)
    if labelling.missing:
        trainer.predict(task, data, return_predictions=False, weights_only=True)
        trainer.strategy.barrier()
    if trainer.is_global_zero:
        num_scored, whole = labelling.finish(), labelling.info
        if (folder_of_run := Path(cfg.paths.run)).is_dir():  # of a job
            run_folder.finish(folder_of_run, "labelled")
        bare = f", {NOTHING} in {whole.num_images - num_scored} of them" * (num_scored < whole.num_images)
        shards = f"exits {whole.exits}, {whole.num_shards} shards"
        print(f"{folder}: {whole.num_images} images of {whole.split}{bare}, {shards}")


def check_trained(source: str, exits: list[int], depth: int) -> None:
    """Raise ValueError for exits that a parent of ours, whose encoder has so many layers, was not trained for."""
    content = records(Path(source), "ckpt_path") if Path(source).is_file() else {}
    settings = content.get("hyper_parameters", {}).get("config") if isinstance(content, dict) else None
    if settings is None:
        return  # published weights do not say
    trained = settings["exits"] or [depth]
    if not set(exits) <= set(trained):
        raise ValueError(f"exits={exits}: {source} was trained for {trained}, expected some of these")


def beside(checkpoint: str | None, runs: str) -> Path:
    """Return the run folder of a checkpoint, or `runs` without one."""
    if checkpoint is None:
        return Path(runs)
    folder = Path(checkpoint).parent
    return folder.parent if folder.name == "checkpoints" else folder


def recorded(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that qualities depend on, by which tables are told apart."""
    later = [name for name, usual in LATER.items() if OmegaConf.select(cfg, name) not in (None, usual)]
    of_loss = ["task.criterion"] * ("task.quality" in later)
    return {name: decisive(OmegaConf.select(cfg, name)) for name in (*DECIDES, *later, *of_loss)}


def decisive(settings: object) -> object:
    """Return settings as plain values, without those that do not affect a label."""
    if OmegaConf.is_config(settings):
        settings = OmegaConf.to_container(settings, resolve=True)
    if not isinstance(settings, dict):
        return settings
    return {key: decisive(value) for key, value in settings.items() if key not in NO_EFFECT}


if __name__ == "__main__":
    run(label, saved_overrides(sys.argv[1:], below_experiment=True), "label")
