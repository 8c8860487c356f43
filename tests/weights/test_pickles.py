"""What a pickle may do: name anything, and run nothing."""

import argparse
import builtins
import io
import operator
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from src.weights.checkpoint import read_tensors
from src.weights.files import load, records
from src.weights.pickles import MAKERS, Storage, make, record_class, strided
from src.weights.torch_files import OLD_TORCH

FORMATS = ("pickle", "torch", "torch before 1.6")


def write(content: object, file: Path, how: str, protocol: int = 2) -> Path:
    """A file of one of the three formats, pickled by a protocol."""
    if how == "pickle":
        file.write_bytes(pickle.dumps(content, protocol))
    else:
        torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=how == "torch")
    return file


def pack(payload: bytes, file: Path, how: str) -> Path:
    """A file whose pickle was written by hand."""
    if how == "torch":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
    else:
        before, after = (OLD_TORCH[0] + pickle.dumps(1001, 2) + pickle.dumps({}, 2), pickle.dumps([], 2))
        file.write_bytes(before + payload + after if how == "torch before 1.6" else payload)
    return file


class Asks:
    """Is unpickled by a call."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.asked = function, arguments

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.asked


MALICE: dict[str, Callable[[str], object]] = {
    "os.system": lambda mark: Asks(os.system, f"touch {mark}"),
    "eval": lambda mark: Asks(builtins.eval, f"open({mark!r}, 'w')"),
    "exec": lambda mark: Asks(builtins.exec, f"open({mark!r}, 'w')"),
    "open": lambda mark: Asks(builtins.open, mark, "w"),
    "Popen": lambda mark: Asks(subprocess.Popen, ["touch", mark]),
    "methodcaller": lambda mark: Asks(operator.methodcaller("touch"), Path(mark)),
    "a pickle in a pickle": lambda mark: Asks(pickle.loads, pickle.dumps(Asks(os.mkdir, mark))),
    "numpy": lambda mark: Asks(np.save, mark, np.zeros(1)),
    "torch": lambda mark: Asks(torch.save, 1, mark),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("malice", MALICE)
def test_what_a_pickle_asks_for_is_not_run(malice: str, protocol: int, how: str, tmp_path: Path) -> None:
    """Beside weights it is passed over; among them it is refused by its name; in no case does it run."""
    evil = MALICE[malice](str(tmp_path / "mark"))
    weight = np.ones(2) if how == "pickle" else torch.ones(2)
    file = write({"model": {"weight": weight}, "scheduler": evil}, tmp_path / "beside.pth", how, protocol)
    assert read_tensors([file])["weight"].tolist() == [1, 1]
    for content in ({"model": {"weight": weight, "evil": evil}}, {"model": evil}, evil):
        file = write(content, tmp_path / "within.pth", how, protocol)
        with pytest.raises(ValueError, match=r"within\.pth: (.*would run or make|holds Placeholder)"):
            read_tensors([file])
        with pytest.raises(ValueError, match=r"refused|damaged"):
            load(file, "ckpt_path")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["beside.pth", "within.pth"]


def name(module: str, attribute: str) -> bytes:
    """The operation that names a global."""
    return f"c{module}\n{attribute}\n".encode()


def text(words: str) -> bytes:
    """The operation that holds text."""
    return b"X" + struct.pack("<I", len(words)) + words.encode()


REBUILD, SYSTEM = name("torch._utils", "_rebuild_tensor_v2"), name("posix", "system")
CHANGE = b"}" + text("__defaults__") + text("named") + b"sb"  # attributes for what was named before
SLOTS = b"N}" + text("__defaults__") + text("named") + b"s\x86b"
BY_HAND = {
    "attributes of a function": REBUILD + CHANGE,
    "slots of a function": REBUILD + SLOTS,
    "what a name stands for": REBUILD + SLOTS.replace(text("__defaults__"), text("_make")),
    "attributes of another function": name("_codecs", "encode") + CHANGE,
    "attributes of a dictionary's class": name("collections", "OrderedDict") + CHANGE,
    "attributes of a class of numpy": name("numpy", "dtype") + SLOTS,
    "attributes of a type of torch": name("torch", "float32") + SLOTS,
    "attributes of a placeholder": SYSTEM + CHANGE,
    "slots of a placeholder": SYSTEM + SLOTS,
    "items of a placeholder's class": SYSTEM + b"(K\x01K\x01u",
    "members of a placeholder's class": SYSTEM + b"(K\x01e",
    "an attribute by a dotted name": text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93",
    "an attribute of a record": text("src.weights.pickles") + text("MAKERS") + b"\x93" + CHANGE,
    "an attribute by getattr": name("builtins", "getattr") + REBUILD + text("_make") + b"\x86R",
    "a call of what getattr finds": b"".join(
        (name("builtins", "getattr"), name("builtins", "__import__"), text("os"), b"\x85R", text("mkdir"), b"\x86R")
    )
    + text("mark")
    + b"\x85R",
    "a function in place of a storage": REBUILD + b"(" + REBUILD + b"K\x00K\x01\x85K\x01\x85\x89NtR",
    "an extension": b"\x82\x01",
    "a storage in another place": b"".join(
        (REBUILD, b"((", text("storage"), name("torch", "FloatStorage"), text("../../x"), b"NK\x09tQ")
    )
    + b"K\x00K\x01\x85K\x01\x85\x89NtR",
}


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize("what", BY_HAND)
def test_a_pickle_changes_nothing(what: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it may call cannot be looked into, given attributes or filled; the file is refused, and all is as it was."""
    monkeypatch.chdir(tmp_path)
    rebuild = torch._utils._rebuild_tensor_v2
    before = (rebuild.__defaults__, dict(vars(rebuild)), dict(MAKERS))
    payload = b"\x80\x04}" + text("weight") + BY_HAND[what] + b"s."
    with pytest.raises(ValueError, match=r"evil\.pth: not a readable checkpoint"):
        read_tensors([pack(payload, tmp_path / "evil.pth", how)])
    assert (rebuild.__defaults__, dict(vars(rebuild)), dict(MAKERS)) == before
    assert record_class("posix.system").named == "posix.system"
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("change", [b"", CHANGE, b")R", b"(K\x01K\x01u", b"(K\x01e"])
def test_a_tensor_is_not_changed(change: bytes, tmp_path: Path) -> None:
    """It is given no attributes or items, nor called: such a file is refused."""
    storage = b"((" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x02tQ"
    tensor = REBUILD + storage + b"K\x00K\x02\x85K\x01\x85\x89NtR"
    file = pack(b"\x80\x04}" + text("weight") + tensor + change + b"s.", tmp_path / "model.pth", "torch")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/data/0", np.ones(2, np.float32).tobytes())
    if not change:
        assert read_tensors([file])["weight"].tolist() == [1, 1]
        return
    with pytest.raises(ValueError, match=r"model\.pth: not a readable checkpoint"):
        read_tensors([file])


