"""Weak form of the continuity equation along a particle run, in any dimension.

    d/dtau mean_j phi(theta_j) - mean_j <grad phi(theta_j), v_j> = 0    for every test function phi

averaged over each interval between saved times: exactly 0 for particles moved by the velocities
saved with them, up to the quadrature over time, whose size is reported beside.
Trap: a residual of 0 says that particles follow the velocities handed in, and not that these are
-grad dQ/drho; hand in those of the field.

Reference:
    Ambrosio, Gigli and Savare, Gradient Flows, 2008, equation 8.1.3.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float
from scipy.interpolate import CubicSpline

from meanfield.checks import finite


class WeakResidual(NamedTuple):
    """The weak form on each interval between saved times, per depth and test function.

    Attributes:
        residual: `rate` less the mean over the interval of mean_j <grad phi, v_j>, by spline.
        rate: Mean of d/dtau mean_j phi over the interval.
        quadrature: What the trapezoidal rule in place of the spline would change: residuals far
            below it are zero as far as the saved times can tell.
    """

    residual: Float[np.ndarray, "s l c"]
    rate: Float[np.ndarray, "s l c"]
    quadrature: Float[np.ndarray, "s l c"]


def weak_residual(
    phi: Callable[[Float[Array, " p"]], Float[Array, " c"]],
    ts: Any,
    points: Float[ArrayLike, "t l m p"],
    velocities: Float[ArrayLike, "t l m p"],
    /,
) -> WeakResidual:
    """How far a saved particle run is from solving the continuity equation of its velocities.

    Args:
        phi: Test functions, from one particle to c values; smooth.
        ts: The increasing times of the clouds, at least four.
        points: Clouds of all depths at these times (see `clouds`).
        velocities: d theta/dtau of each particle at these times.

    Returns:
        The residual on each of the t - 1 intervals, with the rate it is to be compared with.

    Raises:
        ValueError: Empty clouds, shapes that differ, fewer than four times, times that do not
            increase, values that are not finite, or test functions that do not give a vector.

    >>> ts = np.linspace(0.0, 1.0, 5)
    >>> run = np.exp(-ts)[:, None, None, None] * np.ones((1, 1, 3, 2))
    >>> bool(abs(weak_residual(lambda x: x**2, ts, run, -run).residual).max() < 1e-2)
    True
    """
    times = np.asarray(ts, float)
    points, velocities = jnp.asarray(points), jnp.asarray(velocities)
    if points.ndim != 4 or points.size == 0 or velocities.shape != points.shape:
        raise ValueError(
            "points and velocities must be equal non-empty [t l m p], got shapes "
            f"{list(points.shape)} and {list(velocities.shape)}; stack the clouds of each time"
        )
    if times.shape != points.shape[:1] or len(times) < 4 or not (np.diff(times) > 0).all():
        raise ValueError(
            f"ts must be at least 4 increasing times, one per row of points ({len(points)}), got "
            f"{times.tolist()}; save more often"
        )
    finite("ts", times)
    finite("points", points)
    finite("velocities", velocities)
    tests = phi if isinstance(phi, Partial) else Partial(phi)
    given = jax.eval_shape(tests, points[0, 0, 0])
    if len(getattr(given, "shape", ())) != 1:
        raise ValueError(
            f"phi must give a vector [c] of test functions of one particle, got {given}"
        )
    means, rates = (np.asarray(a, float) for a in _means(tests, points, velocities))
    lengths = np.diff(times)[:, None, None]
    by_spline = np.diff(CubicSpline(times, rates).antiderivative()(times), axis=0) / lengths
    by_trapezoid = (rates[1:] + rates[:-1]) / 2
    rate = np.diff(means, axis=0) / lengths
    return WeakResidual(rate - by_spline, rate, np.abs(by_spline - by_trapezoid))


@jax.jit
def _means(phi: Callable, points: Array, velocities: Array) -> tuple[Array, Array]:
    """Means over particles of phi and <grad phi, v>, per time and depth."""

    def particle(theta, velocity):
        # One product per particle instead of c gradients.
        return jax.jvp(phi, (theta,), (velocity,))

    def cloud(pair):
        return jax.tree.map(lambda values: jnp.mean(values, axis=0), jax.vmap(particle)(*pair))

    shape = points.shape
    flat = (points.reshape(-1, *shape[2:]), velocities.reshape(-1, *shape[2:]))
    found = jax.lax.map(cloud, flat)
    return jax.tree.map(lambda values: values.reshape(*shape[:2], -1), found)
