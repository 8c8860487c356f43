"""A gate that runs: each image is scored at the exit that the gate sends it to."""

import csv
import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import pytest
import torch
from hydra import compose as compose_config
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from torch import Tensor

from src.config.build import Experiment, build_run
from src.data.targets import Batch, collate
from src.metrics.budget import Budget
from src.metrics.cost import count
from src.metrics.exit_choice import mean_cost
from src.metrics.mean_iou import MeanIoU, semantic_map
from src.models.gate import Gate, Seen, gate_inputs
from src.records.latency_table import LatencyTable, Row, update
from src.system.machine import machine_of
from src.tasks.gate_targets import Lines, Rows
from src.tasks.gate_training import GateTraining
from src.tasks.gated_evaluation import load_gate
from src.weights.checkpoint import fingerprint
from tests.helpers import ROOT, SMALL_MODEL, TINY_SHAPES

pytestmark = pytest.mark.slow

EXITS = [1, 2, 3, 4]
INPUTS = ["mean32", "std16"]
LOOK_BACK = ["change16", "first_masks"]
BETA = 0.05
NUM_SCENES, NUM_HOLDOUT = 8, 40
SETTINGS = [
    "+experiment=eco_parent_shapes",
    *TINY_SHAPES,
    *SMALL_MODEL,
    "dim=64",  # two of 64 channels share a group norm, which leaves the mean of a channel alone
    "num_queries=20",
    "image_size=[64,64]",
    f"data.val.num_scenes={NUM_SCENES}",
    "data.eval_batch_size=3",
    "~logger",
    "task.postprocess.object_threshold=0.0",
    "task.postprocess.overlap_threshold=0.0",
]


