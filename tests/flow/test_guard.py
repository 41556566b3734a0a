import re

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import flow


@pytest.mark.parametrize("solver", [None, diffrax.Tsit5()])
def test_blow_up(solver):
    """Closed form: theta' = theta^2 ends at 1/theta_0; the record stops there and says so."""
    field = flow.gradient_field(lambda theta: -(theta**3) / 3)
    record = flow.gradient_flow(
        field, jnp.array(0.5), [0.0, 1.0, 1.9, 3.0], solver=solver, observe=lambda theta: theta
    )
    assert record.result == "diverged"
    np.testing.assert_allclose(record.end_time, 2.0, rtol=5e-3)
    np.testing.assert_array_equal(record.times, [0.0, 1.0, 1.9])
    expected = [0.5, 1.0, 10.0]
    np.testing.assert_allclose(record.observables, expected, rtol=0.05)
    assert np.isfinite(record.theta)
    assert record.theta > 100
    assert re.match(r"stopped at time (1\.9\d*|2|2\.0\d*) of 3: no smaller step", record.message)


@pytest.mark.parametrize("solver", [None, diffrax.Tsit5()])
def test_field_that_ends(solver):
    """Closed form: theta' = 1 until the energy is NaN beyond theta = 1, hence beyond time 1."""
    field = flow.gradient_field(lambda theta: jnp.where(theta > 1, jnp.nan, -1.0) * theta)
    record = flow.gradient_flow(
        field, jnp.array(0.0), [0.0, 0.5, 2.0], solver=solver, observe=lambda theta: theta
    )
    assert record.result == "diverged"
    np.testing.assert_array_equal(record.times, [0.0, 0.5])
    np.testing.assert_allclose(record.observables, [0.0, 0.5], atol=1e-6)
    assert 0.5 <= record.end_time <= 1.0 + round_off()
    np.testing.assert_allclose(record.theta, record.end_time, atol=1e-6)


def test_nan_at_the_start():
    """House rule: no flow starts where its energy is no number, and one sentence says so."""
    field = flow.gradient_field(lambda theta: theta * jnp.nan)
    with pytest.raises(ValueError, match="the energy at the start must be finite, got nan: check"):
        flow.gradient_flow(field, jnp.array(1.0), [0.0, 1.0])
