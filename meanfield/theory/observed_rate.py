r"""The rate of gradient descent: what the constants promise along a run, and what is observed.

A step that keeps the descent inequality f_{t+1} <= f_t - (eta/2) |grad f_t|^2, as every step
eta <= 1/beta does, gives f_{t+1} <= (1 - eta mu_t) f_t with the PL constant mu_t of that point:

    f_t <= prod_{r<t} (1 - eta mu_r) f_0        and (1 - eta mu)^t f_0 where mu_t is constant.

For W^V alone or W^O alone the bound is known beforehand. For all else it is known along the path,
and the descent inequality is looked at in every step instead of assumed.

One trap: the residual has round-off, so f has that of 2 sqrt(f f_eps) + f_eps, f_eps = (200 eps)^2
f_0; nothing is read from risks near f_eps.

References:
    Song et al. 2024, arXiv 2411.07538; Karimi, Nutini and Schmidt 2016, Theorem 1 (PL and descent).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from meanfield.checks import count, positive
from meanfield.theory.layer_descent import Descent

STRETCHES = 8


class ObservedRate(NamedTuple):
    """The rate r of f_t ~ (1 - r)^t, and its range over stretches of the run.

    Attributes:
        rate: Of the line of least squares through log f_t.
        low: The slowest of the stretches.
        high: The fastest of them.
        points: How many iterates were above the floor.
    """

    rate: float
    low: float
    high: float
    points: int


class RateCheck(NamedTuple):
    """The bound along a run, against what was observed.

    Attributes:
        bound: prod (1 - eta mu_t) f_0, before each step and after the last.
        violations: Iterates above the bound, beyond round-off, as long as it is claimed.
        refused: Steps that broke the descent inequality; no bound is claimed from the first on.
        claimed: Iterates of which the bound is claimed, from the start on.
        first: The first iterate above the bound, claimed or not, or None.
        predicted: The mean rate that the bound promises, per step.
        observed: The rate observed; None if fewer than nine iterates lie above the floor.
    """

    bound: Float[np.ndarray, " t"]
    violations: int
    refused: int
    claimed: int
    first: int | None
    predicted: float
    observed: ObservedRate | None


def rate_check(descent: Descent, /, *, step: float, floor: float | None = None) -> RateCheck:
    """The bound along one run, its violations, and the rates predicted and observed.

    Args:
        descent: A run of one problem, with its constants.
        step: The step eta of the run.
        floor: The risk f_eps that round-off makes of an exact fit; (200 eps)^2 f_0 if None.

    Raises:
        ValueError: If the run has no constants, or is of several problems, or the step is not
            positive.

    >>> rows = [np.array(row) for row in ([1.0, 0.4], [2.0, 0.8], [1.0, 1.0])]
    >>> run = Descent(*rows, *rows, layer=None)
    >>> rate_check(run, step=0.5)[1:]
    (0, 0, 2, None, 0.5, None)
    """
    positive("step", step)
    eps = np.finfo(np.asarray(descent.risks).dtype).eps
    risks, slopes, mu = (np.asarray(row, float) for row in descent[:3])
    if risks.ndim != 1 or np.isnan(mu).all():
        raise ValueError(
            "descent must be a run of one problem with its constants, got risks of shape "
            f"{risks.shape}, constants {'missing' if np.isnan(mu).all() else 'present'}: choose "
            "one problem, and constants=True"
        )
    least = (200 * eps) ** 2 * risks[0] if floor is None else floor
    factors = np.maximum(1 - step * mu[:-1], 0.0)
    bound = risks[0] * np.append(1.0, np.cumprod(factors))
    refused = ~(risks[1:] <= risks[:-1] - step / 2 * slopes[:-1] + _slack(risks[:-1], least))
    claimed = 1 + int(np.sum(np.cumsum(refused) == 0))
    above = ~(risks <= bound + _slack(bound, least))
    usable = int(np.sum(np.cumprod(risks > 1e3 * least)))
    return RateCheck(
        bound=bound,
        violations=int(np.sum(above[:claimed])),
        refused=int(np.sum(refused)),
        claimed=claimed,
        first=first_of(above),
        predicted=float(-np.expm1(np.mean(np.log(np.maximum(factors, 1e-300))))),
        observed=observed_rate(risks[:usable]) if usable > STRETCHES else None,
    )


def first_of(broken: Bool[np.ndarray, " t"], /) -> int | None:
    """The first place at which something holds, or None.

    Args:
        broken: Whether it does.

    >>> first_of(np.array([False, True])), first_of(np.array([False]))
    (1, None)
    """
    return int(np.argmax(broken)) if broken.any() else None


def _slack(risks: np.ndarray, least: float) -> np.ndarray:
    return 2 * np.sqrt(risks * least) + least


def observed_rate(risks: ArrayLike, /, *, stretches: int = STRETCHES) -> ObservedRate:
    """The rate of one run by least squares, with its range over stretches.

    A run is no random sample, and its rate slows down as the fast directions die out: the range
    over stretches says how far that matters, where a Student interval would not.

    Args:
        risks: f before each step and after the last, positive.
        stretches: The number of stretches of equal length.

    Raises:
        ValueError: If a risk is not positive, or there are fewer points than stretches + 1.

    >>> [round(float(x), 6) for x in observed_rate(0.5 ** np.arange(17.0))]
    [0.5, 0.5, 0.5, 17.0]
    """
    values = np.asarray(risks, float)
    count("stretches", stretches)
    if values.ndim != 1 or len(values) < stretches + 1:
        raise ValueError(
            f"a rate over {stretches} stretches needs at least {stretches + 1} risks, got "
            f"{values.size} of shape {values.shape}; run longer or ask for fewer stretches"
        )
    if not (np.isfinite(values) & (values > 0)).all():
        raise ValueError("risks must be positive and finite: cut them where they reach round-off")
    logs, times = np.log(values), np.arange(len(values))
    ends = np.linspace(0, len(values) - 1, stretches + 1).round().astype(int)
    local = -np.expm1(np.diff(logs[ends]) / np.diff(ends))
    slope = np.polyfit(times, logs, 1)[0]
    rate = -np.expm1(slope)
    return ObservedRate(float(rate), float(local.min()), float(local.max()), len(values))
