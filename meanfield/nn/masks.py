"""Masks of attention: True where a key may be attended to, per key [b] or per pair [a b].

One trap: a mask of pairs [n n] is whole in memory, whatever is done in chunks beside it.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

RowMask = Bool[Array, "b"] | Bool[Array, "a b"]
"""True where a key may be attended to: per key [b], or per query and key [a b]."""


def causal_mask(tokens: int) -> Bool[Array, "n n"]:
    """The mask under which a token attends to itself and to earlier tokens.

    Args:
        tokens: Number of tokens n.

    >>> causal_mask(2).tolist()
    [[True, False], [True, True]]
    """
    return jnp.tril(jnp.ones((tokens, tokens), bool))


def check_mask(mask: Any, queries: int, keys: int, /) -> None:
    """Nothing, if a mask is one of keys [b] or of pairs [a b], or none.

    Args:
        mask: The mask.
        queries: Number of queries a.
        keys: Number of keys b.

    Raises:
        ValueError: Otherwise.

    >>> check_mask(jnp.ones(3, bool), 2, 3)
    """
    if mask is not None and mask.shape not in ((keys,), (queries, keys)):
        raise ValueError(
            f"mask must have shape {(keys,)} for keys or {(queries, keys)} for pairs, "
            f"got {mask.shape}"
        )


def pairs_of(
    mask: RowMask | None, queries: Float[Array, "a k"], keys: Float[Array, "b k"]
) -> Bool[Array, "a b"] | None:
    """The mask of all pairs, or none.

    Args:
        mask: The mask.
        queries: Queries.
        keys: Keys.

    Raises:
        ValueError: If the mask is neither one of keys nor one of pairs.

    >>> pairs_of(jnp.array([True, False]), jnp.ones((1, 3)), jnp.ones((2, 3))).tolist()
    [[True, False]]
    """
    check_mask(mask, len(queries), len(keys))
    if mask is None:
        return None
    shape = len(queries), len(keys)
    return jnp.broadcast_to(mask if mask.ndim == 2 else mask[None, :], shape)
