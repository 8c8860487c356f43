"""Export a trained model to ONNX: python -m src.export ckpt_path=runs/.../best.ckpt out=FOLDER.

Settings are those of the training; command-line overrides take precedence.
"""

import sys
from importlib.util import find_spec
from typing import Any

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from src.config.build import build_task
from src.config.checkpoints import take_weights
from src.config.command_line import CONF, run
from src.config.errors import report_errors
from src.config.saved_settings import saved_overrides
from src.system.terminal import say

NEEDED = ("onnx", "onnxscript", "onnxruntime")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="export")
@report_errors
def export(cfg: DictConfig) -> None:
    """Write the folder, and print what is in it."""
    if cfg.get("model") is None:
        raise ValueError("model=null: a gate alone is no model; expected ckpt_path= its parent, and gate=FILE")
    if cfg.segmentation == "boxes":
        raise ValueError("segmentation=boxes: detectors are not exported; expected panoptic, instance or semantic")
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ValueError(f"{missing[0]} is not installed: pip install '.[export]'")
    exporter = instantiate(cfg.exporter, calibration=photos_of(cfg), _convert_="all")
    take_weights(cfg, "export")
    made = exporter(build_task(cfg), cfg.model.weights, say)
    print_table(made)


def photos_of(cfg: DictConfig) -> Any:
    """The images that int8 is calibrated on; None without any."""
    if cfg.calibration is None:
        return None
    sources = [cfg.calibration] if isinstance(cfg.calibration, str) else list(cfg.calibration)
    return instantiate(cfg.inputs, sources=sources, _convert_="all")


def print_table(made: Any) -> None:
    """Print the files with their sizes, and the differences from torch."""
    files = Table(title=f"{made.folder}, {made.seconds:.0f} s", title_justify="left")
    files.add_column("file", no_wrap=True)
    files.add_column("MB", justify="right")
    for name, size in made.files.items():
        files.add_row(name, f"{size / 1e6:.2f}")
    checks = Table(title="differences from torch in onnxruntime", title_justify="left")
    real = any(one.changed is not None for one in made.checks)  # on real images, which int8 is calibrated on
    for name in ("exit", "images", "class logits", "mask logits", *["means", "other class"] * real):
        checks.add_column(name, justify="right")
    for one in made.checks:
        height, width = one.size
        cells = [str(one.exit), f"{one.batch} x {height}x{width}", f"{one.class_logits:.1e}", f"{one.mask_logits:.1e}"]
        if real:
            cells += [f"{one.mean_class_logits:.1e} {one.mean_mask_logits:.1e}", f"{one.changed:.2%}"]
        checks.add_row(*cells)
    for table in (files, checks):
        Console().print(table)


if __name__ == "__main__":
    run(export, saved_overrides(sys.argv[1:]), "export")
