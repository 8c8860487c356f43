"""Labelling (ECO-M2F's step B): one pass for all exits against one pass for each, on the same scenes."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import Any, cast

import torch

from scripts.benchmarking.plan import Plan, Row
from src.config.build import build_run
from src.config.command_line import configure
from src.data.targets import collate
from src.system.stopwatch import Stopwatch, take_turns

EXPERIMENT = "+experiment=eco_parent_coco"
SCENES = ["data=shapes", "task=exit_oracle"]
QUIET = ["paths.run=.", "callbacks=[]", "~logger", "model.backbone.pretrained=false"]
PART = "labelling"


def measure(plan: Plan, backbone: str, overrides: Sequence[str], side: int, stopwatch: Stopwatch) -> list[Row]:
    """Return a row for each way to label a scene of side x side pixels."""
    given = [override.lstrip("+").partition("=")[0] for override in overrides]
    chosen = [] if "experiment" in given else [EXPERIMENT, f"model/backbone={backbone}"]
    scenes = [f"data.train.size={side}", f"data.val.num_scenes={plan.rounds}"]
    task, data, _ = cast(Any, build_run(configure([*chosen, *overrides, *SCENES, *QUIET, *scenes])))
    task.eval().to(plan.device)
    batches = [task.transfer_batch_to_device(collate([scene]), plan.device, 0) for scene in data.val_scenes]
    exits = list(task.model.exits)

    @torch.no_grad()
    def label(scenes: Iterator[Any], passes: list[list[int]]) -> None:
        batch = next(scenes)
        with stopwatch.part(PART), plan.autocast():
            for some in passes:
                task.model.exits = some
                task.predict_step(batch, 0)

    apart, together = f"{len(exits)} passes, one for each exit", f"one pass for all {len(exits)} exits"
    ways = {apart: [[depth] for depth in exits], together: [exits]}
    calls = {name: partial(label, cycle(batches), passes) for name, passes in ways.items()}  # a scene for each round
    seconds = take_turns(calls, stopwatch, plan.rounds, plan.warm_up, f"labelling at {side}x{side}")
    return [Row(name, 1, apart, {}, seconds[name], exits) for name in calls]
