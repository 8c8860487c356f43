"""Pickles as plain containers and records: nothing that a pickle names is imported or called.

A record keeps what a call was asked for with. A tensor is made from its record later, and only if it is a weight.
"""

import pickle
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

STORAGES = {
    **{"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16"},
    **{"Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"},
    **{"ComplexDouble": "complex128", "ComplexFloat": "complex64"},
}
TYPES: dict[Any, torch.dtype] = {  # by the global names of torch's types and storages
    **{str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)},
    **{f"torch.{at}{name}Storage": getattr(torch, dtype) for at in ("", "cuda.") for name, dtype in STORAGES.items()},
    "torch.storage.UntypedStorage": torch.uint8,
}


class RefusedError(pickle.UnpicklingError):
    """A pickle asks for something other than arrays, tensors and plain containers."""


class FixedClass(type):
    """A class that a pickle can call, but not change."""

    @property
    def __setstate__(cls) -> Any:
        """Raise RefusedError: a pickle looks this up to set attributes."""
        raise RefusedError("a change to a function")


class Record(metaclass=FixedClass):
    """A call that a pickle asks for and that is not made: its arguments, and the state that is set afterwards.

    Each global name has a class of its own (`record_class`), since a pickle may expect a class or a function.
    """

    __slots__ = ("arguments", "state")
    named = ""  # the global name
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any, **_: Any) -> Any:
        """Keep the positional arguments; here and not in `__init__`, which a pickle may skip."""
        record = super().__new__(cls)
        record.arguments, record.state = arguments, None
        return record

    def __setstate__(self, state: object) -> None:
        self.state = state


