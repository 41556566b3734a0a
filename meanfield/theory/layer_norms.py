"""Norms of an attention layer: all that the ball test reads of it.

One trap: they are of one start. A layer of fewer heads has the first of them (:func:`first_heads`),
so that numbers of heads can be compared on one draw.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from meanfield.theory.attention_layer import AttentionLayer


class LayerNorms(NamedTuple):
    """Spectral norms, and the matrices that cannot be told from norms.

    Attributes:
        features: B, in the precision of the layer.
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
    features: Array | np.ndarray, layer: AttentionLayer, inputs: Array, targets: Array, /
) -> LayerNorms:
    """What the test reads of a layer.

    Args:
        features: B = :func:`attention_features` of the layer and the samples.
        layer: Parameters.
        inputs: The samples X_i.
        targets: The targets y_i.

    >>> import jax.numpy as jnp
    >>> one = jnp.ones((1, 1, 1))
    >>> float(layer_norms(one, AttentionLayer(*[one] * 4), 2 * one, one).inputs[0])
    2.0
    """
    # Features in their own precision, which says what of them is round-off; all else in float64,
    # because radii are searched over hundreds of octaves.
    found = np.asarray(features)
    query, key, value, output = (np.asarray(leaf, np.float64) for leaf in layer)
    tokens, wanted = np.asarray(inputs, np.float64), np.asarray(targets, np.float64)
    projected = [np.einsum("bnd,mdk->bmnk", tokens, weights) for weights in (query, key)]
    outer = np.linalg.svd(output, compute_uv=False)
    thin = output.shape[1] < output.shape[2]
    return LayerNorms(
        features=found,
        outputs=np.einsum("zmd,mdk,mkc->zmc", found, value, output),
        targets=wanted.reshape(-1, wanted.shape[-1]),
        inputs=_largest(tokens),
        queries=_largest(projected[0]),
        keys=_largest(projected[1]),
        values=_largest(value),
        largest=outer[:, 0],
        least=np.zeros(len(outer)) if thin else outer[:, -1],
        head_dim=query.shape[2],
    )


def _largest(matrices: np.ndarray) -> np.ndarray:
    return np.linalg.svd(matrices, compute_uv=False)[..., 0]


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
