r"""What is measured around the end of stage 2 under one kernel: surface, curvature, ways, maps.

    rise        mean over the plane of R(M + a d_1 + b d_2), minus R(M)
    barrier     height over the line between the risks at the ends, from theta_1 to M and from
                M_softmax to M_gaussian, both under this kernel's risk
    minima      points inside the grid of the surface that lie below their eight neighbours

One trap: the rise is that along two random directions of a risk that may grow without bound under
the unnormalised kernel: a few far corners can make most of it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.attention_kernels.landscape_curvature import curvature
from experiments.attention_kernels.landscape_problems import Problem
from experiments.attention_kernels.landscape_stages import Stages
from experiments.attention_kernels.training import KERNELS
from meanfield import flow, landscape, nn

AT_ONCE = 8
"""Samples of the risk handled at once: what they need stays near a core, twice as fast as all."""
CLOSE = 0.9
"""Cosine above which two tokens are in one cluster."""
BY_HEAD = ("entropy", "rank")
"""What is kept of every layer and head."""


def terrain(config: Any, problem: Problem, stages: Stages, kernel: str) -> dict[str, np.ndarray]:
    """Everything that is measured under one kernel; seeds along the leading axis.

    Args:
        config: What is measured.
        problem: The task.
        stages: Where training led.
        kernel: ``"softmax"`` or ``"gaussian"``.
    """
    risk = flow.empirical_risk(
        problem.models[kernel].apply,
        jnp.asarray(problem.task.x_train[: config.measured]),
        jnp.asarray(problem.task.y_train[: config.measured]),
        loss="cross_entropy",
        chunk=config.chunk or AT_ONCE,
    )
    watch = jax.jit(lambda theta, x: jax.lax.map(lambda s: _maps(problem, kernel, theta, s), x))
    samples = jnp.asarray(longest(problem.task.x_test, config.observed))
    rows = []
    for seed in range(config.seeds):
        end = _point(stages.paths[kernel], -1, seed)
        row = curvature(config, risk, end, seed) | _ways(config, risk, stages, kernel, seed)
        # A matrix that lost rank has no condition number: the median bears some of them.
        seen = {name: np.asarray(value) for name, value in watch(end, samples).items()}
        row |= {name: np.median(seen[name], axis=0) for name in BY_HEAD}
        row |= {name: np.median(value) for name, value in seen.items() if name not in BY_HEAD}
        rows.append(row)
    found = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
    grid = np.linspace(-config.span, config.span, config.points)
    end = _point(stages.paths[kernel], -1, 0)
    surfaces = np.stack([
        np.asarray(landscape.plane(risk, end, axes[0], grid, grid)) for axes in stages.axes.values()
    ])  # fmt: skip
    lowest = np.array([minima(surface) for surface in surfaces])
    return found | {"grid": grid, "surface": surfaces, "minima": lowest}


def together(both: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Both kernels' measurements, kernels along the leading axis.

    Args:
        both: What :func:`terrain` gave for each.
    """
    found = {name: np.stack([one[name] for one in both]) for name in both[0]}
    return found | {"grid": both[0]["grid"]}


def longest(samples: np.ndarray, number: int) -> np.ndarray:
    """The samples with the least padding: with fewer tokens than dimensions none has full rank.

    Args:
        samples: Ids, 0 where there is padding; images are taken as they come.
        number: How many.
    """
    if not np.issubdtype(samples.dtype, np.integer):
        return samples[:number]
    padding = np.count_nonzero(samples == 0, axis=1)
    return samples[np.argsort(padding, kind="stable")[:number]]


def minima(surface: np.ndarray) -> int:
    """How many points inside a grid lie below all eight neighbours.

    Args:
        surface: Values on the grid.
    """
    rows, columns = surface.shape
    inner = surface[1:-1, 1:-1]
    lowest = np.ones(inner.shape, bool)
    for down in (0, 1, 2):
        for right in (0, 1, 2):
            if (down, right) != (1, 1):
                beside = surface[down : rows - 2 + down, right : columns - 2 + right]
                lowest &= inner < beside
    return int(lowest.sum())


def _ways(config: Any, risk: Any, stages: Stages, kernel: str, seed: int) -> dict[str, Any]:
    """Barriers, the mean rise over the first plane, and the shadows of stage 2 in all of them."""
    start = _point(stages.start, seed)
    ends = [_point(stages.paths[name], -1, seed) for name in KERNELS]
    end, planes = ends[KERNELS.index(kernel)], [axes[seed] for axes in stages.axes.values()]
    of_stages = landscape.barrier(risk, start, end, points=config.between)
    of_kernels = landscape.barrier(risk, *ends, points=config.between)
    grid = np.linspace(-config.span, config.span, config.coarse)
    coarse = np.asarray(landscape.plane(risk, end, planes[0], grid, grid))
    path = jax.tree.map(lambda leaf: leaf[:, seed], stages.paths[kernel])
    shadows = [landscape.project(path, end, axes) for axes in planes]
    return {
        "shares": of_stages.shares,
        "stage_way": of_stages.risks,
        "stage_barrier": of_stages.height,
        "kernel_way": of_kernels.risks,
        "kernel_barrier": of_kernels.height,
        "risk": of_stages.risks[-1],
        "rise": coarse.mean() - np.asarray(of_stages.risks)[-1],
        "shadow": np.stack([np.asarray(one.coordinates) for one in shadows]),
        "outside": np.stack([np.asarray(one.residuals)[0] for one in shadows]),
    }


def _maps(problem: Problem, kernel: str, theta: Any, sample: Any) -> dict[str, Any]:
    """Observables of all attention maps and of the tokens, for one sample."""
    network = problem.models[kernel].network
    tokens, mask = problem.models[kernel].embedding.apply(theta.embedding, sample)
    weights = nn.attention_maps(network, theta.blocks, tokens, mask)[0]
    read, attended = network.states(theta.blocks, tokens, mask)
    # The feed-forward half-step reads what attention left: their difference is its update.
    update = attended - read
    last = network.apply(theta.blocks, tokens, mask)
    if mask is not None:
        # Padding is no token: it would count as further rows of zero.
        kept = jnp.asarray(mask, update.dtype)[None, :, None]
        update, read = update * kept, read * kept
    ratios = nn.attention_conditioning(update, read)
    return {
        "entropy": nn.attention_entropy(weights, queries=mask),
        "rank": nn.effective_rank(weights, rows=mask),
        "clustering": nn.token_clustering(last, threshold=CLOSE, mask=mask),
        "condition": ratios.attention,
        "condition_skip": ratios.residual,
    }


def _point(tree: Any, *places: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[places], tree)
