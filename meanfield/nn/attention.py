r"""Attention heads as particles.

One head, with kernel S (:mod:`meanfield.nn.kernels`):

    f(T, theta) = S(T W_Q, T W_K) T W_V W_O,      theta = (W_Q, W_K, W_V in R^{d x k}, W_O in R^{k
    x d})

and its mean over M heads by merged projections: one matrix product for the queries of all heads.

Sequences whose weights [n n] outgrow fast memory are handled some queries at a time; on a GPU in
sixteen bits, cuDNN computes attention without them (:mod:`meanfield.nn.mixing`).

One trap: the usual multi-head attention is the *sum* over heads; it is M times the mean.

References:
    Gao et al. 2024, arXiv 2410.23610 (encoder f; that it acts in a half-step of its own
    is our reading of the paper).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meanfield.checks import count
from meanfield.nn import inits, kernels
from meanfield.nn.block import Block, check_tokens
from meanfield.nn.mixing import mixing
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
    rows: int | None = None,
    fused: str | None = None,
) -> Block:
    """The attention half-step: every particle is one head.

    Args:
        dim: Token dimension d.
        head_dim: Head dimension k, fixed while the number of heads grows.
        kernel: Attention kernel; ``softmax()`` if None.
        measure: Initial measure; ``scaled()`` (variance 1/fan-in) if None.
        rows: Queries handled at once, in a loop that the backward pass computes anew; it need not
            divide the tokens. If None, all, or as many as keep one head's weights in fast memory
            where the kernel is a :class:`meanfield.nn.RowKernel`.
        fused: ``"cudnn"``: no weights in memory, on a GPU in 16 bits; ``"plain"``; if None, cuDNN
            where it can be had. Forward-mode derivatives need ``"plain"``, Hessian products none.

    Returns:
        The block, with particles :class:`Head`.

    Raises:
        ValueError: If a dimension or ``rows`` is not a positive integer, or the kernel cannot be
            handled as asked.

    References:
        Gao et al. 2024, arXiv 2410.23610.

    >>> attention(dim=8, head_dim=2).draw(jax.random.key(0)).output.shape
    (2, 8)
    """
    template = _template(count("dim", dim), count("head_dim", head_dim))
    kernel = kernel or kernels.softmax()
    measure = measure or inits.scaled()
    mix = mixing(kernel, rows=rows, fused=fused)

    def weights(tokens: Tokens, head: Head, mask: Mask | None) -> Weights:
        check_tokens(tokens, head.query.shape[-2], "heads")
        return kernel(tokens @ head.query, tokens @ head.key, mask)

    def one(tokens: Tokens, head: Head, mask: Mask | None) -> Tokens:
        return mean(tokens, jax.tree.map(lambda leaf: leaf[None], head), mask)

    def mean(tokens: Tokens, heads: Head, mask: Mask | None) -> Tokens:
        check_tokens(tokens, heads.query.shape[-2], "heads")
        width, dim, size = heads.query.shape
        # One product for all three: its backward pass reduces over heads once, on devices too.
        merged = jnp.concatenate([heads.query, heads.key, heads.value], axis=-1)
        projected = matmul(tokens, jnp.moveaxis(merged, 0, 1).reshape(dim, width * 3 * size))
        queries, keys, values = jnp.split(projected.reshape(-1, width, 3 * size), 3, axis=-1)
        mixed = mix(queries, keys, values, mask).reshape(len(tokens), -1)
        return matmul(mixed, heads.output.reshape(width * size, -1)) / width

    draw = functools.partial(_drawn, measure, template)
    return Block(name="heads", particle=one, mean=mean, draw=draw, weights=weights)


def _drawn(measure: inits.Measure, template: Head, key: Any) -> Head:
    return measure(key, template)


def _template(dim: int, head_dim: int) -> Head:
    into: Any = jax.ShapeDtypeStruct((dim, head_dim), jnp.result_type(float))
    back: Any = jax.ShapeDtypeStruct((head_dim, dim), into.dtype)
    return Head(into, into, into, back)
