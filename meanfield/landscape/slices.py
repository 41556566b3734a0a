r"""A risk along lines and over planes of parameters.

    line      R(theta + a d)                    plane    R(theta + a d_1 + b d_2)

A slice costs its risk evaluations and little more: points are made where they are used, ``chunk``
of them side by side. NaN and infinity are values like others: a landscape may have cliffs.

One trap: a trajectory drawn into a plane is its shadow; ``project`` says how much of it is not in
the plane.

References:
    Goodfellow, Vinyals and Saxe 2015, arXiv 1412.6544 (lines); Li et al. 2018, arXiv 1712.09913
    (planes).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from meanfield import checks
from meanfield.landscape.inputs import (
    as_partial,
    check_direction,
    check_parameters,
    one_number,
    trajectory_length,
)
from meanfield.notation import Risk
from meanfield.tree import dot, squared_norm

CHUNK = 8
"""Points evaluated side by side unless asked otherwise; a GPU is filled by more."""


class Projection(NamedTuple):
    """A trajectory in the plane (or along the line) of some directions.

    Attributes:
        coordinates: Of the nearest point in the plane, for every time.
        residuals: The share of |theta_t - centre|^2 that is not in the plane, in [0, 1]; 0 at the
            centre itself.
    """

    coordinates: Float[Array, "t c"]
    residuals: Float[Array, "t"]


def line(
    risk: Risk,
    parameters: PyTree,
    direction: PyTree,
    steps: Any,
    /,
    *,
    chunk: int = CHUNK,
) -> Float[Array, "n"]:
    """The risk along a line.

    Args:
        risk: A function of the parameters.
        parameters: theta, where the step is 0.
        direction: d, a tree of the shapes of theta.
        steps: The values of a, a list or an array of them.
        chunk: Points evaluated side by side: more of them need more memory.

    Returns:
        R(theta + a d) for every a.

    Raises:
        ValueError: A direction of other structure or shapes, no steps, a chunk that is not a
            positive integer, a risk that is not one number.

    >>> line(lambda x: jnp.sum(x**2), jnp.zeros(2), jnp.array([1.0, 0.0]), [0.0, 2.0]).tolist()
    [0.0, 4.0]
    """
    check_parameters("parameters", parameters)
    check_direction("direction", direction, parameters)
    points = _coordinates("steps", steps)[:, None]
    return risks_at(risk, parameters, (direction,), points, chunk=chunk)


def plane(
    risk: Risk,
    parameters: PyTree,
    directions: Sequence[PyTree],
    first: Any,
    second: Any,
    /,
    *,
    chunk: int = CHUNK,
) -> Float[Array, "n k"]:
    """The risk over a plane, on a grid of two coordinates.

    Args:
        risk: A function of the parameters.
        parameters: theta, the origin of the plane.
        directions: d_1 and d_2, trees of the shapes of theta.
        first: The values of a, along the first axis of the result.
        second: The values of b, along the second axis.
        chunk: Points evaluated side by side: more of them need more memory.

    Returns:
        R(theta + a d_1 + b d_2) for every a and b.

    Raises:
        ValueError: Other than two directions, one of other structure or shapes, no coordinates, a
            chunk that is not a positive integer, a risk that is not one number.

    References:
        Li et al. 2018, arXiv 1712.09913, equation 1.

    >>> axes = (jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
    >>> plane(lambda x: x[0] ** 2 - x[1], jnp.zeros(2), axes, [0.0, 1.0], [0.0, 3.0]).tolist()
    [[0.0, -3.0], [1.0, -2.0]]
    """
    _check_directions(directions, parameters)
    if len(directions) != 2:
        raise ValueError(f"directions must be a pair, got {len(directions)}; a line has its own")
    a, b = _coordinates("first", first), _coordinates("second", second)
    points = np.stack(np.meshgrid(a, b, indexing="ij"), axis=-1).reshape(-1, 2)
    risks = risks_at(risk, parameters, directions, points, chunk=chunk)
    return risks.reshape(len(a), len(b))


def project(trajectory: PyTree, parameters: PyTree, directions: Sequence[PyTree], /) -> Projection:
    """Coordinates of a trajectory in the plane of some directions, by least squares.

    Args:
        trajectory: Parameters behind an axis of times.
        parameters: The origin of the plane.
        directions: Directions that are independent; they need not be orthogonal.

    Raises:
        ValueError: An empty trajectory, other structures or shapes, dependent directions.

    >>> axes = (jnp.array([1.0, 0.0, 0.0]), jnp.array([1.0, 1.0, 0.0]))
    >>> found = project(jnp.array([[3.0, 2.0, 0.0]]), jnp.zeros(3), axes)
    >>> found.coordinates.round(3).tolist(), found.residuals.tolist()
    ([[1.0, 2.0]], [0.0])
    """
    _check_directions(directions, parameters)
    trajectory_length(trajectory, parameters)
    gram = np.array([[float(dot(d, e)) for e in directions] for d in directions])
    squares = np.diag(gram)
    eps = float(jnp.finfo(jnp.result_type(*jax.tree.leaves(parameters))).eps)
    # Never true of NaN.
    independent = np.isfinite(gram).all() and (squares > 0).all()
    if independent:
        cosines = gram / np.sqrt(np.outer(squares, squares))
        independent = np.linalg.eigvalsh(cosines)[0] > eps**0.5
    if not independent:
        raise ValueError(
            "directions must be finite and independent, got some that are zero, parallel or not "
            "finite; draw others"
        )
    return _projection(trajectory, parameters, tuple(directions), np.linalg.inv(gram))


def _check_directions(directions: Sequence[PyTree], parameters: PyTree) -> None:
    check_parameters("parameters", parameters)
    if not directions:
        raise ValueError("directions must hold at least one direction, got none")
    for number, direction in enumerate(directions):
        check_direction(f"directions[{number}]", direction, parameters)


def _coordinates(name: str, values: Any) -> np.ndarray:
    coordinates = np.asarray(values, np.float64)
    if coordinates.ndim != 1 or len(coordinates) == 0:
        raise ValueError(
            f"{name} must be a non-empty list of numbers, got shape {list(coordinates.shape)}"
        )
    checks.finite(name, coordinates)
    return coordinates


def risks_at(
    risk: Risk,
    parameters: PyTree,
    directions: Sequence[PyTree],
    coordinates: Float[np.ndarray, "n c"],
    /,
    *,
    chunk: int = CHUNK,
) -> Float[Array, "n"]:
    """R(theta + sum_i c_i d_i) at rows c of coordinates; whoever calls it has checked the trees.

    Args:
        risk: A function of the parameters.
        parameters: theta.
        directions: The d_i, trees of the shapes of theta.
        coordinates: One row for each point.
        chunk: Points evaluated side by side.

    Raises:
        ValueError: A chunk that is not a positive integer, a risk that is not one number.

    >>> risks_at(jnp.sum, jnp.zeros(2), (jnp.ones(2),), np.array([[1.0], [3.0]])).tolist()
    [2.0, 6.0]
    """
    # The least chunk that needs no more rounds: the last round has the fewest points for nothing.
    rounds = -(-len(coordinates) // checks.count("chunk", chunk))
    side = -(-len(coordinates) // rounds)
    spare = np.repeat(coordinates[-1:], -len(coordinates) % side, axis=0)
    padded = np.concatenate([coordinates, spare]).reshape(-1, side, coordinates.shape[1])
    found = _rounds(as_partial(risk), parameters, tuple(directions), padded)
    return found.reshape(-1)[: len(coordinates)]


@jax.jit
def _rounds(risk, parameters, directions, coordinates):
    """Risks of rounds of points that are evaluated side by side."""

    def at(steps):
        def moved(leaf, *ways):
            return sum((s.astype(leaf.dtype) * way.astype(leaf.dtype)
                        for s, way in zip(steps, ways, strict=True)), leaf)  # fmt: skip

        return one_number(risk)(jax.tree.map(moved, parameters, *directions))

    # A vmap over one point would still turn products of matrices into batched ones.
    if coordinates.shape[1] == 1:
        return jax.lax.map(at, coordinates[:, 0])
    return jax.lax.map(jax.vmap(at), coordinates)


@jax.jit
def _projection(trajectory, parameters, directions, inverse):
    def nearest(point):
        away = jax.tree.map(jnp.subtract, point, parameters)
        products = jnp.stack([dot(direction, away) for direction in directions])
        steps = jnp.asarray(inverse, products.dtype) @ products
        rest = away
        for step, direction in zip(steps, directions, strict=True):
            rest = jax.tree.map(lambda x, d, s=step: x - s.astype(x.dtype) * d, rest, direction)
        total = squared_norm(away)
        return Projection(steps, squared_norm(rest) / jnp.where(total > 0, total, 1))

    return jax.lax.map(nearest, trajectory)
