"""Batches of images and maps that differ in size."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from src.data.targets import Batch


def like_sized(images: Sequence[Tensor], padded: Callable[[Sequence[int]], Sequence[int]]) -> list[list[int]]:
    """Group the indices of images by padded size, so that no image is padded further because of another one.

    Args:
        padded: from (height, width) of an image to that of its padded batch, as a model has it.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(tuple(padded(image.shape[-2:])), []).append(place)
    return list(groups.values())


def sizes_of(images: Sequence[Tensor]) -> list[Sequence[int]]:
    """Return (height, width) of each image."""
    return [image.shape[-2:] for image in images]


def mirror(batch: "Batch") -> "Batch":
    """Exchange left and right in all images and their truth."""
    truths = [truth.mirrored() for truth in batch.truths]
    return batch._replace(images=[image.flip(-1) for image in batch.images], truths=truths)
