"""The gates that are judged: read, matched with an exit table, and kept from images that they were trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.exit_table.table import ExitTable
from src.metrics.exit_choice import best_exit
from src.metrics.judgement import Route
from src.tasks.gate_training import TARGETS
from src.tasks.gated_evaluation import SavedGate, beta_of, read_gate

CHECKPOINTS = ("checkpoints/best.ckpt", "best.ckpt")  # in a run folder


def takes_any_beta(target: str) -> bool:
    """Whether beta may be chosen when a gate of this `task.target` runs."""
    return bool(TARGETS[target].beta_when_run)


class Candidate(NamedTuple):
    """A gate to judge."""

    name: str
    file: Path
    saved: SavedGate

    @property
    def any_beta(self) -> bool:
        """Whether beta may be chosen when the gate runs."""
        return takes_any_beta(self.saved.about.target)

    def betas(self, wanted: Sequence[float], quality: str) -> list[float]:
        """Return the betas to judge the gate at: its own, or the wanted ones if it takes any.

        A gate that was trained on another `quality` keeps its own choices, which are judged at all the wanted betas.
        """
        free = self.any_beta or self.saved.about.quality != quality
        return list(wanted) if wanted and free else [self.saved.about.beta]


def read_candidates(places: Sequence[Path]) -> list[Candidate]:
    """Read gates of checkpoints or run folders. Raises FileNotFoundError or ValueError."""
    files = [checkpoint_of(place) for place in places]
    folders = [(file.parent.parent if file.parent.name == "checkpoints" else file.parent) for file in files]
    names = [
        folder.name if file.name == "best.ckpt" else file.stem for file, folder in zip(files, folders, strict=True)
    ]
    unique = [name if name and names.count(name) == 1 else str(file) for name, file in zip(names, files, strict=True)]
    return [Candidate(name, file, read_gate(str(file))) for name, file in zip(unique, files, strict=True)]


def checkpoint_of(place: Path) -> Path:
    """Return the checkpoint that a file or run folder stands for. Raises FileNotFoundError."""
    if not place.is_dir():
        return place
    for name in CHECKPOINTS:
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(f"gate={place}: no {' or '.join(CHECKPOINTS)} there, expected the run folder of a gate")


def check_match(gate: Candidate, table: ExitTable, folder: Path, betas: Sequence[float]) -> None:
    """Raise ValueError for a gate of another parent or kind, or one that needs what the table lacks.

    A gate of another quality needs `betas` in units of the table's.
    """
    about, info = gate.saved.about, table.info
    if about.parent != info.parent:
        raise ValueError(
            f"gate={gate.file}: it is of the parent {about.parent[:12]} ({about.source}), and {folder} of "
            f"{info.parent[:12]} ({info.source}); expected one parent"
        )
    if about.segmentation != info.segmentation:
        raise ValueError(
            f"gate={gate.file}: it was trained for segmentation={about.segmentation}, and {folder} is of "
            f"{info.segmentation}"
        )
    if about.quality != info.quality and not betas:
        raise ValueError(
            f"gate={gate.file}: it was trained on the {about.quality} of images, and {folder} has the {info.quality}; "
            f"expected --beta B, what a layer must bring in units of the {info.quality}"
        )
    if not set(about.exits) <= set(info.exits):
        raise ValueError(f"gate={gate.file}: it has the exits {about.exits}, and {folder} {info.exits}")
    if missing := [name for name in about.inputs if name not in info.inputs]:
        raise ValueError(
            f"gate={gate.file}: it sees {', '.join(missing)}, and {folder} has {', '.join(info.inputs)}; label with "
            f"task.inputs=[{','.join(about.inputs)}]"
        )
    width = sum(info.inputs[name] for name in about.inputs)
    expected = next(module.in_features for module in gate.saved.gate.modules() if isinstance(module, nn.Linear))
    if width != expected:
        raise ValueError(f"gate={gate.file}: it sees {expected} channels, and {folder} has {width}")


def unseen(gate: Candidate, table: ExitTable, folder: Path) -> tuple[Tensor, str | None]:
    """Return the rows (N,) bool that the gate was not trained on, and what there is to say about it.

    The table that the gate was trained from leaves its holdout.

    Raises ValueError if the gate was trained on some images of another table.
    """
    trained = gate.saved.table.get("train_ids")
    if trained is None:
        place = gate.saved.table.get("folder")
        if place is not None and Path(place).resolve() == folder.resolve():
            raise ValueError(
                f"gate={gate.file}: it was trained from {folder} and does not say on which images; expected another "
                "table, or a gate that this version trained"
            )
        said = "it does not say which images it was trained on: that these are others cannot be checked"
        return torch.ones(len(table), dtype=torch.bool), f"gate={gate.file}: {said}"
    same_split = gate.saved.table["images"]["split"] == table.info.split
    seen = torch.isin(table.image_ids, trained) & same_split
    if not seen.any():
        return ~seen, None
    if not torch.isin(trained, table.image_ids).all():
        first = int(seen.nonzero()[0, 0])
        raise ValueError(
            f"gate={gate.file}: it was trained on image {int(table.image_ids[first])} ({table.names[first]}) of "
            f"{folder}, one of {int(seen.sum())} such images; expected a table of images that it has not seen"
        )
    return ~seen, f"gate={gate.file}: it was trained on {int(seen.sum())} images of {folder}; only its holdout counts"


@torch.no_grad()
def route(gate: Candidate, table: ExitTable, beta: float) -> Route:
    """Return where the gate sends the images of a table, by the recorded inputs and a beta in units of its quality."""
    saved, about = gate.saved.gate, gate.saved.about
    scores = saved.score(torch.cat([table.inputs[name] for name in about.inputs], 1))
    columns = torch.tensor([table.info.exits.index(depth) for depth in about.exits])
    price = beta_of(gate.saved, str(gate.file), None if beta == about.beta else beta, None)
    choice = best_exit(scores, about.exits, price)
    return Route(columns[choice], scores.double(), columns.tolist())
