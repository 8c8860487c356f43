"""Converting a checkpoint as a user does."""

import json
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from scripts.convert_checkpoint import main
from src.weights.checkpoint import read
from tests.models import their_detectors
from tests.weights import published
from tests.weights.published import weights

transformers = pytest.importorskip("transformers")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the script ends with."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert str(stop.value.code).startswith("error: ")
    return str(stop.value.code)


@pytest.mark.slow
def test_a_model_zoo_file_becomes_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report names kind, parts and terms; weights and configuration lie side by side; both say the same."""
    arrays = {name: value.numpy() for name, value in weights(published.mask2former_swin_tiny()).items()}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "third_party"}))
    main([str(tmp_path / "zoo.pkl"), str(tmp_path / "new" / "ours.safetensors")])
    report = capsys.readouterr().out
    for words in ("Mask2Former, swin_tiny", "19 classes", "backbone", "27,520,698", "every shape fits", "CC BY-NC 4.0"):
        assert words in report
    config = yaml.safe_load((tmp_path / "new" / "ours.yaml").read_text())
    assert config["schedule"] == [0, 0, 6]
    assert {"override /model/backbone": "swin_tiny"} in config["defaults"]
    assert read(str(tmp_path / "new" / "ours.safetensors")).settings() == read(str(tmp_path / "zoo.pkl")).settings()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin", "resnet"])
def test_transformers_takes_back_what_it_gave(name: str, tmp_path: Path) -> None:
    """From its folder to ours and to a new folder of its: every tensor is equal, and `from_pretrained` misses none."""
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbones = {
        "swin": lambda: transformers.SwinConfig(
            embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, out_features=stages
        ),
        "resnet": lambda: transformers.ResNetConfig(out_features=stages),
    }
    labels = {i: f"class {i}" for i in range(7)}
    config = transformers.Mask2FormerConfig(backbone_config=backbones[name](), num_queries=30, id2label=labels)
    torch.manual_seed(0)
    theirs = transformers.Mask2FormerForUniversalSegmentation(config).eval()
    theirs.save_pretrained(tmp_path / "given")
    main([str(tmp_path / "given"), str(tmp_path / "ours.safetensors")])
    main([str(tmp_path / "ours.safetensors"), str(tmp_path / "back"), "--to", "transformers"])
    given, back = (load_file(tmp_path / folder / "model.safetensors") for folder in ("given", "back"))
    assert given.keys() == back.keys()
    assert all(torch.equal(given[key], value) for key, value in back.items())

    load = transformers.Mask2FormerForUniversalSegmentation.from_pretrained
    again, info = load(tmp_path / "back", output_loading_info=True)
    assert not any(info.values())
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        outputs = [model.eval()(images) for model in (theirs, again)]
    assert torch.equal(*(output.masks_queries_logits for output in outputs))
    assert torch.equal(*(output.class_queries_logits for output in outputs))


DETECTORS = {
    "DETR, resnet50, schedule 2": ("detr", {}),
    "Deformable DETR, resnet50, schedule 0 0 0 2": ("plain", {"model/queries": "learned"}),
    "Deformable DETR with refinement, resnet50": ("refined", {"model/queries": "learned"}),
    "Deformable DETR of two stages, resnet50": ("two_stage", {"model/queries": "proposed"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("words", DETECTORS)
def test_transformers_takes_back_detectors(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As with Mask2Former: what it gave, with copies of heads; a new model of it misses none and predicts the same."""
    name, choices = DETECTORS[words]
    theirs = their_detectors.make_detr() if name == "detr" else their_detectors.make_deformable(name, proposals=300)
    theirs.save_pretrained(tmp_path / "given")
    main([str(tmp_path / "given"), str(tmp_path / "ours.safetensors")])
    report = capsys.readouterr().out
    for part in (words, "class heads", "every shape fits", "Apache License 2.0"):
        assert part in report
    beside = yaml.safe_load((tmp_path / "ours.yaml").read_text())
    chosen = {"model": "detr" if name == "detr" else "deformable_detr", "model/backbone": "resnet50", **choices}
    assert all({f"override /{group}": choice} in beside["defaults"] for group, choice in chosen.items())
    main([str(tmp_path / "ours.safetensors"), str(tmp_path / "back"), "--to", "transformers"])
    given, back = (load_file(tmp_path / folder / "model.safetensors") for folder in ("given", "back"))
    assert all(torch.equal(value, back[key]) for key, value in given.items())
    again, info = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info.values())
    images = their_detectors.batch((160, 190), (200, 120))
    with torch.no_grad():
        outputs = [model.eval()(images.pixels, pixel_mask=images.mask) for model in (theirs, again)]
    assert torch.equal(*(output.logits for output in outputs))
    assert torch.equal(*(output.pred_boxes for output in outputs))


