"""Whether a run may be made longer than it was meant to be."""

from typing import Any


def why_not_longer(config: Any) -> str | None:
    """What of the settings spans all epochs, so that with more of them the steps taken would have been others.

    None where nothing does: then a finished run goes on as one that was longer from the start.
    """
    optimizer, penalty = config.optimizer, config.penalty
    if optimizer.schedule != "constant" and optimizer.learning_rate != optimizer.final_learning_rate:
        return f"optimizer.schedule is {optimizer.schedule}"
    if config.early.share:
        return f"early.share is {config.early.share:g}"
    if penalty.weight and (penalty.start, penalty.stop) != (0, 1):
        return f"penalty.start and penalty.stop are {penalty.start:g} and {penalty.stop:g}"
    return None
