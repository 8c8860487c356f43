"""Folders of weights, and what else lies in them."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from src.weights.checkpoint import read
from src.weights.folders import locate
from src.weights.layouts import to_ours
from tests.weights.published import plain, same


def trained(folder: Path) -> None:
    """What transformers' Trainer and accelerate leave beside weights."""
    folder.mkdir(exist_ok=True)
    torch.save(argparse.Namespace(learning_rate=1e-4), folder / "training_args.bin")
    torch.save({"state": {0: {"exp_avg": torch.ones(2)}}}, folder / "optimizer.pt")
    torch.save({"state": {0: {"exp_avg": torch.ones(2)}}}, folder / "optimizer.bin")
    torch.save({"last_lr": [np.float64(3)]}, folder / "scheduler.pt")
    torch.save({"python": (3, (1, 2), None), "numpy": np.random.RandomState(0).get_state()}, folder / "rng_state.pth")
    torch.save({}, folder / "rng_state_0.pth")
    torch.save({}, folder / "random_states_0.pkl")
    (folder / "config.json").write_text("{}")
    (folder / ".hidden.safetensors").write_text("")


def write(folder: Path, names: list[str]) -> None:
    """Weights, in as many parts as there are names."""
    state = {name: value.contiguous() for name, value in plain("transformers").items()}
    for i, name in enumerate(names):
        part = {key: state[key] for key in sorted(state)[i :: len(names)]}
        if name.endswith(".safetensors"):
            save_file(part, folder / name)
        else:
            torch.save(part, folder / name)
    (folder / f"{names[0].split('-')[0]}.index.json").write_text(json.dumps({"weight_map": {}}))


@pytest.mark.parametrize(
    "names",
    [
        ["pytorch_model.bin"],
        ["model.safetensors"],
        ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
        ["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"],
        ["model.fp32.safetensors"],
        ["ours.safetensors"],
        ["model_final.pth"],
        ["last.ckpt"],
    ],
)
def test_a_trainers_folder_is_read(names: list[str], tmp_path: Path) -> None:
    """Its weights, in one file or in parts; never what it keeps to train on."""
    trained(tmp_path)
    write(tmp_path, names)
    assert [file.name for file in locate(str(tmp_path))] == names
    assert same(read(str(tmp_path)).state, to_ours(plain("transformers"), "transformers"))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "adapter_model.safetensors"], "model.safetensors"),
        (["model.safetensors", "model.fp16.safetensors", "model_ema.safetensors"], "model.safetensors"),
        (["pytorch_model.bin", "ours.safetensors", "other.bin"], "pytorch_model.bin"),
        (["ours.safetensors", "model_final.pth"], "ours.safetensors"),
        (["weights.bin", "model_final.pth"], "weights.bin"),
    ],
)
def test_of_several_the_usual_one_is_taken(names: list[str], chosen: str, tmp_path: Path) -> None:
    """As transformers calls it, then safetensors."""
    for name in names:
        (tmp_path / name).touch()
    assert [file.name for file in locate(str(tmp_path))] == [chosen]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.bin", "b.bin"], "holds a.bin, b.bin; give the file that is meant"),
        (["model_a.safetensors", "model_b.safetensors"], "holds model_a.safetensors, model_b.safetensors; give"),
        (["model_final.pth", "model_0004999.pth"], "holds model_0004999.pth, model_final.pth; give"),
        (["training_args.bin", "optimizer.pt"], "holds no weights .*, only optimizer.pt, training_args.bin"),
        ([], r"holds no weights \(\*\.safetensors.*\)$"),
        (["model-00001-of-00003.safetensors"], "model-00001-of-00003.safetensors and so on are 1 of 3 parts"),
    ],
)
def test_what_leaves_a_choice_or_none_is_said(names: list[str], message: str, tmp_path: Path) -> None:
    """The message names what lies there."""
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises((ValueError, FileNotFoundError), match=f"weights {tmp_path}: .*{message}"):
        locate(str(tmp_path))
