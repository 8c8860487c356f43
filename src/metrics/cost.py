"""The cost of a forward pass in GFLOPs, counted by torch without computing anything.

Convention of the papers (fvcore's counter on detectron2's models): one multiply-add counts 1 and is called a FLOP;
per element a layer or group norm counts 5, a batch norm 2, a bilinear resize 4; other element-wise operations, biases
and pooling count nothing. fvcore does not see deformable sampling and the query-key product of
masked attention: they are counted here too, but reported separately.

Detectors are counted alike. DETR's authors extended their counter to batched matrix products, so both products of plain
attention, of queries with keys and of weights with values, are part of the total, as they are in a hybrid encoder.
Deformable DETR's and DINO's authors, like Mask2Former's, leave out deformable sampling, and so does the total here.
"""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from src.metrics.after_encoder import KINDS
from src.metrics.operation_counts import SAMPLING, Counts, added, aten, counting, trace

Size = Sequence[int]


class Cost(NamedTuple):
    """GFLOPs (multiply-adds x 1e-9) of one image that leaves at one exit, by part."""

    backbone: float
    input_projections: float
    layers: tuple[float, ...]  # of the encoder
    recalibration: float
    stride4_path: float  # lateral convolution and pixel embedding; this and the next two are 0 for detectors
    mask_convolution: float
    upsampling: float  # of the stride 8 level; the published counter does not add it to the pixel decoder
    decoder: float
    gate: float
    postprocessing: float
    sampling: float  # of deformable attention; not in the total
    query_key_product: float  # of masked attention; not in the total, unlike that of plain attention

    @property
    def encoder_layers(self) -> float:
        """All encoder layers and token re-calibration."""
        return sum(self.layers) + self.recalibration

    @property
    def pixel_decoder(self) -> float:
        """The "encoder" of the papers: projections, encoder layers, stride 4 path and mask convolution."""
        return self.input_projections + self.encoder_layers + self.stride4_path + self.mask_convolution

    @property
    def total(self) -> float:
        """The total that the papers report."""
        outside = self.backbone + self.upsampling + self.decoder + self.gate + self.postprocessing
        return self.pixel_decoder + outside

    def parts(self) -> dict[str, float]:
        """Return all costs except those of single layers, the total first."""
        sums = {name: getattr(self, name) for name in ("total", "backbone", "pixel_decoder", "encoder_layers")}
        return sums | {name: value for name, value in self._asdict().items() if name != "layers"}


def survey(
    model: Any, views: Iterable[tuple[Size, Size]], exits: Sequence[int] | None = None, segmentation: str = "panoptic"
) -> dict[int, Cost]:
    """Return {depth: mean cost over images}; `views` holds each image's (height, width) as it enters and originally."""
    groups: dict[Size, list[int]] = {}  # padded size: pixels of the original images
    for size, original in views:
        groups.setdefault(model.padded(size), []).append(prod(original))
    console = Console(stderr=True)
    bar = track(groups.items(), "counting sizes", console=console, transient=True, disable=len(groups) < 5)
    counted = [(count(model, size, exits, sum(p) / len(p), segmentation), len(p)) for size, p in bar]
    return {depth: mean((costs[depth], number) for costs, number in counted) for depth in counted[0][0]}


class ImageCost:
    """GFLOPs of single images at each exit; the model is counted once per padded size."""

    def __init__(self, model: Any, exits: Sequence[int], segmentation: str) -> None:
        self.model, self.exits, self.segmentation = model, list(exits), segmentation
        self.counted: dict[Size, dict[int, Cost]] = {}  # by padded size

    def __call__(self, size: Size, pixels: float) -> list[float]:
        """Return the total at each exit for `size`, (height, width) as the image enters, and `pixels` originally."""
        return [cost.total for cost in self.parts(size, pixels).values()]

    def parts(self, size: Size, pixels: float) -> dict[int, Cost]:
        """Return {depth: cost} for `size`, (height, width) as the image enters, and `pixels` of the original."""
        padded = tuple(self.model.padded(size))
        if padded not in self.counted:
            self.counted[padded] = count(self.model, padded, self.exits, segmentation=self.segmentation)
        last = KINDS[self.segmentation].postprocessing(self.model, prod(padded), pixels)
        return {depth: cost._replace(postprocessing=last) for depth, cost in self.counted[padded].items()}


def mean(costs: Iterable[tuple[Cost, int]]) -> Cost:
    """Return the mean of (cost, number of images), weighted by the number."""
    costs, counts = zip(*costs, strict=True)
    whole = sum(counts)

    def average(values: Iterable[float]) -> float:
        return sum(value * count for value, count in zip(values, counts, strict=True)) / whole

    parts = {part: average(getattr(cost, part) for cost in costs) for part in Cost._fields if part != "layers"}
    return Cost(layers=tuple(map(average, zip(*(cost.layers for cost in costs), strict=True))), **parts)


