import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield.nn import exponents

FACTOR = 0.7
# Beside a multiple of the lanes derivatives have a rule of their own.
SIZES = (1, 3, exponents.LANES, exponents.LANES + 1)
either = pytest.mark.parametrize("of_rows", [True, False])
every_size = pytest.mark.parametrize("size", SIZES)


def vectors(size, dtype=np.float64):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(n, size)), dtype) for n in (4, 6))


def differences(queries, keys, *, of_rows):
    """Oracle: squares of differences, less the queries' norms where they are left out."""
    found = jnp.sum((queries[:, None] - keys[None]) ** 2, axis=-1)
    return -FACTOR * (found if of_rows else found - jnp.sum(queries**2, axis=-1, keepdims=True))


@either
@every_size
@pytest.mark.parametrize("dtype", [np.float64, np.float32, jnp.bfloat16])
def test_against_differences(size, of_rows, dtype):
    """Oracle: squares of differences in double precision."""
    given = vectors(size, dtype)
    found = exponents.distances(*given, FACTOR, of_rows=of_rows)
    wide = [np.asarray(leaf, np.float64) for leaf in given]
    assert found.dtype == jnp.promote_types(dtype, jnp.float32)
    largest = FACTOR * 4 * max(np.sum(leaf**2, axis=-1).max() for leaf in wide)
    np.testing.assert_allclose(
        found, differences(*wide, of_rows=of_rows), rtol=0, atol=round_off(found.dtype) * largest
    )


@either
@every_size
def test_derivatives(size, of_rows):
    """Theorem: every derivative, in both modes, is that of the squared differences."""
    given = vectors(size)
    ours = functools.partial(exponents.distances, of_rows=of_rows)

    def weighed(function):
        def sum_of_weights(both):
            weights = jnp.exp(function(*both))
            return jnp.sum(jnp.sin(jnp.arange(weights.size)) * weights.ravel())

        return sum_of_weights

    found = weighed(lambda queries, keys: ours(queries, keys, FACTOR))
    known = weighed(functools.partial(differences, of_rows=of_rows))
    for take in (jax.grad, jax.jacfwd, jax.hessian):
        # The Hessian is forward over reverse.
        for one, other in zip(
            jax.tree.leaves(take(found)(given)), jax.tree.leaves(take(known)(given)), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


@either
@pytest.mark.parametrize("size", [3, exponents.LANES])
def test_batched(size, of_rows):
    """Invariance: under vmap over queries, over keys, and over both."""
    both = vectors(size)
    stacked = [jnp.stack([leaf, 2 * leaf]) for leaf in both]
    distances = functools.partial(exponents.distances, of_rows=of_rows)
    for mapped in ((True, False), (False, True), (True, True)):
        given = [many if on else one for on, many, one in zip(mapped, stacked, both, strict=True)]
        axes = tuple(0 if on else None for on in mapped)
        found = jax.vmap(lambda *each: distances(*each, FACTOR), in_axes=axes)(*given)
        for at in range(2):
            one = [leaf[at] if on else leaf for on, leaf in zip(mapped, given, strict=True)]
            known = distances(*one, FACTOR)
            np.testing.assert_allclose(found[at], known, rtol=1e-13, atol=1e-13)


@either
def test_factors_of_two_precisions(of_rows):
    """Oracle: squares of differences; keys of sixteen bits are widened before they are squared."""
    queries, keys = vectors(3, np.float32)
    keys = keys.astype(jnp.bfloat16)
    found = exponents.distances(queries, keys, FACTOR, of_rows=of_rows)
    wide = [np.asarray(leaf, np.float64) for leaf in (queries, keys)]
    np.testing.assert_allclose(found, differences(*wide, of_rows=of_rows), rtol=1e-5, atol=1e-5)


@either
def test_on_another_device(of_rows, monkeypatch):
    """Invariance: elsewhere the rule is not taken, and the numbers are the same."""
    given = vectors(3)
    distances = functools.partial(exponents.distances, of_rows=of_rows)
    here = jax.jacrev(lambda queries: distances(queries, given[1], FACTOR))(given[0])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    there = jax.jacrev(lambda queries: distances(queries, given[1], FACTOR))(given[0])
    np.testing.assert_allclose(here, there, rtol=1e-13, atol=1e-13)
