"""The stabilised step: stability polynomial, coefficients, round-off."""

from fractions import Fraction

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import chebyshev

from meanfield.ode.attempt import Point, attempt
from meanfield.ode.chebyshev import chebyshev_values, stability_interval, stage_count
from meanfield.ode.radius import Search, unproven

MAX_STAGES = 1000
SHOWN = [2, 3, 4, 5, 8, 13, 40, 100, 250, 500, 1000]


def step_of(rate, start, h, stages):
    """A step with a given number of stages, without a search for the radius."""
    radius = unproven(jnp.zeros_like(h), None)
    return attempt(
        rate,
        start,
        h,
        radius,
        search=Search(0.0, 0, 0.0),
        stages=lambda value: stages,
        most=MAX_STAGES,
    ).step


@jax.jit
def amplification(stages, z):
    """y1/y0 of one step of length 1 on y' = z y."""
    y = jnp.ones_like(z)
    start = Point(jnp.zeros((), z.dtype), y, z * y)
    one = jnp.ones((), z.dtype)
    return y + step_of(lambda t, y: z * y, start, one, stages).increment


def exact_values(degree, excess):
    """T_j, T_j' and T_j'' at 1 + x by the three-term recursion, in rational arithmetic."""
    point, old, new = 1 + excess, (1, 0, 0), (1 + excess, 1, 0)
    for _ in range(degree):
        values = 2 * point * new[0] - old[0]
        firsts = 2 * new[0] + 2 * point * new[1] - old[1]
        seconds = 4 * new[1] + 2 * point * new[2] - old[2]
        old, new = new, (values, firsts, seconds)
    return old


def stability_polynomial(stages, z):
    """P_s(z), its coefficients exact and its values by numpy in long double."""
    excess = Fraction(2, 13 * stages**2)
    value, first, second = exact_values(stages, excess)
    long = [
        np.longdouble(x.numerator) / np.longdouble(x.denominator)
        for x in (
            Fraction(value).limit_denominator(10**30),
            Fraction(first, second).limit_denominator(10**30),
            Fraction(second, first**2).limit_denominator(10**30),
            excess,
        )
    ]
    series = np.zeros(stages + 1, np.longdouble)
    series[-1] = 1
    argument = 1 + long[3] + long[1] * np.asarray(z, np.longdouble)
    return 1 + long[2] * (chebyshev.chebval(argument, series) - long[0])


@pytest.mark.parametrize("degree", [1, 2, 3, 7, 30, 200])
@pytest.mark.parametrize("stages", [200, 500])
def test_values_and_derivatives(degree, stages):
    """Closed form: the three-term recursion in rational arithmetic."""
    excess = Fraction(2, 13 * stages**2)
    expected = [float(x) for x in exact_values(degree, excess)]
    found = chebyshev_values(jnp.asarray(float(degree)), jnp.asarray(float(excess)))
    np.testing.assert_allclose(found, expected, rtol=helpers.round_off())


@pytest.mark.parametrize("stages", [s for s in SHOWN if s <= 100])
def test_step_is_the_stability_polynomial(stages):
    """Closed form: a linear step multiplies by P_s(z)."""
    z = -np.linspace(0, 1, 401) * stability_interval(stages)
    found = amplification(stages, jnp.asarray(z))
    # An error of eps |z| in z moves P by as much at the far end: conditioning, not the recursion.
    bound = helpers.round_off(eps=2) * (stability_interval(stages) + 100)
    np.testing.assert_allclose(found, stability_polynomial(stages, z), rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_stable_for_every_stage_count(dtype):
    """Theorem: |P_s| <= 1 on the claimed interval, for every s up to the maximum."""

    def worst(stages):
        z = -jnp.linspace(0, 1, 1001, dtype=dtype) * stability_interval(stages).astype(dtype)
        return jnp.max(jnp.abs(amplification(stages, z)))

    found = jax.lax.map(worst, jnp.arange(2, MAX_STAGES + 1))
    assert float(jnp.max(found)) <= 1 + helpers.round_off(dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_damped_away_from_zero(dtype):
    """Theorem: two thirds of the value remain at most one plus the damping, off a left margin."""
    for stages in SHOWN[2:]:
        z = -jnp.linspace(0.2, 0.95, 501, dtype=dtype) * dtype(stability_interval(stages))
        assert float(jnp.max(jnp.abs(amplification(stages, z)))) < 0.97


def test_float32_round_off_does_not_grow_with_the_square_of_stages():
    """Closed form: float32 increments stay near the polynomial at 500 stages."""
    stages = 500
    # On the slow modes, where solutions live; the published recursion errs by 6e-3 here.
    z = -np.logspace(-3, 1, 50).astype(np.float32)
    found = amplification(stages, jnp.asarray(z))
    np.testing.assert_allclose(
        found, stability_polynomial(stages, z), atol=helpers.round_off(np.float32, eps=20)
    )


def test_stage_count_covers_and_does_not_waste():
    """Closed form: the interval of s covers the radius, that of s - 1 does not."""
    scaled = jnp.logspace(-3, 5, 400)
    stages = stage_count(scaled)
    assert bool(jnp.all(stability_interval(stages) >= scaled))
    spare = stages > 2
    wasted = jnp.where(spare, stability_interval(stages - 1) / scaled, 0)
    assert float(jnp.max(wasted)) < 1.002 + 1e-9


def test_no_stage_evaluates_nothing():
    """Closed form: zero stages give a zero increment."""

    def forbidden(t, y):
        return jnp.full_like(y, jnp.nan)

    start = Point(jnp.zeros(()), jnp.ones(2), jnp.ones(2))
    step = step_of(forbidden, start, jnp.ones(()), 0)
    assert bool(jnp.all(step.increment == 0))


def test_error_estimate_is_of_third_order():
    """Order of convergence: halving the step divides the estimate by eight."""

    def rate(t, y):
        return -y * y + jnp.cos(t)

    start = Point(jnp.zeros(()), jnp.ones(()), rate(0.0, jnp.ones(())))
    lengths = 0.1 / 2.0 ** np.arange(6)
    errors = [float(abs(step_of(rate, start, jnp.asarray(h), 6).error)) for h in lengths]
    slope = np.polyfit(np.log(lengths[1:]), np.log(errors[1:]), 1)[0]
    assert abs(slope - 3) < 0.1
