import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from jax.flatten_util import ravel_pytree

from meanfield import flow, nn, tasks

DATA = tasks.in_context_regression(jax.random.key(0), 12, context=4, dim=2)
MODEL = nn.model(
    nn.identity(),
    nn.network((nn.attention(dim=3, head_dim=2), nn.mlp(dim=3)), depth=2),
    nn.label_read(),
)
RISK = flow.empirical_risk(MODEL.apply, DATA.tokens, DATA.labels)
ENERGY = flow.energy(RISK, MODEL.decay_scales, weight_decay=0.1)
THETA = MODEL.init(jax.random.key(1), width=3)


def dense_hessian(energy, theta):
    """The Hessian as a matrix."""
    flat, restore = ravel_pytree(theta)
    return jax.hessian(lambda x: energy(restore(x)))(flat)


@functools.cache
def network_hessian():
    return jax.jit(functools.partial(dense_hessian, ENERGY))(THETA)


def dense(field, theta, hessian):
    """Eigenvalues of sqrt(s) H sqrt(s) over what trains, by numpy."""
    factors = jax.tree.map(lambda s, x: s * jnp.ones_like(x), field.metric(theta), theta)
    weights = np.asarray(ravel_pytree(factors)[0], float)
    root, kept = np.sqrt(weights), weights > 0
    return np.linalg.eigvalsh((root[:, None] * np.asarray(hessian) * root)[kept][:, kept])


def curvature(scales):
    """Energy with the given curvatures along the axes."""
    return lambda theta: jnp.sum(jnp.asarray(scales, theta.dtype) * theta**2) / 2


# In the second the attention heads are held fixed.
@pytest.mark.parametrize("blocks", [True, (False, True)])
def test_network_against_dense_eigenvalues(blocks):
    """Independent library: numpy's eigenvalues of the dense sqrt(s) H sqrt(s), s = L M and 1."""
    trainable = THETA._replace(embedding=True, blocks=blocks, readout=True)
    field = flow.gradient_field(ENERGY, MODEL.time_scales, trainable=trainable)
    values = dense(field, THETA, network_hessian())
    found = jax.jit(flow.sharpness(field, tolerance=1e-6))(THETA)
    assert values[0] < 0 < values[-1]
    np.testing.assert_allclose(
        [found.smallest, found.largest], values[[0, -1]], atol=1e-8 * values[-1]
    )
    assert bool(found.converged)
    assert float(jnp.max(found.residuals)) <= 1e-6
    assert int(found.products) < len(values)


def test_signs():
    """Closed form: -12 beats 10 in size, and the largest eigenvalue is still 10."""
    scales = np.concatenate([[-12.0, 10.0], np.linspace(-3, 3, 48)])
    found = flow.sharpness(flow.gradient_field(curvature(scales)))(jnp.ones(50))
    np.testing.assert_allclose([found.largest, found.smallest], [10, -12], rtol=1e-5)
    # The residuals are relative to the largest |eigenvalue|, which is not the largest one here.
    assert float(found.residuals[1]) <= 1e-3


def test_what_is_held_fixed_does_not_count():
    """Closed form: the smallest eigenvalue of what trains, and not the 0 of what does not."""
    field = flow.gradient_field(
        lambda theta: curvature([5.0, 2.0])(theta["a"]) + curvature([90.0])(theta["b"]),
        lambda theta: {"a": 3.0, "b": 1.0},
        trainable={"a": True, "b": False},
    )
    theta = {"a": jnp.array([1.0, 2.0]), "b": jnp.ones(1)}
    found = flow.sharpness(field)(theta)
    np.testing.assert_allclose([found.largest, found.smallest], [15, 6], rtol=round_off())
    assert int(found.products) == 2


def test_time_scales_that_depend_on_theta():
    """Closed form: s Hess Q = (1 + x^2) 2; the Jacobian of the velocity would be 2 + 6 x^2."""
    field = flow.gradient_field(lambda x: x**2, lambda x: 1 + x**2)
    found = flow.sharpness(field)(jnp.array(3.0))
    np.testing.assert_allclose(found.largest, 20, rtol=round_off())


