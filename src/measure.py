"""Time every exit of a model on this machine: python -m src.measure ckpt_path=runs/.../best.ckpt.

The times are kept beside the model, where budgets in milliseconds find them.
"""

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Column, Table

from src.config.build import build_task
from src.config.checkpoints import find_checkpoint
from src.config.command_line import CONF, run
from src.config.errors import report_errors
from src.config.saved_settings import saved_overrides
from src.predictor import Predictor
from src.records.latency_table import LATENCY_FILE, PRECISIONS, LatencyTable, Row, latency_file, read, table_of, update
from src.system.machine import machine_of
from src.system.stopwatch import Stopwatch, take_turns

WARM_UP = 3  # rounds that are not kept
PART = "network"  # the stopwatch's name for the whole of it


class Contestant(NamedTuple):
    """One exit of a model at one size."""

    schedule: tuple[int, ...] | None  # of another model than the one asked for
    size: tuple[int, int]
    exit: int
    gflops: float
    call: Callable[[], None]


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="measure")
@report_errors
def measure(cfg: DictConfig) -> None:
    """Time what is asked for, keep the times and print them."""
    if isinstance(cfg.sizes, str):
        raise ValueError(f"sizes={cfg.sizes}: expected a list of [height, width], or null")
    file, table = measured_export(cfg) if cfg.export is not None else measured_model(cfg)
    print_table(table)
    print(file)


def measured_export(cfg: DictConfig) -> tuple[Path, LatencyTable]:
    """Time an export in onnxruntime and keep the times in its folder; return their file and table."""
    if cfg.ckpt_path is not None or cfg.latency is not None:
        raise ValueError(f"export={cfg.export}: keeps its times in its folder; expected neither ckpt_path nor latency")
    sizes = None if cfg.sizes is None else [tuple(size) for size in cfg.sizes]
    table = instantiate(cfg.time_export)(cfg.export, sizes, cfg.rounds)
    file = Path(cfg.export, LATENCY_FILE)
    return file, update(file, table_of(table, f"export={cfg.export}"))


def measured_model(cfg: DictConfig) -> tuple[Path, LatencyTable]:
    """Time a checkpoint in torch and keep the times; return their file and table."""
    file = place_of(cfg)
    if file.exists():
        read(file)  # raises if it is none of ours, before minutes are spent
    others = [with_schedule(cfg, list(schedule)) for schedule in cfg.schedules or ()]  # before Hydra resolves it
    predictor = Predictor(cfg)
    stopwatch = Stopwatch.of(predictor.fabric.device)
    found = [
        one
        for schedule, task in tasks_of(others, predictor)
        for one in contestants_of(cfg, schedule, task, predictor, stopwatch)
    ]
    calls = {number: one.call for number, one in enumerate(found)}
    seconds = take_turns(calls, stopwatch, cfg.rounds, WARM_UP, "timing")
    timed = [(one.schedule, row_of(one, seconds[number][PART])) for number, one in enumerate(found)]
    table = LatencyTable(
        machine_of(predictor.fabric.device),
        f"torch {torch.__version__}",
        PRECISIONS[predictor.precision],
        date.today().isoformat(),
        [row for schedule, row in timed if schedule is None],
        {tuple(one.schedule): [row for schedule, row in timed if schedule == tuple(one.schedule)] for one in others},
    )
    return file, update(file, table)


def place_of(cfg: DictConfig) -> Path:
    """Return the file to write. Raises ValueError for weights without a run folder and without `latency`."""
    source = cfg.ckpt_path if cfg.ckpt_path is not None else cfg.model.weights
    if cfg.latency is not None:
        return Path(cfg.latency)
    if source is None:
        raise ValueError("nothing to measure: give ckpt_path=FILE (of ours), model.weights=SOURCE or export=FOLDER")
    file = latency_file(find_checkpoint(cfg) or source)
    if file is None:
        raise ValueError(f"model.weights={source}: has no run folder to keep times in; expected latency=FILE")
    return file


def with_schedule(cfg: DictConfig, schedule: list[int]) -> DictConfig:
    """Return the settings with another schedule, and without weights."""
    other: Any = OmegaConf.create(OmegaConf.to_container(cfg))
    other.schedule, other.model.weights, other.model.drop_class_head = schedule, None, False
    return other


def tasks_of(others: Sequence[DictConfig], predictor: Predictor) -> Iterator[tuple[tuple[int, ...] | None, Any]]:
    """Yield the task of the checkpoint, and one with random weights and its exits for each other schedule."""
    yield None, predictor.task
    for cfg in others:
        depth = sum(cfg.schedule)
        cfg.exits = sorted({*(exit_ for exit_ in predictor.task.model.exits if exit_ < depth), depth})
        task = build_task(cfg, categories=predictor.categories)
        yield tuple(cfg.schedule), task.eval().to(predictor.fabric.device)


def contestants_of(
    cfg: DictConfig, schedule: tuple[int, ...] | None, task: Any, predictor: Predictor, stopwatch: Stopwatch
) -> Iterator[Contestant]:
    """Yield every exit of a task at every size."""
    for height, width in cfg.sizes or [cfg.image_size]:
        pixels = torch.randint(256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        image = task.model.preprocess([pixels.to(predictor.fabric.device)])
        costs = instantiate(cfg.survey)(task.model, [((height, width), (height, width))])
        for depth, cost in costs.items():
            way = partial(task.model, image, exits=[depth], last_only=True)
            call = partial(time_once, way, predictor, stopwatch)
            yield Contestant(schedule, (height, width), depth, cost.total, call)


@torch.no_grad()
def time_once(way: Callable[[], Any], predictor: Predictor, stopwatch: Stopwatch) -> None:
    """Predict; this is what is timed."""
    with predictor.fabric.autocast(), stopwatch.part(PART):
        way()


def row_of(one: Contestant, seconds: Sequence[float]) -> Row:
    """Return median and quartiles in milliseconds."""
    times = [1000 * second for second in seconds]
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return Row(one.size, one.exit, one.gflops, middle, low, high, len(times))


def print_table(table: LatencyTable) -> None:
    """Print times with their ratio to the first exit of the same size."""
    shown = Table(
        *(Column(name, justify="right") for name in ("size", "exit", "GFLOPs", "ms", "quartiles", "of the first exit")),
        title=f"{table.machine}; {table.runtime}, {table.precision}; {table.measured}",
        title_justify="left",
    )
    firsts = {row.size: row for row in sorted(table.rows, reverse=True)}
    for schedule, rows in [((), table.rows), *table.schedules.items()]:
        if schedule:
            shown.add_section()
            shown.add_row(f"schedule {' '.join(map(str, schedule))}, random weights")
        for row in rows:
            first = firsts.get(row.size, row)
            spread, size = f"{row.low:.4g} to {row.high:.4g}", f"{row.size[0]}x{row.size[1]}"
            cells = (f"{row.gflops:.4g}", f"{row.ms:.4g}", spread, f"{row.ms / first.ms:.3f}")
            shown.add_row(size, str(row.exit), *cells)
    Console().print(shown)


if __name__ == "__main__":
    run(measure, saved_overrides(sys.argv[1:]), "measure")
