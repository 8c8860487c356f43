"""Published checkpoints: told apart, put under our names, loaded whole or refused."""

import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file
from torch import Tensor

from src.config.build import sketch
from src.config.overrides import spell
from src.models.gate import Seen
from src.models.mask2former import Mask2Former
from src.weights.architecture import Architecture
from src.weights.checkpoint import COUNTER, NOTE, Checkpoint, load_weights, read, write
from src.weights.layouts import from_ours, to_ours
from tests.helpers import ROOT
from tests.weights import published
from tests.weights.published import older, weights

CASES = {
    "Mask2Former, resnet50, schedule 0 0 6, 133 classes, 100 queries": published.mask2former_resnet50,
    "Mask2Former, resnet101, schedule 0 0 6, 19 classes, 100 queries": partial(published.mask2former_resnet, 101, 19),
    "Mask2Former, swin_tiny, schedule 0 0 6, 19 classes, 100 queries": published.mask2former_swin_tiny,
    "Mask2Former, swin_large, schedule 0 0 6, 133 classes, 200 queries": published.mask2former_swin_large,
    "PRO-SCALE, resnet50, schedule 3 3 3, 133 classes, 100 queries": published.proscale_resnet50,
    "PRO-SCALE, resnet50, schedule 1 2 1, 133 classes, 100 queries": partial(published.proscale_resnet50, (1, 2, 1)),
    "PRO-SCALE, swin_tiny, schedule 3 3 3, 133 classes, 100 queries": published.proscale_swin_tiny,
    "ECO-M2F, swin_tiny, schedule 0 0 6, 19 classes, 100 queries": published.eco_swin_tiny,
}
LEGACY = "model.pixel_decoder.encoder.recalibrate.legacy_layout"


def save(state: dict[str, Tensor], file: Path) -> str:
    """As the model zoo has it (.pkl) or as detectron2's trainer leaves it (.pth)."""
    if file.suffix == ".pkl":
        arrays = {name: value.numpy() for name, value in state.items()}
        file.write_bytes(pickle.dumps({"model": arrays, "__author__": "third_party", "matching_heuristics": True}))
    else:
        torch.save({"model": state, "iteration": 367499, "scheduler": {"last_epoch": 3}}, file)
    return str(file)


def build(architecture: Architecture) -> Mask2Former:
    """Our model of an architecture, by our configuration, on the meta device."""
    settings = [f"{name}={spell(value)}" for name, value in architecture.settings().items()]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return sketch(compose("config", [*settings, "paths.run=."]), architecture.num_classes).model


@pytest.mark.slow
@pytest.mark.parametrize("words", CASES)
def test_published_weights_are_recognised_and_fit(words: str, tmp_path: Path) -> None:
    """Kind, backbone, schedule, classes and queries come from names and shapes; no name is left over on either side."""
    state = weights(CASES[words]())
    checkpoint = read(save(state, tmp_path / "model.pth"))
    architecture = checkpoint.architecture()
    assert str(architecture) == words
    expected = {n: v.shape for n, v in build(architecture).state_dict().items() if not n.endswith(COUNTER)}
    assert {name: value.shape for name, value in checkpoint.state.items()} == expected
    read_in_all = sum(value.numel() for value in checkpoint.state.values())
    unused = ("criterion.empty_weight", "relative_position_index")
    assert read_in_all == sum(value.numel() for name, value in state.items() if not name.endswith(unused))


@pytest.mark.slow
@pytest.mark.parametrize("words", [words for words in CASES if "swin_large" not in words and "101" not in words])
def test_converted_weights_survive_saving_and_loading(words: str, tmp_path: Path) -> None:
    """Written as ours and read back, every tensor is equal, and so is what it says of its model and terms."""
    checkpoint = read(save(weights(CASES[words]()), tmp_path / "model.pkl"))
    write(checkpoint, tmp_path / "ours.safetensors")
    back = read(str(tmp_path / "ours.safetensors"))
    assert back.layout == "ours"
    assert (back.settings(), back.terms()) == (checkpoint.settings(), checkpoint.terms())
    assert str(back.architecture()) == words
    assert back.state.keys() == checkpoint.state.keys()
    assert all(torch.equal(back.state[name], value) for name, value in checkpoint.state.items())


