"""Run folders as training leaves them, made up."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

DATA = {
    "shapes": "    _target_: src.data.shapes.Shapes\n    num_scenes: 200\n    size: ${data.train.size}\n    seed: 1\n",
    "coco": "    _target_: src.data.coco.CocoPanoptic\n    annotation_file: ${data.root}/a/panoptic_val2017.json\n",
    "mine": "    _target_: src.data.coco.CocoPanoptic\n    annotation_file: mine/val.json\n",
}


def write_model(folder: Path, pq: float = 70.25, seed: int = 0, data: str = "shapes", **more: Any) -> Path:
    """A trained model with two exits; the second is `pq` + 1."""
    exits = {str(depth): {"pq": pq + depth - 1, "ap_large": float("nan"), "total_gflops": 0.5 * depth + 1e-9 / 3}
             for depth in (1, 2)}  # fmt: skip
    content = {"step": 7, "image_size": [96, 96], "exits": exits, **more}
    write_settings(folder, "model", seed, f"data:\n  train:\n    size: 96\n  val:\n{DATA[data]}")
    return write_json(folder / "scores.json", content)


def write_gate(folder: Path, quality: float = 0.7123456, seed: int = 0, beta: float = 0.01, **more: Any) -> Path:
    """A gate, trained from the table of a parent of the same seed."""
    outcomes = {
        who: {"quality": quality + better, "utility": quality, "depth": 1.5, "gflops": 0.75 + better}
        for who, better in {"gate": 0.0, "random": -0.01, "oracle": 0.1, "exit1": -0.05, "exit2": 0.05}.items()
    }
    content = {"beta": beta, "taken": {"1": 3, "2": 1}, "labels": {"1": 1, "2": 1}, "outcomes": outcomes, **more}
    write_settings(folder, "gates", seed, f"beta: {beta}\ndata:\n  table: /x/parent_seed{seed}/table\n")
    return write_json(folder / "gate.json", content)


def write_settings(folder: Path, name: str, seed: int, more: str) -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/config.yaml").write_text(f"name: {name}\nsegmentation: panoptic\nseed: {seed}\n{more}")
    (folder / ".hydra/overrides.yaml").write_text(f"- +experiment={name}\n- seed={seed}\n- exits=[1,2]\n")
    (folder / ".hydra/hydra.yaml").write_text("hydra:\n  job:\n    name: train\n")


def write_json(file: Path, content: Any) -> Path:
    file.write_text(json.dumps(content))
    return file.parent


def write_pictures(folder: Path, *names: str) -> None:
    (folder / "pictures").mkdir()
    for place, name in enumerate(names):
        Image.new("RGB", (1200, 300), "green").save(folder / f"pictures/{place:02d}_{name}.png")
