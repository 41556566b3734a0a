import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import measure, rates


def phi(theta):
    return jnp.stack([theta[0] ** 2, jnp.cos(theta @ jnp.arange(1.0, 4.0)), jnp.exp(theta[1])])


def rotating_run(times, depth=2, width=50):
    """Particles that turn and shrink: theta(tau) = e^(-tau/2) R(tau) theta_0, in 3 dimensions."""
    start = np.random.default_rng(0).normal(size=(depth, width, 3))
    cos, sin, zero = np.cos(times), np.sin(times), np.zeros_like(times)
    turn = np.array([[cos, -sin, zero], [sin, cos, zero], [zero, zero, zero + 1]])
    points = np.einsum("t,abt,lmb->tlma", np.exp(-times / 2), turn, start)
    generator = np.array([[-0.5, -1.0, 0.0], [1.0, -0.5, 0.0], [0.0, 0.0, -0.5]])
    return points, points @ generator.T


def test_means_against_a_loop():
    """Numpy loop: the change of mean phi, and the trapezoid of mean <grad phi, v>, by hand."""
    times = np.array([0.0, 0.1, 0.3, 0.4, 0.5])
    points, velocities = rotating_run(times, width=4)
    found = measure.weak_residual(phi, times, points, velocities)
    means, slopes = np.zeros((5, 2, 3)), np.zeros((5, 2, 3))
    k = np.arange(1.0, 4.0)
    for t in range(5):
        for depth in range(2):
            for x, v in zip(points[t, depth], velocities[t, depth], strict=True):
                means[t, depth] += np.array([x[0] ** 2, np.cos(x @ k), np.exp(x[1])]) / 4
                along = [2 * x[0] * v[0], -np.sin(x @ k) * (v @ k), np.exp(x[1]) * v[1]]
                slopes[t, depth] += np.array(along) / 4
    rate = np.diff(means, axis=0) / np.diff(times)[:, None, None]
    np.testing.assert_allclose(found.rate, rate, rtol=1e-12, atol=1e-12)
    spline = found.rate - found.residual
    trapezoid = (slopes[1:] + slopes[:-1]) / 2
    np.testing.assert_allclose(np.abs(spline - trapezoid), found.quadrature, atol=1e-12)


def test_order_of_an_exact_run():
    """Order of convergence: 4 in the time between saves, for velocities known in closed form."""
    counts = np.array([16, 32, 64, 128, 256])
    worst = []
    for count in counts:
        times = np.linspace(0.0, 1.0, count + 1)
        found = measure.weak_residual(phi, times, *rotating_run(times))
        worst.append(np.abs(found.residual).max())
        # The reported size of the quadrature covers it, and is not idle either.
        assert worst[-1] < found.quadrature.max() < 0.1
    assert rates.log_log_slope(counts, worst).slope < -3.5
    assert worst[-1] < 1e-6


@pytest.mark.parametrize("doctored", ["velocities", "points", "one depth"])
def test_doctored_runs(doctored):
    """Closed form: velocities 5 % too large leave 5 % of the rate; moved particles are seen."""
    times = np.linspace(0.0, 1.0, 65)
    points, velocities = rotating_run(times)
    honest = np.abs(measure.weak_residual(phi, times, points, velocities).residual).max()
    points, velocities = points.copy(), velocities.copy()
    if doctored == "velocities":
        velocities *= 1.05
    elif doctored == "points":
        points[32:, 0, :25] += 0.01
    else:
        velocities[:, 1] *= 1.05
    found = measure.weak_residual(phi, times, points, velocities)
    if doctored == "velocities":
        np.testing.assert_allclose(found.residual, -0.05 * found.rate, atol=2 * honest)
    if doctored == "one depth":
        assert np.abs(found.residual[:, 0]).max() <= honest + round_off()
    assert np.abs(found.residual).max() > 100 * honest


TIMES = np.linspace(0.0, 1.0, 6)
RUN = np.ones((6, 2, 5, 3))


@pytest.mark.parametrize(
    ("tests", "ts", "points", "velocities", "message"),
    [
        (phi, TIMES, RUN, RUN[:5], r"must be equal non-empty \[t l m p\]"),
        (phi, TIMES, RUN[:, :, :0], RUN[:, :, :0], "non-empty"),
        (phi, TIMES, RUN[0], RUN[0], r"\[t l m p\]"),
        (phi, TIMES[:3], RUN[:3], RUN[:3], "at least 4 increasing times"),
        (phi, TIMES[::-1], RUN, RUN, "increasing times"),
        (phi, TIMES[:5], RUN, RUN, "one per row of points"),
        (phi, TIMES, RUN * np.nan, RUN, "points must be finite"),
        (phi, TIMES, RUN, RUN * np.inf, "velocities must be finite"),
        (jnp.sum, TIMES, RUN, RUN, r"phi must give a vector \[c\]"),
    ],
)
def test_refusals(tests, ts, points, velocities, message):
    """Closed form: what is wrong with the run, and what to do instead."""
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(measure.weak_residual)(tests, ts, points, velocities)
