"""The validation of the last step, and of a step whose validation was broken off."""

from typing import Any

import lightning


class FinalValidation(lightning.Callback):
    """Validates the last step of a training, whatever ended it, and what a run that goes on has not validated yet.

    It stands before other callbacks, which close their books when training ends.
    """

    def __init__(self) -> None:
        self.validated = 0  # the newest step that was
        self.due = False  # whether a validation of the current step is to come, or runs

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on has to know."""
        return {"validated": self.validated, "due": self.due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.validated, self.due = state_dict["validated"], state_dict["due"]

    def on_train_start(self, trainer: lightning.Trainer, task: Any) -> None:
        """Make up for a validation that did not come to its end."""
        if self.due:
            self.validate(trainer)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Have Lightning validate the last step, and note whether a validation follows."""
        if 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True  # it would end without, where the last step is not one that is validated anyway
        fetcher: Any = trainer.fit_loop._data_fetcher
        self.due = trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)

    def on_validation_end(self, trainer: lightning.Trainer, task: Any) -> None:
        """Note that it is done."""
        if not trainer.sanity_checking:
            self.validated, self.due = trainer.global_step, False

    def on_train_end(self, trainer: lightning.Trainer, task: Any) -> None:
        """Validate the last step where something else ended training, such as its time."""
        self.validate(trainer)

    def on_fit_end(self, trainer: lightning.Trainer, task: Any) -> None:
        """The same where a run that goes on has had all its steps, so that training neither starts nor ends."""
        self.validate(trainer)

    def validate(self, trainer: lightning.Trainer) -> None:
        """Validate the current step, if it was not, as Lightning does between two steps."""
        step = trainer.global_step
        if step == self.validated or not trainer.enable_validation:
            return
        loop, connector = trainer.fit_loop.epoch_loop, trainer._logger_connector
        kept = loop._batches_that_stepped, connector._first_loop_iter
        loop._batches_that_stepped = step - 1  # what is logged of a validation stands at the step before it
        trainer.validating = True
        loop.val_loop.run()
        trainer.training = True
        loop._batches_that_stepped, connector._first_loop_iter = kept
