"""The spectral radius by products that are differences of the field."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meanfield.ode.attempt import Point, attempt
from meanfield.ode.radius import Search, probe, probing_length, spectral_radius, unproven

MIXING = np.random.default_rng(0).normal(size=(30, 30))


def descent(y):
    """Minus the gradient of a nonlinear least-squares problem, parameters of two scales."""

    def risk(y):
        return jnp.sum(jnp.tanh(jnp.asarray(MIXING, y["a"].dtype) @ y["a"] + y["b"]) ** 2) / 2

    return jax.tree.map(jnp.negative, jax.grad(risk)(y))


def radius_of(rate, y, *, h=1e-3, known=False, products=40):
    """The radius that a step finds by differences, without any stage."""
    real = jax.tree.leaves(y)[0].real.dtype
    field = rate(y) if known else jax.tree.map(jnp.zeros_like, y)
    start = Point(jnp.zeros((), real), y, field, known)
    radius = unproven(jnp.zeros((), real), probe(y))
    search = Search(0.001, products, 0.0)
    return attempt(
        lambda t, y: rate(y),
        start,
        jnp.asarray(h, real),
        radius,
        search=search,
        stages=lambda value: 0,
        most=60,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 0.01), (jnp.float64, 1e-4)])
@pytest.mark.parametrize("known", [False, True])
def test_differences_agree_with_products(dtype, tolerance, known):
    """Independent library: as many steps of power iteration on products by jax.jvp."""
    rng = np.random.default_rng(1)
    y = {"a": jnp.asarray(0.1 * rng.normal(size=30), dtype), "b": jnp.asarray(3.0, dtype)}
    found = radius_of(descent, y, known=known)
    expected = spectral_radius(
        lambda v: jax.jvp(descent, (y,), (v,))[1],
        probe(y),
        jnp.zeros((), dtype),
        tolerance=0.0,
        max_products=found.radius.products,
    )
    assert found.radius.value.dtype == dtype
    np.testing.assert_allclose(found.radius.value, expected.value, rtol=tolerance)
    assert int(found.evaluations) == int(found.radius.products) + (not known)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.complex128])
@pytest.mark.parametrize(("start", "offset"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1e-6, 1.0)])
def test_differences_at_zeros(dtype, start, offset):
    """Closed form: the radius of a linear map is 700 where state, field or both vanish."""
    rates = jnp.asarray([1.0, 20.0, 700.0], dtype)

    def rate(y):
        return offset - rates * (y - start * (1 - offset))

    found = radius_of(rate, jnp.full(3, start, dtype))
    np.testing.assert_allclose(found.radius.value, 700, rtol=0.01)


def classifier(y):
    """Minus the gradient of the cross-entropy of 40 ReLU neurons, in units of width."""
    rng = np.random.default_rng(2)
    real = y["inner"].dtype
    inputs, labels = (
        jnp.asarray(rng.normal(size=(32, 8)), real),
        jnp.asarray(rng.integers(5, size=32)),
    )

    def risk(y):
        logits = jax.nn.relu(inputs @ y["inner"]) @ y["outer"] / 40
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
        return -40 * jnp.mean(chosen)

    return jax.tree.map(jnp.negative, jax.grad(risk)(y))


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_kinks_do_not_keep_a_search_busy_in_single_precision(scale):
    """Independent library: float32 differences settle, on the radius of jax.jvp in float64."""
    rng = np.random.default_rng(3)
    draw = {"inner": scale * rng.normal(size=(8, 40)), "outer": scale * rng.normal(size=(40, 5))}
    y = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), draw)
    found = radius_of(classifier, y, products=50)
    exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), y)
    expected = spectral_radius(
        lambda v: jax.jvp(classifier, (exact,), (v,))[1],
        probe(exact),
        jnp.zeros(()),
        tolerance=0.001,
    )
    assert int(found.radius.products) <= int(expected.products) + 5 < 40
    np.testing.assert_allclose(found.radius.value, expected.value, rtol=0.03)


def test_no_motion_anywhere():
    """Closed form: a field that is zero everywhere has radius zero, and products do end."""
    found = radius_of(jnp.zeros_like, jnp.zeros(3))
    assert float(found.radius.value) == 0
    assert int(found.radius.products) <= 40
    assert bool(jnp.all(jnp.isfinite(found.radius.direction)))


def test_length_of_a_probe():
    """Closed form: two thirds of the digits of the larger of |y| and h |F|, or of one."""
    eps = np.finfo(np.float64).eps
    for y, field, expected in ((3.0, 1.0, 3.0), (1.0, 40.0, 4.0), (0.0, 0.0, 1.0)):
        found = probing_length(jnp.array([y]), jnp.array([field]), jnp.array(0.1))
        np.testing.assert_allclose(found, expected * eps ** (2 / 3), rtol=1e-12)
