import functools

import jax
import numpy as np
import pytest
from scipy import stats

from meanfield import measure

KEY = jax.random.key(0)


def signed_squares(found):
    return float(np.sign(found.corrected) * found.corrected**2)


def replicas(repeats, m, n, dim, *, shift=0.0, distance=measure.wasserstein, spread=1.0):
    rng = np.random.default_rng(0)
    for key in jax.random.split(KEY, repeats):
        x, y = rng.normal(size=(m, dim)), rng.normal(size=(n, dim)) * spread
        y[:, 0] += shift
        yield measure.sampling_bias(key, x, y, distance, splits=4)


@pytest.mark.parametrize(("m", "n", "dim"), [(40, 40, 2), (24, 36, 8), (20, 20, 30)])
def test_one_law(m, n, dim):
    """Closed form: 0 between samples of one law, less 5 % of what the distance itself says."""
    found = list(replicas(60, m, n, dim))
    squares = [signed_squares(one) for one in found]
    plain = np.mean([float(one.distance) ** 2 for one in found])
    assert stats.sem(squares) < 0.05 * plain
    assert abs(np.mean(squares)) < 4 * stats.sem(squares)


@pytest.mark.parametrize(("shift", "dim"), [(1.0, 2), (2.0, 10)])
def test_shifted_gaussians(shift, dim):
    """Closed form: W_2^2 = |c|^2, where the distance itself is far above it in 10 dimensions."""
    found = list(replicas(60, 40, 40, dim, shift=shift))
    squares = [signed_squares(one) for one in found]
    assert stats.sem(squares) < 0.1 * shift**2
    assert abs(np.mean(squares) - shift**2) < 4 * stats.sem(squares)
    if dim == 10:
        assert np.mean([float(one.distance) ** 2 for one in found]) > 2 * shift**2


def test_gaussians_of_different_spread():
    """Closed form: (s - t)^2 on the line; of the bias no more than an indication is asked."""
    found = list(replicas(100, 200, 200, 1, distance=line, spread=2.0))
    squares = [signed_squares(one) for one in found]
    bias = np.mean([float(one.bias) ** 2 for one in found])
    assert stats.sem(squares) < 0.05
    assert abs(np.mean(squares) - 1.0) < 4 * stats.sem(squares) + bias


def line(x, y):
    return measure.wasserstein_1d(x[:, 0], y[:, 0])


@pytest.mark.parametrize(
    "distance", [functools.partial(measure.sliced_wasserstein, KEY), measure.energy_distance]
)
def test_other_distances(distance):
    """Closed form: 0 between samples of one law, for any distance whose square adds a shift."""
    found = list(replicas(60, 30, 30, 3, distance=distance))
    squares = [signed_squares(one) for one in found]
    assert stats.sem(squares) < 0.1 * np.mean([float(one.distance) ** 2 for one in found])
    assert abs(np.mean(squares)) < 4 * stats.sem(squares)


def test_what_is_reported():
    """Numpy loop: every number from the distances of the splits, and the spread of repeats."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 2)), rng.normal(size=(30, 2)) + 1.0
    found = measure.sampling_bias(KEY, x, y, splits=64)
    assert found.splits.shape == (64,)
    assert float(found.distance) == pytest.approx(measure.wasserstein(x, y))
    assert float(found.bias) == pytest.approx(np.sqrt(np.mean(found.splits**2)))
    assert float(found.corrected**2) == pytest.approx(float(found.distance**2 - found.bias**2))
    again = [
        float(measure.sampling_bias(key, x, y, splits=64).bias) for key in jax.random.split(KEY, 20)
    ]
    assert np.std(again, ddof=1) == pytest.approx(float(found.bias_error), rel=0.5)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.ones((0, 2)), {}, "x must be a non-empty cloud"),
        (np.ones((4, 3)), {}, "equal dimension, got 3 and 2"),
        (np.ones((4, 2)), {"splits": 1}, "splits must be an integer >= 2"),
        (np.ones((1, 2)), {}, "use larger clouds"),
    ],
)
def test_refusals(x, options, message):
    """Closed form: one sentence that says what to do."""
    y = np.ones((1, 2))
    with pytest.raises(ValueError, match=message):
        measure.sampling_bias.__wrapped__(KEY, x, y, measure.wasserstein, **options)
