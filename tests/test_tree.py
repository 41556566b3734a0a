import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import tree
from meanfield.nn import Neuron, Theta

RNG = np.random.default_rng(0)


def example(dtype=np.float64):
    """A tree of the shape of a model's parameters."""
    return Theta(
        {"table": jnp.asarray(RNG.normal(size=(3, 2)), dtype)},
        (
            Neuron(*(jnp.asarray(RNG.normal(size=s), dtype) for s in [(2, 4, 3), (2, 4), (2, 4)])),
            jnp.asarray(RNG.normal(size=(2, 5)), dtype),
        ),
        (),
    )


def test_prefix_reaches_every_leaf():
    """Closed form: written out by hand for a tree of the shape of a model's parameters."""
    spread = tree.broadcast_prefix(Theta(1.0, (8.0, 10.0), 3.0), example())
    assert spread == Theta({"table": 1.0}, (Neuron(8.0, 8.0, 8.0), 10.0), ())


def test_prefix_of_one_value():
    """Closed form: a number is a prefix of every tree, and a tree is a prefix of itself."""
    assert set(jax.tree.leaves(tree.broadcast_prefix(2.0, example()))) == {2.0}
    whole = jax.tree.map(jnp.sum, example())
    assert tree.broadcast_prefix(whole, example()) == whole


@pytest.mark.parametrize("prefix", [(1.0,), (1.0, (2.0, 3.0)), {"a": 1.0}, (1.0, 2.0, 3.0)])
def test_no_prefix(prefix):
    """Closed form: branches that end later, or are too few or many, are refused."""
    with pytest.raises(ValueError, match=r"prefix must end no later than the tree .* got prefix"):
        tree.broadcast_prefix(prefix, (jnp.ones(2), jnp.ones(3)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scale_against_numpy(dtype):
    """Numpy loop: every leaf times its number, in its own precision."""
    theta = example(dtype)
    factors = [1.5, 8.0, 8.0, 8.0, -2.0]
    scaled = tree.scale(Theta(1.5, (8.0, -2.0), 0.0), theta)
    for factor, new, old in zip(
        factors, jax.tree.leaves(scaled), jax.tree.leaves(theta), strict=True
    ):
        assert new.dtype == dtype
        np.testing.assert_array_equal(new, dtype(factor) * np.asarray(old))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inner_product_against_vectors(dtype):
    """Numpy loop: the inner product of the flattened trees, in their own precision."""
    left, right = example(dtype), example(dtype)
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (left, right)]
    found = tree.dot(left, right)
    assert found.dtype == dtype
    size = np.linalg.norm(flat[0]) * np.linalg.norm(flat[1])
    np.testing.assert_allclose(found, flat[0] @ flat[1], atol=round_off(dtype) * size)
    np.testing.assert_allclose(tree.squared_norm(left), flat[0] @ flat[0], rtol=round_off(dtype))


def test_inner_product_of_nothing():
    """Closed form: an empty tree has norm 0."""
    assert float(tree.squared_norm(())) == 0.0


def test_inner_product_is_bilinear_and_differentiable():
    """Closed form: the gradient of the squared norm is twice the tree."""
    theta = example()
    gradient = jax.grad(tree.squared_norm)(theta)
    jax.tree.map(np.testing.assert_array_equal, gradient, tree.scale(2.0, theta))


@pytest.mark.parametrize(("axis", "length"), [(0, 2), (1, 4)])
def test_leading_axis(axis, length):
    """Closed form: the length all leaves share."""
    assert tree.leading_axis(example().blocks[0], axis) == length


@pytest.mark.parametrize(
    ("leaves", "axis"),
    [((), 0), ((jnp.ones(2), jnp.ones(3)), 0), ((jnp.ones((2, 3)), jnp.ones(2)), 1)],
)
def test_no_leading_axis(leaves, axis):
    """Closed form: an empty tree, different lengths, a leaf without the axis."""
    with pytest.raises(ValueError, match=f"share one length along axis {axis}, got shapes"):
        tree.leading_axis(leaves, axis)