class Made(NamedTuple):
    """A parent and its gates, as files."""

    folder: Path
    gatings: dict[str, GateTraining]  # by target
    settings: list[str]  # of an evaluation of the parent

    def run(self, *overrides: str, callbacks: str = "", primary: str = "evaluate") -> Experiment:
        """What src.evaluate composes, or another command, with callbacks only where they are asked for."""
        settings = [*self.settings, f"callbacks=[{callbacks}]", *overrides]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose_config(primary, settings)
        HydraConfig.instance().cfg = None
        return build_run(cfg)

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.ckpt"

    def gated(self, target: str, *overrides: str) -> Any:
        """The task with a gate of some target."""
        return self.run(f"gate={self.file(target)}", *overrides).task.eval()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Random weights, and random gates that send eight scenes to several exits, their inputs far from standardised."""
    folder = tmp_path_factory.mktemp("gated")
    made = Made(folder, {}, [*SETTINGS, f"paths.run={folder / 'run'}"])
    run = made.run("seed=0")
    save(made.file("parent"), run.task.state_dict(), {"overrides": SETTINGS})
    made.settings.append(f"model.weights={made.file('parent')}")
    for target, hidden, names in (("exit", 0, INPUTS), ("quality", 8, INPUTS), ("gain", 0, LOOK_BACK)):
        inputs = gate_inputs(seen_of(run, scenes(run).images), names)
        gating = made_gating(target, hidden, inputs, fingerprint(run.task.model))  # type: ignore[arg-type]
        save(made.file(target), gating.state_dict(), dict(gating.hparams))
        made.gatings[target] = gating
    return made


@pytest.fixture(scope="module")
def parent(made: Made) -> Any:
    """The model alone, not to be changed."""
    task: Any = made.run().task
    return task.model.eval()


def save(file: Path, state: dict[str, Tensor], hyper_parameters: dict[str, Any]) -> None:
    """As Lightning does."""
    version = lightning.__version__
    torch.save({"state_dict": state, "hyper_parameters": hyper_parameters, "pytorch-lightning_version": version}, file)


@torch.no_grad()
def made_gating(target: str, hidden: int, inputs: dict[str, Tensor], parent: str) -> GateTraining:
    """Standardises by these inputs (N, F); what it keeps of a holdout is of inputs that scatter as they do."""
    pooled = torch.cat(list(inputs.values()), 1)
    table = {
        "exits": EXITS,
        "first_exit": 1,
        "inputs": {name: values.shape[1] for name, values in inputs.items()},
        "parent": parent,
        "source": "parent.ckpt",
        "segmentation": "panoptic",
        "num_holdout": NUM_HOLDOUT,
        "mean": pooled.mean(0).tolist(),
        "std": pooled.std(0).tolist(),
    }
    torch.manual_seed(3)
    gate = partial(Gate, inputs=list(inputs), hidden=hidden)
    gating = GateTraining(gate, torch.optim.AdamW, table, target, BETA)  # type: ignore[arg-type]
    torch.nn.init.xavier_uniform_(gating.gate.head.weight)
    if target == "quality":
        gating.gate.head.weight.mul_(0.3)
        gating.gate.head.bias.copy_(torch.tensor([0.4, 0.5, 0.6, 0.7]))
        gating.holdout_scores.copy_(gating(pooled.mean(0) + pooled.std(0) * torch.randn(NUM_HOLDOUT, len(pooled[0]))))
        gating.holdout_cost.copy_(torch.rand(NUM_HOLDOUT, 1) + 0.1 * torch.tensor(EXITS))
    if target == "gain":
        gating.lines = Lines([0.3, 0.2, 0.1], [0.1, 0.05, 0.02])
        gating.hparams["gate"] |= gating.lines._asdict()
        scores = gating.in_lines(gating(pooled.mean(0) + pooled.std(0) * torch.randn(NUM_HOLDOUT, len(pooled[0]))))
        quality = (0.4 + scores + 0.2 * torch.randn(scores.shape)).clamp(0, 1)
        gating.set_price(Rows(scores, quality, torch.rand(NUM_HOLDOUT, 1) + 0.1 * torch.tensor(EXITS)))
    return gating


def scenes(run: Experiment) -> Batch:
    data: Any = run.data
    return collate([data.val_scenes[place] for place in range(NUM_SCENES)])


def single(batch: Batch, place: int) -> Batch:
    return Batch._make([field[place]] for field in batch)


@torch.no_grad()
def seen_of(run: Experiment, images: list[Tensor]) -> Seen:
    """What a gate sees after the first layer."""
    model: Any = run.task.eval().model
    seen: list[Seen] = []
    model.leave(model.preprocess(images), lambda one: seen.append(one) or [1] * len(images), after=1)  # type: ignore[func-returns-value]
    return seen[0]


@torch.no_grad()
def validate_step(task: Any, batch: Batch) -> dict[str, Any]:
    return task.validation_step(batch, 0)


def scores_of(run: Experiment) -> dict[str, float]:
    """All that a validation logs."""
    run.trainer.validate(run.task, run.data, verbose=False)
    return {name: float(value) for name, value in run.trainer.callback_metrics.items()}


@torch.no_grad()
@pytest.mark.parametrize("target", ["exit", "quality", "gain"])
def test_the_gate_that_runs_is_the_gate_that_was_trained(target: str, made: Made) -> None:
    """Raw levels are scored as their standardised statistics were, and sent to the exit that was chosen then."""
    run, gating = made.run(), made.gatings[target]
    model: Any = run.task.model
    gate = load_gate(str(made.file(target)), model)
    seen = seen_of(run, scenes(run).images)
    scores = gating.in_lines(gating(torch.cat(list(gate_inputs(seen, gate.inputs).values()), 1)))
    torch.testing.assert_close(gate(seen), scores, atol=1e-4, rtol=0)
    expected = [EXITS[place] for place in gating.choose(scores).tolist()]
    assert gate.choose(seen) == expected
    assert len(set(expected)) > 2
    assert not any(parameter.requires_grad for parameter in gate.parameters())


@pytest.mark.parametrize("target", ["exit", "quality", "gain"])
def test_each_image_is_answered_at_its_exit(target: str, made: Made) -> None:
    """As a plain evaluation of that exit alone answers, on images of two sizes; the answer says which exit."""
    task, plain = made.gated(target), made.run().task.eval()
    batch = scenes(made.run())
    batch.images[1] = torch.nn.functional.pad(batch.images[1], (0, 40))
    answers = validate_step(task, batch)["answers"]
    exits = [answer.exit for answer in answers]
    assert len(set(exits)) > 2
    alike = []
    for place, answer in enumerate(answers):
        by_exit = [at_exit(plain, depth, single(batch, place)) for depth in EXITS]
        same = [torch.equal(one.panoptic.ids, answer.panoptic.ids) for one in by_exit]
        alike += same
        assert same[EXITS.index(answer.exit)]
        assert torch.equal(by_exit[EXITS.index(answer.exit)].panoptic.labels, answer.panoptic.labels)
        assert torch.equal(by_exit[EXITS.index(answer.exit)].semantic, answer.semantic)
    assert sum(alike) < 2 * len(answers)  # exits do answer differently


def at_exit(plain: Any, depth: int, batch: Batch) -> Any:
    """What an evaluation of one exit makes of one image."""
    plain.model.exits = [depth]
    (answer,) = validate_step(plain, batch)["answers"]
    return answer


def test_a_batch_of_several_sizes_is_its_images(made: Made) -> None:
    """Answers, exits and costs come in the order of the images, and are those of single runs."""
    task = made.gated("exit")
    batch = scenes(made.run())
    for place, side in ((0, 96), (3, 40), (5, 96)):
        batch.images[place] = torch.nn.functional.interpolate(batch.images[place][None], (64, side))[0]
    together = validate_step(task, batch)
    for place in range(NUM_SCENES):
        alone = validate_step(task, single(batch, place))
        (expected,) = alone["answers"]
        assert together["answers"][place].exit == expected.exit
        assert torch.equal(together["answers"][place].panoptic.ids, expected.panoptic.ids)
        assert together["gflops"][place] == alone["gflops"][0]
    costs = {
        side: count(task.model, (64, side), pixels=64 * 64)[together["answers"][place].exit].total
        for place, side in ((0, 96), (3, 40), (1, 64))
    }
    assert [together["gflops"][place] for place in (0, 3, 1)] == pytest.approx(list(costs.values()))


def test_what_is_logged_is_the_mean_over_images(made: Made) -> None:
    """Depth, cost and shares follow from the exits, scores from the answers; no exit is logged by itself."""
    run, task = made.run(f"gate={made.file('quality')}"), made.gated("quality")
    batch = scenes(run)
    logged = scores_of(run)
    answers = validate_step(task, batch)["answers"]
    exits = [answer.exit for answer in answers]
    costs = count(task.model, (64, 64))
    expected = {f"share_exit{depth}": exits.count(depth) / len(exits) for depth in EXITS}
    expected["depth"] = sum(exits) / len(exits)
    expected["image_gflops"] = sum(costs[depth].total for depth in exits) / len(exits)
    expected["beta"] = BETA
    expected["miou"] = miou_of(task, answers, batch)
    assert {name: logged[f"val/{name}/gate"] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert expected["miou"] > 0
    assert logged["val/miou"] == logged["val/miou/gate"]
    assert logged["val/quality"] == logged["val/pq"] == logged["val/pq/gate"]
    assert not [name for name in logged if "/exit" in name]


def miou_of(task: Any, answers: list[Any], batch: Batch) -> float:
    """In percent."""
    miou = MeanIoU(len(task.categories))
    for answer, truth in zip(answers, batch.truths, strict=True):
        miou.update(answer.semantic, semantic_map(truth.segments, truth.labels))
    return 100 * float(miou.compute()["miou"])


def test_a_validation_is_of_its_own_images(made: Made) -> None:
    """What an earlier one saw, of fewer images here, is forgotten."""
    run = made.run(f"gate={made.file('exit')}")
    run.trainer.limit_val_batches = 1
    few = scores_of(run)
    run.trainer.limit_val_batches = 1.0
    later = scores_of(run)
    expected = scores_of(made.run(f"gate={made.file('exit')}"))
    assert later == pytest.approx(expected, nan_ok=True)
    assert few["val/depth/gate"] != later["val/depth/gate"]


def test_each_way_is_the_answer_that_is_scored(made: Made) -> None:
    """Image by image: the last prediction of an exit alone, and where the gate lets it leave."""
    task = made.gated("exit")
    images = made.run().data.val_scenes[0].image[None].float()  # type: ignore[attr-defined]
    ways = task.ways()
    assert list(ways) == ["exit1", "exit2", "exit3", "exit4", "gate"]
    with torch.no_grad():
        (gated, depths), whole = ways["gate"](images), task.model(images)
        for depth in (1, 2, 3, 4):
            ((name, alone),) = ways[f"exit{depth}"](images).items()
            assert name == depth
            torch.testing.assert_close(alone[-1].mask_logits, whole[depth][-1].mask_logits)
    torch.testing.assert_close(gated.mask_logits, whole[depths[0]][-1].mask_logits)


def test_a_gate_is_timed_beside_the_exits(made: Made) -> None:
    """Exits that nobody scored in this run have their latency and cost alone."""
    small = ["callbacks.latency.images=2", "callbacks.latency.rounds=1"]
    run = made.run(f"gate={made.file('exit')}", *small, callbacks="default,latency")
    run.trainer.validate(run.task, run.data, verbose=False)
    content = json.loads((made.folder / "run" / "scores.json").read_text())
    assert content["gate"]["latency_ms"] > 0
    assert {*content["exits"]} == {"1", "2", "3", "4"}
    assert all({*row} == {"latency_ms", "encoder_gflops", "total_gflops"} for row in content["exits"].values())
    classes = content["classes"]["gate"]
    means = [scores["iou"] for scores in classes.values() if "iou" in scores]
    assert sum(means) / len(means) == pytest.approx(content["gate"]["miou"], abs=1e-4)


def test_a_run_leaves_its_scores_and_exits(made: Made) -> None:
    """In scores.json the gate's, in exits.csv a row for each image, and pictures."""
    run = made.run(f"gate={made.file('exit')}", callbacks="default,exits")
    logged = scores_of(run)
    kept = json.loads((made.folder / "run" / "scores.json").read_text())
    assert kept["exits"] == {}
    assert kept["gate"]["depth"] == logged["val/depth/gate"]
    with (made.folder / "run" / "exits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["image_id"]) for row in rows] == list(range(NUM_SCENES))
    assert sum(int(row["exit"]) for row in rows) / NUM_SCENES == pytest.approx(kept["gate"]["depth"])
    assert sum(float(row["gflops"]) for row in rows) / NUM_SCENES == pytest.approx(kept["gate"]["image_gflops"])
    assert len(list((made.folder / "run" / "pictures").glob("*.png"))) == NUM_SCENES


def test_the_cost_of_the_gate_is_counted(made: Made) -> None:
    """An image costs what its exit does and a gate."""
    without = count(made.run().task.model, (64, 64))
    task = made.gated("exit")
    outputs = validate_step(task, single(scenes(made.run()), 0))
    gate = 64 * len(INPUTS) * len(EXITS) / 1e9
    assert outputs["gflops"] == pytest.approx([without[outputs["answers"][0].exit].total + gate], abs=1e-10)


@torch.no_grad()
def test_a_larger_beta_never_deepens_an_exit(made: Made, parent: Any) -> None:
    """Image by image; from none at all to one at which every image takes the shallowest."""
    seen = seen_of(run := made.run(), scenes(run).images)
    by_beta = [load_gate(str(made.file("quality")), parent, beta).choose(seen) for beta in (0.0, 0.05, 0.2, 5.0)]
    for less, more in pairwise(by_beta):
        assert all(deep >= shallow for deep, shallow in zip(less, more, strict=True))
    assert by_beta[0] != by_beta[1] != by_beta[2]
    assert by_beta[3] == [1] * NUM_SCENES


def test_a_beta_can_be_set_in_an_evaluation(made: Made) -> None:
    """It is logged, and here all images leave at the shallowest exit."""
    logged = scores_of(made.run(f"gate={made.file('quality')}", "beta=5"))
    assert (logged["val/beta/gate"], logged["val/depth/gate"], logged["val/share_exit1/gate"]) == (5, 1, 1)


def test_a_budget_is_kept_to_on_the_holdout(made: Made, parent: Any) -> None:
    """The mean cost there is within it, and a larger budget takes no larger beta."""
    kept = made.gatings["quality"]
    scores, cost = kept.holdout_scores, kept.holdout_cost
    least, most = float(cost[:, 0].mean()), float(cost[:, -1].mean())
    budgets = [least + share * (most - least) for share in (0.05, 0.3, 0.5, 0.7, 0.95)]
    betas = [load_gate(str(made.file("quality")), parent, None, Budget(budget)).beta for budget in budgets]
    assert betas == sorted(betas, reverse=True)
    assert betas[0] > betas[-1]
    for budget, beta in zip(budgets, betas, strict=True):
        assert mean_cost(scores, cost, EXITS, beta) <= budget
        assert beta == 0 or mean_cost(scores, cost, EXITS, beta - 1e-6) > budget


def test_a_gate_of_gain_takes_another_beta_or_budget(made: Made, parent: Any) -> None:
    """Without them the price is that of training; it is a larger one for a larger beta, and meets each budget."""
    kept, file = made.gatings["gain"], str(made.file("gain"))
    assert load_gate(file, parent).beta == load_gate(file, parent, BETA).beta == kept.price
    prices = [load_gate(file, parent, beta).beta for beta in (0.0, 0.02, 0.1, 0.3, 1.0)]
    assert prices == sorted(prices)
    assert prices[0] < prices[2] < prices[-1]
    scores, cost = kept.holdout_scores, kept.holdout_cost
    for budget in torch.linspace(float(cost[:, 0].mean()), float(cost[:, -1].mean()), 12)[1:-1].tolist():
        price = load_gate(file, parent, None, Budget(budget)).beta
        assert 0 <= budget - mean_cost(scores, cost, EXITS, price) <= 0.3 / NUM_HOLDOUT
    logged = scores_of(made.run(f"gate={file}", "beta=1.0"))
    assert (logged["val/depth/gate"], logged["val/beta/gate"]) == (1, pytest.approx(prices[-1]))


def test_looking_back_is_paid_for(made: Made) -> None:
    """An image costs what its exit does, and what the first masks take at stride 16."""
    without = count(made.run().task.model, (64, 64))
    task = made.gated("gain")
    outputs = validate_step(task, single(scenes(made.run()), 0))
    extra = outputs["gflops"][0] - without[outputs["answers"][0].exit].total
    pixels, dim, queries = 4 * 4, 64, 20
    fused = pixels * (4 * dim + 9 * dim**2 + 5 * dim + dim**2 + queries * dim)
    assert 1e9 * extra == pytest.approx(fused + queries * (5 * dim + 3 * dim**2) + len(EXITS) * (dim + 40), rel=1e-4)


def test_a_gate_of_before_runs_as_it_did(made: Made, parent: Any, tmp_path: Path) -> None:
    """Checkpoints say less that were written before inputs had widths and scores lines."""
    for target in ("exit", "quality"):
        content = torch.load(made.file(target), weights_only=True)
        about = content["hyper_parameters"]["gate"]
        for name in ("first_exit", "price", "centre", "slope", "offset"):
            del about[name]
        about["dim"] = 64
        torch.save(content, tmp_path / "before.ckpt")
        ours, before = (load_gate(str(file), parent) for file in (made.file(target), tmp_path / "before.ckpt"))
        assert (ours.after, before.after, ours.beta) == (0, 0, before.beta)
        for name, value in before.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value)


