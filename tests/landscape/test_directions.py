from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import landscape, nn

RNG = np.random.default_rng(0)
KEY = jax.random.key(3)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


THETA = nn.Theta(
    embedding={"table": normal(5, 3)},
    blocks=(nn.Neuron(normal(2, 4, 3), normal(2, 4), normal(2, 4, 3)),),
    readout={"weight": normal(3, 2), "bias": normal(2)},
)


def norms(leaf, axes):
    """Norms of the filters of an array, in a loop over them."""
    leaf = np.asarray(leaf)
    found = np.empty(leaf.shape[:axes])
    for index in np.ndindex(found.shape):
        found[index] = np.sqrt(sum(x**2 for x in np.ravel(leaf[index])))
    return found


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("vectors", ["zero", "normalise"])
def test_filter_norms_against_a_loop(given, vectors):
    """Numpy loop: each filter has the norm of the parameters', vectors are 0 or filters too."""
    prefix: Any = (1, 2, 0)
    filters = nn.Theta(*prefix) if given else None
    found = landscape.random_direction(KEY, THETA, filters=filters, vectors=vectors)
    # Of the leaves in order: table, weight_in, bias and weight_out of neurons, bias and weight.
    axes = [1, 2, 2, 2, 0, 0] if given else [0, 2, 0, 2, 0, 0]
    is_vector = [False, False, given, False, True, False]
    for leaf, other, number, vector in zip(
        jax.tree.leaves(THETA), jax.tree.leaves(found), axes, is_vector, strict=True
    ):
        factor = 0.0 if vector and vectors == "zero" else 1.0
        np.testing.assert_allclose(
            norms(other, number), factor * norms(leaf, number), rtol=round_off()
        )
        assert np.max(np.abs(other - leaf)) > 0.1


def test_directions_are_uniform():
    """Closed form: on a sphere of radius r in 3 dimensions, E d d^T = r^2 / 3, within 4 errors."""
    centre = jnp.array([[2.0, 1.0, 2.0]])
    draws = jax.vmap(lambda key: landscape.random_direction(key, centre, filters=1))(
        jax.random.split(KEY, 4000)
    )[:, 0]
    products = np.asarray(draws[:, :, None] * draws[:, None, :]).reshape(4000, 9)
    errors = np.std(products, axis=0) / np.sqrt(4000)
    assert np.max(errors) < 0.05
    assert np.max(np.abs(products.mean(0) - 3 * np.eye(3).ravel()) / errors) < 4
    np.testing.assert_allclose(np.linalg.norm(draws, axis=1), 3, rtol=round_off())


def test_scaled_filters():
    """Invariance: a scaled filter has its part of the direction scaled; a zero one has 0."""
    factors = jnp.array([0.0, 2.0, 1.0, 1e-3])[None, :, None]
    weights = THETA.blocks[0].weight_in
    plain = landscape.random_direction(KEY, weights)
    scaled = landscape.random_direction(KEY, factors * weights)
    np.testing.assert_allclose(scaled, factors * plain, rtol=round_off())
    single = landscape.random_direction(KEY, weights.astype(np.float32))
    assert single.dtype == np.float32


def test_principal_directions_of_a_planted_plane():
    """Independent library: numpy's svd; and a path planted in a plane is recovered from it."""
    frame = np.linalg.qr(RNG.normal(size=(14, 2)))[0]
    times = np.linspace(0, 1, 9)
    planted = np.stack([5 * (1 - times), np.sin(3 * times) - np.sin(3)], axis=1) @ frame.T
    rows = planted + RNG.normal(size=14)
    tree = {"a": jnp.asarray(rows[:, :6].reshape(9, 2, 3)), "b": jnp.asarray(rows[:, 6:])}
    found = landscape.principal_directions(tree)
    flat = np.stack([np.append(d["a"].ravel(), d["b"]) for d in found.directions])
    left, sizes, right = np.linalg.svd(rows - rows[-1], full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(flat * right[:2], axis=1)), 1, rtol=round_off())
    np.testing.assert_allclose(flat @ flat.T, np.eye(2), atol=round_off())
    np.testing.assert_allclose(found.shares, sizes[:2] ** 2 / np.sum(sizes**2), rtol=round_off())
    np.testing.assert_allclose(np.sum(found.shares), 1, rtol=round_off())
    np.testing.assert_allclose(found.coordinates @ flat, planted, atol=5 * round_off())
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(left[:, :2] * sizes[:2]),
                               atol=5 * round_off())  # fmt: skip
    assert np.all(found.coordinates[0] >= 0)
    # A third direction would be round-off: what it explains says so.
    assert landscape.principal_directions(tree, number=3).shares[2] < 1e-28


def test_pair_against_qr():
    """Independent library: numpy's qr, up to signs, for directions that are nearly parallel."""
    first = {"a": normal(3), "b": normal(2, 2)}
    second = jax.tree.map(lambda x: x + 1e-5 * normal(*x.shape), first)
    pair = landscape.orthonormal_pair(first, second)
    flat = np.stack([np.append(d["a"], d["b"]) for d in (*pair, first, second)])
    np.testing.assert_allclose(flat[:2] @ flat[:2].T, np.eye(2), atol=round_off())
    basis = np.linalg.qr(flat[2:].T)[0].T
    np.testing.assert_allclose(np.abs(np.sum(flat[:2] * basis, axis=1)), 1, atol=1e-10)
    assert np.dot(flat[0], flat[2]) > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: landscape.random_direction(KEY, {}), "at least one number, got an empty tree"),
        (lambda: landscape.random_direction(KEY, jnp.ones((0, 3))), "at least one number"),
        (lambda: landscape.random_direction(KEY, {"a": jnp.arange(3)}), r"int64 at parameters\['a"),
        (lambda: landscape.random_direction(KEY, jnp.ones(2) * 1j), "floating-point arrays, got c"),
        (lambda: landscape.random_direction(KEY, THETA, filters=(2, 2)), "prefix must end"),
        (lambda: landscape.random_direction(KEY, THETA, filters=-1), "filters must be an integer"),
        (lambda: landscape.random_direction(KEY, THETA, vectors="zeros"), "did you mean 'zero'"),
        (lambda: landscape.principal_directions(jnp.ones((0, 3))), "trajectory must hold at least"),
        (lambda: landscape.principal_directions(jnp.ones((4, 3))), "trajectory must move"),
        (lambda: landscape.principal_directions(jnp.eye(3) * jnp.nan), "trajectory must be finite"),
        (lambda: landscape.principal_directions(jnp.eye(2)), "at most 1 for 2 points"),
        (lambda: landscape.principal_directions((jnp.ones(3), jnp.ones(2))), "share one length"),
        (lambda: landscape.principal_directions(jnp.eye(4), number=0), "number must be an integer"),
        (lambda: landscape.difference(jnp.ones(2), (jnp.ones(2),)), "structure of the parameters"),
        (lambda: landscape.difference(jnp.ones(2), jnp.ones(3)), r"got \(3,\) for \(2,\) at end"),
        (lambda: landscape.orthonormal_pair(jnp.ones(2), -3 * jnp.ones(2)), "must span a plane"),
        (lambda: landscape.orthonormal_pair(jnp.zeros(2), jnp.ones(2)), "zero, parallel"),
        (lambda: landscape.orthonormal_pair(jnp.ones(2), jnp.array([jnp.nan, 1])), "not finite"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    """Closed form: what is wrong with the input, in one sentence."""
    with pytest.raises(ValueError, match=message):
        call()
