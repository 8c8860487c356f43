"""Repeat the first step that was not finite: python -m scripts.replay runs/NAME/TIME/bad_step.

Prints the first module, the parts of the loss and the first parameter's gradient that are not finite.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from src.config.schema import check_settings
from src.data.targets import Batch, Category, Truth
from src.tasks.bad_step import STATE
from src.weights.files import load


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="bad_step/ of a run folder")
    parser.add_argument("--accelerator", default="auto", help="cpu or gpu (default: a GPU if there is one)")
    parser.add_argument("--allow", action="append", default=[], help="a package of your own whose classes may run")
    parser.add_argument("--precision", help="another than in training, for example 32-true")
    args = parser.parse_args(arguments)
    try:
        replay(args.folder, args.accelerator, args.precision, args.allow)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def replay(folder: Path, accelerator: str = "auto", precision: str | None = None, allow: Sequence[str] = ()) -> None:
    """Run the step from the weights before it, the batches of all processes one after the other."""
    files = sorted(folder.glob("process*.pt"))
    if not files:
        raise ValueError(f"{folder}: no process0.pt; expected the folder bad_step of a run")
    state = load(folder / STATE, "folder", mmap=True)
    shares = [load(file, "folder") for file in files]
    chosen: Any = precision or shares[0]["precision"]
    fabric: Any = lightning.Fabric(accelerator=accelerator, devices=1, precision=chosen)
    task = task_of(state["hyper_parameters"], allow).to(fabric.device).train()
    task.load_state_dict(state["state_dict"])
    print(
        f"step {shares[0]['step']}, seed {shares[0]['seed']}, {fabric.device}, precision {fabric._precision.precision}"
    )
    seen: dict[str, list[str]] = {"module": [], "gradient": []}
    num_parts = len(shares[0]["batches"])
    with watched(task, seen):
        for share in shares:
            for number, content in enumerate(share["batches"]):
                batch = fabric.to_device(batch_of(content))
                print(f"process {share['rank']}, part {number + 1} of {num_parts}: images {', '.join(batch.names)}")
                task.seed_step(share["step"], number, share["rank"])
                with fabric.autocast():
                    total, losses, num_bad = task.loss(batch, share["step"])
                print(f"  loss {total.item():g}, matching costs that are not finite: {num_bad}")
                for name, value in losses.items():
                    if not value.isfinite():
                        print(f"  {name}: {value.item():g}")
                (total / num_parts).backward()
    print_first("output of a module", seen["module"])
    print_first("gradient of a parameter", seen["gradient"])


def task_of(hyper_parameters: dict[str, Any], allow: Sequence[str] = ()) -> Any:
    """Build the task from a checkpoint's settings, with random weights. `allow` comes from the user, not the file."""
    settings = hyper_parameters["config"] | {"allow": [*allow]}
    check_settings(settings)
    cfg: Any = OmegaConf.create(settings)
    model = cfg.task.model
    model.weights, model.drop_class_head, model.backbone.pretrained = None, False, False
    model.compile, model.activation_checkpointing = False, False  # both may hide a module's output
    categories = [Category(**category) for category in hyper_parameters["categories"]]
    return instantiate(cfg.task, categories=categories, _convert_="all")


def batch_of(content: dict[str, Any]) -> Batch:
    """Restore a batch that `keep_bad_step` saved."""
    return Batch(**{**content, "truths": [Truth(**truth) for truth in content["truths"]]})


@contextmanager
def watched(task: nn.Module, seen: dict[str, list[str]]) -> Iterator[None]:
    """Collect modules and parameters whose output or gradient is not finite, in their order of execution."""

    def note(kind: str, name: str, value: Any) -> None:
        if isinstance(value, Tensor) and not value.isfinite().all() and name not in seen[kind]:
            seen[kind].append(name)

    def note_output(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        for value in output if isinstance(output, list | tuple) else [output]:
            note("module", name, value)

    handles = [
        module.register_forward_hook(partial(note_output, name)) for name, module in task.named_modules() if name
    ]
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            handles.append(parameter.register_hook(partial(note, "gradient", name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def print_first(what: str, names: list[str]) -> None:
    if names:
        print(f"first {what} that is not finite: {names[0]} ({len(names)} in all)")
    else:
        print(f"{what}: all finite")


if __name__ == "__main__":
    main()
