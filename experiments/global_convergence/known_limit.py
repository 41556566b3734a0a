r"""A linear network, whose training is known at infinite width.

    f(x) = (1/M) sum_j a_j <b_j, x>,      R = (1/2) (v - w)^T S (v - w),      v = mean of a b

One trap: predictions at the start are means over heads, and have no bias in 1/M; only training
gives them one.

References:
    Saxe, McClelland and Ganguli, arXiv 1312.6120.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from meanfield import flow, tasks
from meanfield.measure import Trajectory

TARGET = np.array([1.0, -0.5])
COVARIANCE = np.array([[1.0, 0.3], [0.3, 0.5]])
PROBES = np.array([[1.0, 0.0], [0.5, -1.0]])
MEAN = np.array([0.5, 0.3, -0.2])


def draw(key: Any, width: int, depth: int) -> jax.Array:
    """Heads (a, b) of unit covariance that are not centred, [l m 3]."""
    return jnp.asarray(MEAN)[None, None] + jax.random.normal(key, (depth, width, 3))


def energy(weight_decay: float) -> Callable[[Any], Any]:
    """The risk with its decay."""
    return flow.energy(_risk, lambda heads: 1.0 / heads.shape[1], weight_decay=weight_decay)


def time_scale(heads: jax.Array) -> float:
    """The factor M of the gradient."""
    return float(heads.shape[1])


def observe(heads: jax.Array) -> Trajectory:
    """Predictions at the probes and the risk."""
    return Trajectory(jnp.asarray(PROBES) @ _product(heads), _risk(heads))


def exact(times: np.ndarray, weight_decay: float) -> dict[str, np.ndarray]:
    """Risk [t] and predictions [t q] at infinite width."""
    start = tasks.LinearMoments(
        jnp.asarray(MEAN[0] ** 2 + 1),
        jnp.asarray(MEAN[0] * MEAN[1:]),
        jnp.asarray(np.outer(MEAN[1:], MEAN[1:]) + np.eye(2)),
    )
    limit = tasks.linear_moments_flow(start, COVARIANCE, TARGET, times, weight_decay=weight_decay)
    return {
        "exact_risk": np.asarray(tasks.linear_risk(limit.product, COVARIANCE, TARGET)),
        "exact_predictions": np.asarray(limit.product) @ PROBES.T,
    }


def _product(heads: jax.Array) -> jax.Array:
    return jnp.mean(heads[..., :1] * heads[..., 1:], axis=(0, 1))


def _risk(heads: jax.Array) -> jax.Array:
    gap = _product(heads) - TARGET
    return gap @ jnp.asarray(COVARIANCE) @ gap / 2
