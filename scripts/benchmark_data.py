"""Time validation without decoding and jitter of a segment map against masks, or print the memory of data loading.

python -m scripts.benchmark_data validation                     images per minute and core, procedural scenes
python -m scripts.benchmark_data jitter --root data/coco        large-scale jitter of 40 instances, taking turns
python -m scripts.benchmark_data memory --root data/coco        memory of the loader's workers, epoch by epoch
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor
from torch.nn.functional import interpolate, pad

from src.config.build import data_of
from src.config.command_line import configure
from src.data.checks.validation import Validation
from src.data.export import export_coco
from src.data.formats.images import open_image
from src.data.scenes import Scenes
from src.data.shapes import Shapes
from src.data.targets import Sample, Truth, pack
from src.data.transforms import LargeScaleJitter, nearest, resize


def main() -> None:
    benchmarks = {"validation": validation, "jitter": jitter, "memory": memory}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(benchmarks))
    parser.add_argument("--root", default="data/coco", help="COCO, for jitter and memory (default: data/coco)")
    parser.add_argument("--num-images", type=int, default=10_000, help="procedural scenes (default: 10000)")
    parser.add_argument("--num-instances", type=int, default=40, help="instances in each jittered image (default: 40)")
    parser.add_argument("--rounds", type=int, default=100, help="number of jittered images (default: 100)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of loading (default: 20)")
    args = parser.parse_args()
    torch.set_num_threads(1)  # as in a worker
    benchmarks[args.what](args)


def data(layout: str, root: str | Path, *overrides: str) -> Any:
    return data_of(configure(["paths.run=.", f"data=coco_{layout}", f"data.root='{root}'", *overrides]))


def validation(args: argparse.Namespace) -> None:
    """Validate procedural scenes of 96x96 in one process, opening included."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"writing {args.num_images} scenes")
        export_coco(Shapes(args.num_images), Path(folder), "val")
        for layout in ("panoptic", "instances"):
            look = Validation("val", decode=False, samples=0, progress=False, seed=0)
            (survey,) = look(data(layout, folder, "data.num_workers=0"))
            objects = sum(row[size] for row in survey.counts for size in ("small", "medium", "large", "crowd"))
            print(
                f"{layout}: {survey.num_images} images, {objects} objects: {survey.rate:.0f} images per minute and core"
            )


def jitter(args: argparse.Namespace) -> None:
    """Compare LargeScaleJitter to 1024 with two ways to move a stack of masks; medians, taking turns on each image."""
    scenes, ours = data("instances", args.root).val_scenes, LargeScaleJitter(1024)
    ways: dict[str, Callable[[Sample, Tensor, int], Any]] = {
        "map of segments": lambda sample, _, seed: ours(sample, np.random.default_rng(seed)).truth,
        "stack, only what the crop keeps": lambda sample, masks, seed: stacked(sample.image, masks, seed, gathered),
        "stack, resized and cropped": lambda sample, masks, seed: stacked(sample.image, masks, seed, resized),
    }
    for overlap in (False, True):
        seconds: dict[str, list[float]] = {name: [] for name in (*ways, "decoding the JPEG")}
        layers = []
        for seed in track(range(args.rounds), "jitter"):
            sample, masks = crowded(scenes, seed, args.num_instances, overlap)
            layers.append(len(sample.truth.segments))
            moved = [timed(seconds[name], way, sample, masks, seed) for name, way in ways.items()]
            timed(seconds["decoding the JPEG"], open_image, scenes.image_folder / sample.name)
            assert torch.equal(moved[0].masks(), moved[1])  # the same work
        kind = "overlapping segments" if overlap else "segments"
        mean = f"{statistics.mean(layers):.1f} layers on average"
        print(f"{args.num_instances} {kind}, {mean}, {args.rounds} images, medians:")
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        decoded = medians.pop("decoding the JPEG")
        first = medians["map of segments"]
        for name, median in medians.items():
            loaded = (median + decoded) / (first + decoded)
            print(f"  {name}: {1e3 * median:.1f} ms, ratio {median / first:.2f}; with decoding the JPEG {loaded:.2f}")


