"""Convert a checkpoint to our layout or to that of `transformers`; the source layout is recognised.

python -m scripts.convert_checkpoint model_final_94dc52.pkl weights/mask2former_r50.safetensors
python -m scripts.convert_checkpoint facebook/mask2former-swin-tiny-coco-panoptic weights/swin_tiny.safetensors
python -m scripts.convert_checkpoint weights/mask2former_r50.safetensors weights/for_transformers --to transformers
python -m scripts.convert_checkpoint facebook/detr-resnet-50 weights/detr_r50.safetensors

SOURCE is a file, a folder or a hub name, of Mask2Former (detectron2 or transformers), PRO-SCALE, ECO-M2F, DETR or
Deformable DETR (transformers), or ours.
If it has several copies of the model, for example an average, the plain one is used; --take NAME selects another.
The configuration of the model is written beside TARGET, as .yaml, an experiment for conf/experiment;
model.weights=TARGET only needs TARGET.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import torch
import yaml
from omegaconf import OmegaConf
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from src.config.build import sketch
from src.config.command_line import configure
from src.config.overrides import spell
from src.system.atomic import atomic_write, write_text
from src.weights.architecture import Architecture, is_choice
from src.weights.checkpoint import COUNTER, Checkpoint, check_state, read, save, write
from src.weights.detector_architecture import DetectorArchitecture
from src.weights.layouts import from_ours
from src.weights.transformers import complete, config
from src.weights.transformers_detectors import detector_config

HEADING = "# @package _global_"
PARTS = {  # prefixes of our names; the first match counts
    "backbone": "backbone.",
    "input projections": "pixel_decoder.input_proj.",
    "token re-calibration": "pixel_decoder.encoder.recalibrate.",
    "encoder layers": "pixel_decoder.encoder.",
    "gate": "gate.",
    "rest of the pixel decoder": "pixel_decoder.",
    "class head": "decoder.class_embed.",
    "class heads": "decoder.class_heads.",
    "box heads": "decoder.box_heads.",
    "transformer decoder": "decoder.",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a file, a folder or a hub name")
    parser.add_argument("target", type=Path, help="a .safetensors file; with --to transformers a folder")
    parser.add_argument("--to", choices=["ours", "transformers"], default="ours", help="layout (default: %(default)s)")
    parser.add_argument("--take", metavar="NAME", help="another copy of the model, by its listed name")
    args = parser.parse_args(arguments)
    try:
        if args.to == "ours" and args.target.suffix != ".safetensors":
            raise ValueError(f"target {args.target}: expected a name that ends in .safetensors")
        checkpoint = read(args.source, args.take)
        architecture = checkpoint.architecture()
        check_fit(checkpoint, architecture)
        report(checkpoint, architecture)
        made = to_ours if args.to == "ours" else to_transformers
        for file in made(checkpoint, architecture, args.target):
            print(file)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def check_fit(checkpoint: Checkpoint, architecture: Architecture | DetectorArchitecture) -> None:
    """Raise ValueError if names or shapes differ from those of the recognised model."""
    if not architecture.known:
        raise ValueError(f"{checkpoint.source}: its backbone is {architecture.backbone}, none of conf/model/backbone")
    settings = [f"{name}={spell(value)}" for name, value in architecture.settings().items()]
    expected = sketch(configure([*settings, "paths.run=."]), architecture.num_classes).model.state_dict()
    expected = {name: value for name, value in expected.items() if not name.endswith(COUNTER)}
    check_state(checkpoint.state, expected, checkpoint.source)


def report(checkpoint: Checkpoint, architecture: Architecture | DetectorArchitecture) -> None:
    """Print the recognised model, its sizes by part, and the terms of its weights."""
    print(f"{checkpoint.source}: {architecture} (layout: {checkpoint.layout})")
    part_of = {name: next(part for part, start in PARTS.items() if name.startswith(start)) for name in checkpoint.state}
    sizes: Counter[str] = Counter()
    for name, value in checkpoint.state.items():
        sizes[part_of[name]] += value.numel()
    tensors = Counter(part_of.values())
    table = Table(box=SIMPLE, caption="every name and every shape fits")
    table.add_column("part")
    for column in ("tensors", "parameters"):
        table.add_column(column, justify="right")
    for part in PARTS:
        if tensors[part]:
            table.add_row(part, str(tensors[part]), f"{sizes[part]:,}")
    table.add_row("in all", str(tensors.total()), f"{sizes.total():,}")
    Console().print(table)
    if terms := checkpoint.terms():
        print(f"terms, if these are published weights, also of what is made of them: {terms}")


def to_ours(checkpoint: Checkpoint, architecture: Architecture | DetectorArchitecture, target: Path) -> list[Path]:
    """Write a safetensors file and the configuration of the model beside it."""
    beside = target.with_suffix(".yaml")
    if beside.exists() and not (beside.is_file() and beside.read_text().startswith(HEADING)):
        raise ValueError(
            f"{beside}: is there already, and is no configuration of ours; move it, or choose another target"
        )
    try:
        with atomic_write(beside) as part:  # appears only when both are written
            part.write_text(experiment(checkpoint, architecture, target))
            write(checkpoint, target)
    except OSError as error:
        raise OSError(f"{target}: cannot be written ({error})") from error
    return [target, beside]


def experiment(checkpoint: Checkpoint, architecture: Architecture | DetectorArchitecture, target: Path) -> str:
    """Return the configuration of a model as an experiment."""
    settings = architecture.settings()
    choices = {name: value for name, value in settings.items() if is_choice(name)}
    values = {name: value for name, value in settings.items() if not is_choice(name)} | {"model.weights": str(target)}
    tree = OmegaConf.create()
    for name, value in values.items():
        OmegaConf.update(tree, name, value)
    lines = [
        HEADING,
        f"# {architecture}; from {Path(checkpoint.source).name}",
        f"# terms: {checkpoint.terms() or 'your own'}",
        "defaults:",
        *(f"  - override /{name}: {value}" for name, value in choices.items()),
    ]
    plain = OmegaConf.to_container(tree)
    return "\n".join(lines) + "\n" + yaml.safe_dump(plain, sort_keys=False, default_flow_style=None)


def to_transformers(
    checkpoint: Checkpoint, architecture: Architecture | DetectorArchitecture, target: Path
) -> list[Path]:
    """Write a folder for `from_pretrained` of transformers."""
    if architecture.in_transformers is None:
        raise ValueError(
            f"{checkpoint.source}: {architecture}; transformers has Mask2Former, DETR and Deformable DETR alone"
        )
    state = from_ours(checkpoint.state, architecture.in_transformers)
    if isinstance(architecture, DetectorArchitecture):
        about = detector_config(checkpoint.state, architecture)
    else:
        state, about = complete(state), config(checkpoint.state, architecture)
    target.mkdir(parents=True, exist_ok=True)
    save(state, target / "model.safetensors", {"terms": checkpoint.terms() or ""})
    write_text(json.dumps(about, indent=1) + "\n", target / "config.json")
    return [target / "model.safetensors", target / "config.json"]


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
