r"""What attention kernels take the exponential of: inner products and squared distances.

    products    E_ab = c q_a . k_b
    distances   E_ab = -c |q_a - k_b|^2 = 2c q_a . k_b - c |q_a|^2 - c |k_b|^2

The derivative of distances needs sums of cotangents along rows and along columns. On a
processor both come with a product that is taken anyway, if keys and queries have one entry more,
which is 1:

    dE_ab = (2 dq_a, -2 q_a . dq_a) . (k_b, 1) + (2 q_a, 1) . (dk_b, -2 k_b . dk_b)        for c = 1

One trap: the square is expanded, so round-off lets a squared distance fall below 0 by a few
epsilons of the squared norms.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meanfield.nn.products import matmul

LANES = 16
"""Numbers that a processor handles at once. Where k is a multiple, an entry more costs as many."""

Queries = Float[Array, "a k"]
Keys = Float[Array, "b k"]
Exponents = Float[Array, "a b"]


def products(queries: Queries, keys: Keys, factor: float, /) -> Exponents:
    """Inner products times a factor, in float32 at least.

    Args:
        queries: Queries.
        keys: Keys.
        factor: The constant c.

    >>> products(jnp.ones((1, 2)), jnp.ones((1, 2)), 3.0).tolist()
    [[6.0]]
    """
    # Sixteen bits do for the factors, but not for what an exponential is taken of.
    wide = jnp.promote_types(queries.dtype, jnp.float32)
    if wide == queries.dtype:
        # Queries are fewer numbers to multiply than weights, in the backward pass too.
        return matmul(factor * queries, keys, "nt")
    return factor * matmul(queries, keys, "nt", dtype=wide)


def distances(queries: Queries, keys: Keys, factor: float, /, *, of_rows: bool) -> Exponents:
    """Squared distances times a negative factor, in float32 at least.

    Args:
        queries: Queries.
        keys: Keys.
        factor: The constant c.
        of_rows: Whether the queries' norms are in it; a row lacks the same number throughout if
            not, which a normalised kernel does not see.

    >>> distances(jnp.ones((1, 2)), jnp.zeros((1, 2)), 3.0, of_rows=True).tolist()
    [[-6.0]]
    """
    wide = jnp.promote_types(jnp.result_type(queries, keys), jnp.float32)
    fits = jax.default_backend() == "cpu" and queries.shape[-1] % LANES
    if fits and wide == queries.dtype == keys.dtype:
        # Numbers that are no constants of a loop: the processor's products fuse with those alone.
        root = factor**0.5
        return _unscaled(of_rows=of_rows)(root * queries, root * keys)
    inner = products(queries, keys, 2 * factor)
    return inner - _norms(*(_squares(x, factor, wide) for x in (queries, keys)), of_rows=of_rows)


def _squares(vectors: Float[Array, "a k"], factor: float, dtype: Any) -> Float[Array, "a"]:
    wide = vectors.astype(dtype)
    return factor * jnp.sum(wide * wide, axis=-1)


def _norms(rows: Float[Array, "a"], columns: Float[Array, "b"], *, of_rows: bool) -> Exponents:
    shape = (len(rows), len(columns))
    along = jnp.broadcast_to(columns[None, :], shape)
    return along + jnp.broadcast_to(rows[:, None], shape) if of_rows else along


@functools.cache
def _unscaled(*, of_rows: bool) -> Callable[[Queries, Keys], Exponents]:
    """Distances with the factor 1; their derivative is by products with an entry more."""

    @jax.custom_jvp
    def found(queries: Queries, keys: Keys) -> Exponents:
        norms = _norms(*(jnp.sum(x * x, axis=-1) for x in (queries, keys)), of_rows=of_rows)
        return matmul(queries + queries, keys, "nt") - norms

    @found.defjvp
    def _(primals: Any, tangents: Any) -> tuple[Exponents, Exponents]:
        (queries, keys), (to_queries, to_keys) = primals, tangents
        twice = queries + queries
        of_keys = -2 * jnp.sum(keys * to_keys, axis=-1, keepdims=True)
        tangent = matmul(_with(twice, 1), _with(to_keys, of_keys), "nt")
        if not of_rows:
            return found(*primals), tangent + matmul(2 * to_queries, keys, "nt")
        of_queries = -jnp.sum(twice * to_queries, axis=-1, keepdims=True)
        tangent += matmul(_with(2 * to_queries, of_queries), _with(keys, 1), "nt")
        return found(*primals), tangent

    return found


def _with(vectors: Float[Array, "a k"], entry: Any) -> Float[Array, "a k+1"]:
    """The vectors with an entry more."""
    more = jnp.broadcast_to(jnp.asarray(entry, vectors.dtype), (len(vectors), 1))
    return jnp.concatenate([vectors, more], axis=-1)
