"""Segment images and videos with a trained model: python -m src.predict photos/ ckpt_path=runs/.../best.ckpt.

Settings are those of the training; command-line overrides take precedence.
"""

import os
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from src.config.command_line import CONF, parse_flags, run
from src.config.errors import report_errors
from src.config.overrides import quote
from src.config.saved_settings import saved_overrides
from src.predictor import Predictor
from src.system.terminal import fail


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="predict")
@report_errors
def predict(cfg: DictConfig) -> None:
    """Predict every image. Files that cannot be read are listed, and the exit status is 1."""
    if not cfg.photos:
        raise ValueError("nothing to segment: python -m src.predict IMAGE|FOLDER|PATTERN|VIDEO ... ckpt_path=FILE")
    inputs = instantiate(cfg.inputs, _convert_="all")
    predictor = Predictor(cfg)
    outputs = outputs_of(predictor.task, cfg.outputs)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not cfg.trainer.enable_progress_bar
    with (
        instantiate(cfg.answers, outputs=outputs, categories=predictor.categories, _convert_="all") as answers,
        Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as bar,
    ):
        task = bar.add_task("segmenting", total=len(inputs))
        for _, photos in groupby(inputs, key=lambda pair: pair[0].video):
            for shot, photo, answer in predictor.stream(photos, whole=False):  # the writer enlarges maps
                answers.write(shot, photo, answer)
                bar.advance(task)
    print(cfg.paths.run)
    if inputs.broken:
        for why in inputs.broken:
            print(f"skipped {why}", file=sys.stderr)
        fail(f"{len(inputs.broken)} of {len(inputs.files)} files skipped; the rest is in {cfg.paths.run}", 1)


def outputs_of(task: Any, wanted: Sequence[str] | None) -> list[str]:
    """Return what to write: all that the model predicts, or what is wanted. Raises ValueError for what it does not."""
    possible = ["overlays", *task.evaluation.predicts]
    outputs = possible if wanted is None else list(wanted)
    if missing := [one for one in outputs if one not in possible]:
        raise ValueError(
            f"outputs=[{','.join(outputs)}]: the model predicts no {missing[0]} with "
            f"segmentation={task.segmentation}; expected some of {', '.join(possible)}, or null for all of these"
        )
    return outputs


def gathered(arguments: list[str]) -> list[str]:
    """Return a command line with its files, folders and patterns joined into one setting, `photos`."""
    _, _, words = parse_flags(arguments)
    sources = [word for word in words if os.path.exists(word) or ("=" not in word and not word.startswith("~"))]
    rest = [argument for argument in arguments if argument not in sources]
    return [*rest, f"photos=[{','.join(map(quote, sources))}]"] if sources else rest


if __name__ == "__main__":
    run(predict, saved_overrides(gathered(sys.argv[1:])), "predict")
