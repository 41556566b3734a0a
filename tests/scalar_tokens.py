"""A Transformer of scalar tokens whose particles are points of the plane, and its energy.

Attention particle (a, v): f(T)_i = v sum_j softmax_j(a T_i T_j) T_j, as the query-key product and
the value of a head; neuron (u, w): h(T)_i = w tanh(u T_i). Rows of weights alternate between the
two, so that one depth has two rows.
"""

import jax
import jax.numpy as jnp
import numpy as np

DEPTH = 2
_RNG = np.random.default_rng(5)
TOKENS = _RNG.normal(size=(4, 3))
LABELS = np.sin(2.0 * TOKENS.sum(axis=1)) + 1.0


def heads(tokens, points):
    """Updates [b n m] of tokens [b n] by heads (a, v) [m 2]."""
    products = tokens[:, :, None, None] * tokens[:, None, :, None] * points[None, None, None, :, 0]
    mixed = jnp.sum(jax.nn.softmax(products, axis=2) * tokens[:, None, :, None], axis=2)
    return mixed * points[None, None, :, 1]


def neurons(tokens, points):
    """Updates [b n m] of tokens [b n] by neurons (u, w) [m 2]."""
    return jnp.tanh(tokens[..., None] * points[None, None, :, 0]) * points[None, None, :, 1]


def outputs(weights, points):
    """The last token of each sample after all depths; rows of weights [2 depth, m]."""
    tokens = jnp.asarray(TOKENS, weights.dtype)
    for row in range(len(weights)):
        update = neurons if row % 2 else heads
        tokens = tokens + update(tokens, points[row]) @ weights[row] * (2 / len(weights))
    return tokens[:, -1]


def energy(weights, points, weight_decay=0.1):
    """Risk and decay, with the mean over depths and the sum over the rows of one depth."""
    risk = jnp.mean((outputs(weights, points) - LABELS) ** 2) / 2
    norms = jnp.sum(weights * jnp.sum(points**2, axis=-1)) * (2 / len(weights))
    return risk + weight_decay / 2 * norms


def particle_velocity(points):
    """Minus depth x width x gradient, one particle's share of the energy made a velocity."""
    rows, width, _ = points.shape
    even = jnp.full((rows, width), 1 / width)
    return -(rows // 2) * width * jax.grad(energy, argnums=1)(even, points)


def particle_run(points, times):
    """Clouds at the times by Runge-Kutta of order 4, one step between two times."""

    def step(theta, length):
        def stage(slope, share):
            slope = particle_velocity(theta + share * length * slope)
            return slope, slope

        shares = jnp.array([0.0, 0.5, 0.5, 1.0])
        _, slopes = jax.lax.scan(stage, jnp.zeros_like(theta), shares)
        theta = theta + length * jnp.tensordot(jnp.array([1.0, 2.0, 2.0, 1.0]) / 6, slopes, 1)
        return theta, theta

    _, later = jax.lax.scan(step, points, jnp.diff(times))
    return jnp.concatenate([points[None], later])
