r"""Hessian products, and dense blocks of the Hessian.

    H v = d/dh grad R(theta + h v) at h = 0,            metric s:   sqrt(s) H sqrt(s) v

The gradient is linearised once, and each product is a pass through that linear map. With a metric,
s one positive number per branch (``time_scales``), the eigenvalues are those of s H, by which the
flow dtheta/dtau = -s grad R and descent on it are stable or not.

Dense blocks are written out here, a few columns at a time. matfree 0.6 has no public function that
writes out an operator; its private one runs all columns at once: 149 MB for a head of 128
parameters in a small Transformer, where this takes 2.7 MB and half the time. Extremes, trace and
density of a block are matfree's work, by ``within`` in ``hessian_extremes`` and its kin.

One trap: a block H[i, i] is the curvature in which only particle i moves; the curvature of the
whole can be far larger, for copies of a particle move together.

References:
    Pearlmutter 1994, Fast exact multiplication by the Hessian.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from meanfield import checks
from meanfield.landscape.inputs import (
    as_partial,
    check_direction,
    check_parameters,
    one_number,
)
from meanfield.notation import Risk
from meanfield.tree import broadcast_prefix, leading_axis, scale


def hessian_product(
    risk: Risk, parameters: PyTree, /, *, metric: PyTree = 1.0
) -> Callable[[PyTree], PyTree]:
    """The linear map v -> sqrt(s) H sqrt(s) v of a risk at some parameters.

    Made and used inside one ``jit``, the passes that do not depend on v are run once.

    Args:
        risk: A function of the parameters, twice differentiable there.
        parameters: Where the Hessian is taken.
        metric: s > 0, a prefix of the parameters: 1 for the Hessian itself.

    Returns:
        A function from trees of the shapes of the parameters to such trees.

    Raises:
        ValueError: Parameters that are not floating-point, a metric that is no prefix or not
            positive, a risk that is not one number, and later a v of other shapes.

    References:
        Pearlmutter 1994.

    >>> hessian_product(lambda x: x[0] ** 2 * x[1], jnp.array([1.0, 3.0]))(jnp.ones(2)).tolist()
    [8.0, 2.0]
    """
    check_parameters("parameters", parameters)
    linear = weighted_map(risk, parameters, metric_roots(metric, parameters))

    def product(vector: PyTree) -> PyTree:
        check_direction("vector", vector, parameters)
        return linear(vector)

    return product


def weighted_map(risk: Risk, parameters: PyTree, roots: PyTree, /) -> Callable[[PyTree], PyTree]:
    """The linear map v -> r H r v; whoever calls it has checked the trees.

    Args:
        risk: A function of the parameters.
        parameters: Where the Hessian is taken.
        roots: r, a prefix of the parameters.

    Raises:
        ValueError: A risk that is not one number.

    >>> weighted_map(lambda x: jnp.sum(x**2), jnp.ones(1), 3.0)(jnp.ones(1)).tolist()
    [18.0]
    """
    parameters = jax.tree.map(jnp.asarray, parameters)
    linear = jax.linearize(jax.grad(one_number(risk)), parameters)[1]

    def product(vector: PyTree) -> PyTree:
        weighed = jax.tree.map(
            lambda leaf, like: jnp.asarray(leaf, like.dtype), scale(roots, vector), parameters
        )
        return scale(roots, linear(weighed))

    return product


def metric_roots(metric: PyTree, parameters: PyTree, /) -> PyTree:
    """sqrt(s) for every leaf of the parameters.

    Args:
        metric: s, a prefix of the parameters, positive numbers.
        parameters: The tree it belongs to.

    Raises:
        ValueError: If it is no such prefix, or a number is not positive.

    >>> metric_roots(4.0, (jnp.ones(2), jnp.ones(1)))
    (2.0, 2.0)
    """
    return jax.tree.map(
        lambda s: checks.positive("metric", float(s)) ** 0.5, broadcast_prefix(metric, parameters)
    )


def hessian_blocks(
    risk: Risk,
    particles: PyTree,
    /,
    *,
    axes: int = 2,
    indices: Sequence[tuple[int, ...]] | None = None,
    metric: PyTree = 1.0,
    chunk: int = 1,
) -> Float[Array, "blocks p p"]:
    """Dense diagonal blocks of the Hessian: of one particle each, of one layer each, or of all.

    A block costs as many products as it has columns, each through the whole network: all heads
    together cost the full Hessian. ``indices`` picks some.

    Args:
        risk: A function of the particles; for those of one half-step of a model,
            ``lambda heads: risk(theta._replace(blocks=(heads, theta.blocks[1])))``.
        particles: Their tree, behind its leading axes [l, m].
        axes: Leading axes that count blocks: 2 for one particle each, 1 for one layer each, 0 for
            the whole Hessian.
        indices: The blocks wanted, (layer, head) each at two axes; all of them in order if None.
        metric: s > 0, a prefix of the particles: blocks of sqrt(s) H sqrt(s).
        chunk: Columns computed side by side.

    Returns:
        One symmetric matrix per block; rows in the order of ``ravel_pytree`` of one block's tree.

    Raises:
        ValueError: Leaves without those axes or of other lengths along them, indices out of range,
            a chunk that is not a positive integer; and as :func:`hessian_product`.

    >>> blocks = hessian_blocks(lambda x: jnp.sum(x[0] * x[1] ** 3), jnp.ones((2, 2)), axes=1)
    >>> blocks.tolist()
    [[[0.0, 0.0], [0.0, 0.0]], [[6.0, 0.0], [0.0, 6.0]]]
    """
    check_parameters("particles", particles)
    lengths = [leading_axis(particles, axis) for axis in range(checks.count("axes", axes, least=0))]
    wanted = list(np.ndindex(*lengths)) if indices is None else [tuple(i) for i in indices]
    if not wanted:
        raise ValueError("indices must name at least one block, got none")
    for index in wanted:
        inside = len(index) == axes and all(
            0 <= i < length for i, length in zip(index, lengths, strict=True)
        )
        if not inside:
            raise ValueError(f"indices must lie within the axes {lengths} of blocks, got {index}")
    places = jnp.asarray(np.array(wanted, int).reshape(len(wanted), axes))
    roots = metric_roots(metric, particles)
    chunk = checks.count("chunk", chunk)
    return _blocks(as_partial(risk), particles, roots, places, chunk=chunk)


@partial(jax.jit, static_argnames="chunk")
def _blocks(
    risk: Any, particles: PyTree, roots: PyTree, places: Array, *, chunk: int
) -> Float[Array, "blocks p p"]:
    product = weighted_map(risk, particles, roots)
    zeros = jax.tree.map(jnp.zeros_like, particles)

    def block_of(tree: PyTree, place: Array) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[tuple(place)], tree)

    flat, restore = ravel_pytree(block_of(particles, places[0]))

    def column(place_and_number: tuple[Array, Array]) -> Array:
        place, number = place_and_number
        unit = restore(jnp.zeros_like(flat).at[number].set(1))
        vector = jax.tree.map(lambda zero, part: zero.at[tuple(place)].set(part), zeros, unit)
        return ravel_pytree(block_of(product(vector), place))[0]

    blocks, size = len(places), len(flat)
    pairs = (jnp.repeat(places, size, axis=0), jnp.tile(jnp.arange(size), blocks))
    # A batch that divides the columns: what is left over would be compiled as a second program.
    side = max(s for s in range(1, min(chunk, blocks * size) + 1) if blocks * size % s == 0)
    columns = jax.lax.map(column, pairs, batch_size=side if side > 1 else None)
    found = columns.reshape(blocks, size, size)
    return (found + jnp.swapaxes(found, 1, 2)) / 2
