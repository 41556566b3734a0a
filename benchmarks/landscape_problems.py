"""Risks for the landscape benchmark, and the bare evaluations that a surface is compared with.

    surface   theta + a d_1 + b d_2 made where it is used, then the risk there
    bare      the risk at parameters that lie ready in memory, stacked along an axis of points

One trap: bare evaluations at one and the same point could be done once by the compiler; the stack
is what keeps them apart.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from meanfield import flow, landscape, nn, tasks

SURFACE, BARE, LOOP = "surface", "bare", "loop of Python"


class Problem(NamedTuple):
    """A risk, a point and two directions."""

    risk: Callable[[Any], Any]
    parameters: Any
    directions: tuple[Any, Any]


def transformer(key: Any, *, samples: int, context: int, depth: int, width: int) -> Problem:
    """In-context regression by a Transformer of a few heads and as many times eight neurons."""
    keys = jax.random.split(key, 4)
    data = tasks.in_context_regression(keys[0], samples, context=context, dim=15)
    blocks = (nn.attention(dim=16, head_dim=8), nn.mlp(dim=16))
    model = nn.model(nn.identity(), nn.network(blocks, depth=depth), nn.label_read())
    theta = model.init(keys[1], width=(width, 8 * width))
    risk = flow.empirical_risk(model.apply, data.tokens, data.labels)
    return Problem(risk, theta, _directions(keys[2:], theta))


def regression(key: Any, *, samples: int, dim: int) -> Problem:
    """Least squares, whose risk uses every parameter only once for each sample."""
    keys = jax.random.split(key, 4)
    inputs = jax.random.normal(keys[0], (samples, dim))
    theta = jax.random.normal(keys[1], (dim,)) / dim**0.5
    risk = jax.tree_util.Partial(_squares, inputs, jnp.ones(samples))
    return Problem(risk, theta, _directions(keys[2:], theta, vectors="normalise"))


def _squares(inputs: Any, targets: Any, theta: Any) -> Any:
    return jnp.mean((inputs @ theta - targets) ** 2) / 2


def _directions(keys: Any, theta: Any, *, vectors: str = "zero") -> tuple[Any, Any]:
    first, second = (landscape.random_direction(k, theta, vectors=vectors) for k in keys)
    return first, second


def contenders(
    problem: Problem, *, points: int, chunks: tuple[int, ...]
) -> dict[tuple[str, int], Callable]:
    """Functions of no argument that give all risks of a surface, by kind and chunk.

    Args:
        problem: The risk, its point and its plane.
        points: Along each side of the grid.
        chunks: Points evaluated side by side.
    """
    side = np.linspace(-1.0, 1.0, points)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    stack = _stacked(problem.parameters, problem.directions, grid)
    functions: dict[tuple[str, int], Callable] = {}
    for chunk in chunks:
        functions[SURFACE, chunk] = partial(_surface, problem, side, chunk=chunk)
        functions[BARE, chunk] = partial(_bare, problem.risk, stack, chunk=chunk)
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i], stack) for i in range(len(grid))]
    functions[LOOP, 1] = partial(_one_by_one, problem.risk, rows)
    return functions


@jax.jit
def _stacked(parameters: Any, directions: Any, grid: Any) -> Any:
    def at(steps: Any) -> Any:
        a, b = steps.astype(jnp.result_type(*jax.tree.leaves(parameters)))
        return jax.tree.map(lambda leaf, d, e: leaf + a * d + b * e, parameters, *directions)

    return jax.vmap(at)(grid)


def _surface(problem: Problem, side: np.ndarray, *, chunk: int) -> np.ndarray:
    found = landscape.plane(
        problem.risk, problem.parameters, problem.directions, side, side, chunk=chunk
    )
    return np.asarray(found).ravel()


def _bare(risk: Any, stack: Any, *, chunk: int) -> np.ndarray:
    return np.asarray(_bare_risks(risk, stack, chunk=chunk))


@partial(jax.jit, static_argnames="chunk")
def _bare_risks(risk: Any, stack: Any, *, chunk: int) -> Any:
    return jax.lax.map(risk, stack, batch_size=None if chunk == 1 else chunk)


@jax.jit
def _risk(risk: Any, theta: Any) -> Any:
    return risk(theta)


def _one_by_one(risk: Any, rows: list) -> np.ndarray:
    return np.asarray(jnp.stack([_risk(risk, row) for row in rows]))
