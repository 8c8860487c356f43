"""Where Lightning's loops stand, by the step of a checkpoint alone."""

from typing import Any


def set_progress(checkpoint: dict[str, Any], batches_per_step: int) -> None:
    """Have Lightning's loops go on after the step of a checkpoint, wherever in them it was saved.

    Lightning tells from counters of batches what was done besides steps, and cannot tell every place; nor do counters
    hold when a step is made of another number of batches. Here steps alone tell: `FinalValidation` keeps the rest.
    """
    loops, step = checkpoint["loops"]["fit_loop"], checkpoint["global_step"]
    batches = step * batches_per_step
    at_the_end_of_a_batch = {"ready": batches, "started": batches, "processed": batches, "completed": batches - 1}
    loops["epoch_loop.batch_progress"] |= {
        "total": at_the_end_of_a_batch,
        "current": dict(at_the_end_of_a_batch),
        "is_last_batch": False,
    }
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = step - 1
    nothing = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    loops["epoch_progress"] |= {"total": nothing, "current": dict(nothing)}
    loops["epoch_loop.val_loop.batch_progress"] |= {"total": dict(nothing), "current": dict(nothing)}
