"""Labelling: qualities, costs and gate inputs of every exit, kept in shards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from src.config.build import Experiment, build_run
from src.data.targets import Batch, collate
from src.exit_table.table import ExitTable, read_table
from src.metrics.cost import count
from src.models.gate import Gate, Seen, gate_inputs
from src.models.gate import INPUTS as ALL_INPUTS
from src.tasks.batches import mirror
from src.weights.checkpoint import fingerprint
from tests.helpers import SMALL_MODEL, TINY_SHAPES

INPUTS = [name for name in ALL_INPUTS if not name.endswith("64")]  # a model of masks has no level of that stride
SETTINGS = [
    "+experiment=eco_oracle_shapes",
    *TINY_SHAPES,
    *SMALL_MODEL,
    "callbacks=[labels]",
    "task.postprocess.object_threshold=0.0",
    "task.postprocess.overlap_threshold=0.0",
    "data.eval_batch_size=2",
]


@pytest.fixture
def run(configure: Callable[..., DictConfig]) -> Experiment:
    return build_run(configure(*SETTINGS))


def batch_of(run: Experiment, places: range) -> Batch:
    data: Any = run.data
    return collate([data.val_scenes[place] for place in places])


@torch.no_grad()
def labels_of(run: Experiment, batch: Batch) -> dict[str, Any]:
    task: Any = run.task.eval()
    return task.predict_step(batch, 0)


def label(run: Experiment, folder: Path, **about: Any) -> ExitTable:
    """The table that eight training scenes make, three to a shard."""
    task, data, trainer = run
    settings = {"shard_size": 3, "source": "here", "settings": {}, **task.about(), **about}  # type: ignore[operator]
    data.label(folder, "train", **settings)  # type: ignore[attr-defined]
    trainer.predict(task, data, return_predictions=False)
    return read_table(folder)


@pytest.mark.slow
def test_qualities_are_those_of_each_exit_scored_alone(run: Experiment) -> None:
    """The PQ of single images, as evaluation of one exit has it; costs and inputs are those of the model."""
    task: Any = run.task.eval()
    batch = batch_of(run, range(2))
    labels = labels_of(run, batch)
    with torch.no_grad():
        images = task.model.preprocess(batch.images)
        coarsest, *_ = task.model.pixel_decoder.project(task.model.backbone(images)).levels
    torch.testing.assert_close(labels["inputs"]["mean32"], gate_inputs(Seen({32: coarsest}), ["mean32"])["mean32"])
    costs = count(task.model, images.shape[-2:], pixels=batch.truths[0].segments[0].numel())
    torch.testing.assert_close(labels["cost"][0], torch.tensor([cost.total for cost in costs.values()]))
    for place in range(2):
        single = Batch(*([field[place]] for field in batch))
        task.validation_step(single, 0)
        for column, evaluation in enumerate(task.evaluations.values()):
            assert evaluation.compute()["pq"] / 100 == pytest.approx(float(labels["quality"][place, column]), abs=1e-6)
            evaluation.reset()


@pytest.mark.parametrize("growing", [[], ["schedule=[2,1,1]", "exits=[2,3,4]"]])
def test_what_a_table_records_is_what_a_gate_sees(growing: list[str], configure: Callable[..., DictConfig]) -> None:
    """Every input, in a batch, equals that of the image alone when a gate runs; the table says how wide each is."""
    run = build_run(configure(*SETTINGS, f"task.inputs=[{','.join(INPUTS)}]", *growing))
    task: Any = run.task.eval()
    model, widths = task.model, task.about()["inputs"]
    assert widths == {name: 10 if name == "first_masks" else 32 for name in INPUTS}
    batch = batch_of(run, range(3))
    recorded = labels_of(run, batch)["inputs"]
    seen: list[dict[str, Tensor]] = []
    model.gate = Gate(list(widths.values()), model.exits, list(INPUTS))
    assert model.gate.after == model.exits[0]
    with torch.no_grad():
        for image in batch.images:
            images = model.preprocess([image])
            model.leave(images, lambda one: seen.append(gate_inputs(one, INPUTS)) or [4], model.gate.after)
    for name, values in recorded.items():
        assert values.shape == (3, widths[name])
        torch.testing.assert_close(values, torch.cat([one[name] for one in seen]), atol=1e-5, rtol=1e-4)
        assert values.any() or (growing and name in ("change16", "change8"))
    pooled = torch.cat(list(recorded.values()), 1)
    torch.nn.init.normal_(model.gate.head.weight)
    model.gate.absorb(pooled.mean(0), pooled.std(0) + 1e-6)
    with torch.no_grad():
        expected = [model.exits[place] for place in model.gate.score(pooled).argmax(1).tolist()]
        assert model.leave(model.preprocess(batch.images))[1] == expected


@pytest.mark.slow
def test_labels_do_not_depend_on_the_batch(run: Experiment) -> None:
    """Images of different sizes side by side are labelled as they are alone."""
    batch = batch_of(run, range(3))
    batch.images[1] = torch.nn.functional.pad(batch.images[1], (0, 40))
    together = labels_of(run, batch)
    for place in range(3):
        alone = labels_of(run, Batch(*([field[place]] for field in batch)))
        torch.testing.assert_close(together["inputs"]["mean32"][place], alone["inputs"]["mean32"][0])
        torch.testing.assert_close(together["quality"][place], alone["quality"][0], equal_nan=True, atol=1e-4, rtol=0)
        torch.testing.assert_close(together["cost"][place], alone["cost"][0])


def test_an_image_without_truth_has_no_quality(run: Experiment) -> None:
    """At no exit, whatever is predicted."""
    batch = batch_of(run, range(2))
    batch.truths[0] = batch.truths[0].select(torch.zeros(len(batch.truths[0].labels), dtype=torch.bool))
    quality = labels_of(run, batch)["quality"]
    assert quality[0].isnan().all()
    assert not quality[1].isnan().any()


@pytest.mark.parametrize("segmentation", ["semantic", "instance"])
def test_other_tasks_have_a_quality_too(segmentation: str, configure: Callable[..., DictConfig]) -> None:
    """In 0..1, at every exit."""
    run = build_run(configure(*SETTINGS, f"segmentation={segmentation}"))
    quality = labels_of(run, batch_of(run, range(2)))["quality"]
    assert ((quality >= 0) & (quality <= 1)).all()


@pytest.mark.parametrize("segmentation", ["panoptic", "semantic", "instance"])
def test_the_loss_is_a_quality_that_repeats(segmentation: str, configure: Callable[..., DictConfig]) -> None:
    """Negative and finite at every exit, different at each; the same to the bit again, whatever the seed."""
    run = build_run(configure(*SETTINGS, f"segmentation={segmentation}", "task.quality=loss"))
    batch = batch_of(run, range(2))
    quality = labels_of(run, batch)["quality"]
    assert (quality.isfinite() & (quality < 0)).all()
    assert all(len(row.unique()) == quality.shape[1] for row in quality)
    torch.manual_seed(5)
    assert torch.equal(labels_of(run, batch)["quality"], quality)


def test_an_image_without_a_target_has_no_loss(configure: Callable[..., DictConfig]) -> None:
    """A model of instances has nothing to answer in an image of stuff alone."""
    run = build_run(configure(*SETTINGS, "segmentation=instance", "task.quality=loss"))
    task: Any = run.task
    batch = batch_of(run, range(2))
    isthing = torch.tensor([category.isthing for category in task.categories])
    batch.truths[0] = batch.truths[0].select(~isthing[batch.truths[0].labels])
    quality = labels_of(run, batch)["quality"]
    assert quality[0].isnan().all()
    assert not quality[1].isnan().any()


def test_a_batch_mirrored_twice_is_the_batch(run: Experiment) -> None:
    """Images and truth; mirrored once, both change, and belong together as before."""
    batch = batch_of(run, range(2))
    once, twice = mirror(batch), mirror(mirror(batch))
    assert torch.equal(once.images[0][..., 0], batch.images[0][..., -1])
    assert torch.equal(once.truths[0].segments[..., 0], batch.truths[0].segments[..., -1])
    for image, again, truth, truth_again in zip(batch.images, twice.images, batch.truths, twice.truths, strict=True):
        assert torch.equal(image, again)
        assert torch.equal(truth.segments, truth_again.segments)
    assert once.image_ids == batch.image_ids


@pytest.mark.parametrize("quality", ["score", "loss"])
def test_mirrored_images_are_a_second_measurement(quality: str, configure: Callable[..., DictConfig]) -> None:
    """Equal for a symmetric image; otherwise other numbers, those of the mirrored image with its mirrored truth."""
    run = build_run(configure(*SETTINGS, f"task.quality={quality}"))
    task: Any = run.task
    batch = batch_of(run, range(2))
    for layers in (batch.images[0], batch.truths[0].segments):
        half = layers.shape[-1] // 2
        layers[..., half:] = layers[..., :half].flip(-1)
    plain = labels_of(run, batch)
    by_hand = labels_of(run, mirror(batch))
    task.mirrored = True
    mirrored = labels_of(run, batch)
    for name in ("quality", "cost"):
        assert torch.equal(mirrored[name], by_hand[name])
        assert torch.equal(mirrored[name][0], plain[name][0])
    torch.testing.assert_close(mirrored["inputs"]["std8"][0], plain["inputs"]["std8"][0])
    assert not torch.equal(mirrored["inputs"]["std8"][1], plain["inputs"]["std8"][1])
    if quality == "loss":  # scores of a model that has learnt nothing are all alike
        assert not torch.equal(mirrored["quality"][1], plain["quality"][1])


@pytest.mark.slow
@pytest.mark.parametrize("quality", ["score", "loss"])
def test_a_run_that_was_stopped_goes_on_and_ends_equal(
    quality: str, configure: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first shard nothing of it is labelled again, and the table is that of an unbroken run, bit for bit."""
    settings = [*SETTINGS, f"task.quality={quality}"]
    about = {"settings": {"task.quality": quality}}
    run = build_run(configure(*settings))
    whole = label(run, tmp_path / "whole", **about)
    task: Any = run.task
    step, steps = task.predict_step, []

    def stop(batch: Any, *rest: Any) -> Any:
        steps.append(batch)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return step(batch, 0)

    monkeypatch.setattr(task, "predict_step", stop)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        label(run, tmp_path / "broken", **about)
    assert [file.name for file in (tmp_path / "broken").iterdir()] == ["part-00000.parquet"]
    again = build_run(configure(*settings))
    again.task.load_state_dict(task.state_dict())
    rest = label(again, tmp_path / "broken", **about)
    assert torch.equal(rest.image_ids, whole.image_ids)
    for ours, expected in ((rest.quality, whole.quality), (rest.inputs["mean32"], whole.inputs["mean32"])):
        torch.testing.assert_close(ours, expected, atol=0, rtol=0, equal_nan=True)