def test_what_is_named_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that lies about does not run by being named."""
    (tmp_path / "lying.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for how in FORMATS:
        payload = b"\x80\x02}" + text("other") + name("lying", "thing") + b")R" + b"s."
        assert set(records(pack(payload, tmp_path / "file.pth", how), "weights")) == {"other"}
    assert not (tmp_path / "mark").exists()
    assert "lying" not in sys.modules


class Listing(list):
    """A list that its module alone can make."""


class Keeper:
    """Has members in slots, and is made with keywords."""

    __slots__ = ("kept",)

    def __new__(cls, *, kept: object) -> "Keeper":
        self = super().__new__(cls)
        self.kept = kept
        return self

    def __getnewargs_ex__(self) -> tuple[tuple, dict]:
        return (), {"kept": self.kept}


class Outer:
    """Has a class in it."""

    class Inner:
        """Is pickled by getattr where the protocol knows no dots."""


def beside() -> dict[str, Any]:
    """What lies beside weights in the checkpoints of others."""
    counts: Counter[str] = Counter(a=1)
    inner = Outer.Inner()
    inner.outer = [inner]  # type: ignore[attr-defined]
    return {
        "scheduler": {"best": np.float64(3.5), "counts": counts, "steps": defaultdict(list, a=[1])},
        "args": argparse.Namespace(lr=1e-4, path=Path("/nowhere"), betas=(0.9, 0.99)),
        "random": (np.random.RandomState(0).get_state(), np.random.default_rng(0), torch.get_rng_state()),
        "objects": [Listing([1, 2]), {1, 2}, frozenset({Path("a")}), Outer.Inner, inner, np.array([{}, None])],
        "dtype": [np.dtype("U3"), torch.float32, torch.Size([1]), torch.device("cpu"), np.datetime64("2024-01-01")],
        "module": nn.Linear(2, 2),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("how", FORMATS)
def test_anything_may_lie_beside_weights(how: str, protocol: int, tmp_path: Path) -> None:
    """Numpy's scalars, settings, random states, whole modules: passed over, and the weights are read."""
    more = beside() | ({"kept": Keeper(kept=[1])} if protocol > 2 else {})
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    weight = array if how == "pickle" else torch.from_numpy(array)
    file = write({**more, "model": OrderedDict(weight=weight)}, tmp_path / "model.pth", how, protocol)
    assert read_tensors([file])["weight"].tolist() == array.tolist()


