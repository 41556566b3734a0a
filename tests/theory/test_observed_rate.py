import numpy as np
import pytest

from meanfield import theory


def run(risks, *, mu=0.0, slopes=None):
    """A run made up of its risks."""
    risks = np.asarray(risks, float)
    slopes = np.zeros_like(risks) if slopes is None else slopes
    return theory.Descent(risks, slopes, np.full_like(risks, mu), *[risks] * 3, layer=None)


def test_rate_of_two_exponentials():
    """Closed form: the fast one sets the range's upper end, the slow one the lower."""
    times = np.arange(81)
    found = theory.observed_rate(0.5**times + 1e-3 * 0.9**times, stretches=8)
    assert found.high == pytest.approx(0.4, abs=0.1)
    assert found.low == pytest.approx(0.1, rel=1e-6)
    assert found.low < found.rate < found.high
    assert found.points == 81


def test_a_bound_that_is_broken():
    """Closed form: risks of rate 0.1 against mu = 0.05 and against mu = 0.2."""
    risks = 0.9 ** np.arange(20.0)
    kept, broken = (theory.rate_check(run(risks, mu=mu), step=1.0) for mu in (0.05, 0.2))
    assert (kept.violations, kept.refused) == (0, 0)
    assert kept.predicted == pytest.approx(0.05)
    assert kept.observed.rate == pytest.approx(0.1)
    # All iterates but the first lie above 0.8^t.
    assert broken.violations == 19


def test_steps_that_break_the_descent_inequality():
    """Closed form: from the first of them on, nothing is claimed."""
    risks = np.array([1.0, 0.5, 0.6, 0.3])
    found = theory.rate_check(run(risks, mu=0.5), step=1.0)
    assert (found.violations, found.refused) == (0, 1)
    slopes = np.array([1.1, 0.0, 0.0, 0.0])
    assert theory.rate_check(run(risks, mu=0.5, slopes=slopes), step=1.0).refused == 2
    assert theory.rate_check(run([1.0, np.nan], mu=0.5), step=1.0).refused == 1


def test_round_off_is_not_read():
    """Closed form: a run that ends in noise at 1e-30 keeps its bound and its rate."""
    risks = np.maximum(0.1 ** np.arange(60.0), 1e-30)
    found = theory.rate_check(run(risks, mu=0.89), step=1.0)
    assert (found.violations, found.refused) == (0, 0)
    assert found.observed.low == pytest.approx(0.9, abs=1e-9)
    assert found.observed.points < 30
    assert theory.rate_check(run(risks, mu=0.89), step=1.0, floor=1e-60).violations > 0


def test_refusals():
    """Closed form: too few points, risks that are none, runs without constants."""
    with pytest.raises(ValueError, match="needs at least 9 risks, got 8 .*; run longer"):
        theory.observed_rate(np.ones(8))
    with pytest.raises(ValueError, match="^risks must be positive and finite"):
        theory.observed_rate(np.append(np.ones(9), 0.0))
    with pytest.raises(ValueError, match="^stretches must be an integer >= 1, got 0"):
        theory.observed_rate(np.ones(9), stretches=0)
    with pytest.raises(ValueError, match="^descent must be a run of one problem .*missing"):
        theory.rate_check(run([1.0, 0.5], mu=np.nan), step=1.0)
    with pytest.raises(ValueError, match=r"^descent must be a run of one problem .*\(2, 2\)"):
        theory.rate_check(run(np.ones((2, 2))), step=1.0)
    with pytest.raises(ValueError, match="^step must be a finite number > 0, got -1.0"):
        theory.rate_check(run([1.0, 0.5]), step=-1.0)
