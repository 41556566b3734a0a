import jax
import numpy as np
import pytest
from distance_family import assert_round_off, two_clouds, weights
from scipy import stats

from meanfield import measure


def kernel_loop(name, bandwidth, x, y):
    gap = float(np.linalg.norm(x - y))
    return -gap if name == "energy" else np.exp(-(gap**2) / (2 * bandwidth**2))


@pytest.mark.parametrize("kernel", ["gaussian", "energy"])
@pytest.mark.parametrize("estimate", ["biased", "unbiased"])
@pytest.mark.parametrize("weighted", [False, True])
def test_against_a_loop(kernel, estimate, weighted):
    """Numpy loop: sums over pairs; the unbiased ones over pairs of different points."""
    x, y = two_clouds(7, 5, 3)
    a, b = (weights(7), weights(5, 1)) if weighted else (np.full(7, 1 / 7), np.full(5, 1 / 5))

    def mean(x, y, a, b, skip):
        total = mass = 0.0
        for i in range(len(x)):
            for j in range(len(y)):
                if not (skip and i == j):
                    mass += a[i] * b[j]
                    total += a[i] * b[j] * kernel_loop(kernel, 0.7, x[i], y[j])
        return total / mass

    skip = estimate == "unbiased"
    square = mean(x, x, a, a, skip) + mean(y, y, b, b, skip) - 2 * mean(x, y, a, b, False)
    options = {"kernel": kernel, "estimate": estimate}
    if kernel == "gaussian":
        options["bandwidth"] = 0.7
    if weighted:
        options |= {"x_weights": a, "y_weights": b}
    expected = np.sign(square) * np.sqrt(abs(square))
    assert_round_off(measure.mmd(x, y, **options), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_energy_against_scipy(weighted):
    """Independent library: scipy's energy distance on the line, by distribution functions."""
    x, y = two_clouds(40, 33, 1)
    a, b = (weights(40), weights(33, 1)) if weighted else (None, None)
    expected = stats.energy_distance(x[:, 0], y[:, 0], a, b)
    assert_round_off(measure.energy_distance(x, y, x_weights=a, y_weights=b), expected)


def test_unbiased_is_unbiased():
    """Closed form: MMD^2 of two Gaussians, h / sqrt(h^2 + 2 s^2) each; error below 5 %."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(800, 8, 1)), 1.0 + rng.normal(size=(800, 6, 1))
    # E k(x, y) = (h^2 / (h^2 + 2))^(1/2) exp(-c^2 / (2 (h^2 + 2))) at variance 1 and shift c.
    expected = 2 * np.sqrt(1 / 3) * (1 - np.exp(-1 / 6))

    def squares(estimate):
        roots = jax.vmap(lambda x, y: measure.mmd(x, y, bandwidth=1.0, estimate=estimate))(x, y)
        return np.sign(roots) * np.asarray(roots) ** 2

    unbiased, biased = squares("unbiased"), squares("biased")
    assert stats.sem(unbiased) < 0.05 * expected
    assert abs(unbiased.mean() - expected) < 4 * stats.sem(unbiased)
    # The biased one takes (1 - E k(x, x')) / m too much from each cloud.
    excess = (1 - np.sqrt(1 / 3)) * (1 / 8 + 1 / 6)
    assert abs(biased.mean() - expected - excess) < 4 * stats.sem(biased)


def test_default_bandwidth():
    """Closed form: the trace of the covariance of the equal mixture of both clouds."""
    x, y = two_clouds(9, 9, 3)
    bandwidth = np.sqrt(np.concatenate([x, y]).var(axis=0).sum())
    assert_round_off(measure.mmd(x, y), measure.mmd(x, y, bandwidth=bandwidth))


def test_many_rows():
    """Invariance: rows of the kernel are taken in groups, the last one smaller."""
    x, y = two_clouds(130, 65, 2)
    a = np.zeros(130)
    a[[0, 64, 129]] = 1 / 3
    expected = measure.energy_distance(x[[0, 64, 129]], y)
    assert_round_off(measure.energy_distance(x, y, x_weights=a), expected)


def test_single_precision():
    """Closed form: two far points, in the type of the points."""
    x = np.zeros((3, 2), np.float32)
    found = measure.mmd(x, x + np.float32(100.0), bandwidth=1.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 2**0.5, rtol=1e-6)
