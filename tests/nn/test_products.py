import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from meanfield.nn.products import FORMS, matmul

SIZES = {"a": 3, "b": 4, "c": 5}


def axes_of(form):
    return "...{},...{}->...{}".format(*FORMS[form])


def factors(form, lead=(), dtype=np.float64):
    rng = np.random.default_rng(0)
    shapes = [(*lead, *(SIZES[axis] for axis in axes)) for axes in FORMS[form][:2]]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, jnp.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_against_einsum(form, dtype):
    """Independent library: numpy's einsum of the same factors, alone and along a leading axis."""
    for lead in ((), (2,)):
        left, right = factors(form, lead, dtype)
        exact = np.einsum(axes_of(form), *(np.asarray(leaf, float) for leaf in (left, right)))
        found = matmul(left, right, form)
        assert found.dtype == dtype
        np.testing.assert_allclose(np.asarray(found, float), exact, rtol=2**-7, atol=2**-7)
        wide = matmul(left, right, form, dtype=np.float32)
        assert wide.dtype == jnp.promote_types(dtype, np.float32)
        tolerance = 1e-14 if dtype == np.float64 else 1e-6
        np.testing.assert_allclose(np.asarray(wide), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("form", FORMS)
def test_derivatives(form):
    """Finite difference: three orders of derivatives, forwards and backwards."""

    def curved(left, right):
        return jnp.sin(matmul(jnp.asarray(left), jnp.asarray(right), form))

    check_grads(curved, factors(form), order=3, modes=("fwd", "rev"))


@pytest.mark.parametrize("form", FORMS)
def test_batched(form):
    """Independent library: along an axis more of one factor or both, as jax.numpy's einsum."""
    for lead in ((), (2,)):
        plain = factors(form, lead)
        places = [None, 0, len(lead), len(lead) + 2]
        for places_of_both in itertools.product(places, places):
            if places_of_both == (None, None):
                continue
            given = [
                leaf if place is None else jnp.stack([leaf, 2 * leaf + 1, -leaf], axis=place)
                for leaf, place in zip(plain, places_of_both, strict=True)
            ]
            found, expected = (
                jax.vmap(product, in_axes=places_of_both)(*given)
                for product in (
                    lambda left, right: matmul(left, right, form),
                    lambda left, right: jnp.einsum(axes_of(form), left, right),
                )
            )
            np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_gradients_read_by_rows():
    """Theorem: no product of a gradient's program contracts the rows of its left factor."""

    def risk(weights, tokens):
        hidden = jnp.tanh(matmul(tokens, weights[0]))
        scores = matmul(jnp.tanh(hidden), jnp.sin(hidden), "nt")
        return jnp.sum(matmul(matmul(scores, hidden), weights[1]) ** 2)

    weights = (jnp.ones((8, 16)), jnp.ones((16, 8)))
    program = jax.jit(jax.grad(risk)).lower(weights, jnp.ones((32, 8))).compile()
    contracted = re.findall(r" dot\(.*lhs_contracting_dims=\{(\d)\}", program.as_text() or "")
    assert len(contracted) >= 8
    assert set(contracted) == {"1"}


def test_edges():
    """Independent library: no samples, empty sums, whole numbers, a precision in a context."""
    ones = jnp.ones((0, 3, 4)), jnp.ones((4, 5))
    assert jax.vmap(matmul, in_axes=(0, None))(*ones).shape == (0, 3, 5)
    empty = jnp.ones((2, 3, 0)), jnp.ones((0, 5))
    np.testing.assert_array_equal(jax.vmap(matmul, in_axes=(0, None))(*empty), np.zeros((2, 3, 5)))
    np.testing.assert_array_equal(matmul(jnp.eye(3, dtype=int), jnp.ones((3, 2), int)), 1)

    def precise(left, right):
        with jax.default_matmul_precision("highest"):
            return matmul(left, right)

    text = jax.jit(jax.grad(lambda left: jnp.sum(precise(left, ones[1])))).lower(jnp.ones((3, 4)))
    assert "HIGHEST" in text.as_text()


def test_refused():
    """Closed form: one sentence for leading axes that differ."""
    with pytest.raises(ValueError, match=r"^leading axes .* got shapes \(5, 2, 3\) and \(3, 3\)$"):
        matmul(jnp.ones((5, 2, 3)), jnp.ones((3, 3)))


def test_a_leading_axis_is_not_copied():
    """Theorem: many right factors for one left are one wide product, with no copy of the left."""
    left, right = jnp.ones((4, 64, 64)), jnp.ones((16, 4, 64, 2))
    found = jax.jit(jax.vmap(matmul, in_axes=(None, 0))).lower(left, right).compile()
    memory: Any = found.memory_analysis()
    assert memory.temp_size_in_bytes <= 2 * (right.nbytes + 16 * 4 * 64 * 2 * 8)
