"""What several tests share: a composed config, tiny, on the CPU."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.config.command_line import run
from src.config.saved_settings import saved_overrides

ROOT = Path(__file__).parents[1]

TINY = [
    "model.backbone.pretrained=false",
    "batch_size=2",
    "validate_every=1",
    "trainer.max_steps=1",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "data.num_workers=0",
    "task.criterion.num_points=64",
]
TINY_SHAPES = [*TINY, "data.train.num_scenes=8", "data.val.num_scenes=3", "data.train.size=64"]


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., DictConfig]:
    """Compose the real configuration with overrides, its run folder in a temporary place."""

    def configure(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose("config", [f"paths.run={tmp_path / 'run'}", *overrides], return_hydra_config=False)
        HydraConfig.instance().cfg = None
        return cfg

    return configure


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Run a command as a user does."""

    def command(entry: Callable[[], None], primary: str, *arguments: object) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"src.{primary}"])
        run(entry, saved_overrides([str(argument) for argument in arguments]), primary)

    return command


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB that the test may fill; skips where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def launch(entry: str, *arguments: str) -> None:
    """Run `src.train` or `src.evaluate` in a process of its own, as a user does."""
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on it in their last digit
    command = [sys.executable, "-m", entry, *arguments]
    process = subprocess.run(
        command, cwd=ROOT, env=os.environ | threads, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr
