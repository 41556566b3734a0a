"""Rates of convergence: slopes on log-log axes and means over seeds, with Student intervals.

    log y = intercept + slope log x + noise

Trap: points that share a seed (nested widths, one reference) are correlated, so pooling the
points of several seeds gives an interval that is too narrow. With replicates, one slope is fitted
per seed, and the interval is that of independent slopes.

Reference:
    Draper and Smith, Applied Regression Analysis, 1998, section 1.4.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats

from meanfield.rates.refusals import confidence_level


class Fit(NamedTuple):
    """Line on log-log axes: `slope` in `[low, high]` at the level of confidence asked for.

    `intercept` is log y at x = 1, `r_squared` the share of the variance of log y (mean over
    seeds) that the line explains, `points` the number of (x, y) pairs behind the fit.
    """

    slope: float
    low: float
    high: float
    intercept: float
    r_squared: float
    points: int


class Band(NamedTuple):
    """Mean over seeds at each time, its interval `[low, high]`, and the extremes over seeds."""

    mean: Float[np.ndarray, " t"]
    low: Float[np.ndarray, " t"]
    high: Float[np.ndarray, " t"]
    smallest: Float[np.ndarray, " t"]
    largest: Float[np.ndarray, " t"]


def log_log_slope(x: ArrayLike, y: ArrayLike, /, *, confidence: float = 0.95) -> Fit:
    """Slope of log y against log x by least squares, with its Student-t interval.

    Args:
        x: Positive abscissae [x] (widths, steps), at least three different ones.
        y: Positive values, [x], or [s x] with one row per seed. For [x] the interval comes from
            the residuals, x - 2 degrees of freedom: errors are taken as independent. For s >= 2
            rows it comes from the spread of one slope per seed, s - 1 degrees of freedom: a seed's
            errors may be correlated in any way, seeds must be independent (no shared reference).
        confidence: Level of the two-sided interval, in (0, 1).

    Returns:
        The fit; with replicates slope and intercept are means over seeds.

    Raises:
        ValueError: Fewer than three different abscissae, values that are not positive and finite,
            shapes that do not match, or a confidence outside (0, 1).

    >>> fit = log_log_slope([4, 8, 16, 32], [0.51, 0.35, 0.25, 0.177])
    >>> round(fit.slope, 3), round(fit.low, 3), round(fit.high, 3)
    (-0.507, -0.544, -0.469)
    """
    level = confidence_level(confidence)
    abscissae, values = _positive(x, "x"), np.atleast_2d(_positive(y, "y"))
    if (
        abscissae.ndim != 1
        or values.ndim != 2
        or values.shape[1] != abscissae.size
        or not len(values)
    ):
        raise ValueError(
            "x must be [x] and y [x] or [s x] with one column per abscissa, got shapes "
            f"{list(np.shape(x))} and {list(np.shape(y))}"
        )
    if np.unique(abscissae).size < 3:
        raise ValueError(
            f"a slope with an interval needs >= 3 different x, got {np.unique(abscissae).size}; "
            "add widths or steps"
        )
    log_x, log_y = np.log(abscissae), np.log(values)
    centred = log_x - log_x.mean()
    slopes = log_y @ centred / (centred @ centred)
    slope, average = slopes.mean(), log_y.mean(axis=0)
    residuals = average - average.mean() - slope * centred
    if len(slopes) > 1:
        half = _half_length(slopes, level)
    else:
        freedom = log_x.size - 2
        error = np.sqrt(residuals @ residuals / freedom / (centred @ centred))
        half = stats.t.ppf(0.5 + level / 2, freedom) * error
    total = np.sum((average - average.mean()) ** 2)
    return Fit(
        slope=float(slope),
        low=float(slope - half),
        high=float(slope + half),
        intercept=float(average.mean() - slope * log_x.mean()),
        # A constant is fitted exactly by the line of slope 0.
        r_squared=float(1.0 - residuals @ residuals / total) if total > 0.0 else 1.0,
        points=log_y.size,
    )


def band(values: ArrayLike, /, *, confidence: float = 0.95) -> Band:
    """Mean over seeds with its Student-t interval, and the extremes, at each time.

    Args:
        values: One row per seed [s t].
        confidence: Level of the two-sided interval of the mean, in (0, 1), at each time alone.

    Returns:
        The band. One seed has no interval: `low` and `high` are NaN then.

    Raises:
        ValueError: Values that are not a non-empty finite matrix, or a confidence outside (0, 1).

    >>> curve = band([[1.0, 2.0], [3.0, 2.0]])
    >>> curve.mean.tolist(), curve.smallest.tolist(), curve.largest.tolist()
    ([2.0, 2.0], [1.0, 2.0], [3.0, 2.0])
    """
    level = confidence_level(confidence)
    rows = np.asarray(values, dtype=float)
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError(f"values must be [s t], one row per seed, got shape {list(rows.shape)}")
    if not np.isfinite(rows).all():
        seed, time = np.argwhere(~np.isfinite(rows))[0].tolist()
        raise ValueError(
            f"values must be finite, got {rows[seed, time]} at seed {seed}, time index {time}; "
            "drop diverged seeds or the times after divergence"
        )
    centre = rows.mean(axis=0)
    half = _half_length(rows, level) if len(rows) > 1 else np.full(rows.shape[1], np.nan)
    return Band(centre, centre - half, centre + half, rows.min(axis=0), rows.max(axis=0))


def _half_length(samples: np.ndarray, level: float) -> Any:
    """Half the interval of the mean over the first axis."""
    count = len(samples)
    return stats.t.ppf(0.5 + level / 2, count - 1) * samples.std(axis=0, ddof=1) / math.sqrt(count)


def _positive(values: Any, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if not (np.isfinite(array) & (array > 0.0)).all():
        first = array[~(np.isfinite(array) & (array > 0.0))].flat[0]
        raise ValueError(
            f"{name} must be positive and finite for log-log axes, got {first}; drop exact zeros "
            "and diverged runs"
        )
    return array