@pytest.mark.slow
def test_the_layout_of_a_published_recalibration_is_set_by_itself(tmp_path: Path) -> None:
    """Released PRO-SCALE weights want the published operation, also after they were converted; new ones do not."""
    checkpoint = read(save(weights(published.proscale_resnet50()), tmp_path / "model.pth"))
    settings = checkpoint.settings()
    assert settings is not None
    assert settings[LEGACY] is True
    write(checkpoint, tmp_path / "ours.safetensors")
    assert read(str(tmp_path / "ours.safetensors")).architecture().legacy_layout
    torch.save({f"model.{name}": value for name, value in checkpoint.state.items()}, tmp_path / "trained.ckpt")
    trained = read(str(tmp_path / "trained.ckpt"))
    assert trained.settings() is None
    assert not trained.architecture().legacy_layout


def test_a_gate_comes_with_its_exits(tmp_path: Path) -> None:
    """Five scores of six layers are those of exits 2 to 6; the gate computes them as its weights say."""
    state = weights(published.eco_swin_tiny())
    checkpoint = read(save(state, tmp_path / "model.pth"))
    architecture = checkpoint.architecture()
    assert architecture.exits == [2, 3, 4, 5, 6]
    gate = build(architecture).gate
    assert gate is not None
    gate = gate.to_empty(device="cpu")
    gate.load_state_dict({n.removeprefix("gate."): v for n, v in checkpoint.state.items() if n.startswith("gate.")})
    coarsest = torch.randn(2, 256, 3, 4)
    place = "sem_seg_head.pixel_decoder.transformer.encoder.gt.head"
    expected = coarsest.flatten(2).mean(2) @ state[f"{place}.weight"].T + state[f"{place}.bias"]
    torch.testing.assert_close(gate(Seen({32: coarsest})), expected)


@pytest.mark.slow
def test_names_of_before_version_2_are_known(tmp_path: Path) -> None:
    """Old checkpoints have no pixel_decoder in their names and call the queries static."""
    state = weights(published.mask2former_resnet50())
    new, old = (read(save(s, tmp_path / "model.pth")).state for s in (state, older(state)))
    assert not any("pixel_decoder" in name for name in older(state))
    assert new.keys() == old.keys()
    assert all(torch.equal(new[name], old[name]) for name in new)


