import jax
import jax.numpy as jnp
import numpy as np
from helpers import round_off

from meanfield import flow

FIELD = flow.gradient_field(lambda theta: jnp.sum(theta["x"] ** 2) / 2)
START = {"x": jnp.array([3.0, 4.0]), "none": ()}
TIMES = [0.0, 0.5, 1.0]


def itself(theta):
    return theta


def test_observable_with_empty_branches():
    """Invariance: theta itself, which here has an empty branch, is saved with its structure."""
    record = flow.gradient_flow(FIELD, START, TIMES, observe=itself)
    assert jax.tree.structure(record.observables) == jax.tree.structure(START)
    np.testing.assert_array_equal(record.observables["x"][0], START["x"])
    np.testing.assert_allclose(record.observables["x"][-1], record.theta["x"], rtol=round_off())