def test_a_budget_can_be_set_in_an_evaluation(made: Made, parent: Any) -> None:
    """The beta that it comes to is logged."""
    budget = float(made.gatings["quality"].holdout_cost[:, 1].mean())
    logged = scores_of(made.run(f"gate={made.file('quality')}", f"budget_gflops={budget}"))
    gate = load_gate(str(made.file("quality")), parent, None, Budget(budget))
    assert logged["val/beta/gate"] == pytest.approx(gate.beta)


def times(made: Made, *milliseconds: float) -> str:
    """The setting of a file with the times of this machine: these at the four exits for an image of one GFLOP."""
    rows = [Row((64, 64), depth, 1.0, ms, ms, ms, 3) for depth, ms in zip(EXITS, milliseconds, strict=True)]
    table = LatencyTable(machine_of(torch.device("cpu")), "torch 2.0", "float32", "2026-11-27", rows)
    update(made.folder / "times.json", table)
    return f"latency={made.folder / 'times.json'}"


def test_a_budget_in_milliseconds_is_one_in_gflops(made: Made) -> None:
    """Where every exit takes as long for a GFLOP; the beta is the same."""
    budget = float(made.gatings["quality"].holdout_cost[:, 1].mean())
    latency, gate = times(made, *[100.0] * 4), f"gate={made.file('quality')}"
    expected = made.run(gate, f"budget_gflops={budget}").task
    found = made.run(gate, f"budget_ms={100 * budget}", latency).task
    assert found.model.gate.beta == pytest.approx(expected.model.gate.beta) != 0  # type: ignore[union-attr]


