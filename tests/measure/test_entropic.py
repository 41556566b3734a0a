import functools

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest
from distance_family import assert_round_off, two_clouds, weights
from ott.tools.sinkhorn_divergence import sinkdiv

from meanfield import measure

sinkhorn = functools.partial(measure.sinkhorn_divergence, tolerance=1e-12)


@pytest.mark.parametrize(("epsilon", "weighted"), [(1.0, False), (5.0, True)])
def test_against_ott(epsilon, weighted):
    """Independent library: ott-jax's own divergence in the log domain, which is the square."""
    x, y = two_clouds(12, 9, 3)
    a, b = (weights(12), weights(9, 1)) if weighted else (None, None)
    with jax.numpy_rank_promotion("allow"):
        expected, _ = sinkdiv(
            jnp.asarray(x), jnp.asarray(y), epsilon=epsilon, a=a, b=b,
            solve_kwargs={"threshold": 1e-13, "max_iterations": 10_000},
        )  # fmt: skip
    found = sinkhorn(x, y, epsilon=epsilon, x_weights=a, y_weights=b)
    np.testing.assert_allclose(found**2, expected, rtol=1e-12)


def test_against_pot():
    """Independent library: plans of POT, their cost and relative entropy summed here."""
    x, y = two_clouds(12, 9, 3)

    def entropic(x, y):
        a, b = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
        cost = ot.dist(x, y)
        plan = ot.sinkhorn(a, b, cost, 3.0, stopThr=1e-12, numItermax=10_000, warn=False)
        return np.sum(plan * cost) + 3.0 * np.sum(plan * np.log(plan / np.outer(a, b)))

    expected = entropic(x, y) - (entropic(x, x) + entropic(y, y)) / 2
    np.testing.assert_allclose(sinkhorn(x, y, epsilon=3.0) ** 2, expected, rtol=1e-10)


def test_much_entropy():
    """Closed form: the distance of the means, as epsilon grows."""
    x, y = two_clouds(12, 9, 3)
    expected = np.linalg.norm(x.mean(axis=0) - y.mean(axis=0))
    np.testing.assert_allclose(sinkhorn(x, y, epsilon=1e8), expected, rtol=1e-7)


def test_little_entropy():
    """Closed form: W_2 of clouds whose best matching is unique, as epsilon falls."""
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    y = x + np.array([[0.1, 0.0], [0.0, -0.1], [0.2, 0.1]])
    np.testing.assert_allclose(sinkhorn(x, y, epsilon=0.02), measure.wasserstein(x, y), rtol=1e-10)


def test_gaussians():
    """Closed form: Janati et al. 2020, theorem 1, on a grid of the line for quadrature."""
    s, t, epsilon = 1.0, 0.6, 0.8
    grid = np.linspace(-7.0, 7.0, 300)
    laws = [np.exp(-(grid**2) / (2 * v**2)) for v in (s, t)]
    first, second = (law / law.sum() for law in laws)

    def overlap(v, w):
        # Their sigma^2 is epsilon / 2, for the cost |x - y|^2.
        d = np.sqrt(4 * v**2 * w**2 + (epsilon / 2) ** 2)
        return -d + (epsilon / 2) * np.log(d + epsilon / 2)

    expected = overlap(s, t) - (overlap(s, s) + overlap(t, t)) / 2
    found = sinkhorn(
        grid[:, None], grid[:, None], epsilon=epsilon, x_weights=first, y_weights=second
    )
    np.testing.assert_allclose(found**2, expected, rtol=1e-8)


def test_error_is_the_square_of_the_tolerance():
    """Order of convergence: potentials off by the tolerance move a maximum by its square."""
    x, y = two_clouds(30, 40, 2)
    exact = float(sinkhorn(x, y, epsilon=0.5))
    for tolerance in (1e-2, 1e-4):
        found = measure.sinkhorn_divergence(x, y, epsilon=0.5, tolerance=tolerance)
        assert abs(float(found) - exact) < 5 * tolerance**2


def test_gradient_of_epsilon():
    """Finite difference: central, in the strength of the entropy."""
    x, y = two_clouds(12, 9, 3)
    function = jax.jit(lambda epsilon: sinkhorn(x, y, epsilon=epsilon))
    difference = (function(0.5 + 1e-5) - function(0.5 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(function)(0.5), difference, rtol=1e-7)


@pytest.mark.parametrize("side", ["x_weights", "y_weights"])
def test_gradient_at_weight_zero(side):
    """Finite difference: one-sided, mass brought to points that have none, one of them far."""
    x, y = two_clouds(5, 5, 2)
    x[4] = y[4] = 40.0
    start, way = np.array([0.5, 0.5, 0, 0, 0]), np.array([-0.5, -0.5, 0.75, 0.25, 0])

    def along(t):
        given = {"x_weights": start, "y_weights": start, side: jnp.asarray(start) + t * way}
        return sinkhorn(x, y, epsilon=0.8, **given)

    along = jax.jit(along)
    zero, step = float(along(0.0)), 1e-4
    difference = (4 * float(along(step)) - float(along(2 * step)) - 3 * zero) / (2 * step)
    np.testing.assert_allclose(jax.grad(along)(0.0), difference, rtol=1e-5)


def test_points_far_from_the_origin():
    """Invariance: a common shift of 1e6 lengths costs 6 digits of the points, and no more."""
    x, y = two_clouds(12, 9, 3)
    np.testing.assert_allclose(sinkhorn(x + 1e6, y + 1e6), sinkhorn(x, y), rtol=1e-8)


def test_single_precision():
    """Closed form: a shift, in the type of the points."""
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    found = measure.sinkhorn_divergence(x, x + np.float32(4.0))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 32**0.5, rtol=1e-5)


def test_default_entropy():
    """Closed form: 0.05 of the sum of the traces of both covariances, weights included."""
    x, y = two_clouds(12, 9, 3)
    a = weights(12)
    spread = a @ np.sum((x - a @ x) ** 2, axis=1) + y.var(axis=0).sum()
    found = sinkhorn(x, y, x_weights=a)
    assert_round_off(found, sinkhorn(x, y, epsilon=0.05 * spread, x_weights=a))
