"""Deformable sampling by Triton's kernel gives what the reference gives; elsewhere it is refused, or its cost counted.

Triton's interpreter runs kernels on a CPU if a variable is set before triton is imported, hence the second process.
"""

import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from src.models import sampling
from src.models.encoder import Encoder
from src.models.sampling import (
    describe_form,
    form_for,
    form_on,
    sample_by_grid,
    sample_by_rows,
    sample_by_triton,
    tried,
)

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in a second process, in Triton's interpreter")
SIZES = [(1, 5), (4, 8), (7, 3)]


def inputs(
    sizes: list[tuple[int, int]] = SIZES, num_points: int = 3, dim: int = 8, device: torch.device = CPU
) -> list[Tensor]:
    """Values, places and weights of two images; most places are inside the maps, some far outside."""
    chance = torch.Generator().manual_seed(dim)
    value = torch.randn(2, sum(h * w for h, w in sizes), 2, dim, generator=chance)
    shape = (2, 5, 2, len(sizes), num_points)
    x, y = (torch.rand(shape, generator=chance) * 12 - 3 for _ in range(2))
    x[:, 0], y[:, 1] = -1e4, 1e30
    weights = torch.randn(shape, generator=chance)
    return [one.to(device).requires_grad_() for one in (value, x, y, weights)]


def results(form: sampling.Sample, sizes: list[tuple[int, int]], tensors: list[Tensor]) -> list[Tensor]:
    """Sums and all gradients."""
    sums = form(tensors[0], sizes, *tensors[1:])
    return [sums, *torch.autograd.grad(sums.square().sum(), tensors)]


def assert_equal(ours: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@interpreted
@pytest.mark.parametrize("dim", [8, 12, 16, 32])
@pytest.mark.parametrize(("sizes", "num_points"), [(SIZES, 3), ([(5, 7)], 1), ([(1, 1)], 2)], ids=str)
def test_the_kernel_is_the_grid(sizes: list[tuple[int, int]], num_points: int, dim: int) -> None:
    """Sums and all gradients, with places outside of the maps."""
    tensors = inputs(sizes, num_points, dim)
    assert_equal(results(sample_by_triton, sizes, tensors), results(sample_by_grid, sizes, tensors))


@interpreted
def test_whole_places_are_those_of_rows() -> None:
    """Gradients too, on and around the border; the grid's way to places and back may round a place to the left."""
    tensors = inputs()
    tensors[1:3] = [one.detach().clamp(-3, 9).round().requires_grad_() for one in tensors[1:3]]
    assert_equal(results(sample_by_triton, SIZES, tensors), results(sample_by_rows, SIZES, tensors))
    torch.testing.assert_close(
        sample_by_triton(tensors[0], SIZES, *tensors[1:]), sample_by_grid(tensors[0], SIZES, *tensors[1:])
    )


@interpreted
def test_tensors_may_be_views() -> None:
    """Places as halves of one tensor, values transposed, an expanded gradient."""
    value, x, y, weights = (one.detach() for one in inputs())
    x, y = torch.stack([x, y], -1).unbind(-1)
    value, weights = value.transpose(0, 1).contiguous().transpose(0, 1), weights.mT.contiguous().mT
    assert not any(one.is_contiguous() for one in (value, x, y, weights))
    tensors = [one.requires_grad_() for one in (value, x, y, weights)]
    ours, expected = (
        torch.autograd.grad(form(value, SIZES, x, y, weights).sum(), tensors)
        for form in (sample_by_triton, sample_by_grid)
    )
    assert_equal([*ours], [*expected])


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_sampled_in_float32(dtype: torch.dtype) -> None:
    """Values get gradients of their own type, under autocast too."""
    value, *others = inputs()
    tensors = [value.detach().to(dtype).requires_grad_(), *others]
    with torch.autocast("cpu", torch.bfloat16):
        ours, expected = (results(form, SIZES, tensors) for form in (sample_by_triton, sample_by_grid))
    assert [one.dtype for one in ours] == [torch.float32, dtype, *[torch.float32] * 3]
    torch.testing.assert_close(ours[1], expected[1], atol=2e-2, rtol=2e-2)
    assert_equal([ours[0], *ours[2:]], [expected[0], *expected[2:]])


@interpreted
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_place_that_is_not_finite_spoils_its_own_sum(bad: float) -> None:
    """It reads nothing, and other queries are as before."""
    value, x, y, weights = (one.detach() for one in inputs())
    expected = sample_by_triton(value, SIZES, x, y, weights)
    x[0, 3, 0, 1, 1] = bad
    sums = sample_by_triton(value, SIZES, x, y, weights)
    assert sums[0, 3, :8].isnan().all()
    sums[0, 3, :8] = expected[0, 3, :8]
    assert sums.equal(expected)


@interpreted
def test_it_compiles_and_is_a_proper_operation() -> None:
    """As one graph, with gradients; torch's own checks of its schema and shapes pass."""
    tensors = inputs([(4, 5)], 2)
    sample_by_triton(tensors[0], [(4, 5)], *tensors[1:])  # makes the operation
    torch.library.opcheck(torch.ops.ecoscale.sample_by_triton.default, (tensors[0], [4, 5], *tensors[1:]))
    compiled = torch.compile(sample_by_triton, fullgraph=True, backend="aot_eager")
    assert_equal(results(compiled, [(4, 5)], tensors), results(sample_by_triton, [(4, 5)], tensors))


@interpreted
def test_gradients_are_not_said_to_be_deterministic() -> None:
    """Blocks add to them in any order: as torch's own such operations, refused, or named."""
    tensors = inputs([(4, 5)], 2)
    try:
        torch.use_deterministic_algorithms(True)
        with pytest.raises(ValueError, match=r"expected trainer\.deterministic=warn"):
            results(sample_by_triton, [(4, 5)], tensors)
        torch.use_deterministic_algorithms(True, warn_only=True)
        with pytest.warns(UserWarning, match="order that varies"):
            results(sample_by_triton, [(4, 5)], tensors)
    finally:
        torch.use_deterministic_algorithms(False)


@interpreted
def test_the_trial_takes_the_kernel_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the mode at that time is; of another kernel it says no."""
    with torch.inference_mode():
        assert sampling.agrees(CPU)
    monkeypatch.setattr(
        "src.models.triton_sampling.sample_by_triton", lambda *arguments: 2 * sample_by_grid(*arguments)
    )
    assert not sampling.agrees(CPU)


@pytest.mark.skipif(INTERPRETED, reason="starts itself")
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.slow
def test_the_kernel_in_the_interpreter() -> None:
    """All tests above, in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", __file__]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a GPU")