def test_single_precision():
    """Independent library: numpy's dense eigenvalues, for float32 parameters and numbers."""
    theta = jax.tree.map(lambda leaf: leaf.astype(np.float32), THETA)
    data = (DATA.tokens.astype(np.float32), DATA.labels.astype(np.float32))
    energy = flow.energy(
        flow.empirical_risk(MODEL.apply, *data), MODEL.decay_scales, weight_decay=0.1
    )
    field = flow.gradient_field(energy, MODEL.time_scales)
    found = jax.jit(flow.sharpness(field))(theta)
    values = dense(field, THETA, network_hessian())
    assert found.largest.dtype == found.residuals.dtype == np.float32
    assert bool(found.converged)
    # The error of an eigenvalue is far below the residual of 1e-3 that was asked for.
    np.testing.assert_allclose(
        [found.smallest, found.largest], values[[0, -1]], atol=1e-4 * values[-1]
    )


def test_along_a_flow():
    """Independent library: numpy's dense eigenvalues at every saved time; and both functions."""
    field = flow.gradient_field(
        lambda theta: jnp.sum(jnp.cos(theta["a"])) + jnp.sum(theta["a"] * theta["b"]) ** 2 / 2,
        lambda theta: {"a": 2.0, "b": 1.0},
    )
    rng = np.random.default_rng(0)
    theta = {name: jnp.asarray(rng.normal(size=8)) for name in "ab"}
    observe = {"sharpness": flow.sharpness(field, tolerance=1e-5), "theta": lambda theta: theta}
    record = flow.gradient_flow(field, theta, np.linspace(0, 1, 5), observe=observe)
    seen, thetas = record.observables["sharpness"], record.observables["theta"]
    along = flow.sharpness_along(field, thetas, tolerance=1e-5)
    hessians = jax.jit(jax.vmap(functools.partial(dense_hessian, field.energy)))(thetas)
    for time in range(5):
        values = dense(field, theta, hessians[time])
        scale = np.max(np.abs(values))
        for found in (seen, along):
            np.testing.assert_allclose(
                [found.smallest[time], found.largest[time]], values[[0, -1]], atol=1e-5 * scale
            )
    assert seen.converged.dtype == bool
    assert np.all(seen.converged)
    assert along.residuals.shape == (5, 2)
    assert int(along.products[0]) == int(seen.products[0])
    assert np.sum(along.products) < np.sum(seen.products)


RNG = np.random.default_rng(1)
BASIS = np.linalg.qr(RNG.normal(size=(200, 200)))[0]
BULK = np.concatenate([[-2.0, 9.0, 10.0], np.linspace(-1, 8, 197)])


def growing(theta):
    """A quadratic form of 200 numbers, whose matrix grows with the last parameter."""
    x, time = theta["x"], theta["time"]
    return (1 + time) * jnp.sum(jnp.asarray(BULK) * (jnp.asarray(BASIS.T) @ x) ** 2) / 2


def test_warm_start_costs_less():
    """Closed form: eigenvalues that grow slowly; the warm path spends fewer products a time."""
    field = flow.gradient_field(growing, trainable={"x": True, "time": False})
    times = jnp.linspace(0.0, 0.5, 11)
    thetas = {"x": jnp.zeros((11, 200)), "time": times}
    warm = flow.sharpness_along(field, thetas)
    cold = jax.jit(jax.vmap(flow.sharpness(field)))(thetas)
    for found in (warm, cold):
        np.testing.assert_allclose(found.largest, 10 * (1 + times), rtol=1e-5)
        np.testing.assert_allclose(found.smallest, -2 * (1 + times), rtol=1e-4)
        assert np.all(found.converged)
    assert int(warm.products[0]) == int(cold.products[0])
    assert np.all(np.asarray(warm.products[1:]) < 0.5 * np.asarray(cold.products[1:]))


