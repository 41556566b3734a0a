import inspect

import numpy as np
import pytest
from helpers import round_off
from scipy import stats

from meanfield import rates

WIDTHS = np.array([4, 8, 16, 32, 64])
COVARIANCES = ["replicas", "independent", "nested"]


def average(rng, seeds, repeats, *, nested, centre=0.0, widths=WIDTHS):
    """Averages [s w repeats] of standard normal heads around a centre."""
    if nested:
        steps = np.diff(widths, prepend=0)[:, None]
        walk = np.cumsum(np.sqrt(steps) * rng.normal(size=(seeds, widths.size, repeats)), axis=1)
        return centre + walk / widths[:, None]
    return centre + rng.normal(size=(seeds, widths.size, repeats)) / np.sqrt(widths)[:, None]


def held(limit, truth):
    return (limit.low <= truth) & (truth <= limit.high)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("order", [0, 1, 2, None])
def test_exact_expansion(covariance, order):
    """Closed form: values without noise give back their coefficients at once."""
    t = 1 / WIDTHS
    curves = np.stack([5 + 0 * t, 2 + 3 * t, -1 + 2 * t - 7 * t**2], axis=1)
    kept = curves[:, : order + 1] if order is not None else curves
    limit = rates.infinite_width(
        np.tile(kept, (9, 1, 1)), WIDTHS, order=order, covariance=covariance
    )
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(getattr(limit, name), [5, 2, -1][: kept.shape[1]], rtol=1e-12)
    np.testing.assert_allclose(limit.bias, [0, 3, 2][: kept.shape[1]], atol=1e-11)
    assert limit.order.tolist() == ([order] * kept.shape[1] if order is not None else [1, 1, 2])


@pytest.mark.parametrize("order", [1, 2])
def test_control_variates_are_generalised_least_squares(order):
    """Numpy loop: c_0 by the inverse of the covariance of the replicas, Rao's standard error."""
    seeds, rng = 12, np.random.default_rng(0)
    mix = rng.normal(size=(5, 5))
    rows = rng.normal(size=(seeds, 5)) @ mix + 2 + 3 / WIDTHS
    limit = rates.infinite_width(rows, WIDTHS, order=order)
    inverse = np.linalg.inv(np.cov(rows.T))
    basis = (1 / WIDTHS)[:, None] ** np.arange(order + 1)
    gram = np.linalg.inv(basis.T @ inverse @ basis)
    expected = gram @ basis.T @ inverse @ rows.mean(axis=0)
    np.testing.assert_allclose([limit.value, limit.bias], expected[:2], rtol=1e-9)
    residual = rows.mean(axis=0) - basis @ expected
    spent = WIDTHS.size - order - 1
    inflation = (1 + seeds / (seeds - 1) * residual @ inverse @ residual) / seeds
    error = np.sqrt(gram[0, 0] * inflation * (seeds - 1) / (seeds - 1 - spent))
    half = stats.t.ppf(0.975, seeds - 1 - spent) * error
    np.testing.assert_allclose((limit.high - limit.low) / 2, half, rtol=1e-9)


def test_independent_weights_against_polyfit():
    """Independent library: numpy's weighted polyfit of each replica, scipy's t interval."""
    rows = average(np.random.default_rng(0), 6, 1, nested=False)[..., 0]
    limit = rates.infinite_width(rows, WIDTHS, order=1, covariance="independent", confidence=0.9)
    fits = [np.polyfit(1 / WIDTHS, row, 1, w=np.sqrt(WIDTHS)) for row in rows]
    constants = [fit[1] for fit in fits]
    interval = stats.ttest_1samp(constants, 0.0).confidence_interval(0.9)
    np.testing.assert_allclose([limit.low, limit.high], interval, rtol=1e-11)
    np.testing.assert_allclose(limit.bias, np.mean([fit[0] for fit in fits]), rtol=1e-11)


def test_nested_weights_use_the_extreme_widths():
    """Closed form: with a walk in 1/M the line goes through the widest and the narrowest mean."""
    rows = average(np.random.default_rng(0), 6, 3, nested=True)
    limit = rates.infinite_width(rows, WIDTHS, order=1, covariance="nested")
    first, last = rows.mean(axis=0)[[0, -1]]
    bias = (first - last) / (1 / 4 - 1 / 64)
    np.testing.assert_allclose(limit.bias, bias, rtol=1e-11)
    np.testing.assert_allclose(limit.value, last - bias / 64, rtol=1e-11)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_coverage_for_normal_values(nested, covariance):
    """Theorem: the t interval is exact for normal values, within 4 standard errors."""
    rows = average(np.random.default_rng(0), 9, 4000, nested=nested) + (2 + 3 / WIDTHS)[:, None]
    share = held(rates.infinite_width(rows, WIDTHS, order=1, covariance=covariance), 2.0).mean()
    error = np.sqrt(0.95 * 0.05 / 4000)
    assert error < 0.004
    assert abs(share - 0.95) < 4 * error


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("nonlinear", "truth"), [(np.square, 0.25), (np.exp, np.exp(0.5))], ids=["square", "exp"]
)
def test_known_limit_is_covered_and_found_closer(nested, nonlinear, truth):
    """Closed form: f(average of heads) -> f(mean), E average^2 = mean^2 + 1/M; exp has all powers.

    At nominal 95 % at least 36 of 40 repeats hold the limit, and 95 % of 2000 do within 4 standard
    errors and the 2 % that the choice of the order may cost; the widest network's mean is further.
    """
    rows = nonlinear(average(np.random.default_rng(7), 128, 2000, nested=nested, centre=0.5))
    limit = rates.infinite_width(rows, WIDTHS)
    inside = held(limit, truth)
    assert inside[:40].sum() >= 36
    error = np.sqrt(0.95 * 0.05 / 2000)
    assert error < 0.005
    assert -0.02 - 4 * error < inside.mean() - 0.95 < 4 * error
    squares = [(found - truth) ** 2 for found in (limit.value, rows[:, -1].mean(axis=0))]
    gain = squares[1] - squares[0]
    assert gain.mean() > 4 * gain.std() / np.sqrt(2000)


