r"""Means over seeds and test samples at once, with an interval that holds for new ones of both.

    D_si = mu + a_s + b_i + e_si        seed s, sample i; every seed sees the same samples
    half^2 = (t_{S-1} s_A)^2 + (t_{N-1} s_B)^2
    s_A^2 = var_s(mean_i D) / S,        s_B^2 = var_i(mean_s D) / N

t at the level of confidence asked for. s_A^2 and s_B^2 expect var(a)/S + var(e)/SN and var(b)/N +
var(e)/SN, so their sum is at least the variance of the mean, and each has its own degrees of
freedom. Joined so, two Student intervals cover at least what one alone does (Banerjee 1961); the
degrees of freedom need not be estimated, which goes wrong with three seeds.

One trap: an interval over seeds alone holds for these test samples, one over samples alone for
these seeds; neither says what new ones of both would give.

References:
    Banerjee 1961, *On confidence interval for two-means problem based on separate estimates of
    variances and tabulated values of t-table*, Sankhya A 23.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from meanfield.rates.refusals import confidence_level


class Crossed(NamedTuple):
    """A mean over seeds and samples in `[low, high]` at the level of confidence asked for."""

    value: float
    low: float
    high: float


def crossed_mean(values: ArrayLike, /, *, confidence: float = 0.95) -> Crossed:
    """The mean over seeds and samples with its interval.

    Args:
        values: One row per seed, one column per sample [s i]; say, by how much one method is right
            more often than the other.
        confidence: Level of the two-sided interval, in (0, 1).

    Raises:
        ValueError: Fewer than two seeds or samples, values that are not finite, or a confidence
            outside (0, 1).

    References:
        Banerjee 1961.

    >>> [round(x, 2) for x in crossed_mean([[1, 0, 0], [1, 1, 0]])]
    [0.5, -1.96, 2.96]
    """
    level = confidence_level(confidence)
    rows = np.asarray(values, dtype=float)
    if rows.ndim != 2 or min(rows.shape) < 2 or not np.isfinite(rows).all():
        raise ValueError(
            "values must be finite, [s i] with two seeds and two samples or more, got shape "
            f"{list(rows.shape)}; drop what diverged"
        )
    centre = float(rows.mean())
    squares = 0.0
    for means in (rows.mean(axis=1), rows.mean(axis=0)):
        student = float(stats.t.ppf(0.5 + level / 2, len(means) - 1))
        squares += student**2 * float(np.var(means, ddof=1)) / len(means)
    half = math.sqrt(squares)
    return Crossed(centre, centre - half, centre + half)
