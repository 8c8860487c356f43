"""Time labelling: one pass for all exits against one pass for each, on the same scenes, taking turns.

ECO-M2F's step B, with random weights: times do not depend on them.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from rich.progress import track

from src.config.build import build_run
from src.config.command_line import configure
from src.data.targets import collate

OVERRIDES = [
    "paths.run=.",
    "data=shapes",
    "task=exit_oracle",
    "callbacks=[]",
    "~logger",
    "model.backbone.pretrained=false",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", default=["+experiment=eco_parent_coco"], help="settings of a parent")
    parser.add_argument("--size", type=int, default=512, help="side of a scene in pixels (default: 512)")
    parser.add_argument("--num-scenes", type=int, default=5, help="scenes that are timed (default: 5)")
    arguments = parser.parse_args()

    scenes = [f"data.train.size={arguments.size}", f"data.val.num_scenes={arguments.num_scenes + 1}"]
    task, data, _ = cast(Any, build_run(configure([*arguments.overrides, *OVERRIDES, *scenes])))
    label, exits = labelling(task, data), list(task.model.exits)
    together, apart = [], []
    for scene in track(range(arguments.num_scenes + 1), "scenes"):
        together.append(label(scene, exits))
        apart.append(sum(label(scene, [depth]) for depth in exits))
    seconds = [statistics.median(times[1:]) for times in (together, apart)]  # the first warms up
    print(
        f"exits {exits}, {arguments.num_scenes} scenes of {arguments.size}x{arguments.size} on {task.device}, medians: "
        f"one pass {seconds[0]:.3g} s, {len(exits)} passes {seconds[1]:.3g} s, ratio {seconds[0] / seconds[1]:.2f}"
    )


def labelling(task: Any, data: Any) -> Callable[[int, list[int]], float]:
    """Return a function that labels one scene at some exits and returns its seconds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task.eval().to(device)

    @torch.no_grad()
    def label(scene: int, exits: list[int]) -> float:
        task.model.exits = exits
        batch = task.transfer_batch_to_device(collate([data.val_scenes[scene]]), device, 0)
        started = time.perf_counter()
        task.predict_step(batch, 0)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return label


if __name__ == "__main__":
    main()
