"""Scores of `src.evaluate` are those that other tools find in the files of `src.predict`."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from src.config.command_line import run
from src.config.saved_settings import saved_overrides
from src.data.export import save_colors
from src.data.formats.coco_masks import mask_to_rle
from src.data.shapes import Shapes
from src.evaluate import evaluate
from src.predict import gathered, predict
from tests.metrics.test_panoptic_quality import obvious_counts
from tests.test_predict import SETTINGS, load, save

pytestmark = pytest.mark.slow

SIDE = 160  # pixels, so that there are large objects
CATEGORIES = Shapes(1).categories


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, photos, and annotations that are its own answers, moved, thinned out, and partly crowds."""
    root = tmp_path_factory.mktemp("made")
    settings = [setting for setting in SETTINGS if not setting.startswith(("data.train", "data.val"))]  # of other data
    checkpoint = save(settings, root / "model", spread=3.0)  # several classes
    for folder in ("photos", "masks"):
        (root / folder).mkdir()
    images, segments, objects = [], [], []
    for number in range(1, 11):
        photo = Image.fromarray(Shapes(20, SIDE)[number].image.permute(1, 2, 0).numpy())
        photo.save(root / "photos" / f"{number}.png")
        answer, found, *_ = load(checkpoint)([photo])[0]
        ids = np.roll(answer.ids.numpy(), number % 4, 1)
        kept = [n for n in np.unique(ids).tolist() if n and (n + number) % 5]
        ids[~np.isin(ids, kept)] = 0
        save_colors(ids, root / "masks" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": SIDE, "width": SIDE})
        entries = []
        for n in kept:
            category, mask = CATEGORIES[(int(answer.labels[n - 1]) + (n % 4 == 0)) % 8], ids == n
            crowd = int((n + number) % 7 == 0 and category.isthing)
            entries.append({"id": n, "category_id": category.id, "iscrowd": crowd, "area": int(mask.sum())})
        for place in found.scores.argsort(descending=True)[::5].tolist():
            mask = np.roll(found.masks[place].numpy(), number % 4, 1)
            about = {"category_id": CATEGORIES[int(found.labels[place])].id, "iscrowd": int(place % 7 == 0)}
            own = {"id": len(objects), "image_id": number, "segmentation": mask_to_rle(mask), "area": int(mask.sum())}
            objects += [about | own] * bool(mask.any())  # ids from 0
        segments.append({"image_id": number, "file_name": f"{number}.png", "segments_info": entries})
    for name, annotations in (("panoptic", segments), ("instances", objects)):
        listed = [one._asdict() for one in CATEGORIES if one.isthing or name == "panoptic"]
        document = {"images": images, "annotations": annotations, "categories": listed}
        (root / f"{name}.json").write_text(json.dumps(document))
    return root


@pytest.fixture(scope="module")
def ours(made: Path) -> dict[str, float]:
    """What `src.evaluate` says of the deepest exit; `src.predict` leaves its files in `out`."""
    data = [
        *("data=coco_panoptic", f"data.root={made}", f"data.val.image_folder={made / 'photos'}"),
        *(f"data.val.annotation_file={made / 'panoptic.json'}", f"data.val.mask_folder={made / 'masks'}"),
        *("data.resize.short=96", "data.resize.long=96", f"task.instance_truth={made / 'instances.json'}"),
    ]
    quiet = ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false", f"ckpt_path={made / 'model/model.ckpt'}"]
    with pytest.MonkeyPatch.context() as patch:
        for name, job, own in (
            ("evaluate", evaluate, [*data, f"hydra.run.dir={made / 'scored'}", "data.num_workers=0"]),
            ("predict", predict, [f"photos=[{made / 'photos'}]", f"out={made / 'out'}", *data[-3:-1]]),
        ):
            patch.setattr(sys, "argv", [f"src.{name}"])
            words = [*own, *quiet]
            run(job, saved_overrides(gathered(words) if name == "predict" else words), name)
    exits = json.loads((made / "scored" / "scores.json").read_text())["exits"]
    return exits[max(exits)]


def test_panoptic_quality(made: Path, ours: dict[str, float]) -> None:
    """By loops as the benchmark describes them, over the PNGs."""
    counts = np.sum([obvious_counts(*maps(made, number), len(CATEGORIES)) for number in range(1, 11)], 0)
    matched, false_positives, missed, iou = counts.T
    seen = matched + false_positives + missed > 0
    quality = iou[seen] / (matched + false_positives / 2 + missed / 2)[seen]
    assert ours["pq"] == pytest.approx(100 * quality.mean(), abs=1e-4)
    assert 5 < ours["pq"] < 95


def maps(made: Path, number: int) -> tuple[Any, ...]:
    """Segments and class indices as predicted and as annotated, and which of these are crowds."""
    index_of = {category.id: index for index, category in enumerate(CATEGORIES)}
    found: list[Any] = []
    for file, folder in ((made / "out/panoptic.json", "out/panoptic"), (made / "panoptic.json", "masks")):
        entry = next(e for e in json.loads(file.read_text())["annotations"] if e["image_id"] == number)
        ids = np.asarray(Image.open(made / folder / entry["file_name"])).astype(int) @ (1, 256, 65536)
        infos = entry["segments_info"]
        places = {0: 0} | {info["id"]: place for place, info in enumerate(infos, 1)}
        labels = [index_of[info["category_id"]] for info in infos]
        found += [torch.from_numpy(np.vectorize(places.get)(ids)), torch.tensor(labels)]
    return (*found, torch.tensor([bool(info["iscrowd"]) for info in infos]))


def test_average_precision(made: Path, ours: dict[str, float]) -> None:
    """By pycocotools, of the results as they are, its sizes included; against ids from 0, which are numbered anew."""
    document = json.loads((made / "instances.json").read_text())
    for number, entry in enumerate(document["annotations"], 1):  # 0 cannot be matched
        entry |= {"id": number, "bbox": run_lengths.toBbox(entry["segmentation"]).tolist()}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = document
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(str(made / "out/instances.json")), "segm")
        evaluation.params.catIds = [category.id for category in CATEGORIES if category.isthing]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    for name, value in zip(names, evaluation.stats[:6], strict=True):
        assert ours.get(name, -100) == pytest.approx(100 * value, abs=1e-4)
    assert 2 < ours["ap"] < 98
    assert sum(name in ours for name in names) >= 5


def test_mean_iou(made: Path, ours: dict[str, float]) -> None:
    """Class by class over the pixels that are annotated."""
    ids = np.array([category.id for category in CATEGORIES])
    confusion = np.zeros((len(ids), len(ids)))
    for number in range(1, 11):
        _, _, segments, labels, _ = maps(made, number)
        truth = np.array([-1, *labels.tolist()])[segments.numpy()]
        found = np.searchsorted(ids, np.asarray(Image.open(made / "out/semantic" / f"{number}.png")))
        np.add.at(confusion, (truth[truth >= 0], found[truth >= 0]), 1)
    inter, union = confusion.diagonal(), confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    assert ours["miou"] == pytest.approx(100 * (inter[union > 0] / union[union > 0]).mean(), abs=1e-4)
    assert 2 < ours["miou"] < 98
