"""Makes a fast form of deformable sampling an operation of torch: one node for autograd and for `torch.compile`.

Arguments, result and letters are those of `src/models/sampling.py`.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from src.models.tracing import is_exporting

Size = tuple[int, int]  # height, width
Sample = Callable[[Tensor, Sequence[Size], Tensor, Tensor, Tensor], Tensor]
Gradients = Callable[[Tensor, Sequence[Size], Tensor, Tensor, Tensor, Tensor], Sequence[Tensor]]

ARGUMENTS = (
    "Tensor value, SymInt[] sizes, Tensor x, Tensor y, Tensor weights"  # h, w of the first level, of the next ...
)


def operation(name: str, sums: Sample, gradients: Gradients) -> Sample:
    """Return `sums` as a differentiable operation.

    Args:
        name: that torch gives to the operation.
        sums: weighted sums from contiguous or other tensors; no gradient is taken through it.
        gradients: of value, x, y and weights, each in the type of its tensor, from these and the gradient of the sums.
    """

    def forward(value: Tensor, sizes: Sequence[int], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        return sums(value, pairs(sizes), x, y, weights)

    def backward(
        value: Tensor, sizes: Sequence[int], x: Tensor, y: Tensor, weights: Tensor, grad: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(gradients(value, pairs(sizes), x, y, weights, grad))

    def differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, x, y, weights = ctx.saved_tensors
        of_value, of_x, of_y, of_weights = backward_operation(value, ctx.sizes, x, y, weights, grad)
        return of_value, None, of_x, of_y, of_weights

    make: Any = torch.library.custom_op
    forward_operation = make(f"ecoscale::{name}", forward, mutates_args=(), schema=f"({ARGUMENTS}) -> Tensor")
    backward_operation = make(
        f"ecoscale::{name}_backward",
        backward,
        mutates_args=(),
        schema=f"({ARGUMENTS}, Tensor grad) -> (Tensor, Tensor, Tensor, Tensor)",
    )
    forward_operation.register_fake(empty_sums)
    forward_operation.register_autograd(differentiate, setup_context=keep)
    backward_operation.register_fake(empty_gradients)

    def sample(value: Tensor, sizes: Sequence[Size], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        return forward_operation(value, [*chain(*sizes)], x, y, weights)

    return sample


def counted(numbers: Sequence[int], like: Tensor) -> Tensor:
    """Numbers (L,) of the levels in the type and on the device of a tensor; symbolic ones, in an export, stay so."""
    if is_exporting():
        return torch.stack([torch.full((), number, dtype=like.dtype, device=like.device) for number in numbers])
    return like.new_tensor(numbers)


def split(tokens: Tensor, sizes: Sequence[Size]) -> Sequence[Tensor]:
    """Split tokens (B, S, ...) into those of each level."""
    return tokens.split([h * w for h, w in sizes], 1)


def pairs(sizes: Sequence[int]) -> list[Size]:
    return list(zip(sizes[::2], sizes[1::2], strict=True))


def empty_sums(value: Tensor, sizes: Sequence[int], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Return the sums without their numbers."""
    return x.new_empty(*x.shape[:2], value.shape[2] * value.shape[3], dtype=torch.float32)


def empty_gradients(
    value: Tensor, sizes: Sequence[int], x: Tensor, y: Tensor, weights: Tensor, grad: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients without their numbers."""
    return tuple(one.new_empty(one.shape) for one in (value, x, y, weights))


def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep the arguments, and nothing per sample."""
    value, ctx.sizes, x, y, weights = inputs
    ctx.save_for_backward(value, x, y, weights)
