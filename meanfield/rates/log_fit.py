"""Least squares between logarithms for a combination of columns with coefficients >= 0.

    min_{a >= 0} sum_c (log y_c - log (X a)_c)^2

Newton: with r = log(y/f) around the last law f = X a, and w^2 = 1 + r, every round is the
nonnegative least squares problem of columns w X/f and target w + r/w, solved exactly by trying
every support, which few columns allow and which takes all samples at once.
Trap: laws are fitted over decades, so absolute least squares would see the largest errors only.

Reference:
    Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23.
"""

from itertools import combinations

import numpy as np
from jaxtyping import Float

_ROUNDS, _HALVINGS = 50, 3


def nonnegative_log_fit(
    columns: Float[np.ndarray, "c k"], values: Float[np.ndarray, "n c"], /
) -> Float[np.ndarray, "n k"]:
    """Coefficients >= 0 of each sample.

    Args:
        columns: Positive columns, linearly independent.
        values: Positive values, one row per sample.

    Returns:
        The coefficients.

    References:
        Lawson and Hanson 1974, chapter 23.

    >>> nonnegative_log_fit(np.array([[1.0, 4.0], [1.0, 2.0], [1.0, 1.0]]), np.array([[9.0, 5, 3]]))
    array([[1., 2.]])
    """
    size = np.exp(np.log(columns).mean(axis=0))
    scaled = columns / size
    # Around the values themselves the first round is relative least squares.
    found = _nonnegative_least_squares(scaled / values[..., None], np.ones_like(values))
    moving = np.arange(len(values))
    for _ in range(_ROUNDS):
        start, wanted = found[moving], values[moving]
        law = start @ scaled.T
        residual = np.log(wanted / law)
        # Where the law is far too large the curvature is negative; any positive one descends.
        root = np.sqrt(np.maximum(1 + residual, 0.1))
        goal = _nonnegative_least_squares(scaled * (root / law)[..., None], root + residual / root)
        near = np.abs(goal - start).max(axis=1) < 1e-7 * start.max(axis=1)
        # Round-off hides which point of a last step is the best; convergence is quadratic there.
        better = _best_on_the_way(scaled, wanted, start, goal - start)
        found[moving] = np.where(near[:, None], goal, better)
        moving = moving[~near]
        if not moving.size:
            break
    return found / size


def _best_on_the_way(
    columns: np.ndarray, values: np.ndarray, start: np.ndarray, step: np.ndarray
) -> np.ndarray:
    """The best of the start and the points after the step halved again and again."""
    lengths = np.append(0.5 ** np.arange(_HALVINGS), 0.0)
    points = start + lengths[:, None, None] * step
    distances = np.sum(np.log(points @ columns.T / values) ** 2, axis=2)
    return points[np.argmin(distances, axis=0), np.arange(len(start))]


def _nonnegative_least_squares(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """min_{a >= 0} |A a - y|^2 for A [n c k] and y [n c], by all supports."""
    gram = np.einsum("nck,ncj->nkj", columns, columns)
    moments = np.einsum("nck,nc->nk", columns, target)
    best, least = np.zeros_like(moments), np.zeros(len(moments))
    number = moments.shape[1]
    for size in range(1, number + 1):
        for support in map(list, combinations(range(number), size)):
            part = np.linalg.solve(gram[:, support][:, :, support], moments[:, support, None])[
                ..., 0
            ]
            value = -np.sum(part * moments[:, support], axis=1)
            chosen = (part > 0.0).all(axis=1) & (value < least)
            least[chosen] = value[chosen]
            best[chosen] = 0.0
            best[np.ix_(chosen, support)] = part[chosen]
    return best
