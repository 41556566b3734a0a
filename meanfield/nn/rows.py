r"""Values mixed by the weights of many heads: all queries at once, or some of them at a time.

    mixed_a = sum_b S_ab v_b            for the queries a = 1..n, in chunks of r rows

With r rows at once memory is r n numbers for each head in place of n^2: the backward pass computes
each chunk's weights anew.

One trap: only a kernel whose row a depends on query a and all keys may be cut into rows
(:class:`meanfield.nn.RowKernel`). A mask of pairs [n n] is whole in memory whatever the rows; one
of keys [n] is not in the way.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meanfield.nn.kernels import Kernel, RowKernel
from meanfield.nn.masks import RowMask, check_mask
from meanfield.nn.products import matmul
from meanfield.working_set import budget, fitting

Queries = Float[Array, "a m k"]
"""Queries of all heads, and what is mixed for them."""
Keys = Float[Array, "b m k"]
"""Keys, or values, of all heads."""


def mixed(
    kernel: Kernel, queries: Queries, keys: Keys, values: Keys, mask: RowMask | None, /
) -> Queries:
    """The values mixed for all queries at once.

    Args:
        kernel: The attention kernel.
        queries: Queries of all heads.
        keys: Keys.
        values: Values.
        mask: True where a key may be attended to.

    >>> from meanfield.nn import linear
    >>> ones = jnp.ones((3, 2, 1))
    >>> mixed(linear(), ones, ones, ones, None)[0].tolist()
    [[3.0], [3.0]]
    """
    queries, keys, values = (jnp.moveaxis(leaf, 1, 0) for leaf in (queries, keys, values))
    weights = jax.vmap(kernel, in_axes=(0, 0, None))(queries, keys, mask)
    return jnp.moveaxis(matmul(weights, values), 0, 1)


def mixed_in_rows(
    kernel: Kernel,
    queries: Queries,
    keys: Keys,
    values: Keys,
    mask: RowMask | None,
    /,
    *,
    rows: int,
) -> Queries:
    """The values mixed for ``rows`` queries at a time, the same numbers to round-off.

    Args:
        kernel: The attention kernel.
        queries: Queries of all heads.
        keys: Keys.
        values: Values.
        mask: True where a key may be attended to.
        rows: Queries at once; a shorter last chunk takes the rest.

    >>> from meanfield.nn import linear
    >>> ones = jnp.ones((3, 2, 1))
    >>> mixed_in_rows(linear(), ones, ones, ones, None, rows=2)[2].tolist()
    [[3.0], [3.0]]
    """
    number, dtype = len(queries), queries.dtype
    if rows >= number:
        return mixed(kernel, queries, keys, values, mask)
    check_mask(mask, number, len(keys))
    # Every chunk adds to the gradient of the keys and values: many sums of few digits keep none.
    wide = [leaf.astype(jnp.promote_types(dtype, jnp.float32)) for leaf in (keys, values)]

    @jax.checkpoint
    def some(queries: Queries, own_mask: RowMask | None) -> Queries:
        keys, values = (leaf.astype(dtype) for leaf in wide)
        return mixed(kernel, queries, keys, values, mask if own_mask is None else own_mask)

    cut = (queries, mask if mask is not None and mask.ndim == 2 else None)
    whole = number // rows * rows
    chunks = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, rows, *leaf.shape[1:]), cut)
    found = jax.lax.map(lambda chunk: some(*chunk), chunks).reshape(whole, *queries.shape[1:])
    if whole == number:
        return found
    return jnp.concatenate([found, some(*jax.tree.map(lambda leaf: leaf[whole:], cut))])


def rows_at_once(kernel: Kernel, queries: Queries, keys: Keys, /) -> int:
    """How many queries to handle at once: all, unless one head's weights outgrow fast memory.

    Args:
        kernel: The attention kernel; one that is no ``RowKernel`` is never cut.
        queries: Queries of all heads.
        keys: Keys.

    >>> from meanfield.nn import softmax
    >>> rows_at_once(softmax(), jnp.ones((3, 2, 1)), jnp.ones((3, 2, 1)))
    3
    """
    row = len(keys) * jnp.promote_types(queries.dtype, jnp.float32).itemsize
    if not isinstance(kernel, RowKernel) or len(queries) * row <= budget():
        return len(queries)
    return fitting(len(queries), row)
