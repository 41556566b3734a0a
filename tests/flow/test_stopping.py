import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import flow

# |x|^2 decays like exp(-4 tau) under the time scale 2, and 1 is a floor of the energy.
FIELD = flow.gradient_field(lambda theta: 1 + jnp.sum(theta["x"] ** 2) / 2, lambda theta: 2.0)
START = {"x": jnp.array([3.0, 4.0]), "none": ()}
TIMES = [0.0, 0.25, 0.5, 1.0, 5.0]
TOLERANCE = {"rtol": 1e-6, "atol": 1e-8}


def squared(theta):
    return jnp.sum(theta["x"] ** 2)


# 25 exp(-4 tau) = 1;  2 * 25 exp(-4 tau) = 0.01;  50 e = 0.5 (1 + 12.5 e).
CROSSINGS = {
    "risk": (flow.risk_below(squared, 1.0), np.log(25) / 4),
    "gradient": (flow.gradient_below(FIELD, 0.1), np.log(50 / 0.01) / 4),
    "rate": (flow.stationary(FIELD, 0.5), np.log(43.75 / 0.5) / 4),
}


@pytest.mark.parametrize("name", CROSSINGS)
def test_stops_at_the_first_step_past_the_crossing(name):
    """Closed form: every condition is met within a step of the time at which the flow meets it."""
    condition, crossing = CROSSINGS[name]
    record = flow.gradient_flow(FIELD, START, TIMES, stop=condition, **TOLERANCE)
    assert record.result == "stopped"
    assert f"as asked by {condition.func.__name__.lstrip('_')}" in record.message
    assert crossing <= record.end_time < crossing + 0.05
    np.testing.assert_array_equal(record.times, [t for t in TIMES if t <= record.end_time])
    assert bool(condition(record.theta))
    expected = np.asarray(START["x"]) * np.exp(-2 * record.end_time)
    np.testing.assert_allclose(record.theta["x"], expected, rtol=5e-4)


def test_a_flow_that_stops_is_certified_to_its_end():
    """Closed form: without a save before the end, the balance has a row there, and may warn."""
    rough = flow.gradient_flow(
        FIELD, START, [0.0, 5.0], stop=CROSSINGS["risk"][0], rtol=0.5, atol=0.5
    )
    assert rough.result == "stopped"
    np.testing.assert_array_equal(rough.times, [0.0])
    energy = np.array([13.5, float(FIELD.energy(rough.theta))])
    np.testing.assert_allclose(rough.balance.energy, energy, rtol=round_off())
    drift = abs(energy[0] - energy[1] - rough.balance.dissipated[1])
    assert rough.worst_balance == pytest.approx(drift / (energy[0] - energy[1]))
    assert rough.worst_balance > 0.01
    assert len(rough.warnings) == 1


def test_whichever_comes_first():
    """Closed form: of several conditions the earliest ends the flow, and is named."""
    stop = {name: condition for name, (condition, _) in CROSSINGS.items()}
    record = flow.gradient_flow(FIELD, START, TIMES, stop=stop, **TOLERANCE)
    earliest = min(CROSSINGS, key=lambda name: CROSSINGS[name][1])
    assert f"as asked by {earliest}," in record.message


def test_a_condition_never_met_changes_nothing():
    """Invariance: a flow that is asked and never stops takes the same steps to the same end."""
    plain = flow.gradient_flow(FIELD, START, TIMES, **TOLERANCE)
    asked = flow.gradient_flow(
        FIELD, START, TIMES, stop=flow.risk_below(squared, 1e-12), **TOLERANCE
    )
    assert asked.result == "completed"
    assert asked.statistics == plain.statistics
    np.testing.assert_allclose(asked.theta["x"], plain.theta["x"], rtol=round_off())


def test_second_solve_traces_no_condition():
    """Equality: with another bound, a second solve traces neither the risk nor the condition."""
    traced = []

    def counted(theta):
        traced.append(1)
        return squared(theta)

    def solve(bound):
        return flow.gradient_flow(FIELD, START, TIMES, stop=flow.risk_below(counted, bound))

    first = solve(1.0)
    count = len(traced)
    second = solve(4.0)
    assert count > 0
    assert len(traced) == count
    assert second.end_time < first.end_time


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (lambda: lambda theta: theta["x"], r"must give one truth value, got float64\[2\]"),
        (lambda: {"late": squared}, r"'late' must give one truth value, got float64\[\]"),
        (lambda: flow.risk_below(squared, float("inf")), "bound must be finite"),
        (lambda: flow.gradient_below(FIELD, -1.0), "bound must be a finite number > 0, got -1.0"),
        (lambda: flow.stationary(FIELD, float("nan")), "rate must be a finite number > 0, got nan"),
    ],
)
def test_refused(condition, message):
    """Equality: a condition that is none, and a bound that is never met, are refused."""
    with pytest.raises(ValueError, match=message):
        flow.gradient_flow(FIELD, START, TIMES, stop=condition())
