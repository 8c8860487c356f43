"""Multiply-adds of a module by submodule and operation, counted by torch without computing anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten
SAMPLING = aten.grid_sampler_2d  # deformable sampling, whose cost is counted by its reference
GIGA = 1e9

Counts = dict[str, dict[Any, float]]  # module name: {operation: GFLOPs}


@contextmanager
def counting(model: nn.Module) -> Iterator[None]:
    """Let `trace` count parts of a model in evaluation mode; its modules get their own mode back afterwards."""
    with eval_mode(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, and each of its modules back in its own mode afterwards."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def trace(module: nn.Module, *inputs: Any, **options: Any) -> tuple[Counts, Any]:
    """Return GFLOPs by submodule ("" is the module itself) and operation, and the output; call it while `counting`.

    Weights are replaced by shapes without values; inputs must be on the meta device too.
    """
    weights = [*module.named_parameters(), *module.named_buffers()]
    state = {name: torch.empty_like(x, device="meta") for name, x in weights}
    counter = FlopCounterMode(display=False, custom_mapping=RULES)
    with counter:
        output = torch.func.functional_call(module, state, inputs, options)
    root = type(module).__name__
    counts = {name: operations for name, operations in counter.get_flop_counts().items() if name != "Global"}
    return {
        name.removeprefix(root).removeprefix("."): {operation: n / 2 / GIGA for operation, n in operations.items()}
        for name, operations in counts.items()
    }, output


def added(counts: Counts, name: str) -> float:
    """Sum the GFLOPs of a submodule without deformable sampling; 0 if it is absent or does not compute."""
    return sum(n for operation, n in counts.get(name, {}).items() if operation != SAMPLING)


def per_element(multiply_adds: int) -> Any:
    """Return a counting rule of `multiply_adds` per element of the first output."""

    def rule(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        first = out_val[0] if isinstance(out_val, tuple) else out_val
        return 2 * multiply_adds * first.numel()  # the counter's unit is half a multiply-add

    rule._get_raw = True  # type: ignore[attr-defined]
    return rule


RULES = {
    aten.native_layer_norm: per_element(5),
    aten.native_group_norm: per_element(5),
    aten.native_batch_norm: per_element(2),
    aten._native_batch_norm_legit_no_training: per_element(2),
    aten.cudnn_batch_norm: per_element(2),
    aten.upsample_bilinear2d: per_element(4),
    SAMPLING: per_element(4),
}
