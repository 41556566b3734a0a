"""RKC2 with the rest of diffrax: saving, events, meters, derivatives, refusals."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meanfield import ode

from .problems import solve

RATES = np.logspace(0, 3, 20)
FIXED_POINT = (1 - np.exp(-RATES)) / RATES


def relaxation(t, y, forcing):
    """Field of y' = -rates y + forcing."""
    return -jnp.asarray(RATES) * y + forcing


def oscillator(t, y, args):
    return jnp.stack([y[1], -y[0]])


def test_saves_between_steps():
    """Closed form: a rotation, saved through a function at times between steps."""
    times = jnp.linspace(0, 6, 50)
    saveat = diffrax.SaveAt(ts=times, fn=lambda t, y, args: {"cos": y[0]})
    found = solve(oscillator, jnp.array([1.0, 0.0]), (0.0, 6.0), rtol=1e-6, saveat=saveat)
    np.testing.assert_allclose(found.ys["cos"], np.cos(times), atol=2e-3)


def test_interpolation_is_as_accurate_as_the_steps():
    """Order of convergence: the error between steps falls like the error at steps, or faster."""
    times, errors, lengths = jnp.linspace(0, 2, 37), [], 0.2 / 2.0 ** np.arange(6)
    solver = ode.RKC2(spectral_radius=1.0)
    saveat = diffrax.SaveAt(ts=times)
    controller = diffrax.ConstantStepSize()
    for length in lengths:
        found = solve(
            oscillator,
            jnp.array([1.0, 0.0]),
            (0.0, 2.0),
            solver=solver,
            dt0=jnp.asarray(length),
            saveat=saveat,
            stepsize_controller=controller,
        )
        errors.append(np.max(np.abs(found.ys[:, 0] - np.cos(times))))
    slope = np.polyfit(np.log(lengths[1:]), np.log(errors[1:]), 1)[0]
    assert slope > 1.9


def test_event_stops_the_solve():
    """Closed form: cos t crosses zero at pi/2."""
    event = diffrax.Event(lambda t, y, args, **rest: y[0], _root_finder())
    found = solve(oscillator, jnp.array([1.0, 0.0]), (0.0, 9.0), rtol=1e-6, event=event)
    np.testing.assert_allclose(found.ts[-1], np.pi / 2, atol=1e-4)
    assert found.result == diffrax.RESULTS.event_occurred


def _root_finder():
    import optimistix

    return optimistix.Newton(1e-8, 1e-8)


def test_progress_meter(capsys):
    """Invariance: a meter changes no digit."""
    plain = solve(oscillator, jnp.array([1.0, 0.0]))
    shown = solve(oscillator, jnp.array([1.0, 0.0]), progress_meter=diffrax.TextProgressMeter())
    jax.effects_barrier()
    np.testing.assert_array_equal(plain.ys, shown.ys)
    assert "100.00%" in capsys.readouterr().out


def test_jump_restarts_the_field():
    """Closed form: y' = -1 before t = 1/2 and +3 after it."""
    controller = diffrax.ClipStepSizeController(
        diffrax.PIDController(rtol=1e-6, atol=1e-8), jump_ts=jnp.array([0.5])
    )
    found = solve(
        lambda t, y, args: jnp.where(t < 0.5, -1.0, 3.0) + 0 * y,
        jnp.zeros(1),
        stepsize_controller=controller,
        dt0=0.05,
    )
    np.testing.assert_allclose(found.ys[-1], 1.0, atol=1e-12)
    assert int(found.stats["num_rejected_steps"]) == 0


@pytest.mark.parametrize("bound", [None, 1e3])
def test_forward_derivative(bound):
    """Closed form: the derivative of a linear relaxation by its forcing."""

    def end(forcing):
        found = solve(
            relaxation,
            jnp.ones(20),
            solver=ode.RKC2(spectral_radius=bound),
            args=forcing,
            rtol=1e-7,
            adjoint=diffrax.ForwardMode(),
        )
        return found.ys[-1]

    slope = jax.jvp(end, (jnp.ones(20),), (jnp.ones(20),))[1]
    np.testing.assert_allclose(slope, FIXED_POINT, rtol=1e-4)


def test_reverse_derivative():
    """Closed form: the same through the stages, with checkpoints."""
    solver = ode.RKC2(spectral_radius=1e3, differentiation="reverse", max_stages=100)

    def total(forcing):
        found = solve(relaxation, jnp.ones(20), solver=solver, args=forcing, max_steps=1024)
        return jnp.sum(found.ys)

    np.testing.assert_allclose(jax.grad(total)(jnp.ones(20)), FIXED_POINT, rtol=1e-3, atol=1e-5)


def test_backsolve_derivative():
    """Closed form: the same by the adjoint equation, solved by the same solver."""

    def total(forcing):
        saveat = diffrax.SaveAt(t1=True)
        found = solve(
            lambda t, y, args: -5 * y + args,
            jnp.ones(3),
            solver=ode.RKC2(spectral_radius=5.0),
            args=forcing,
            adjoint=diffrax.BacksolveAdjoint(),
            saveat=saveat,
        )
        return jnp.sum(found.ys)

    expected = (1 - np.exp(-5)) / 5
    np.testing.assert_allclose(jax.grad(total)(jnp.ones(3)), expected, rtol=1e-2)


