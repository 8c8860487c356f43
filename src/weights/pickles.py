"""What comes out of a pickle: plain containers, records of arrays and tensors, and placeholders of everything else.

Nothing that a pickle names is imported or called. What it may call makes records, which it cannot look into; tensors
are made of the records later, of those alone that are weights.
"""

import pickle
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
STORAGES = {  # torch's name of what holds numbers, and the type of these
    **{"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16"},
    **{"Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"},
    **{"ComplexDouble": "complex128", "ComplexFloat": "complex64"},
}


class RefusedError(pickle.UnpicklingError):
    """A pickle asks for something other than arrays, tensors and plain containers."""


class Placeholder:
    """Stands for what a pickle names; takes whatever is done to it, and does nothing."""

    __slots__ = ()
    named = ""  # the global name

    def __new__(cls, *_: object, **__: object) -> "Placeholder":
        """One that takes any arguments, as `__init__` does."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object):
        """Keep nothing."""

    def __call__(self, *_: object, **__: object) -> "Placeholder":
        """Call nothing."""
        return self

    def __setstate__(self, state: object) -> None:
        """Keep nothing."""

    def __setitem__(self, key: object, value: object) -> None:
        """Keep nothing."""

    append = extend = add = __setstate__


class Attributes(Placeholder):
    """Stands for getattr, by which old protocols name a class in a class."""

    __slots__ = ()

    def __new__(cls, *_: object, **__: object) -> Any:
        """A class that stands for the attribute."""
        return placeholder(f"what {cls.named} finds")


@lru_cache(1000)
def placeholder(named: str) -> type[Placeholder]:
    """What stands for a global name, also where a pickle expects a class."""
    base = Attributes if named in ("builtins.getattr", "__builtin__.getattr") else Placeholder
    return type("Placeholder", (base,), {"__slots__": (), "named": named})


def named_by(value: object) -> str | None:
    """The global name that a placeholder stands for; None of anything else."""
    kind = value if isinstance(value, type) else type(value)
    return kind.named if issubclass(kind, Placeholder) else None


def refuse(named: str) -> Any:
    """Raise RefusedError naming what a file asks for."""
    raise RefusedError(named)


class Admitted:
    """What a pickle may call, and neither look into nor change."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]):
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        """What is made of the arguments."""
        return self._make(*arguments)

    def __setstate__(self, state: object) -> None:
        """Raise RefusedError: to give a function attributes is to change it."""
        raise RefusedError("a change to a function")


class PlainDict(dict):
    """A dictionary that a pickle can fill, and not give attributes."""

    def __setstate__(self, state: object) -> None:
        """torch keeps versions there, which nobody needs."""


class PlainType:
    """What a pickle calls a type of numbers, instead of numpy's own, which it could bend."""

    __slots__ = ("name", "state")

    def __init__(self, name: object, *_: object):
        self.name = name
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        """The order of bytes comes second."""
        self.state = state

    def dtype(self) -> np.dtype:
        """Numpy's own. Raises RefusedError for what torch has no numbers of."""
        if not isinstance(self.name, str) or not re.fullmatch(r"[<>|=]?([fiu][1248]|b1)", self.name):
            raise RefusedError(f"numpy.dtype {self.name}")
        dtype = np.dtype(self.name)
        return dtype if self.state is None else dtype.newbyteorder(self.state[1])


class PlainArray:
    """What a pickle calls an array: made of bytes of its own, and neither indexed nor called."""

    __slots__ = ("parts",)

    def __init__(self, *_: object):
        """An array that is empty yet (`_reconstruct`)."""
        self.parts: Any = None

    def __setstate__(self, state: object) -> None:
        """Version, shape, type, whether columns come first, and bytes."""
        self.parts = state

    def tensor(self) -> Tensor:
        """Its numbers in this machine's order of bytes. Raises RefusedError for other things than numbers."""
        _, shape, kind, columns_first, content = self.parts
        content = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(content, bytes | bytearray) or not isinstance(kind, PlainType):
            raise RefusedError("an array of something other than bytes")
        numbers = np.frombuffer(content, kind.dtype()).reshape(shape, order="F" if columns_first else "C")
        return torch.from_numpy(numbers.astype(numbers.dtype.newbyteorder("=")))


