r"""The empirical tangent kernel: how a model's outputs move while it trains.

With outputs f(x; theta) in R^c and one time scale s per parameter (the flow's metric),

    K[(x, a), (y, b)] = sum_p s_p  d f_a(x) / d theta_p  d f_b(y) / d theta_p,

so that along dtheta/dtau = -s grad R, R = (1/N) sum_i loss(f(x_i), y_i),

    d f(x)/dtau = -(1/N) sum_i K(x, x_i) loss'(f(x_i), y_i).

One trap: without the factor s = L M the kernel of a mean-field network vanishes as it grows; with
it, and with particles drawn independently, it has a limit. Pass ``time_scales``.

References:
    Jacot et al. 2018, arXiv 1806.07572 (the kernel).
    Novak et al. 2022, arXiv 2206.08720 (contraction of Jacobians against products).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from meanfield.checks import count, finite
from meanfield.tree import broadcast_prefix, leading_axis

Kernel = Float[Array, "b c e f"]
"""Samples and outputs of one set, samples and outputs of another or of the same."""

Scales = Callable[[Any], PyTree] | None
"""From theta, one scale per branch (``model.time_scales``); 1 if None."""


def tangent_kernel(
    apply: Callable[[Any, Any], Any],
    theta: PyTree,
    inputs: PyTree,
    others: PyTree = None,
    /,
    *,
    time_scales: Scales = None,
    chunk: int | None = None,
) -> Kernel:
    """The empirical tangent kernel between two sets of samples.

    Args:
        apply: The model's map (theta, sample) -> output of any shape; its entries are the outputs.
        theta: Parameters.
        inputs: Samples along the leading axis of every leaf.
        others: The second set; ``inputs`` if None.
        time_scales: From theta, the factor s of each branch (``model.time_scales``); 1 if None.
        chunk: Samples whose Jacobians are held at once, from each set: memory is 2 chunk c
            parameters. All if None.

    Returns:
        K[i, a, j, b]: sample and output of the first set, sample and output of the second.

    Raises:
        ValueError: If a set is empty or not finite, or ``chunk`` is not a positive integer.

    References:
        Jacot et al. 2018, arXiv 1806.07572.

    >>> line = lambda theta, x: theta[0] + theta[1] * x
    >>> tangent_kernel(line, jnp.ones(2), jnp.array([1.0, 2.0]))[:, 0, :, 0].tolist()
    [[2.0, 3.0], [3.0, 5.0]]
    """
    sizes = [_chunk(samples, chunk) for samples in (inputs, inputs if others is None else others)]
    return _tangent_kernel(
        apply, theta, inputs, others, scales_of(time_scales, theta), chunks=tuple(sizes)
    )


@functools.partial(jax.jit, static_argnums=0, static_argnames="chunks")
def _tangent_kernel(apply, theta, inputs, others, scales, *, chunks):
    def jacobian(sample):
        rows = jax.jacrev(lambda theta: jnp.ravel(apply(theta, sample)))(theta)
        return [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(rows)]

    def against_others(sample):
        left = [
            jnp.asarray(scale, leaf.dtype) * leaf
            for scale, leaf in zip(scales, jacobian(sample), strict=True)
        ]

        def block(other):
            return sum(a @ b.T for a, b in zip(left, jacobian(other), strict=True))

        # Under the outer vmap the inner Jacobians are not batched: one per chunk, for all rows.
        return jax.lax.map(block, inputs if others is None else others, batch_size=chunks[1])

    return jnp.swapaxes(jax.lax.map(against_others, inputs, batch_size=chunks[0]), 1, 2)


def tangent_product(
    apply: Callable[[Any, Any], Any],
    theta: PyTree,
    inputs: PyTree,
    /,
    *,
    time_scales: Scales = None,
    chunk: int | None = None,
) -> Callable[[Float[Array, "b c"]], Float[Array, "b c"]]:
    """The product v -> K v with the tangent kernel of one set, which is never formed.

    Args:
        apply: The model's map (theta, sample) -> output.
        theta: Parameters.
        inputs: Samples along the leading axis of every leaf.
        time_scales: From theta, the factor s of each branch; 1 if None.
        chunk: Samples handled at once; all if None.

    Returns:
        The product, at the cost of one gradient and one derivative along a direction.

    Raises:
        ValueError: As :func:`tangent_kernel`.

    >>> line = lambda theta, x: theta[0] + theta[1] * x
    >>> product = tangent_product(line, jnp.ones(2), jnp.array([1.0, 2.0]))
    >>> product(jnp.array([[1.0], [0.0]])).ravel().tolist()
    [2.0, 3.0]
    """
    scales, size = scales_of(time_scales, theta), _chunk(inputs, chunk)
    return lambda vector: _product(apply, theta, inputs, scales, vector, chunk=size)


@functools.partial(jax.jit, static_argnums=0, static_argnames="chunk")
def _product(apply, theta, inputs, scales, vector, *, chunk):
    def flat(theta, sample):
        return jnp.ravel(apply(theta, sample))

    def total(theta):
        # Recomputed in the backward pass: its memory is that of one chunk.
        weighted = jax.checkpoint(lambda pair: jnp.vdot(flat(theta, pair[0]), pair[1]))
        return jnp.sum(jax.lax.map(weighted, (inputs, vector), batch_size=chunk))

    leaves, structure = jax.tree.flatten(jax.grad(total)(theta))
    direction = structure.unflatten(
        [jnp.asarray(s, leaf.dtype) * leaf for s, leaf in zip(scales, leaves, strict=True)]
    )

    def along(sample):
        return jax.jvp(lambda theta: flat(theta, sample), (theta,), (direction,))[1]

    return jax.lax.map(along, inputs, batch_size=chunk)


def scales_of(scales: Scales, theta: PyTree, /) -> list[Any]:
    """One scale per leaf of the parameters.

    Args:
        scales: From theta, a prefix of it; 1 everywhere if None.
        theta: Parameters.

    Raises:
        ValueError: If what it returns is no prefix of theta.

    >>> scales_of(lambda theta: (2.0, 3.0), ((1, 1), 1))
    [2.0, 2.0, 3.0]
    """
    return jax.tree.leaves(broadcast_prefix(scales(theta) if scales else 1.0, theta))


def _chunk(samples: PyTree, chunk: int | None) -> int:
    finite("inputs", samples)
    number = count("the number of samples", leading_axis(samples))
    return number if chunk is None else min(count("chunk", chunk), number)
