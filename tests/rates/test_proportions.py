import numpy as np
import pytest
from scipy import stats

from meanfield import rates


@pytest.mark.parametrize(("count", "size"), [(0, 7), (3, 7), (7, 7), (81, 200)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilson_against_scipy(count, size, confidence):
    """Independent library: scipy's Wilson interval of a binomial test."""
    found = rates.success_share(np.arange(size) < count, confidence=confidence)
    known = stats.binomtest(count, size).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(found, [count / size, known.low, known.high], atol=1e-14)


def test_difference_covers():
    """Statistics: 95 % intervals of 2,000 correlated pairs hold the true difference 0.2."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        draws = rng.uniform(size=60)
        found = rates.paired_difference(draws < 0.5, (draws > 0.2) & (draws < 0.5))
        held += found.low <= 0.2 <= found.high
    # Four standard errors around the nominal level; the interval errs to the wide side.
    assert 0.93 < held / 2000 <= 0.99


def test_only_discordant_pairs_decide():
    """Closed form: equal outcomes differ by 0, and swapping the two flips the interval."""
    first = np.array([1, 1, 0, 0, 1, 0, 1, 1])
    same = rates.paired_difference(first, first)
    assert same.value == 0.0
    assert same.low == pytest.approx(-same.high)
    left, right = (
        rates.paired_difference(first, 0 * first),
        rates.paired_difference(0 * first, first),
    )
    np.testing.assert_allclose([left.low, left.high], [-right.high, -right.low])
    assert left.value == pytest.approx(5 / 8)


def test_refusals():
    """Closed form: nothing to count, other numbers, other problems."""
    with pytest.raises(ValueError, match="^successes must be one truth value per problem"):
        rates.success_share([])
    with pytest.raises(ValueError, match="^second must be one truth value per problem"):
        rates.paired_difference([1, 0], [1, 2])
    with pytest.raises(ValueError, match="same problems, got 2 and 1"):
        rates.paired_difference([1, 0], [1])
    with pytest.raises(ValueError, match="^confidence must lie in"):
        rates.success_share([1], confidence=1.0)