@pytest.mark.parametrize("setting", ["budget_gflops", "budget_ms"])
@pytest.mark.parametrize("target", ["exit", "quality", "gain"])
def test_no_image_costs_more_than_its_budget(target: str, setting: str, made: Made) -> None:
    """With a gate of any target, at the price of its training: the others leave where they did."""
    free = made.gated(target)
    batch = scenes(made.run())
    before = validate_step(free, batch)["answers"]
    assert len({answer.exit for answer in before}) > 1
    deepest = max(answer.gflops for answer in before)
    costs = free.image_costs(batch, 0)
    limit = costs[EXITS.index(max(answer.exit for answer in before)) - 1]
    assert limit < deepest
    budget = [f"{setting}={limit * (100 if setting == 'budget_ms' else 1)}", "budget_per_image=true"]
    kept = made.gated(target, *budget, times(made, *[100.0] * 4))
    after = validate_step(kept, batch)["answers"]
    assert kept.model.gate.beta == free.model.gate.beta
    assert max(answer.gflops for answer in after) <= limit
    for one, other in zip(before, after, strict=True):
        assert other.exit == one.exit or one.gflops > limit
    images = kept.model.preprocess(batch.images[:1])
    with torch.no_grad():
        _, depths = kept.ways()["gate"](images)
    assert depths == [after[0].exit]


