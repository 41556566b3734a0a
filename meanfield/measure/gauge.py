"""Coordinates of heads and neurons that do not change where the map they compute does not.

    head    (s W_Q W_K^T, W_V W_O),  the same for W_Q G, W_K G^-T, W_V H, H^-1 W_O;  G, H in GL(k)
    neuron  (r (w_in, b), w_out / r),  r^2 = |w_out| / |w_in, b|;  the same for c w_in, c b, w_out/c

A softmax or linear head is a function of its two products, and a neuron of a positively homogeneous
activation (relu) one of its balanced pair. Distances of heads need no d x d matrices:

    |A - A'|^2 = |A|^2 + |A'|^2 - 2 tr (W_Q^T W_Q') (W_K'^T W_K)       for  A = W_Q W_K^T

Traps: for a Gaussian kernel, which sees W_Q W_Q^T too, only orthogonal G are free; and what the
formula cancels between heads that compute almost the same is found again from their factors.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

# Below this squared distance, over the squared norms, cancellation has eaten more than 3 digits.
_CANCELLED = 1e-3
# Pairs of heads at a time.
_PAIRS = 4096


def head_coordinates(
    query: Float[ArrayLike, "*particles d k"],
    key: Float[ArrayLike, "*particles d k"],
    value: Float[ArrayLike, "*particles d k"],
    output: Float[ArrayLike, "*particles k d"],
    /,
    *,
    scale: float | None = None,
) -> Float[Array, "*particles coordinates"]:
    """Products of the factors of each head, flattened: points whose distance is that of the maps.

    Args:
        query: Factors W_Q of a tree of heads (`head_coordinates(*heads)`).
        key: Factors W_K.
        value: Factors W_V.
        output: Factors W_O.
        scale: Factor s of the products of queries and keys, k^(-1/2) if None, as in the kernels.

    Returns:
        2 d^2 coordinates for each head: s W_Q W_K^T, then W_V W_O.

    Raises:
        ValueError: Factors whose shapes do not fit together, or no heads.

    >>> factors = [jnp.ones((3, 5, 4, 2))] * 3 + [jnp.ones((3, 5, 2, 4))]
    >>> head_coordinates(*factors).shape
    (3, 5, 32)
    """
    left, right, value, output = _factors((query, key, value, output), scale, jnp)
    if 0 in left.shape:
        raise ValueError(
            f"there must be heads to compare, [... d k] without an empty axis, got {left.shape}"
        )
    products = left @ jnp.swapaxes(right, -1, -2), value @ output
    return jnp.concatenate([p.reshape(*p.shape[:-2], -1) for p in products], axis=-1)


def head_distances(
    first: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike],
    /,
    *,
    scale: float | None = None,
) -> Float[np.ndarray, "m n"]:
    """Distances of the coordinates of all pairs of heads, without any d x d matrix.

    On the host and in float64, through products of k x k matrices: O(m n k^2) numbers of work and
    memory once these are formed. `wasserstein_of` turns them into a distance of layers.

    Args:
        first: One layer's factors (query, key, value, output), each with one leading axis m.
        second: The same of another layer, of any width and head dimension and the same d.
        scale: Factor of the products of queries and keys, k^(-1/2) of each layer if None.

    Returns:
        Euclidean distances, roots and not squares, of `head_coordinates`.

    Raises:
        ValueError: Factors whose shapes do not fit together, token dimensions that differ, no
            heads, or values that are not finite.

    >>> heads = (np.ones((3, 4, 2)),) * 3 + (np.ones((3, 2, 4)),)
    >>> head_distances(heads, (*heads[:3], -heads[3])).round(4).max().item()
    16.0
    """
    layers = [_factors(layer, scale, np) for layer in (first, second)]
    for factors in layers:
        if factors[0].ndim != 3 or 0 in factors[0].shape:
            raise ValueError(
                f"heads must be those of one layer, [m d k] with m >= 1, got {factors[0].shape}; "
                "select a layer"
            )
        if not all(np.isfinite(factor).all() for factor in factors):
            raise ValueError("heads must be finite, got NaN or infinity; drop diverged particles")
    dims = [factors[0].shape[1] for factors in layers]
    if dims[0] != dims[1]:
        raise ValueError(f"heads must have equal token dimension, got {dims[0]} and {dims[1]}")
    # Both products as (left, right) with left right^T, their factors [m d k].
    attending = [(f[0], f[1]) for f in layers]
    moving = [(f[2], np.swapaxes(f[3], -1, -2)) for f in layers]
    return np.sqrt(_squared_distances(*attending) + _squared_distances(*moving))


def neuron_coordinates(
    weight_in: Float[ArrayLike, "*particles d"],
    bias: Float[ArrayLike, "*particles"],
    weight_out: Float[ArrayLike, "*particles d"],
    /,
) -> Float[Array, "*particles coordinates"]:
    """Neurons of relu, or another positively homogeneous activation, rescaled to balance.

    Args:
        weight_in: Input weights of a tree of neurons (`neuron_coordinates(*neurons)`).
        bias: Biases.
        weight_out: Output weights.

    Returns:
        2 d + 1 coordinates for each neuron, (w_in, b, w_out) with |w_in, b| = |w_out|: the one of
        least norm among those that compute the same; 0 for a neuron that computes 0.

    Raises:
        ValueError: Weights whose shapes do not fit together.

    >>> neuron_coordinates(jnp.array([3.0, 0.0]), jnp.array(4.0), jnp.array([0.0, 5.0])).tolist()
    [3.0, 0.0, 4.0, 0.0, 5.0]
    """
    incoming, bias, outgoing = jnp.asarray(weight_in), jnp.asarray(bias), jnp.asarray(weight_out)
    if incoming.shape != outgoing.shape or bias.shape != incoming.shape[:-1] or not incoming.ndim:
        raise ValueError(
            "neurons must be weights [... d], biases [...], weights [... d], got shapes "
            f"{list(incoming.shape)}, {list(bias.shape)}, {list(outgoing.shape)}"
        )
    incoming = jnp.concatenate([incoming, bias[..., None]], axis=-1)
    squares = [jnp.sum(part**2, axis=-1, keepdims=True) for part in (incoming, outgoing)]
    dead = (squares[0] == 0.0) | (squares[1] == 0.0)
    # Both branches of a where are differentiated: the root must not see 0.
    squares = [jnp.where(dead, 1.0, square) for square in squares]
    ratio = (squares[1] / squares[0]) ** 0.25
    balanced = jnp.concatenate([incoming * ratio, outgoing / ratio], axis=-1)
    return jnp.where(dead, 0.0, balanced)


def _factors(heads, scale, numpy):
    """The four factors of heads whose shapes fit, the queries scaled."""
    query, key, value, output = (numpy.asarray(factor) for factor in heads)
    shapes = [list(array.shape) for array in (query, key, value, output)]
    turned = [*shapes[3][:-2], *reversed(shapes[3][-2:])]
    if query.ndim < 2 or shapes[0] != shapes[1] or shapes[0] != shapes[2] or shapes[2] != turned:
        raise ValueError(
            "heads must be factors query [... d k], key [... d k], value [... d k], "
            f"output [... k d], got shapes {shapes}"
        )
    size = max(query.shape[-1], 1)
    return query * (size**-0.5 if scale is None else scale), key, value, output


def _squared_distances(first, second) -> np.ndarray:
    """Squared distances of all products left right^T of two layers."""
    first, second = ([np.asarray(f, np.float64) for f in layer] for layer in (first, second))
    squares = [
        np.sum((np.swapaxes(u, 1, 2) @ u) * (np.swapaxes(v, 1, 2) @ v), axis=(1, 2))
        for u, v in (first, second)
    ]
    norms = squares[0][:, None] + squares[1][None, :]
    crossed = np.empty_like(norms)
    # All heads of the second layer side by side: one matrix product for each of the first.
    wide = [np.moveaxis(v, 0, 1).reshape(v.shape[1], -1) for v in second]
    for row in range(len(crossed)):
        grams = [u[row].T @ v for u, v in zip(first, wide, strict=True)]
        crossed[row] = np.sum(
            (grams[0] * grams[1]).reshape(-1, len(second[0]), second[0].shape[2]), axis=(0, 2)
        )
    found = np.maximum(norms - 2.0 * crossed, 0.0)
    close = np.argwhere(found <= _CANCELLED * norms)
    for start in range(0, len(close), _PAIRS):
        i, j = close[start : start + _PAIRS].T
        # u v^T - u' v'^T = [u u'] [v -v']^T: its norm through triangles of size 2 k.
        left = np.concatenate([first[0][i], second[0][j]], axis=2)
        right = np.concatenate([first[1][i], -second[1][j]], axis=2)
        product = np.linalg.qr(left, mode="r") @ np.swapaxes(np.linalg.qr(right, mode="r"), 1, 2)
        found[i, j] = np.sum(product**2, axis=(1, 2))
    return found
