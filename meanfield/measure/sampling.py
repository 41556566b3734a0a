"""Sampling bias of a distance between two finite clouds: what it is when their laws agree.

    E W_2(x, y + c)^2 = |c|^2 + E W_2(x, y)^2      (x, y: m and n points of one law)

The second term is estimated from the clouds themselves: both are centred and pooled, the pool is
split at random into m and n points, and the distance of the parts is what chance alone makes.
Trap: the estimate holds for laws that differ by a shift, and is 0 less the shift for equal laws;
where they differ in shape it takes their mixture for the one law, and is only an indication.

Reference:
    Weed and Bach, Sharp asymptotic and finite-sample rates of convergence of empirical measures in
    Wasserstein distance, 2019 (the bias falls like m^(-1/dim): slowly).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from meanfield.checks import count
from meanfield.measure import inputs
from meanfield.measure.distances import wasserstein


class SampledDistance(NamedTuple):
    """A distance of two clouds, with what chance alone makes of it.

    Attributes:
        distance: The distance of the clouds as they are.
        bias: Root of the mean squared distance of random parts of the pool.
        corrected: (distance^2 - bias^2)^(1/2), with the sign of the difference on the root: about 0
            for clouds of one law.
        bias_error: Standard error of `bias` from the finite number of splits.
        splits: Distances of the random parts, to draw or to compare `distance` with.
    """

    distance: Float[Array, ""]
    bias: Float[Array, ""]
    corrected: Float[Array, ""]
    bias_error: Float[Array, ""]
    splits: Float[Array, " splits"]


def sampling_bias(
    key: PRNGKeyArray,
    x: Float[ArrayLike, "m p"],
    y: Float[ArrayLike, "n p"],
    distance: Callable[[Any, Any], ArrayLike] = wasserstein,
    /,
    *,
    splits: int = 16,
) -> SampledDistance:
    """Distance of two clouds beside the distance that two clouds of one law would have.

    Costs 1 + splits distances, on the host.

    Args:
        key: Random key of the splits.
        x: Points, each of weight 1/m.
        y: Points of the same dimension, each of weight 1/n.
        distance: Function of two clouds that returns a distance, the root and not its square:
            `wasserstein`, or any other of this room with its options bound.
        splits: Number of random splits, at least 2.

    Returns:
        Distance, bias, corrected distance, and the error of the bias.

    Raises:
        ValueError: Empty clouds, clouds of different dimension, values that are not finite, traced
            arrays, a single point in both clouds, or splits < 2.

    >>> x = jax.random.normal(jax.random.key(0), (2, 50, 3))
    >>> found = sampling_bias(jax.random.key(1), x[0], x[1] + 4.0)
    >>> round(float(found.bias), 2), round(float(found.corrected / 48**0.5), 2)
    (0.93, 0.97)
    """
    inputs.check_pair(x, y)
    splits = count("splits", splits, least=2)
    if not inputs.concrete(x, y):
        raise ValueError(
            "sampling_bias needs concrete arrays, got traced ones; call it outside jit"
        )
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) == len(y) == 1:
        raise ValueError("two points say nothing of the spread of their laws; use larger clouds")
    # Centred, for a shift between the laws would pass for spread. Two means are estimated and not
    # one, so the mean squared distance of two points of the pool is that much too small.
    pool = np.concatenate([x - x.mean(axis=0), y - y.mean(axis=0)])
    pool *= np.sqrt((len(pool) - 1) / (len(pool) - 2))
    parts = []
    for split in jax.random.split(key, splits):
        shuffled = pool[np.asarray(jax.random.permutation(split, len(pool)))]
        parts.append(float(jnp.asarray(distance(shuffled[: len(x)], shuffled[len(x) :]))))
    value = float(jnp.asarray(distance(x, y)))
    squares = np.square(parts)
    bias = float(np.sqrt(squares.mean()))
    # The error of a mean of squares, through the derivative of the root.
    error = squares.std(ddof=1) / np.sqrt(splits) / (2 * bias) if bias else 0.0
    difference = value**2 - squares.mean()
    corrected = np.sign(difference) * np.sqrt(abs(difference))
    numbers = (value, bias, corrected, error, np.asarray(parts))
    return SampledDistance(*(jnp.asarray(number) for number in numbers))
