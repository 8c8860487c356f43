"""Exit tables made up for tests: the best exit follows from the gate's input."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from src.data.gate_data import GateData
from src.exit_table.table import LabelledBatch, TableInfo, read_table, write_shard
from src.models.gate import Gate
from src.tasks.gate_training import GateTraining

EXITS = [2, 3, 4, 5, 6]


def write_table(
    folder: Path,
    num_images: int = 2000,
    dim: int = 8,
    num_empty: int = 7,
    repeats: int = 1,
    inputs: Sequence[str] = ("mean32",),
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """A table in two shards: an image needs the more layers the larger its first input; some have no quality.

    With `repeats` each image comes several times in a row, as frames of a video do.
    """
    chance = torch.Generator().manual_seed(0)
    x = (torch.rand(num_images, dim, generator=chance) * 3 + 5).repeat_interleave(repeats, 0)
    need = (x[:, :1] - 5) / 3 * 5 + 1.5  # layers, 1.5 to 6.5
    depths = torch.tensor(EXITS)
    quality = (0.8 - 0.1 * (need - depths).clamp(min=0) + 0.005 * torch.rand(need.shape, generator=chance)).clamp(0, 1)
    quality[torch.randperm(len(x), generator=chance)[:num_empty]] = torch.nan
    return write(folder, quality, {name: x * (place + 1) for place, name in enumerate(inputs)}, settings)


def write_noisy_table(folder: Path, num_images: int = 2000, dim: int = 8) -> Path:
    """A table of which half of the images, by their first input, gain 0.02 at each layer, and the others nothing.

    The qualities of the others are noise, which grows with depth: their best exit is rarely the shallowest, and nothing
    tells which it is.
    """
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(num_images, dim, generator=chance)
    steps = torch.tensor(EXITS) - EXITS[0]
    noise = 0.03 * steps * torch.randn(num_images, len(EXITS), generator=chance)
    quality = (0.5 + torch.where(x[:, :1] > 0, 0.02 * steps, noise)).clamp(0, 1)
    return write(folder, quality, {"mean32": x})


def write(
    folder: Path, quality: torch.Tensor, inputs: dict[str, torch.Tensor], settings: Mapping[str, Any] | None = None
) -> Path:
    """Write a table in two shards; every exit costs 20 GFLOPs more than the one before."""
    num_images, depths = len(quality), torch.tensor(EXITS)
    half = -(-num_images // 2)
    widths = {name: values.shape[1] for name, values in inputs.items()}
    info = TableInfo("f" * 64, "made up", EXITS, "panoptic", widths, "train", num_images, half, dict(settings or {}))
    cost = 100 + 20.0 * depths.expand(num_images, -1)
    for number, start in enumerate(range(0, num_images, half)):
        part = slice(start, start + half)
        ids = range(num_images)[part]
        values = {name: values[part] for name, values in inputs.items()}
        batch = LabelledBatch(list(ids), [f"{i}.jpg" for i in ids], quality[part], cost[part], values)
        write_shard(folder, number, [batch], info)
    return folder


def write_second(folder: Path, table: Path, parent: str = "e" * 64, keep: slice = slice(None), **changes: Any) -> Path:
    """A second measurement of a table's images, noisier and in another order."""
    whole = read_table(table)
    order = torch.arange(len(whole)).flip(0)[keep]
    chance = torch.Generator().manual_seed(1)
    quality = (whole.quality + 0.02 * torch.randn(whole.quality.shape, generator=chance)).clamp(0, 1)[order]
    info = whole.info._replace(parent=parent, num_images=len(order), shard_size=len(order), **changes)
    rows = whole.rows(order)
    ids = rows.image_ids.tolist()
    write_shard(folder, 0, [LabelledBatch(ids, rows.names, quality, rows.cost, rows.inputs)], info)
    return folder


def write_gate(folder: Path, table: Path, target: str = "exit", beta: float = 0.02, **settings: Any) -> Path:
    """The run folder of a gate that knows how many layers an image of `write_table` needs; no training is run."""
    data = GateData(str(table), batch_size=64, **settings)
    make = partial(Gate, inputs=list(data.inputs))
    task = GateTraining(make, torch.optim.AdamW, data.for_task["table"], target, beta)  # type: ignore[arg-type]
    layers = 5 / 3 * task.std[0], (task.mean[0] - 5) / 3 * 5 + 2  # per standard deviation of the input, and on average
    depths = torch.tensor(data.exits, dtype=torch.float32)
    with torch.no_grad():  # scores are highest at the depth nearest to the need of an image, and half a layer
        task.gate.head.weight[:, 0] = 2 * depths * layers[0]
        task.gate.head.bias.copy_(2 * depths * layers[1] - depths**2)
    hyper_parameters = {**task.hparams, **data.for_checkpoint}
    content = {"state_dict": task.state_dict(), "hyper_parameters": hyper_parameters}
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(content, folder / "checkpoints/best.ckpt")
    return folder