def test_a_weight_lands_where_it_belongs(tmp_path: Path) -> None:
    """Names that a table might swap without a shape to tell: norms, attentions, stages of the backbone."""
    state = weights(published.mask2former_resnet50()) | weights(published.swin())
    ours = to_ours(state, "detectron2")
    head = "sem_seg_head.predictor.transformer_"
    encoder = "sem_seg_head.pixel_decoder.transformer.encoder.layers.4."
    for name, theirs in {
        "decoder.layers.3.norm1.weight": f"{head}cross_attention_layers.3.norm.weight",
        "decoder.layers.3.norm2.weight": f"{head}self_attention_layers.3.norm.weight",
        "decoder.layers.3.norm3.weight": f"{head}ffn_layers.3.norm.weight",
        "decoder.layers.8.cross_attn.in_proj.weight": f"{head}cross_attention_layers.8.multihead_attn.in_proj_weight",
        "decoder.layers.8.self_attn.in_proj.bias": f"{head}self_attention_layers.8.self_attn.in_proj_bias",
        "decoder.layers.8.linear2.weight": f"{head}ffn_layers.8.linear2.weight",
        "decoder.query_feat.weight": "sem_seg_head.predictor.query_feat.weight",
        "decoder.level_embed.weight": "sem_seg_head.predictor.level_embed.weight",
        "pixel_decoder.level_embed": "sem_seg_head.pixel_decoder.transformer.level_embed",
        "pixel_decoder.encoder.layers.4.norm1.weight": f"{encoder}norm1.weight",
        "pixel_decoder.encoder.layers.4.norm2.weight": f"{encoder}norm2.weight",
        "pixel_decoder.encoder.layers.4.self_attn.output_proj.weight": f"{encoder}self_attn.output_proj.weight",
        "pixel_decoder.lateral.0.weight": "sem_seg_head.pixel_decoder.adapter_1.weight",
        "pixel_decoder.lateral.1.weight": "sem_seg_head.pixel_decoder.adapter_1.norm.weight",
        "pixel_decoder.pixel_embedding.1.bias": "sem_seg_head.pixel_decoder.layer_1.norm.bias",
        "decoder.mask_embed.4.bias": "sem_seg_head.predictor.mask_embed.layers.2.bias",
        "backbone.body.bn1.running_var": "backbone.stem.conv1.norm.running_var",
        "backbone.body.layer4.2.conv3.weight": "backbone.res5.2.conv3.weight",
        "backbone.body.layer2.0.downsample.1.running_mean": "backbone.res3.0.shortcut.norm.running_mean",
        "backbone.body.layers_2.downsample.reduction.weight": "backbone.layers.1.downsample.reduction.weight",
        "backbone.body.layers_2.blocks.5.norm2.bias": "backbone.layers.2.blocks.5.norm2.bias",
        "backbone.norms.3.weight": "backbone.norm3.weight",
    }.items():
        assert torch.equal(ours[name], state[theirs]), name


@pytest.mark.parametrize("layout", ["detectron2", "transformers"])
@pytest.mark.parametrize("make", [published.mask2former_resnet50, published.mask2former_swin_tiny])
def test_there_and_back(layout: str, make: Callable, tmp_path: Path) -> None:
    """From our names to another layout's and back, tensors are those they were."""
    ours = read(save(weights(make()), tmp_path / "model.pth")).state
    theirs = from_ours(ours, layout)
    assert not ours.keys() & theirs.keys() - {name for name in ours if name.startswith("backbone.")}
    back = to_ours(theirs, layout)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], value) for name, value in ours.items())


@pytest.mark.parametrize("layout", ["detectron2", "transformers"])
def test_counters_of_norms_are_left_behind(layout: str) -> None:
    """Ours has them where norms are learnt; nothing reads them."""
    ours = {"backbone.body.bn1.num_batches_tracked": torch.tensor(3), "backbone.body.bn1.bias": torch.zeros(2)}
    assert len(from_ours(ours, layout)) == 1


@pytest.mark.parametrize("shape", [(), (3,)])
def test_parts_of_different_shapes_are_named(shape: tuple[int, ...]) -> None:
    """Queries, keys and values, which are one tensor with us, must be alike."""
    place = "model.transformer_module.decoder.layers.0.self_attn."
    state = {f"{place}{part}_proj.bias": torch.zeros(2) for part in "qk"} | {f"{place}v_proj.bias": torch.zeros(shape)}
    with pytest.raises(ValueError, match=r"parts of decoder.layers.0.self_attn.in_proj.* are \(2,\) and \(2,\) and"):
        to_ours(state, "transformers")


def test_transformers_has_no_word_for_what_the_papers_add() -> None:
    """A gate and a re-calibration cannot be said there, and are refused by name."""
    for name in ("gate.head.weight", "pixel_decoder.encoder.recalibrate.excite.bias"):
        with pytest.raises(ValueError, match=f"{name}: no such weight in the layout of transformers"):
            from_ours({name: torch.zeros(1)}, "transformers")


OTHERS = {
    "a box detector (R-CNN)": ["backbone.fpn_lateral2.weight", "roi_heads.box_predictor.cls_score.weight"],
    "a model of mmdetection": ["backbone.conv1.weight", "bbox_head.fc_cls.weight"],
    "a detector of the DETR family": ["transformer.encoder.layers.0.norm1.weight", "bbox_embed.layers.0.weight"],
    "an image classifier": ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"],
    "a backbone alone": ["stem.conv1.weight", "res2.0.conv1.weight"],
    "another model": ["lstm.weight", "embedding.weight"],
    "lacks pixel_decoder.level_embed": ["sem_seg_head.pixel_decoder.input_proj.0.0.weight"],
}


