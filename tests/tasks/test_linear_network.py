import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from scipy import integrate

from meanfield import flow, measure, rates, tasks
from meanfield.measure import Trajectory

COVARIANCE = np.array([[1.0, 0.3], [0.3, 0.5]])
TARGET = np.array([1.0, -0.5])
PROBES = np.array([[1.0, 0.0], [0.5, -1.0]])
TIMES = np.array([0.0, 0.5, 1.0, 2.0])
MEAN, DECAY = np.array([0.5, 0.3, -0.2]), 0.05
START = tasks.LinearMoments(
    jnp.array(MEAN[0] ** 2 + 1),
    jnp.asarray(MEAN[0] * MEAN[1:]),
    jnp.asarray(np.outer(MEAN[1:], MEAN[1:]) + np.eye(2)),
)
WIDTHS = (8, 16, 32, 64)


def apply(heads, x):
    """The network: the mean of a <b, x> over particles (a, b)."""
    return jnp.mean(heads[..., 0] * (heads[..., 1:] @ x))


def risk(heads):
    """Its risk over inputs of covariance S."""
    gap = jnp.mean(heads[..., :1] * heads[..., 1:], axis=(0, 1)) - TARGET
    return gap @ COVARIANCE @ gap / 2


def velocity(heads):
    """The field of the flow, from the library."""
    scale = heads.shape[0] * heads.shape[1]
    energy = flow.energy(risk, lambda theta: 1 / scale, weight_decay=DECAY)
    return flow.gradient_field(energy, lambda theta: float(scale))(0.0, heads)


def run(heads):
    """The flow of particles by Runge-Kutta steps of 1/40, saved at the times."""

    def step(heads, _):
        a = velocity(heads)
        b = velocity(heads + a / 80)
        c = velocity(heads + b / 80)
        return heads + (a + 2 * b + 2 * c + velocity(heads + c / 40)) / 240, seen(heads)

    def seen(heads):
        return Trajectory(jax.vmap(apply, (None, 0))(heads, PROBES), risk(heads))

    _, rows = jax.lax.scan(step, heads, length=81)
    return jax.tree.map(lambda leaf: leaf[(40 * TIMES).astype(int)], rows)


def draw(key, width, depth):
    """Gaussian particles (a, b) of unit covariance that are not centred."""
    return jnp.asarray(MEAN)[None, None] + jax.random.normal(key, (depth, width, 3))


def exact():
    """Predictions at the probes and risk of the limit."""
    limit = tasks.linear_moments_flow(START, COVARIANCE, TARGET, TIMES, weight_decay=DECAY)
    return limit.product @ PROBES.T, tasks.linear_risk(limit.product, COVARIANCE, TARGET)


def test_moments_against_scipy():
    """Independent library: LSODA at relative tolerance 1e-12, on the equation by numpy."""

    def rate(_, flat):
        outer, product, inner = flat[0], flat[1:3], flat[3:].reshape(2, 2)
        pull = COVARIANCE @ (product - TARGET)
        return np.concatenate(
            [
                [-2 * pull @ product - 2 * DECAY * outer],
                -(outer * np.eye(2) + inner) @ pull - 2 * DECAY * product,
                (-np.outer(pull, product) - np.outer(product, pull) - 2 * DECAY * inner).ravel(),
            ]
        )

    flat = np.concatenate([np.ravel(leaf) for leaf in START])
    found = integrate.solve_ivp(
        rate, (0, 2), flat, t_eval=TIMES, method="LSODA", rtol=1e-12, atol=1e-13
    )
    ours = tasks.linear_moments_flow(START, COVARIANCE, TARGET, TIMES, weight_decay=DECAY)
    joined = np.concatenate([np.reshape(leaf, (4, -1)) for leaf in ours], axis=1)
    np.testing.assert_allclose(joined, found.y.T, rtol=0, atol=1e-9)


