"""RKC2 inside diffrax: accuracy, cost, and every feature of a solve."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from meanfield import ode
from meanfield.ode.chebyshev import stability_interval

from .problems import brusselator, chain, diffusion, robertson, solve

RATES = np.logspace(0, 4, 40)


def relaxation(t, y, forcing):
    """Field of y' = -rates y + forcing."""
    return -jnp.asarray(RATES, y.dtype) * y + forcing


def cooling(t, y, args):
    """Stiff relaxation to a moving curve: y -> cos t at rate 2000, slowly forgotten."""
    return jnp.stack([-2000.0 * (y[0] - jnp.cos(t)), y[0] - y[1]])


def nonlinear(t, y, args):
    return jnp.stack([y[1] * jnp.cos(t), -y[0] * y[1] - y[1] + jnp.sin(t)])


@pytest.mark.parametrize("stages", [2, 3, 8, 30])
def test_order(stages):
    """Order of convergence: two, whatever the number of stages."""
    y0 = jnp.array([1.0, 0.5])
    truth = solve_ivp(
        lambda t, y: np.asarray(nonlinear(t, y, None)), (0, 2), y0, "DOP853", rtol=1e-12, atol=1e-12
    ).y[:, -1]
    solver = ode.RKC2(spectral_radius=lambda t, y, radius: radius)

    @jax.jit
    def run(length):
        return solve(
            nonlinear,
            y0,
            (0.0, 2.0),
            solver=solver,
            dt0=length,
            args=0.99 * stability_interval(stages) / length,
            stepsize_controller=diffrax.ConstantStepSize(),
        )

    lengths = 2.0 / (64 * 2 ** np.arange(6))
    found = [run(length) for length in lengths]
    assert {int(f.solver_state.work.largest_stages) for f in found} == {stages}
    errors = [np.linalg.norm(f.ys[-1] - truth) for f in found]
    slope = np.polyfit(np.log(lengths[1:]), np.log(errors[1:]), 1)[0]
    assert abs(slope - 2) < 0.1


@pytest.mark.parametrize(
    ("field", "y0", "end", "rtol"),
    [
        (robertson, [1.0, 0.0, 0.0], 40.0, 1e-3),
        (robertson, [1.0, 0.0, 0.0], 40.0, 1e-5),
        (chain, [1.0, 1.0, 0.0], 20.0, 1e-3),
        (chain, [1.0, 1.0, 0.0], 20.0, 1e-6),
        (cooling, [1.0, 1.0], 5.0, 1e-4),
    ],
)
def test_agrees_with_scipy(field, y0, end, rtol):
    """Independent library: scipy's Radau, within ten times the tolerance asked."""
    atol = rtol * 1e-4
    found = solve(field, jnp.array(y0), (0.0, end), rtol=rtol, atol=atol).ys[-1]
    right = jax.jit(lambda t, y: field(t, y, None))
    truth = solve_ivp(right, (0, end), y0, method="Radau", rtol=1e-10, atol=1e-13).y[:, -1]
    assert np.max(np.abs(found - truth) / (atol + rtol * np.abs(truth))) < 10


def test_tree_state_with_unstable_directions():
    """Independent library: scipy's Radau on a Brusselator with diffusion."""
    points = np.arange(20) / 20
    y0 = {"u": 1 + np.sin(2 * np.pi * points), "v": 3.0 + 0 * points}

    @jax.jit
    def right(t, y):
        rates = brusselator(t, {"u": y[:20], "v": y[20:]}, None)
        return jnp.concatenate([rates["u"], rates["v"]])

    both = np.concatenate([y0["u"], y0["v"]])
    truth = solve_ivp(right, (0, 5), both, method="Radau", rtol=1e-9, atol=1e-11).y[:, -1]
    found = solve(brusselator, jax.tree.map(jnp.asarray, y0), (0.0, 5.0), rtol=1e-3, atol=1e-5)
    flat = np.concatenate([found.ys["u"][-1], found.ys["v"][-1]])
    assert np.max(np.abs(flat - truth) / (1e-5 + 1e-3 * np.abs(truth))) < 10


