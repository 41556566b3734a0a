r"""Attention kernels: from queries and keys to attention weights.

With queries ``q_a`` and keys ``k_b`` of one head, scale ``s`` (default 1/sqrt(k)) and bandwidth
``c``:

    softmax    S_ab = exp(s q_a . k_b) / sum_b' exp(s q_a . k_b')
    gaussian   S_ab = exp(-c s |q_a - k_b|^2)          (rows not normalised, unless asked)
    linear     S_ab = s q_a . k_b

A kernel is a function ``(queries [n k], keys [n k], mask=None) -> weights [n n]``; masked pairs
have weight 0, and a row whose keys are all masked is 0 everywhere. These three are each a
:class:`RowKernel`: they also give some rows alone, from some of the queries and all keys.

One trap: ``jax.nn.dot_product_attention`` computes the softmax of float64 inputs in float32 and
does not say so; these kernels work in the dtype of their inputs, or in float32 if that has fewer
digits, and give weights of the dtype of their inputs.

References:
    Song et al. 2024, arXiv 2411.07538 (softmax and Gaussian kernels).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from meanfield.checks import positive
from meanfield.nn.exponents import distances, products
from meanfield.nn.masks import RowMask, pairs_of
from meanfield.notation import Weights

Kernel = Callable[..., Weights]
"""A function ``(queries [n k], keys [n k], mask=None) -> weights [n n]``."""


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """What a fused form on a GPU must know of softmax and Gaussian kernels.

    >>> gaussian(1.0).exponential.bandwidth
    1.0
    """

    scale: float | None = None
    """Factor inside the exponent; 1/sqrt(k) if None."""
    bandwidth: float | None = None
    """The constant before the squared distance; None where the exponent is the inner product."""
    normalize: bool = True
    """Whether rows are divided by their sum."""


@dataclass(frozen=True, kw_only=True)
class RowKernel:
    """A kernel each of whose rows depends on its own query, its own mask and all keys.

    Long sequences are then handled some rows at a time (:func:`meanfield.nn.attention`). A kernel
    that looks at positions or at other queries must stay a bare function.

    >>> scaled = RowKernel(weights=lambda queries, keys, mask=None: 2 * queries @ keys.T)
    >>> scaled(jnp.ones((1, 1)), jnp.ones((3, 1))).tolist()
    [[2.0, 2.0, 2.0]]
    """

    weights: Callable[..., Float[Array, "_ _"]]
    """A function ``(queries [a k], keys [b k], mask=None) -> weights [a b]``."""
    exponential: Exponential | None = None
    """The same for a fused form (:mod:`meanfield.nn.fused`); None where there is none."""

    def __call__(
        self,
        queries: Float[Array, "a k"],
        keys: Float[Array, "b k"],
        mask: RowMask | None = None,
    ) -> Float[Array, "a b"]:
        """The rows of these queries."""
        return self.weights(queries, keys, mask)


def softmax(scale: float | None = None) -> RowKernel:
    """The softmax kernel: rows of weights that sum to one.

    Args:
        scale: Factor before the inner product, inside the exponent; 1/sqrt(k) if None.

    Returns:
        The kernel ``(queries, keys, mask=None) -> weights``.

    Raises:
        ValueError: If ``scale`` is not positive.

    References:
        Song et al. 2024, arXiv 2411.07538.

    >>> softmax()(jnp.zeros((2, 1)), jnp.zeros((2, 1))).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    _check_scale(scale)

    def weights(
        queries: Float[Array, "a k"], keys: Float[Array, "b k"], mask: RowMask | None = None
    ) -> Float[Array, "a b"]:
        logits = products(queries, keys, _scale(scale, queries))
        return _normalised_exponential(logits, pairs_of(mask, queries, keys)).astype(queries.dtype)

    return RowKernel(weights=weights, exponential=Exponential(scale=scale))