@pytest.mark.parametrize("words", OTHERS)
def test_weights_of_another_model_are_refused_by_what_they_look_like(words: str, tmp_path: Path) -> None:
    """A detector's or a classifier's checkpoint is called that, and some of its names are listed."""
    torch.save({"model": {name: torch.zeros(2) for name in OTHERS[words]}}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=re.escape(words)) as refusal:
        read(str(tmp_path / "model.pth"))
    assert f"weights={tmp_path / 'model.pth'}: no " in str(refusal.value)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "model.module."])
def test_wrapped_weights_of_another_model_look_like_it(prefix: str, tmp_path: Path) -> None:
    """A prefix that all names share does not hide what they are of."""
    for words, names in list(OTHERS.items())[:5]:
        torch.save({prefix + name: torch.zeros(2) for name in names}, tmp_path / "model.pth")
        with pytest.raises(ValueError, match=re.escape(words)):
            read(str(tmp_path / "model.pth"))


def test_a_convolution_for_recalibration_is_refused(tmp_path: Path) -> None:
    """PRO-SCALE's code has such a variant, but no release; what it computes is not loaded as something else."""
    state = weights(published.proscale_resnet50())
    name = "sem_seg_head.pixel_decoder.transformer.encoder.token_excite.ops.weight"
    state[name] = state[name][..., None, None]
    with pytest.raises(ValueError, match="re-calibration is a convolution"):
        read(save(state, tmp_path / "model.pth"))


# ---- into a model


@pytest.fixture
def model() -> Mask2Former:
    """A small model of ours with three classes."""
    return make_small(3)


def make_small(num_classes: int) -> Mask2Former:
    from tests.metrics.test_cost import make_model  # widths as published, after a small backbone

    return make_model([0, 0, 1], light=False, num_classes=num_classes)


