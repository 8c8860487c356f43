"""Variants: an encoder and its parts, chosen together, one by one or all in a sweep."""

import re

import pytest
from hydra import compose
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from src.config.build import sketch
from src.config.command_line import check, configure, initialized
from src.config.sweeps import jobs, sweep_of
from src.models.mask2former import Mask2Former
from tests.helpers import ROOT, SMALL_MODEL, TINY

PARTS = ("model/encoder", "model/pixel_embedding", "model/recalibration")
EXPECTED = {  # the parts of each, the levels of its layers for a small experiment, and for one of full size
    "mask2former": ("full conv none", "3 3 3", "3 3 3 3 3 3"),
    "mask2former_light": ("full light none", "3 3 3", "3 3 3 3 3 3"),
    "proscale": ("growing light linear", "1 2 3", "1 1 1 2 2 2 3 3 3"),
    "proscale_conv": ("growing conv linear", "1 2 3", "1 1 1 2 2 2 3 3 3"),
    "proscale_depthwise": ("growing depthwise linear", "1 2 3", "1 1 1 2 2 2 3 3 3"),
    "lite": ("lite conv none", "1-2/3 1-2/3 3/3", " ".join(["1-2/3 1-2/3 3/3"] * 3)),
    "lite_light": ("lite light none", "1-2/3 1-2/3 3/3", " ".join(["1-2/3 1-2/3 3/3"] * 3)),
    "hybrid": ("hybrid conv none", "HybridLayer", "HybridLayer"),
    "fpn": ("fpn conv none", "FeaturePyramid", "FeaturePyramid"),
}


def composed(*overrides: str) -> DictConfig:
    with initialized():
        return compose("config", [*overrides, "paths.run=x"], return_hydra_config=True)


def parts_of(cfg: DictConfig) -> str:
    return " ".join(cfg.hydra.runtime.choices[part] for part in PARTS)


def model_of(*overrides: str) -> Mask2Former:
    return sketch(configure([*overrides, "data=shapes", *TINY, *SMALL_MODEL, "paths.run=x"])).model


@pytest.mark.slow
def test_the_sweep_has_every_variant_once() -> None:
    """In any experiment of Mask2Former's; each job has the parts of its variant, and is called by it."""
    files = {file.stem for file in (ROOT / "conf" / "variant").glob("*.yaml")}
    for experiment in ("mask2former_shapes", "mask2former_coco"):
        overrides = [f"+experiment={experiment}", "+sweep=baselines"]
        check(overrides)
        swept = sweep_of(composed(*overrides).hydra, overrides, multirun=False)
        assert swept is not None
        found = [composed(*job, "hydra.mode=RUN") for job in jobs(swept)]
        assert {cfg.variant: parts_of(cfg) for cfg in found} == {name: parts for name, (parts, *_) in EXPECTED.items()}
        assert [cfg.variant for cfg in found] == [cfg.hydra.runtime.choices.variant for cfg in found]
    assert files == EXPECTED.keys()


@pytest.mark.slow
@pytest.mark.parametrize("variant", EXPECTED)
def test_a_variant_is_as_deep_as_its_experiment(variant: str) -> None:
    """As published beside six layers, less beside three."""
    _, small, full = EXPECTED[variant]
    for experiment, layers in (("mask2former_shapes", small), ("mask2former_coco", full)):
        model = model_of(f"+experiment={experiment}", f"variant={variant}")
        assert model.pixel_decoder.encoder.layout == layers
        assert model.exits == [model.pixel_decoder.encoder.depth]


@pytest.mark.slow
@pytest.mark.parametrize("variant", EXPECTED)
def test_an_experiment_of_proscale_is_refused(variant: str) -> None:
    """Its own parts would be in every job under another name."""
    with pytest.raises(InstantiationException) as error:
        model_of("+experiment=proscale_shapes", f"variant={variant}")
    assert re.search(r"schedule=\[1, 1, 1\]: .*mask2former_\*|model/recalibration=none", str(error.value.__cause__))


def test_what_is_typed_stands_above_a_variant() -> None:
    """A part or a number may differ from the variant's."""
    typed = ["model/pixel_embedding=depthwise", "model.pixel_decoder.encoder.expand.blocks=4"]
    cfg = composed("+experiment=mask2former_shapes", "variant=lite", *typed)
    assert parts_of(cfg) == "lite depthwise none"
    encoder = model_of("+experiment=mask2former_shapes", "variant=lite", *typed).pixel_decoder.encoder
    assert encoder.depth == 12


def test_without_a_variant_nothing_is_chosen() -> None:
    """Experiments have the parts that they had."""
    assert parts_of(composed("+experiment=mask2former_coco")) == "deformable conv none"
    assert parts_of(composed("+experiment=proscale_coco")) == "deformable light linear"
    assert model_of("+experiment=proscale_shapes").pixel_decoder.encoder.layout == "1 2 3"
