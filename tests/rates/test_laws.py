import inspect

import numpy as np
import pytest
from scipy import optimize

from meanfield import rates
from meanfield.rates import log_fit

WIDTH, DEPTH = (
    grid.ravel().astype(float)
    for grid in np.meshgrid([8, 16, 32, 64, 128], [4, 8, 16, 32], indexing="ij")
)
PATH, PRODUCT = rates.LAWS["a/sqrt(M) + b/L"], rates.LAWS["a/sqrt(LM) + b/L"]
FREE = rates.Law((rates.Term(0.5, 1 / 3, True), rates.Term(0.0, 1.0, False)))
FULL = PATH._replace(quadrature=True)


def key():
    return np.random.default_rng(1)


def values(law, coefficients):
    """The law at the configurations, term by term."""
    terms = [
        a * WIDTH**-term.width * DEPTH**-term.depth
        for a, term in zip(coefficients, law.terms, strict=True)
    ]
    return np.sqrt(sum(t**2 for t in terms)) if law.quadrature else sum(terms)


def scattered(rng, law, coefficients, seeds=16, freedom=8):
    """Replicas [s c] whose root mean square is the law, as norms of normal vectors."""
    noise = np.sqrt(rng.chisquare(freedom, size=(seeds, WIDTH.size)) / freedom)
    return values(law, coefficients) * noise


@pytest.mark.parametrize("law", [*rates.LAWS.values(), FREE, FULL], ids=str)
def test_exact_law(law):
    """Closed form: errors that obey the law give back its coefficients, without interval."""
    coefficients = np.array([3.0, 2.0])[: len(law.terms)]
    errors = np.tile(values(law, coefficients), (8, 1))
    fit = rates.law_fit(key(), errors, WIDTH, DEPTH, law)
    for found in fit[:3]:
        np.testing.assert_allclose(found, coefficients, rtol=1e-9)
    np.testing.assert_allclose(fit.predicted, errors[0], rtol=1e-9)
    assert fit.misfit < 1e-9


