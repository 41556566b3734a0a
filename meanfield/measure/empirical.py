"""Empirical measure of a layer: particles as a cloud of points, its moments, draws from it.

    rho_t = (1/m) sum_j delta_{theta_{t,j}}

A block's particles are a tree whose leaves all start with the axes `[l, m]`; a particle becomes a
point by flattening its leaves one after the other, in the order of the tree.
Trap: moments are those of the measure itself, so `covariance` divides by m and not by m - 1.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree, Shaped

from meanfield.checks import choice, count


def clouds(particles: PyTree[Shaped[ArrayLike, "l m ..."]], /) -> Shaped[Array, "l m p"]:
    """Clouds of all layers of one block.

    Args:
        particles: Tree of parameters, every leaf with leading axes depth and width.

    Returns:
        One point of dimension p (the number of scalars in a particle) per layer and particle.

    Raises:
        ValueError: The tree is empty, or its leaves do not share non-empty axes `[l, m]`.

    >>> clouds({"bias": jnp.ones((2, 5)), "weight": jnp.ones((2, 5, 3))}).shape
    (2, 5, 4)
    """
    depth, width = _depth_and_width(particles)
    leaves = [jnp.asarray(leaf).reshape(depth, width, -1) for leaf in jax.tree.leaves(particles)]
    return jnp.concatenate(leaves, axis=-1)


def cloud(particles: PyTree[Shaped[ArrayLike, "l m ..."]], layer: int, /) -> Shaped[Array, "m p"]:
    """Cloud of one layer.

    Args:
        particles: Tree of parameters, every leaf with leading axes depth and width.
        layer: Index of the layer; negative values count from the last.

    Returns:
        One point of dimension p per particle of that layer.

    Raises:
        ValueError: No such layer, or a tree that is not one block's particles (see `clouds`).

    >>> cloud({"bias": jnp.ones((2, 5)), "weight": jnp.ones((2, 5, 3))}, -1).shape
    (5, 4)
    """
    depth, _ = _depth_and_width(particles)
    index = operator.index(layer)
    # jax clamps an index out of range, and would answer with another layer.
    if not -depth <= index < depth:
        raise ValueError(
            f"layer must lie in [-{depth}, {depth - 1}] for depth {depth}, got {layer}"
        )
    chosen = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index][None], particles)
    return clouds(chosen)[0]


def particles_from_cloud(
    points: Shaped[ArrayLike, "*leading p"],
    template: PyTree[Shaped[ArrayLike, "l m ..."]],
    /,
) -> PyTree[Shaped[Array, "..."]]:
    """Particles whose cloud is given: the inverse of `cloud` and of `clouds`.

    Args:
        points: Points `[m p]` of one layer or `[l m p]` of all; depth and width need not be those
            of the template.
        template: Particles that tell the tree, and each leaf's dtype and shape behind `[l, m]`.

    Returns:
        A tree like the template, whose leaves start with the leading axes of `points`.

    Raises:
        ValueError: The points have another dimension than a particle of the template.

    >>> heads = {"bias": jnp.ones((2, 5)), "weight": jnp.ones((2, 5, 3))}
    >>> jax.tree.map(jnp.shape, particles_from_cloud(jnp.zeros((7, 4)), heads))
    {'bias': (7,), 'weight': (7, 3)}
    """
    _depth_and_width(template)
    points = jnp.asarray(points)
    leaves, treedef = jax.tree.flatten(template)
    shapes = [np.shape(leaf)[2:] for leaf in leaves]
    sizes = [math.prod(shape) for shape in shapes]
    if points.ndim < 2 or points.shape[-1] != sum(sizes):
        raise ValueError(
            f"points must have shape [m {sum(sizes)}] or [l m {sum(sizes)}] to fill the template's "
            f"particles, got {list(points.shape)}"
        )
    parts = jnp.split(points, np.cumsum(sizes)[:-1].tolist(), axis=-1)
    filled = [
        part.reshape(points.shape[:-1] + shape).astype(jnp.result_type(leaf))
        for part, shape, leaf in zip(parts, shapes, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, filled)


def mean(x: Float[ArrayLike, "m p"], /) -> Float[Array, " p"]:
    """Mean of a cloud, (1/m) sum_j x_j.

    Args:
        x: Points.

    Returns:
        Their barycentre.

    Raises:
        ValueError: The cloud is empty or not a matrix.

    >>> mean(jnp.array([[0.0, 1.0], [2.0, 3.0]])).tolist()
    [1.0, 2.0]
    """
    return jnp.mean(_points(x), axis=0)


def covariance(x: Float[ArrayLike, "m p"], /) -> Float[Array, "p p"]:
    """Covariance of a cloud, (1/m) sum_j (x_j - mean)(x_j - mean)^T.

    Args:
        x: Points.

    Returns:
        Covariance of the empirical measure; its trace is `second_moment(x) - |mean(x)|^2`.

    Raises:
        ValueError: The cloud is empty or not a matrix.

    >>> covariance(jnp.array([[0.0, 1.0], [2.0, 3.0]])).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    points = _points(x)
    centred = points - jnp.mean(points, axis=0, keepdims=True)
    return centred.T @ centred / points.shape[0]