def test_heat_equation_needs_few_evaluations():
    """Closed form for the answer, theorem for the cost: sqrt(stiffness) and not stiffness."""
    field, exact = diffusion(200)
    y0 = jnp.asarray(exact(0.0))
    found = solve(field, y0, (0.0, 0.5), rtol=1e-4, atol=1e-7)
    peer = solve(field, y0, (0.0, 0.5), solver=diffrax.Tsit5(), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.ys[-1], exact(0.5), atol=1e-4)
    cost = int(ode.work(found)["evaluations"])
    assert cost * 20 < int(peer.stats["num_steps"]) * 6


def test_mild_problems_pay_for_few_products():
    """Theorem: where two stages are stable, no product can save a stage."""
    found = solve(lambda t, y, args: -y, jnp.linspace(0.5, 1.5, 50), (0.0, 4.0), rtol=1e-3)
    work = ode.work(found)
    assert int(work["largest_stages"]) == 2
    assert int(work["products"]) <= 2


def test_stiffness_that_no_motion_shows():
    """Closed form: one stiff direction among a thousand, where the start lies exactly still."""
    rates = jnp.full(1000, 0.1).at[-1].set(1e4)
    y0 = jnp.ones(1000).at[-1].set(0.0)
    found = solve(lambda t, y, args: -rates * y, y0, (0.0, 10.0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.ys[-1], y0 * np.exp(-1.0), atol=5e-4)
    assert int(found.stats["num_rejected_steps"]) <= 2


def test_stays_stable_in_float32():
    """Closed form: a linear relaxation to its fixed point."""
    y0 = jnp.ones(40, jnp.float32)
    span = (jnp.float32(0), jnp.float32(10))
    found = solve(relaxation, y0, span, rtol=1e-3, atol=1e-5, args=y0)
    assert found.ys.dtype == jnp.float32
    expected = np.exp(-10 * RATES) + (1 - np.exp(-10 * RATES)) / RATES
    np.testing.assert_allclose(found.ys[-1], expected, rtol=1e-2, atol=1e-4)


def test_never_unstable_with_few_stages():
    """Closed form: steps are cut to what max_stages allows, with and without a ledger."""
    one, expected = jnp.ones(40), np.exp(-RATES) + (1 - np.exp(-RATES)) / RATES
    plain = solve(relaxation, one, solver=ode.RKC2(max_stages=5), args=one)
    pair = ode.with_ledger(ode.RKC2(max_stages=5), diffrax.PIDController(rtol=1e-5, atol=1e-8))
    kept = solve(relaxation, one, solver=pair[0], stepsize_controller=pair[1], args=one)
    for found in (plain, kept):
        np.testing.assert_allclose(found.ys[-1], expected, atol=1e-5)
        assert int(ode.work(found)["largest_stages"]) <= 5
    # The ledger tells the controller what is stable, so that next to nothing is rejected.
    assert int(kept.stats["num_rejected_steps"]) < 20


def test_fixed_step_beyond_the_maximum_is_not_taken():
    """Closed form: a step that cannot be stable nor rejected is NaN, not a wrong number."""
    controller = diffrax.ConstantStepSize()
    solver = ode.RKC2(spectral_radius=1e4, max_stages=10)
    found = solve(
        relaxation, jnp.ones(40), solver=solver, stepsize_controller=controller, dt0=0.1, args=0.0
    )
    assert bool(jnp.all(jnp.isnan(found.ys)))


def test_vmap_is_a_loop():
    """Invariance: a batch of solves, of different lengths and costs, one by one."""

    def run(forcing):
        found = solve(relaxation, jnp.ones(40), args=forcing * jnp.ones(40))
        return found.ys[-1], ode.work(found)

    forcings = jnp.array([0.0, 1.0, 300.0])
    batch, batch_work = jax.vmap(run)(forcings)
    for i, forcing in enumerate(forcings):
        single, single_work = jax.jit(run)(forcing)
        np.testing.assert_allclose(batch[i], single, rtol=1e-10, atol=1e-14)
        assert {k: int(v[i]) for k, v in batch_work.items()} == {
            k: int(v) for k, v in single_work.items()
        }


def test_backwards_in_time():
    """Closed form: y' = y + t from t = 1 to t = 0, with a radius that depends on time."""

    def bound(t, y, args):
        return jnp.where((t >= 0) & (t <= 1), 1.0, jnp.nan)

    solver = ode.RKC2(spectral_radius=bound)
    found = solve(lambda t, y, args: y + t, jnp.ones(1), (1.0, 0.0), solver=solver, rtol=1e-8)
    np.testing.assert_allclose(found.ys[-1], 3 / np.e - 1, rtol=1e-4)