def gaussian(
    bandwidth: float = 0.5, *, normalize: bool = False, scale: float | None = None
) -> RowKernel:
    """The Gaussian kernel of the distance between query and key.

    Args:
        bandwidth: The constant c before the squared distance; 1/2 and 1 are both in use.
        normalize: Whether rows are divided by their sum. The normalised kernel with bandwidth 1/2
            is softmax attention with key bias -|k|^2/2.
        scale: Factor inside the exponent; 1/sqrt(k) if None.

    Returns:
        The kernel ``(queries, keys, mask=None) -> weights``.

    Raises:
        ValueError: If ``bandwidth`` or ``scale`` is not positive.

    References:
        Song et al. 2024, arXiv 2411.07538.

    >>> gaussian()(jnp.zeros((1, 1)), jnp.full((1, 1), 2.0)).round(4).tolist()
    [[0.13529999554157257]]
    """
    positive("bandwidth", bandwidth)
    _check_scale(scale)

    def weights(
        queries: Float[Array, "a k"], keys: Float[Array, "b k"], mask: RowMask | None = None
    ) -> Float[Array, "a b"]:
        factor = bandwidth * _scale(scale, queries)
        pairs = pairs_of(mask, queries, keys)
        exponents = distances(queries, keys, factor, of_rows=not normalize)
        if normalize:
            return _normalised_exponential(exponents, pairs).astype(queries.dtype)
        kernel = jnp.exp(exponents).astype(queries.dtype)
        return kernel if pairs is None else jnp.where(pairs, kernel, 0)

    known = Exponential(scale=scale, bandwidth=bandwidth, normalize=normalize)
    return RowKernel(weights=weights, exponential=known)


def linear(scale: float | None = None) -> RowKernel:
    """The linear kernel: weights are the scaled inner products themselves.

    Args:
        scale: Factor before the inner product; 1/sqrt(k) if None.

    Returns:
        The kernel ``(queries, keys, mask=None) -> weights``.

    Raises:
        ValueError: If ``scale`` is not positive.

    >>> linear(scale=1.0)(jnp.ones((1, 2)), jnp.ones((1, 2))).tolist()
    [[2.0]]
    """
    _check_scale(scale)

    def weights(
        queries: Float[Array, "a k"], keys: Float[Array, "b k"], mask: RowMask | None = None
    ) -> Float[Array, "a b"]:
        inner = products(queries, keys, _scale(scale, queries)).astype(queries.dtype)
        pairs = pairs_of(mask, queries, keys)
        return inner if pairs is None else jnp.where(pairs, inner, 0)

    return RowKernel(weights=weights)


def _check_scale(scale: float | None) -> None:
    if scale is not None:
        positive("scale", scale)


def _scale(scale: float | None, queries: Float[Array, "a k"]) -> float:
    return queries.shape[-1] ** -0.5 if scale is None else scale


@jax.custom_jvp
def _normalised_exponential(
    logits: Float[Array, "a b"], pairs: Bool[Array, "a b"] | None
) -> Float[Array, "a b"]:
    if pairs is None:
        exponential = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
        return exponential / jnp.sum(exponential, axis=-1, keepdims=True)
    peak = jnp.max(logits, axis=-1, keepdims=True, where=pairs, initial=-jnp.inf)
    peak = jnp.where(jnp.isfinite(peak), peak, 0)
    # The inner `where` keeps infinities out of the gradient of masked pairs.
    shifted = jnp.where(pairs, logits - jnp.broadcast_to(peak, logits.shape), 0)
    exponential = jnp.where(pairs, jnp.exp(shifted), 0)
    total = jnp.sum(exponential, axis=-1, keepdims=True)
    return exponential / jnp.broadcast_to(jnp.where(total > 0, total, 1), logits.shape)


@_normalised_exponential.defjvp
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    """A formula in the weights alone: nothing else need be kept for the backward pass."""
    weights, pairs = _normalised_exponential(*primals), primals[1]
    # A masked pair may have no finite tangent.
    tangent = tangents[0] if pairs is None else jnp.where(pairs, tangents[0], 0)
    return weights, weights * (tangent - jnp.sum(weights * tangent, axis=-1, keepdims=True))