def test_beta_goes_with_a_budget_of_every_image(made: Made) -> None:
    """It chooses among the exits that an image can afford."""
    limit = max(made.run().task.cost_of((64, 64), 64 * 64))  # type: ignore[union-attr, operator]
    task = made.gated("quality", "beta=0.2", f"budget_gflops={limit}", "budget_per_image=true")
    assert task.model.gate.beta == 0.2


def test_an_image_that_can_afford_no_exit(made: Made) -> None:
    """Is an error that says what the cheapest costs."""
    task = made.gated("exit", "budget_ms=1e-6", "budget_per_image=true", times(made, 1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"budget_ms=1e-06: an image costs 0.0\d+ at the shallowest exit, 1"):
        validate_step(task, scenes(made.run()))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["gate={quality}", "budget_ms=9"], "budget_ms=9: no .*latency.json; python -m src.measure"),
        (["gate={quality}", "budget_ms=9", "latency={folder}/none.json"], "none.json: no such file; python -m"),
        (["gate={quality}", "budget_ms=9", "latency={parent}"], "parent.ckpt: cannot be read"),
        (["gate={quality}", "budget_ms=9", "latency={folder}/other.json"], "no table of this machine .* a GPU"),
    ],
)
def test_times_that_are_not_there(overrides: list[str], said: str, made: Made) -> None:
    """One line that names the file and the command that measures."""
    rows = [Row((64, 64), 1, 1.0, 1.0, 1.0, 1.0, 3)]
    update(made.folder / "other.json", LatencyTable("a GPU", "torch 2.0", "float32", "2026-11-27", rows))
    names = {name: made.file(name) for name in ("quality", "parent")}
    with pytest.raises((ValueError, OSError), match=said) as error:
        made.run(*(override.format(**names, folder=made.folder) for override in overrides))
    assert "\n" not in str(error.value)
    assert "python -m src.measure" in str(error.value)


