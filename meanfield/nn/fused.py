r"""Gaussian attention, and masks of keys, by a program that knows softmax alone.

Fused attention of a device computes sum_b exp(t q_a . k_b) v_b / sum_b exp(t q_a . k_b) without the
weights [n n]. With c the bandwidth, s the scale and t = 2cs, Gaussian attention is the same in a
few more dimensions, because c s |q - k|^2 = -t (q . k - |k|^2/2 - |q|^2/2):

    normalised      q' = (q, 1)                          k' = (k, -|k|^2/2)
    not normalised  q' = (q, 1, |q|^2/2 + log(n)/t)      k' = (k, -|k|^2/2, 0)      v' = (v, 0)
                                                         sink (0, 0, 1)                (0, 1)

The sink is one more key, whose weight against the kernel's S is n. With it the program returns
sum_b S_ab v_b / (n + Z_a), and beside it u_a = n / (n + Z_a), where Z_a = sum_b S_ab <= n: u is in
[1/2, 1], and n times their ratio is what was asked, its gradient too. A key out of sight is 0 with
an exponent far below all others.

One trap: sixteen bits are too few for a number in an exponent. Each of the added dimensions is
three, which hold it as a sum of three numbers; float16 has not the range for that.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from meanfield.nn.kernels import Exponential
from meanfield.nn.masks import RowMask
from meanfield.nn.rows import Keys, Queries

More = Float[Array, "a m _"]
MoreKeys = Float[Array, "b m _"]
Attend = Callable[..., Any]
"""``(queries [a m h], keys [b m h], values [b m h], pairs [a b] or None) -> mixed [a m h]``."""
MULTIPLE = 8
"""Head dimensions and numbers of tokens are made multiples of this."""
SUMMANDS = 3
"""Numbers of sixteen bits that hold one of float32."""


def added_dims(known: Exponential, mask: RowMask | None, tokens: int, /) -> int:
    """Head dimensions that the fused form adds, before it makes them a multiple of 8.

    Args:
        known: The kernel.
        mask: True where a key may be attended to.
        tokens: Number of keys.

    >>> added_dims(Exponential(bandwidth=0.5, normalize=False), None, 1024)
    6
    """
    if known.bandwidth is not None:
        return SUMMANDS if known.normalize else 2 * SUMMANDS
    out_of_sight = mask is not None or tokens % MULTIPLE > 0
    return int(out_of_sight and (mask is None or mask.ndim == 1))


def fused_mixed(
    known: Exponential,
    queries: Queries,
    keys: Keys,
    values: Keys,
    mask: RowMask | None,
    /,
    *,
    attend: Callable[[float], Attend],
) -> Queries:
    """The values mixed by a kernel's weights, computed by a softmax in more dimensions.

    Args:
        known: The kernel.
        queries: Queries of all heads.
        keys: Keys.
        values: Values.
        mask: True where a key may be attended to.
        attend: Softmax attention, from the factor t in its exponent.

    >>> from meanfield.nn import rows, softmax
    >>> def attend(t):
    ...     return lambda *arrays: rows.mixed(softmax(t), *arrays)
    >>> half, ones = Exponential(bandwidth=0.5, normalize=False), jnp.ones((2, 1, 1))
    >>> fused_mixed(half, ones, ones, ones, None, attend=attend).ravel().round(6).tolist()
    [2.0, 2.0]
    """
    number, _, size = queries.shape
    scale = size**-0.5 if known.scale is None else known.scale
    factor = scale if known.bandwidth is None else 2 * known.bandwidth * scale
    queries, keys, values, shown, pairs = _sized(known, queries, keys, values, mask)
    added = _added(known, queries, keys, shown)
    mine, theirs = (jnp.concatenate(p, axis=-1) for p in zip((queries, keys), added, strict=True))
    if known.normalize:
        found = _attended(attend(factor), mine, theirs, values, pairs)[..., :size]
        if pairs is not None:
            # A row without keys would be the mean of all values.
            some = jnp.any(pairs, axis=1)[:, None, None]
            found = jnp.where(jnp.broadcast_to(some, found.shape), found, 0)
        return found[:number]
    arrays = _with_sink(queries, mine, theirs, values, pairs, factor=factor)
    found = _wide(_attended(attend(factor), *arrays))
    shares = jnp.broadcast_to(found[..., size : size + 1], queries.shape)
    return (len(keys) * found[..., :size] / shares).astype(queries.dtype)[:number]


def _sized(
    known: Exponential, queries: Queries, keys: Keys, values: Keys, mask: RowMask | None
) -> tuple[Array, Array, Array, Array | None, Array | None]:
    """Numbers of queries and keys that fused programs take, and the masks of keys and of pairs."""
    sink = 0 if known.normalize else 1
    most = _multiple(len(queries)), _multiple(len(keys) + sink) - sink
    pairs = mask if mask is not None and mask.ndim == 2 else None
    shown = mask if mask is not None and mask.ndim == 1 else None
    if pairs is not None:
        pairs = _grown(pairs, {0: most[0], 1: most[1]})
    elif shown is not None or most[1] > len(keys):
        shown = jnp.ones(len(keys), bool) if shown is None else shown
        # Nothing of what is out of sight enters, not even an infinity.
        seen = jnp.broadcast_to(shown[:, None, None], keys.shape)
        keys, values = jnp.where(seen, keys, 0), jnp.where(seen, values, 0)
        shown = _grown(shown, {0: most[1]})
    keys, values = (_grown(leaf, {0: most[1]}) for leaf in (keys, values))
    return _grown(queries, {0: most[0]}), keys, values, shown, pairs


def _added(
    known: Exponential, queries: More, keys: MoreKeys, mask: Bool[Array, "b"] | None
) -> tuple[More, MoreKeys]:
    """The dimensions that give keys their bias, and take those out of sight far below."""
    dtype = keys.dtype
    # A product far below what scores can be; float16 ends at 2^16.
    reach, far = (2.0**8, -(2.0**15)) if dtype == jnp.float16 else (1.0, -(2.0**41))
    if known.bandwidth is None:
        if mask is None:
            return queries[..., :0], keys[..., :0]
        bias = jnp.where(mask, 0, jnp.asarray(far, dtype))[:, None, None]
        return jnp.full_like(queries[..., :1], reach), jnp.broadcast_to(bias, keys[..., :1].shape)
    bias = -_half_square(keys)
    if mask is not None:
        bias = jnp.where(jnp.broadcast_to(mask[:, None], bias.shape), bias, far)
    return jnp.ones((*queries.shape[:-1], SUMMANDS), dtype), _summands(bias, dtype)


def _with_sink(
    queries: More,
    mine: More,
    theirs: MoreKeys,
    values: MoreKeys,
    pairs: Bool[Array, "a b"] | None,
    *,
    factor: float,
) -> tuple[More, Array, Array, Array | None]:
    """What is attended with one key more, which every query sees."""
    number, _, size = values.shape
    strength = _half_square(queries) + math.log(number) / factor
    mine = jnp.concatenate([mine, _summands(strength, mine.dtype)], axis=-1)
    # Zeros for all keys and dimensions; ones for the sink in its own.
    theirs = _grown(theirs, {0: number + 1, -1: mine.shape[-1]})
    theirs = theirs.at[number, :, -SUMMANDS:].set(1)
    values = _grown(values, {0: number + 1, -1: size + 1}).at[number, :, size].set(1)
    return (
        mine,
        theirs,
        values,
        None if pairs is None else _grown(pairs, {1: number + 1}, fill=True),
    )


def _attended(
    attend: Attend, mine: More, theirs: MoreKeys, values: MoreKeys, pairs: Bool[Array, "a b"] | None
) -> More:
    """The same in head dimensions that fused programs take."""
    last = {-1: _multiple(mine.shape[-1])}
    return attend(_grown(mine, last), _grown(theirs, last), _grown(values, last), pairs)


def _summands(numbers: Float[Array, "n m"], dtype: Any) -> Float[Array, "n m s"]:
    """Numbers of few digits whose sum has as many as ``numbers``."""
    digits = jnp.finfo(dtype)
    parts = []
    for _ in range(SUMMANDS):
        # A cast there and back would not do: compilers leave it out.
        parts.append(jax.lax.reduce_precision(numbers, digits.nexp, digits.nmant))
        numbers = numbers - parts[-1]
    first, *rest = parts
    return jnp.stack([first, *map(jax.lax.stop_gradient, rest)], axis=-1).astype(dtype)


def _half_square(vectors: Float[Array, "n m k"]) -> Float[Array, "n m"]:
    return jnp.sum(_wide(vectors) ** 2, axis=-1) / 2


def _wide(array: Float[Array, "..."]) -> Float[Array, "..."]:
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _grown(array: Array, lengths: dict[int, int], *, fill: bool | int = 0) -> Array:
    """The array with more entries at the end of some axes."""
    widths = [(0, 0)] * array.ndim
    for axis, length in lengths.items():
        widths[axis] = (0, length - array.shape[axis])
    return jnp.pad(array, widths, constant_values=fill)


def _multiple(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE
