import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from jax.flatten_util import ravel_pytree

from meanfield import landscape, nn

RNG = np.random.default_rng(0)
SAMPLES, DIM, CLASSES = 20, 4, 3
INPUTS, TARGETS = RNG.normal(size=(SAMPLES, DIM)), RNG.normal(size=SAMPLES)
LABELS = RNG.integers(CLASSES, size=SAMPLES)
POINT = RNG.normal(size=(DIM, CLASSES))


def least_squares(theta):
    return jnp.mean((jnp.asarray(INPUTS) @ theta["w"] - jnp.asarray(TARGETS)) ** 2) / 2


def logistic(theta):
    signs = jnp.asarray(np.where(LABELS == 0, 1.0, -1.0))
    return jnp.mean(jax.nn.softplus(-signs * (jnp.asarray(INPUTS) @ theta["w"])))


def softmax_regression(theta):
    logits = jax.nn.log_softmax(jnp.asarray(INPUTS) @ theta["w"], axis=1)
    return -jnp.mean(logits[jnp.arange(SAMPLES), jnp.asarray(LABELS)])


def exact_hessian(risk):
    """The Hessian of a regression written out: X^T X / N, X^T p (1 - p) X / N, and by classes."""
    if risk is least_squares:
        return INPUTS.T @ INPUTS / SAMPLES
    if risk is logistic:
        chances = 1 / (1 + np.exp(-INPUTS @ POINT[:, 0]))
        return INPUTS.T @ np.diag(chances * (1 - chances)) @ INPUTS / SAMPLES
    total = np.zeros((DIM * CLASSES, DIM * CLASSES))
    for x in INPUTS:
        chances = np.exp(x @ POINT) / np.sum(np.exp(x @ POINT))
        total += np.kron(np.outer(x, x), np.diag(chances) - np.outer(chances, chances)) / SAMPLES
    return total


@pytest.mark.parametrize("risk", [least_squares, logistic, softmax_regression])
def test_regressions(risk):
    """Closed form: the Hessians of three regressions, dense, applied to a vector, by Lanczos."""
    theta = {"w": jnp.asarray(POINT if risk is softmax_regression else POINT[:, 0])}
    exact = exact_hessian(risk)
    tolerance = round_off() * np.max(np.abs(exact))
    whole = landscape.hessian_blocks(risk, theta, axes=0)
    np.testing.assert_allclose(whole, exact[None], atol=tolerance)
    vector = RNG.normal(size=theta["w"].shape)
    # Compiled as a whole: op by op, each one would be a program of its own.
    product = jax.jit(lambda theta, v: landscape.hessian_product(risk, theta)(v))
    found = product(theta, {"w": jnp.asarray(vector)})["w"]
    np.testing.assert_allclose(np.ravel(found), exact @ vector.ravel(), atol=10 * tolerance)
    values = np.linalg.eigvalsh(exact)
    extremes = landscape.hessian_extremes(jax.random.key(1), risk, theta)
    assert bool(extremes.converged)
    assert int(extremes.products) == len(exact) + 2
    np.testing.assert_allclose(
        [extremes.smallest, extremes.largest], values[[0, -1]], atol=10 * tolerance
    )


# Two layers of three heads, and nothing else: a program that is quick to compile.
NETWORK = nn.network((nn.attention(dim=3, head_dim=1),), depth=2)
(HEADS,) = NETWORK.init(jax.random.key(1), width=3)
TOKENS = jnp.asarray(RNG.normal(size=(4, 3)))


def of_heads(heads):
    return jnp.sum(NETWORK.apply((heads,), TOKENS)[-1] ** 2)


@functools.cache
def dense_of_heads():
    """The whole Hessian over the heads, and which (layer, head) each row belongs to."""
    flat, restore = ravel_pytree(HEADS)
    owners = jax.tree.map(
        lambda leaf: np.broadcast_to(np.arange(6).reshape(2, 3, 1, 1), leaf.shape), HEADS
    )
    dense = jax.jit(jax.hessian(lambda x: of_heads(restore(x))))(flat)
    return np.asarray(dense), np.asarray(ravel_pytree(owners)[0])


def test_blocks_of_layers():
    """Independent library: the rows and columns of jax's dense Hessian that belong to a layer."""
    dense, owners = dense_of_heads()
    found = landscape.hessian_blocks(of_heads, HEADS, axes=1, chunk=7)
    assert found.shape == (2, 36, 36)
    for layer, block in enumerate(found):
        inside = owners // 3 == layer
        np.testing.assert_allclose(
            block, dense[inside][:, inside], atol=round_off() * np.max(np.abs(dense))
        )
    np.testing.assert_array_equal(found, np.swapaxes(found, 1, 2))


def test_blocks_of_heads_in_a_metric():
    """Independent library: some blocks of jax's dense Hessian, times the metric of their parts."""
    dense, owners = dense_of_heads()
    metric = HEADS._replace(**dict.fromkeys(["query", "key", "value"], 4.0), output=0.25)
    wanted = [(1, 2), (0, 1), (1, 0)]
    found = landscape.hessian_blocks(of_heads, HEADS, indices=wanted, metric=metric)
    roots = np.repeat([2.0, 2.0, 2.0, 0.5], 3)
    for block, number in zip(found, [5, 1, 3], strict=True):
        exact = roots[:, None] * dense[owners == number][:, owners == number] * roots[None, :]
        np.testing.assert_allclose(block, exact, atol=round_off() * np.max(np.abs(dense)) * 4)


def square(x):
    return jnp.sum(x**2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: landscape.hessian_product(square, jnp.arange(3)), "parameters must be real"),
        (lambda: landscape.hessian_product(square, jnp.ones(3), metric=0.0), "metric must be a"),
        (lambda: landscape.hessian_product(square, jnp.ones(3), metric=(1.0,)), "prefix must end"),
        (lambda: landscape.hessian_product(square, jnp.ones(3))(jnp.ones(2)), "vector must have"),
        (lambda: landscape.hessian_product(jnp.sin, jnp.ones(3)), r"number, got shape \(3,\)"),
        (lambda: landscape.hessian_blocks(square, jnp.ones(3)), "share one length along axis 1"),
        (lambda: landscape.hessian_blocks(square, jnp.ones(3), axes=-1), "axes must be an integer"),
        (lambda: landscape.hessian_blocks(square, jnp.ones(3), axes=1, chunk=0), "chunk must be"),
        (
            lambda: landscape.hessian_blocks(square, jnp.ones((2, 2)), indices=[(0, 2)]),
            r"indices must lie within the axes \[2, 2\] of blocks, got \(0, 2\)",
        ),
        (lambda: landscape.hessian_blocks(square, jnp.ones(3), axes=1, indices=[]), "at least one"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    """Closed form: what is wrong with the input, in one sentence."""
    with pytest.raises(ValueError, match=message):
        call()
