"""Checks of two clouds and their weights, shared by every distance.

    rho = sum_j a_j delta_{x_j},    a_j >= 0,    sum_j a_j = 1        (a_j = 1/m where not given)

Trap: inside `jit` values cannot be read, so a NaN or a negative weight goes through and comes out
as NaN or as a meaningless number; shapes are refused there too.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

# Sums of float32 weights miss 1 by this much; what is left is divided away.
_SUM_TOLERANCE = 1e-5


def concrete(*arrays: Any) -> bool:
    """Whether all arrays have values now, which a function on the host can read.

    Args:
        *arrays: Arrays, or None.

    >>> concrete(jnp.ones(3), None), jax.jit(lambda x: jnp.asarray(concrete(x)))(1.0).item()
    (True, False)
    """
    return not any(isinstance(array, Tracer) for array in arrays)


def order(p: float | int) -> float:
    """The order of a distance, a finite number >= 1.

    Args:
        p: The order.

    Raises:
        ValueError: Otherwise.

    >>> order(2)
    2.0
    """
    if not (math.isfinite(p) and p >= 1.0):
        raise ValueError(f"p must be a finite number >= 1, got {p}")
    return float(p)


def check_pair(x: Any, y: Any, /, *, rank: int = 2) -> None:
    """Nothing, if two clouds can be compared.

    Args:
        x: Points `[m p]`, or `[m]` at rank 1.
        y: Points of the same dimension.
        rank: Number of axes of a cloud.

    Raises:
        ValueError: Empty clouds, clouds of different dimension, values that are not finite.

    >>> check_pair(jnp.zeros((3, 2)), jnp.zeros((4, 2)))
    """
    for name, points in (("x", x), ("y", y)):
        expected = "[m p] (one row per particle)" if rank == 2 else "[m]"
        if np.ndim(points) != rank or 0 in np.shape(points):
            raise ValueError(
                f"{name} must be a non-empty cloud {expected}, got shape {list(np.shape(points))}"
            )
        # In numpy: under jit, jax operations would trace even an array that is known.
        if concrete(points) and not np.isfinite(np.asarray(points)).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity; drop diverged particles")
    if rank == 2 and np.shape(x)[1] != np.shape(y)[1]:
        raise ValueError(
            f"clouds must have equal dimension, got {np.shape(x)[1]} and {np.shape(y)[1]}; "
            "compare particles of one kind"
        )


def check_weights(name: str, weights: Any, size: int, /) -> None:
    """Nothing, if weights are None or the weights of a probability measure on `size` points.

    Args:
        name: What the weights are called in the message.
        weights: One number per point, or None for 1/size each.
        size: Number of points.

    Raises:
        ValueError: Another shape, negative weights, or a sum that is not 1.

    >>> check_weights("x_weights", [0.25, 0.75], 2)
    """
    if weights is None:
        return
    if np.shape(weights) != (size,):
        raise ValueError(
            f"{name} must hold one weight for each of {size} points, got shape "
            f"{list(np.shape(weights))}"
        )
    if not concrete(weights):
        return
    values = np.asarray(weights, np.float64)
    if not (np.isfinite(values).all() and (values >= 0.0).all()):
        raise ValueError(
            f"{name} must be finite numbers >= 0, got {values.min()} among them; "
            "a signed measure has no transport distance: compare its two parts"
        )
    if abs(values.sum() - 1.0) > _SUM_TOLERANCE:
        raise ValueError(f"{name} must sum to 1, got {values.sum():.6g}; divide them by their sum")


def probabilities(
    weights: Float[ArrayLike, " m"] | None, size: int, dtype: Any, /
) -> Float[Array, " m"]:
    """Weights as an array of sum 1 up to round-off.

    Args:
        weights: Weights that passed `check_weights`, or None for 1/size each.
        size: Number of points.
        dtype: Type of the array.

    >>> probabilities(None, 4, jnp.float32).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    if weights is None:
        return jnp.full(size, 1.0 / size, dtype)
    values = jnp.asarray(weights, dtype)
    return values / jnp.sum(values)


def measures(
    x: Any, y: Any, x_weights: Any, y_weights: Any, /
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Two clouds that passed all checks, each as (points, weights), all of one type.

    Args:
        x: Points `[m p]`.
        y: Points of the same dimension.
        x_weights: Weights of `x`, or None for 1/m each.
        y_weights: Weights of `y`, or None for 1/n each.

    Raises:
        ValueError: As `check_pair` and `check_weights`.

    >>> measures([[0.0]], [[1.0], [2.0]], None, None)[1][1].tolist()
    [0.5, 0.5]
    """
    check_pair(x, y)
    check_weights("x_weights", x_weights, np.shape(x)[0])
    check_weights("y_weights", y_weights, np.shape(y)[0])
    x, y = jnp.asarray(x), jnp.asarray(y)
    dtype = jnp.result_type(x, y, jnp.float32)
    first = x.astype(dtype), probabilities(x_weights, x.shape[0], dtype)
    return first, (y.astype(dtype), probabilities(y_weights, y.shape[0], dtype))


def signed_root(value: Float[Array, ""], scale: Float[Array, ""], /) -> Float[Array, ""]:
    """sign(v) |v|^(1/2), and 0 with derivative 0 where v is round-off of terms of size `scale`.

    Args:
        value: The number, a difference of larger ones.
        scale: Size of those.

    >>> signed_root(jnp.asarray(-4.0), jnp.asarray(1.0)).item()
    -2.0
    """
    floor = 100.0 * jnp.finfo(value.dtype).eps * jax.lax.stop_gradient(scale)
    # Written so that NaN is not taken for round-off.
    nothing = jnp.abs(value) <= floor
    # Both branches of a where are differentiated: the root must not see 0.
    safe = jnp.where(nothing, 1.0, value)
    return jnp.where(nothing, 0.0, jnp.sign(safe) * jnp.sqrt(jnp.abs(safe)))
