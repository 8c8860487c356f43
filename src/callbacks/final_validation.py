"""The validation of the last step, and of a step whose validation was interrupted."""

from typing import Any

from lightning import Callback, Trainer


class FinalValidation(Callback):
    """Validates the last step of a training, whatever ended it, and a resumed step that was not validated yet.

    It has to come before other callbacks, which finish their work when training ends.
    """

    def __init__(self) -> None:
        self.validated = 0  # the newest validated step
        self.due = False  # whether a validation of the current step follows or is running

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self.validated, "due": self.due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validated, self.due = state_dict["validated"], state_dict["due"]

    def on_train_start(self, trainer: Trainer, task: Any) -> None:
        """Repeat a validation that was interrupted."""
        if self.due:
            self.validate(trainer, task)

    def on_train_batch_end(self, trainer: Trainer, task: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Make Lightning validate the last step, and note whether a validation follows."""
        if 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True  # else it ends without, unless the last step is validated anyway
        fetcher: Any = trainer.fit_loop._data_fetcher
        self.due = trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)

    def on_validation_end(self, trainer: Trainer, task: Any) -> None:
        """Note that the current step is validated."""
        if not trainer.sanity_checking:
            self.validated, self.due = trainer.global_step, False

    def validate(self, trainer: Trainer, pl_module: Any) -> None:
        """Validate the current step as Lightning does between two steps, unless it is validated already."""
        step = trainer.global_step
        if step == self.validated or not trainer.enable_validation:
            return
        loop, connector = trainer.fit_loop.epoch_loop, trainer._logger_connector
        kept = loop._batches_that_stepped, connector._first_loop_iter
        loop._batches_that_stepped = step - 1  # a validation is logged at the step before it
        trainer.validating = True
        loop.val_loop.run()
        trainer.training = True
        loop._batches_that_stepped, connector._first_loop_iter = kept

    on_train_end = validate  # if something else than the number of steps ended training, such as its time
    on_fit_end = validate  # if a resumed run had done all its steps, so that training neither starts nor ends
