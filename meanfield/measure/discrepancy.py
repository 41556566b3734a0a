"""Kernel distances between clouds: maximum mean discrepancy and energy distance.

    MMD^2(x, y) = E k(x, x') - 2 E k(x, y) + E k(y, y'),    x, x' independent, of one cloud
    k(x, y) = exp(-|x - y|^2 / (2 h^2))   (gaussian),       k(x, y) = -|x - y|   (energy)

All functions return the root, the energy distance in the root of the units of the points; it is
the MMD of the energy kernel. Trap: `biased` takes the points' pairs with themselves into E k(x, x')
and is the distance of the two empirical measures; `unbiased` leaves them out, which estimates the
distance of the laws without bias in MMD^2, and is below 0 about half the time where these agree.

References:
    Gretton et al., A kernel two-sample test, 2012, equations 3 and 5;
    Szekely and Rizzo, Energy statistics, 2013.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from meanfield.checks import choice, positive
from meanfield.measure import inputs

# Rows of the kernel matrix at a time: all of its differences would not fit into memory.
_ROWS = 64


def mmd(
    x: Float[ArrayLike, "m p"],
    y: Float[ArrayLike, "n p"],
    /,
    *,
    kernel: Literal["gaussian", "energy"] = "gaussian",
    bandwidth: float | Float[ArrayLike, ""] | None = None,
    estimate: Literal["biased", "unbiased"] = "biased",
    x_weights: Float[ArrayLike, " m"] | None = None,
    y_weights: Float[ArrayLike, " n"] | None = None,
) -> Float[Array, ""]:
    """Maximum mean discrepancy of two clouds.

    Runs under `jit`, `vmap` and `grad` in O(m + n) memory; its derivative at distance 0 is set
    to 0. A value that round-off cannot tell from 0 is 0. One CPU core takes 0.3 s for 1024 points
    of 64 dimensions; time grows as the square of their number.

    Args:
        x: Points.
        y: Points of the same dimension.
        kernel: `gaussian`, which sees one scale, or `energy`, which sees all and has no parameter.
        bandwidth: Length h > 0 of the Gaussian; if None, the root of the trace of the covariance
            of both clouds together, a constant for derivatives. Give one number to compare pairs.
        estimate: `biased`, a distance; or `unbiased`, with the sign of MMD^2 on its root.
        x_weights: Weights of `x`, >= 0 and of sum 1; 1/m each if None.
        y_weights: Weights of `y`, likewise.

    Returns:
        The root of MMD^2, with its sign.

    Raises:
        ValueError: Empty clouds, clouds of different dimension, values that are not finite,
            weights that are no probabilities, an unknown kernel or estimate, a bandwidth that is
            not positive or that the kernel does not have, or `unbiased` with a single point of
            positive weight.

    >>> round(mmd(jnp.zeros((3, 1)), jnp.full((2, 1), 4.0), bandwidth=1.0).item(), 4)
    1.414
    """
    choice("kernel", kernel, ["gaussian", "energy"])
    first, second = inputs.measures(x, y, x_weights, y_weights)
    if bandwidth is not None and kernel == "energy":
        raise ValueError("the energy kernel has no bandwidth; leave it out, or take `gaussian`")
    if bandwidth is not None and inputs.concrete(bandwidth):
        positive("bandwidth", float(np.asarray(bandwidth)))
    exponent = None
    if kernel == "gaussian":
        squared = _spread(first, second) if bandwidth is None else jnp.square(bandwidth)
        exponent = (-0.5 / squared).astype(first[0].dtype)
    return _estimate(first, second, exponent, estimate)


def energy_distance(
    x: Float[ArrayLike, "m p"],
    y: Float[ArrayLike, "n p"],
    /,
    *,
    estimate: Literal["biased", "unbiased"] = "biased",
    x_weights: Float[ArrayLike, " m"] | None = None,
    y_weights: Float[ArrayLike, " n"] | None = None,
) -> Float[Array, ""]:
    """Energy distance (2 E|x - y| - E|x - x'| - E|y - y'|)^(1/2): `mmd` of the energy kernel.

    Args:
        x: Points.
        y: Points of the same dimension.
        estimate: `biased`, a distance; or `unbiased`, with the sign of its square on the root.
        x_weights: Weights of `x`, >= 0 and of sum 1; 1/m each if None.
        y_weights: Weights of `y`, likewise.

    Returns:
        The root, as `scipy.stats.energy_distance` on the line; times r^(1/2) for points times r.

    Raises:
        ValueError: As `mmd`.

    >>> energy_distance(jnp.zeros((3, 1)), jnp.full((2, 1), 2.0)).item()
    2.0
    """
    first, second = inputs.measures(x, y, x_weights, y_weights)
    return _estimate(first, second, None, estimate)


def _estimate(first, second, exponent: Array | None, estimate: str) -> Array:
    unbiased = choice("estimate", estimate, ["biased", "unbiased"]) == "unbiased"
    if unbiased and any(_one_point(*measure) for measure in (first, second)):
        raise ValueError(
            "the unbiased estimate needs >= 2 points of positive weight in each cloud, got one; "
            "take `biased`"
        )
    return _discrepancy(first, second, exponent, unbiased=unbiased)


def _one_point(points: Array, weights: Array) -> bool:
    return len(points) == 1 or (inputs.concrete(weights) and bool(np.max(weights) >= 1.0))


@functools.partial(jax.jit, static_argnames="unbiased")
def _discrepancy(first, second, exponent, *, unbiased: bool) -> Array:
    crossed = _mean_kernel(first, second, exponent)
    within = [_mean_kernel(cloud, cloud, exponent) for cloud in (first, second)]
    scale = jnp.maximum(jnp.abs(crossed), jnp.maximum(*map(jnp.abs, within)))
    if unbiased:
        # The value of a kernel at a point and itself: of the Gaussian 1, of the other 0.
        alone = 0.0 if exponent is None else 1.0
        chances = [jnp.sum(weights**2) for _, weights in (first, second)]
        within = [(k - alone * c) / (1.0 - c) for k, c in zip(within, chances, strict=True)]
    value = within[0] - 2.0 * crossed + within[1]
    return inputs.signed_root(value if unbiased else jnp.maximum(value, 0.0), scale)


def _spread(first: tuple[Array, Array], second: tuple[Array, Array]) -> Array:
    """Trace of the covariance of the equal mixture of two clouds; 1 where all points are one."""
    middle = (first[1] @ first[0] + second[1] @ second[0]) / 2
    traces = [w @ jnp.sum((points - middle[None]) ** 2, axis=1) for points, w in (first, second)]
    trace = jax.lax.stop_gradient(sum(traces)) / 2
    return jnp.where(trace == 0.0, 1.0, trace)


def _mean_kernel(
    first: tuple[Array, Array], second: tuple[Array, Array], exponent: ArrayLike | None
) -> Array:
    """Mean of a kernel over all pairs; of the energy kernel where there is no exponent."""
    (x, a), (y, b) = first, second

    def row(point: Array) -> Array:
        # Of differences and not of products, which lose the distance of points close together.
        squares = jnp.sum((point[None] - y) ** 2, axis=1)
        if exponent is not None:
            return jnp.exp(exponent * squares) @ b
        apart = squares != 0.0
        return -jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0) @ b

    # Recomputed in the reverse pass, which would keep all differences otherwise.
    return a @ jax.lax.map(jax.checkpoint(row), x, batch_size=_ROWS)
