r"""A Transformer of scalar tokens, whose heads and neurons are points of the plane.

    head (a, v):      f(T)_i = v sum_j softmax_j(a T_i T_j) T_j     (query-key product, value)
    neuron (u, w):    h(T)_i = w tanh(u T_i)                        (weights in and out)

    Q = E (1/2) (T_n(1) - y)^2 + (lambda/2) mean over depths of int |theta|^2 drho

Its energy is one of *weighted* particles: even weights on a cloud give the network, the masses of
the cells at their centres the limit of infinite width. Rows alternate between heads and neurons.

One trap: one depth has two rows, so particles move by -(rows/2) m grad Q.

References:
    Gao et al. 2024, arXiv 2410.23610 (half-steps: our reading of the paper).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from meanfield import flow


class Data(NamedTuple):
    """Samples and what the energy weighs them with.

    Attributes:
        tokens: Tokens [b n]; the last is read.
        labels: What it should be at the end [b].
        weight_decay: The constant lambda.
    """

    tokens: jax.Array
    labels: jax.Array
    weight_decay: jax.Array


def data(seed: int, /, *, samples: int, tokens: int, weight_decay: float) -> Data:
    """Gaussian tokens, and labels that are not odd in them, so that neurons alone do not do."""
    drawn = np.random.default_rng(seed).normal(size=(samples, tokens))
    labels = np.sin(2.0 * drawn.sum(axis=1)) + 1.0
    return Data(jnp.asarray(drawn), jnp.asarray(labels), jnp.asarray(weight_decay))


def heads(tokens: jax.Array, points: jax.Array) -> jax.Array:
    """Updates [b n m] of tokens [b n] by heads (a, v) [m 2]."""
    products = tokens[:, :, None, None] * tokens[:, None, :, None] * points[None, None, None, :, 0]
    mixed = jnp.sum(jax.nn.softmax(products, axis=2) * tokens[:, None, :, None], axis=2)
    return mixed * points[None, None, :, 1]


def neurons(tokens: jax.Array, points: jax.Array) -> jax.Array:
    """Updates [b n m] of tokens [b n] by neurons (u, w) [m 2]."""
    return jnp.tanh(tokens[..., None] * points[None, None, :, 0]) * points[None, None, :, 1]


def outputs(given: Data, weights: jax.Array, points: jax.Array) -> jax.Array:
    """The last token of each sample after all depths [b]; weights [r m], points [r m 2]."""
    depth = len(weights) // 2

    def layer(tokens, rows):
        for update, weight, cloud in zip((heads, neurons), *rows, strict=True):
            tokens = tokens + update(tokens, cloud) @ weight / depth
        return tokens, None

    pairs = jax.tree.map(lambda leaf: leaf.reshape(depth, 2, *leaf.shape[1:]), (weights, points))
    return jax.lax.scan(layer, given.tokens, pairs)[0][:, -1]


def energy(given: Data) -> Partial:
    """Q of weighted particles, for ``measure.variation_of``."""
    return Partial(_energy, given)


def many_outputs(given: Data, clouds: jax.Array) -> jax.Array:
    """The outputs [s b] of networks with clouds [s r m 2]."""
    return jax.vmap(outputs, in_axes=(None, None, 0))(given, _even(clouds), clouds)


def many_energies(given: Data, clouds: jax.Array) -> jax.Array:
    """Q [s] of networks with clouds [s r m 2]."""
    return jax.vmap(_energy, in_axes=(None, None, 0))(given, _even(clouds), clouds)


def networks(given: Data) -> flow.GradientField:
    """The flow of many networks side by side, a tuple of clouds [s r m 2] with one width in each.

    What falls is the sum of their energies, so that each follows its own, in one program for all.
    """
    return flow.gradient_field(Partial(_sum_of_energies, given), _time_scales)


def _even(clouds: jax.Array) -> jax.Array:
    return jnp.full(clouds.shape[1:3], 1 / clouds.shape[2], clouds.dtype)


def _energy(given: Data, weights: jax.Array, points: jax.Array) -> jax.Array:
    risk = jnp.mean((outputs(given, weights, points) - given.labels) ** 2) / 2
    norms = jnp.sum(weights * jnp.sum(points**2, axis=-1)) * (2 / len(weights))
    return risk + given.weight_decay / 2 * norms


def _sum_of_energies(given: Data, theta: tuple[jax.Array, ...]) -> jax.Array:
    return sum((jnp.sum(many_energies(given, clouds)) for clouds in theta), start=jnp.zeros(()))


def _time_scales(theta: tuple[Any, ...]) -> tuple[float, ...]:
    return tuple(clouds.shape[1] / 2 * clouds.shape[2] for clouds in theta)
