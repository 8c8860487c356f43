import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from src.metrics.average_precision import MaskAP
from src.metrics.mean_iou import MeanIoU
from src.metrics.panoptic_quality import PanopticQuality

pytestmark = pytest.mark.slow

IMAGES = range(5)  # an odd number, so that the two processes have unequal shares


def scored(images):
    """The three metrics over `images`, each a random image and prediction drawn from its number."""
    quality, precision, miou = PanopticQuality(3, [True, True, False]), MaskAP([0, 1]), MeanIoU(3)
    for image in images:
        draw = torch.Generator().manual_seed(image)
        truth = torch.randint(0, 5, (4, 6), generator=draw).repeat_interleave(8, 0).repeat_interleave(8, 1)
        pred = truth.roll(1, 1)
        labels = torch.randint(0, 3, (4,), generator=draw)
        crowd = torch.tensor([False, False, False, True])
        masks, truth_masks = (torch.stack([ids == n for n in range(1, 5)]) for ids in (pred, truth))
        areas = truth_masks.sum((1, 2)).float()
        quality.update(pred, labels, truth, labels, crowd)
        precision.update(image, torch.rand(4, generator=draw), labels, masks, truth_masks, labels, crowd, areas)
        miou.update(torch.randint(0, 3, (4, 6), generator=draw), torch.randint(0, 3, (4, 6), generator=draw))
    results = quality.compute() | precision.compute() | miou.compute()
    by_class = {
        f"{name} of {index}": torch.tensor(value)
        for metric in (quality, precision, miou)
        for index, values in metric.by_class().items()
        for name, value in values.items()
    }
    return results | by_class | {"own": torch.tensor(float(len(precision.scored)))}


def work(rank, store, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.save(scored(IMAGES[rank::2]), f"{results}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    """Every metric, computed by two processes on unequal halves of the images, is what one process gets on all."""
    mp.spawn(work, (tmp_path / "store", tmp_path), nprocs=2)
    expected = scored(IMAGES)
    assert expected.pop("own") == 5
    assert all(0 < expected[name] < 1 for name in ("pq", "ap", "miou"))
    for rank, own in enumerate((3, 2)):
        result = torch.load(tmp_path / f"{rank}.pt")
        assert result.pop("own") == own
        torch.testing.assert_close(result, expected, equal_nan=True)
