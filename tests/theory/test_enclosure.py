import functools

import jax.numpy as jnp
import numpy as np
import pytest

from meanfield import theory
from meanfield.theory.enclosure import enclosed_infimum

STATES = theory.States(jnp.zeros(1), jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))


def waves(tokens, theta, mask):
    """Many local minima; the least is where every coordinate is at its own."""
    return jnp.sum(jnp.cos(3 * theta) + 0.3 * theta) * tokens


def enclose(encoder, dimension, **options):
    marks = options.pop("marks", (False,))
    settings = {"weight_decay": 0.0, "radius": 1.0, "reach": 2.0, "lipschitz": None} | options
    settings = {"tolerance": 1e-2, "budget": 500_000} | settings
    one = options.pop("one", jnp.zeros(dimension))
    settings.pop("one", None)
    return enclosed_infimum(encoder, one, STATES, np.zeros((1, dimension)), marks=marks, **settings)


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_infimum_of_waves(dimension, weight_decay):
    """Numpy loop: the least value on a fine grid of each coordinate, inside the ball."""
    line = np.linspace(-2, 2, 400_001)
    values = np.cos(3 * line) + 0.3 * line + weight_decay / 2 * line**2
    exact = dimension * np.min(values)
    # 3.3 is the largest slope of each coordinate.
    lipschitz = 3.3 * np.sqrt(dimension)
    found = enclose(waves, dimension, weight_decay=weight_decay, lipschitz=lipschitz)
    assert found.lower <= exact <= found.upper + 1e-9
    assert found.upper - found.lower <= 1e-2 + 1e-12


def test_boundary_of_the_ball():
    """Closed form: a linear function has its infimum -reach on the sphere, approached inside."""
    found = enclose(
        lambda tokens, theta, mask: jnp.sum(theta) * tokens / jnp.sqrt(2.0), 2, lipschitz=1.0
    )
    assert found.lower <= -2.0 <= found.upper
    assert found.upper < -1.95


def test_dent_in_the_corner_of_a_cell():
    """Closed form: a dent of depth 0.05 that all coarse centres miss; slack is half a diagonal."""
    place = jnp.array([0.5, 0.25, 0.125])

    def dented(tokens, theta, mask):
        return jnp.minimum(jnp.linalg.norm(theta - place), 0.05) * tokens

    found = enclose(dented, 3, lipschitz=1.0, reach=1.0, tolerance=0.04)
    assert found.lower <= 0.0 <= found.upper


def test_dent_nearer_to_the_origin_than_its_cell():
    """Closed form: the decay of a cell is that of its nearest point, not of its centre.

    The first variation is 0.4 - 1/3 - 0.8 x + x^2 between 1/12 and 1/2, least at x = 0.4.
    """

    def dented(tokens, theta, mask):
        return -jnp.maximum(0, 1 / 3 - 0.8 * jnp.abs(theta[0] - 0.5)) * tokens

    found = enclose(dented, 1, weight_decay=2.0, lipschitz=0.8, reach=4.0, tolerance=1e-3)
    exact = 0.24 - 1 / 3
    assert found.lower <= exact <= found.upper + 1e-12
    assert found.upper < exact + 1e-2


def test_budget():
    """Theorem: a search cut short still returns bounds, only further apart."""
    exact = enclose(waves, 2, lipschitz=5.0)
    short = enclose(waves, 2, lipschitz=5.0, budget=200)
    assert short.evaluations <= 200 < exact.evaluations
    assert short.lower < exact.lower
    assert short.upper >= exact.upper - 1e-2


def test_estimated_constant():
    """Theorem: twice the steepest sampled slope is above the true constant, not by more than 2."""
    found = enclose(waves, 1)
    assert 3.3 < found.lipschitz <= 6.6


@pytest.mark.parametrize("weight_decay", [0.0, 0.7])
def test_homogeneous_part(weight_decay):
    """Closed form: inf over |a| <= r of a sin(b) + decay, in the pair (a, b)."""
    wave = functools.partial(enclose, lambda T, theta, mask: theta[0] * jnp.sin(theta[1]) * T, 1)
    found = wave(
        one=(jnp.zeros(()), jnp.zeros(())),
        marks=(True, False),
        weight_decay=weight_decay,
        radius=1.5,
        lipschitz=1.0,
        tolerance=1e-3,
    )
    b = np.linspace(-2, 2, 100_001)
    size = np.abs(np.sin(b))
    a = np.minimum(1.5, size / weight_decay) if weight_decay else 1.5
    exact = np.min(-a * size + weight_decay / 2 * (a**2 + b**2))
    assert found.lower <= exact + 1e-9
    assert exact <= found.upper + 1e-9
    assert found.upper - found.lower <= 1e-3 + 1e-12


def test_what_is_not_finite_bounds_nothing():
    """Closed form: a map that is NaN on a part of the domain has no proven infimum."""

    def broken(tokens, theta, mask):
        return jnp.where(jnp.abs(theta[0] - 2.5) < 1, jnp.nan, waves(tokens, theta, mask))

    assert enclose(broken, 1, lipschitz=5.0, budget=2000).lower == -np.inf
