r"""Directions in the space of parameters, along which a risk is looked at.

    random       d_f = |theta_f| g_f / |g_f|,   g normal,   for every filter f (filter-normalised)
    trajectory   thin SVD of theta_t - theta_end: the directions that explain most of its spread
    two points   theta_1 - theta_0

What a *filter* is: the leading axes of a leaf count filters, the others are one. Particles
[l, m, ...] have two, so every matrix of every head has a length of its own. A *vector*, handled by
``vectors``, is a leaf with at most one axis, or with one number per filter (biases of neurons).

One trap: without filters, a layer that a scaling law makes small is drowned by the larger ones, and
surfaces of two parametrisations of one network look different.

References:
    Li et al. 2018, arXiv 1712.09913 (filter normalisation, section 4; trajectories, section 7).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from meanfield import checks
from meanfield.landscape.inputs import check_direction, check_parameters, trajectory_length
from meanfield.tree import broadcast_prefix, dot, scale, squared_norm

Direction = PyTree
"""A tree of floating-point arrays with the structure and the shapes of the parameters."""


class Principal(NamedTuple):
    """The principal directions of a trajectory.

    Attributes:
        directions: Orthonormal directions, the most important one first.
        shares: The share of sum_t |theta_t - theta_end|^2 that lies along each.
        coordinates: Each point's coordinates along them, measured from the last point.
    """

    directions: tuple[Direction, ...]
    shares: Float[Array, "c"]
    coordinates: Float[Array, "t c"]


def random_direction(
    key: Any,
    parameters: Direction,
    /,
    *,
    filters: PyTree | None = None,
    vectors: str = "zero",
) -> Direction:
    """A normal random direction whose filters have the norms of the parameters' filters.

    Args:
        key: Random key.
        parameters: Where the landscape is looked at.
        filters: How many leading axes of a leaf count filters: one number, or a prefix of the
            parameters, say ``Theta(embedding=0, blocks=2, readout=1)``. If None, 2 for leaves of
            three axes or more (particles [l, m, ...]) and 0 for the others: one filter. A leaf of
            fewer axes has one number per filter.
        vectors: What to do with biases and other one-dimensional parameters, that is leaves of at
            most one axis and those with one number per filter: ``"zero"`` leaves them where they
            are, as Li et al. do; ``"normalise"`` treats them as filters.

    Raises:
        ValueError: If the parameters are empty or not floating-point, ``filters`` is no such
            prefix, or ``vectors`` is unknown.

    References:
        Li et al. 2018, arXiv 1712.09913, section 4.

    >>> there = {"weight": 3.0 * jnp.ones((2, 4)), "bias": jnp.ones(4)}
    >>> found = random_direction(jax.random.key(0), there, filters=1)
    >>> jnp.linalg.norm(found["weight"], axis=1).round(4).tolist(), found["bias"].tolist()
    ([6.0, 6.0], [0.0, 0.0, 0.0, 0.0])
    """
    check_parameters("parameters", parameters)
    checks.choice("vectors", vectors, ("zero", "normalise"))
    leaves, structure = jax.tree.flatten(parameters)
    if filters is None:
        axes = [2 if jnp.ndim(leaf) >= 3 else 0 for leaf in leaves]
    else:
        axes = jax.tree.leaves(broadcast_prefix(filters, parameters))
        axes = [checks.count("filters", number, least=0) for number in axes]
    # Drawn at once: a generator for every leaf takes seconds to compile.
    flat, restore = ravel_pytree(parameters)
    normal = jax.tree.leaves(restore(jax.random.normal(key, flat.shape, flat.dtype)))
    drawn = [
        _like_filters(one, jnp.asarray(leaf), min(number, jnp.ndim(leaf)), vectors)
        for one, leaf, number in zip(normal, leaves, axes, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def _like_filters(drawn: Array, leaf: Array, axes: int, vectors: str) -> Array:
    """The drawn array, its filters, behind ``axes`` axes, as long as those of ``leaf``."""
    one_dimensional = leaf.ndim <= 1 or leaf.ndim == axes
    if one_dimensional and vectors == "zero":
        return jnp.zeros_like(leaf)
    inner = tuple(range(axes, leaf.ndim))
    ratio = _norms(leaf, inner) / _norms(drawn, inner)
    return drawn * jnp.broadcast_to(ratio, drawn.shape)


def _norms(array: Array, axes: tuple[int, ...]) -> Array:
    return jnp.sqrt(jnp.sum(array**2, axis=axes, keepdims=True))


def principal_directions(trajectory: Direction, /, *, number: int = 2) -> Principal:
    """The directions in which a trajectory moved most, by a thin SVD of theta_t - theta_end.

    Memory: the trajectory twice.

    Args:
        trajectory: Parameters behind an axis of times.
        number: How many directions.

    Returns:
        Directions, each with the sign that gives the first point a coordinate >= 0; the share that
        each explains; coordinates of the points, the last one at the origin.

    Raises:
        ValueError: If the trajectory is empty, not finite, does not move, or has too few points
            or parameters for so many directions.

    References:
        Li et al. 2018, arXiv 1712.09913, section 7.

    >>> path = jnp.array([[3.0, 4.0], [1.5, 2.0], [0.0, 0.0]])
    >>> found = principal_directions(path, number=1)
    >>> abs(found.coordinates).ravel().round(3).tolist(), found.shares.round(3).tolist()
    ([5.0, 2.5, 0.0], [1.0])
    """
    times = trajectory_length(trajectory)
    checks.finite("trajectory", trajectory)
    end = jax.tree.map(lambda leaf: leaf[-1], trajectory)
    rows = jax.vmap(lambda point: ravel_pytree(difference(end, point))[0])(trajectory)
    if checks.count("number", number) > min(times - 1, rows.shape[1]):
        raise ValueError(
            f"number of directions must be at most {min(times - 1, rows.shape[1])} for {times} "
            f"points of {rows.shape[1]} parameters, got {number}; save more points"
        )
    if not jnp.any(rows):
        raise ValueError(
            "trajectory must move, got points that are all equal; save it earlier or look along "
            "random directions"
        )
    left, sizes, right = jnp.linalg.svd(rows, full_matrices=False)
    signs = jnp.where(left[0, :number] < 0, -1, 1).astype(rows.dtype)
    restore = ravel_pytree(end)[1]
    kept = right[:number] * signs[:, None]
    return Principal(
        tuple(restore(direction) for direction in kept),
        sizes[:number] ** 2 / jnp.sum(sizes**2),
        left[:, :number] * (signs * sizes[:number])[None, :],
    )


def difference(start: Direction, end: Direction, /) -> Direction:
    """The direction end - start: a step of 1 along it leads from one point to the other.

    Args:
        start: Parameters.
        end: Parameters of the same shapes.

    Raises:
        ValueError: If structures or shapes differ.

    >>> difference(jnp.ones(2), jnp.array([1.0, 3.0])).tolist()
    [0.0, 2.0]
    """
    check_parameters("start", start)
    check_direction("end", end, start)
    return jax.tree.map(jnp.subtract, end, start)


def orthonormal_pair(first: Direction, second: Direction, /) -> tuple[Direction, Direction]:
    """Two orthonormal directions that span the same plane, the first one kept but for its length.

    Args:
        first: A direction.
        second: Another one, not parallel to it.

    Raises:
        ValueError: If structures or shapes differ, or the two are parallel to round-off or zero.

    >>> pair = orthonormal_pair(jnp.array([2.0, 0.0]), jnp.array([1.0, 1.0]))
    >>> [direction.tolist() for direction in pair]
    [[1.0, 0.0], [0.0, 1.0]]
    """
    check_parameters("first", first)
    check_direction("second", second, first)
    first, rest = _unit(first), _unit(second)
    # Twice is enough: once leaves the round-off of what was taken away.
    rest = _without(_without(rest, first), first)
    eps = float(jnp.finfo(jnp.result_type(*jax.tree.leaves(rest))).eps)
    # Below the root of eps, the rest is round-off of what both had in common. Never true of NaN.
    if not all(float(squared_norm(direction)) > eps for direction in (first, rest)):
        raise ValueError(
            "first and second must span a plane, got directions that are zero, parallel or not "
            "finite; draw another one"
        )
    return first, _unit(rest)


def _unit(direction: Direction) -> Direction:
    size = float(squared_norm(direction)) ** 0.5
    # A zero direction stays one, and is refused by whoever needs its length.
    return scale(1 / size if size > 0 else 0.0, direction)


def _without(direction: Direction, unit: Direction) -> Direction:
    """What is left of a direction when its part along a unit one is taken away."""
    along = scale(dot(unit, direction), unit)
    return jax.tree.map(jnp.subtract, direction, along)
