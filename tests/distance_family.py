"""The distances behind one signature, for the tests that hold for all of them."""

import functools

import jax
import numpy as np
import pytest
from helpers import round_off

from meanfield import measure

KEY = jax.random.key(3)

# Distance of two clouds, and the dimension of the clouds it is tried on.
FAMILY = {
    "exact": (measure.wasserstein, 3),
    "line": (lambda x, y, *, p=2: measure.wasserstein_1d(x[:, 0], y[:, 0], p=p), 1),
    "sliced": (functools.partial(measure.sliced_wasserstein, KEY, projections=16), 3),
}
# Equal widths, a simple ratio (assignment of repeated points), a ratio that needs the program.
SIZES = [(7, 7), (6, 9), (11, 7)]

every_distance = pytest.mark.parametrize("name", FAMILY)
every_size = pytest.mark.parametrize(("m", "n"), SIZES)
every_case = pytest.mark.parametrize(
    ("m", "n", "p"), [(7, 7, 1), (7, 7, 5), (6, 9, 2), (11, 7, 1.5), (11, 7, 2)]
)


def two_clouds(m, n, dim, seed=0):
    """Normal clouds of m and n points, the second off the origin."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, dim)), rng.normal(size=(n, dim)) + 0.5


def assert_round_off(value, expected, scale=1.0):
    """Equality up to a few hundred epsilons of values of size `scale`."""
    np.testing.assert_allclose(value, expected, rtol=round_off(), atol=round_off() * scale)


def draws(x, y, *, repeats, projections, p=2, seed=7):
    """Independent Monte Carlo values of the sliced distance."""
    keys = jax.random.split(jax.random.key(seed), repeats)
    sliced = functools.partial(measure.sliced_wasserstein, p=p, projections=projections)
    return np.asarray(jax.jit(jax.vmap(sliced, in_axes=(0, None, None)))(keys, x, y))