def test_without_a_gate_every_exit_is_scored(made: Made) -> None:
    """As the task of training scores it: the same names and values."""
    ours = scores_of(made.run())
    expected = scores_of(made.run(primary="config"))
    assert ours == pytest.approx(expected, nan_ok=True)
    assert {f"val/pq/exit{depth}" for depth in EXITS} <= set(ours)


def test_weights_can_have_a_gate_of_their_own(made: Made, tmp_path: Path) -> None:
    """It chooses as `Mask2Former.leave` has it."""
    own: Any = made.run("model/gate=linear", "model.weights=null").task
    torch.nn.init.normal_(own.model.gate.head.weight)
    save(tmp_path / "own.ckpt", own.state_dict(), {})
    overrides = ["model/gate=linear", f"model.weights={tmp_path / 'own.ckpt'}", "gate=own"]
    logged = scores_of(run := made.run(*overrides))
    task: Any = made.run(*overrides).task.eval()
    batch = scenes(run)
    images = task.model.preprocess(batch.images)
    with torch.no_grad():
        _, expected = task.model.leave(images)
    assert [answer.exit for answer in validate_step(task, batch)["answers"]] == expected
    assert {"val/pq/gate", "val/depth/gate", "val/share_exit4/gate"} <= set(logged)
    assert logged["val/depth/gate"] == pytest.approx(sum(expected) / NUM_SCENES)


