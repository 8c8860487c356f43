"""Deformable sampling: weighted sums of bilinear samples of several maps, in four forms that compute the same.

Letters: B images, N query tokens, S sampled tokens, M heads, D channels of a head, L levels, P points.

All forms take
    value: (B, S, M, D), the levels one after the other, each row by row;
    sizes: (h, w) of each of the L levels;
    x, y: (B, N, M, L, P), places in pixels of their level, 0 at the centre of its first pixel;
    weights: (B, N, M, L, P)
and return (B, N, M * D) in float32, since bfloat16 cannot tell pixels apart. Outside of a map everything is zero.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.gather_sampling import sample_by_gather
from src.models.row_sampling import sample_by_rows
from src.models.sampling_operation import Sample, Size, split


def sample_by_grid(value: Tensor, sizes: Sequence[Size], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The reference: torch's grid sampling, one level after the other."""
    weights = weights.permute(3, 0, 2, 4, 1).flatten(1, 2)[:, :, None]  # (L, B * M, 1, P, N)
    places = torch.stack([x, y], -1).permute(3, 0, 2, 4, 1, 5).flatten(1, 2)  # (L, B * M, P, N, 2)
    levels = split(value.float(), sizes)
    sums: list[Tensor] = []
    for level, (h, w), place, weight in zip(levels, sizes, places, weights, strict=True):
        image = level.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, (h, w))  # (B * M, D, h, w)
        grid = (2 * place + 1) / place.new_tensor([w, h]) - 1  # -1 and 1 are the outer edges of the map
        sums.append((F.grid_sample(image, grid, align_corners=False) * weight).sum(2))  # of (B * M, D, P, N)
    total = torch.stack(sums).sum(0) if len(sums) > 1 else sums[0]  # (B * M, D, N)
    return total.unflatten(0, (len(value), -1)).permute(0, 3, 1, 2).flatten(2)


def softmax(scores: Tensor) -> Tensor:
    """The softmax over a last axis of a dozen scores, for which torch's own is slow on CPUs."""
    if scores.device.type != "cpu":
        return scores.softmax(-1)
    shares = (scores - scores.detach().amax(-1, keepdim=True)).exp()
    return shares / shares.sum(-1, keepdim=True)


def sample_by_triton(value: Tensor, sizes: Sequence[Size], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The form for GPUs: one kernel, which keeps no sample, in `src/models/triton_sampling.py`."""
    from src.models.triton_sampling import sample_by_triton as sample  # triton is not there on every system

    return sample(value, sizes, x, y, weights)


FORMS: dict[str, Sample] = {  # fastest first; an export alone sets the last one
    "rows": sample_by_rows,
    "triton": sample_by_triton,
    "grid": sample_by_grid,
    "gather": sample_by_gather,
}


def form_on(device: torch.device, sampling: str) -> str:
    """Return the form to use on a device for a setting: the one that it names, or the fastest one for `auto`.

    Raises ValueError for a form that cannot run there.
    """
    if sampling == "auto":
        return next(form for form in FORMS if why_not(form, device) is None)
    if reason := why_not(sampling, device):
        raise ValueError(f"model.pixel_decoder.encoder.sampling={sampling}: {reason}; expected auto or grid")
    return sampling


def describe_form(device: torch.device, sampling: str) -> str:
    """As `form_on`, with the reason why a GPU has only the reference."""
    form = form_on(device, sampling)
    return f"grid ({why_not('triton', device)})" if sampling == "auto" and form == "grid" else form


def form_for(value: Tensor, sampling: str) -> Sample:
    """Return the form to use for a tensor. Costs are counted by the reference, on tensors that have shapes alone."""
    return sample_by_grid if value.is_meta else FORMS[form_on(value.device, sampling)]


def why_not(form: str, device: torch.device) -> str | None:
    """Return why a form cannot run on a device; None: it can."""
    if form == "rows" and device.type != "cpu":
        return f"rows runs on CPUs, not on {device.type}"
    return why_no_triton(device) if form == "triton" else None


@torch.compiler.assume_constant_result
def why_no_triton(device: torch.device) -> str | None:
    """Return why Triton's kernel cannot run on a device; None: it can, and a trial gave what the reference gives."""
    return tried(device)


@cache
def tried(device: torch.device) -> str | None:
    """As `why_no_triton`, once per device; torch.compile takes its result as it is."""
    if device.type != "cuda":
        return f"triton runs on GPUs, not on {device.type}"
    if find_spec("triton") is None:
        return "triton is not installed"
    if torch.cuda.get_device_capability(device) < (7, 0):
        return "triton needs a GPU of compute capability 7.0"
    try:  # it also needs a C compiler and Python's headers
        return None if agrees(device) else "triton gave other sums than the reference in a trial on this GPU"
    except Exception as error:
        return (
            f"triton failed in a trial on this GPU: {str(error).strip().partition(chr(10))[0] or type(error).__name__}"
        )


def agrees(device: torch.device) -> bool:
    """Whether Triton's kernel gives the sums and gradients of the reference for a few places in small maps."""
    from src.models.triton_sampling import sample_by_triton

    sizes, results = [(2, 3), (3, 3)], []
    for form, where in ((sample_by_grid, torch.device("cpu")), (sample_by_triton, device)):
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(where.type, enabled=False):
            value = torch.linspace(-1, 1, 2 * 15 * 2 * 8).cos().view(2, 15, 2, 8)
            x, y, weights = (torch.linspace(start, 3.3, 2 * 5 * 2 * 2 * 3).view(2, 5, 2, 2, 3) for start in (-2, -1, 0))
            inputs = [one.to(where).requires_grad_() for one in (value, x, y.flip(1), weights)]
            sums = form(inputs[0], sizes, *inputs[1:])
            results.append([one.detach().cpu() for one in (sums, *torch.autograd.grad(sums.square().sum(), inputs))])
    return all(torch.allclose(a, b, atol=1e-4, rtol=1e-4) for a, b in zip(*results, strict=True))
