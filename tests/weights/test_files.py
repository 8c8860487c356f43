import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from src.models.backbone import Backbone
from src.models.checkpoints import load_weights
from src.tensor_files import load

MODEL = nn.Linear(2, 3)


class Malice:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_checkpoint_does_not_run(how: str, tmp_path: Path) -> None:
    """A file whose reading would run a command is refused by name, and the command is not run."""
    file, mark = tmp_path / "evil.ckpt", tmp_path / "mark"
    content = {"state_dict": Malice(mark)}
    if how == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))
    for read in (
        lambda: load(file, "ckpt_path"),
        lambda: load_weights(nn.Linear(2, 3), str(file)),
        lambda: Backbone("resnet10t", str(file)),
    ):
        with pytest.raises(ValueError, match=r"evil\.ckpt: .*(posix|nt)\.system.*refused"):
            read()
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.ckpt", b"hello", "torch did not save it"),
        ("empty.ckpt", b"", "torch did not save it"),
        ("cut.ckpt", None, "and whole"),
        ("noise.safetensors", bytes(range(256)) * 9, "and whole"),
    ],
)
def test_what_is_no_checkpoint_is_named(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    """Text, nothing, half a file and noise are refused by name, in one line, with no advice to read them unsafely."""
    file = tmp_path / name
    torch.save({"state_dict": {"weight": torch.zeros(99)}}, file)
    file.write_bytes(file.read_bytes()[:700] if content is None else content)
    with pytest.raises(ValueError, match=f"weights={file}: .*{message}") as refusal:
        load_weights(nn.Linear(2, 3), str(file))
    assert "\n" not in str(refusal.value)
    assert "weights_only" not in str(refusal.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(3, 2)}, r"1 of 2 keys disagree.*missing: bias \(3,\)"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(4)}, r"shape: bias is \(4,\), the model has \(3,\)"),
        ({**MODEL.state_dict(), "more": torch.zeros(1)}, r"left over: more \(1,\)"),
        ({f"more{i}": torch.zeros(1) for i in range(34)}, "and 16 more"),
        ([1, 2], "holds list, expected tensors by name"),
        ({"weight": "text"}, "expected tensors by name"),
    ],
)
def test_weights_of_another_model_are_refused(state: object, message: str, tmp_path: Path) -> None:
    """Whatever is missing, left over or of another shape stops the load before a single weight is changed."""
    model = nn.Linear(2, 3)
    before = model.weight.clone()
    torch.save(state, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=message):
        load_weights(model, str(tmp_path / "other.ckpt"))
    assert torch.equal(model.weight, before)


def test_a_backbone_takes_its_own_weights_only(tmp_path: Path) -> None:
    """A file of the same timm model fills the backbone; one that lacks its weights is refused, not passed over."""
    body = Backbone("resnet10t").body
    save_file({key: value.contiguous() for key, value in body.state_dict().items()}, tmp_path / "own.safetensors")
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    filled = Backbone("resnet10t", str(tmp_path / "own.safetensors")).body.state_dict()
    assert all(torch.equal(filled[key], value) for key, value in body.state_dict().items())
    with pytest.raises(ValueError, match=r"lacks \d+ of the \d+ weights of 'resnet10t'"):
        Backbone("resnet10t", str(tmp_path / "other.safetensors"))
