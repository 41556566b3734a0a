r"""Positions: what an embedding adds to the token at each place.

    sinusoidal   PE[a, 2i] = sin(a / 10000^(2i/d)),    PE[a, 2i + 1] = cos(a / 10000^(2i/d))

One trap: learned positions end at the length they were drawn for.

References:
    Vaswani et al. 2017, arXiv 1706.03762, Section 3.5.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meanfield.checks import choice, count


def sinusoidal(length: int, dim: int) -> Float[Array, "n d"]:
    """Fixed positions: sines and cosines of geometrically spaced frequencies.

    Args:
        length: Number of tokens n.
        dim: Token dimension d.

    References:
        Vaswani et al. 2017, arXiv 1706.03762, Section 3.5.

    >>> sinusoidal(2, 2).round(3).tolist()
    [[0.0, 1.0], [0.8410000205039978, 0.5400000214576721]]
    """
    pairs = (dim + 1) // 2
    frequencies = 10_000.0 ** (-jnp.arange(pairs) * 2 / dim)
    angles = jnp.arange(length, dtype=frequencies.dtype)[:, None] * frequencies[None, :]
    both = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return both.reshape(length, 2 * pairs)[:, :dim]


def positions_of(kind: str, length: int, dim: int) -> tuple[Callable, Callable]:
    """What is added at each token, from (parameters, number of tokens), and a draw of parameters.

    Args:
        kind: ``"learned"``, ``"sinusoidal"`` or ``"none"``.
        length: The most tokens.
        dim: Token dimension d.

    Raises:
        ValueError: If the kind is none of these, or ``dim`` is not a positive integer.

    >>> positions_of("none", 3, 2)[0]((), 2).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    choice("positions", kind, ("learned", "sinusoidal", "none"))
    count("dim", dim)
    if kind == "learned":
        return (
            lambda params, n: params[:n],
            lambda key: jax.random.normal(key, (length, dim)),
        )
    if kind == "sinusoidal":
        return lambda params, n: sinusoidal(n, dim), lambda key: ()
    return lambda params, n: jnp.zeros((n, dim)), lambda key: ()