class TensorRecord(Record):
    """A tensor of torch, which has no state."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise RefusedError("a change to a tensor")


class Placeholder(Record):
    """Stands for anything that weights do not need; whatever a pickle does to it has no effect."""

    __slots__ = ()

    def __call__(self, *_: object, **__: object) -> "Placeholder":
        """Call nothing."""
        return self

    def __setitem__(self, key: object, value: object) -> None:
        """Drop the item."""

    def append(self, item: object) -> None:
        """Drop the item."""

    extend = add = append


class Getattr(Placeholder):
    """Stands for getattr, by which old protocols name a class within a class: another placeholder."""

    __slots__ = ()

    def __new__(cls, *_: object) -> Any:
        return record_class(f"what {cls.named} finds")


class Name(Record):
    """A name that is only an argument of other calls."""

    __slots__ = ()

    def __new__(cls, *_: object) -> Any:
        raise RefusedError(cls.named)


class Bytes(Record):
    """Protocol 2 writes bytes as text to encode."""

    __slots__ = ()

    def __new__(cls, text: str = "", encoding: str = "latin1") -> Any:
        if encoding != "latin1":
            raise RefusedError(f"_codecs.encode to {encoding}")
        return text.encode(encoding)


class Parameter(Record):
    """The tensor of a parameter."""

    __slots__ = ()

    def __new__(cls, data: object, *_: object) -> Any:
        return data


class PlainDict(dict, metaclass=FixedClass):
    """An ordered dictionary, without the attributes in which torch keeps versions."""

    def __setstate__(self, state: object) -> None:
        pass  # drop the attributes


class Storage(NamedTuple):
    """Where the numbers of tensors lie in a file of torch. A pickle may give any key and size."""

    dtype: torch.dtype
    key: Any
    size: Any  # number of elements
    read: Callable[[Any, int], Tensor]  # key and number of bytes to uint8


def strided(storage: Any, offset: Any, shape: Any, strides: Any, *, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor within a storage, of the storage's type unless another is given.

    Raises RefusedError for anything but a storage, ValueError for shapes that are invalid or exceed it.
    """
    if not isinstance(storage, Storage):
        raise RefusedError(named_by(storage) or "a tensor of something other than numbers")
    whole = all(type(one) is int and one >= 0 for one in (offset, storage.size, *shape, *strides))
    if not whole or len(shape) != len(strides):
        raise ValueError("shapes of a tensor are whole numbers")
    numbers = storage.read(storage.key, storage.size * storage.dtype.itemsize).view(dtype or storage.dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= len(numbers):
        raise ValueError("a tensor ends after its storage")
    return numbers.as_strided(shape, strides, 0 if 0 in shape else offset)


def array(content: Any, dtype: Any, shape: Any, order: Any) -> Tensor:
    """Numpy's array as a tensor, in this machine's byte order. Raises RefusedError for anything but numbers."""
    content = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(content, bytes | bytearray) or not isinstance(dtype, Record) or dtype.named != "numpy.dtype":
        raise RefusedError("an array of something other than bytes")
    name = dtype.arguments[0]
    if not isinstance(name, str) or not re.fullmatch(r"[<>|=]?([fiu][1248]|b1)", name):
        raise RefusedError(f"numpy.dtype {name}")
    stored = np.dtype(name).newbyteorder(dtype.state[1] if dtype.state else "|")
    numbers = np.frombuffer(content, stored).reshape(shape, order=order)
    return torch.from_numpy(numbers.astype(numbers.dtype.newbyteorder("=")))


def reconstructed(record: Record) -> Tensor:
    """An array from its state: version, shape, type, whether columns come first, and bytes."""
    _, shape, dtype, columns_first, content = record.state
    return array(content, dtype, shape, "F" if columns_first else "C")


MAKERS: dict[str, Callable[[Record], Tensor]] = {  # of tensors, by global name
    "torch._utils._rebuild_tensor": lambda record: strided(*record.arguments[:4]),
    "torch._utils._rebuild_tensor_v2": lambda record: strided(*record.arguments[:4]),
    "torch._utils._rebuild_tensor_v3": lambda record: strided(
        *record.arguments[:4], dtype=TYPES[named_by(record.arguments[6])]
    ),
    "numpy.core.multiarray._reconstruct": reconstructed,
    "numpy._core.multiarray._reconstruct": reconstructed,
    "numpy.core.numeric._frombuffer": lambda record: array(*record.arguments),
    "numpy._core.numeric._frombuffer": lambda record: array(*record.arguments),
}
BASES: dict[str, type] = {  # what stands for a global name; a placeholder for any other
    **dict.fromkeys(("builtins.getattr", "__builtin__.getattr"), Getattr),
    **dict.fromkeys(("_codecs.encode", "__builtin__.bytes"), Bytes),
    **dict.fromkeys(("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"), Parameter),
    **{name: TensorRecord if name.startswith("torch.") else Record for name in ("numpy.dtype", *MAKERS)},
    **dict.fromkeys(("numpy.ndarray", *TYPES), Name),
    "collections.OrderedDict": PlainDict,
}


@lru_cache(1000)
def record_class(named: str) -> Any:
    """The class that stands for a global name in a pickle."""
    base = BASES.get(named, Placeholder)
    shown = "Tensor" if named in MAKERS else base.__name__  # in messages
    return FixedClass(shown, (base,), {"__slots__": (), "named": named})


def named_by(value: object) -> str | None:
    """The global name of a record or of a class of records; None for anything else."""
    kind = value if isinstance(value, type) else type(value)
    return kind.named if issubclass(kind, Record) else None


def is_tensor(value: object) -> bool:
    """Whether a value is a tensor or the record of one."""
    return isinstance(value, Tensor) or (isinstance(value, Record) and value.named in MAKERS)


def make(value: Any) -> Tensor:
    """The tensor of a record; a tensor stays as it is. Raises RefusedError with the name of any other record."""
    if not is_tensor(value):
        raise RefusedError(named_by(value))
    return value if isinstance(value, Tensor) else MAKERS[value.named](value)


class PlainUnpickler(pickle.Unpickler):
    """Reads plain containers and records; a `strict` one raises RefusedError instead of making a placeholder."""

    def __init__(self, stream: BinaryIO, strict: bool = False):
        super().__init__(stream, encoding="latin1")
        self.strict = strict

    def find_class(self, module: str, name: str) -> Any:
        """A class of records in place of the global name."""
        kind = record_class(f"{module}.{name}")
        if self.strict and issubclass(kind, Placeholder):
            raise RefusedError(kind.named)
        return kind
