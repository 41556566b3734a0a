"""In-context regression by gated heads of linear attention, small enough for many widths and seeds.

    f(T, theta) = T q tanh(k^T (T^T T / n) v) o^T,    theta = (q, k, v, o) in R^{4 x 2}

The one trap: rho_0 is not centred, so that the drift and its 1/L error are there from the start.
"""

import dataclasses

import jax
import jax.numpy as jnp

from meanfield import flow, measure, nn, tasks

PROMPTS = tasks.in_context_regression(jax.random.key(3), 6, context=4, dim=1)
WIDEST = 64
TIMES = jnp.linspace(0.0, 1.0, 3)


def head(tokens, theta, mask):
    """The update by one head, as the formula says."""
    del mask
    query, key, value, out = theta
    gate = jnp.tanh(key @ (tokens.T @ tokens / len(tokens)) @ value)
    return jnp.outer(tokens @ query, gate * out)


def mean_head(tokens, thetas, mask):
    """The mean of `head`, by one 2 x 2 matrix for all heads."""
    del mask
    query, key, value, out = jnp.moveaxis(thetas, 1, 0)
    gates = jnp.tanh(jnp.sum(key @ (tokens.T @ tokens / len(tokens)) * value, axis=1))
    return tokens @ (query.T @ (gates[:, None] * out)) / len(thetas)


def law(key):
    """rho_0: entries of mean 1/2 and of a deviation small enough for few heads to be normal."""
    return 0.5 + 0.1 * jax.random.normal(key, (4, 2))


BLOCK = nn.block(head, law, mean=mean_head)
MODEL = nn.model(nn.identity(), nn.network((BLOCK,), depth=1), nn.label_read())
RISK = flow.empirical_risk(MODEL.apply, PROMPTS.tokens, PROMPTS.labels)
ENERGY = flow.energy(RISK, MODEL.decay_scales, weight_decay=1e-2)


def draw(coupling):
    """Parameters from (key, width, depth)."""

    def start(key, width, depth):
        deep = dataclasses.replace(MODEL.network, depth=depth)
        return dataclasses.replace(MODEL, network=deep).init(key, width=width, coupling=coupling)

    return start


def quick_draw(coupling):
    """The same law by one call of the generator, which compiles five times faster."""

    def start(key, width, depth):
        layers = depth if coupling == "independent" else 1
        heads = 0.5 + 0.1 * jax.random.normal(key, (layers, width, 4, 2))
        return nn.Theta((), (jnp.broadcast_to(heads, (depth, width, 4, 2)),), ())

    return start


def observe(theta):
    """Predictions at the prompts and the risk."""
    predictions = jax.vmap(MODEL.apply, (None, 0))(theta, PROMPTS.tokens)
    return measure.Trajectory(predictions, RISK(theta))


def run(theta, *, steps=2):
    """The gradient flow by Heun's method, `steps` steps between two times."""
    field = flow.gradient_field(ENERGY, MODEL.time_scales)
    step = (TIMES[1] - TIMES[0]) / steps

    def advance(theta, _):
        first = field(0.0, theta)
        second = field(0.0, jax.tree.map(lambda y, k: y + step * k, theta, first))
        return jax.tree.map(lambda y, k, n: y + step / 2 * (k + n), theta, first, second), None

    def save(theta, _):
        return jax.lax.scan(advance, theta, length=steps)[0], observe(theta)

    return jax.lax.scan(save, theta, length=len(TIMES))[1]


@jax.jit
def _abreast(thetas):
    return jax.vmap(run)(thetas)


def run_together(thetas):
    """Runs of replicas [s l m ...], sixteen at a time: one program for all widths of a depth.

    A network is the measure of its heads, which repeating each of them does not change.
    """
    wide = jax.tree.map(lambda leaf: jnp.repeat(leaf, WIDEST // leaf.shape[2], axis=2), thetas)
    seeds = len(jax.tree.leaves(wide)[0])
    parts = [
        _abreast(jax.tree.map(lambda leaf, start=start: leaf[start : start + 16], wide))
        for start in range(0, seeds, 16)
    ]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves).swapaxes(0, 1), *parts)
