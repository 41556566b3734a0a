import inspect
import re

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import round_off

from meanfield import flow, ode, rates

RATES = np.array([0.5, 1.0, 4.0])
START = {"x": jnp.array([1.0, -2.0, 0.5]), "y": (jnp.array([[0.3]]), ())}
TIMES = [0.0, 0.5, 1.25, 2.0]


def quadratic(theta):
    return jnp.sum(jnp.asarray(RATES, theta["x"].dtype) * theta["x"] ** 2) / 2 + jnp.sum(
        theta["y"][0] ** 2
    )


def double_scales(theta):
    del theta
    return {"x": 2.0, "y": 1.0}


FIELD = flow.gradient_field(quadratic, double_scales)


def first(theta):
    return theta["x"]


# One dictionary and one number of times for all, so that they share a compiled program.
OBSERVE = {"x": first, "q": quadratic}


def exact(time):
    """The solution of the quadratic flow: x decays at twice its rates, y at 2."""
    x = np.asarray(START["x"]) * np.exp(-2 * RATES * time)
    return x, 0.3 * np.exp(-2 * time)


@pytest.mark.parametrize("solver", [None, diffrax.Tsit5(), diffrax.Heun()])
def test_decay_of_a_quadratic(solver):
    """Closed form: exponential decay of a tree of parameters, at the save times and at the end."""
    record = flow.gradient_flow(
        FIELD,
        START,
        TIMES,
        solver=solver,
        rtol=1e-7,
        atol=1e-9,
        observe=OBSERVE,
    )
    assert record.result == "completed", record.message
    np.testing.assert_array_equal(record.times, TIMES)
    assert record.end_time == 2.0
    x, y = exact(np.array(TIMES)[:, None])
    np.testing.assert_allclose(record.observables["x"], x, atol=2e-6)
    energies = np.sum(RATES * x**2, axis=1) / 2 + y[:, 0] ** 2
    np.testing.assert_allclose(record.observables["q"], energies, atol=2e-6)
    np.testing.assert_array_equal(record.balance.energy, record.observables["q"])
    np.testing.assert_allclose(record.theta["x"], record.observables["x"][-1], rtol=round_off())
    np.testing.assert_allclose(record.theta["y"][0], [[0.3 * np.exp(-4.0)]], atol=2e-6)
    assert record.theta["y"][1] == ()
    assert record.warnings == ()


def test_start_at_another_time():
    """Invariance: the flow does not know the clock; it may start anywhere."""
    early, late = (
        flow.gradient_flow(FIELD, START, np.array(TIMES) + shift, rtol=1e-6, observe=OBSERVE)
        for shift in (0.0, 7.0)
    )
    np.testing.assert_allclose(late.theta["x"], early.theta["x"], rtol=1e-9)


def test_single_precision():
    """Closed form: float32 parameters are solved and returned in float32."""
    theta = jax.tree.map(lambda leaf: leaf.astype(np.float32), START)
    record = flow.gradient_flow(FIELD, theta, TIMES, rtol=1e-4, observe=first)
    assert record.result == "completed", record.message
    assert record.observables.dtype == record.theta["y"][0].dtype == np.float32
    np.testing.assert_allclose(record.observables, exact(np.array(TIMES)[:, None])[0], atol=1e-3)


def double_well(theta):
    return jnp.sum((theta**2 - 1) ** 2) / 4 + jnp.prod(theta) / 3


WELL, WELL_START = flow.gradient_field(double_well), jnp.array([0.3, -1.7, 0.9])


def well_reference(time):
    return flow.gradient_flow(
        WELL, WELL_START, [0.0, time], solver=diffrax.Tsit5(), rtol=1e-11, atol=1e-13
    )


def test_tolerance_and_balance():
    """Order: the error falls with rtol, and so does the balance, which needs no second run."""
    reference = well_reference(2.0)
    errors, residuals = [], []
    for rtol in (1e-2, 1e-4, 1e-6):
        record = flow.gradient_flow(WELL, WELL_START, [0.0, 2.0], rtol=rtol, atol=rtol / 10)
        errors.append(float(jnp.linalg.norm(record.theta - reference.theta)))
        residuals.append(record.balance.residual[-1])
    for values in (errors, residuals):
        assert values[2] < values[1] / 5 < values[0] / 25
    assert max(errors[2], residuals[2]) < 1e-4
    assert reference.balance.residual[-1] < 1e-9


