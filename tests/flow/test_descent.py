import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import round_off

from meanfield import flow

SCALES = np.array([0.5, 2.0, 3.0])
START = {"x": jnp.array([1.0, -2.0, 0.5]), "y": jnp.array(0.3)}


def energy(theta):
    return jnp.sum(jnp.asarray(SCALES) * theta["x"] ** 2) / 2 + (1 - jnp.cos(theta["y"]))


FIELD = flow.gradient_field(energy, lambda theta: {"x": 2.0, "y": 1.0})


def test_sgd_against_loop():
    """Numpy loop: descent with the time scales in the gradient."""
    step, x, y = 0.1, np.asarray(START["x"]), 0.3
    points = []
    for number in range(8):
        if number in {0, 2, 3, 7}:
            points.append((x, y, np.sum(SCALES * x**2) / 2 + 1 - np.cos(y)))
        x, y = x - step * 2.0 * SCALES * x, y - step * np.sin(y)
    observe = {"theta": lambda theta: theta, "energy": energy}
    record = flow.descent(FIELD, START, [0, 2, 3, 7], optimizer=optax.sgd(step), observe=observe)
    np.testing.assert_array_equal(record.times, [0, 2, 3, 7])
    seen = record.observables
    for i, (x, y, value) in enumerate(points):
        np.testing.assert_allclose(seen["theta"]["x"][i], x, rtol=round_off())
        np.testing.assert_allclose(seen["theta"]["y"][i], y, rtol=round_off())
        np.testing.assert_allclose(seen["energy"][i], value, rtol=round_off())
    jax.tree.map(
        lambda x, rows: np.testing.assert_array_equal(x, rows[-1]), record.theta, seen["theta"]
    )
    assert (record.result, record.end_time) == ("completed", 7.0)
    assert record.statistics == {"steps": 7, "gradients": 7}
    assert record.message == "took 7 steps"


def test_adam_against_loop():
    """Independent library: optax stepped in Python, its state carried along."""
    optimizer = optax.adam(0.05)
    theta, state = START, optimizer.init(START)
    for _ in range(9):
        gradient = jax.tree.map(jnp.negative, FIELD(0.0, theta))
        updates, state = optimizer.update(gradient, state, theta)
        theta = optax.apply_updates(theta, updates)
    found = flow.descent(FIELD, START, [4, 9], optimizer=optimizer).theta
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=round_off()), found, theta)


def test_schedule():
    """Closed form: a schedule counts steps; on a linear energy the steps add up."""
    field = flow.gradient_field(lambda theta: -theta)
    schedule = optax.linear_schedule(1.0, 0.0, 4)
    record = flow.descent(
        field, jnp.array(0.0), [1, 4, 9], optimizer=optax.sgd(schedule), observe=lambda theta: theta
    )
    np.testing.assert_allclose(record.observables, [1.0, 2.5, 2.5], rtol=round_off())


def test_divergence_keeps_the_last_finite_state():
    """Closed form: theta <- theta + theta^3 overflows; the record ends before it does."""
    field = flow.gradient_field(lambda theta: -(theta**4) / 4)
    theta, steps = 2.0, 0
    # The cube of anything above the cube root of the largest number overflows.
    while theta < np.finfo(float).max ** (1 / 3):
        theta, steps = theta + theta**3, steps + 1
    record = flow.descent(
        field, jnp.array(2.0), [0, 1, 3, 50], optimizer=optax.sgd(1.0), observe=lambda theta: theta
    )
    assert record.result == "diverged"
    assert record.end_time == steps == record.statistics["steps"]
    np.testing.assert_allclose(record.theta, theta, rtol=1e-10)
    np.testing.assert_array_equal(record.times, [0, 1, 3])
    assert record.observables.shape == (3,)
    assert f"stopped after {steps} of 50 steps" in record.message


def test_second_descent_compiles_nothing():
    """Equality: the same optimiser and observables trace the energy 0 times."""
    traces = []

    def counted(theta):
        traces.append(None)
        return energy(theta)

    field, optimizer = flow.gradient_field(counted), optax.sgd(0.1)
    first = flow.descent(field, START, [0, 3], optimizer=optimizer, observe={"q": counted})
    before = len(traces)
    moved = jax.tree.map(lambda leaf: leaf + 1, START)
    again = flow.descent(field, moved, [1, 5], optimizer=optimizer, observe={"q": counted})
    assert len(traces) == before > 0
    assert first.observables["q"].shape == again.observables["q"].shape == (2,)


def test_single_precision():
    """Invariance: float32 parameters stay float32."""
    theta = jax.tree.map(lambda leaf: leaf.astype(np.float32), START)
    record = flow.descent(FIELD, theta, [2], optimizer=optax.adam(0.1))
    assert {leaf.dtype for leaf in jax.tree.leaves(record.theta)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "steps must be a list of whole numbers, got"),
        ([0.5, 1.0], "steps must be a list of whole numbers, got"),
        (3, "steps must be a list of whole numbers, got 3"),
        ([3, 3], r"steps must be >= 0 and increasing, got \[3, 3\]"),
        ([3, 1], r"steps must be >= 0 and increasing, got \[3, 1\]"),
        ([-1, 1], r"steps must be >= 0 and increasing, got \[-1, 1\]"),
    ],
)
def test_refused_steps(steps, message):
    """Closed form: got, expected."""
    with pytest.raises(ValueError, match=f"^{message}"):
        flow.descent(FIELD, START, steps, optimizer=optax.sgd(0.1))


def test_refused_theta():
    """Closed form: theta or energy that is not finite, and a field of another structure."""
    with pytest.raises(ValueError, match="^theta must be finite, got 1 NaN"):
        flow.descent(FIELD, START | {"y": jnp.array(np.nan)}, [1], optimizer=optax.sgd(0.1))
    with pytest.raises(ValueError, match="^the energy at the start must be finite, got nan: check"):
        flow.descent(flow.gradient_field(jnp.log), jnp.array(-2.0), [1], optimizer=optax.sgd(0.1))
    with pytest.raises(ValueError, match="floating point, got int64"):
        inspect.unwrap(flow.descent)(
            flow.gradient_field(lambda theta: theta**2.0), 1, [1], optimizer=optax.sgd(0.1)
        )
