"""Random problems of one attention layer, and the two kernels."""

import jax
import jax.numpy as jnp
import numpy as np

from meanfield import theory

KERNELS = {"softmax": theory.SoftmaxKernel(), "gaussian": theory.GaussianKernel()}
SIZES = {"samples": 2, "tokens": 2, "dim": 5, "heads": 2, "head_dim": 2, "outputs": 2}


def problems(seed, count=None, *, scale=1.0, **sizes):
    """A layer, inputs and targets from numpy, or ``count`` of them along a leading axis."""
    at = SIZES | sizes
    lead = () if count is None else (count,)
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=(*lead, *shape)))

    square = (at["heads"], at["dim"], at["head_dim"])
    parts = [scale * draw(*square) / np.sqrt(at["dim"]) for _ in range(3)]
    output = draw(at["heads"], at["head_dim"], at["outputs"])
    layer = theory.AttentionLayer(*parts, output)
    inputs = draw(at["samples"], at["tokens"], at["dim"])
    return layer, inputs, draw(at["samples"], at["tokens"], at["outputs"])


SHAPES = (
    {},
    {"samples": 3, "tokens": 2, "dim": 6, "heads": 1, "head_dim": 3, "outputs": 1},
    {"samples": 1, "tokens": 3, "dim": 4, "heads": 3, "head_dim": 1, "outputs": 1},
)
"""Shapes of the problems of a panel, of which the second has its risk averaged over samples."""


def panel(seed, count, *, shapes=SHAPES):
    """``count`` problems of several shapes, weights, tokens and targets each of its own size."""
    rng = np.random.default_rng(seed)
    share = -(-count // len(shapes))
    for i, sizes in enumerate(shapes):
        number = min(share, count - i * share)
        given = problems([seed, i], number, **sizes)
        factors = 10.0 ** rng.uniform(-0.5, 0.5, size=(6, number))
        leaves = [
            leaf * factor[:, None, None, None]
            for leaf, factor in zip(jax.tree.leaves(given), factors, strict=True)
        ]
        yield jax.tree.unflatten(jax.tree.structure(given), leaves), sizes is SHAPES[1]


def weights_by_loop(name, queries, keys):
    """The weights of one head and sample, entry by entry."""
    found = np.empty((len(queries), len(keys)))
    for a, q in enumerate(np.asarray(queries)):
        for b, k in enumerate(np.asarray(keys)):
            size = np.sqrt(len(q))
            found[a, b] = np.exp(
                q @ k / size if name == "softmax" else -np.sum((q - k) ** 2) / 2 / size
            )
    return found / found.sum(axis=1, keepdims=True) if name == "softmax" else found