def second_moment(x: Float[ArrayLike, "m p"], /) -> Float[Array, ""]:
    """Second moment of a cloud, (1/m) sum_j |x_j|^2, which weight decay penalises.

    Args:
        x: Points.

    Returns:
        Mean squared norm.

    Raises:
        ValueError: The cloud is empty or not a matrix.

    >>> second_moment(jnp.array([[0.0, 1.0], [2.0, 3.0]])).item()
    7.0
    """
    return jnp.mean(jnp.sum(_points(x) ** 2, axis=-1))


def norm_quantiles(
    x: Float[ArrayLike, "m p"], /, *, levels: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)
) -> Float[Array, " q"]:
    """Quantiles of the norms |x_j| of a cloud.

    Args:
        x: Points.
        levels: Levels in [0, 1]; by default the extremes and the quartiles.

    Returns:
        One norm per level, interpolated linearly between points.

    Raises:
        ValueError: The cloud is empty or not a matrix, or a level lies outside [0, 1].

    >>> norm_quantiles(jnp.array([[3.0, 4.0], [0.0, 1.0]]), levels=(0.0, 1.0)).tolist()
    [1.0, 5.0]
    """
    outside = [level for level in levels if not 0.0 <= level <= 1.0]
    if outside or not len(levels):
        raise ValueError(f"levels must be at least one number in [0, 1], got {list(levels)}")
    norms = jnp.linalg.norm(_points(x), axis=-1)
    return jnp.quantile(norms, jnp.asarray(levels, dtype=norms.dtype))


def resample(
    key: PRNGKeyArray,
    particles: PyTree[Shaped[ArrayLike, "l m ..."]],
    /,
    width: int,
    *,
    coupling: Literal["independent", "path"] = "independent",
) -> PyTree[Shaped[Array, "l w ..."]]:
    """Particles drawn with replacement from the empirical measure of each layer.

    Args:
        key: Random key.
        particles: Tree of parameters, every leaf with leading axes depth and width.
        width: Number of draws per layer, smaller or larger than the present width.
        coupling: `independent` draws afresh at every layer; `path` takes the same indices at all
            layers, which keeps particles that are paths over depth in one piece.

    Returns:
        A tree like `particles`, of the new width.

    Raises:
        ValueError: The width is not positive, or the coupling is unknown.

    >>> resample(jax.random.key(0), {"bias": jnp.ones((2, 5))}, width=9)["bias"].shape
    (2, 9)
    """
    depth, old = _depth_and_width(particles)
    width = count("width", width)
    rows = depth if choice("coupling", coupling, ["independent", "path"]) == "independent" else 1
    drawn = jax.random.randint(key, (rows, width), 0, old)
    layers = jnp.arange(depth)[:, None]
    indices = jnp.broadcast_to(drawn, (depth, width))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[layers, indices], particles)


def _depth_and_width(particles: Any) -> tuple[int, int]:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(particles)]
    if not shapes:
        raise ValueError("particles must be a tree with at least one array, got an empty tree")
    leading = {shape[:2] for shape in shapes}
    axes = next(iter(leading))
    if len(leading) > 1 or len(axes) < 2 or 0 in axes:
        raise ValueError(
            "particles must be arrays that all start with the same axes [depth, width], both >= 1; "
            f"got shapes {[list(shape) for shape in shapes]}; pass one block's particles"
        )
    return axes[0], axes[1]


def _points(x: Any) -> Array:
    points = jnp.asarray(x)
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(f"a cloud must be a non-empty matrix [m p], got {list(points.shape)}")
    return points