def test_the_kernel_on_a_gpu() -> None:
    """Of the sums and gradients of the grid, both on the GPU."""
    for dim in (8, 32):
        tensors = inputs(dim=dim, device=CUDA)
        assert_equal(results(sample_by_triton, SIZES, tensors), results(sample_by_grid, SIZES, tensors))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A GPU on which all is well, as far as `why_no_triton` can tell."""
    monkeypatch.setattr("src.models.sampling.find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr("src.models.sampling.agrees", lambda device: True)
    tried.cache_clear()
    yield monkeypatch
    tried.cache_clear()


def fail(device: torch.device) -> bool:
    raise RuntimeError("Failed to find C compiler.\nmore")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("src.models.sampling.find_spec", lambda name: None, "triton is not installed"),
        ("torch.cuda.get_device_capability", lambda device: (6, 1), "triton needs a GPU of compute capability 7.0"),
        ("src.models.sampling.agrees", lambda device: False, "triton gave other sums than the reference in a trial"),
        ("src.models.sampling.agrees", fail, "triton failed in a trial on this GPU: Failed to find C compiler."),
    ],
)
def test_a_gpu_without_triton_gets_the_grid_and_the_reason(
    gpu: pytest.MonkeyPatch, name: str, value: object, reason: str
) -> None:
    """In the run table; Triton by name is refused with the same reason."""
    gpu.setattr(name, value)
    assert form_on(CUDA, "auto") == "grid"
    assert describe_form(CUDA, "auto").startswith(f"grid ({reason}")
    with pytest.raises(ValueError, match=f"^model.pixel_decoder.encoder.sampling=triton: {reason}.*expected auto"):
        form_on(CUDA, "triton")


def test_each_device_has_its_form(gpu: pytest.MonkeyPatch) -> None:
    """The reference runs everywhere; rows on a GPU are refused."""
    assert [form_on(device, "auto") for device in (CPU, CUDA, MPS)] == ["rows", "triton", "grid"]
    assert [describe_form(device, "auto") for device in (CPU, CUDA)] == ["rows", "triton"]
    assert describe_form(MPS, "auto") == "grid (triton runs on GPUs, not on mps)"
    assert [form_on(device, "grid") for device in (CPU, CUDA, MPS)] == ["grid"] * 3
    with pytest.raises(ValueError, match="sampling=rows: rows runs on CPUs, not on cuda; expected auto or grid"):
        form_on(CUDA, "rows")


def test_on_a_cpu_it_is_refused() -> None:
    """When a run begins, and wherever it is used without one."""
    with pytest.raises(ValueError, match="triton runs on GPUs, not on cpu"):
        Encoder([1], dim=32, sampling="triton").form_on(CPU)
    with pytest.raises(ValueError, match="triton runs on GPUs, not on cpu"):
        form_for(torch.zeros(1), "triton")


def test_its_cost_is_counted_without_a_gpu() -> None:
    """Shapes alone go through the reference."""
    assert form_for(torch.zeros(1, device="meta"), "triton") is sample_by_grid
