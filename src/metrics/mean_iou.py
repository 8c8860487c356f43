"""Mean IoU of semantic maps.

Letters: N segments of one image, L layers of its map, K classes, H x W pixels.
"""

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

VOID = -1  # pixels of the truth that count for nothing; no class, however many there are


def semantic_map(segments: Tensor, labels: Tensor) -> Tensor:
    """The class at each pixel, (H, W) of the labels' type, -1 where no segment is.

    `segments` (L, H, W) holds n where the n-th segment is and 0 elsewhere, `labels` (N,) its class index. Where layers
    overlap the first one is kept. Crowd regions have a class like any other segment.
    """
    layers = torch.cat([labels.new_tensor([VOID]), labels])[segments.long()]  # (L, H, W)
    semantic = layers[0]
    for layer in layers[1:]:
        semantic = semantic.where(semantic != VOID, layer)
    return semantic


class MeanIoU(MulticlassJaccardIndex):
    """IoU of each class over the pixels of all images, then the mean over classes.

    Only classes that occur in the prediction or the truth, void pixels left aside, enter the mean (torchmetrics gives
    the others no weight); if none does it is nan.
    """

    names = ("miou",)

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, ignore_index=VOID, validate_args=False)  # its checks cost more than the metric

    def update(self, pred: Tensor, truth: Tensor) -> None:
        """Count one image: `pred` (H, W) class index, `truth` (H, W) class index or -1.

        Raises ValueError if `pred` has anything but a class at a pixel: here a prediction cannot abstain.
        """
        low, high = (int(bound) for bound in pred.aminmax())
        if low < 0 or high >= self.num_classes:
            raise ValueError(f"predicted classes must be 0..{self.num_classes - 1}, got {low}..{high}")
        super().update(pred, truth)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """The scalar miou, in 0..1."""
        return dict(zip(self.names, [super().compute()], strict=True))

    def by_class(self) -> dict[int, dict[str, float]]:
        """iou in 0..1 of each class in the mean; every process must call it."""
        with self.sync_context():
            confusion = self.confmat.double()
        inter = confusion.diag()
        union = confusion.sum(0) + confusion.sum(1) - inter
        return {index: {"iou": float(inter[index] / union[index])} for index in union.nonzero()[:, 0].tolist()}