def test_dissipated_energy():
    """Theorem: Q(0) - Q(tau) is the integral of sum s |grad Q|^2; in closed form here."""
    record = flow.gradient_flow(FIELD, START, TIMES, rtol=1e-8, atol=1e-10, observe=OBSERVE)
    x, y = exact(np.array(TIMES)[:, None])
    energies = np.sum(RATES * x**2, axis=1) / 2 + y[:, 0] ** 2
    np.testing.assert_allclose(record.balance.dissipated, energies[0] - energies, rtol=1e-5)
    assert np.all(np.diff(record.balance.energy) < 0)


def test_balance_warns():
    """Closed form: above its bound the balance is named in a sentence, below it is not."""
    loose = flow.gradient_flow(WELL, WELL_START, [0.0, 2.0], rtol=0.3, atol=0.1, balance_bound=1e-9)
    assert loose.result == "completed"
    assert len(loose.warnings) == 1
    assert re.match(r"the energy balance is off by .* lower rtol$", loose.warnings[0])
    worst = float(np.max(loose.balance.residual))
    again = flow.gradient_flow(
        WELL, WELL_START, [0.0, 2.0], rtol=0.3, atol=0.1, balance_bound=1.01 * worst
    )
    assert again.warnings == ()


def test_exhaustion():
    """Closed form: too few steps end the run at the last of them, with what it had."""
    record = flow.gradient_flow(
        FIELD,
        START,
        [0.0, 1e-4, 50.0],
        solver=diffrax.Tsit5(),
        rtol=1e-9,
        atol=1e-11,
        max_steps=20,
        observe=first,
    )
    assert record.result == "exhausted"
    assert 1e-4 < record.end_time < 50.0
    assert record.statistics["steps"] == 20
    assert "20 steps used up; raise max_steps or rtol" in record.message
    np.testing.assert_allclose(record.theta["x"], exact(record.end_time)[0], rtol=1e-6)
    np.testing.assert_array_equal(record.times, [0.0, 1e-4])
    assert record.observables.shape == (2, 3)


def test_descent_converges_to_the_flow():
    """Order: descent at step eta is off by O(eta) at one time; slope 1 +- 0.1."""
    reference = well_reference(1.0).theta
    steps = np.array([20, 40, 80, 160, 320, 640])
    errors = []
    for count in steps.tolist():
        found = flow.descent(WELL, WELL_START, [count], optimizer=optax.sgd(1.0 / count))
        errors.append(float(jnp.linalg.norm(found.theta - reference)))
    assert rates.log_log_slope(1 / steps, np.array(errors)).slope == pytest.approx(1.0, abs=0.1)


def test_second_solve_compiles_nothing():
    """Equality: other data, decay, times, tolerance and dictionary trace the model 0 times."""
    traces = []

    def counted(theta, x):
        traces.append(None)
        return jnp.tanh(theta * x)

    def risk(theta):
        return theta**2

    def solve(x, weight_decay, rtol, times):
        risk_of_data = flow.empirical_risk(counted, x, jnp.ones(4))
        energy = flow.energy(risk_of_data, unit, weight_decay=weight_decay)
        field = flow.gradient_field(energy, unit)
        return flow.gradient_flow(field, jnp.array(0.3), times, rtol=rtol, observe={"q": risk})

    first = solve(jnp.arange(4.0), 0.1, 1e-3, [0.0, 0.5, 1.0])
    before = len(traces)
    second = solve(jnp.ones(4), 0.7, 1e-5, [0.0, 2.0, 3.0])
    assert before > 0
    assert len(traces) == before
    assert abs(first.theta - second.theta) > 1e-3


def unit(theta):
    del theta
    return 1.0


