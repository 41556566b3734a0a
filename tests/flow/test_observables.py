import jax
import jax.numpy as jnp
import numpy as np
import pytest
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


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint16, jnp.int32, jnp.uint32, jnp.int64, bool])
def test_whole_numbers_are_saved_as_they_are(dtype):
    """Closed form: 0, 1 and the extremes of a type, at every time and without a warning."""
    extremes = [] if dtype is bool else [jnp.iinfo(dtype).min, jnp.iinfo(dtype).max]
    numbers = np.array([0, 1, *extremes], dtype)
    record = flow.gradient_flow(
        FIELD, START, TIMES, observe=lambda theta: jnp.asarray(numbers) * (theta["x"][0] > 0)
    )
    assert record.observables.dtype == dtype
    np.testing.assert_array_equal(record.observables, [numbers] * len(TIMES))