def refused(made: Made, *overrides: str) -> str:
    """What is said when the task is built."""
    with pytest.raises(InstantiationException) as error:
        made.run(*overrides)
    assert isinstance(error.value.__cause__, ValueError | OSError)
    return str(error.value.__cause__)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["gate={exit}", "beta=0.1"], ("beta=0.1", "0.05", "fixed by the training")),
        (["gate={exit}", "budget_gflops=1"], ("budget_gflops=1", "fixed by the training")),
        (["gate={quality}", "beta=0.1", "budget_gflops=1"], ("beta=0.1", "budget_gflops=1", "one of them")),
        (["gate={quality}", "budget_gflops=99"], ("budget_gflops=99", "every image at exit 1", "at exit 4")),
        (["gate={quality}", "budget_gflops=0.001"], ("budget_gflops=0.001", "every image at exit 1")),
        (["beta=0.1"], ("beta=0.1", "gate=FILE")),
        (["beta=0"], ("beta=0:", "gate=FILE")),
        (["budget_gflops=1"], ("budget_gflops=1", "gate=FILE")),
        (["gate={quality}", "budget_gflops=1", "budget_ms=1", "{times}"], ("budget_gflops=1", "budget_ms=1", "one of")),
        (["gate={quality}", "beta=0.1", "budget_ms=1", "{times}"], ("beta=0.1", "budget_ms=1", "one of them")),
        (["gate={exit}", "budget_ms=1", "{times}"], ("budget_ms=1", "fixed by the training")),
        (["gate={quality}", "budget_ms=1e-9", "{times}"], ("budget_ms=1e-09", "every image at exit 1", "at exit 4")),
        (["budget_ms=1", "{times}"], ("budget_ms=1", "gate=FILE")),
        (["gate={quality}", "budget_per_image=true"], ("budget_per_image=true", "budget_gflops=N or budget_ms=N")),
        (["gate={exit}", "segmentation=semantic"], ("segmentation=panoptic", "semantic")),
        (["gate=own"], ("gate=own", "no gate")),
        (["gate=own", "model/gate=linear", "model.weights=null", "beta=0.1"], ("beta=0.1", "gate=own")),
        (["gate={exit}", "exits=[1,2]"], ("[1, 2, 3, 4]", "exits=[1, 2]")),
        (["gate={exit}", "model.weights=null", "seed=1"], ("trained for", "parent.ckpt", "ckpt_path=")),
        (["gate={missing}"], ("missing.ckpt", "no such file")),
        (["gate={parent}"], ("parent.ckpt", "no checkpoint of a gate", "eco_gate")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused(overrides: list[str], said: tuple[str, ...], made: Made) -> None:
    """With the setting, its value and what was expected."""
    files: dict[str, object] = {name: made.file(name) for name in ("exit", "quality", "parent", "missing")}
    files["times"] = times(made, 1, 2, 3, 4)
    message = refused(made, *(override.format(**files) for override in overrides))
    for words in said:
        assert words in message
    assert "\n" not in message


def test_any_weight_makes_it_another_parent(made: Made) -> None:
    """One number of one layer is enough."""
    model: Any = made.run().task.model
    load_gate(str(made.file("exit")), model)
    with torch.no_grad():
        model.pixel_decoder.encoder.layers[3].linear1.bias[0] += 1e-3
    with pytest.raises(ValueError, match=r"trained for the weights .* of parent\.ckpt, and the model has"):
        load_gate(str(made.file("exit")), model)


def test_the_beta_of_training_may_be_repeated(made: Made, parent: Any) -> None:
    """Of a gate that has it in its labels nothing is taken off the scores, whether or not it is said."""
    assert load_gate(str(made.file("exit")), parent, BETA).beta == load_gate(str(made.file("exit")), parent).beta == 0
    assert load_gate(str(made.file("quality")), parent).beta == BETA


def text(content: dict[str, Any], file: Path) -> None:
    file.write_text("not a checkpoint\n")


def without(part: str, name: str) -> Callable[[dict[str, Any], Path], None]:
    """What lacks one thing."""

    def write(content: dict[str, Any], file: Path) -> None:
        section = content["hyper_parameters"]["gate"] if part == "gate" else content[part]
        del section[name]
        torch.save(content, file)

    return write


def other(name: str, value: Any) -> Callable[[dict[str, Any], Path], None]:
    """What holds something else under one name."""

    def write(content: dict[str, Any], file: Path) -> None:
        section = content["state_dict"] if name in content["state_dict"] else content["hyper_parameters"]["gate"]
        section[name] = value
        torch.save(content, file)

    return write


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(text, id="text"),
        pytest.param(lambda content, file: torch.save([1, 2], file), id="a list"),
        pytest.param(lambda content, file: torch.save({}, file), id="nothing"),
        *(
            pytest.param(without(part, name), id=f"without {name}")
            for part, name in [
                ("gate", "dim"),
                ("gate", "parent"),
                ("gate", "beta"),
                ("state_dict", "mean"),
                ("state_dict", "holdout_cost"),
                ("state_dict", "gate.head.bias"),
            ]
        ),
        *(
            pytest.param(other(name, value), id=f"other {name}")
            for name, value in [
                ("gate.head.weight", torch.zeros(4, 7)),
                ("mean", torch.zeros(7)),
                ("std", torch.ones(7)),
                ("std", torch.ones(1)),
                ("holdout_scores", torch.zeros(3, 2)),
                ("dim", 32),
                ("dim", [64, 32]),
                ("slope", [1.0]),
                ("price", "much"),
                ("exits", [1, 2]),
                ("inputs", ["mean4", "std16"]),
            ]
        ),
    ],
)
def test_a_file_that_is_no_gate_is_refused(
    write: Callable[[dict[str, Any], Path], None], made: Made, parent: Any, tmp_path: Path
) -> None:
    """In one line that names it, whatever is wrong with it."""
    write(torch.load(made.file("quality"), weights_only=True), tmp_path / "wrong.ckpt")
    with pytest.raises(ValueError, match=r"wrong\.ckpt") as error:
        load_gate(str(tmp_path / "wrong.ckpt"), parent)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("gate", ["null", "quality"])
def test_it_does_not_train(gate: str, made: Made) -> None:
    """It says which command does what."""
    run = made.run(f"gate={made.file(gate) if gate != 'null' else gate}")
    with pytest.raises(ValueError, match=r"python -m src\.evaluate, not src\.train"):
        run.trainer.fit(run.task, run.data)


def test_training_is_refused_with_the_settings_of_training(made: Made, configure: Callable[..., DictConfig]) -> None:
    """As somebody types it who means src.evaluate."""
    run = build_run(configure(*SETTINGS, "callbacks=[]", "task=gated"))
    with pytest.raises(ValueError, match=r"python -m src\.evaluate, not src\.train"):
        run.trainer.fit(run.task, run.data)