def test_progress_is_drawn(capsys):
    """Closed form: a line with the label at the end, no terminal being there; without one none."""
    flow.gradient_flow(WELL, WELL_START, [0.0, 1.0], progress="width 4, seed 0")
    drawn = capsys.readouterr().err
    assert re.fullmatch(r"width 4, seed 0: 100 %, \d\d:\d\d so far\n", drawn.splitlines(True)[-1])
    flow.gradient_flow(WELL, WELL_START, [0.0, 1.0])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ts": [0.0, 1.0, 1.0]}, r"ts must be finite and increasing, got \[0.0, 1.0, 1.0\]"),
        ({"ts": [1.0, 0.0]}, r"ts must be finite and increasing, got \[1.0, 0.0\]"),
        ({"ts": [0.0, np.nan]}, r"ts must be finite and increasing, got \[0.0, nan\]"),
        ({"ts": [0.0, np.inf]}, r"ts must be finite and increasing, got \[0.0, inf\]"),
        ({"ts": [1.0]}, r"ts must hold at least two times, got shape \(1,\)"),
        ({"ts": 1.0}, r"ts must hold at least two times, got shape \(\)"),
        ({"theta": START | {"x": jnp.array([1.0, np.nan, 0.0])}}, "theta must be finite, got 1"),
        ({"theta": START | {"x": jnp.arange(3)}}, "the state must be floating point, got int64"),
        ({"rtol": 0.0}, "rtol must be a finite number > 0, got 0.0"),
        ({"rtol": np.nan}, "rtol must be a finite number > 0, got nan"),
        ({"atol": -1e-6}, "atol must be a finite number > 0, got -1e-06"),
        (
            {"ts": [1e8, 1e8 + 1], "theta": jax.tree.map(np.float32, START)},
            "ts must be finite and increasing in float32, got .* start at 0 or use float64$",
        ),
        ({"solver": "tsit5"}, r"solver must be .* e.g. diffrax.Tsit5\(\), got 'tsit5'$"),
        ({"solver": diffrax.Tsit5}, "solver must be an instance of an adaptive diffrax solver"),
        ({"solver": diffrax.Euler()}, r"solver must be an instance .*got Euler\(\)$"),
        ({"max_steps": 0}, "max_steps must be an integer >= 1, got 0"),
        ({"field": lambda time, theta, args=None: theta["x"]}, "the field must return the struct"),
        (
            {"field": lambda time, theta, args=None: theta | {"x": jnp.ones(2)}},
            "the field must return the shapes",
        ),
    ],
)
def test_refused(options, message):
    """Closed form: got, expected, before anything is compiled."""
    options = {"field": FIELD, "theta": START, "ts": [0.0, 1.0], **options}
    # Without the suite's type checks, which would refuse some of it before the library does.
    solve = inspect.unwrap(flow.gradient_flow)
    with pytest.raises(ValueError, match=f"^{message}"):
        solve(options.pop("field"), options.pop("theta"), options.pop("ts"), **options)


@pytest.mark.parametrize(("start", "got"), [(50.0, "inf"), (-2.0, "nan")])
def test_energy_at_the_start(start, got):
    """Closed form: exp(x^2) overflows at 50, log(x) is NaN at -2: refused before any step."""
    energy = (lambda x: jnp.exp(x**2)) if got == "inf" else jnp.log
    with pytest.raises(ValueError, match=f"^the energy at the start must be finite, got {got}: ch"):
        flow.gradient_flow(flow.gradient_field(energy), jnp.array(start), [0.0, 1.0])


def test_labels_out_of_range():
    """Closed form: a label that is no class has no loss; the flow does not start."""
    risk = flow.empirical_risk(lambda w, x: w * x, jnp.ones(3), jnp.array([0, 1, 2]), loss=surprise)
    with pytest.raises(ValueError, match="must be finite, got nan: check labels, data and the in"):
        flow.gradient_flow(flow.gradient_field(risk), jnp.array(1.0), [0.0, 1.0])


def surprise(logit, label):
    return flow.cross_entropy(jnp.stack([logit, -logit]), label)


@pytest.mark.parametrize("observe", [None, {"x": jnp.abs}])
def test_start_without_a_gradient(observe):
    """Closed form: sqrt has energy 0 and no gradient at 0; the record keeps the start."""
    field = flow.gradient_field(jnp.sqrt)
    record = flow.gradient_flow(field, jnp.array(0.0), [0.0, 1.0], observe=observe)
    assert (record.result, record.end_time) == ("diverged", 0.0)
    assert "the flow blows up or its gradient is not finite" in record.message
    np.testing.assert_array_equal(record.times, [0.0])
    np.testing.assert_array_equal(record.balance, [[0.0], [0.0], [0.0]])
    assert record.worst_balance == 0.0
    if observe:
        np.testing.assert_array_equal(record.observables["x"], [0.0])


def test_statistics():
    """Closed form: steps are accepted or rejected; gradients are counted for the default solver."""
    record = flow.gradient_flow(FIELD, START, TIMES, observe=OBSERVE)
    counts = record.statistics
    assert counts["steps"] == counts["accepted"] + counts["rejected"] > 0
    assert all(isinstance(value, int) for value in counts.values())
    again = flow.gradient_flow(FIELD, START, TIMES, solver=ode.RKC2(), observe=OBSERVE)
    assert again.statistics == counts
    np.testing.assert_allclose(again.theta["x"], record.theta["x"], rtol=round_off())
