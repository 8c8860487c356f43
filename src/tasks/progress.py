"""Restore the progress of Lightning's loops from the step of a checkpoint alone."""

from typing import Any


def set_progress(checkpoint: dict[str, Any], batches_per_step: int) -> None:
    """Set the loops' counters in a checkpoint so that training resumes after its step, wherever it was saved.

    Lightning resumes from counters of batches. They do not cover every place where a checkpoint can be saved, and they
    are wrong if the number of batches in a step changes. `FinalValidation` keeps the rest of the progress.
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
