"""Where memory is short, one line says which settings to lower, with their values."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from src.config.build import build_run
from src.config.memory import memory_reason
from tests.helpers import PROCESSES, SMALL_MODEL, TINY_SHAPES

SETTINGS = ["+experiment=proscale_shapes", *TINY_SHAPES, *SMALL_MODEL, "image_size=[64,64]", "callbacks=[]"]
CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
HOST = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
TRAINING = "training (batch_size_per_device=6, model.activation_checkpointing=false, data.augment.size=64): try "
FEWER = "batch_size_per_device=3, then model.activation_checkpointing=true, then a smaller data.augment.size"
EVALUATION = (
    "evaluation (data.eval_batch_size=8, data.resize.short=64, data.resize.long=64): try data.eval_batch_size=4"
)


def failure(cfg: DictConfig, step: str, act: Callable[[], None]) -> BaseException:
    """The error of a training in one of whose steps something is done."""
    run = build_run(cfg)
    task: Any = run.task
    whole = getattr(task, step)

    def acting(*arguments: Any) -> Any:
        act()
        return whole(*arguments)

    setattr(task, step, acting)
    with pytest.raises((RuntimeError, MemoryError)) as found:
        run.trainer.fit(task, run.data)
    return found.value


@pytest.mark.parametrize(
    ("step", "error", "expected"),
    [
        ("training_step", CUDA, f"out of GPU memory in {TRAINING}{FEWER}"),
        ("training_step", HOST, f"out of memory in {TRAINING}{FEWER}"),
        ("training_step", MemoryError(), f"out of memory in {TRAINING}{FEWER}"),
        ("validation_step", CUDA, f"out of GPU memory in {EVALUATION}"),
    ],
)
def test_a_step_without_memory_names_what_to_lower(
    step: str, error: BaseException, expected: str, configure: Callable[..., DictConfig]
) -> None:
    """In training and in validation, of a GPU and of the machine, with the values in force."""

    def fail() -> None:
        raise type(error)(*error.args)

    cfg = configure(*SETTINGS, "batch_size=6")
    said = memory_reason(failure(cfg, step, fail), cfg)
    assert said is not None
    assert said.startswith(expected)


@pytest.mark.parametrize(
    ("checkpointing", "advice"),
    [
        ("true", "try a smaller data.augment.size"),
        ("[encoder]", "try model.activation_checkpointing=true, then a smaller data.augment.size"),
    ],
)
def test_nothing_is_advised_that_is_done_already(
    configure: Callable[..., DictConfig], checkpointing: str, advice: str
) -> None:
    """A batch of one image is not halved, checkpointing is not turned on twice; that of a part is extended to all."""

    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    cfg = configure(*SETTINGS, "batch_size=1", f"model.activation_checkpointing={checkpointing}")
    said = memory_reason(failure(cfg, "training_step", fail), cfg)
    assert said is not None
    assert said.endswith(advice)


def kill_worker(cfg: DictConfig, step: str, reasons: Any) -> None:
    """Train until the data workers are killed in one of the steps, and pass on the line for the user."""

    def kill() -> None:
        for child in torch.multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)

    reasons.put(memory_reason(failure(cfg, step, kill), cfg))


@pytest.mark.parametrize("step", ["training_step", "validation_step"])
def test_a_worker_that_is_killed_is_named(step: str, configure: Callable[..., DictConfig]) -> None:
    """As the kernel kills it where memory is short."""
    cfg = configure(
        *SETTINGS, "data.num_workers=1", "trainer.max_steps=500", "validate_every=1", "trainer.log_every_n_steps=0"
    )
    reasons = PROCESSES.SimpleQueue()
    process = PROCESSES.Process(target=kill_worker, args=(cfg, step, reasons))  # torch raises later signals anywhere
    process.start()
    process.join(timeout=120)
    assert not reasons.empty()
    said = reasons.get()
    assert said.startswith("a data worker ")
    assert "most likely for lack of memory (data.num_workers=1, " in said


def test_a_worker_that_is_killed_outside_of_all_loops_is_named(configure: Callable[..., DictConfig]) -> None:
    """torch raises it wherever the main process happens to be."""
    cfg = configure(*SETTINGS, "data.num_workers=1")
    said = memory_reason(RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly"), cfg)
    assert said is not None
    assert "(data.num_workers=1, batch_size_per_device=" in said


def test_other_errors_are_left_alone(configure: Callable[..., DictConfig]) -> None:
    """Those that are ours to mend keep their stack trace."""
    assert memory_reason(RuntimeError("shapes do not fit"), configure()) is None
