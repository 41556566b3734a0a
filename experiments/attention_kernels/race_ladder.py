"""The learning rate of each kernel, chosen on samples that neither training nor test holds.

Each rate of a ladder trains one run of a seed that does not race, for a share of the steps; the
least validation loss at its end wins, and a rate that diverged loses.

One trap: what is best after a share of the steps may not be best after all of them, mostly it is
too high; and a rate at an edge of the ladder says that the ladder is too short.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.attention_kernels.training import Lanes, Task, Training, stage

SEED = 0
"""The seed of the ladder; those of the race begin at 1."""


class Choice(NamedTuple):
    """A learning rate and what it was chosen from.

    Attributes:
        factor: The rate chosen, in units of the configuration's.
        losses: Validation loss of each rate, NaN where it diverged or none was tried.
    """

    factor: float
    losses: np.ndarray


def choice(
    config: Training,
    task: Task,
    model: Any,
    start: Any,
    valid: tuple[np.ndarray, np.ndarray],
    /,
    *,
    label: str | None,
    checkpoints: Any = None,
) -> Choice:
    """The rate of the ladder with the least validation loss.

    Args:
        config: The training.
        task: What to train on; its test part is not looked at.
        model: The model.
        start: Initial parameters of one seed that does not race, on the host.
        valid: Samples and labels to choose on.
        label: What the progress is called; none is shown if None.
        checkpoints: Where the trials save themselves; nowhere if None.
    """
    rungs = len(config.ladder)
    if rungs == 1:
        return Choice(config.ladder[0], np.full(1, np.nan))
    steps = trial_steps(config)
    # A schedule of the trial's own, which ends at 0 as the race's does. Two segments: the least
    # that a training may have.
    short = dataclasses.replace(config, seeds=rungs, steps=steps, saves=3)
    aside = Task(task.embedding, task.x_train, task.y_train, *valid)
    lanes = Lanes((SEED,) * rungs, config.ladder)
    alike = jax.tree.map(lambda leaf: np.stack([leaf] * rungs), start)
    _, found = stage(short, aside, model, alike, label=label, lanes=lanes, checkpoints=checkpoints)
    losses = np.where(np.isfinite(found["accuracy"][:, -1]), found["test_loss"][:, -1], np.nan)
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    return Choice(config.ladder[best], losses)


def trial_steps(config: Training) -> int:
    """Steps of each trial, an even number.

    Args:
        config: The training.

    >>> trial_steps(Training(steps=1000, trial=0.3))
    300
    """
    return 2 * max(1, round(config.steps * config.trial / 2))