def timed(seconds: list[float], call: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a call; append its duration to `seconds`."""
    started = time.perf_counter()
    result = call(*arguments)
    seconds.append(time.perf_counter() - started)
    return result


def crowded(scenes: Scenes, seed: int, number: int, overlap: bool) -> tuple[Sample, Tensor]:
    """Return a real image with real masks of random images, and these masks (N, h, w) bool."""
    rng = np.random.default_rng(seed)
    sample = scenes[seed % len(scenes)]
    size = cast(tuple[int, int], tuple(sample.image.shape[-2:]))
    masks: list[np.ndarray] = []
    while len(masks) < number:
        others = scenes[int(rng.integers(len(scenes)))].truth.masks().numpy()
        masks += [np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST)) for mask in others]
        masks = [mask for mask in masks if mask.any()]
    stack = np.stack(masks[:number])
    if not overlap:
        on_top = np.where(stack.any(0), stack.argmax(0), -1)
        stack = np.stack([on_top == n for n in range(number)])
    truth = Truth(
        torch.from_numpy(pack(stack)),
        torch.zeros(number, dtype=torch.int64),
        torch.zeros(number, dtype=torch.bool),
        torch.from_numpy(stack.sum((1, 2)).astype(np.float32)),
    )
    return sample._replace(truth=truth), torch.from_numpy(stack)


Move = Callable[[Tensor, tuple[int, int], tuple[int, int], tuple[int, int]], Tensor]


def stacked(image: Tensor, masks: Tensor, seed: int, move: Move, size: int = 1024) -> Tensor:
    """Jitter an image and its masks (N, h, w) bool as LargeScaleJitter does with this seed: (N', size, size) bool."""
    rng = np.random.default_rng(seed)
    if rng.random() < 0.5:
        image, masks = image.flip(-1), masks.flip(-1)
    h, w = image.shape[-2:]
    scale = rng.uniform(0.1, 2.0) * min(size / h, size / w)
    new = (max(round(h * scale), 1), max(round(w * scale), 1))
    window = (min(new[0], size), min(new[1], size))
    place = rng.random()
    top, left = (round((whole - kept) * place) for whole, kept in zip(new, window, strict=True))
    masks = move(masks, new, (top, left), window)
    masks = masks[masks.flatten(1).any(1)]
    box = (left * w / new[1], top * h / new[0], (left + window[1]) * w / new[1], (top + window[0]) * h / new[0])
    canvas = image.new_full((size, size, 3), 128).permute(2, 0, 1)
    canvas[:, : window[0], : window[1]] = resize(image, *window, box)
    return pad(masks, (0, size - window[1], 0, size - window[0]))


def gathered(masks: Tensor, new: tuple[int, int], start: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """Resize masks to `new`, computing only the window."""
    rows, columns = (nearest(old, *rest) for old, *rest in zip(masks.shape[-2:], new, start, window, strict=True))
    return torch.from_numpy(masks.numpy().take(columns, 2).take(rows, 1))


def resized(masks: Tensor, new: tuple[int, int], start: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """Resize masks to `new`, then crop."""
    whole = interpolate(masks[None].byte(), new, mode="nearest-exact")[0]
    return whole[:, start[0] : start[0] + window[0], start[1] : start[1] + window[1]].bool()


def memory(args: argparse.Namespace) -> None:
    """Print the resident memory of the training loader's workers after each epoch, in MiB."""
    source = data("panoptic", args.root, "data.num_workers=2")
    images, batch = len(source.train_scenes), 1
    source.trainer = SimpleNamespace(
        max_steps=images * args.epochs, accumulate_grad_batches=1, world_size=1, global_rank=0, global_step=0
    )
    batches = iter(source.train_dataloader())
    started, rows = time.perf_counter(), []
    for epoch in track(range(args.epochs), "epochs"):
        for _ in range(images // batch):
            next(batches)
        rows.append([resident(worker.pid) for worker in cast(Any, batches)._workers])
        print(f"epoch {epoch + 1}: " + ", ".join(f"{size:.0f}" for size in rows[-1]))
    seconds = time.perf_counter() - started
    print(f"{args.epochs} epochs of {images} images, 2 workers: {images * args.epochs / seconds:.1f} images per second")


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
