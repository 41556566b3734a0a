"""The distances behind one signature, for the tests that hold for all of them."""

import functools

import jax
import numpy as np
import pytest
from helpers import round_off

from meanfield import measure

KEY = jax.random.key(3)


def _line(x, y, *, p=2, **weights):
    return measure.wasserstein_1d(x[:, 0], y[:, 0], p=p, **weights)


def _sinkhorn(x, y, *, p=2, **options):
    del p
    return measure.sinkhorn_divergence(x, y, tolerance=1e-12, **options)


def _gaussian(x, y, *, p=2, **options):
    del p
    return measure.mmd(x, y, **options)


def _energy(x, y, *, p=2, **options):
    del p
    return measure.energy_distance(x, y, **options)


# Distance of two clouds, and the dimension of the clouds it is tried on.
FAMILY = {
    "exact": (measure.wasserstein, 3),
    "line": (_line, 1),
    "sliced": (functools.partial(measure.sliced_wasserstein, KEY, projections=16), 3),
    "sinkhorn": (_sinkhorn, 3),
    "gaussian": (_gaussian, 3),
    "energy": (_energy, 3),
}
# Those that have an order p; the others have one case where these have several.
TRANSPORT = ("exact", "line", "sliced")
TRACED = tuple(name for name in FAMILY if name != "exact")
# What a choice made from the two clouds would spoil: the triangle inequality, for instance.
FIXED = {"sinkhorn": {"epsilon": 1.0}, "gaussian": {"bandwidth": 1.5}}
# Equal widths, a simple ratio (assignment of repeated points), a ratio that needs the program.
SIZES = [(7, 7), (6, 9), (11, 7)]
_CASES = [(7, 7, 1), (7, 7, 5), (6, 9, 2), (11, 7, 1.5), (11, 7, 2)]
# One program for each size: enough for those without an order, whose compilation takes seconds.
_CASE = (6, 9, 2)

every_distance = pytest.mark.parametrize("name", FAMILY)
every_size = pytest.mark.parametrize(("m", "n"), SIZES)
every_case = pytest.mark.parametrize(("m", "n", "p"), _CASES)
every_distance_and_order = pytest.mark.parametrize(
    ("name", "p"),
    [(name, p) for name in TRANSPORT for p in (1, 1.5, 5)]
    + [(name, 2) for name in FAMILY if name not in TRANSPORT],
)
every_distance_and_case = pytest.mark.parametrize(
    ("name", "m", "n", "p"),
    [(name, *case) for name in TRANSPORT for case in _CASES]
    + [(name, *_CASE) for name in FAMILY if name not in TRANSPORT],
)


def two_clouds(m, n, dim, seed=0):
    """Normal clouds of m and n points, the second off the origin."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, dim)), rng.normal(size=(n, dim)) + 0.5


def weights(size, seed=0):
    """Unequal weights of sum 1."""
    drawn = np.random.default_rng(seed).uniform(0.2, 1.0, size)
    return drawn / drawn.sum()


def assert_round_off(value, expected, scale=1.0):
    """Equality up to a few hundred epsilons of values of size `scale`."""
    np.testing.assert_allclose(value, expected, rtol=round_off(), atol=round_off() * scale)


def draws(x, y, *, repeats, projections, p=2, seed=7):
    """Independent Monte Carlo values of the sliced distance."""
    keys = jax.random.split(jax.random.key(seed), repeats)
    sliced = functools.partial(measure.sliced_wasserstein, p=p, projections=projections)
    return np.asarray(jax.jit(jax.vmap(sliced, in_axes=(0, None, None)))(keys, x, y))
