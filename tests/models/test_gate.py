import pytest
import torch
from torch import Tensor

from src.models.gate import INPUTS, Gate, Seen, check_visible, gate_inputs, input_widths, layers_seen

DIM, NUM_QUERIES = 6, 5
VISIBLE = tuple(name for name in INPUTS if not name.endswith("64"))  # in a model that segments


def make_levels(batch: int = 3) -> dict[int, Tensor]:
    """Random levels by stride, coarsest first."""
    return {stride: torch.randn(batch, DIM, 64 // stride, 96 // stride) + 1 for stride in (32, 16, 8)}


def make_seen(batch: int = 3) -> Seen:
    """Random levels at three depths, and masks."""
    torch.manual_seed(0)
    masks = torch.randn(batch, NUM_QUERIES, 4, 6)
    return Seen(make_levels(batch), make_levels(batch), make_levels(batch), lambda: masks)


def one_of(seen: Seen, image: int) -> Seen:
    """What is seen of one image."""
    *maps, masks, _ = seen
    parts = [{stride: level[image : image + 1] for stride, level in levels.items()} for levels in maps]
    return Seen(*parts, lambda: masks()[image : image + 1])


def make_gate(inputs: tuple[str, ...] = ("mean32",), hidden: int = 0) -> Gate:
    """A gate with biases that are not 0."""
    torch.manual_seed(1)
    gate = Gate(list(input_widths(inputs, DIM, NUM_QUERIES).values()), [1, 2, 4, 6], inputs, hidden)
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter)
    return gate


def test_the_published_gate() -> None:
    """By default the scores are one linear layer of the mean over the tokens of stride 32."""
    seen, gate = make_seen(), make_gate()
    tokens = seen.levels[32].flatten(2)
    expected = tokens.sum(2) / tokens.shape[2] @ gate.head.weight.T + gate.head.bias
    torch.testing.assert_close(gate(seen), expected)
    assert sum(parameter.numel() for parameter in gate.parameters()) == 4 * DIM + 4


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_statistics_are_of_their_stride(stride: int) -> None:
    """Means and standard deviations, the latter of all tokens and not of a sample, are those of the level named."""
    seen = make_seen()
    tokens = seen.levels[stride].flatten(2)
    found = gate_inputs(seen, [f"std{stride}", f"mean{stride}"])
    assert list(found) == [f"std{stride}", f"mean{stride}"]
    torch.testing.assert_close(found[f"std{stride}"], torch.std(tokens, 2, correction=0))
    torch.testing.assert_close(found[f"mean{stride}"], tokens.mean(2))


def test_a_change_is_that_of_the_last_layer() -> None:
    """Token by token, without regard to its sign, averaged per channel; a level that was not active has none."""
    seen = make_seen()
    seen = seen._replace(latest={**seen.latest, 8: seen.earlier[8]})
    found = gate_inputs(seen, ["change16", "change8"])
    token = (seen.latest[16] - seen.earlier[16])[2, :, 3, 1].abs()
    rest = (seen.latest[16] - seen.earlier[16]).abs().sum((2, 3))[2] - token
    torch.testing.assert_close(found["change16"][2], (token + rest) / 24)
    assert not found["change8"].any()


def test_first_masks_are_described_by_size_and_certainty() -> None:
    """An empty mask covers nothing for certain, a full one all, one of logits 0 half without certainty."""
    logits = torch.tensor([-50.0, 50.0, 0.0])[None, :, None, None].expand(1, 3, 4, 6)
    (values,) = gate_inputs(Seen({}, masks=lambda: logits), ["first_masks"]).values()
    torch.testing.assert_close(values, torch.tensor([[0.0, 1.0, 0.5, 1.0, 1.0, 0.0]]))


def test_only_what_looks_back_waits_for_the_first_exit() -> None:
    """Inputs of projected levels are known before any layer."""
    assert layers_seen(["mean32", "std8"], first_exit=2) == 0
    for name in ("change32", "change8", "first_masks"):
        assert layers_seen(["mean32", name], first_exit=2) == 2
        assert Gate(DIM, [3, 4], [name]).after == 3
        assert Gate(DIM, [3, 4], [name], first_exit=2).after == 2
    assert Gate(DIM, [3, 4], first_exit=2).after == 0


def test_masks_are_computed_only_if_they_are_looked_at() -> None:
    """They cost more than all other inputs."""
    seen = make_seen()._replace(masks=lambda: pytest.fail("computed"))
    gate_inputs(seen, [name for name in VISIBLE if name != "first_masks"])


def test_a_level_of_one_token() -> None:
    """The standard deviation of one token is 0, not nan."""
    assert gate_inputs(Seen({32: torch.ones(1, DIM, 1, 1)}), ["std32"])["std32"].tolist() == [[0.0] * DIM]


def test_half_precision_is_pooled_in_full() -> None:
    """Inputs from half precision are float32, as if the levels had been."""
    *maps, masks, _ = make_seen()
    half = [{stride: level.bfloat16() for stride, level in levels.items()} for levels in maps]
    full = [{stride: level.float() for stride, level in levels.items()} for levels in half]
    rounded = masks().bfloat16()
    expected = gate_inputs(Seen(*full, lambda: rounded.float()), VISIBLE)
    for name, values in gate_inputs(Seen(*half, lambda: rounded), VISIBLE).items():
        torch.testing.assert_close(values, expected[name])


@pytest.mark.parametrize("name", ["mean4", "max32", "change4", ""])
def test_an_unknown_input(name: str) -> None:
    """An input that there is not is a ValueError with its name and those that there are."""
    with pytest.raises(ValueError, match=f"no '{name}', expected some of mean64, std64, mean32.*change8, first_masks$"):
        gate_inputs(make_seen(), ["mean32", name])
    with pytest.raises(ValueError, match=f"no '{name}'"):
        Gate(DIM, [1, 2], [name])


@pytest.mark.parametrize("hidden", [0, 8])
def test_inputs_side_by_side(hidden: int) -> None:
    """A gate of several inputs scores them in the order in which it names them, of whatever widths they are."""
    names = ("first_masks", "std8", "mean32")
    seen, gate = make_seen(), make_gate(names, hidden)
    found = gate_inputs(seen, ["mean32", "std8", "first_masks"])
    torch.testing.assert_close(gate(seen), gate.score(torch.cat([found[name] for name in names], 1)))


@pytest.mark.parametrize("hidden", [0, 8])
@torch.no_grad()
def test_absorbed_statistics(hidden: int) -> None:
    """Once it absorbed their mean and spread, a gate scores raw inputs as it scored standardised ones before."""
    seen, gate = make_seen(16), make_gate(("mean32", "std16"), hidden)
    raw = torch.cat(list(gate_inputs(seen, gate.inputs).values()), 1)
    mean, std = raw.mean(0), raw.std(0)
    before = gate.score((raw - mean) / std)
    gate.absorb(mean, std)
    torch.testing.assert_close(gate.score(raw), before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gate(seen), before, rtol=1e-4, atol=1e-4)
    matrix, offset = torch.rand(4, 4), torch.rand(4)
    gate.transform(matrix, offset)
    torch.testing.assert_close(gate(seen), before @ matrix.T + offset, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hidden", [0, 8])
@torch.no_grad()
def test_a_batch_is_its_images(hidden: int) -> None:
    """Images in a batch are scored as each alone."""
    seen, gate = make_seen(), make_gate(VISIBLE, hidden)
    alone = [gate(one_of(seen, image)) for image in range(3)]
    torch.testing.assert_close(gate(seen), torch.cat(alone))
    assert gate(seen).shape == (3, 4)


def test_padding_is_not_seen() -> None:
    """Statistics of an image in a larger batch are those of the image alone."""
    alone = make_seen(1)
    wider = [
        {stride: torch.nn.functional.pad(level, (0, 3, 0, 2), value=7.0) for stride, level in levels.items()}
        for levels in alone[:3]
    ]
    inside = {}
    for stride, level in alone.levels.items():
        inside[stride] = torch.zeros(wider[0][stride][:, 0].shape, dtype=torch.bool)
        inside[stride][:, : level.shape[2], : level.shape[3]] = True
    names = [name for name in VISIBLE if name != "first_masks"]
    expected = gate_inputs(alone, names)
    for name, values in gate_inputs(Seen(*wider, inside=inside), names).items():
        torch.testing.assert_close(values, expected[name])


def test_what_a_model_does_not_have() -> None:
    """A level that it lacks, or masks: an error that lists what there is, before anything runs and when it does."""
    with pytest.raises(ValueError, match=r"the model has no 'mean64', expected some of mean32, std32, .*first_masks$"):
        gate_inputs(make_seen(), ["mean32", "mean64"])
    with pytest.raises(ValueError, match=r"no 'first_masks', expected some of mean32, std32, change32$"):
        check_visible(["first_masks"], [32], has_masks=False)
    check_visible(["mean64", "change32"], [64, 32], has_masks=False)