def every_kind() -> dict[str, torch.Tensor]:
    """Tensors of every type and of odd shapes."""
    kinds = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
    state = {kind: torch.arange(6).to(getattr(torch, kind)).reshape(2, 3) for kind in kinds}
    state |= {"complex": torch.ones(2, dtype=torch.complex64), "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4)}
    whole = torch.arange(24.0).reshape(4, 6)
    state |= {"part": whole[1:3, ::2], "turned": whole.T, "last": whole[-1], "one for all": torch.ones(1).expand(5, 5)}
    return state | {"parameter": nn.Parameter(torch.ones(2)), "after": whole[:0]}


def new_kinds() -> dict[str, torch.Tensor]:
    """Types whose storages do not say them."""
    return {kind: torch.ones(3).to(getattr(torch, kind)) for kind in ("uint16", "uint64", "float8_e4m3fn")}


@pytest.mark.parametrize("how", FORMATS[1:])
def test_tensors_are_those_that_torch_reads(how: str, tmp_path: Path) -> None:
    """Every type and every way to lie in a storage, with equal shapes."""
    state = every_kind() | ({} if how == "torch before 1.6" else new_kinds())
    back = read_tensors([write(state, tmp_path / "model.pth", how)])
    assert back.keys() == state.keys()
    for key, value in torch.load(tmp_path / "model.pth").items():
        assert back[key].dtype == value.dtype, key
        assert back[key].shape == value.shape, key
        assert torch.equal(back[key].to(torch.complex128), value.detach().to(torch.complex128)), key
    assert back["part"].untyped_storage().data_ptr() == back["turned"].untyped_storage().data_ptr()


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "size"),
    [
        (0, (5,), (1,), 4),
        (4, (1,), (1,), 4),
        (0, (2, 2), (4, 1), 4),
        (-1, (1,), (1,), 4),
        (0, (2,), (-1,), 4),
        (0, (2,), (1, 1), 4),
        (0, (1,), (1,), -4),
        (0, (1,), (1,), 5),
        (0, (2**62, 4), (2**62, 1), 4),
        (0, (True,), (1,), 4),
        ("0", (1,), (1,), 4),
    ],
)
def test_a_tensor_lies_within_its_storage(offset: Any, shape: Any, strides: Any, size: Any, tmp_path: Path) -> None:
    """Whatever a file says of it: else it would show memory that is somebody else's."""
    file = tmp_path / "model.pth"
    torch.save(torch.ones(4), file)
    content = records(file, "weights")
    storage = content.arguments[0]._replace(size=size)
    with pytest.raises((ValueError, EOFError), match=r"storage|whole numbers|ends within"):
        strided(storage, offset, shape, strides)
    assert make(content).tolist() == [1, 1, 1, 1]


def test_a_storage_that_is_too_short_is_refused(tmp_path: Path) -> None:
    """An archive whose entry holds less than its pickle says."""
    whole = io.BytesIO()
    torch.save({"weight": torch.ones(100)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "model.pth", "w") as target:
        for entry in source.namelist():
            content = source.read(entry)
            target.writestr(entry, content[:-4] if entry.endswith("data/0") else content)
    with pytest.raises(ValueError, match=r"model\.pth: .*its 'weight': the file ends within its tensors; it is cut"):
        read_tensors([tmp_path / "model.pth"])


def test_a_storage_of_another_type_is_refused(tmp_path: Path) -> None:
    """A type that torch has not is no tensor."""
    storage = Storage(torch.float32, "0", 1, lambda key, size: torch.zeros(size, dtype=torch.uint8))
    assert strided(storage, 0, (1,), (1,)).tolist() == [0]
    rebuild, float32, module = map(record_class, ("torch._utils._rebuild_tensor_v3", "torch.float32", "torch.nn"))
    assert make(rebuild(storage, 0, (1,), (1,), False, {}, float32)).tolist() == [0]
    with pytest.raises(KeyError):
        make(rebuild(storage, 0, (1,), (1,), False, {}, module))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"archive/data.pkl": b"\x80\x02}.", "archive/constants.pkl": b""}, "a TorchScript program, which is refused"),
        ({"weights.npy": b""}, "a zip archive without torch's data.pkl"),
        ({"archive/data.pkl": b"\x80\x02}.", "archive/byteorder": b"middle"}, "order of bytes, which is refused"),
    ],
)
def test_other_archives_are_refused(entries: dict[str, bytes], message: str, tmp_path: Path) -> None:
    """Programs, zip archives of anything, and numbers of other machines."""
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
    with pytest.raises(ValueError, match=rf"model\.pth: not a readable checkpoint .*{message}"):
        read_tensors([tmp_path / "model.pth"])


def test_a_name_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    """Characters that steer a terminal are spelled out in the refusal."""
    payload = b"\x80\x04}" + text("weight") + text("os\x1b[2J") + text("system\n") + b"\x93s."
    with pytest.raises(ValueError, match="refused") as refusal:
        read_tensors([pack(payload, tmp_path / "model.pkl", "pickle")])
    assert str(refusal.value).isprintable()
