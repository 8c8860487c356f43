"""Arguments of Lightning's classes that this project replaces; each is refused with what to use instead.

docs/trainer.md lists all arguments, also those that work.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

STREAM = "src.data.module.SegmentationData"


class Instead(NamedTuple):
    """What to use instead of an argument, and its values that are accepted nevertheless."""

    use: str
    taken: Sequence[Any] = (None,)


STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")

TRAINER = {
    "val_check_interval": Instead("validate_every=N, in optimiser steps"),
    "accumulate_grad_batches": Instead("batch_size_per_device=N; batch_size stays that of a step", (1,)),
    "gradient_clip_algorithm": Instead("norm: gradients are clipped by the norm of all of them", (None, "norm")),
    "fast_dev_run": Instead("trainer.max_steps=1 validate_every=1 trainer.limit_val_batches=1", (False, None, 0)),
    "overfit_batches": Instead("a data set of a few images, for example data.train.num_scenes=8", (0, 0.0)),
    "limit_test_batches": Instead("trainer.limit_val_batches, in training and in src.evaluate"),
    "limit_predict_batches": Instead("nothing: src.label labels every image, or its table would not be whole"),
    "reload_dataloaders_every_n_epochs": Instead("0: the data stay the same", (0,)),
    "use_distributed_sampler": Instead("false: the data know the processes", (False,)),
    "enable_checkpointing": Instead("~callbacks.checkpoint, ~callbacks.last", (None, True)),
    "barebones": Instead("~callbacks.NAME, ~logger, trainer.enable_progress_bar=false", (False,)),
    "callbacks": Instead("callbacks=[default,ema], or +callbacks.NAME._target_=CLASS for another", ()),
    "logger": Instead("logger=NAME or ~logger", ()),
    "default_root_dir": Instead("hydra.run.dir=FOLDER"),
    "model_registry": Instead("logger=wandb, which keeps checkpoints as artifacts"),
    "strategy": Instead(f"one of {', '.join(STRATEGIES)}", (*STRATEGIES, "DDPStrategy")),
    "precision": Instead(f"one of {', '.join(PRECISIONS)}", PRECISIONS),
    "plugins": Instead(
        "trainer.precision and trainer.strategy; a cluster is known by its environment variables",
        (None, "AtomicCheckpointIO"),
    ),
}
OF_A_STREAM = {  # training on images is one endless stream: an epoch that ends with the run
    "max_epochs": Instead("trainer.max_steps=N, epochs x images / batch_size"),
    "min_epochs": Instead("trainer.min_steps=N", (None, 0)),
    "limit_train_batches": Instead("trainer.max_steps=N"),
    "check_val_every_n_epoch": Instead("validate_every=N, in optimiser steps", (None, 1)),
}
CHECKPOINT = {
    "save_last": Instead("callbacks.last, which writes last.ckpt", (None, False)),
    "train_time_interval": Instead("callbacks.last.minutes=N, which writes last.ckpt, or every_n_train_steps=N"),
    "verbose": Instead("false: the run folder says what was saved", (False,)),
}
CHECKPOINT_OF_A_STREAM = {"every_n_epochs": Instead("every_n_train_steps=N", (None, 0, 1))}


def refused(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield name, value and replacement of arguments that have no effect, or break what this project does itself."""
    places = {"trainer": settings.get("trainer")}
    places |= {f"callbacks.{name}": callback for name, callback in (settings.get("callbacks") or {}).items()}
    for place, arguments in places.items():
        table = instead(settings, place, arguments)
        for name, value in (arguments or {}).items():
            if name in table and not is_taken(value, table[name].taken):
                yield f"{place}.{name}", value, table[name].use


def instead(settings: Mapping[str, Any], place: str, arguments: Any) -> dict[str, Instead]:
    """Return the replaced arguments of the trainer or the callback at a place, by name."""
    stream = (settings.get("data") or {}).get("_target_") == STREAM
    if place == "trainer":
        return TRAINER | (OF_A_STREAM if stream else {})
    if str(name_of(arguments)).endswith("Checkpoint"):  # Lightning's and those made from it
        return CHECKPOINT | (CHECKPOINT_OF_A_STREAM if stream else {})
    return {}


def is_taken(value: Any, taken: Sequence[Any]) -> bool:
    """Whether a value, or each one of a list, is accepted; unresolved ones (`${}`) are."""
    values = value if isinstance(value, list) and value else [value]
    return all(name_of(one) in taken or (isinstance(one, str) and "${" in one) for one in values)


def name_of(value: Any) -> Any:
    """A value itself, or the name of the class that makes it."""
    return str(value.get("_target_")).rpartition(".")[-1] if isinstance(value, Mapping) else value