def from_buffer(content: object, kind: object, shape: object, order: object) -> PlainArray:
    """How protocol 5 holds arrays."""
    array = PlainArray()
    array.parts = (1, shape, kind, order == "F", content)
    return array


class PlainStorage(NamedTuple):
    """Where numbers of a tensor lie in a file of torch."""

    kind: Any  # their type by name, as all of what follows said by the pickle
    key: Any
    size: Any  # how many there are
    read: Callable[[Any, int], Tensor]  # bytes by key and number


class PlainTensor(NamedTuple):
    """What a pickle calls a tensor: how it lies in a storage."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any
    kind: Any = None  # that of the storage

    def tensor(self) -> Tensor:
        """Its numbers, read now. Raises RefusedError for a storage that only code makes, ValueError for bad shapes."""
        if not isinstance(self.storage, PlainStorage):
            raise RefusedError(getattr(self.storage, "named", "a tensor of something other than numbers"))
        shape, strides, size = self.shape, self.strides, self.storage.size
        whole = all(type(one) is int and one >= 0 for one in (self.offset, size, *shape, *strides))
        if not whole or len(shape) != len(strides):
            raise ValueError("shapes of a tensor are whole numbers")
        numbers = self.storage.read(self.storage.key, size * DTYPES[self.storage.kind].itemsize)
        numbers = numbers.view(DTYPES[self.kind or self.storage.kind])
        last = self.offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if 0 not in shape and last >= len(numbers):
            raise ValueError("a tensor ends after its storage")
        return numbers.as_strided(shape, strides, 0 if 0 in shape else self.offset)


def typed_tensor(*parts: Any) -> PlainTensor:
    """How torch holds tensors whose storage does not say the type, which is the seventh part."""
    storage, offset, shape, strides, _, _, kind, *_ = parts
    return PlainTensor(storage, offset, shape, strides, kind)


def latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 holds bytes."""
    if encoding != "latin1":
        raise RefusedError(f"_codecs.encode to {encoding}")
    return text.encode(encoding)


TENSOR = Admitted(lambda storage, offset, shape, strides, *_: PlainTensor(storage, offset, shape, strides))
ADMITTED: dict[str, Any] = {  # what stands for a global name; a mere name stands for itself
    "collections.OrderedDict": Admitted(PlainDict),
    "numpy.ndarray": "numpy.ndarray",
    "numpy.dtype": Admitted(PlainType),
    **dict.fromkeys(
        ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"), Admitted(PlainArray)
    ),
    **dict.fromkeys(("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"), Admitted(from_buffer)),
    "__builtin__.bytes": Admitted(lambda: b""),  # how protocol 2 holds bytes of length 0
    "_codecs.encode": Admitted(latin1),
    **dict.fromkeys(("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"), TENSOR),
    "torch._utils._rebuild_tensor_v3": Admitted(typed_tensor),
    "torch._utils._rebuild_parameter": Admitted(lambda data, *_: data),
    "torch._utils._rebuild_parameter_with_state": Admitted(lambda data, *_: data),
    "torch.storage.UntypedStorage": "torch.uint8",
    **{f"torch.{name}Storage": f"torch.{kind}" for name, kind in STORAGES.items()},
    **{f"torch.cuda.{name}Storage": f"torch.{kind}" for name, kind in STORAGES.items()},
    **{name: name for name in DTYPES},
}


class PlainUnpickler(pickle.Unpickler):
    """Reads plain containers and records, whatever else the file names."""

    def __init__(self, stream: BinaryIO, stand_in: Callable[[str], Any] = placeholder):
        """`stand_in` makes what stands for a global name that is not admitted, or raises."""
        super().__init__(stream, encoding="latin1")
        self.stand_in = stand_in

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global name."""
        named = f"{module}.{name}"
        return ADMITTED[named] if named in ADMITTED else self.stand_in(named)
