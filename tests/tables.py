"""Exit tables made up for tests: the best exit follows from the gate's input."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from src.exit_table.table import LabelledBatch, TableInfo, write_shard

EXITS = [2, 3, 4, 5, 6]


def write_table(
    folder: Path,
    num_images: int = 2000,
    dim: int = 8,
    num_empty: int = 7,
    inputs: Sequence[str] = ("mean32",),
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """A table in two shards: an image needs the more layers the larger its first input; some have no quality."""
    chance = torch.Generator().manual_seed(0)
    half = -(-num_images // 2)
    info = TableInfo(
        "f" * 64,
        "made up",
        EXITS,
        "panoptic",
        dict.fromkeys(inputs, dim),
        "train",
        num_images,
        half,
        dict(settings or {}),
    )
    x = torch.rand(num_images, dim, generator=chance) * 3 + 5
    need = (x[:, :1] - 5) / 3 * 5 + 1.5  # layers, 1.5 to 6.5
    depths = torch.tensor(EXITS)
    quality = (0.8 - 0.1 * (need - depths).clamp(min=0) + 0.005 * torch.rand(need.shape, generator=chance)).clamp(0, 1)
    quality[torch.randperm(num_images, generator=chance)[:num_empty]] = torch.nan
    cost = 100 + 20.0 * depths.expand(num_images, -1)
    for number, start in enumerate(range(0, num_images, half)):
        part = slice(start, start + half)
        ids = range(num_images)[part]
        values = {name: x[part] * (place + 1) for place, name in enumerate(inputs)}
        batch = LabelledBatch(list(ids), [f"{i}.jpg" for i in ids], quality[part], cost[part], values)
        write_shard(folder, number, [batch], info)
    return folder
