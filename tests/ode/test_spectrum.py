"""Spectral radius and signed extreme eigenvalues against dense eigenvalues."""

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meanfield import ode
from meanfield.ode.radius import probe


def symmetric(rng, eigenvalues):
    n = len(eigenvalues)
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return basis * eigenvalues @ basis.T


@jax.jit
def radius_of(matrix, direction, previous, tolerance):
    return ode.spectral_radius(lambda v: matrix @ v, direction, previous, tolerance=tolerance)


@jax.jit
def extremes_of(matrix, previous):
    return ode.extreme_eigenvalues(lambda v: matrix @ v, jnp.zeros(100), previous=previous)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [3, 40, 300])
@pytest.mark.parametrize("kind", ["semicircle", "outliers", "nonsymmetric"])
def test_radius_with_safety_is_an_upper_bound(kind, size, seed):
    """Independent library: numpy's dense eigenvalues; 1.2 is the safety of RKC2."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(size, size))
    matrix = -(matrix @ matrix.T) / size if kind != "semicircle" else matrix + matrix.T
    if kind == "outliers":
        matrix = symmetric(rng, -(np.logspace(0, 4, size)))
    if kind == "nonsymmetric":
        skew = rng.normal(size=(size, size))
        matrix = matrix + 0.05 * (skew - skew.T) / np.sqrt(size)
    radius = np.max(np.abs(np.linalg.eigvals(matrix)))
    start = probe(jnp.zeros(size))
    found = radius_of(matrix, start, jnp.zeros(()), 0.01)
    assert radius <= 1.2 * float(found.value)
    assert float(found.value) < 1.1 * radius
    again = radius_of(1.03 * matrix, found.direction, found.value, 0.05)
    assert int(again.products) == 1
    assert 1.03 * radius <= 1.2 * float(again.value)


def test_radius_without_products():
    """Closed form: no product allowed, the old value returned; the zero operator has radius 0."""
    start = probe(jnp.zeros(4))
    kept = ode.spectral_radius(lambda v: v, start, jnp.asarray(7.0), max_products=0)
    assert (float(kept.value), int(kept.products)) == (7.0, 0)
    none = ode.spectral_radius(lambda v: 0 * v, start, jnp.zeros(()))
    assert float(none.value) == 0.0
    np.testing.assert_array_equal(none.direction, start)


def test_sharpness_is_signed():
    """Closed form: -12 beats 10 in size, and the largest eigenvalue is still 10."""
    eigenvalues = np.concatenate([[-12.0, 10.0], np.linspace(-5, 5, 60)])
    matrix = jnp.asarray(symmetric(np.random.default_rng(0), eigenvalues))
    found = ode.extreme_eigenvalues(lambda v: matrix @ v, jnp.zeros(62), tolerance=1e-6)
    np.testing.assert_allclose([found.largest, found.smallest], [10, -12], rtol=1e-9)
    for value, vector in zip((10, -12), found.vectors, strict=True):
        np.testing.assert_allclose(matrix @ vector, value * vector, atol=1e-4)
    assert float(jnp.max(found.residuals)) < 1e-6 * 12
    assert int(found.products) < 40


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_residual_bounds_the_error(dtype):
    """Theorem: an eigenvalue lies within the residual of a Ritz value."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(150, 150))
    matrix = matrix @ matrix.T / 150
    values = np.linalg.eigvalsh(matrix)
    operator = jnp.asarray(matrix, dtype)
    found = ode.extreme_eigenvalues(lambda v: operator @ v, jnp.zeros(150, dtype), max_products=20)
    slack = helpers.round_off(dtype) * values[-1]
    for value, residual in zip((found.largest, found.smallest), found.residuals, strict=True):
        assert np.min(np.abs(values - float(value))) <= float(residual) + slack


def test_warm_start_saves_products_and_sees_crossings():
    """Independent library: numpy, along a family whose largest eigenvector changes."""
    rng = np.random.default_rng(2)
    first = symmetric(rng, np.concatenate([[30.0, 20.0], np.linspace(-1, 1, 98)]))
    other = first + 25 * np.outer(*2 * [np.linalg.eigh(first)[1][:, -2]])
    nearby = first * 1.01

    cold = extremes_of(first, None)
    for matrix in (nearby, other):
        warm = extremes_of(matrix, cold)
        values = np.linalg.eigvalsh(matrix)
        np.testing.assert_allclose(warm.largest, values[-1], rtol=1e-5)
        np.testing.assert_allclose(warm.smallest, values[0], atol=1e-3 * values[-1])
    assert int(extremes_of(nearby, cold).products) <= int(cold.products)


def test_small_spaces_and_trees():
    """Closed form: fewer dimensions than products, spread over a tree; and the zero operator."""
    scales = {"a": jnp.array([1.0, -3.0]), "b": jnp.array(2.0)}

    def product(v):
        return jax.tree.map(jnp.multiply, scales, v)

    found = jax.jit(lambda: ode.extreme_eigenvalues(product, scales))()
    np.testing.assert_allclose([found.largest, found.smallest], [2, -3], rtol=1e-12)
    zero = ode.extreme_eigenvalues(lambda v: 0 * v, jnp.zeros(5))
    assert float(zero.largest) == float(zero.smallest) == 0.0


def test_weighted_operator_has_the_eigenvalues_of_the_flow():
    """Independent library: numpy's eigenvalues of the nonsymmetric product s H."""
    rng = np.random.default_rng(3)
    hessian = symmetric(rng, np.linspace(-2, 5, 30))
    weights = rng.uniform(1, 50, size=30)
    operator = ode.weighted(lambda v: jnp.asarray(hessian) @ v, jnp.asarray(weights))
    found = ode.extreme_eigenvalues(operator, jnp.zeros(30), tolerance=1e-8)
    values = np.sort(np.linalg.eigvals(weights[:, None] * hessian).real)
    np.testing.assert_allclose([found.smallest, found.largest], values[[0, -1]], rtol=1e-8)
    vector = np.sqrt(weights) * found.vectors[0]
    np.testing.assert_allclose(weights * (hessian @ vector), values[-1] * vector, atol=1e-5)


def test_refuses_options():
    """Closed form: non-positive tolerances and counts."""
    with pytest.raises(ValueError, match="tolerance must be"):
        ode.extreme_eigenvalues(lambda v: v, jnp.ones(2), tolerance=0.0)
    with pytest.raises(ValueError, match="max_products must be"):
        ode.extreme_eigenvalues(lambda v: v, jnp.ones(2), max_products=0)
