"""What a file of weights may be, and what is said of one that is none."""

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from src.models.backbone import Backbone
from src.weights.checkpoint import read, read_tensors
from src.weights.files import load


class Malice:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("how", ["torch", "torch before 1.6", "pickle", "pickle 0"])
def test_code_in_a_checkpoint_does_not_run(how: str, tmp_path: Path) -> None:
    """A file whose reading would run a command is refused by name, and the command is not run."""
    file, mark = tmp_path / "evil.ckpt", tmp_path / "mark"
    content = {"state_dict": Malice(mark)}
    if how.startswith("torch"):
        torch.save(content, file, _use_new_zipfile_serialization=how == "torch")
    else:
        file.write_bytes(pickle.dumps(content, protocol=2 if how == "pickle" else 0))
    readers = (lambda: load(file, "ckpt_path"), lambda: read(str(file)), lambda: Backbone("resnet10t", str(file)))
    for reader in readers:
        with pytest.raises(ValueError, match=r"evil\.ckpt: not a.*((posix|nt)\.system.*refused|text)"):
            reader()
    assert not mark.exists()


@pytest.mark.parametrize(
    "asked",
    [
        (os.system, ("true",)),
        (eval, ("1",)),
        (getattr, (1, "real")),
        (np.load, ("x",)),
        (pickle.loads, (b"N.",)),
        (np.core.multiarray.scalar, (np.dtype("f8"), b"")),
        (pickle.encode_long, (1,)),
    ],
    ids=lambda asked: asked[0].__name__,
)
def test_a_pickle_gets_arrays_and_plain_containers_only(asked: tuple, tmp_path: Path) -> None:
    """Any other name that a pickle asks for is refused, and is said."""

    class Asks:
        def __reduce__(self) -> tuple:
            return asked

    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps({"model": Asks()}, protocol=2))
    with pytest.raises(ValueError, match=rf"model\.pkl: .*would run or make .*\.{asked[0].__name__}, which is refused"):
        load(file, "weights")


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_arrays_in_a_pickle_are_read(protocol: int, module: str, tmp_path: Path) -> None:
    """A model zoo's file: arrays of any plain type in an ordered dictionary, by numpy 1 or 2."""
    arrays = OrderedDict(a=np.arange(6, dtype=">f8").reshape(2, 3), b=np.array(3, np.int64), c=np.zeros(0, np.float16))
    content = pickle.dumps({"model": arrays, "__author__": "somebody", "iteration": 7}, protocol)
    if protocol == 2:
        assert b"numpy._core" in content or b"numpy.core" in content
        content = content.replace(b"cnumpy._core.multiarray", f"c{module}.multiarray".encode())
    file = tmp_path / "model.pkl"
    file.write_bytes(content)
    read_back = read_tensors([file])
    assert {name: value.tolist() for name, value in read_back.items()} == {n: a.tolist() for n, a in arrays.items()}
    assert [value.dtype for value in read_back.values()] == [torch.float64, torch.int64, torch.float16]


LOOKS = {
    "": "is empty",
    "hello, this is text\n": "is text",
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 176399215\n": "Git LFS pointer.*git lfs pull",
    "<!DOCTYPE html>\n<html><head><title>Sign in</title>": "web page",
    "\n <html lang='en'>": "web page",
    '{"error": "not found"}': "JSON",
    "\x1f\x8b\x08": "compressed archive",
    "\x00\x01\x02": "not known",
}


@pytest.mark.parametrize("name", ["model.pth", "model.pkl", "model.safetensors"])
@pytest.mark.parametrize("content", LOOKS)
def test_what_is_no_checkpoint_is_said_to_look_like_something(content: str, name: str, tmp_path: Path) -> None:
    """An LFS pointer, a web page, text: refused in one line that says what the file looks like, whatever its ending."""
    file = tmp_path / name
    file.write_bytes(content.encode("latin1"))
    with pytest.raises(ValueError, match=f"weights={file}: not a.*{LOOKS[content]}") as refusal:
        read(str(file))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("how", ["torch", "torch before 1.6", "pickle", "safetensors"])
def test_a_file_cut_short_is_refused(how: str, share: float, tmp_path: Path) -> None:
    """However much is missing, the file is named, in one line, with no advice to read it unsafely."""
    file = tmp_path / ("model.safetensors" if how == "safetensors" else "model.pth")
    state = {f"weight{i}": torch.randn(40, 50) for i in range(9)}
    if how == "safetensors":
        save_file(state, file)
    elif how == "pickle":
        file.write_bytes(pickle.dumps({name: value.numpy() for name, value in state.items()}))
    else:
        torch.save({"state_dict": state}, file, _use_new_zipfile_serialization=how == "torch")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(ValueError, match=f"weights={file}: not a readable checkpoint .*cut short") as refusal:
        read(str(file))
    assert "\n" not in str(refusal.value)
    assert "weights_only" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list, expected tensors by name"),
        ({"weight": "text"}, "holds str under 'weight', expected tensors by name"),
        ({"model": {}}, "expected tensors by name"),
        ({3: torch.zeros(1)}, "under a int, expected tensors by name"),
        ({"weight": 3}, "holds int under 'weight'"),
    ],
)
def test_a_file_without_tensors_is_refused(content: object, message: str, tmp_path: Path) -> None:
    """What it holds in their place is said."""
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=message):
        read(str(tmp_path / "other.ckpt"))


def test_a_backbone_takes_its_own_weights_only(tmp_path: Path) -> None:
    """A file of the same timm model fills the backbone; one that lacks its weights is refused, not passed over."""
    body = Backbone("resnet10t").body
    save_file({key: value.contiguous() for key, value in body.state_dict().items()}, tmp_path / "own.safetensors")
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    filled = Backbone("resnet10t", str(tmp_path / "own.safetensors")).body.state_dict()
    assert all(torch.equal(filled[key], value) for key, value in body.state_dict().items())
    with pytest.raises(ValueError, match=r"lacks \d+ of the \d+ weights of 'resnet10t'"):
        Backbone("resnet10t", str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize("array", [np.zeros(2, np.longdouble), np.zeros(2, "U3"), np.zeros(2, [("a", "f4")])])
def test_arrays_that_are_no_tensors_are_refused(array: np.ndarray, tmp_path: Path) -> None:
    """Numbers that torch has not, text and records are refused with their type."""
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": {"weight": array}}, protocol=2))
    with pytest.raises(ValueError, match=r"model\.pkl: .*would run or make numpy\.dtype \w+, which is refused"):
        read(str(tmp_path / "model.pkl"))


def test_a_pickle_cannot_bend_memory(tmp_path: Path) -> None:
    """An array over another one's bytes, by which a file could forge pointers, cannot be asked for."""
    kind = b"cnumpy\ndtype\nX\x02\x00\x00\x00u8\x85R"
    (tmp_path / "bent.pkl").write_bytes(b"\x80\x02cnumpy\nndarray\nK\x04\x85" + kind + b"\x86R.")
    with pytest.raises(ValueError, match=r"bent\.pkl: not a readable checkpoint"):
        load(tmp_path / "bent.pkl", "weights")
