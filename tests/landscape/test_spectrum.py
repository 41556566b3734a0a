import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import landscape

RNG = np.random.default_rng(0)
KEY = jax.random.key(5)
SIZE, PROBES = 150, 60
BASIS = np.linalg.qr(RNG.normal(size=(SIZE, SIZE)))[0]
# The negative outlier is larger in size than every positive eigenvalue.
VALUES = np.concatenate([[-9.0, -8.0, 5.0, 4.0], RNG.gamma(0.5, size=SIZE - 4)])
MATRIX = (BASIS * VALUES) @ BASIS.T


def form(x):
    return x @ jnp.asarray(MATRIX, x.dtype) @ x / 2


@functools.cache
def density(dtype=np.float64):
    return landscape.spectral_density(KEY, form, jnp.zeros(SIZE, dtype), probes=PROBES, steps=24)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_moments_of_a_known_spectrum(dtype):
    """Closed form: four moments within 3 errors, of variance 2 (m_2p - m_p^2) / (n + 2) each."""
    found = landscape.spectral_moments(density(dtype))
    exact = np.array([np.mean(VALUES**p) for p in range(1, 9)])
    errors = np.sqrt(2 * (exact[[1, 3, 5, 7]] - exact[:4] ** 2) / (SIZE + 2) / PROBES)
    np.testing.assert_allclose(found.standard_error, errors, rtol=0.4)
    assert np.all(np.abs(found.mean - exact[:4]) < 3 * errors)
    # The caps have power: signs forgotten, or the outliers lost, are far outside.
    assert abs(found.mean[2] - np.mean(np.abs(VALUES) ** 3)) > 6 * errors[2]
    assert abs(found.mean[3] - np.mean(VALUES[2:] ** 4)) > 6 * errors[3]


def test_quadratures():
    """Theorem: weights are a probability; degree 2 k - 1 is exact, so that 3 steps are as 24."""
    found = density()
    assert found.weights.shape == found.nodes.shape == (PROBES, 24)
    assert np.all(found.weights >= 0)
    np.testing.assert_allclose(np.sum(found.weights, axis=1), 1, rtol=round_off())
    np.testing.assert_allclose(np.min(found.nodes, axis=1), -9, rtol=1e-6)
    np.testing.assert_allclose(np.max(found.nodes, axis=1), VALUES.max(), rtol=1e-6)
    short = landscape.spectral_density(KEY, form, jnp.zeros(SIZE), probes=PROBES, steps=3)
    for power in range(6):
        np.testing.assert_allclose(
            np.sum(short.weights * short.nodes**power, axis=1),
            np.sum(found.weights * found.nodes**power, axis=1),
            rtol=1e-10,
        )


def test_broadened_density():
    """Closed form: the spectrum with normal densities in place of its points, within 4 errors."""
    found = landscape.broadened_density(density(), width=0.7)
    steps = (found.grid[:, None] - VALUES[None, :]) / 0.7
    exact = np.mean(np.exp(-(steps**2) / 2), axis=1) / (0.7 * np.sqrt(2 * np.pi))
    assert np.all(np.abs(found.density - exact) < 4 * found.standard_error + 1e-4)
    assert 0 < np.max(found.standard_error) < 0.02
    assert np.max(found.density) > 0.2
    np.testing.assert_allclose(np.trapezoid(found.density, found.grid), 1, atol=1e-3)
    assert found.grid[0] < -9 - 2 < VALUES.max() + 2 < found.grid[-1]


def test_density_within_marks():
    """Closed form: five steps within five numbers find the whole block, and nothing but it."""
    marks = np.zeros(SIZE)
    marks[[3, 8, 50, 51, 120]] = 1
    block = MATRIX[np.ix_(marks > 0, marks > 0)]
    found = landscape.spectral_density(KEY, form, jnp.zeros(SIZE), probes=3, within=marks)
    assert found.nodes.shape == (3, 5)
    for nodes in found.nodes:
        np.testing.assert_allclose(nodes, np.linalg.eigvalsh(block), atol=1e-10)
    np.testing.assert_allclose(np.sum(found.weights, axis=1), 1, rtol=round_off())


def test_probes_are_nested():
    """Equality: more probes from one key keep the first ones; more steps than numbers are cut."""
    few = landscape.spectral_density(KEY, jnp.sum, jnp.ones(3), probes=2)
    assert few.nodes.shape == (2, 3)
    np.testing.assert_array_equal(np.sum(few.weights * few.nodes, axis=1), 0)
    one_point = landscape.broadened_density(few)
    assert one_point.width == 0.01

    def quartic(x):
        return jnp.sum(jnp.arange(1.0, 7.0) * x**4)

    sets = [
        landscape.spectral_density(KEY, quartic, jnp.ones(6), probes=probes, steps=4)
        for probes in (2, 3)
    ]
    np.testing.assert_allclose(sets[1].nodes[:2], sets[0].nodes, rtol=round_off())
    assert np.max(np.abs(sets[1].nodes[2] - sets[1].nodes[1])) > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: landscape.spectral_density(KEY, jnp.sum, x, probes=0), "probes must be an int"),
        (lambda x: landscape.spectral_density(KEY, jnp.sum, x, steps=0), "steps must be"),
        (lambda x: landscape.spectral_density(KEY, jnp.sin, x), r"number, got shape \(3,\)"),
        (
            lambda x: landscape.spectral_density(KEY, lambda y: jnp.sum(jnp.sqrt(-y)), x),
            "the Hessian must be finite at the parameters, got weights that sum to",
        ),
        (lambda x: landscape.spectral_moments(density(), number=0), "number must be an integer"),
        (lambda x: landscape.broadened_density(density(), width=0.0), "width must be a finite"),
        (lambda x: landscape.broadened_density(density(), grid=[]), "grid must be a non-empty"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    """Closed form: what is wrong with the input, in one sentence."""
    with pytest.raises(ValueError, match=message):
        call(jnp.ones(3))
