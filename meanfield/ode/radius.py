"""Spectral radius of an operator known by its products, by warm-started power iteration.

    v <- A v / |A v|,    r = |A v|

Trap: the estimate comes from below and only slowly reaches a radius with close rivals, so a
stability bound multiplies it by a safety factor.

References:
    Sommeijer, Shampine, Verwer, RKC: an explicit solver for parabolic PDEs,
    J. Comp. Appl. Math. 88 (1998), section 3.2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

# Products after which a change that persists is noise, such as kinks of F, and is put up with.
_PATIENCE = 8


class Radius(NamedTuple):
    """Estimated spectral radius, the direction it was found in, relative change, products spent."""

    value: Float[Array, ""]
    direction: PyTree[Float[Array, "..."]]
    change: Float[Array, ""]
    products: Int[Array, ""]


class Search(NamedTuple):
    """When a power iteration stops: relative change, most products, value up to which one does."""

    tolerance: Any
    max_products: Any
    enough: Any


def normalised(tree: PyTree, /) -> tuple[PyTree, Float[Array, ""]]:
    """A tree over its norm, and the norm; a zero tree stays zero.

    Args:
        tree: floating arrays.

    Returns:
        The pair.

    >>> float(normalised((jnp.array([3.0]), jnp.array([4.0])))[1])
    5.0
    """
    size = jnp.sqrt(sum(jnp.sum(jnp.square(jnp.abs(x))) for x in jax.tree.leaves(tree)))
    inverse = jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 0)
    return jax.tree.map(lambda x: inverse.astype(x.dtype) * x, tree), size


def probe(like: PyTree, /) -> PyTree:
    """A fixed direction of norm one with no preferred structure, shaped like a tree.

    The golden-ratio sequence is not random, needs no key, and is the same in every version of jax.

    Args:
        like: tree of floating arrays.

    Returns:
        A tree of the same shapes and dtypes.

    >>> probe(jnp.zeros(3)).shape
    (3,)
    """
    leaves, structure = jax.tree.flatten(like)
    filled, offset = [], 1
    for leaf in leaves:
        # Integer arithmetic modulo 2^32: the phase stays exact in float32 at any size.
        phase = (jnp.arange(leaf.size, dtype=jnp.uint32) + np.uint32(offset)) * np.uint32(
            2654435769
        )
        phase = phase ^ (phase >> 15)
        phase = phase * np.uint32(2246822519)
        unit = (phase >> 8).astype(leaf.real.dtype) / 2**24 - 0.5
        filled.append(unit.reshape(leaf.shape).astype(leaf.dtype))
        offset += leaf.size
    return normalised(jax.tree.unflatten(structure, filled))[0]


def spectral_radius(
    product: Callable,
    direction: PyTree,
    previous: Float[Array, ""],
    /,
    *,
    tolerance: float | Float[Array, ""] = 0.01,
    max_products: int | Int[Array, ""] = 50,
    enough: float | Float[Array, ""] = 0.0,
) -> Radius:
    """Largest |eigenvalue| of an operator by power iteration, from below, without a safety factor.

    Args:
        product: v -> A v, linear, trees to trees of the same shapes.
        direction: start of norm one; the direction of an earlier estimate makes one product enough.
        previous: earlier value, 0 if there is none.
        tolerance: relative change at which to stop.
        max_products: bound on the products; 0 returns `previous` at no cost.
        enough: a value up to which any answer will do: one product then is all.

    Returns:
        Value, direction for the next call, last relative change, products spent.

    References:
        Sommeijer, Shampine, Verwer (1998), section 3.2.

    >>> float(
    ...     spectral_radius(lambda v: -3 * v, jnp.array([0.6, 0.8]), jnp.array(0.0)).value.round(4)
    ... )
    3.0
    """
    search = Search(tolerance, max_products, enough)
    return lax.while_loop(
        lambda estimate: unsettled(estimate, search),
        lambda estimate: renewed(estimate, product(estimate.direction)),
        unproven(previous, direction),
    )


def unproven(value: Float[Array, ""], direction: PyTree, /) -> Radius:
    """An estimate for which no product has been spent.

    Args:
        value: what it is taken to be.
        direction: where to look first, of norm one; None if no product ever will be.

    Returns:
        The estimate.

    >>> int(unproven(jnp.array(1.0), None).products)
    0
    """
    return Radius(value, direction, jnp.full_like(value, jnp.inf), jnp.zeros((), jnp.int32))


def unsettled(estimate: Radius, search: Search, /) -> Bool[Array, ""]:
    """Whether a search asks for another product.

    Args:
        estimate: the estimate so far.
        search: when to stop.

    Returns:
        The truth of it.

    >>> bool(unsettled(unproven(jnp.array(1.0), None), Search(0.01, 50, 0.0)))
    True
    """
    matters = (estimate.products == 0) | (estimate.value > search.enough)
    spent = estimate.products >= search.max_products
    patience = jnp.maximum(1, (estimate.products / _PATIENCE) ** 2)
    return ~spent & (estimate.change > search.tolerance * patience) & matters


def renewed(estimate: Radius, image: PyTree, /) -> Radius:
    """The estimate after one product more.

    Args:
        estimate: the estimate so far.
        image: A v for its direction v.

    Returns:
        The new one; where the image is not finite, the old one with the direction reversed, settled
        at the second time.

    >>> float(renewed(unproven(jnp.array(1.0), jnp.ones(1)), jnp.array([-3.0])).value)
    3.0
    """
    image, size = normalised(image)
    size = size.astype(estimate.value.dtype)
    change = jnp.abs(size - estimate.value) / jnp.where(size > 0, size, 1)
    # A vanishing product says nothing about the other directions: keep the old one.
    image = jax.tree.map(lambda new, old: jnp.where(size > 0, new, old), image, estimate.direction)
    found = Radius(size, image, change, estimate.products + 1)
    # The probe may have left the domain of F: look once to the other side, then leave it at that.
    other = estimate._replace(
        direction=jax.tree.map(jnp.negative, estimate.direction),
        change=jnp.where(estimate.products == 0, estimate.change, 0),
        products=estimate.products + 1,
    )
    usable = jnp.isfinite(size)
    return jax.tree.map(lambda new, old: jnp.where(usable, new, old), found, other)


def probing_length(y: PyTree, field: PyTree, h: Float[Array, ""], /) -> Float[Array, ""]:
    """Length d of the shift in (F(y + d v) - F(y)) / d, a Jacobian product by one evaluation.

        d = eps^(2/3) max(|y|, h |F(y)|),   eps^(2/3) where both vanish

    A third of the digits, 1/200 in float32, is left to the difference: enough for a radius. With
    the usual half, d = sqrt(eps) |y|, a float32 probe is so long that a gradient of a network bends
    along it, and the iteration never settles. Where y is small beside its change in a step, h |F|
    keeps the round-off of F below the radii that matter to a step of length h.

    Args:
        y: state.
        field: F(y).
        h: step length.

    Returns:
        The length.

    References:
        Sommeijer, Shampine, Verwer (1998), section 3.2.

    >>> float(probing_length(jnp.zeros(1), jnp.zeros(1), jnp.array(1.0))) > 0
    True
    """
    size = normalised(y)[1]
    size = jnp.maximum(size, h.astype(size.dtype) * normalised(field)[1])
    usable = (size > 0) & jnp.isfinite(size)
    return jnp.finfo(size.dtype).eps ** (2 / 3) * jnp.where(usable, size, 1)
