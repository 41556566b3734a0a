r"""The ball test along a run: did descent stay where the test says it must?

A test that passes promises, at every iterate t before a step breaks the descent inequality,

    |(W^Q, W^K)_t - (W^Q, W^K)_0| < R        path_t <= 2 G sqrt(2 s f_0) / mu_eff
    sigma(B_t) >= sigma(B_0) / 2             f_t <= (1 - eta mu_eff)^t f_0

Where the test fails nothing is promised, and the same four say how far the run went all the same.

One trap: a run that stays in the ball is no proof that its start passes, and a start that fails is
no reason to expect that its run leaves.

References:
    Song et al. 2024, arXiv 2411.07538 (the condition of its global theorem).
"""

from typing import NamedTuple

import numpy as np

from meanfield.theory.ball_test import BallTest
from meanfield.theory.layer_descent import Descent
from meanfield.theory.observed_rate import RateCheck, first_of, rate_check


class BallCheck(NamedTuple):
    """A run against its ball test; iterates are counted from 0, the start.

    Attributes:
        left: The first iterate outside the ball, or None.
        strayed: The first whose path of (W^Q, W^K) is longer than the test allows, or None.
        thinned: The first with sigma(B_t) < sigma(B_0)/2, or None; 0 where sigma(B_0) = 0.
        rate: The bound (1 - eta mu_eff)^t f_0 against the run, and the rate observed beside it.
        used: The farthest distance from the start, over R.
        contradicted: How often a test that passes was wrong, in place or in risk: 0 by the theorem.
        statement: All of it in one sentence.
    """

    left: int | None
    strayed: int | None
    thinned: int | None
    rate: RateCheck
    used: float
    contradicted: int
    statement: str

    @property
    def stayed(self) -> bool:
        """Whether the run stayed in the ball, on a short path, with sigma(B) above half."""
        return (self.left, self.strayed, self.thinned) == (None, None, None)


def ball_check(
    test: BallTest, descent: Descent, /, *, step: float, floor: float | None = None
) -> BallCheck:
    """Whether one run stayed in the ball, on a short path, well conditioned, below its bound.

    Args:
        test: The ball test of the start of the run.
        descent: A run of one problem, with its constants.
        step: The step eta of the run.
        floor: The risk that round-off makes of an exact fit, as in :func:`rate_check`.

    Raises:
        ValueError: If the run has no constants, is of several problems or of another start, or the
            step is not positive.

    >>> test = BallTest(True, 2.0, 1.0, 0.5, 1.0, 0.1, 1.0, "")
    >>> rows = [[1.0, 0.5], [1.0, 0.1], [1.0, 1.0], [1.0, 0.4], [0.0, 0.6], [0.0, 0.7]]
    >>> ball_check(test, Descent(*map(np.array, rows), layer=None), step=1.0)[:3]
    (None, 1, 1)
    """
    risks, sigma, moved, path = (
        np.asarray(row, float)
        for row in (descent.risks, descent.sigma, descent.moved, descent.path)
    )
    if risks.ndim == 1 and np.isnan(sigma).all():
        raise ValueError("descent must have its constants, got none: run with constants=True")
    rate = rate_check(descent._replace(pl=np.full(risks.shape, test.pl)), step=step, floor=floor)
    eps = 200 * float(np.finfo(np.asarray(descent.risks).dtype).eps)
    # The test measures the start in float64 whatever the run's precision: far more than round-off.
    if abs(risks[0] - test.risk) > 1e-3 * test.risk + eps:
        raise ValueError(
            f"test and run must begin at one start, got f_0 = {test.risk:.6g} and {risks[0]:.6g}: "
            "give both the same layer, data, and average"
        )
    outside = ~(moved <= test.radius * (1 + eps))
    long = ~(path <= test.length * (1 + eps))
    thin = ~(sigma >= test.sigma / 2 * (1 - eps)) | (test.sigma == 0)
    broken = (outside | long | thin)[: rate.claimed]
    wrong = int(np.sum(broken)) + rate.violations if test.passes else 0
    left, strayed, thinned = (first_of(each) for each in (outside, long, thin))
    used = float(moved.max() / test.radius) if test.radius > 0 else np.inf
    told = _statement(test, [left, strayed, thinned], rate, used)
    return BallCheck(left, strayed, thinned, rate, used, wrong, told)


def _statement(test: BallTest, firsts: list[int | None], rate: RateCheck, used: float) -> str:
    names = ("left the ball", "exceeded the path", "halved sigma(B)", "rose above the bound")
    refusal = None if rate.claimed == len(rate.bound) else rate.claimed
    told = [
        f"{name} at iterate {at}"
        for name, at in zip(
            (*names, "broke the descent inequality"), (*firsts, rate.first, refusal), strict=True
        )
        if at is not None
    ]
    word = "passes" if test.passes else "fails"
    seen = f"the rate observed is {rate.observed.rate:.3g}" if rate.observed else "no rate is seen"
    return (
        f"the ball test {word}; the run {', '.join(told) or 'kept all that it asks for'}, went "
        f"{used:.2g} of the radius far, and {seen} where {rate.predicted:.3g} is promised"
    )