def test_one_dimension_has_a_closed_form():
    """Closed form: without decay A - B and (A + B)^2 - 4 v^2 stay, v' = (1 - v)(A + B)."""
    start = tasks.LinearMoments(jnp.array(1.5), jnp.array([0.2]), jnp.array([[0.7]]))
    ours = tasks.linear_moments_flow(start, np.eye(1), np.ones(1), np.array([0.0, 0.3, 0.9]))
    # So time is an integral over v.
    constant = (1.5 + 0.7) ** 2 - 4 * 0.2**2
    for time, product in zip([0.3, 0.9], np.asarray(ours.product)[1:, 0], strict=True):
        taken, _ = integrate.quad(
            lambda v: 1 / ((1 - v) * np.sqrt(4 * v**2 + constant)), 0.2, product, epsabs=1e-12
        )
        np.testing.assert_allclose(taken, time, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.outer - ours.inner[:, 0, 0], 0.8, rtol=0, atol=round_off())


def test_a_finite_network_follows_its_own_moments():
    """Theorem: the moments of the particles of width 5 obey the same equation."""
    heads = draw(jax.random.key(4), 5, 1)
    a, b = heads[0, :, 0], heads[0, :, 1:]
    start = tasks.LinearMoments(jnp.mean(a**2), a @ b / 5, b.T @ b / 5)
    ours = tasks.linear_moments_flow(start, COVARIANCE, TARGET, TIMES, weight_decay=DECAY)
    trained = jax.jit(run)(heads)
    np.testing.assert_allclose(trained.predictions, ours.product @ PROBES.T, rtol=0, atol=1e-5)
    expected = tasks.linear_risk(ours.product, COVARIANCE, TARGET)
    np.testing.assert_allclose(trained.risk, expected, rtol=0, atol=1e-5)


@functools.cache
def trained(*, nested):
    """Both predictions and the risk [s w t o] of 40 times twelve replicas at four widths."""
    runs = measure.replicas(
        jax.random.key(8), draw, run, widths=WIDTHS, depths=[1], seeds=40 * 12, nested=nested
    )
    values, _ = measure.over_widths(runs)
    return np.concatenate([values.predictions, values.risk[..., None]], axis=3)


@pytest.mark.parametrize("covariance", ["independent", "nested", "replicas"])
def test_coverage_of_the_infinite_width(covariance):
    """Theorem: of 40 intervals at 95 %, at least 36 hold the exact value of the trained limit.

    So for each prediction and the risk at the last time. An exact interval fails such a check one
    time in twenty, so all times, which are near copies of one another, are judged together.
    """
    values, (predictions, losses) = trained(nested=covariance != "independent"), exact()
    limits = [
        rates.infinite_width(part, np.array(WIDTHS), covariance=covariance)
        for part in np.split(values, 40)
    ]
    value = np.concatenate([predictions, np.asarray(losses)[:, None]], axis=1)
    held = np.array([(one.low <= value) & (value <= one.high) for one in limits])
    assert (held[:, -1].sum(axis=0) >= 36).all()
    assert held.mean() >= 0.9
    assert held.sum(axis=0).min() >= 33
    # Intervals that hold the limit because they are long would say nothing.
    length = np.mean([one.high - one.low for one in limits], axis=0)
    assert (length < 0.5).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ts": np.zeros(1)}, r"at least two increasing times, got \[0.0\]"),
        ({"ts": np.array([1.0, 0.0])}, "at least two increasing times"),
        ({"ts": np.array([0.0, np.inf])}, "ts must be finite"),
        ({"ts": np.array([0.0, 1e4]), "steps": 1}, "got 1 between two times .* raise steps"),
        ({"target": np.ones(3)}, "for a target of 3 entries, got"),
        ({"target": np.array([1.0, np.nan])}, "covariance and target must be finite"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0, got -1.0"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
    ],
)
def test_refused(options, said):
    """Closed form: the message says what was got and what to do."""
    given = {"target": TARGET, "ts": TIMES, **options}
    covariance = np.eye(len(given["target"]))
    with pytest.raises(ValueError, match=said):
        tasks.linear_moments_flow(START, covariance, given.pop("target"), given.pop("ts"), **given)
