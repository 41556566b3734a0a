import jax.numpy as jnp
import numpy as np
import pytest

from meanfield import flow
from meanfield.flow.start import first_step


def bent(theta):
    """A stiff energy that is no quadratic."""
    return jnp.sum(jnp.array([1.0, 30.0, 900.0]) * theta**2) / 2 + jnp.sum(theta**4) / 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_units_of_energy_do_not_matter(dtype):
    """Invariance: c Q over a time 1/c is the same flow; it costs the same, to a step or two."""
    start, costs = jnp.array([1.0, -2.0, 0.5], dtype), []
    for unit in (1.0, 1e4):
        field = flow.gradient_field(lambda theta, unit=unit: unit * bent(theta).astype(dtype))
        record = flow.gradient_flow(field, start, [0.0, 3.0 / unit])
        assert record.result == "completed"
        costs.append(record.statistics["gradients"])
    assert abs(costs[1] - costs[0]) < 0.03 * costs[0], costs


def test_a_flow_at_the_border_of_its_domain():
    """Independent library: a probe of the radius over the border of x > 0 does not end the flow."""

    def energy(theta):
        rest = theta[1:]
        return 50 * (theta[0] - 0.5) ** 2 + jnp.sum(rest**2 / 2 * jnp.log(rest) - rest**2 / 4)

    field, start = flow.gradient_field(energy), jnp.array([1.0, 1e-9, 1e-9, 1e-9])
    record = flow.gradient_flow(field, start, [0.0, 1.0], rtol=1e-4, atol=1e-12)
    assert record.result == "completed", record.message
    # x' = -x log x, so log x grows like exp(-t).
    np.testing.assert_allclose(record.theta[1:], np.exp(np.log(1e-9) * np.exp(-1)), rtol=0.02)


def test_steps_that_time_resolves():
    """Closed form: far from time 0, the first step is not below the resolution of time."""
    field = flow.gradient_field(lambda theta: 1e4 * jnp.sum(theta**2) / 2)
    first = first_step(field, jnp.ones(2, "float32"), np.array([1000.0, 1001.0]), 1e-6)
    assert np.float32(1000) + np.float32(first) > np.float32(1000)
    record = flow.gradient_flow(field, jnp.ones(2, "float32"), [1000.0, 1001.0], max_steps=100)
    # Steps that shrink the error enough are below the resolution: said so, and not repeated.
    assert record.result == "diverged"
    assert record.statistics["steps"] < 20
