import inspect

import numpy as np
import pytest
from helpers import round_off
from scipy import stats

from meanfield import rates

WIDTHS = np.array([4, 8, 16, 32, 64])


def power_law(slope, constant=3.0):
    return constant * WIDTHS**slope


def noisy(rng, seeds, *, shared):
    """Rows of a power law of slope -1/2, noise shared along a row and not shared."""
    common = shared * rng.normal(size=(seeds, 1)) * np.log(WIDTHS / 16)
    return power_law(-0.5) * np.exp(0.1 * rng.normal(size=(seeds, WIDTHS.size)) + common)


@pytest.mark.parametrize("slope", [-1.0, -0.5, 0.0, 2.0])
@pytest.mark.parametrize("seeds", [None, 1, 2, 5])
def test_exact_power_law(slope, seeds):
    """Closed form: slope, constant and an interval of no length."""
    y = power_law(slope) if seeds is None else np.tile(power_law(slope), (seeds, 1))
    fit = rates.log_log_slope(WIDTHS, y)
    np.testing.assert_allclose(fit[:3], slope, atol=round_off())
    np.testing.assert_allclose(fit.intercept, np.log(3.0), rtol=round_off())
    assert fit.points == y.size
    assert slope == 0.0 or fit.r_squared > 1 - round_off()


def test_single_curve_against_scipy():
    """Independent library: scipy's linregress and its standard error."""
    y = noisy(np.random.default_rng(0), 1, shared=0.0)
    expected = stats.linregress(np.log(WIDTHS), np.log(y[0]))
    half = stats.t.ppf(0.95, WIDTHS.size - 2) * expected.stderr
    for values in (y[0], y):
        fit = rates.log_log_slope(WIDTHS, values, confidence=0.9)
        found = [fit.slope, fit.intercept, fit.low, fit.high, fit.r_squared]
        slope = expected.slope
        wanted = [slope, expected.intercept, slope - half, slope + half, expected.rvalue**2]
        np.testing.assert_allclose(found, wanted, rtol=round_off(eps=1000))


def test_replicates_against_scipy():
    """Independent library: scipy's t interval for the mean of the slopes of the seeds."""
    y = noisy(np.random.default_rng(0), 4, shared=0.3)
    slopes = [stats.linregress(np.log(WIDTHS), np.log(row)).slope for row in y]
    expected = stats.ttest_1samp(slopes, 0.0).confidence_interval(0.9)
    fit = rates.log_log_slope(WIDTHS, y, confidence=0.9)
    np.testing.assert_allclose(fit.slope, np.mean(slopes), rtol=round_off(eps=1000))
    np.testing.assert_allclose([fit.low, fit.high], expected, rtol=round_off(eps=1000))


@pytest.mark.parametrize(("seeds", "shared"), [(1, 0.0), (2, 0.2), (3, 0.0), (5, 0.2)])
def test_coverage(seeds, shared):
    """Theorem: the 90 % interval holds the slope 90 % of the time, within 4 standard errors."""
    rng = np.random.default_rng(0)
    trials = 1500
    held = 0
    for _ in range(trials):
        fit = rates.log_log_slope(WIDTHS, noisy(rng, seeds, shared=shared), confidence=0.9)
        held += fit.low <= -0.5 <= fit.high
    error = np.sqrt(0.9 * 0.1 / trials)
    assert error < 0.01
    assert abs(held / trials - 0.9) < 4 * error


def test_units():
    """Invariance: other units leave the slope, and the inverse abscissa turns its sign."""
    y = noisy(np.random.default_rng(0), 3, shared=0.3)
    fit = rates.log_log_slope(WIDTHS, y)
    scaled = rates.log_log_slope(1e3 * WIDTHS, 1e-6 * y)
    np.testing.assert_allclose(scaled[:3], fit[:3], rtol=1e-10)
    turned = rates.log_log_slope(1 / WIDTHS, y)
    np.testing.assert_allclose(turned[:3], [-fit.slope, -fit.high, -fit.low], rtol=1e-10)
    shuffled = rates.log_log_slope(WIDTHS[::-1], y[::-1, ::-1])
    np.testing.assert_allclose(shuffled, fit, rtol=1e-10)


