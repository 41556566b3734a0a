r"""Initial measures rho_0 of one particle, and their draws over width and depth.

A measure is a function ``(key, template) -> particle``, where the template is the particle's tree
of ``jax.ShapeDtypeStruct``. Particles of a network are drawn i.i.d.:

    coupling "independent"   theta_{l, j} ~ rho_0             for every layer l and every index j
    coupling "path"          theta_{l, j} = theta_j ~ rho_0   one path over depth, constant at first

The key of a particle depends on its indices alone, so widths are nested: the first m particles of
a width-M draw are the width-m draw.

One trap: with a centred ``output`` (or ``weight_out``) the mean-field drift vanishes at time 0,
and with it the 1/L term of the depth limit; use :func:`shifted` to see it.

References:
    Gao et al. 2024, arXiv 2410.23610 (particles i.i.d. from rho_0).
    Chizat 2025, arXiv 2509.10167 (independence over depth gives 1/sqrt(L M)).
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree, Shaped

from meanfield.checks import choice, count, finite, non_negative, positive
from meanfield.tree import broadcast_prefix

Key = Shaped[Array, "..."]
Measure = Callable[[Key, PyTree], PyTree]
"""A function ``(key, template) -> particle``."""

COUPLINGS = ("independent", "path")


def gaussian(std: PyTree = 1.0) -> Measure:
    """Independent centred Gaussian entries.

    Args:
        std: Standard deviation: one number, or a particle-shaped tree of numbers.

    Raises:
        ValueError: If a standard deviation is negative or not finite.

    >>> gaussian(0.0)(jax.random.key(0), jax.ShapeDtypeStruct((2,), jnp.float32)).shape
    (2,)
    """
    for value in jax.tree.leaves(std):
        non_negative("std", value)

    def draw(key: Key, template: PyTree) -> PyTree:
        stds = broadcast_prefix(std, template)
        return jax.tree.map(jnp.multiply, stds, _standard_normal(key, template))

    return draw


def scaled(gain: PyTree = 1.0) -> Measure:
    """Centred Gaussian entries of variance gain^2 / fan-in, so that every map has size O(1).

    A matrix [a b] and a vector [a] have fan-in a; a scalar has fan-in 1.

    Args:
        gain: One number, or a particle-shaped tree of numbers.

    Raises:
        ValueError: If a gain is negative or not finite.

    >>> entries = scaled()(jax.random.key(0), jax.ShapeDtypeStruct((10_000,), jnp.float32))
    >>> round(float(entries.std()), 3)
    0.01
    """
    for value in jax.tree.leaves(gain):
        non_negative("gain", value)

    def fan_in(shape: tuple[int, ...]) -> int:
        return {0: 1, 1: shape[0] if shape else 1}.get(len(shape), shape[-2] if shape[1:] else 1)

    def draw(key: Key, template: PyTree) -> PyTree:
        gains = broadcast_prefix(gain, template)
        return jax.tree.map(
            lambda size, leaf: size * fan_in(leaf.shape) ** -0.5 * leaf,
            gains,
            _standard_normal(key, template),
        )

    return draw


def ball(radius: float = 1.0) -> Measure:
    """The uniform law on a Euclidean ball of particle space: compactly supported.

    Args:
        radius: Radius of the ball, over all entries of a particle together.

    Raises:
        ValueError: If ``radius`` is not positive.

    >>> abs(ball(2.0)(jax.random.key(0), jax.ShapeDtypeStruct((), jnp.float32))) <= 2
    Array(True, dtype=bool)
    """
    positive("radius", radius)

    def draw(key: Key, template: PyTree) -> PyTree:
        key_direction, key_radius = jax.random.split(key)
        direction = _standard_normal(key_direction, template)
        leaves = jax.tree.leaves(direction)
        dimension = sum(leaf.size for leaf in leaves)
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in leaves))
        share = jax.random.uniform(key_radius, (), leaves[0].dtype) ** (1 / dimension)
        factor = radius * share / norm
        return jax.tree.map(lambda leaf: factor.astype(leaf.dtype) * leaf, direction)

    return draw


def shifted(measure: Measure, mean: PyTree) -> Measure:
    """A measure moved by a constant: non-centred particles.

    Args:
        measure: The measure to move.
        mean: One number added to every entry, or a particle-shaped tree of numbers.

    Raises:
        ValueError: If ``mean`` is not finite.

    >>> shifted(gaussian(0.0), 3.0)(jax.random.key(0), jax.ShapeDtypeStruct((1,), jnp.float32))
    Array([3.], dtype=float32)
    """
    finite("mean", mean)

    def draw(key: Key, template: PyTree) -> PyTree:
        particle = measure(key, template)
        return jax.tree.map(jnp.add, particle, broadcast_prefix(mean, template))

    return draw


def particles(
    key: Key, draw: Callable[[Key], Any], *, depth: int, width: int, coupling: str = "independent"
) -> PyTree:
    """Particles with leading axes [l, m], drawn i.i.d. over m and coupled over l.

    Args:
        key: Random key.
        draw: One particle from a key.
        depth: Number of layers l.
        width: Number of particles m.
        coupling: ``"independent"`` draws for every layer, or one ``"path"`` per index, constant in
            depth.

    Raises:
        ValueError: If ``depth`` or ``width`` is not a positive integer, or the coupling is unknown.

    >>> particles(jax.random.key(0), jax.random.normal, depth=2, width=3).shape
    (2, 3)
    """
    count("depth", depth)
    count("width", width)
    choice("coupling", coupling, COUPLINGS)
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    layers = jnp.arange(depth) if coupling == "independent" else jnp.zeros(depth, int)
    keys = jax.vmap(fold, in_axes=(0, None))(fold(key, layers), jnp.arange(width))
    return jax.vmap(jax.vmap(draw))(keys)


def _standard_normal(key: Key, template: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten(template)
    # One draw for the whole particle: each random draw costs a compilation of its own.
    flat = jax.random.normal(
        key, (sum(math.prod(leaf.shape) for leaf in leaves),), jnp.result_type(*leaves)
    )
    ends = list(itertools.accumulate(math.prod(leaf.shape) for leaf in leaves))
    parts = jnp.split(flat, ends[:-1])
    return jax.tree.unflatten(
        structure,
        [
            part.reshape(leaf.shape).astype(leaf.dtype)
            for part, leaf in zip(parts, leaves, strict=True)
        ],
    )
