r"""Two stages of training: softmax first, then either kernel from the same point.

One trap: each stage begins with a new optimiser, so that the momenta of softmax do not push the
Gaussian kernel; both kernels of stage 2 see the same minibatches.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.attention_kernels.landscape_problems import Problem
from experiments.attention_kernels.training import KERNELS, initial, stage
from meanfield import landscape, nn
from meanfield.kept import Kept

MARGIN = 1.25
"""How far principal directions reach, in units of the longest way along them."""


class Stages(NamedTuple):
    """What two stages of training leave.

    Attributes:
        start: The end of stage 1, seeds along the leading axis.
        paths: From each kernel, stage 2: times, then seeds along the leading axes.
        axes: For each kind of directions, the two of each seed.
        curves: Losses and accuracies of stage 1 ``one_*`` [seed, time] and of stage 2 ``two_*``
            [kernel, seed, time].
    """

    start: Any
    paths: dict[str, Any]
    axes: dict[str, list[tuple[Any, Any]]]
    curves: dict[str, np.ndarray]


def two_stages(config: Any, problem: Problem, kept: Kept, *, progress: bool) -> Stages:
    """Trains under softmax, then under each kernel from where that ended.

    Args:
        config: Lengths and directions.
        problem: The task.
        kept: Where each stage saves itself.
        progress: Whether to show how far it is.
    """
    task, models = problem.task, problem.models
    name = f"{problem.name}, stage 1"
    first = initial(problem.training, models["softmax"])
    ends, one = stage(
        *(problem.training, task, models["softmax"], first),
        label=name if progress else None,
        checkpoints=kept.checkpoints(name),
    )
    start = finite(jax.tree.map(np.asarray, ends[-1]), f"stage 1 of {problem.name}")
    paths, rows = {}, []
    for kernel in KERNELS:
        name = f"{problem.name}, stage 2, {kernel}"
        points, row = stage(
            *(problem.training, task, models[kernel], start),
            order=(2,),
            keep=True,
            label=name if progress else None,
            checkpoints=kept.checkpoints(name),
        )
        finite(jax.tree.map(np.asarray, points[-1]), f"stage 2 of {problem.name} under {kernel}")
        # On the host: taken apart there, points compile nothing.
        paths[kernel] = jax.tree.map(lambda *leaves: np.stack(leaves), *points)
        rows.append(row)
    curves = {f"one_{name}": values for name, values in one.items()}
    curves |= {f"two_{name}": np.stack([row[name] for row in rows]) for name in one}
    axes = {
        kind: [
            directions(kind, config.direction_seed, start, paths, s) for s in range(config.seeds)
        ]
        for kind in config.directions
    }
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


def directions(
    kind: str, key: int, start: Any, paths: dict[str, Any], seed: int
) -> tuple[Any, Any]:
    """The two directions of a seed, the same for both kernels.

    Random ones have the norms of the filters at the end of stage 1. Principal ones are those of
    both kernels' ways to their ends, which count alike, as long as the longest way along each and a
    quarter more.

    Args:
        kind: ``"random"`` or ``"trajectory"``.
        key: The seed of random ones.
        start: The end of stage 1, seeds along the leading axis.
        paths: Stage 2 under each kernel: times, then seeds.
        seed: Number of the seed, from 0.
    """
    if kind == "random":
        here = jax.tree.map(lambda leaf: leaf[seed], start)
        first, second = jax.random.split(jax.random.fold_in(jax.random.key(key), seed))
        return _drawn(first, here), _drawn(second, here)
    # The ways of both kernels, each to its own end and of length 1, in one trajectory that ends at
    # 0: unscaled, the longer way would take both directions.
    ways = [jax.tree.map(lambda leaf: leaf[:, seed] - leaf[-1, seed], paths[k]) for k in KERNELS]
    lengths = [_greatest_norm(way) for way in ways]
    found = landscape.principal_directions(
        jax.tree.map(
            lambda *leaves: np.concatenate([x / y for x, y in zip(leaves, lengths, strict=True)]),
            *ways,
        )
    )
    sizes = np.repeat(lengths, len(np.asarray(found.coordinates)) // len(ways))
    reach = MARGIN * np.abs(sizes[:, None] * np.asarray(found.coordinates)).max(axis=0)
    one, two = (
        jax.tree.map(lambda leaf, r=reach[i]: (r * np.asarray(leaf)).astype(leaf.dtype),
                     found.directions[i])
        for i in range(2)
    )  # fmt: skip
    return one, two


def _greatest_norm(way: Any) -> float:
    squares = [np.sum(leaf**2, axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(way)]
    return float(np.sqrt(np.sum(squares, axis=0).max()))
