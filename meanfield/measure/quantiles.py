"""Wasserstein distances on the line, and of clouds through their projections onto lines.

    W_p(x, y)^p  = int_0^1 |F_x^{-1}(q) - F_y^{-1}(q)|^p dq                     (points on a line)
    SW_p(x, y)^p = E_u W_p(<x, u>, <y, u>)^p,                       u uniform on the sphere

Every function returns the root, so all are distances in the units of the points; m and n may
differ, and so may the weights of the points. Traps: ott-jax returns SW_2 squared, POT the root;
XLA sorts 20 times slower than numpy, so arrays with values on a CPU are sorted by numpy.

References:
    Peyre and Cuturi, Computational Optimal Transport (arXiv 1803.00567), equation 2.30;
    Bonneel et al., Sliced and Radon Wasserstein barycenters of measures, 2015.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from meanfield.checks import count
from meanfield.measure import inputs


def wasserstein_1d(
    x: Float[ArrayLike, " m"],
    y: Float[ArrayLike, " n"],
    /,
    *,
    p: float | int = 2,
    x_weights: Float[ArrayLike, " m"] | None = None,
    y_weights: Float[ArrayLike, " n"] | None = None,
) -> Float[Array, ""]:
    """Exact distance W_p on the line: the L^p distance of the two quantile functions.

    Costs a sort, O((m + n) log(m + n)). Differentiable, in points and weights, wherever no two
    points of one cloud coincide; at distance 0 the derivative is set to 0.

    Args:
        x: Points.
        y: Points.
        p: Order of the distance, a number >= 1, static under `jit`.
        x_weights: Weights of `x`, >= 0 and of sum 1; 1/m each if None.
        y_weights: Weights of `y`, likewise.

    Returns:
        W_p(x, y), the root and not its power.

    Raises:
        ValueError: Empty or non-finite input, p < 1, or weights that are no probabilities. Inside
            `jit` a NaN gives NaN instead.

    >>> wasserstein_1d(jnp.array([0.0, 2.0]), jnp.array([1.0]), p=1).item()
    1.0
    """
    order = inputs.order(p)
    inputs.check_pair(x, y, rank=1)
    x, y = jnp.asarray(x)[None], jnp.asarray(y)[None]
    return _distance(x, y, x_weights, y_weights, order)


def sliced_wasserstein(
    key: PRNGKeyArray,
    x: Float[ArrayLike, "m p"],
    y: Float[ArrayLike, "n p"],
    /,
    *,
    p: float | int = 2,
    projections: int = 128,
    x_weights: Float[ArrayLike, " m"] | None = None,
    y_weights: Float[ArrayLike, " n"] | None = None,
) -> Float[Array, ""]:
    """Sliced distance SW_p by Monte Carlo over directions drawn uniformly on the sphere.

    The mean over directions is taken of W_p^p and the root last, as in POT. For a shift by c the
    exact SW_2 is |c|/sqrt(dim), so it shrinks with dimension; never above W_p, for any directions.
    At a fixed key the directions are fixed, and symmetry and triangle inequality hold exactly.

    Args:
        key: Random key of the directions.
        x: Points.
        y: Points of the same dimension.
        p: Order of the distance, a number >= 1, static under `jit`.
        projections: Number of directions, static under `jit`; relative error about
            1/sqrt(2 projections) for a shift, less for clouds that differ in all directions.
        x_weights: Weights of `x`, >= 0 and of sum 1; 1/m each if None.
        y_weights: Weights of `y`, likewise.

    Returns:
        Estimate of SW_p(x, y), the root and not its power.

    Raises:
        ValueError: Empty clouds, clouds of different dimension, values that are not finite (NaN
            inside `jit` gives NaN instead), p < 1, projections < 1, or weights that are no
            probabilities.

    >>> x = jnp.zeros((3, 1))
    >>> sliced_wasserstein(jax.random.key(0), x, x + 2.0, projections=4).item()
    2.0
    """
    order = inputs.order(p)
    projections = count("projections", projections)
    inputs.check_pair(x, y)
    x, y = jnp.asarray(x), jnp.asarray(y)
    normals = jax.random.normal(key, (x.shape[1], projections), jnp.result_type(x, y, jnp.float32))
    directions = (normals / jnp.linalg.norm(normals, axis=0, keepdims=True)).T
    if _on_host(x, y, directions):
        x, y, directions = np.asarray(x), np.asarray(y), np.asarray(directions)
    return _distance(directions @ x.T, directions @ y.T, x_weights, y_weights, order)


def _distance(x, y, x_weights, y_weights, order: float) -> Array:
    """Root of the mean power of the distances of the rows of `x` and `y`."""
    inputs.check_weights("x_weights", x_weights, x.shape[1])
    inputs.check_weights("y_weights", y_weights, y.shape[1])
    dtype = jnp.result_type(x, y, jnp.float32)
    if x_weights is None and y_weights is None:
        if _on_host(x, y):
            gaps, lengths = _quantile_gaps(np.asarray(x), np.asarray(y), np)
            return jnp.asarray(_host_root_mean_power(gaps.astype(dtype), lengths, order), dtype)
        gaps, lengths = _quantile_gaps(jnp.asarray(x), jnp.asarray(y), jnp)
        return _root_mean_power(gaps.astype(dtype), jnp.asarray(lengths, dtype)[None], order)
    x, y = jnp.asarray(x, dtype), jnp.asarray(y, dtype)
    first = inputs.probabilities(x_weights, x.shape[1], dtype)
    second = inputs.probabilities(y_weights, y.shape[1], dtype)
    return _weighted_distance(x, y, first, second, order=order)


@functools.partial(jax.jit, static_argnames="order")
def _weighted_distance(x, y, x_weights, y_weights, *, order: float) -> Array:
    gaps, lengths = jax.vmap(_weighted_gaps, (0, 0, None, None))(x, y, x_weights, y_weights)
    return _root_mean_power(gaps, lengths, order)


def _on_host(*arrays) -> bool:
    return inputs.concrete(*arrays) and jax.default_backend() == "cpu"


def _quantile_gaps(x, y, numpy):
    """Gaps of the quantile functions of each row, and the probability each gap holds for."""
    m, n = x.shape[1], y.shape[1]
    x, y = numpy.sort(x, axis=1), numpy.sort(y, axis=1)
    if m == n:
        return x - y, np.full(m, 1.0 / m)
    # The functions jump at i/m and j/n: in units of 1/(m n) all of these are exact integers.
    jumps = np.union1d(np.arange(m + 1, dtype=np.int64) * n, np.arange(n + 1, dtype=np.int64) * m)
    return x[:, jumps[:-1] // n] - y[:, jumps[:-1] // m], np.diff(jumps) / (m * n)


def _weighted_gaps(x: Array, y: Array, x_weights: Array, y_weights: Array) -> tuple[Array, Array]:
    """The same of two weighted clouds on the line, whose jumps are known only after sorting."""
    by_x, by_y = jnp.argsort(x), jnp.argsort(y)
    ends_x, ends_y = jnp.cumsum(x_weights[by_x]), jnp.cumsum(y_weights[by_y])
    ends = jnp.sort(jnp.concatenate([ends_x, ends_y]))
    starts = jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]])
    # At the middle of an interval no rounding of its ends can name another point. Points of
    # weight 0 own no interval, and past the shorter of two sums that round differently is nothing.
    middles = (starts + ends) / 2
    in_x = jnp.minimum(jnp.searchsorted(ends_x, middles), len(x) - 1)
    in_y = jnp.minimum(jnp.searchsorted(ends_y, middles), len(y) - 1)
    return x[by_x[in_x]] - y[by_y[in_y]], ends - starts


def _root_mean_power(gaps: Array, lengths: Array, order: float) -> Array:
    sizes = jnp.abs(gaps)
    # A distance is 1-homogeneous in the gaps, so a constant scale leaves its gradient unchanged.
    scale = jax.lax.stop_gradient(jnp.max(sizes))
    scale = jnp.where(scale == 0.0, 1.0, scale)
    power = jnp.sum(jnp.mean(lengths * (sizes / scale) ** order, axis=0))
    # Both branches of a where are differentiated: the root must not see 0.
    positive = jnp.where(power == 0.0, 1.0, power)
    return jnp.where(power == 0.0, 0.0, scale * positive ** (1.0 / order))


def _host_root_mean_power(gaps: np.ndarray, lengths: np.ndarray, order: float) -> float:
    sizes = np.abs(gaps, out=gaps)
    scale = float(sizes.max())
    if scale == 0.0:
        return 0.0
    sizes /= scale
    return scale * float(np.mean(sizes**order @ lengths)) ** (1.0 / order)
