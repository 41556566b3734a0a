r"""Two stages of training: softmax first, then either kernel from the same point.

One trap: each stage begins with a new optimiser, so that the momenta of softmax do not push the
Gaussian kernel; both kernels of stage 2 see the same minibatches.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import _byte_sentiment, _pathfinder_data
from experiments.attention_kernels import pathfinder, text
from experiments.attention_kernels.training import KERNELS, Task, initial, model_of, stage
from meanfield import landscape, nn

TASKS = ("text", "pathfinder")
TESTED = 200
"""Test samples of each task."""
MARGIN = 1.25
"""How far principal directions reach, in units of the longest way along them."""
SHARED = (
    "seeds", "depth", "dim", "heads", "head_dim", "neurons", "bandwidth", "normalize", "batch",
    "saves", "chunk", "measured",
)  # fmt: skip


class Problem(NamedTuple):
    """A task, and how both kernels train on it.

    Attributes:
        name: ``"text"`` or ``"pathfinder"``.
        task: Samples and embedding.
        training: The training of stage 1; of stage 2 but for the number of steps.
        models: The model under each kernel.
        data: What the data are, in the words of a report.
        checksums: Their checksums.
    """

    name: str
    task: Task
    training: Any
    models: dict[str, nn.Model]
    data: str
    checksums: dict[str, str]


class Stages(NamedTuple):
    """What two stages of training leave.

    Attributes:
        start: The end of stage 1, seeds along the leading axis.
        paths: From each kernel, stage 2: times, then seeds along the leading axes.
        axes: The two directions of each seed.
        curves: Losses and accuracies of stage 1 ``one_*`` [seed, time] and of stage 2 ``two_*``
            [kernel, seed, time].
    """

    start: Any
    paths: dict[str, Any]
    axes: list[tuple[Any, Any]]
    curves: dict[str, np.ndarray]


def problem(config: Any, name: str) -> Problem:
    """One task of the configuration.

    Args:
        config: The sizes.
        name: ``"text"`` or ``"pathfinder"``.
    """
    shared = {field: getattr(config, field) for field in SHARED}
    # A constant rate: a cycle that ends at 0 would stop stage 2 by its length alone.
    shared |= {"steps": config.stage_one, "warmup": 0}
    if name == "text":
        training = text.Config(learning_rate=config.text_rate, length=config.length, **shared)
        texts = _byte_sentiment.byte_sentiment(
            reviews=config.reviews, test_reviews=TESTED, length=config.length
        )
        embedding = nn.byte_text(length=config.length, dim=config.dim)
        task = Task(embedding, texts.x_train, texts.y_train, texts.x_test, texts.y_test)
        said, checksums = f"{texts.name}, {config.length} bytes each", texts.checksums
    else:
        training = pathfinder.Config(
            learning_rate=config.pathfinder_rate, tokens=config.tokens, patch=config.patch, **shared
        )
        options = {} if config.distractors is None else {"distractors": config.distractors}
        images, dots = _pathfinder_data.generated(
            images=config.images, test_images=TESTED, size=config.size, dashes=config.dashes,
            spread=config.spread, **options,
        )  # fmt: skip
        task = pathfinder.task_of(training, images)
        said = f"{images.name}; the distance of the dots alone is right in {100 * dots:.0f} %"
        checksums = {images.name: images.sha256}
    if config.batch > len(task.y_train) or config.measured > len(task.y_train):
        raise ValueError(
            f"batch and measured must be at most the {len(task.y_train)} training samples of "
            f"{name}, got {config.batch} and {config.measured}"
        )
    models = {kernel: model_of(training, task.embedding, kernel) for kernel in KERNELS}
    return Problem(name, task, training, models, said, checksums)


def two_stages(config: Any, problem: Problem, *, progress: bool) -> Stages:
    """Trains under softmax, then under each kernel from where that ended.

    Args:
        config: Lengths and directions.
        problem: The task.
        progress: Whether to show how far it is.
    """
    task, models = problem.task, problem.models
    label = f"{problem.name}, stage 1" if progress else None
    first = initial(problem.training, models["softmax"])
    ends, one = stage(problem.training, task, models["softmax"], first, label=label)
    start = finite(jax.tree.map(np.asarray, ends[-1]), f"stage 1 of {problem.name}")
    second = dataclasses.replace(problem.training, steps=config.stage_two)
    paths, rows = {}, []
    for kernel in KERNELS:
        label = f"{problem.name}, stage 2, {kernel}" if progress else None
        points, row = stage(second, task, models[kernel], start, order=(2,), keep=True, label=label)
        finite(jax.tree.map(np.asarray, points[-1]), f"stage 2 of {problem.name} under {kernel}")
        # On the host: taken apart there, points compile nothing.
        paths[kernel] = jax.tree.map(lambda *leaves: np.stack(leaves), *points)
        rows.append(row)
    curves = {f"one_{name}": values for name, values in one.items()}
    curves |= {f"two_{name}": np.stack([row[name] for row in rows]) for name in one}
    axes = [directions(config, start, paths, seed) for seed in range(config.seeds)]
    return Stages(start, paths, axes, curves)


def finite(theta: Any, what: str) -> Any:
    """The parameters, if all of them are finite.

    Args:
        theta: Parameters on the host.
        what: How a message calls them.

    Raises:
        ValueError: Otherwise.
    """
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(theta)):
        raise ValueError(
            f"{what} must stay finite to have a landscape, but it diverged; lower its learning rate"
        )
    return theta


@jax.jit
def _drawn(key: Any, here: Any) -> Any:
    # Neurons have one bias each: behind their axes of particles these are one-dimensional.
    filters = nn.Theta(0, (2,) * len(here.blocks), 0)
    return landscape.random_direction(key, here, filters=filters)


def directions(config: Any, start: Any, paths: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """The two directions of a seed, the same for both kernels.

    Random ones have the norms of the filters at the end of stage 1. Principal ones are those of
    both kernels' ways to their ends, as long as the longest way along each and a quarter more.

    Args:
        config: Which directions, and their seed.
        start: The end of stage 1, seeds along the leading axis.
        paths: Stage 2 under each kernel: times, then seeds.
        seed: Number of the seed, from 0.
    """
    if config.directions == "random":
        key = jax.random.fold_in(jax.random.key(config.direction_seed), seed)
        here = jax.tree.map(lambda leaf: leaf[seed], start)
        first, second = jax.random.split(key)
        return _drawn(first, here), _drawn(second, here)
    # The ways of both kernels, each to its own end, in one trajectory that ends at 0.
    ways = [jax.tree.map(lambda leaf: leaf[:, seed] - leaf[-1, seed], paths[k]) for k in KERNELS]
    found = landscape.principal_directions(
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *ways)
    )
    reach = MARGIN * np.abs(np.asarray(found.coordinates)).max(axis=0)
    one, two = (
        jax.tree.map(lambda leaf, r=reach[i]: r * np.asarray(leaf), found.directions[i])
        for i in range(2)
    )
    return one, two
