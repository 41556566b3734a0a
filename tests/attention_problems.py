"""Random problems of one attention layer, and the two kernels with their Lipschitz constants."""

import jax.numpy as jnp
import numpy as np

from meanfield import nn, theory

KERNELS = {"softmax": nn.softmax(), "gaussian": nn.gaussian()}
LIPSCHITZ = {"softmax": theory.softmax_lipschitz(), "gaussian": theory.gaussian_lipschitz()}
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
