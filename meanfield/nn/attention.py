r"""Attention heads as particles.

One head, with kernel S (:mod:`meanfield.nn.kernels`):

    f(T, theta) = S(T W_Q, T W_K) T W_V W_O,      theta = (W_Q, W_K, W_V in R^{d x k}, W_O in R^{k
    x d})

and its mean over M heads by merged projections: one matrix product for the queries of all heads.

One trap: the usual multi-head attention is the *sum* over heads; it is M times the mean.

References:
    Gao et al. 2024, arXiv 2410.23610 (encoder f; that it acts in a half-step of its own
    is our reading of the paper).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meanfield.checks import count
from meanfield.nn import inits, kernels
from meanfield.nn.block import Block, check_tokens
from meanfield.nn.products import matmul
from meanfield.notation import Mask, Tokens, Weights


class Head(NamedTuple):
    """One attention head, or many along leading axes.

    Attributes:
        query: W_Q.
        key: W_K.
        value: W_V.
        output: W_O.
    """

    query: Float[Array, "*particles d k"]
    key: Float[Array, "*particles d k"]
    value: Float[Array, "*particles d k"]
    output: Float[Array, "*particles k d"]


def attention(
    *,
    dim: int,
    head_dim: int,
    kernel: kernels.Kernel | None = None,
    measure: inits.Measure | None = None,
) -> Block:
    """The attention half-step: every particle is one head.

    Args:
        dim: Token dimension d.
        head_dim: Head dimension k, fixed while the number of heads grows.
        kernel: Attention kernel; ``softmax()`` if None.
        measure: Initial measure; ``scaled()`` (variance 1/fan-in) if None.

    Returns:
        The block, with particles :class:`Head`.

    Raises:
        ValueError: If a dimension is not a positive integer.

    References:
        Gao et al. 2024, arXiv 2410.23610.

    >>> attention(dim=8, head_dim=2).draw(jax.random.key(0)).output.shape
    (2, 8)
    """
    into: Any = jax.ShapeDtypeStruct(
        (count("dim", dim), count("head_dim", head_dim)), jnp.result_type(float)
    )
    back: Any = jax.ShapeDtypeStruct((head_dim, dim), into.dtype)
    template = Head(into, into, into, back)
    kernel = kernel or kernels.softmax()
    measure = measure or inits.scaled()

    def weights(tokens: Tokens, head: Head, mask: Mask | None) -> Weights:
        check_tokens(tokens, head.query.shape[-2], "heads")
        return kernel(tokens @ head.query, tokens @ head.key, mask)

    def one(tokens: Tokens, head: Head, mask: Mask | None) -> Tokens:
        return weights(tokens, head, mask) @ (tokens @ head.value) @ head.output

    def mean(tokens: Tokens, heads: Head, mask: Mask | None) -> Tokens:
        check_tokens(tokens, heads.query.shape[-2], "heads")
        width, dim, size = heads.query.shape
        # One product for all three: its backward pass reduces over heads once, on devices too.
        merged = jnp.concatenate([heads.query, heads.key, heads.value], axis=-1)
        projected = matmul(tokens, jnp.moveaxis(merged, 0, 1).reshape(dim, width * 3 * size))
        by_head = jnp.moveaxis(projected.reshape(-1, width, 3 * size), 1, 0)
        queries, keys, values = jnp.split(by_head, 3, axis=-1)
        mixing = jax.vmap(kernel, in_axes=(0, 0, None))(queries, keys, mask)
        mixed = jnp.moveaxis(matmul(mixing, values), 0, 1).reshape(len(tokens), -1)
        return matmul(mixed, heads.output.reshape(width * size, -1)) / width

    def draw(key: Any) -> Head:
        return measure(key, template)

    return Block(name="heads", particle=one, mean=mean, draw=draw, weights=weights)
