"""Checkpoints from anywhere: read, recognised, and loaded into a model.

Weights are loaded only if their names and shapes are those of the model; otherwise an error lists what differs.
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
from src.weights.architecture import Architecture, recognise
from src.weights.coco_classes import with_coco_classes
from src.weights.copies import choose, copies_in, report
from src.weights.detector_architecture import DetectorArchitecture, family_of, num_classes_of
from src.weights.files import made, records, tensors
from src.weights.folders import locate
from src.weights.layouts import to_ours
from src.weights.others import other
from src.weights.rows import State

SHOWN = 3  # names that an error lists
COUNTER = "num_batches_tracked"  # of batch norms; no forward pass reads it, and frozen ones have none
NOTE = "ecoscale"  # metadata of our safetensors files
CLASS_HEADS = ("decoder.class_embed.", "decoder.class_heads.", "decoder.denoising.label_embed.")  # one row per class


class Note(NamedTuple):
    """What our files record because names and shapes do not tell it."""

    legacy_layout: bool  # see `TokenRecalibration`
    exits: list[int] | None  # of the gate
    terms: str | None  # licence of published weights; None for one's own


class Checkpoint(NamedTuple):
    """Weights under our names, and their origin."""

    source: str
    layout: str  # one of `LAYOUTS`, or ours
    state: State
    note: Note | None  # None for published files and for checkpoints of training, which hold their settings

    def architecture(self) -> Architecture | DetectorArchitecture:
        """The architecture of the model. Raises ValueError if the weights are no complete model of ours."""
        family = family_of(self.state) or "Mask2Former"
        try:
            architecture = recognise(self.state, self.layout)
        except (ValueError, IndexError, TypeError) as error:
            raise ValueError(f"weights={self.source}: no whole {family}, {error}") from error
        except KeyError as error:
            raise ValueError(f"weights={self.source}: no whole {family}, it lacks {error.args[0]}") from error
        if self.note is None:
            return architecture
        if isinstance(architecture, Architecture):
            architecture = architecture._replace(legacy_layout=self.note.legacy_layout)
        return architecture._replace(exits=self.note.exits)

    @property
    def own(self) -> bool:
        """Whether it was trained here rather than converted."""
        return self.note is None and self.layout == "ours"

    def settings(self) -> dict[str, Any] | None:
        """Overrides that configure this model; None for one trained here, and for a backbone that we do not have."""
        architecture = None if self.own else self.architecture()
        return architecture.settings() if architecture and architecture.known else None

    def terms(self) -> str | None:
        """The licence of published weights; None for one's own."""
        if self.note is not None:
            return self.note.terms
        return None if self.own else self.architecture().terms


def read(source: str, take: str | None = None) -> Checkpoint:
    """A checkpoint, ours or published, from a file, a folder or a hub name.

    Raises FileNotFoundError if there is none, ValueError if it cannot be read or is no complete model of ours.

    Args:
        take: name of one of several copies of the model; by default, one that is not averaged.
    """
    files = locate(source)
    name = f"weights={files[0]}"
    content = records(files[0], "weights") if len(files) == 1 else read_tensors(files)
    copies = copies_in(content)
    if not copies:
        raise ValueError(f"weights={source}: no Mask2Former or detector that is known, {other(tensors(content, name))}")
    taken = choose(copies, take, source)
    state = {key: made(value, name, key) for key, value in taken.values.items()}
    if taken.layout == "ours":
        checkpoint = Checkpoint(source, taken.layout, state, read_note(files[0]))
    else:
        try:
            checkpoint = Checkpoint(source, taken.layout, to_ours(state, taken.layout), None)
        except ValueError as error:
            raise ValueError(f"weights={source}: {error}") from error
        checkpoint.architecture()  # raises if a part of the model is missing
    report(source, content, copies, taken)
    return checkpoint


def read_tensors(files: list[Path], setting: str = "weights") -> State:
    """The tensors of several files, by name. Raises ValueError for files that cannot be read and for repeated names.

    Args:
        setting: that gave the files, for the message.
    """
    state: State = {}
    for file in files:
        more = tensors(records(file, setting), f"{setting}={file}")
        if twice := state.keys() & more.keys():
            others = ", ".join(other.name for other in files if other != file)
            raise ValueError(f"{setting}={file}: {min(twice)} is also in one of {others}; give the file that is meant")
        state |= more
    return state


