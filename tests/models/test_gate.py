import pytest
import torch
from torch import Tensor

from src.models.gate import INPUTS, Gate, gate_inputs

DIM = 6


def make_levels(batch: int = 3) -> list[Tensor]:
    """Random levels of strides 32, 16 and 8, coarsest first."""
    torch.manual_seed(0)
    return [torch.randn(batch, DIM, 2 * scale, 3 * scale) + 1 for scale in (1, 2, 4)]


def make_gate(inputs: tuple[str, ...] = ("mean32",), hidden: int = 0) -> Gate:
    """A gate with biases that are not 0."""
    torch.manual_seed(1)
    gate = Gate(DIM, [1, 2, 4, 6], inputs, hidden)
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter)
    return gate


def test_the_published_gate() -> None:
    """By default the scores are one linear layer of the mean over the tokens of stride 32."""
    levels, gate = make_levels(), make_gate()
    tokens = levels[0].flatten(2)
    expected = tokens.sum(2) / tokens.shape[2] @ gate.head.weight.T + gate.head.bias
    torch.testing.assert_close(gate(levels), expected)
    assert sum(parameter.numel() for parameter in gate.parameters()) == 4 * DIM + 4


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_statistics_are_of_their_stride(stride: int) -> None:
    """Means and standard deviations, the latter of all tokens and not of a sample, are those of the level named."""
    levels = make_levels()
    tokens = levels[[32, 16, 8].index(stride)].flatten(2)
    found = gate_inputs(levels, [f"std{stride}", f"mean{stride}"])
    assert list(found) == [f"std{stride}", f"mean{stride}"]
    torch.testing.assert_close(found[f"std{stride}"], torch.std(tokens, 2, correction=0))
    torch.testing.assert_close(found[f"mean{stride}"], tokens.mean(2))


def test_a_level_of_one_token() -> None:
    """The standard deviation of one token is 0, not nan."""
    assert gate_inputs([torch.ones(1, DIM, 1, 1)], ["std32"])["std32"].tolist() == [[0.0] * DIM]


def test_half_precision_is_pooled_in_full() -> None:
    """Statistics of levels in half precision are float32, as if the levels had been."""
    levels = [level.bfloat16() for level in make_levels()]
    for name, values in gate_inputs(levels, list(INPUTS)).items():
        torch.testing.assert_close(values, gate_inputs([level.float() for level in levels], [name])[name])


@pytest.mark.parametrize("name", ["mean4", "max32", ""])
def test_an_unknown_input(name: str) -> None:
    """An input that there is not is a ValueError with its name and those that there are."""
    with pytest.raises(ValueError, match=f"no '{name}', expected some of mean32, std32, mean16"):
        gate_inputs(make_levels(), ["mean32", name])
    with pytest.raises(ValueError, match=f"no '{name}'"):
        Gate(DIM, [1, 2], [name])(make_levels())


@pytest.mark.parametrize("hidden", [0, 8])
def test_inputs_side_by_side(hidden: int) -> None:
    """A gate of several inputs scores them in the order in which it names them."""
    names = ("std8", "mean32")
    levels, gate = make_levels(), make_gate(names, hidden)
    found = gate_inputs(levels, ["mean32", "std8"])
    torch.testing.assert_close(gate(levels), gate.score(torch.cat([found[name] for name in names], 1)))


@pytest.mark.parametrize("hidden", [0, 8])
@torch.no_grad()
def test_absorbed_statistics(hidden: int) -> None:
    """Once it absorbed their mean and spread, a gate scores raw inputs as it scored standardised ones before."""
    levels, gate = make_levels(16), make_gate(("mean32", "std16"), hidden)
    raw = torch.cat(list(gate_inputs(levels, gate.inputs).values()), 1)
    mean, std = raw.mean(0), raw.std(0)
    before = gate.score((raw - mean) / std)
    gate.absorb(mean, std)
    torch.testing.assert_close(gate.score(raw), before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gate(levels), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hidden", [0, 8])
@torch.no_grad()
def test_a_batch_is_its_images(hidden: int) -> None:
    """Images in a batch are scored as each alone."""
    levels, gate = make_levels(), make_gate(tuple(INPUTS), hidden)
    alone = [gate([level[image : image + 1] for level in levels]) for image in range(3)]
    torch.testing.assert_close(gate(levels), torch.cat(alone))
    assert gate(levels).shape == (3, 4)