@pytest.mark.parametrize("law", [PATH, PRODUCT, FREE, FULL], ids=str)
@pytest.mark.parametrize("truth", [(3.0, 2.0), (3.0, 0.0), (0.0, 2.0)])
def test_noisy_law_against_scipy(law, truth):
    """Independent library: scipy's bounded least squares between the logarithms."""
    errors = scattered(np.random.default_rng(0), law, truth)
    target = np.log(np.sqrt(np.mean(errors**2, axis=0)))
    expected = optimize.least_squares(
        lambda a: np.log(values(law, a)) - target, [1.0, 1.0], bounds=(0, np.inf), gtol=1e-13
    )
    fit = rates.law_fit(key(), errors, WIDTH, DEPTH, law)
    np.testing.assert_allclose(fit.coefficients, expected.x, atol=1e-5)
    # scipy walks to a bound and never arrives, so that its objective is the larger one.
    misfit = np.sqrt(2 * expected.cost / WIDTH.size)
    assert misfit * (1 - 1e-7) < fit.misfit < misfit * (1 + 1e-12)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_log_fit_starts_from_nonnegative_least_squares(number):
    """Independent library: scipy's nnls, active constraints included."""
    rng = np.random.default_rng(number)
    columns = rng.uniform(size=(50, 7, number))
    target = (columns @ rng.normal(size=(50, number, 1)))[..., 0] + 0.3 * rng.normal(size=(50, 7))
    found = log_fit._nonnegative_least_squares(columns, target)
    expected = [optimize.nnls(a, y)[0] for a, y in zip(columns, target, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert 0.1 < np.mean(found == 0.0) < 0.9


def averages(rng, *, nested, shared_depth):
    """Errors of averages of 8 M heads against one of M_ref = 256, and 1/L against 1/64."""
    heads = rng.normal(size=(400, 8, 256))
    reference = heads.mean(axis=2) if nested else rng.normal(size=(400, 8)) / 16
    columns = []
    for width, depth in zip(WIDTH.astype(int), DEPTH, strict=True):
        bias = 0.0 if shared_depth else 0.5 * (1 / depth - 1 / 64)
        gap = heads[:, :, :width].mean(axis=2) - reference + bias
        columns.append(np.sqrt(np.mean(gap**2, axis=1)))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("nested", [False, True])
def test_floor_of_a_finite_reference(nested):
    """Closed form: heads of variance 1, bias 1/(2L): a = 1, b = 1/2, and a lost floor shows."""
    errors = averages(np.random.default_rng(0), nested=nested, shared_depth=False)
    options = {"reference": (256, 64), "nested": nested, "resamples": 399}
    fit = rates.law_fit(key(), errors, WIDTH, DEPTH, FULL, **options)
    spread = (fit.high - fit.low) / 4
    assert (np.abs(fit.coefficients - [1.0, 0.5]) < 4 * spread).all()
    assert (spread < [0.01, 0.02]).all()
    assert fit.misfit < 0.02
    for wrong in ({"reference": (np.inf, 64)}, {"nested": not nested}):
        lost = rates.law_fit(key(), errors, WIDTH, DEPTH, FULL, **{**options, **wrong})
        assert lost.misfit > 2 * fit.misfit


def test_reference_of_the_same_depth():
    """Closed form: against a network of its own depth the bias cancels and the law has one term."""
    errors = averages(np.random.default_rng(0), nested=True, shared_depth=True)
    law = rates.LAWS["a/sqrt(M)"]
    fit = rates.law_fit(key(), errors, WIDTH, DEPTH, law, reference=(256, DEPTH), nested=True)
    assert fit.low[0] < 1.0 < fit.high[0]
    assert fit.high[0] - fit.low[0] < 0.05


@pytest.mark.parametrize("seeds", [8, 32])
def test_coverage(seeds):
    """Theorem: bootstrap intervals hold the coefficients asymptotically at their level.

    They are a little short for few replicas: down to 5 % are given away, and 4 standard errors.
    """
    rng, trials, inside = np.random.default_rng(0), 100, np.zeros(2)
    for _ in range(trials):
        errors = scattered(rng, PATH, (1.0, 2.0), seeds)
        fit = rates.law_fit(rng, errors, WIDTH, DEPTH, PATH, resamples=199)
        inside += (fit.low <= [1.0, 2.0]) & (fit.high >= [1.0, 2.0])
    error = np.sqrt(0.95 * 0.05 / (2 * trials))
    assert error < 0.02
    assert -0.05 - 4 * error < inside.mean() / trials - 0.95 < 4 * error


def test_units_and_order():
    """Invariance: errors in other units, replicas and configurations in another order."""
    errors = scattered(np.random.default_rng(0), PATH, (1.0, 2.0))
    fit = rates.law_fit(key(), errors, WIDTH, DEPTH, PATH)
    scaled = rates.law_fit(key(), 1e-6 * errors[:, ::-1], WIDTH[::-1], DEPTH[::-1], PATH)
    np.testing.assert_allclose(np.array(scaled[:3]), 1e-6 * np.array(fit[:3]), rtol=1e-7)
    shuffled = rates.law_fit(key(), errors[::-1], WIDTH, DEPTH, PATH)
    np.testing.assert_allclose(shuffled.coefficients, fit.coefficients, rtol=1e-9)
    again = rates.law_fit(key(), errors, WIDTH, DEPTH, PATH)
    np.testing.assert_array_equal(again.low, fit.low)


# The shape annotations of the suite must not answer before the function does.
fit_of = inspect.unwrap(rates.law_fit)
ROWS = np.ones((8, 4))
ROW_NAN, ROW_ZERO = ROWS.copy(), ROWS.copy()
ROW_NAN[3, 2], ROW_ZERO[3, 2] = np.nan, 0.0
M, L = [4, 8, 16, 32], [2, 4, 2, 4]


@pytest.mark.parametrize(
    ("errors", "widths", "depths", "options", "message"),
    [
        (ROWS, [4, 8, 4, 8], L, {}, ">= 3 different widths, got 2; add widths"),
        (ROWS, [4, 8, -16, 32], L, {}, "widths must be positive and finite, got -16.0"),
        (ROWS, M, [2, 4, 0, 4], {}, "depths must be positive and finite, got 0.0"),
        (ROWS, M, [2, 4], {}, r"depths must be one per column, 4 in all, got shape \[2\]"),
        (ROWS[:, :3], M, L, {}, "one column per configuration, got 3 columns for 4 widths"),
        (ROWS[:4], M, L, {}, "needs >= 8 replicas, got 4; run more seeds"),
        (ROW_NAN, M, L, {}, "finite, got nan at replica 3, configuration index 2; drop"),
        (ROW_ZERO, M, L, {}, "positive, got 0.0 at replica 3, configuration index 2; leave out"),
        (ROWS[..., None], M, L, {}, r"errors must be \[s c\], got shape \[8, 4, 1\]"),
        (ROWS, M, L, {"reference": (16, 8)}, "narrower than .* width 16.0 against 32.0; use a"),
        (ROWS, M, L, {"reference": (64, 3)}, "shallower than .* depth 3.0 against 4.0; use a"),
        (ROWS, M, L, {"reference": (64, L)}, "M.*L.*vanishes against its reference .* index 0"),
        (ROWS, M, L, {"reference": (32, 8), "nested": True}, "vanishes .* index 3; use a larger"),
        (ROWS, M, L, {"confidence": 95.0}, r"confidence must lie in \(0, 1\), got 95"),
        (ROWS, M, L, {"resamples": 10}, "resamples must be >= 99 .* got 10"),
    ],
)
def test_refusals(errors, widths, depths, options, message):
    """Closed form: one sentence with what was got and what to do instead."""
    with pytest.raises(ValueError, match=message):
        fit_of(key(), errors, widths, depths, PATH, **options)


def test_refused_laws():
    """Closed form: terms that no configuration tells apart, heads that cannot be nested."""
    twice = rates.Law((PATH.terms[0], PRODUCT.terms[0]))
    with pytest.raises(ValueError, match="do not tell the 2 terms of the law apart; add"):
        fit_of(key(), ROWS, M, [4, 4, 4, 4], twice)
    with pytest.raises(ValueError, match="nested only in a reference of their depth; give depths"):
        fit_of(key(), ROWS, M, L, PRODUCT, reference=(64, 8), nested=True)
