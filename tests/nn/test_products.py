import functools
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec
from jax.test_util import check_grads

from meanfield.nn.products import FORMS, NARROW, matmul

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


def contracted(dtype, hidden):
    """The axes of left factors along which the products of a gradient's program sum."""

    def risk(weights, tokens):
        inner = jnp.tanh(matmul(tokens, weights[0]))
        scores = matmul(jnp.tanh(inner), jnp.sin(inner), "nt")
        return jnp.sum(matmul(matmul(scores, inner), weights[1]) ** 2)

    weights = (jnp.ones((8, hidden), dtype), jnp.ones((hidden, 8), dtype))
    program = jax.jit(jax.grad(risk)).lower(weights, jnp.ones((32, 8), dtype)).compile()
    return re.findall(r" dot\(.*lhs_contracting_dims=\{(\d)\}", program.as_text() or "")


@pytest.mark.parametrize(("dtype", "hidden"), [(np.float64, 16), (np.float32, NARROW + 1)])
def test_gradients_read_by_rows(dtype, hidden):
    """Theorem: no product of a gradient's program contracts the rows of its left factor."""
    found = contracted(dtype, hidden)
    assert len(found) >= 8
    assert set(found) == {"1"}


def test_narrow_factors_are_not_laid_out_anew():
    """Theorem: in single precision some product contracts the rows of a narrow left factor."""
    assert "0" in contracted(np.float32, 16)


def large(form, rows=64, left=16, lead=(4, 64)):
    """A batch that is worth sharing among cores, in single precision."""
    sizes = {"nn": (rows, 64, 16), "nt": (rows, 16, 64), "tn": (rows, left, 64)}[form]
    names = dict(zip(FORMS[form][0] + FORMS[form][1].strip(FORMS[form][0]), sizes, strict=True))
    rng = np.random.default_rng(1)
    shapes = [(*lead, *(names[axis] for axis in axes)) for axes in FORMS[form][:2]]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(
    ("form", "given"),
    [
        *((form, large(form, rows)) for form in FORMS for rows in (64, 65)),
        *(("tn", large("tn", rows, left=80)) for rows in (64, 65)),
        *(("tn", large("tn", 512, left=left, lead=())) for left in (NARROW, NARROW + 1)),
    ],
)
def test_programs_in_single_precision(form, given):
    """Independent library: products and gradients of a compiled program are numpy's."""
    first, second, product = FORMS[form]
    exact = np.einsum(axes_of(form), *(leaf.astype(float) for leaf in given))
    wide = [*(leaf.astype(float) for leaf in given), exact / np.max(np.abs(exact))]
    expected = (
        exact,
        np.einsum(f"...{product},...{second}->...{first}", wide[2], wide[1]),
        np.einsum(f"...{product},...{first}->...{second}", wide[2], wide[0]),
    )

    @jax.jit
    def program(left, right, upstream):
        found, pull = jax.vjp(lambda *factors: matmul(*factors, form), left, right)
        return found, *pull(upstream)

    many = jax.jit(jax.vmap(program, in_axes=(0, 0, None)))
    upstream = wide[2].astype(np.float32)
    twice = many(*(np.stack([leaf, -leaf]) for leaf in given), upstream)
    for one, both, other in zip(program(*given, upstream), twice, expected, strict=True):
        assert one.dtype == np.float32
        tolerance = 2e-6 * np.max(np.abs(other))
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)
        np.testing.assert_allclose(both[0], other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("form", ["nn", "tn"])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_so(form, bad):
    """Theorem: where numpy's product is not finite the shared one is not, nor in other rows."""
    left, right = large(form)
    left[1, 2, 5, 3] = bad
    with np.errstate(invalid="ignore"):
        exact = np.isfinite(np.einsum(axes_of(form), left, right))
    assert np.sum(~exact.all(axis=-1)) == 1
    finite = np.isfinite(np.asarray(jax.jit(matmul, static_argnums=2)(left, right, form)))
    assert not np.any(finite & ~exact)
    assert np.all(finite[exact.all(axis=-1)])


@pytest.mark.parametrize("tokens", [64, 65])
def test_batches_are_shared_by_the_cores_of_one_device(tokens):
    """Theorem: no product of a batch's gradient is without a reduction, but where devices share."""
    heads = jax.ShapeDtypeStruct((4, 64, tokens, 16), jnp.float32)

    def attended(queries, values):
        weights = jnp.exp(matmul(queries, queries, "nt"))
        return jnp.sum(matmul(weights / jnp.sum(weights, -1, keepdims=True), values) ** 2)

    def reductions(devices):
        mesh, along = AbstractMesh((devices,), ("data",)), PartitionSpec("data")

        @functools.partial(jax.shard_map, mesh=mesh, in_specs=along, out_specs=PartitionSpec())
        def risk(*given):
            return jax.lax.psum(attended(*given), "data")

        text = str(jax.jit(jax.grad(risk, (0, 1))).trace(heads, heads).lower(
            lowering_platforms=("cpu",)).as_text())  # fmt: skip
        assert len(re.findall(r"stablehlo.dot_general", text)) == 6
        return len(re.findall(r"stablehlo.reduce\(.*stablehlo.(?:max|add)", text))

    text = jax.jit(jax.grad(attended, (0, 1))).lower(heads, heads).as_text()
    alone = len(re.findall(r"stablehlo.reduce\(.*stablehlo.(?:max|add)", text))
    assert alone - reductions(2) == 5
    assert reductions(1) == alone


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