def test_confidence_widens_the_interval():
    """Closed form: half-lengths stand in the ratio of the t quantiles."""
    y = noisy(np.random.default_rng(0), 4, shared=0.3)
    narrow, wide = (rates.log_log_slope(WIDTHS, y, confidence=c) for c in (0.5, 0.99))
    ratio = stats.t.ppf(0.995, 3) / stats.t.ppf(0.75, 3)
    lengths = [fit.high - fit.low for fit in (narrow, wide)]
    np.testing.assert_allclose(lengths[1] / lengths[0], ratio, rtol=round_off(eps=1000))


def test_band_against_scipy():
    """Independent library: scipy's t interval at each time."""
    values = np.random.default_rng(0).normal(size=(4, 3)) + np.arange(3.0)
    found = rates.band(values, confidence=0.8)
    for time in range(3):
        column = values[:, time]
        interval = stats.ttest_1samp(column, 0.0).confidence_interval(0.8)
        expected = [column.mean(), *interval, column.min(), column.max()]
        np.testing.assert_allclose([entry[time] for entry in found], expected, rtol=1e-12)


def test_band_of_one_seed():
    """Theorem: one observation has no interval, which is said by NaN and not by length 0."""
    found = rates.band([[1.0, 2.0]])
    assert np.isnan(found.low).all()
    assert np.isnan(found.high).all()
    assert found.mean.tolist() == found.smallest.tolist() == found.largest.tolist() == [1.0, 2.0]


# The shape annotations of the suite must not answer before the function does.
slope_of = inspect.unwrap(rates.log_log_slope)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2], [1, 2], ">= 3 different x, got 2"),
        ([1, 2, 2, 1], [1, 2, 3, 4], ">= 3 different x, got 2"),
        ([], [], ">= 3 different x, got 0"),
        ([1, 2, 3], [1, 2, 0], "y must be positive and finite .* got 0.0"),
        ([1, -2, 3], [1, 2, 3], "x must be positive and finite .* got -2.0"),
        ([1, 2, 3], [1, 2, np.nan], "y must be positive and finite .* got nan"),
        ([1, 2, 3], [1, 2, np.inf], "y must be positive and finite .* got inf"),
        ([1, 2, 3], [1, 2, 3, 4], r"got shapes \[3\] and \[4\]"),
        ([1, 2, 3], np.ones((3, 2)), r"got shapes \[3\] and \[3, 2\]"),
        ([1, 2, 3], np.ones((0, 3)), r"got shapes \[3\] and \[0, 3\]"),
        ([1, 2, 3], np.ones((2, 2, 3)), "got shapes"),
        (np.ones((2, 3)), np.ones((2, 3)), "got shapes"),
    ],
)
def test_refused_points(x, y, message):
    """Closed form: one sentence with what was got and what is needed."""
    with pytest.raises(ValueError, match=message):
        slope_of(x, y)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], r"one row per seed, got shape \[2\]"),
        (np.ones((0, 3)), "got shape"),
        ([[1.0, 2.0], [1.0, np.nan]], "got nan at seed 1, time index 1"),
    ],
)
def test_refused_values(values, message):
    """Closed form: the message names the seed and the time."""
    with pytest.raises(ValueError, match=message):
        rates.band(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, -0.5, np.nan])
def test_refused_confidence(confidence):
    """Closed form: a level is a probability, and 95 is not."""
    for function in (lambda **kw: rates.log_log_slope(WIDTHS, WIDTHS, **kw), rates_band):
        with pytest.raises(ValueError, match=r"confidence must lie in \(0, 1\)"):
            function(confidence=confidence)


def rates_band(**options):
    """Band of any values."""
    return rates.band([[1.0], [2.0]], **options)
