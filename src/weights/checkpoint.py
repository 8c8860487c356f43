"""Checkpoints from anywhere: read, told apart, and put into a model.

Every name is accounted for, on both sides, or the load is refused, naming the first that disagree.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from src.system.atomic import atomic_write
from src.weights.architecture import TERMS, Architecture, other, recognise
from src.weights.copies import choose, copies_in, tell
from src.weights.files import made, records, tensors
from src.weights.folders import locate
from src.weights.layouts import State, to_ours

SHOWN = 20  # names that a refusal lists
COUNTER = "num_batches_tracked"  # of batch norms, which no forward pass reads; a frozen one has none
NOTE = "ecoscale"  # under which our files say what model they are of


class Note(NamedTuple):
    """What our files say of themselves that names and shapes do not tell."""

    legacy_layout: bool  # of token re-calibration
    exits: list[int] | None  # that a gate is for
    terms: str | None  # that the weights stand under; None for one's own


class Checkpoint(NamedTuple):
    """Weights under our names, and where they come from."""

    source: str
    layout: str  # detectron2, transformers or ours
    state: State
    note: Note | None  # None of checkpoints of training, whose settings are kept with them

    def architecture(self) -> Architecture:
        """What model it is. Raises ValueError for what is no whole Mask2Former."""
        try:
            architecture = recognise(self.state, self.layout)
        except (ValueError, IndexError, TypeError) as error:
            raise ValueError(f"weights={self.source}: no whole Mask2Former, {error}") from error
        except KeyError as error:
            raise ValueError(f"weights={self.source}: no whole Mask2Former, it lacks {error.args[0]}") from error
        if self.note is None:
            return architecture
        return architecture._replace(legacy_layout=self.note.legacy_layout, exits=self.note.exits)

    @property
    def own(self) -> bool:
        """Whether it was trained here, and not converted."""
        return self.note is None and self.layout == "ours"

    def settings(self) -> dict[str, Any] | None:
        """What to set for this model; None where that is not for the weights to say, or no backbone of ours fits."""
        architecture = None if self.own else self.architecture()
        return architecture.settings() if architecture and architecture.known else None

    def terms(self) -> str | None:
        """What published weights of its kind stand under; None for one's own."""
        if self.note is not None:
            return self.note.terms
        return None if self.own else TERMS[self.architecture().method]


def read(source: str, take: str | None = None) -> Checkpoint:
    """A checkpoint of ours or a published one: a file, a folder or a hub name.

    Raises FileNotFoundError where there is nothing, ValueError for what is no Mask2Former or cannot be read.

    Args:
        take: which copy of the model, where a file has several; the plain one by default, which is said.
    """
    files = locate(source)
    name = f"weights={files[0]}"
    content = records(files[0], "weights") if len(files) == 1 else read_tensors(files)
    copies = copies_in(content)
    if not copies:
        raise ValueError(f"weights={source}: no Mask2Former, {other(tensors(content, name))}")
    taken = choose(copies, take, source)
    state = {key: made(value, name, key) for key, value in taken.values.items()}
    checkpoint = named_as_ours(source, state, taken.layout, files[0])
    tell(source, content, copies, taken)
    return checkpoint


def named_as_ours(source: str, state: State, layout: str, file: Path) -> Checkpoint:
    """A checkpoint of weights in some layout. Raises ValueError for two names of one weight, or for no whole model."""
    if layout == "ours":
        return Checkpoint(source, layout, state, read_note(file))
    try:
        checkpoint = Checkpoint(source, layout, to_ours(state, layout), None)
    except ValueError as error:
        raise ValueError(f"weights={source}: {error}") from error
    checkpoint.architecture()  # which says what is missing
    return checkpoint


def read_tensors(files: list[Path], setting: str = "weights") -> State:
    """All tensors of some files, named by a setting; no file may run code."""
    state: State = {}
    for file in files:
        more = tensors(records(file, setting), f"{setting}={file}")
        if twice := state.keys() & more.keys():
            others = ", ".join(other.name for other in files if other != file)
            raise ValueError(f"{setting}={file}: {min(twice)} is also in one of {others}; give the file that is meant")
        state |= more
    return state