def test_a_table_is_whole_only_when_all_is_written(run: Experiment, tmp_path: Path) -> None:
    """What leaves shards out does not end as if it had not."""
    task, data, trainer = cast(Any, run)
    labelling = data.label(tmp_path, "train", shard_size=3, source="", settings={}, **task.about())
    trainer.limit_predict_batches = 2
    trainer.predict(task, data, return_predictions=False)
    with pytest.raises(ValueError, match="2 of 3 shards are missing"):
        labelling.finish()


def test_a_table_of_another_parent_is_refused(run: Experiment, tmp_path: Path) -> None:
    """Naming the folder; nothing in it is touched."""
    label(run, tmp_path / "table")
    task: Any = run.task
    with torch.no_grad():
        task.model.decoder.class_embed.bias += 1
    with pytest.raises(ValueError, match=r"table=.*of another table: parent"):
        label(run, tmp_path / "table")


def test_a_fingerprint_is_of_the_weights_and_not_of_the_gate(run: Experiment) -> None:
    """Any weight changes it; the gate does not."""
    model: Any = run.task.model
    before = fingerprint(model)
    model.gate = torch.nn.Linear(2, 2)
    assert fingerprint(model) == before
    with torch.no_grad():
        model.decoder.query_embed.weight[0, 0] += 1e-3
    assert fingerprint(model) != before


def test_the_oracle_does_not_train(run: Experiment) -> None:
    """It says which command does what."""
    with pytest.raises(ValueError, match=r"python -m src\.label"):
        run.trainer.fit(run.task, run.data)