def read_note(file: Path) -> Note | None:
    """The note in the metadata of a safetensors file, if there is one. Raises ValueError if it is not valid."""
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
    """Write safetensors with metadata; the file is complete or does not appear. Raises OSError."""
    try:
        with atomic_write(file) as part:
            part.touch()
            mode = part.stat().st_mode  # the usual one; that of safetensors lets only the owner read
            save_file(state, part, {"format": "pt", **about})
            part.chmod(mode)
    except SafetensorError as error:
        raise OSError(f"{file}: cannot be written ({error})") from error


def load_weights(model: nn.Module, source: str, drop_class_head: bool = False) -> None:
    """Load a checkpoint into a model, except for its class head if `drop_class_head`. Raises as `read`, `fitting`."""
    model.load_state_dict(fitting(model, read(source), drop_class_head), strict=False)


class OtherClassesError(ValueError):
    """The weights and the model differ in their number of classes; callers add what to do about it."""


def fitting(model: nn.Module, checkpoint: Checkpoint, drop_class_head: bool = False) -> State:
    """The weights of a checkpoint to load into a model, which may be on the meta device.

    Raises OtherClassesError for another number of classes, ValueError for a model of another family, and for any other
    difference in names or shapes.
    """
    source = checkpoint.source

    def matters(name: str) -> bool:
        return not name.endswith(COUNTER) and not (drop_class_head and name.startswith(CLASS_HEADS))

    expected = {name: value for name, value in model.state_dict().items() if matters(name)}
    check_family(checkpoint.state, model.state_dict(), source)
    state = {name: value for name, value in checkpoint.state.items() if matters(name)}
    if not drop_class_head:
        state = with_coco_classes(state, num_classes_of(expected), source)
        theirs, ours = num_classes_of(state), num_classes_of(expected)
        if theirs != ours and theirs is not None and ours is not None:
            raise OtherClassesError(f"{source} knows {theirs} classes and the data have {ours}")
    check_state(state, expected, source)
    return state


def check_family(state: State, expected: State, source: str) -> None:
    """Raise ValueError for weights of another family than the model's, such as masks' for a detector."""
    theirs, ours = family_of(state), family_of(expected)
    if theirs != ours and theirs is not None and ours is not None:
        predicted = ["masks" if family == "Mask2Former" else "boxes" for family in (theirs, ours)]
        raise ValueError(
            f"{source} is a {theirs}, which predicts {predicted[0]}, and the model asked for is a {ours}, which "
            f"predicts {predicted[1]}; expected weights of a {ours}, or another choice of model"
        )


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of a model's weights without its gate: equal weights have equal fingerprints, whatever file had them."""
    digest = sha256()
    for name, value in sorted(model.state_dict().items()):
        if not name.startswith("gate.") and not name.endswith(COUNTER):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_state(state: State, expected: State, source: str) -> None:
    """Raise ValueError if weights differ from those expected in names, shapes or types; it lists the first `SHOWN`."""
    problems = [f"missing: {key} {tuple(expected[key].shape)}" for key in expected if key not in state]
    problems += [f"left over: {key} {tuple(state[key].shape)}" for key in state if key not in expected]
    for key in expected.keys() & state.keys():
        theirs, ours = state[key], expected[key]
        if theirs.shape != ours.shape:
            problems.append(f"shape: {key} is {tuple(theirs.shape)}, the model has {tuple(ours.shape)}")
        if theirs.is_floating_point() != ours.is_floating_point():
            problems.append(f"type: {key} holds {theirs.dtype}, the model {ours.dtype}")
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ValueError(
            f"{source} is of another architecture than the model asked for ({len(problems)} of {len(expected)} keys "
            "disagree; compare backbone, schedule, dim, num_queries and the number of classes; weights trained here "
            "need the settings of that training): "
            f"{'; '.join(sorted(problems)[:SHOWN])}{more}"
        )
