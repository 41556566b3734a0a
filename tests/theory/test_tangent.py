import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from theory_problems import INPUTS, MODEL, READOUT, particles

from meanfield import nn, theory

THETA = nn.Theta((), particles(0), READOUT)


def jacobian_by_loop(apply, theta, inputs, step=1e-6):
    """Central differences, one parameter after the other: [samples x outputs, parameters]."""
    leaves, structure = jax.tree.flatten(theta)
    outputs = jax.jit(
        lambda leaves: jax.vmap(lambda x: apply(structure.unflatten(leaves), x))(inputs)
    )
    columns = []
    for at, leaf in enumerate(leaves):
        for entry in range(leaf.size):
            moved = []
            for sign in (1, -1):
                shift = sign * step * (np.arange(leaf.size) == entry).reshape(leaf.shape)
                moved.append(outputs([*leaves[:at], leaf + shift, *leaves[at + 1 :]]))
            columns.append(np.ravel(moved[0] - moved[1]) / (2 * step))
    return np.stack(columns, axis=1)


def scale_of_each_parameter(theta):
    """The time scales as a vector: L M for particles, 1 for the readout."""
    depth = theta.blocks[0].query.shape[0]
    scales = []
    for index, block in enumerate(theta.blocks):
        width = jax.tree.leaves(block)[0].shape[1]
        scales += [np.full(leaf.size, depth * width) for leaf in theta.blocks[index]]
    return np.concatenate([*scales, *(np.ones(leaf.size) for leaf in theta.readout.values())])


@pytest.mark.parametrize("scaled", [False, True])
def test_kernel_of_a_transformer(scaled):
    """Finite difference: Jacobians parameter by parameter, three outputs, L M in the metric."""
    jacobian = jacobian_by_loop(MODEL.apply, THETA, INPUTS)
    metric = scale_of_each_parameter(THETA) if scaled else np.ones(jacobian.shape[1])
    expected = (jacobian * metric) @ jacobian.T
    time_scales = MODEL.time_scales if scaled else None
    found = theory.tangent_kernel(MODEL.apply, THETA, INPUTS, time_scales=time_scales)
    assert found.shape == (5, 3, 5, 3)
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(found.reshape(15, 15), expected, atol=1e-8 * scale)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_change_nothing(chunk):
    """Numpy loop: any chunk, dividing or not, one set or two, by the Jacobians written out."""
    rng = np.random.default_rng(0)
    theta = {
        "shift": jnp.asarray(rng.normal(size=2)),
        "weight": jnp.asarray(rng.normal(size=(2, 3))),
    }
    inputs = rng.normal(size=(8, 3))

    def apply(theta, x):
        return jnp.sin(theta["weight"] @ x + theta["shift"])

    rows = []
    for x in inputs:
        slopes = np.cos(np.asarray(theta["weight"]) @ x + np.asarray(theta["shift"]))
        rows.append(np.hstack([np.diag(slopes), np.kron(np.diag(slopes), x[None])]))
    rows = np.array(rows)
    expected = np.einsum("iap,jbp->iajb", rows, rows)
    bound = {"rtol": round_off(), "atol": round_off()}
    whole, data = theory.tangent_kernel(apply, theta, jnp.asarray(inputs)), jnp.asarray(inputs)
    np.testing.assert_allclose(whole, expected, **bound)
    part = theory.tangent_kernel(apply, theta, data[:5], data, chunk=chunk)
    np.testing.assert_allclose(part, expected[:5], **bound)
    vector = rng.normal(size=(8, 2))
    product = theory.tangent_product(apply, theta, data, chunk=chunk)(jnp.asarray(vector))
    np.testing.assert_allclose(product, np.tensordot(expected, vector, 2), **bound)


def test_kernel_moves_the_outputs():
    """Theorem: along -s grad R the outputs move by -(1/N) K loss'; so says the product."""
    targets = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)))

    def outputs(theta):
        return jax.vmap(MODEL.apply, in_axes=(None, 0))(theta, INPUTS)

    gradient = jax.grad(lambda theta: jnp.mean(jnp.sum((outputs(theta) - targets) ** 2, 1)) / 2)
    slopes, scales = gradient(THETA), MODEL.time_scales(THETA)
    blocks = tuple(
        jax.tree.map(lambda leaf, s=scale: -s * leaf, block)
        for scale, block in zip(scales.blocks, slopes.blocks, strict=True)
    )
    readout = jax.tree.map(jnp.negative, slopes.readout)
    velocity = nn.Theta((), blocks, readout)
    value, expected = jax.jvp(outputs, (THETA,), (velocity,))
    kernel = theory.tangent_kernel(MODEL.apply, THETA, INPUTS, time_scales=MODEL.time_scales)
    product = theory.tangent_product(MODEL.apply, THETA, INPUTS, time_scales=MODEL.time_scales)
    residual = (value - targets) / len(targets)
    bound = {"rtol": round_off(), "atol": round_off() * float(jnp.max(jnp.abs(expected)))}
    np.testing.assert_allclose(-jnp.tensordot(kernel, residual, 2), expected, **bound)
    np.testing.assert_allclose(-product(residual), expected, **bound)


def test_duplicated_particles():
    """Invariance: duplicating every particle leaves the kernel of the scaled flow alone."""
    network = nn.network((nn.mlp(dim=3, activation=jnp.tanh),), depth=3)
    model = nn.model(nn.identity(), network, nn.label_read())
    thetas = [
        nn.Theta((), (jax.tree.map(lambda leaf, k=k: jnp.repeat(leaf, k, 1), particles(0)[1]),), ())
        for k in (1, 2)
    ]
    one, two = (
        theory.tangent_kernel(model.apply, theta, INPUTS, time_scales=model.time_scales)
        for theta in thetas
    )
    np.testing.assert_allclose(two, one, rtol=round_off(), atol=round_off())
    plain, halved = (theory.tangent_kernel(model.apply, theta, INPUTS) for theta in thetas)
    np.testing.assert_allclose(2 * halved, plain, rtol=round_off(), atol=round_off())
    assert np.max(np.abs(plain)) > 1e-2


def test_refusals():
    """Closed form: a chunk of no samples, data with holes."""
    with pytest.raises(ValueError, match="^chunk must be an integer >= 1, got 0"):
        theory.tangent_kernel(jnp.multiply, jnp.ones(()), jnp.ones(2), chunk=0)
    with pytest.raises(ValueError, match="^inputs must be finite, got 1 NaN"):
        theory.tangent_product(jnp.multiply, jnp.ones(()), jnp.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="^the number of samples must be an integer >= 1, got 0"):
        theory.tangent_kernel(jnp.multiply, jnp.ones(()), jnp.ones(2), jnp.ones(0))
