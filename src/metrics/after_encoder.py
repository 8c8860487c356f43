"""What is counted after the encoder, for each kind of segmentation: decoder and post-processing, as published."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from src.metrics.operation_counts import GIGA, SAMPLING, added, trace


class AfterEncoder(NamedTuple):
    """GFLOPs of a decoder: `computed` in the total, the others beside it."""

    computed: float
    query_key_product: float = 0.0
    sampling: float = 0.0


def plain_decoder(decoder: Any, memory: Sequence[Any]) -> AfterEncoder:
    """Return what a decoder computes for its last prediction; call it while `counting`."""
    counts, _ = trace(decoder, *memory, last_only=True)
    return AfterEncoder(added(counts, ""), sampling=counts.get("", {}).get(SAMPLING, 0.0))


def masked_decoder(decoder: Any, memory: tuple[Tensor, list[Tensor]]) -> AfterEncoder:
    """Return what a published decoder with masked attention computes; call it while `counting`."""
    mask_features, levels = memory
    counts, predictions = trace(decoder, mask_features, levels)
    modules = ["norm", "mask_embed", *(f"layers.{i}" for i in range(len(decoder.layers)))]
    # every decoder layer predicts class logits here, but inference needs only those of the last
    class_logits = added(counts, "class_embed") / len(predictions)
    read = [levels[i % len(levels)] for i in range(len(decoder.layers))]
    # torch counts the query-key product, the published counter does not: it is reported separately
    product = decoder.num_queries * sum(level.numel() for level in read) / GIGA
    computed = sum(added(counts, name) for name in modules) + class_logits - product
    return AfterEncoder(computed + published_masks(decoder.num_queries, mask_features, read), product)


def published_masks(num_queries: int, mask_features: Tensor, read: Sequence[Tensor]) -> float:
    """Return GFLOPs of all masks, computed in full for every prediction and resized to the level that is read next.

    Published decoders work like this. Ours computes the same masks at the size of the level, and in full only those
    that it returns; like other short cuts, this does not change the cost.
    """
    num_predictions = len(read) + 1
    resized = sum(4 * level[0, 0].numel() for level in read)
    return num_queries * (num_predictions * mask_features.numel() + resized) / GIGA


def resizing(model: Any, padded: int, original: float) -> float:
    """Return GFLOPs of resizing all masks to the padded and then to the original image of so many pixels."""
    return 4 * model.decoder.num_queries * (padded + original) / GIGA


def panoptic(model: Any, padded: int, original: float) -> float:
    """As `resizing`, and the sum of the masks by class for the semantic map."""
    return resizing(model, padded, original) + model.decoder.num_queries * model.decoder.num_classes * original / GIGA


def semantic(model: Any, padded: int, original: float) -> float:
    """Return GFLOPs of summing masks by class in the padded image, and of resizing masks and sums."""
    num_queries, num_classes = model.decoder.num_queries, model.decoder.num_classes
    return (num_queries * (4 + num_classes) * padded + 4 * num_classes * original) / GIGA


class Kind(NamedTuple):
    """What is counted after the encoder for a kind of segmentation, as published models compute it."""

    decoder: Callable[[Any, Any], AfterEncoder]  # from the decoder and what it reads
    postprocessing: Callable[[Any, int, float], float]  # from the model and the pixels of padded and original image


KINDS = {
    "panoptic": Kind(masked_decoder, panoptic),
    "instance": Kind(masked_decoder, resizing),
    "semantic": Kind(masked_decoder, semantic),
    # post-processing of boxes sorts, and computes element by element
    "boxes": Kind(plain_decoder, lambda model, padded, original: 0.0),
}
