"""Eager checks of arguments: one sentence with what was got, what is expected and what to do.

One trap: these read values, so they belong before tracing, never inside ``jit``.
"""

import difflib
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree


def positive(name: str, value: float) -> float:
    """``value`` if it is a finite number > 0.

    Args:
        name: What the number is called in the message.
        value: The number.

    Raises:
        ValueError: Otherwise.

    >>> positive("bandwidth", 0.5)
    0.5
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number > 0, got {value}")
    return value


def non_negative(name: str, value: float) -> float:
    """``value`` if it is a finite number >= 0.

    Args:
        name: What the number is called in the message.
        value: The number.

    Raises:
        ValueError: Otherwise.

    >>> non_negative("weight_decay", 0.0)
    0.0
    """
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number >= 0, got {value}")
    if value < 0:
        raise ValueError(f"{name} must be >= 0, got {value}")
    return value


def count(name: str, value: int, *, least: int = 1) -> int:
    """``value`` if it is an integer >= ``least``.

    Args:
        name: What the number is called in the message.
        value: The number.
        least: The smallest value allowed.

    Raises:
        ValueError: Otherwise.

    >>> count("depth", 6)
    6
    """
    # No counter of a computer goes further, and beyond 1e308 math.isfinite raises.
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"{name} must be an integer >= {least} and below 2^63, got one beyond")
    if isinstance(value, bool) or not math.isfinite(value) or int(value) != value or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value}")
    return int(value)


def choice(name: str, value: str, options: Iterable[str]) -> str:
    """``value`` if it is one of ``options``; the message suggests the nearest.

    Args:
        name: What is chosen, for the message.
        value: The choice made.
        options: The choices there are.

    Raises:
        ValueError: Otherwise.

    >>> choice("kernel", "softmax", ["softmax", "gaussian"])
    'softmax'
    """
    options = list(options)
    if value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}{hint}")


def finite(name: str, tree: PyTree) -> None:
    """Nothing, if every floating-point entry of ``tree`` is finite.

    Args:
        name: What the arrays are called in the message.
        tree: Arrays; those of other types pass, and those inside ``jit``, which have no values yet.

    Raises:
        ValueError: If an entry is NaN or infinite.

    >>> finite("inputs", jnp.ones(3))
    """
    for leaf in jax.tree.leaves(tree):
        traced = isinstance(leaf, Tracer)
        if traced or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            continue
        bad = int(np.sum(~np.isfinite(np.asarray(leaf, float))))
        if bad:
            raise ValueError(
                f"{name} must be finite, got {bad} NaN or infinite entries among {jnp.size(leaf)}; "
                "clean or drop those samples"
            )
