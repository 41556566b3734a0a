import itertools
import math

import jax
import numpy as np
import ot
import pytest
from distance_family import (
    FAMILY,
    KEY,
    SIZES,
    assert_round_off,
    draws,
    every_case,
    two_clouds,
    weights,
)
from scipy import stats
from scipy.optimize import linprog

from meanfield import measure


@pytest.mark.parametrize("dim", [2, 5, 20])
def test_translation_sliced(dim):
    """Closed form: E SW_2(x, x + c)^2 = |c|^2 / dim, with a sampling error below 3 %."""
    x, _ = two_clouds(4, 4, dim)
    shift = np.linspace(1.0, 2.0, dim)[None]
    squares = draws(x, x + shift, repeats=100, projections=100) ** 2
    error = stats.sem(squares)
    assert error < 0.03 * squares.mean()
    assert abs(squares.mean() - np.sum(shift**2) / dim) < 4 * error


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize(("m", "n"), [(5, 5), (2, 3), (2, 6)])
def test_brute_force_over_permutations(m, n, p):
    """Numpy loop: the best of all matchings of the points, repeated to a common number."""
    x, y = two_clouds(m, n, 2)
    many_x, many_y = (np.repeat(z, math.lcm(m, n) // len(z), axis=0) for z in (x, y))
    cost = np.linalg.norm(many_x[:, None] - many_y[None], axis=-1) ** p
    rows = np.arange(len(cost))
    best = min(cost[rows, list(order)].mean() for order in itertools.permutations(rows))
    assert_round_off(measure.wasserstein(x, y, p=p), best ** (1 / p))


@pytest.mark.parametrize("p", [1, 1.5, 2, 5])
@pytest.mark.parametrize(("m", "n"), [*SIZES, (40, 33), (96, 40)])
def test_exact_against_pot(m, n, p):
    """Independent library: the network simplex of POT."""
    x, y = two_clouds(m, n, 6)
    cost = np.linalg.norm(x[:, None] - y[None], axis=-1) ** p
    expected = ot.emd2(np.full(m, 1 / m), np.full(n, 1 / n), cost) ** (1 / p)
    assert_round_off(measure.wasserstein(x, y, p=p), expected)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 9), (8, 8), (12, 30), (101, 64)])
def test_line_against_scipy(m, n):
    """Independent library: scipy's W_1 on the line."""
    x, y = two_clouds(m, n, 1)
    expected = stats.wasserstein_distance(x[:, 0], y[:, 0])
    assert_round_off(measure.wasserstein_1d(x[:, 0], y[:, 0], p=1), expected)


@every_case
def test_line_against_exact(m, n, p):
    """Independent library: the assignment and the program, which know nothing of quantiles."""
    x, y = two_clouds(m, n, 1)
    assert_round_off(measure.wasserstein_1d(x[:, 0], y[:, 0], p=p), measure.wasserstein(x, y, p=p))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_sliced_against_pot(p):
    """Independent library: POT on a fine grid of directions of the plane, its root convention."""
    x, y = two_clouds(9, 14, 2)
    angles = np.arange(2000) * np.pi / 2000
    grid = np.stack([np.cos(angles), np.sin(angles)])
    expected = ot.sliced_wasserstein_distance(x, y, projections=grid, p=p) ** p
    powers = draws(x, y, repeats=100, projections=100, p=p) ** p
    assert stats.sem(powers) < 0.02 * expected
    assert abs(powers.mean() - expected) < 4 * stats.sem(powers)


def test_sliced_against_a_loop():
    """Numpy loop: the root of the mean power over the key's directions, not a mean of roots."""
    x, y = two_clouds(6, 9, 3)
    normals = np.asarray(jax.random.normal(KEY, (3, 16)))
    powers = [
        float(measure.wasserstein_1d(x @ u, y @ u, p=3)) ** 3
        for u in (normals / np.linalg.norm(normals, axis=0)).T
    ]
    assert_round_off(FAMILY["sliced"][0](x, y, p=3), np.mean(powers) ** (1 / 3))


def test_gaussians_on_the_line():
    """Closed form: W_2(N(a, s^2), N(b, t^2))^2 = (a - b)^2 + (s - t)^2, error below 1 %."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.0, 1.0, (40, 3000)), rng.normal(1.0, 2.0, (40, 3000))
    squares = np.asarray(jax.vmap(measure.wasserstein_1d)(x, y)) ** 2
    assert stats.sem(squares) < 0.02
    assert abs(squares.mean() - 2.0) < 4 * stats.sem(squares)


def test_error_of_slicing():
    """Order of convergence: the spread of SW_2^2 over keys falls like projections^(-1/2)."""
    x, y = two_clouds(5, 5, 4)
    counts = [8, 16, 32, 64, 128]
    spreads = [np.std(draws(x, y, repeats=400, projections=k) ** 2) for k in counts]
    slope = np.polyfit(np.log(counts), np.log(spreads), 1)[0]
    assert abs(slope + 0.5) < 0.1


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(("m", "n"), [(5, 5), (6, 9), (40, 33)])
def test_exact_of_weights_against_a_program(m, n, p):
    """Independent library: scipy's linear program, which POT's simplex knows nothing of."""
    x, y = two_clouds(m, n, 3)
    first, second = weights(m), weights(n, 1)
    cost = np.linalg.norm(x[:, None] - y[None], axis=-1) ** p
    sums = np.concatenate([np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))])
    found = linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([first, second]))
    value = measure.wasserstein(x, y, p=p, x_weights=first, y_weights=second)
    np.testing.assert_allclose(value, found.fun ** (1 / p), rtol=1e-10)


@pytest.mark.parametrize(("m", "n"), [(1, 9), (8, 8), (101, 64)])
def test_line_of_weights_against_scipy(m, n):
    """Independent library: scipy's weighted W_1 on the line."""
    x, y = two_clouds(m, n, 1)
    first, second = weights(m), weights(n, 1)
    expected = stats.wasserstein_distance(x[:, 0], y[:, 0], first, second)
    options = {"p": 1, "x_weights": first, "y_weights": second}
    assert_round_off(measure.wasserstein_1d(x[:, 0], y[:, 0], **options), expected)


@pytest.mark.parametrize(("m", "n", "p"), [(7, 7, 5), (11, 7, 1.5)])
def test_line_of_weights_against_exact(m, n, p):
    """Independent library: POT, which knows nothing of quantiles; slices on the line are one."""
    x, y = two_clouds(m, n, 1)
    options = {"p": p, "x_weights": weights(m), "y_weights": weights(n, 1)}
    expected = measure.wasserstein(x, y, **options)
    assert_round_off(measure.wasserstein_1d(x[:, 0], y[:, 0], **options), expected)
    assert_round_off(measure.sliced_wasserstein(KEY, x, y, **options), expected)


def test_distances_known_beforehand():
    """Invariance: from the matrix of distances as from the points."""
    x, y = two_clouds(6, 9, 3)
    distances = np.linalg.norm(x[:, None] - y[None], axis=-1)
    options = {"p": 3, "x_weights": weights(6)}
    expected = measure.wasserstein(x, y, **options)
    assert_round_off(measure.wasserstein_of(distances, **options), expected)
