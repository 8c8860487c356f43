"""What an export's manifest says: everything that running the files needs, and where they come from."""

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from src.exporting.checking import Check
from src.exporting.gate_prices import gate_entry
from src.exporting.tracing import DIVISOR, OPSET
from src.metrics.cost import ImageCost
from src.weights.checkpoint import fingerprint, read

FORMAT = "ecoscale export"
VERSION = 1
MANIFEST = "manifest.json"
NOT_STATED = "not stated"


class Manifest:
    """The content of a manifest, without the list of files.

    Args:
        task: a prediction task, whose model is exported.
        form, precision, graphs, checks: what was made.
        source: of the weights.
        licence: of the weights; null: that of published weights, else "not stated".
        gate: the gate's checkpoint, `own`, or null without one.
        beta: of the gate, as asked for; null: as trained.
        image_size: (height, width) at which costs are counted, beside those of the graphs.
    """

    def __init__(
        self,
        task: Any,
        name: str,
        form: str,
        precision: str,
        graphs: list[dict[str, Any]],
        checks: Sequence[Check],
        source: str,
        licence: str | None,
        gate: str | None,
        beta: float | None,
        image_size: Sequence[int],
    ):
        self.task, self.name, self.form, self.precision, self.graphs = task, name, form, precision, graphs
        self.checks, self.source, self.licence, self.gate = checks, source, licence, gate
        self.beta = beta
        self.image_size = image_size

    def content(self) -> dict[str, Any]:
        """The entries of the manifest, in the order of reading."""
        model = self.task.model
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "form": self.form,
            "segmentation": self.task.segmentation,
            "precision": self.precision,
            "exits": list(model.exits),
            "default_exit": self.task.exit,
            "graphs": self.graphs,
            "classes": [category._asdict() | {"color": list(category.color)} for category in self.task.categories],
            "mean": model.mean.flatten().tolist(),
            "std": model.std.flatten().tolist(),
            "divisor": DIVISOR,
            "resize": {"short": self.task.resizes[0].short, "long": self.task.resizes[0].long},
            "postprocess": self.postprocess(),
            "gate": gate_entry(self.gate, model, self.beta) if self.task.gated else None,
            "costs": self.costs(),
            "checked": [{**one._asdict(), "size": list(one.size)} for one in self.checks],
            "weights": self.weights(),
            "versions": {
                "ecoscale": own_version(),
                "torch": torch.__version__,
                "onnx": version("onnx"),
                "onnxruntime": version("onnxruntime"),
                "opset": OPSET,
            },
        }

    def postprocess(self) -> dict[str, Any]:
        """Thresholds; published semantic models resize the sums of masks, not the masks."""
        made = self.task.evaluation.postprocess
        names = ("object_threshold", "overlap_threshold", "num_instances")
        return {name: getattr(made, name) for name in names} | {"resize_last": self.task.segmentation == "semantic"}

    def costs(self) -> list[dict[str, Any]]:
        """GMAC of each exit, at the sizes of the graphs, or at some where they take all."""
        cost_of = ImageCost(self.task.model, self.task.model.exits, self.task.segmentation)
        fixed = [tuple(graph["size"]) for graph in self.graphs if graph["size"] is not None]
        counted = []
        for size in fixed or self.usual_sizes():
            gflops = dict(zip(map(str, cost_of.exits), cost_of(size, size[0] * size[1]), strict=True))
            counted.append({"size": list(size), "gflops": gflops})
        return counted

    def usual_sizes(self) -> list[tuple[int, ...]]:
        """Padded sizes of photos in 1:1, 4:3 and 16:9, of a small image, and the settings' own, smallest first."""
        resize, padded = self.task.resizes[0], self.task.model.padded
        usual = [resize.resized(*one) for one in ((3000, 3000), (3000, 4000), (2250, 4000))]
        small = (resize.short // 2, resize.short // 2)
        sizes = {tuple(padded(size)) for size in (small, *usual, self.image_size)}
        return sorted(sizes, key=lambda size: (size[0] * size[1], size))

    def weights(self) -> dict[str, Any]:
        """Where the weights come from, as a file's or a model's name, and what may be done with them."""
        terms = read(self.source).terms()
        place = Path(self.source)
        return {
            "source": place.name if place.exists() else self.source,
            "licence": self.licence or terms or NOT_STATED,
            "fingerprint": fingerprint(self.task.model),
        }


def own_version() -> str:
    """The version of this project."""
    try:
        return version("ecoscale")
    except PackageNotFoundError:
        return "0"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an export. Raises FileNotFoundError or ValueError for a folder that holds none."""
    file = folder / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: no export, it has no {MANIFEST}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{file}: not the manifest of an export; expected format: {FORMAT}")
    if content.get("version") != VERSION:
        raise ValueError(f"{file}: version {content.get('version')}, expected {VERSION}")
    return content
