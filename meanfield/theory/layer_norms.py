"""Norms of an attention layer: all that the ball test reads of it.

One trap: they are of one start. A layer of fewer heads has the first of them (:func:`first_heads`),
so that numbers of heads can be compared on one draw.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from meanfield.singular import singular_values, spectral_norm
from meanfield.theory.attention_layer import AttentionLayer, Kernel, attention_features


class LayerNorms(NamedTuple):
    """Spectral norms, and the matrices that cannot be told from norms.

    Attributes:
        features: B.
        outputs: What each head adds to the output.
        targets: The targets y.
        inputs: |X_i|.
        queries: |X_i W_h^Q|.
        keys: |X_i W_h^K|.
        values: |W_h^V|.
        largest: |W_h^O|.
        least: sigma(W_h^O'); 0 if k < c.
        head_dim: k.
    """

    features: Float[np.ndarray, "bn m d"]
    outputs: Float[np.ndarray, "bn m c"]
    targets: Float[np.ndarray, "bn c"]
    inputs: Float[np.ndarray, " b"]
    queries: Float[np.ndarray, "b m"]
    keys: Float[np.ndarray, "b m"]
    values: Float[np.ndarray, " m"]
    largest: Float[np.ndarray, " m"]
    least: Float[np.ndarray, " m"]
    head_dim: int


def layer_norms(
    kernel: Kernel, layer: AttentionLayer, inputs: Array, targets: Array, /
) -> LayerNorms:
    """What the test reads of a layer.

    Args:
        kernel: From queries and keys to weights.
        layer: Parameters.
        inputs: The samples X_i.
        targets: The targets y_i.

    >>> layer = AttentionLayer(*[jnp.ones((1, 1, 1))] * 4)
    >>> float(layer_norms(lambda q, k: q @ k.T, layer, *[jnp.full((1, 1, 1), 2.0)] * 2).inputs[0])
    2.0
    """
    # In float64 whatever the layer's dtype: radii are searched over hundreds of octaves.
    found = _measured(kernel, layer, inputs, targets)
    measured = [np.asarray(each, np.float64) for each in found]
    return LayerNorms(*measured, head_dim=layer.query.shape[2])


@functools.partial(jax.jit, static_argnums=0)
def _measured(kernel, layer, inputs, targets) -> tuple[Array, ...]:
    features = attention_features(kernel, layer, inputs)
    projected = [jnp.einsum("bnd,mdk->bmnk", inputs, w) for w in (layer.query, layer.key)]
    thin = layer.output.shape[1] < layer.output.shape[2]
    outer = singular_values(layer.output)
    return (
        features,
        jnp.einsum("zmd,mdk,mkc->zmc", features, layer.value, layer.output),
        targets.reshape(-1, targets.shape[-1]),
        spectral_norm(inputs),
        *(spectral_norm(each) for each in projected),
        spectral_norm(layer.value),
        outer[:, 0],
        jnp.zeros_like(outer[:, 0]) if thin else outer[:, -1],
    )


def first_heads(norms: LayerNorms, heads: int, /) -> LayerNorms:
    """What the test reads of the layer's first heads alone.

    Args:
        norms: What it reads of the layer.
        heads: How many heads stay.

    >>> first_heads(LayerNorms(*[np.ones((1, 3, 1))] * 9, head_dim=1), 2).features.shape
    (1, 2, 1)
    """
    return norms._replace(
        features=norms.features[:, :heads],
        outputs=norms.outputs[:, :heads],
        queries=norms.queries[:, :heads],
        keys=norms.keys[:, :heads],
        values=norms.values[:heads],
        largest=norms.largest[:heads],
        least=norms.least[:heads],
    )
