import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import flow, rates

RATES = np.array([1.0, 4.0])
START = {"x": jnp.array([1.0, -2.0]), "y": jnp.array(0.5)}


def quadratic(theta):
    return jnp.sum(jnp.asarray(RATES, theta["x"].dtype) * theta["x"] ** 2) / 2 + theta["y"] ** 2


def scales(theta):
    del theta
    return {"x": 2.0, "y": 1.0}


STEPS = [0, 1, 3, 10]
FIELD = flow.gradient_field(quadratic, scales)
# The curvatures in the flow's metric, x and then y.
CURVATURES, FIRST = np.array([2.0, 8.0, 2.0]), np.array([1.0, -2.0, 0.5])


def exact(step_size, steps):
    """Descent and the flow of the quadratic: (1 - eta lambda)^k and exp(-lambda eta k)."""
    k = np.asarray(steps)[:, None]
    walked = FIRST * (1 - step_size * CURVATURES) ** k
    flowed = FIRST * np.exp(-CURVATURES * step_size * k)
    distance = np.linalg.norm(walked - flowed, axis=1)
    return distance, distance / np.maximum(np.linalg.norm(flowed - FIRST, axis=1), 1e-300)


@pytest.mark.parametrize("steps", [STEPS, [1, 3, 10]])
def test_quadratic(steps):
    """Closed form: (1 - eta lambda)^k against exp(-lambda eta k), curvature 8 below 2 / eta."""
    found = flow.parting(FIELD, START, step_size=0.1, steps=steps, rtol=1e-9, atol=1e-11)
    distance, relative = exact(0.1, steps)
    np.testing.assert_allclose(found.times, 0.1 * np.array(steps), rtol=round_off())
    np.testing.assert_allclose(found.distance, distance, atol=1e-6)
    np.testing.assert_allclose(found.relative, relative, atol=1e-6)
    np.testing.assert_allclose(found.sharpness.largest, 8, rtol=1e-10)
    np.testing.assert_allclose(found.sharpness.smallest, 2, rtol=1e-10)
    assert np.all(found.sharpness.converged)
    assert np.isnan(found.crossing)
    # After one step they are 0.3 apart, of a way of 1.1.
    assert found.parted == 0.1
    assert (found.flow.result, found.descent.result) == ("completed", "completed")
    np.testing.assert_array_equal(found.descent.times, steps)


def test_distance_is_of_first_order():
    """Order: below the crossing the largest distance is O(eta), and they never part."""
    sizes, largest = 0.02 / 2.0 ** np.arange(5), []
    for number, step_size in enumerate(sizes):
        # The same nine times for every step size.
        steps = np.arange(0, 9) * 5 * 2**number
        found = flow.parting(FIELD, START, step_size=step_size, steps=steps, rtol=1e-8, atol=1e-10)
        largest.append(np.max(found.distance))
        assert np.isnan(found.crossing)
        assert np.isnan(found.parted)
    assert rates.log_log_slope(sizes, largest).slope == pytest.approx(1.0, abs=0.1)


def climbing(theta):
    """The curvature y of the valley x = 0 grows along it, at rate 1."""
    return theta["y"] * theta["x"] ** 2 / 2 - theta["y"]


CLIMB = flow.gradient_field(climbing)
FOOT = {"x": jnp.array(0.1), "y": jnp.array(15.0)}


def test_crossing():
    """Closed form: y = 15 + tau passes 2 / eta = 20 at tau = 5, up to x(0)^2 / (4 y(0))."""
    found = flow.parting(CLIMB, FOOT, step_size=0.1, steps=np.arange(0, 200, 7), rtol=1e-6)
    assert found.crossing == pytest.approx(5.0, abs=2 * 0.1**2 / 60)
    # There x is still 0.1 exp(-87) on the flow, and 0.1 prod |1 - eta y| = 2e-8 in descent.
    before = found.times < 5
    assert np.max(found.relative[before]) < 0.01
    first = np.argmax(found.relative > 0.1)
    assert found.parted == found.times[first] > found.crossing + 1
    # Descent stays where it is stable on average; the flow climbs on.
    np.testing.assert_allclose(found.flow.theta["y"], 15 + 0.1 * 196, atol=1e-3)
    assert float(found.descent.theta["y"]) < 26
    rough = flow.parting(CLIMB, FOOT, step_size=0.1, steps=np.arange(0, 200, 7), threshold=1e-9)
    assert rough.parted == found.times[1]


