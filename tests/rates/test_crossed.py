"""Means over seeds and test samples: coverage, closed forms and refusals."""

import numpy as np
import pytest
from scipy import stats

from meanfield import rates

TRIALS = 1000


@pytest.mark.parametrize("seeds", [2, 4])
@pytest.mark.parametrize("shares", [(1, 0, 0), (0, 1, 0), (0.5, 0.5, 0), (0.3, 0.3, 0.4)])
def test_new_seeds_and_samples_are_covered(seeds, shares):
    """Theorem: Banerjee's joint interval covers at least its level; simulated, 4 standard errors.

    Shares are those of seeds, samples and the rest in the variance of the mean.
    """
    samples, level, truth = 40, 0.9, 0.3
    rng = np.random.default_rng(0)
    scales = np.sqrt(np.array(shares) * [seeds, samples, seeds * samples])
    drawn = (
        truth
        + scales[0] * rng.normal(size=(TRIALS, seeds, 1))
        + scales[1] * rng.normal(size=(TRIALS, 1, samples))
        + scales[2] * rng.normal(size=(TRIALS, seeds, samples))
    )
    found = [rates.crossed_mean(values, confidence=level) for values in drawn]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert covered >= level - 4 * np.sqrt(level * (1 - level) / TRIALS)
    # One source of variance alone leaves no room: there the interval is Student's.
    if max(shares) == 1:
        assert covered <= level + 4 * np.sqrt(level * (1 - level) / TRIALS)


def test_right_and_wrong_answers_are_covered():
    """Theorem: the same for answers, 0 or 1, of two methods whose seeds and samples differ."""
    seeds, samples, level = 3, 200, 0.95
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(TRIALS):
        hard = rng.normal(size=samples)
        skill = 0.5 + 0.2 * rng.normal(size=(2, seeds))
        right = skill[..., None] + hard + rng.normal(size=(2, seeds, samples)) > 0
        found = rates.crossed_mean(right[1].astype(float) - right[0], confidence=level)
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(covered) >= level - 4 * np.sqrt(level * (1 - level) / TRIALS)


def test_samples_without_a_share_leave_the_interval_of_the_seeds():
    """Independent library: scipy's t interval of the seeds' means, at two levels."""
    seeds = np.array([0.1, 0.4, 0.2])
    for level in (0.95, 0.99):
        found = rates.crossed_mean(np.repeat(seeds[:, None], 7, axis=1), confidence=level)
        expected = stats.t.interval(level, 2, seeds.mean(), seeds.std(ddof=1) / np.sqrt(3))
        np.testing.assert_allclose(found[1:], expected, rtol=1e-12)


def test_the_order_of_seeds_and_samples_is_idle():
    """Invariance: rows, columns, and rows for columns."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(4, 9))
    found = rates.crossed_mean(values)
    for other in (values[rng.permutation(4)], values[:, rng.permutation(9)], values.T):
        np.testing.assert_allclose(rates.crossed_mean(other), found, rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0]], r"two seeds and two samples or more, got shape \[1, 2\]"),
        ([[1.0], [2.0]], r"got shape \[2, 1\]"),
        ([[1.0, np.nan], [2.0, 1.0]], "values must be finite"),
        ([1.0, 2.0], r"got shape \[2\]"),
    ],
)
def test_refusals(values, message):
    """House rule: what is wrong in one sentence."""
    with pytest.raises(ValueError, match=message):
        rates.crossed_mean(values)