def test_curvature_is_asked_for_by_the_data():
    """Theorem: a test at 1 % keeps c_2 = 0 in 1 % of the cases; a large c_2 in all, unbiased."""
    noise = 0.1 * average(np.random.default_rng(0), 12, 3000, nested=False)
    straight = rates.infinite_width(noise + (2 + 3 / WIDTHS)[:, None], WIDTHS)
    error = np.sqrt(0.01 * 0.99 / 3000)
    assert abs(np.mean(straight.order == 2) - 0.01) < 4 * error
    bent = rates.infinite_width(noise + (2 + 3 / WIDTHS + 20 / WIDTHS**2)[:, None], WIDTHS)
    assert (bent.order == 2).all()
    assert abs(held(bent, 2.0).mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 3000)
    forced = rates.infinite_width(
        noise + (2 + 3 / WIDTHS + 20 / WIDTHS**2)[:, None], WIDTHS, order=1
    )
    assert held(forced, 2.0).mean() < 0.5
    assert np.median(forced.omitted) < 1e-3
    assert 0.4 < np.median(straight.omitted) < 0.6


def test_units_and_shapes():
    """Invariance: units of values and widths, order of replicas, shape of the components."""
    rows = average(np.random.default_rng(0), 9, 6, nested=True) + 1.0
    limit = rates.infinite_width(rows, WIDTHS)
    shuffled = rates.infinite_width(1e6 * rows[::-1].reshape(9, 5, 2, 3), 10 * WIDTHS)
    factors = (1e6, 1e6, 1e6, 1e7, 1, 1)
    for found, expected, factor in zip(shuffled, limit, factors, strict=True):
        assert found.shape == (2, 3)
        np.testing.assert_allclose(found.ravel(), factor * expected, rtol=1e-8)
    alone = rates.infinite_width(rows[..., 4], WIDTHS)
    assert [float(found) for found in alone] == pytest.approx([float(e[4]) for e in limit])


def test_a_constant_component_beside_others():
    """Closed form: a component without noise has an interval of no length, the other keeps its."""
    rows = average(np.random.default_rng(0), 9, 2, nested=False)
    rows[..., 0] = 7.0
    limit = rates.infinite_width(rows, WIDTHS)
    np.testing.assert_allclose([limit.low[0], limit.high[0]], 7.0, rtol=round_off(eps=1000))
    np.testing.assert_allclose(limit.value[1], rates.infinite_width(rows[..., 1], WIDTHS).value)


# The shape annotations of the suite must not answer before the function does.
limit_of = inspect.unwrap(rates.infinite_width)
ROWS = np.random.default_rng(0).normal(size=(9, 3))


@pytest.mark.parametrize(
    ("values", "widths", "options", "message"),
    [
        (ROWS[:, :2], [4, 8], {}, ">= 3 different widths, got 2; add widths"),
        (ROWS, [4, 4, 8], {}, ">= 3 different widths, got 2"),
        (ROWS, [4, 16, 8], {}, "widths must increase, got .* sort them"),
        (ROWS, [-4, 8, 16], {}, "widths must be positive and finite, got -4.0"),
        (ROWS, [4, 8, np.inf], {}, "widths must be positive and finite, got inf"),
        (ROWS, [4, 8], {}, r"widths must be one per column, 3 in all, got shape \[2\]"),
        (ROWS[:4], [4, 8, 16], {}, "3 widths needs >= 5 replicas, got 4; run more seeds, or say"),
        (ROWS[:1], [4, 8, 16], {"covariance": "nested"}, "needs >= 2 replicas, got 1"),
        (ROWS[0], [4, 8, 16], {}, r"one row per replica .* got shape \[3\]"),
        (ROWS, [4, 8, 16], {"order": 3}, "order must be 0, 1 or 2, got 3"),
        (ROWS, [4, 8, 16], {"covariance": "paired"}, "covariance must be .* got 'paired'"),
        (ROWS, [4, 8, 16], {"confidence": 95.0}, r"confidence must lie in \(0, 1\), got 95"),
        (ROWS, [4, 8, 16], {"level": 0.0}, r"level must lie in \(0, 1\), got 0.0"),
        (
            np.where(ROWS[2, 1] == ROWS, np.nan, ROWS),
            [4, 8, 16],
            {},
            "nan at replica 2, width .* 1;",
        ),
    ],
)
def test_refusals(values, widths, options, message):
    """Closed form: one sentence with what was got and what to do instead."""
    with pytest.raises(ValueError, match=message):
        limit_of(values, widths, **options)
