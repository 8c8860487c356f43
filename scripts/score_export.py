"""Score exports on the validation images of a data set, at every exit and with their gate, by the router they ship.

python -m scripts.score_export exports/float exports/int8 ckpt_path=runs/NAME/TIME/checkpoints/best.ckpt
python -m scripts.score_export exports/float data=coco_panoptic data.root=data/coco --images 500
python -m scripts.score_export exports/float exports/int8 ckpt_path=FILE --out runs/exports

Settings name the data, as for src.evaluate; a checkpoint brings those of its training. Prints a table, and writes
it to FILE with --csv FILE. GFLOPs are means over images, ms the time of the graphs for one image at a time. --out
FOLDER gets a run folder for each export, which src.report and src.plan read beside those of trainings, with the times
that python -m src.measure export=EXPORT keeps.
"""

import argparse
import shlex
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from scripts.tables import of_rows
from src.config.command_line import configure, quote_path
from src.config.errors import MISTAKES, reason
from src.config.saved_settings import with_saved
from src.data.scenes import Scenes
from src.exporting.runtime import Answer, Router, read_manifest
from src.models.postprocess import Instances, Panoptic, Postprocess
from src.records.csv_file import write_csv
from src.records.latency_table import LATENCY_FILE
from src.records.provenance import made_by
from src.records.run_folder import finish
from src.records.scores import SCORES_FILE, SHARE
from src.system.atomic import write_json, write_text
from src.tasks.evaluation import Evaluation, ImagePrediction


class Policy(NamedTuple):
    """A way to leave an export, and what it scored."""

    name: str  # exit2, gate
    scores: dict[str, float]  # in percent
    images: list[dict[str, Any]]  # of each: image_id, name, exit, gflops, ms

    def mean(self, name: str) -> float:
        return statistics.mean(image[name] for image in self.images)

    def row(self, folder: Path) -> dict[str, Any]:
        """Return a row of the table that is printed."""
        ms = statistics.median(image["ms"] for image in self.images)
        costs = {"GFLOPs": self.mean("gflops"), "ms": ms, "images": len(self.images)}
        return {"export": folder.name, "left at": self.name, **self.scores, **costs}

    def kept(self) -> dict[str, float]:
        """Return what scores.json has of it."""
        row = {**self.scores, "image_gflops": self.mean("gflops"), "total_gflops": self.mean("gflops")}
        if self.name != "gate":
            return row
        left = [image["exit"] for image in self.images]
        shares = {f"{SHARE}{depth}": left.count(depth) / len(left) for depth in sorted(set(left))}
        return {**row, "depth": statistics.mean(left), **shares}


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", nargs="+", metavar="FOLDER ... SETTING", help="exports, then settings of the data")
    parser.add_argument("--images", type=int, help="only so many images (default: all)")
    parser.add_argument("--threads", type=int, help="of the router (default: one for each CPU)")
    parser.add_argument("--csv", type=Path, help="keep the table in this file")
    parser.add_argument("--out", type=Path, help="keep a run folder for each export in this folder")
    args = parser.parse_args(arguments)
    folders = [Path(word) for word in args.exports if "=" not in word]
    settings = [word for word in args.exports if "=" in word]
    rows = []
    try:
        if args.out and len({folder.name for folder in folders}) < len(folders):
            raise ValueError(
                f"{', '.join(map(str, folders))}: --out has a folder by each name; expected different names"
            )
        cfg = settings_of(settings)
        scenes = instantiate(cfg.data, batch_size=1, _convert_="all").val_scenes
        for folder in folders:
            policies = list(scored(folder, scenes, args.images, args.threads))
            rows += [policy.row(folder) for policy in policies]
            if args.out:
                keep(policies, args.out / folder.name, folder, cfg, settings, args.images)
        if args.csv:
            write_csv(rows, args.csv)
    except MISTAKES as error:
        sys.exit(f"error: {reason(error)}")
    print(of_rows(rows))


def settings_of(words: Sequence[str]) -> DictConfig:
    """Return the settings of src.evaluate that these words give."""
    return configure([*map(quote_path, with_saved([*words, "paths.run=."]))], "evaluate")


def scored(folder: Path, scenes: Scenes, count: int | None, threads: int | None) -> Iterator[Policy]:
    """Yield the scores of each exit of an export, and of its gate. Raises ValueError for data of other classes."""
    router = Router(folder, threads=threads)
    names = [one["name"] for one in router.manifest["classes"]]
    if names != (expected := [category.name for category in scenes.categories]):
        raise ValueError(f"{folder}: has the classes {names}, and the data {expected}; expected the same")
    ways: dict[str, dict[str, Any]] = {f"exit{depth}": {"exit": depth} for depth in router.manifest["exits"]}
    ways |= {"gate": {}} if router.manifest["gate"] else {}
    for name, way in ways.items():
        yield Policy(name, *scores(router, way, scenes, count, f"{folder.name} {name}"))


def scores(
    router: Router, way: Mapping[str, Any], scenes: Scenes, count: int | None, title: str
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return the scores of one way to leave, in percent, and the exit and costs of each image."""
    isthing = [category.isthing for category in scenes.categories]
    evaluation = Evaluation(router.manifest["segmentation"], isthing, Postprocess(isthing))
    router.choose_by(**way)
    images, number = [], min(count or len(scenes), len(scenes))
    samples = islice((scenes[index] for index in range(len(scenes))), number)
    for sample in track(samples, title, number, console=Console(stderr=True), transient=True):
        (answer,) = router([sample.image.permute(1, 2, 0).numpy()])
        evaluation.update(as_tensors(answer), sample.truth, sample.image_id)
        about = {"image_id": sample.image_id, "name": sample.name}
        images.append(about | {name: getattr(answer, name) for name in ("exit", "gflops", "ms")})
    return evaluation.compute(), images


def keep(
    policies: Sequence[Policy], out: Path, export: Path, cfg: DictConfig, typed: Sequence[str], count: int | None
) -> None:
    """Write the run folder of a scored export: scores.json, its settings and, with a gate, exits.csv."""
    precision = read_manifest(export)["precision"]
    own = {"export": str(export), "precision": precision, "latency": str(export / LATENCY_FILE)}
    part = {} if count is None else {"trainer": {"limit_val_batches": count}}  # batches of one image
    settings = OmegaConf.merge(OmegaConf.to_container(cfg, resolve=False), own, part)
    write_text(OmegaConf.to_yaml(settings), out / ".hydra/config.yaml")
    write_text(OmegaConf.to_yaml(list(typed)), out / ".hydra/overrides.yaml")
    write_text(shlex.join(["scripts.score_export", str(export), *typed]), out / "begun")
    by_name = {policy.name: policy for policy in policies}
    gate = by_name.pop("gate", None)
    if gate is not None:
        write_csv(gate.images, out / "exits.csv")
    exits = {name.removeprefix("exit"): policy.kept() for name, policy in by_name.items()}
    content = {"exits": exits, **({} if gate is None else {"gate": gate.kept()})}
    write_json({**content, "made_by": made_by(torch.device("cpu"))}, out / SCORES_FILE)
    finish(out, "scored")


def as_tensors(answer: Answer) -> ImagePrediction:
    """Return an answer of the router as a prediction of ours."""
    tensor = torch.from_numpy
    panoptic, instances, semantic = answer.panoptic, answer.instances, answer.semantic
    return ImagePrediction(
        None if panoptic is None else Panoptic(*map(tensor, panoptic)),
        None if instances is None else Instances(*map(tensor, instances)),
        None if semantic is None else tensor(np.ascontiguousarray(semantic)),
    )


if __name__ == "__main__":
    main()
