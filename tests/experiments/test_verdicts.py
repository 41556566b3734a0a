import numpy as np
import pytest
from scipy import stats

from experiments.global_convergence import verdicts
from experiments.global_convergence.verdicts import Check, Interval


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.52, -0.45, True),
        (-0.6, -0.4, True),
        (-0.7, -0.45, None),
        (-2.0, 1.0, None),
        (-0.39, -0.2, False),
        (-0.9, -0.61, False),
        (np.nan, np.nan, None),
    ],
)
def test_near(low, high, expected):
    """Closed form: within the margin, disjoint from it, or neither; a wide interval is no proof."""
    assert verdicts.near("slope", Interval(-0.5, low, high), -0.5).agrees is expected


@pytest.mark.parametrize(
    ("low", "high", "margin", "expected"),
    [
        (1.1, 1.5, 0.0, True),
        (0.97, 1.5, 0.0, None),
        (0.97, 1.5, 0.1, True),
        (0.95, 0.99, 0.1, False),
        (0.5, 2.0, 0.1, None),
        (np.nan, np.nan, 0.1, None),
    ],
)
def test_at_least(low, high, margin, expected):
    """Closed form: below the bound by no more than the margin, and reaching it."""
    found = verdicts.at_least("order", Interval(1.0, low, high), 1.0, margin=margin)
    assert found.agrees is expected


def test_at_most():
    """Closed form: a number, its bound, and a number that is none."""
    answers = [verdicts.at_most("mass", value, 1e-12).agrees for value in (1e-16, 1e-9, np.nan)]
    assert answers == [True, False, None]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([True, True], True),
        ([True, None], None),
        ([None, False, True], False),
        ([], None),
    ],
)
def test_joint(answers, expected):
    """Closed form: all of them, any that fails, or open."""
    assert verdicts.joint([Check("q", "e", "m", answer) for answer in answers]) is expected


def test_words_name_what_is_open_and_what_is_not_met():
    """Closed form: the sentence and the table written by hand."""
    checks = [Check("mass", "≤ 1", "0", True), Check("order", "≥ 1", "0.5", False)]
    assert verdicts.because(checks) == "1 of 2 checks agree. Not met: order (0.5)."
    assert "| order | ≥ 1 | 0.5 | does not agree |" in verdicts.table(checks)


def test_interval_over_seeds():
    """Independent library: scipy's Student interval of the mean."""
    values = np.random.default_rng(0).normal(size=7)
    found = verdicts.over_seeds(values)
    low, high = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
    np.testing.assert_allclose(found, [values.mean(), low, high], rtol=1e-12)
