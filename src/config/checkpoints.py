"""What `ckpt_path` means: a file, `last` or `auto`; whether the checkpoint is intact, and whether its run has ended."""

import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.records.run_folder import finished
from src.system.terminal import say_once
from src.weights.files import load

LAST = "checkpoints/last.ckpt"  # in a run folder


def find_checkpoint(cfg: DictConfig) -> str | None:
    """Return the file that `ckpt_path` names (`last`: of the newest run of this name), None for null.

    Raises FileNotFoundError if there is none, ValueError if it cannot be read, both before anything is built.
    """
    if cfg.ckpt_path is None:
        return None
    if cfg.ckpt_path == "auto":
        raise ValueError("ckpt_path=auto: is for src.train, which resumes in its run folder; expected a file or last")
    last = newest(Path(cfg.paths.runs), cfg.name) if cfg.ckpt_path == "last" else None
    if cfg.ckpt_path == "last" and last is None:
        place = Path(cfg.paths.runs, cfg.name).absolute()
        raise FileNotFoundError(f"ckpt_path=last: no {LAST} below {place}; name= says whose run")
    file = last or Path(cfg.ckpt_path)
    if not file.is_file():
        raise FileNotFoundError(f"ckpt_path={cfg.ckpt_path}: no such file, looked in {Path.cwd()}")
    read_checkpoint(file)
    return str(file)


def find_progress(cfg: DictConfig) -> str | None:
    """Return the checkpoint that a training resumes: as `find_checkpoint`, or for `auto` the last in its run folder.

    With `auto`, a training starts from scratch (None) if there is no intact checkpoint.
    """
    if cfg.ckpt_path != "auto":
        return find_checkpoint(cfg)
    last = Path(cfg.paths.run, LAST)
    file = intact(last) if last.is_file() else None
    return None if file is None else str(file)


def is_finished(cfg: DictConfig, checkpoint: str | None) -> bool:
    """Whether a training with `ckpt_path=auto` has had all its steps, and has the scores of the last one."""
    if cfg.ckpt_path != "auto" or checkpoint is None:
        return False
    return finished(Path(cfg.paths.run)) and read_checkpoint(Path(checkpoint))["global_step"] >= cfg.trainer.max_steps


def take_weights(cfg: DictConfig, purpose: str) -> str | None:
    """Let the model start from `ckpt_path`, class head included, else from `model.weights`. Return that checkpoint.

    Raises ValueError if neither is given; `purpose` says in its message what weights are needed for.
    """
    file = find_checkpoint(cfg)
    if file is not None:
        cfg.model.weights, cfg.model.drop_class_head = file, False  # an experiment may set the latter for its training
    if cfg.model.weights is None:
        raise ValueError(
            f"nothing to {purpose}: give ckpt_path=FILE (of ours) or model.weights=SOURCE (docs/weights.md)"
        )
    return file


def newest(runs: Path, name: str) -> Path | None:
    """Return the last checkpoint of the newest run of a name; if it is damaged, preferably an intact one beside it."""
    found = (runs / name).rglob(LAST)
    file = max(found, key=lambda file: file.stat().st_mtime, default=None)
    return None if file is None else intact(file) or file


def intact(file: Path) -> Path | None:
    """Return a checkpoint; if it is damaged, the intact one beside it that has most steps, None without one.

    A damaged one is reported.
    """
    try:
        read_checkpoint(file, to_the_end=True)
        return file
    except ValueError as error:
        steps: dict[Path, int] = {}
        for other in file.parent.glob("[!.]*.ckpt"):
            with suppress(ValueError):
                steps[other] = read_checkpoint(other, to_the_end=True)["global_step"]
        best = max(steps, key=lambda other: steps[other], default=None)
        instead = f"{best} is taken, of step {steps[best]}" if best else "no checkpoint beside it is whole"
        say_once(f"{error}; {instead}")
        return best


def read_checkpoint(file: Path, to_the_end: bool = False) -> dict[str, Any]:
    """Return what a checkpoint of ours holds, tensors left on disk. Raises ValueError for any other file.

    Args:
        to_the_end: compare every byte with the checksums in the file.
    """
    content = load(file, "ckpt_path", mmap=True)
    if to_the_end and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if (part := archive.testzip()) is not None:
                raise ValueError(f"ckpt_path={file}: not a readable checkpoint ({part} in it is damaged)")
    if not {"state_dict", "pytorch-lightning_version"} <= set(content):
        raise ValueError(f"ckpt_path={file}: not a checkpoint of this project; model.weights= takes plain weights")
    return content
