"""Two attention kernels trained on one task, seed by seed alike.

Seed s has the same initial parameters and the same minibatches under both kernels, so kernels are
compared within each seed; each trains at a learning rate of its own, chosen in
:mod:`experiments.attention_kernels.race_ladder`. Model and training are in
:mod:`experiments.attention_kernels.training`.

One trap: the validation part is taken out of the training samples and never out of the test part;
the learning rate and the time to stop are chosen on it.
"""

import jax
import numpy as np

from experiments._together import side_by_side
from experiments.attention_kernels import race_facts, race_ladder
from experiments.attention_kernels.training import (
    KERNELS,
    Lanes,
    Task,
    Training,
    initial,
    model_of,
    stage,
)
from meanfield.kept import Kept

DRAWN = 1
"""Seed of the draw of the validation part."""


def curves(config: Training, task: Task, kept: Kept, *, progress: bool) -> dict[str, np.ndarray]:
    """What both kernels leave: losses and accuracies [kernel, seed, time], the ladder, averages.

    ``rates`` [kernel] and the ladder's ``rungs`` and ``rung_losses`` [kernel, rung] are learning
    rates; ``late`` and ``whole`` [kernel, seed, test sample] are the shares of the last quarter and
    of all of training in which a test sample was right. After a divergence there is NaN.

    Args:
        config: The training.
        task: What to train on.
        kept: Where each training saves itself.
        progress: Whether to show how far it is.

    Raises:
        ValueError: If the training samples are too few for a batch and a validation part.
    """
    apart, valid = validated(config, task)
    models = {kernel: model_of(config, task.embedding, kernel) for kernel in KERNELS}
    racing = tuple(range(1, config.seeds + 1))
    # One program for all: they do not depend on the kernel, and taking them apart on the host
    # compiles nothing.
    drawn = jax.device_get(initial(config, models["softmax"], seeds=(race_ladder.SEED, *racing)))
    aside = jax.tree.map(lambda leaf: leaf[0], drawn)
    start = jax.tree.map(lambda leaf: leaf[1:], drawn)

    def train(kernel: str) -> dict[str, np.ndarray]:
        model, ladder = models[kernel], f"{kernel}, learning rates"
        found = race_ladder.choice(
            *(config, apart, model, aside, valid),
            label=ladder if progress else None,
            checkpoints=kept.checkpoints(ladder),
        )
        lanes = Lanes(racing, (found.factor,) * config.seeds)
        _, rows = stage(
            *(config, apart, model, start),
            label=kernel if progress else None,
            lanes=lanes,
            samples=True,
            checkpoints=kept.checkpoints(kernel),
        )
        rate = np.asarray(config.learning_rate * found.factor)
        return rows | {"rates": rate, "rung_losses": found.losses}

    runs = side_by_side(train, KERNELS, keep=kept.members("kernel"))
    every = {name: np.stack([run[name] for run in runs]) for name in runs[0]}
    times = np.linspace(0, config.steps, config.saves).round().astype(int)
    every |= {"steps": times, "epochs": times * config.batch / len(apart.y_train)}
    every["rungs"] = config.learning_rate * np.asarray(config.ladder)
    # Answers at every time would outweigh all the rest of the record; two averages are enough.
    right = every.pop("right")
    return every | race_facts.averages(every, right)


def validated(config: Training, task: Task) -> tuple[Task, tuple[np.ndarray, np.ndarray]]:
    """The task with a part of its training samples set aside, and that part.

    Args:
        config: How many.
        task: What to train on.

    Raises:
        ValueError: If what is left is less than a batch.
    """
    samples = len(task.y_train)
    if samples < config.batch + config.held_out:
        raise ValueError(
            f"batch and held_out must together be at most the {samples} training samples, "
            f"got {config.batch} and {config.held_out}"
        )
    order = np.random.default_rng(DRAWN).permutation(samples)
    # Unsorted: files hold classes in runs, and the first samples stand for all in a training loss.
    held, kept = order[: config.held_out], order[config.held_out :]
    valid = (task.x_train[held], task.y_train[held])
    return task._replace(x_train=task.x_train[kept], y_train=task.y_train[kept], valid=valid), valid
