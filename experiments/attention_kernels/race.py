"""Two attention kernels trained on one task, seed by seed alike.

Seed s has the same initial parameters and the same minibatches under both kernels, so kernels are
compared within each seed. Model and training are in
:mod:`experiments.attention_kernels.training`.
"""

import numpy as np

from experiments._together import side_by_side
from experiments.attention_kernels.training import KERNELS, Task, Training, model_of, trained


def curves(config: Training, task: Task, *, progress: bool) -> dict[str, np.ndarray]:
    """Losses and accuracies [kernel, seed, time] of both kernels; after a divergence, NaN.

    Args:
        config: The training.
        task: What to train on.
        progress: Whether to show how far it is.
    """
    if len(task.y_train) < config.batch:
        raise ValueError(
            f"batch must be at most the {len(task.y_train)} training samples, got {config.batch}"
        )

    def train(kernel: str) -> dict[str, np.ndarray]:
        model = model_of(config, task.embedding, kernel)
        return trained(config, task, model, label=kernel if progress else None)

    runs = side_by_side(train, KERNELS)
    every = {name: np.stack([run[name] for run in runs]) for name in runs[0]}
    times = np.linspace(0, config.steps, config.saves).round().astype(int)
    return {"steps": times, "epochs": times * config.batch / len(task.y_train), **every}