def test_too_few_products():
    """Theorem: a Ritz value lies inside the spectrum; what is not converged says so."""
    field = flow.gradient_field(growing, trainable={"x": True, "time": False})
    theta = {"x": jnp.zeros(200), "time": jnp.zeros(())}
    found = flow.sharpness(field, max_products=5)(theta)
    assert not bool(found.converged)
    assert int(found.products) == 5
    assert -2 < float(found.smallest) < float(found.largest) < 10
    assert float(jnp.max(found.residuals)) > 1e-3
    along = flow.sharpness_along(
        field, jax.tree.map(lambda leaf: leaf[None], theta), max_products=5
    )
    assert not bool(along.converged[0])


@pytest.mark.parametrize("size", [3, 100])
def test_crossing_eigenvalues(size):
    """Closed form: two axes swap order along the path, exactly between two of its times."""
    bulk = jnp.linspace(-1.0, 1.0, size - 2)

    def energy(theta):
        time = theta["time"]
        scales = jnp.concatenate([jnp.stack([6 - time, 2 + time]), bulk])
        return jnp.sum(scales * theta["x"] ** 2) / 2

    field = flow.gradient_field(energy, trainable={"x": True, "time": False})
    times = np.arange(0, 4.6, 0.75)
    thetas = {"x": jnp.ones((len(times), size)), "time": jnp.asarray(times)}
    found = flow.sharpness_along(field, thetas)
    np.testing.assert_allclose(found.largest, np.maximum(6 - times, 2 + times), rtol=1e-5)
    # The end of a dense bulk is known to the residual asked for only.
    np.testing.assert_allclose(found.smallest, -1, atol=6e-3)
    assert np.all(found.converged)


def test_not_finite():
    """Closed form: a NaN Hessian is not converged, and does not spoil the time after it."""
    field = flow.gradient_field(curvature(np.linspace(1, 2, 20)))
    thetas = jnp.ones((3, 20))
    bent = flow.gradient_field(lambda x: field.energy(x) * jnp.where(x[0] > 1, jnp.nan, 1.0))
    found = flow.sharpness_along(bent, thetas.at[1, 0].set(2.0))
    np.testing.assert_array_equal(found.converged, [True, False, True])
    np.testing.assert_allclose(np.asarray(found.largest)[[0, 2]], 2, rtol=1e-5)
    zero = flow.sharpness(flow.gradient_field(jnp.sum))(jnp.ones(7))
    assert (float(zero.largest), float(zero.smallest), bool(zero.converged)) == (0, 0, True)


def test_compiles_once():
    """Equality: an observable built again, and a path of other parameters, trace Q 0 times."""
    traces = []

    def counted(theta):
        traces.append(None)
        return jnp.sum(theta**4)

    counts = []
    for start in (1.0, 2.0):
        field = flow.gradient_field(counted)
        observe = {"sharpness": flow.sharpness(field)}
        flow.gradient_flow(field, start * jnp.ones(7), [0.0, 0.1], observe=observe)
        flow.sharpness_along(field, start * jnp.ones((2, 7)))
        counts.append(len(traces))
    assert counts[0] == counts[1] > 0


def test_refusals():
    """Closed form: options out of range, paths of unequal lengths, a field that is traced."""
    field = flow.gradient_field(lambda theta: theta["x"] ** 2 + theta["y"] ** 2)
    for name, value in {"tolerance": 0.0, "max_products": 0}.items():
        with pytest.raises(ValueError, match=f"^{name} must be"):
            flow.sharpness(field, **{name: value})
    with pytest.raises(ValueError, match="^all leaves must share one length"):
        inspect.unwrap(flow.sharpness_along)(field, {"x": jnp.ones(3), "y": jnp.ones(2)})
    with pytest.raises(ValueError, match="^field must be known outside jit"):
        jax.jit(lambda field: flow.sharpness(field)(1.0))(field)