def read_note(file: Path) -> Note | None:
    """What a file of ours says of itself, if it does. Raises ValueError for what no file of ours would say."""
    if file.suffix != ".safetensors":
        return None
    with safe_open(file, "pt") as content:
        said = (content.metadata() or {}).get(NOTE)
    if said is None:
        return None
    try:
        note = Note(**json.loads(said))
        exits = note.exits is None or (type(note.exits) is list and all(type(depth) is int for depth in note.exits))
        if type(note.legacy_layout) is not bool or not exits or type(note.terms) not in (str, type(None)):
            raise TypeError("values of other types")
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"weights={file}: its note {NOTE!r} is none of ours ({error})") from error
    return note


def write(checkpoint: Checkpoint, file: Path) -> None:
    """Write a checkpoint as safetensors of ours, which say what shapes do not tell, and the terms they stand under.

    The file is there whole or not at all; it may be the one that was read.
    """
    architecture = checkpoint.architecture()
    note = Note(architecture.legacy_layout, architecture.exits, checkpoint.terms())
    state = {name: value.detach().clone().contiguous() for name, value in checkpoint.state.items()}
    save(state, file, {NOTE: json.dumps(note._asdict()), "source": Path(checkpoint.source).name})


def save(state: State, file: Path, about: dict[str, str]) -> None:
    """Write safetensors, whole or not at all."""
    try:
        with atomic_write(file) as part:
            part.touch()
            mode = part.stat().st_mode  # that files have here; safetensors would keep others from reading
            save_file(state, part, {"format": "pt", **about})
            part.chmod(mode)
    except SafetensorError as error:
        raise OSError(f"{file}: cannot be written ({error})") from error


def load_weights(model: nn.Module, source: str, drop_class_head: bool = False) -> None:
    """Fill a model from a checkpoint; `drop_class_head` leaves what tells classes apart as the model has it.

    Raises as `read` and `fitting` do.
    """
    model.load_state_dict(fitting(model, read(source), drop_class_head), strict=False)


class OtherClassesError(ValueError):
    """Weights know another number of classes than the model; what to do depends on what they are for."""


def fitting(model: nn.Module, checkpoint: Checkpoint, drop_class_head: bool = False) -> State:
    """What a checkpoint has for a model, which may be on the meta device.

    Raises ValueError for names that are missing, left over, or of another shape; OtherClassesError is one.
    """
    source, head = checkpoint.source, "decoder.class_embed."

    def matters(name: str) -> bool:
        return not name.endswith(COUNTER) and not (drop_class_head and name.startswith(head))

    expected = {name: value for name, value in model.state_dict().items() if matters(name)}
    state = {name: value for name, value in checkpoint.state.items() if matters(name)}
    theirs, ours = (weights.get(head + "bias") for weights in (state, expected))
    if theirs is not None and ours is not None and theirs.shape != ours.shape:
        raise OtherClassesError(f"{source} knows {len(theirs) - 1} classes and the data have {len(ours) - 1}")
    check_state(state, expected, source)
    return state


def fingerprint(model: nn.Module) -> str:
    """A hash of a model's weights, its gate left out: the same for the same weights, wherever they come from."""
    digest = sha256()
    for name, value in sorted(model.state_dict().items()):
        if not name.startswith("gate.") and not name.endswith(COUNTER):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_state(state: State, expected: State, source: str) -> None:
    """Refuse weights of another architecture. Raises ValueError with the first names that disagree."""
    problems = [f"missing: {key} {tuple(expected[key].shape)}" for key in expected if key not in state]
    problems += [f"left over: {key} {tuple(state[key].shape)}" for key in state if key not in expected]
    problems += [
        f"shape: {key} is {tuple(state[key].shape)}, the model has {tuple(expected[key].shape)}"
        for key in expected.keys() & state.keys()
        if state[key].shape != expected[key].shape
    ]
    problems += [
        f"type: {key} holds {state[key].dtype}, the model {expected[key].dtype}"
        for key in expected.keys() & state.keys()
        if state[key].is_floating_point() != expected[key].is_floating_point()
    ]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ValueError(
            f"{source} is of another architecture than the model asked for ({len(problems)} of {len(expected)} keys "
            "disagree; compare backbone, schedule, dim, num_queries and the number of classes): "
            f"{'; '.join(sorted(problems)[:SHOWN])}{more}"
        )
