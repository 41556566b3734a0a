"""Eager checks that all files of this room share: levels, finite values, widths.

Trap: `meanfield.checks` asks the same of jax arrays; this room runs without jax.
"""

import numpy as np
from numpy.typing import ArrayLike


def confidence_level(confidence: float, /) -> float:
    """The level of an interval, if it is one.

    Args:
        confidence: A probability in (0, 1).

    Raises:
        ValueError: Otherwise.

    >>> confidence_level(0.95)
    0.95
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    return confidence


def finite_replicas(name: str, values: ArrayLike, /, *, columns: str, least: int) -> np.ndarray:
    """Values with one row per replica as an array of floats, all finite.

    Args:
        name: What the values are called in the message.
        values: Array [s c ...], one row per replica, one column per network.
        columns: What a column is, for the message.
        least: The fewest replicas that will do.

    Raises:
        ValueError: Fewer than two axes, too few replicas, a value that is not finite.

    >>> finite_replicas("errors", [[1], [2]], columns="width", least=2).shape
    (2, 1)
    """
    rows = np.asarray(values, dtype=float)
    if rows.ndim < 2 or rows.size == 0:
        raise ValueError(
            f"{name} must be [s c ...], one row per replica and one column per {columns}, "
            f"got shape {list(rows.shape)}"
        )
    if len(rows) < least:
        raise ValueError(
            f"{name} needs >= {least} replicas, got {len(rows)}; run more seeds at every {columns}"
        )
    if not np.isfinite(rows).all():
        replica, column = np.argwhere(~np.isfinite(rows))[0, :2].tolist()
        raise ValueError(
            f"{name} must be finite, got {rows[~np.isfinite(rows)][0]} at replica {replica}, "
            f"{columns} index {column}; drop diverged replicas at all of them"
        )
    return rows


def positive_sizes(name: str, sizes: ArrayLike, /, *, number: int) -> np.ndarray:
    """Widths or depths of the columns as an array of floats, all positive and finite.

    Args:
        name: What the sizes are called in the message.
        sizes: One per column.
        number: How many columns there are.

    Raises:
        ValueError: Another number of sizes, or one that is not positive and finite.

    >>> positive_sizes("widths", [4, 8], number=2).tolist()
    [4.0, 8.0]
    """
    array = np.asarray(sizes, dtype=float)
    if array.shape != (number,):
        raise ValueError(
            f"{name} must be one per column, {number} in all, got shape {list(array.shape)}"
        )
    if not (np.isfinite(array) & (array > 0.0)).all():
        wrong = array[~(np.isfinite(array) & (array > 0.0))][0]
        raise ValueError(f"{name} must be positive and finite, got {wrong}; leave that column out")
    return array


def three_widths(widths: np.ndarray, /) -> None:
    """Nothing, if there are three different widths.

    Args:
        widths: Widths in any order.

    Raises:
        ValueError: Fewer: two widths fit every law of two coefficients.

    >>> three_widths(np.array([4, 8, 16]))
    """
    if (number := np.unique(widths).size) < 3:
        raise ValueError(
            f"a law in the width needs >= 3 different widths, got {number}; add widths, best in a "
            "constant ratio such as 8, 16, 32"
        )