@pytest.mark.slow
def test_names_of_transformers_in_memory_are_known(tmp_path: Path) -> None:
    """Version 5 calls its modules otherwise than its files do; a state dict saved by hand reads the same."""
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.SwinConfig(
        embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, out_features=stages
    )
    theirs = transformers.Mask2FormerForUniversalSegmentation(transformers.Mask2FormerConfig(backbone_config=backbone))
    theirs.save_pretrained(tmp_path / "folder")
    torch.save(theirs.state_dict(), tmp_path / "state.pth")
    folder, state = (read(str(tmp_path / name)).state for name in ("folder", "state.pth"))
    assert folder.keys() == state.keys()
    assert all(torch.equal(folder[key], value) for key, value in state.items())


@pytest.mark.slow
def test_transformers_cannot_say_what_the_papers_add(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """PRO-SCALE does not become a folder of transformers, and none is begun."""
    torch.save({"model": weights(published.proscale_resnet50())}, tmp_path / "proscale.pth")
    line = refused(capsys, str(tmp_path / "proscale.pth"), str(tmp_path / "folder"), "--to", "transformers")
    assert "PRO-SCALE, resnet50, schedule 3 3 3" in line
    assert "transformers has Mask2Former, DETR and Deformable DETR alone" in line
    assert not (tmp_path / "folder").exists()


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_its_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A weight too few, one too many and one of another shape are listed, and nothing is written."""
    state = weights(published.mask2former_resnet50())
    del state["sem_seg_head.predictor.decoder_norm.bias"]
    state["sem_seg_head.predictor.surprise.weight"] = torch.zeros(3)
    state["backbone.res2.0.conv1.weight"] = torch.zeros(1, 2, 3, 4)
    torch.save({"model": state}, tmp_path / "odd.pth")
    line = refused(capsys, str(tmp_path / "odd.pth"), str(tmp_path / "ours.safetensors"))
    for words in ("missing: decoder.norm.bias", "left over: sem_seg_head.predictor.surprise.weight (3,)", "shape: "):
        assert words in line
    assert not (tmp_path / "ours.safetensors").exists()


def test_a_target_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Our files are safetensors; a source that is not there is named."""
    assert "ends in .safetensors" in refused(capsys, "x", str(tmp_path / "ours.pth"))
    assert "nothing.pkl: no such file" in refused(
        capsys, str(tmp_path / "nothing.pkl"), str(tmp_path / "o.safetensors")
    )


@pytest.mark.slow
def test_the_configuration_beside_is_an_experiment(tmp_path: Path) -> None:
    """Values nest as our configuration does, and plain JSON can hold them."""
    torch.save({"model": weights(published.eco_swin_tiny())}, tmp_path / "eco.pth")
    main([str(tmp_path / "eco.pth"), str(tmp_path / "eco.safetensors")])
    text = (tmp_path / "eco.yaml").read_text()
    assert text.startswith("# @package _global_\n# ECO-M2F, swin_tiny")
    config = yaml.safe_load(text)
    assert config["exits"] == [2, 3, 4, 5, 6]
    assert config["model"]["weights"] == str(tmp_path / "eco.safetensors")
    json.dumps(config)


@pytest.mark.slow
def test_nothing_of_anybody_else_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that happens to have the name of our configuration stays, and so does all else; our own are renewed."""
    torch.save({"model": weights(published.mask2former_resnet50())}, tmp_path / "m2f.pth")
    arguments = [str(tmp_path / "m2f.pth"), str(tmp_path / "ours.safetensors")]
    (tmp_path / "ours.yaml").write_text("precious: true\n")
    assert "ours.yaml: is there already" in refused(capsys, *arguments)
    assert not (tmp_path / "ours.safetensors").exists()
    (tmp_path / "ours.yaml").unlink()
    main(arguments)
    main(arguments)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m2f.pth", "ours.safetensors", "ours.yaml"]
