"""Exit tables made up for tests: the best exit follows from the gate's input."""

from collections.abc import Sequence
from pathlib import Path

import torch

from src.exit_table.table import LabelledBatch, TableInfo, write_shard

EXITS = [2, 3, 4, 5, 6]


def write_table(
    folder: Path, num_images: int = 2000, dim: int = 8, num_empty: int = 7, inputs: Sequence[str] = ("mean32",)
) -> Path:
    """A table in two shards: an image needs the more layers the larger its first input; some have no quality."""
    chance = torch.Generator().manual_seed(0)
    x = torch.rand(num_images, dim, generator=chance) * 3 + 5
    need = (x[:, :1] - 5) / 3 * 5 + 1.5  # layers, 1.5 to 6.5
    depths = torch.tensor(EXITS)
    quality = (0.8 - 0.1 * (need - depths).clamp(min=0) + 0.005 * torch.rand(need.shape, generator=chance)).clamp(0, 1)
    quality[torch.randperm(num_images, generator=chance)[:num_empty]] = torch.nan
    return write(folder, quality, {name: x * (place + 1) for place, name in enumerate(inputs)})


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


def write(folder: Path, quality: torch.Tensor, inputs: dict[str, torch.Tensor]) -> Path:
    """Write a table in two shards; every exit costs 20 GFLOPs more than the one before."""
    num_images, depths = len(quality), torch.tensor(EXITS)
    half = -(-num_images // 2)
    widths = {name: values.shape[1] for name, values in inputs.items()}
    info = TableInfo("f" * 64, "made up", EXITS, "panoptic", widths, "train", num_images, half, {})
    cost = 100 + 20.0 * depths.expand(num_images, -1)
    for number, start in enumerate(range(0, num_images, half)):
        part = slice(start, start + half)
        ids = range(num_images)[part]
        values = {name: values[part] for name, values in inputs.items()}
        batch = LabelledBatch(list(ids), [f"{i}.jpg" for i in ids], quality[part], cost[part], values)
        write_shard(folder, number, [batch], info)
    return folder
