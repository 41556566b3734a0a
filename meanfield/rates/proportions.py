r"""Shares of successes, and differences of two of them on the same problems, with intervals.

    share         (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)         Wilson
    difference    d +- z sqrt((q_1 + q_2 - d^2) / (n + 2)),  d = q_1 - q_2,             Bonett-Price
                  q_1 = (only the first succeeds + 1) / (n + 2), q_2 likewise

One trap: two shares of the same problems are correlated; only the problems in which exactly one of
the two succeeds say which is better, and the difference of two Wilson intervals ignores that.

References:
    Wilson 1927, J. Amer. Statist. Assoc. 22; Bonett and Price 2012, J. Educ. Behav. Stat. 37.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from meanfield.rates.refusals import confidence_level


class Share(NamedTuple):
    """A share, or a difference of two, in ``[low, high]`` at the level of confidence asked for."""

    value: float
    low: float
    high: float


def success_share(successes: ArrayLike, /, *, confidence: float = 0.95) -> Share:
    """The share of successes with its Wilson interval.

    Args:
        successes: One truth value per problem.
        confidence: Level of the two-sided interval, in (0, 1).

    Raises:
        ValueError: No problem, values other than 0 and 1, or a confidence outside (0, 1).

    References:
        Wilson 1927.

    >>> [round(x, 4) for x in success_share([True, False, False, False])]
    [0.25, 0.0456, 0.6994]
    """
    score = float(stats.norm.ppf(0.5 + confidence_level(confidence) / 2))
    values = _truths(successes, "successes")
    size, share = len(values), float(np.mean(values))
    shift = score**2 / size
    half = score * math.sqrt(share * (1 - share) / size + shift / (4 * size))
    low, high = ((share + shift / 2 + sign * half) / (1 + shift) for sign in (-1, 1))
    # Round-off would miss the ends that are exact.
    return Share(share, 0.0 if share == 0 else low, 1.0 if share == 1 else high)


def paired_difference(first: ArrayLike, second: ArrayLike, /, *, confidence: float = 0.95) -> Share:
    """The share of the first less that of the second on the same problems, Bonett-Price interval.

    Args:
        first: One truth value per problem.
        second: Those of the other method, problem by problem.
        confidence: Level of the two-sided interval, in (0, 1).

    Raises:
        ValueError: No problem, another number of them, values other than 0 and 1, or a confidence
            outside (0, 1).

    References:
        Bonett and Price 2012.

    >>> [round(x, 3) for x in paired_difference([1, 1, 1, 0], [1, 0, 0, 0])]
    [0.5, -0.263, 0.93]
    """
    score = float(stats.norm.ppf(0.5 + confidence_level(confidence) / 2))
    left, right = _truths(first, "first"), _truths(second, "second")
    if len(left) != len(right):
        raise ValueError(
            f"first and second must be of the same problems, got {len(left)} and {len(right)}"
        )
    size = len(left) + 2
    ahead, behind = (np.sum(left & ~right) + 1) / size, (np.sum(right & ~left) + 1) / size
    centre = float(ahead - behind)
    half = score * math.sqrt((ahead + behind - centre**2) / size)
    value = float(np.mean(left) - np.mean(right))
    return Share(value, max(-1.0, centre - half), min(1.0, centre + half))


def _truths(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or not array.size or not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} must be one truth value per problem, got shape {array.shape}")
    return array.astype(bool)
