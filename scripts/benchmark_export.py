"""Time a model in torch and its exports in onnxruntime at every exit; or how exports keep to budgets in milliseconds.

python -m scripts.benchmark_export exports/float exports/int8 --ckpt FILE --size 192x256 --threads 1 [--compile]
python -m scripts.benchmark_export exports/float --photos photos/ --budgets 10 --threads 1

All take turns. Times are of one image, from preprocessed pixels to logits: medians, quartiles, and ratios to torch at
the deepest exit. Budgets lie between the times of the shallowest and the deepest exit in latency.json, which
`python -m src.measure export=FOLDER` writes; what is compared with a budget is the mean over photos.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scripts.tables import of_rows
from src.config.errors import MISTAKES, reason
from src.exporting.runtime import Router, files_of, read_photo, size_of
from src.predictor import Predictor
from src.records.csv_file import write_csv
from src.system.machine import machine_of
from src.system.stopwatch import Stopwatch, take_turns

Row = dict[str, Any]
CPU, WARM_UP, PART = torch.device("cpu"), 2, "network"


class Contestant(NamedTuple):
    """One exit, computed in one way."""

    way: str
    exit: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", nargs="+", type=Path, help="folders of src.export")
    parser.add_argument("--ckpt", help="the checkpoint that was exported, to time in torch")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too; its compilation takes minutes")
    parser.add_argument("--size", type=size_of, default=[512, 672], metavar="HxW", help="of a photo (default: 512x672)")
    parser.add_argument("--rounds", type=int, default=9, help="timings of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of onnxruntime (default: %(default)s)")
    parser.add_argument("--photos", help="image or folder, for --budgets")
    parser.add_argument("--images", type=int, default=100, help="how many of them at most (default: %(default)s)")
    parser.add_argument("--budgets", type=int, default=0, help="try so many budgets instead of timing exits")
    parser.add_argument("--csv", type=Path, help="keep the table in this file")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    try:
        if args.budgets and not args.photos:
            raise ValueError(f"--budgets {args.budgets}: expected --photos FOLDER, which are to keep to them")
        rows = list(budget_rows(args) if args.budgets else exit_rows(args))
        if args.csv:
            write_csv(rows, args.csv)
    except MISTAKES as error:
        sys.exit(f"error: {reason(error)}")
    print(of_rows(rows))
    print(f"\n{machine_of(CPU)}, torch {torch.__version__}")


def exit_rows(args: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for each exit and each way to compute it."""
    stopwatch = Stopwatch.of(CPU)
    calls = {
        name: partial(once, call, stopwatch)
        for part in (in_torch(args), *(in_onnxruntime(folder, args) for folder in args.exports))
        for name, call in part
    }
    seconds = take_turns(calls, stopwatch, args.rounds, WARM_UP, "timing")
    times = {name: [1000 * one for one in parts[PART]] for name, parts in seconds.items()}
    first = next(iter(calls)).way
    whole = max((name for name in calls if name.way == first), key=lambda name: name.exit)
    for (way, depth), taken in sorted(times.items(), key=lambda one: one[0].exit):
        low, middle, high = statistics.quantiles(taken, n=4, method="inclusive")
        ratio = statistics.median(a / b for a, b in zip(taken, times[whole], strict=True))
        yield {"exit": depth, "way": way, "ms": middle, "quartiles": f"{low:.4g} to {high:.4g}", "ratio": ratio}


@torch.no_grad()
def once(call: Callable[[], Any], stopwatch: Stopwatch) -> None:
    """Call; this is what is timed."""
    with stopwatch.part(PART):
        call()


def in_torch(args: argparse.Namespace) -> Iterator[tuple[Contestant, Callable[[], Any]]]:
    """Yield the calls of every exit in torch, eager and compiled."""
    if args.ckpt is None:
        return
    predictor = Predictor.load(args.ckpt, "trainer.accelerator=cpu")
    images, model = pixels(Router(args.exports[0]), args.size), predictor.task.model
    for depth in model.exits:
        call = partial(model, exits=[depth], last_only=True)
        yield Contestant("torch", depth), partial(call, images)
        if args.compile:
            yield Contestant("torch, compiled", depth), partial(torch.compile(call), images)


def in_onnxruntime(folder: Path, args: argparse.Namespace) -> Iterator[tuple[Contestant, Callable[[], Any]]]:
    """Yield the calls of every exit of an export."""
    router = Router(folder, threads=args.threads)
    images, graph = pixels(router, args.size).numpy(), router.fit(args.size)[2]
    for depth in router.manifest["exits"]:
        router.choose_by(exit=depth)
        way = f"onnxruntime, {router.manifest['precision']} ({folder.name})"
        yield Contestant(way, depth), partial(router.forward, images, graph, router.choose)


def pixels(router: Router, size: Sequence[int]) -> Tensor:
    """Return noise as an image that the network gets of a photo of a size, (1, 3, H, W)."""
    return torch.randn(1, 3, *router.fit(size)[1], generator=torch.Generator().manual_seed(0))


def budget_rows(args: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for each export and budget: the mean time of a photo, beside the budget."""
    files = list(islice(files_of(args.photos), args.images))
    for folder in args.exports:
        router = Router(folder, threads=args.threads)
        router.costs.look_up()
        costs = [router.costs.ms(router.fit(read_photo(file).shape[:2])[1]) for file in files]
        ends = router.manifest["exits"][0], router.manifest["exits"][-1]
        least, most = (statistics.mean(cost[depth] for cost in costs) for depth in ends)
        budgets = np.linspace(least, most, args.budgets + 2)[1:-1].tolist()
        choices = {}
        for budget in budgets:
            router.choose_by(budget_ms=budget)
            choices[budget] = router.choose
        answers: dict[float, list[Any]] = {budget: [] for budget in budgets}
        chance = np.random.default_rng(0)
        for file in [files[0], *files]:  # the first photo warms up
            for budget in chance.permutation(budgets).tolist():
                router.choose = choices[budget]
                answers[budget] += router.answers([read_photo(file)])
        for budget in budgets:
            kept = answers[budget][1:]
            mean = statistics.mean(answer.ms for answer in kept)
            depth = statistics.mean(answer.exit for answer in kept)
            yield {"export": folder.name, "budget_ms": budget, "ms": mean, "ratio": mean / budget, "mean exit": depth}


if __name__ == "__main__":
    main()
