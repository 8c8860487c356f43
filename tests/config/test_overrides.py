"""Paths below a home folder."""

from collections.abc import Callable

import pytest
from omegaconf import DictConfig, OmegaConf

from src.config.overrides import expand_home
from src.config.saved_settings import with_saved
from src.config.schema import check_settings


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("data.root=~/coco", "data.root=/home/me/coco"),
        ("data.root=~", "data.root=/home/me"),
        ("data.root=~/a,~/b", "data.root=/home/me/a,/home/me/b"),
        ("photos=[~/a.jpg,'~/b c.jpg']", "photos=[/home/me/a.jpg,'/home/me/b c.jpg']"),
        ("~logger", "~logger"),
        ("~callbacks.last", "~callbacks.last"),
        ("name=a~b", "name=a~b"),
        ("model.weights=a/~/b", "model.weights=a/~/b"),
    ],
)
def test_a_home_folder_is_written_out(typed: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a value, one of a list or one of a sweep begins with it; deletions stay."""
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home(typed) == meant


def test_a_checkpoint_may_lie_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that whose settings a command takes up."""
    monkeypatch.setenv("HOME", "/home/me")
    assert with_saved(["ckpt_path=~/none.ckpt"]) == ["ckpt_path=/home/me/none.ckpt"]


def test_in_a_file_it_is_refused(configure: Callable[..., DictConfig]) -> None:
    """Where it would make a folder that is called so."""
    cfg = configure()
    cfg.paths.runs = "~/runs"
    with pytest.raises(ValueError, match=r"paths.runs=~/runs: .* in a file expected \${oc.env:HOME}/runs"):
        check_settings(OmegaConf.to_container(cfg))
