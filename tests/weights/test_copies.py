"""Weights in wrappers, and beside optimisers and averages: the tensors of the plain file, and what was left."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel

from scripts.convert_checkpoint import main
from src.weights import copies
from src.weights.checkpoint import read
from src.weights.layouts import State, to_ours
from tests.metrics.test_cost import make_model
from tests.weights import published
from tests.weights.published import plain, same


def before(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def other(state: State) -> State:
    """Another copy, as an average is."""
    return {name: (value.flatten()[0] + 0.5).expand(value.shape) for name, value in state.items()}


def optimizer() -> dict[str, Any]:
    return {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]}


@pytest.fixture(autouse=True)
def _said_anew() -> None:
    copies.say_once.cache_clear()


PREFIXES = (
    *("_orig_mod.", "module.", "model.", "net.", "network.", "model._orig_mod.", "module._orig_mod.", "ema_model."),
    *(
        "_orig_mod.module.",
        "_forward_module.model.",
        "model.model.",
        "lit.net.model.",
        "0.",
        "teacher.module.",
        "optimized_model.",
    ),
)


@pytest.mark.parametrize("layout", ["detectron2", "transformers", "ours"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_all_names_is_taken_off(
    prefix: str, layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever wrapper put it there, the tensors are those of the plain file; nothing was left to tell of."""
    torch.save(plain(layout), tmp_path / "plain.pth")
    torch.save(before(prefix, plain(layout)), tmp_path / "wrapped.pth")
    expected, wrapped = (read(str(tmp_path / name)) for name in ("plain.pth", "wrapped.pth"))
    assert wrapped.layout == expected.layout == layout
    assert same(wrapped.state, expected.state)
    assert len(wrapped.state) > 100
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("how", ["safetensors", "torch before 1.6", "arrays", "parts"])
def test_a_prefix_is_taken_off_in_every_format(how: str, tmp_path: Path) -> None:
    """Also of names that are spread over the files of a folder."""
    state = {name: value.contiguous() for name, value in before("module._orig_mod.", plain("transformers")).items()}
    source = tmp_path / "model.safetensors"
    if how == "safetensors":
        save_file(state, source)
    elif how == "parts":
        source, names = tmp_path, sorted(state)
        for i in (0, 1):
            save_file({name: state[name] for name in names[i::2]}, tmp_path / f"model-0000{i + 1}-of-00002.safetensors")
    else:
        content = {name: value.numpy() for name, value in state.items()} if how == "arrays" else state
        torch.save(content, source.with_suffix(".pth"), _use_new_zipfile_serialization=False)
        source = source.with_suffix(".pth")
    assert same(read(str(source)).state, to_ours(plain("transformers"), "transformers"))


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_wrappers_of_parts_are_taken_off(wrapper: str, tmp_path: Path) -> None:
    """A part that was compiled, sharded or computed twice has the wrapper's name in the middle of its own."""
    state = {}
    for name, value in plain("detectron2").items():
        first, rest = name.split(".", 1)
        state[f"model.{first}.{wrapper}.{rest}"] = value
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    assert same(read(str(tmp_path / "model.pth")).state, to_ours(plain("detectron2"), "detectron2"))


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [torch.compile, AveragedModel, torch.nn.DataParallel, lambda model: [model]])
def test_wrappers_of_torch_are_taken_off(wrap: Callable, tmp_path: Path) -> None:
    """As torch itself names them."""
    model = make_model([0, 0, 1], light=False, num_classes=3)
    wrapped = wrap(model)
    state = (torch.nn.ModuleList(wrapped) if isinstance(wrapped, list) else wrapped).state_dict()
    assert not state.keys() & model.state_dict().keys()
    torch.save(state, tmp_path / "model.pth")
    assert same(read(str(tmp_path / "model.pth")).state, model.state_dict())


# Contents of a file by what is taken of them, then how they are made of a model and its average, and what is left.
CONTENTS: dict[str, tuple[str, Callable[[State, State], Any], str]] = {
    "Lightning's": (
        "state_dict.model",
        lambda m, e: {"state_dict": before("model.", m), "optimizer_states": [optimizer()], "loops": {"fit": 1}},
        "optimizer_states",
    ),
    "detectron2's": (
        "model",
        lambda m, e: {
            "model": m,
            "optimizer": optimizer(),
            "scheduler": {"best": np.float64(3), "last_epoch": 3},
            "iteration": 3,
        },
        "optimizer",
    ),
    "nested": ("model.state_dict", lambda m, e: {"model": {"state_dict": m}, "epoch": 3}, ""),
    "nested deeper": ("a.b.c.net", lambda m, e: {"a": {"b": {"c": before("net.", m)}, "n": 3}}, ""),
    "in a list": ("models.0", lambda m, e: {"models": [m]}, ""),
    "timm's": (
        "state_dict",
        lambda m, e: {"args": argparse.Namespace(lr=1), "state_dict": m, "state_dict_ema": e, "optimizer": optimizer()},
        "state_dict_ema (another copy of the model), optimizer",
    ),
    "an average first": ("model", lambda m, e: {"model_ema": e, "model": m}, "model_ema (another copy of the model)"),
    "an average in a wrapper": (
        "model",
        lambda m, e: {"ema": {"module": before("module.", e), "updates": 3}, "model": m},
        "ema.module.module (another copy of the model)",
    ),
    "ema_state_dict": (
        "state_dict",
        lambda m, e: {"ema_state_dict": e, "state_dict": m},
        "ema_state_dict (another copy of the model)",
    ),
    "a teacher": ("student", lambda m, e: {"teacher": e, "student": m}, "teacher (another copy of the model)"),
    "both in one": (
        "state_dict.model",
        lambda m, e: {"state_dict": before("ema_model.", e) | before("model.", m)},
        "state_dict.ema_model (another copy of the model)",
    ),
    "both in one, other names": (
        "model",
        lambda m, e: before("model.", m) | before("model_ema.module.", e) | {"model_ema.decay": torch.tensor(0.9)},
        "model_ema.module (another copy of the model), model_ema",
    ),
    "no prefix before one": (
        "the names without a prefix",
        lambda m, e: m | before("ema_model.", e),
        "ema_model (another copy of the model)",
    ),
    "a prefix that goes on": (
        "model",
        lambda m, e: before("model.", m) | before("model.ema.", e),
        "model.ema (another copy of the model)",
    ),
    "torch's average": (
        "network",
        lambda m, e: before("module.", e) | {"n_averaged": torch.tensor(3)} | before("network.", m),
        "module (another copy of the model), n_averaged",
    ),
    "an average alone": ("ema", lambda m, e: {"ema": m, "epoch": 3}, ""),
    "Lightning's average": (
        "state_dict.model",
        lambda m, e: {"current_model_state": before("model.", e), "state_dict": before("model.", m)},
        "current_model_state.model (another copy of the model)",
    ),
    "a best one": (
        "model",
        lambda m, e: {"best_model": e, "model": m},
        "best_model (another copy of the model)",
    ),
    "losses beside": (
        "state_dict.model",
        lambda m, e: {"state_dict": before("model.", m) | {"criterion.empty_weight": torch.ones(3)}},
        "state_dict.criterion",
    ),
    "an optimiser by names": (
        "model",
        lambda m, e: {"optimizer": {"exp_avg": e}, "model": m},
        "optimizer",
    ),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_what_is_taken_and_left_is_said(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The plain model, wherever it lies; in one line, once, which that is, and what else has tensors."""
    taken, make, beside = CONTENTS[kind]
    model, file = plain("transformers"), tmp_path / "model.pth"
    torch.save(make(model, other(model)), file)
    for _ in range(2):
        assert same(read(str(file)).state, to_ours(model, "transformers"))
    average = beside.partition(" (another copy of the model)")[0]
    said = capsys.readouterr().err.splitlines()
    assert said[:1] == ([f"weights={file}: {taken} is taken; left out: {beside}"] if beside else [])
    if "another copy" in beside:
        assert said[1].endswith(f"scripts.convert_checkpoint {file} TARGET.safetensors --take {average}")
        assert same(read(str(file), average).state, to_ours(other(model), "transformers"))


def test_a_part_of_a_model_is_not_taken_for_it(tmp_path: Path) -> None:
    """A second head beside the model, whatever they are called."""
    part = {name: value for name, value in plain("detectron2").items() if name.startswith("sem_seg_head.predictor.")}
    torch.save(before("a.", part) | before("model.", plain("detectron2")), tmp_path / "model.pth")
    assert same(read(str(tmp_path / "model.pth")).state, to_ours(plain("detectron2"), "detectron2"))


@pytest.mark.slow
def test_another_copy_can_be_converted(tmp_path: Path) -> None:
    """By the name that was said."""
    shapes = published.mask2former_swin_tiny()
    model = {name: torch.tensor(float(i)).expand(shape) for i, (name, shape) in enumerate(shapes)}
    torch.save({"model": model, "ema": other(model)}, tmp_path / "model.pth")
    main([str(tmp_path / "model.pth"), str(tmp_path / "ema.safetensors"), "--take", "ema"])
    assert same(read(str(tmp_path / "ema.safetensors")).state, to_ours(other(model), "detectron2"))


def test_a_copy_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """With the names of those that are."""
    torch.save({"model": plain("ours"), "ema": other(plain("ours"))}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"model\.pth: holds no model called swa, expected one of: model, ema"):
        read(str(tmp_path / "model.pth"), "swa")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"model.sem_seg_head.odd": argparse.Namespace()},
            r"'sem_seg_head\.odd'.*argparse\.Namespace, which is refused",
        ),
        ({"model.sem_seg_head.odd": 3}, r"holds int under 'sem_seg_head\.odd', expected tensors by name"),
        ({"model.sem_seg_head.odd": {}}, r"holds dict under 'sem_seg_head\.odd', expected tensors by name"),
    ],
)
def test_what_is_no_tensor_within_the_model_is_refused(more: dict, message: str, tmp_path: Path) -> None:
    """A placeholder, too: a model that lacks a weight is none."""
    torch.save({"state_dict": before("model.", plain("detectron2")) | more}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=rf"model\.pth: .*{message}"):
        read(str(tmp_path / "model.pth"))


def test_a_file_that_contains_itself_is_read(tmp_path: Path) -> None:
    """And names that steer a terminal are not printed."""
    content: dict[str, Any] = {"model": plain("ours"), "\x1b[2J": torch.ones(1)}
    content["self"] = content
    torch.save(content, tmp_path / "model.pth")
    assert same(read(str(tmp_path / "model.pth")).state, plain("ours"))


def test_a_whole_module_is_refused_by_its_class(tmp_path: Path) -> None:
    """A model that was saved with its code."""
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "model.pth")
    with pytest.raises(
        ValueError, match=r"'model': reading it would run or make torch\.nn\.\S+Linear, which is refused"
    ):
        read(str(tmp_path / "model.pth"))