def test_reverse_mode_names_the_remedy():
    """Closed form: the default refuses, and says what to use."""
    with pytest.raises(RuntimeError, match=r'differentiation="reverse".*ForwardMode'):
        jax.grad(lambda y: jnp.sum(solve(oscillator, y).ys))(jnp.ones(2))


def test_solve_again_traces_nothing():
    """Closed form: the field is traced in the first of two solves only."""
    traced = []

    def field(t, y, args):
        traced.append(True)
        return -y

    for start in (1.0, 2.0):
        solve(field, jnp.full(3, start))
        # Three traces of one step by diffrax, and each traces its loop at most twice.
        assert len(traced) <= 6
        first = traced.copy()
    assert traced == first


def test_ledger_counts_what_was_evaluated():
    """Closed form: the host counts each evaluation, those of rejected steps included."""
    seen = []

    def counted(t, y, args):
        jax.debug.callback(lambda: seen.append(True))
        return -jnp.array([1.0, 900.0]) * y**3

    pair = ode.with_ledger(ode.RKC2(), diffrax.PIDController(rtol=1e-4, atol=1e-7))
    found = solve(
        counted,
        jnp.ones(2),
        (0.0, 10.0),
        solver=pair[0],
        stepsize_controller=pair[1],
        dt0=1.0,
        adjoint=diffrax.ForwardMode(),
    )
    jax.effects_barrier()
    work = ode.work(found)
    assert int(found.stats["num_rejected_steps"]) > 0
    assert int(work["products"]) > 0
    assert len(seen) == int(work["evaluations"])


def test_program_holds_the_field_once():
    """Closed form: one tanh in the field, one in the lowered program of a whole solve."""

    def run(y):
        pair = ode.with_ledger(ode.RKC2(), diffrax.PIDController(rtol=1e-4, atol=1e-7))
        return solve(
            lambda t, y, args: -jnp.tanh(y),
            y,
            solver=pair[0],
            stepsize_controller=pair[1],
            adjoint=diffrax.ForwardMode(),
        ).ys

    assert jax.jit(run).lower(jnp.ones(3)).as_text().count("stablehlo.tanh") == 1


def test_blow_up_keeps_the_last_good_state():
    """Closed form: y' = y^2 explodes at t = 1."""
    found = solve(lambda t, y, args: y * y, jnp.ones(1), (0.0, 2.0), throw=False, max_steps=500)
    assert found.result != diffrax.RESULTS.successful
    assert 0.9 < float(found.ts[-1]) < 1.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_stages": 1}, "max_stages must be an integer >= 2, got 1"),
        ({"spectral_radius": -1.0}, "spectral_radius must be >= 0, got -1.0"),
        ({"safety": 0.5}, "safety must be >= 1, got 0.5"),
        ({"refresh": 0}, "refresh must be an integer >= 1, got 0"),
        ({"differentiation": "revers"}, "did you mean 'reverse'"),
    ],
)
def test_refuses_options(options, message):
    """Closed form: a sentence with what was got and what is expected."""
    with pytest.raises(ValueError, match=message):
        ode.RKC2(**options)


def test_a_negative_bound_takes_no_step():
    """Closed form: a bound that is none moves nothing, and does not pass for two stages."""
    solver = ode.RKC2(spectral_radius=lambda t, y, args: -1.0)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -y), solver, 0.0, 1.0, 0.5, jnp.ones(2), max_steps=4
    )
    assert jnp.all(jnp.isnan(solution.ys))


def test_refuses_problems():
    """Closed form: integer states, fields of another structure or shape, tolerances of zero."""
    with pytest.raises(ValueError, match="state must be floating point, got int"):
        ode.check_rate(lambda t, y: y, 0.0, jnp.arange(3))
    with pytest.raises(ValueError, match="structure of its state"):
        ode.check_rate(lambda t, y: (y, y), 0.0, jnp.ones(3))
    with pytest.raises(ValueError, match="shapes of its state"):
        ode.check_rate(lambda t, y: y[:2], 0.0, jnp.ones(3))
    with pytest.raises(ValueError, match="rtol must be a finite number > 0, got 0"):
        ode.check_tolerances(0.0, 1e-6)
    with pytest.raises(ValueError, match="structure"):
        solve(lambda t, y, args: (y, y), jnp.ones(3))
    with pytest.raises(ValueError, match="shapes of its state"):
        solve(lambda t, y, args: -y[:1], jnp.ones(3))
    path = diffrax.VirtualBrownianTree(0.0, 1.0, 0.1, (), jax.random.key(0))
    term = diffrax.ControlTerm(lambda t, y, args: y, path)
    with pytest.raises(ValueError, match="ordinary differential equations"):
        ode.RKC2().step(term, jnp.zeros(()), jnp.ones(()), jnp.ones(()), None, None, False)