def test_another_number_of_classes_is_a_choice(model: Mask2Former, tmp_path: Path) -> None:
    """Refused with both numbers; with the class head dropped, all other weights are loaded."""
    other = make_small(5)
    torch.save(other.state_dict(), tmp_path / "other.ckpt")
    before = model.decoder.class_embed.weight.clone()
    with pytest.raises(ValueError, match=r"knows 5 classes and the data have 3$"):
        load_weights(model, str(tmp_path / "other.ckpt"))
    load_weights(model, str(tmp_path / "other.ckpt"), drop_class_head=True)
    assert torch.equal(model.decoder.class_embed.weight, before)
    theirs = other.state_dict()
    rest = {name: value for name, value in model.state_dict().items() if "class_embed" not in name}
    assert all(torch.equal(theirs[name], value) for name, value in rest.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("decoder.norm.bias"),
            r"1 of \d+ keys disagree.*missing: decoder\.norm\.bias \(256,\)",
        ),
        (lambda state: state.update(more=torch.zeros(1)), r"left over: more \(1,\)"),
        (
            lambda state: state.update({"decoder.norm.bias": torch.zeros(4)}),
            r"shape: decoder\.norm\.bias is \(4,\), the model has \(256,\)",
        ),
        (lambda state: [state.pop(name) for name in list(state) if "decoder.layers.1" in name], "missing: decoder"),
        (lambda state: state.update({f"more{i}": torch.zeros(1) for i in range(34)}), "and 31 more"),
    ],
)
def test_what_does_not_fit_is_listed(change: Callable, message: str, model: Mask2Former, tmp_path: Path) -> None:
    """Whatever is missing, left over or of another shape stops the load before a single weight is changed."""
    state = make_small(3).state_dict()
    change(state)
    torch.save(state, tmp_path / "other.ckpt")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_weights(model, str(tmp_path / "other.ckpt"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_layer_missing_in_between_is_named(tmp_path: Path) -> None:
    """An encoder with a gap is no architecture."""
    state = {n: v for n, v in weights(published.mask2former_resnet50()).items() if "encoder.layers.2." not in n}
    with pytest.raises(ValueError, match=r"it lacks pixel_decoder\.encoder\.layers\.2"):
        read(save(state, tmp_path / "model.pth"))


def test_an_unknown_backbone_leaves_the_choice_to_the_user(tmp_path: Path) -> None:
    """Its settings cannot be known, and its weights are read all the same."""
    state = weights(published.swin(dim=32)) | weights(published.head((32, 64, 128, 256), (0, 0, 6), 7))
    checkpoint = read(save(state, tmp_path / "model.pth"))
    assert checkpoint.settings() is None
    assert "a Swin of 32 channels, 2 2 6 2 blocks and window 7" in str(checkpoint.architecture())


def test_a_checkpoint_is_a_record() -> None:
    """Without settings of its own, it is told by its shapes."""
    with pytest.raises(ValueError, match=r"weights=nowhere: no whole Mask2Former, it lacks"):
        Checkpoint("nowhere", "ours", {}, None).architecture()


@pytest.mark.parametrize(
    "note",
    [
        "",
        "[]",
        "3",
        '{"legacy_layout": 1, "exits": null, "terms": null}',
        '{"legacy_layout": false, "exits": "[2]", "terms": null}',
        '{"legacy_layout": false, "exits": null, "terms": null, "hydra.run.dir": "/"}',
    ],
)
def test_a_note_that_is_not_ours_is_refused(note: str, tmp_path: Path) -> None:
    """What a file says of itself sets two values and a line of text, or the file is refused."""
    state = {"pixel_decoder.encoder.layers.0.norm1.bias": torch.zeros(1)}
    save_file(state, tmp_path / "odd.safetensors", {NOTE: note})
    with pytest.raises(ValueError, match=r"odd\.safetensors: its note 'ecoscale' is none of ours"):
        read(str(tmp_path / "odd.safetensors"))


ODD = {
    "its gate has 7 exits and its encoder 6 layers": {"gt.head.weight": (7, 256), "gt.head.bias": (7,)},
    "no whole Mask2Former": {"predictor.class_embed.weight": ()},
    "its shapes make num_classes 0": {"predictor.class_embed.weight": (1, 256)},
    "its shapes make num_queries 0": {"predictor.query_feat.weight": (0, 256)},
}


@pytest.mark.parametrize("words", ODD)
def test_shapes_that_make_no_model_are_refused(words: str, tmp_path: Path) -> None:
    """Too few or too many of something, or a number where rows were expected: in one line with the file."""
    state = weights(published.eco_swin_tiny())
    for ending, shape in ODD[words].items():
        (name,) = (name for name in state if name.endswith(ending))
        state[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=f"weights={tmp_path}.*{words}"):
        read(save(state, tmp_path / "model.pth"))


def test_two_names_of_one_weight_are_refused(tmp_path: Path) -> None:
    """Within a file, and in two parts in a folder: neither wins over the other."""
    state = weights(published.mask2former_resnet50())
    with pytest.raises(ValueError, match="another name in the same file stands for"):
        read(save({**older(state), **state}, tmp_path / "model.pth"))
    names = ("model-00001-of-00002.bin", "model-00002-of-00002.bin")
    for name in names:
        torch.save({"pixel_decoder.encoder.layers.0.norm1.bias": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(ValueError, match=f"{names[1]}: .* is also in one of {names[0]}"):
        read(str(tmp_path))


def test_numbers_of_another_kind_are_refused(model: Mask2Former, tmp_path: Path) -> None:
    """Whole numbers do not pass for weights."""
    state = make_small(3).state_dict()
    state["decoder.norm.bias"] = torch.zeros(256, dtype=torch.int32)
    torch.save(state, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"type: decoder\.norm\.bias holds torch\.int32, the model torch\.float32"):
        load_weights(model, str(tmp_path / "other.ckpt"))