def count(
    model: Any,
    size: Size,
    exits: Sequence[int] | None = None,
    pixels: float | None = None,
    segmentation: str = "panoptic",
) -> dict[int, Cost]:
    """Return {depth: cost of one image}.

    Args:
        model: on any device, the meta device included.
        size: (height, width) of the image as it enters; it is padded as the model pads it.
        exits: depths; null: the model's own.
        pixels: of the original image, to which masks are resized; null: those of the image as it enters.
        segmentation: one of `KINDS`, which decides what decoder and post-processing do.

    Raises ValueError if the model does not accept the size.
    """
    depths, padded = model.exits if exits is None else exits, model.padded(size)
    try:
        with counting(model):
            backbone, features = trace(model.backbone, torch.empty(1, 3, *padded, device="meta"))
            encoded = trace_exits(model.pixel_decoder, features, depths)
            memory = encoded[depths[0]][1]  # of the same shapes at every exit
            after = KINDS[segmentation].decoder(model.decoder, memory)
            gate = 0.0 if model.gate is None else gate_cost(model, features)
    except RuntimeError as error:
        if "DataLoader worker" in str(error):  # torch raises the death of a worker wherever its signal arrives
            raise
        reason = str(error).splitlines()[0]
        raise ValueError(f"an image of {'x'.join(map(str, size))}: the model does not take it ({reason})") from error

    last = KINDS[segmentation].postprocessing(model, prod(padded), pixels or prod(size))
    num_projections = len(model.pixel_decoder.input_proj)
    return {
        depth: Cost(
            backbone=added(backbone, ""),
            **pixel_decoder_parts(counts, depth, num_projections),
            decoder=after.computed,
            gate=gate,
            postprocessing=last,
            sampling=sampling_of(counts, depth) + after.sampling,
            query_key_product=after.query_key_product,
        )
        for depth, (counts, _) in encoded.items()
    }


def trace_exits(pixel_decoder: Any, features: Any, depths: Sequence[int]) -> dict[int, tuple[Counts, Any]]:
    """Return {depth: (counts, output)}. Exits with the same active levels share the trace of the deepest of them."""
    active = {depth: pixel_decoder.encoder.active_at(depth) for depth in depths}
    deepest = {number: depth for depth, number in sorted(active.items())}
    traces = {number: trace(pixel_decoder, features, [depth]) for number, depth in deepest.items()}
    return {depth: (traces[n][0], traces[n][1][deepest[n]]) for depth, n in active.items()}


def pixel_decoder_parts(counts: Counts, depth: int, num_projections: int) -> dict[str, Any]:
    """Return the parts of `Cost` that the pixel decoder computes up to an exit, without sampling."""
    # resizing inside token re-calibration is part of `recalibration` already
    resized_in_recalibration = counts.get("encoder.recalibrate", {}).get(aten.upsample_bilinear2d, 0.0)
    return {
        "input_projections": sum(added(counts, f"input_proj.{i}") for i in range(num_projections)),
        "layers": tuple(added(counts, f"encoder.layers.{i}") for i in range(depth)),
        "recalibration": added(counts, "encoder.recalibrate"),
        "stride4_path": added(counts, "lateral") + added(counts, "pixel_embedding"),
        "mask_convolution": added(counts, "mask_features"),
        "upsampling": counts[""].get(aten.upsample_bilinear2d, 0.0) - resized_in_recalibration,
    }


def sampling_of(counts: Counts, depth: int) -> float:
    """Return GFLOPs of deformable sampling in the encoder layers up to an exit."""
    return sum(counts[f"encoder.layers.{i}"].get(SAMPLING, 0.0) for i in range(depth))


class Projecting(nn.Module):
    """What a pixel decoder computes before its encoder."""

    def __init__(self, pixel_decoder: Any) -> None:
        super().__init__()
        self.pixel_decoder = pixel_decoder

    def forward(self, features: Any) -> tuple[Any, Any]:
        """Projected levels, and what passes the encoder by, from the features of the backbone."""
        return self.pixel_decoder.project(features), self.pixel_decoder.skip(features)


class Choosing(nn.Module):
    """The gate of a model with its inputs, from what is computed for every image anyway."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, projected: Any, skip: Any) -> Tensor:
        """Scores (B, E) from the results of `Projecting`; levels of an exit have the shapes of those projected."""
        see = self.model.pixel_decoder.see
        return self.model.gate(see(projected, projected.levels, projected.levels, skip, self.model.first_masks))


def gate_cost(model: Any, features: Any) -> float:
    """Return GFLOPs of the gate and of what its inputs need beyond the image's own way; call it while `counting`.

    Statistics and differences of levels count nothing, like other pooling and element-wise operations. The first masks
    count what it takes to fuse the stride 16 map, and the kernels of the initial queries.
    """
    _, seen = trace(Projecting(model.pixel_decoder), features)
    return added(trace(Choosing(model), *seen)[0], "")