def test_above_from_the_start():
    """Closed form: beyond 2 / eta at the first time compared, the crossing is that time."""
    found = flow.parting(FIELD, START, step_size=0.3, steps=[2, 4, 6])
    assert found.crossing == found.parted == found.times[0]
    np.testing.assert_allclose(found.distance, exact(0.3, [2, 4, 6])[0], atol=1e-3)


QUARTIC = flow.gradient_field(lambda theta: theta**4 / 4)


# Three times of the flow each, its start among them, so that they share a compiled program.
@pytest.mark.parametrize(
    ("steps", "reached", "parted"), [([0, 1, 50], 2, 1), ([0, 40, 50], 1, 40), ([40, 50], 0, 40)]
)
def test_descent_that_diverges(steps, reached, parted):
    """Closed form: theta <- theta - theta^3 leaves the numbers; the flow is 2 / sqrt(1 + 8 tau)."""
    found = flow.parting(QUARTIC, jnp.array(2.0), step_size=1.0, steps=steps, rtol=1e-6)
    assert (found.flow.result, found.descent.result) == ("completed", "diverged")
    np.testing.assert_array_equal(found.times, steps[:reached])
    flowed = 2 / np.sqrt(1 + 8 * found.times)
    np.testing.assert_allclose(found.distance, np.abs([2, -6][:reached] - flowed), rtol=1e-4)
    np.testing.assert_allclose(found.sharpness.largest, 3 * flowed**2, rtol=1e-3)
    # 12 is above 2 / 1 where the flow starts; without a row nothing is known.
    np.testing.assert_array_equal(found.crossing, 0.0 if reached else np.nan)
    assert found.parted == parted
    np.testing.assert_array_equal(found.flow.times[-2:], steps[-2:])


def test_flow_that_stops():
    """Closed form: theta' = theta^3 ends at tau = 1/2, where descent at step 0.1 goes on."""
    field = flow.gradient_field(lambda theta: -(theta**4) / 4)
    found = flow.parting(field, jnp.array(1.0), step_size=0.1, steps=[0, 3, 4, 6])
    assert (found.flow.result, found.descent.result) == ("diverged", "completed")
    np.testing.assert_allclose(found.times, [0, 0.3, 0.4], rtol=round_off())
    # The way of the flow is 1 / sqrt(1 - 2 tau) - 1.
    assert found.parted == pytest.approx(0.3)


def test_stationary_point():
    """Closed form: neither leaves it, so nothing over nothing is no distance."""
    found = flow.parting(FIELD, jax.tree.map(jnp.zeros_like, START), step_size=0.1, steps=STEPS)
    np.testing.assert_array_equal(found.relative, 4 * [0])
    assert np.isnan(found.parted)


def test_single_precision():
    """Closed form: float32 parameters, distances to their round-off and the flow's tolerance."""
    theta = jax.tree.map(lambda leaf: leaf.astype(np.float32), START)
    found = flow.parting(FIELD, theta, step_size=0.1, steps=STEPS)
    assert found.sharpness.largest.dtype == np.float32
    np.testing.assert_allclose(found.distance, exact(0.1, STEPS)[0], atol=1e-3)


def test_compiles_once():
    """Equality: a second comparison of other parameters traces the energy 0 times."""
    traces = []

    def counted(theta):
        traces.append(None)
        return jnp.sum(theta**4)

    counts = []
    for start in (0.1, 0.2):
        field = flow.gradient_field(counted)
        flow.parting(field, start * jnp.ones(3), step_size=0.1, steps=[0, 2])
        counts.append(len(traces))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": 0.0}, "step_size must be a finite number > 0, got 0.0"),
        ({"steps": [0]}, r"steps must end at 1 or later, got \[0\]"),
        ({"steps": []}, "steps must be a list of whole numbers, got"),
        ({"steps": [0, 2, 1]}, "steps must be >= 0 and increasing, got"),
        ({"steps": [0.5, 1.5]}, "steps must be a list of whole numbers, got"),
        ({"threshold": -1.0}, "threshold must be a finite number > 0"),
        ({"tolerance": 0.0}, "tolerance must be a finite number > 0"),
        ({"rtol": 0.0}, "rtol must be"),
    ],
)
def test_refusals(options, message):
    """Closed form: got, expected; before anything runs."""
    options = {"step_size": 0.1, "steps": [0, 1]} | options
    with pytest.raises(ValueError, match=f"^{message}"):
        flow.parting(FIELD, START, **options)
