import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from oracles import kernel_loop

from meanfield import nn
from meanfield.nn import kernels

TOKENS, HEAD_DIM = 5, 3
KERNELS = {
    "softmax": nn.softmax(),
    "gaussian": nn.gaussian(),
    "normalized": nn.gaussian(normalize=True),
    "linear": nn.linear(),
}
WITH_OPTIONS = {
    "softmax": (nn.softmax(scale=0.7), {"scale": 0.7}),
    "gaussian": (nn.gaussian(1.0, scale=2.0), {"bandwidth": 1.0, "scale": 2.0}),
    "normalized": (nn.gaussian(1.3, normalize=True), {"bandwidth": 1.3}),
    "linear": (nn.linear(scale=1.5), {"scale": 1.5}),
}


def queries_and_keys(seed=0, size=1.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    shape = (TOKENS, HEAD_DIM)
    return tuple(jnp.asarray(size * rng.normal(size=shape), dtype) for _ in range(2))


def masks():
    """Every kind of mask, with a row of no keys among the pairs."""
    keys = np.array([True, False, True, True, False])
    pairs = np.random.default_rng(1).uniform(size=(TOKENS, TOKENS)) < 0.6
    pairs[2] = False
    return {
        "none": (None, None),
        "keys": (jnp.asarray(keys), np.broadcast_to(keys, (TOKENS, TOKENS))),
        "pairs": (jnp.asarray(pairs), pairs),
        "causal": (nn.causal_mask(TOKENS), np.tri(TOKENS, dtype=bool)),
        "nothing": (jnp.zeros(TOKENS, bool), np.zeros((TOKENS, TOKENS), bool)),
    }


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("name", KERNELS)
def test_against_loop(name, mask, dtype):
    """Numpy loop: every kernel under every mask, in double and single precision."""
    queries, keys = queries_and_keys(dtype=dtype)
    given, pairs = masks()[mask]
    weights = KERNELS[name](queries, keys, given)
    assert weights.dtype == dtype
    expected = kernel_loop(name, *np.asarray((queries, keys), float), pairs)
    np.testing.assert_allclose(weights, expected, rtol=round_off(dtype), atol=round_off(dtype))
    if pairs is not None:
        np.testing.assert_array_equal(np.asarray(weights)[~pairs], 0.0)


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_options_against_loop(name):
    """Numpy loop: scale and bandwidth are inside the exponent."""
    queries, keys = queries_and_keys()
    kernel, options = WITH_OPTIONS[name]
    expected = kernel_loop(name, *np.asarray((queries, keys)), **options)
    np.testing.assert_allclose(kernel(queries, keys), expected, rtol=round_off())


@pytest.mark.parametrize("size", [30.0, 1e3])
def test_sharp_softmax(size):
    """Independent library: scipy's softmax where logits are far apart; no overflow, no NaN."""
    from scipy.special import softmax

    queries, keys = queries_and_keys(size=size)
    expected = softmax(queries @ keys.T * HEAD_DIM**-0.5, axis=1)
    for mask in (None, jnp.ones(TOKENS, bool)):
        weights = nn.softmax()(queries, keys, mask)
        # The logits themselves carry a round-off in proportion to their size.
        tolerance = round_off() * max(1.0, size**2 / 100)
        np.testing.assert_allclose(weights, expected, atol=tolerance)
        np.testing.assert_allclose(jnp.sum(weights, axis=1), 1.0, rtol=round_off())


@pytest.mark.parametrize("name", ["softmax", "normalized"])
def test_weights_do_not_see_what_is_masked(name):
    """Invariance: a masked key of size 1e4 changes no weight and no gradient."""
    queries, keys = queries_and_keys()
    mask = jnp.array([True, True, True, True, False])

    def value(queries, keys):
        return jnp.sum(jnp.sin(KERNELS[name](queries, keys, mask) @ queries))

    huge = keys.at[-1].set(1e4)
    for function in (value, jax.grad(value)):
        np.testing.assert_array_equal(function(queries, keys), function(queries, huge))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", KERNELS)
def test_row_without_keys(name, dtype):
    """Closed form: its weights are 0, and so are their derivatives, to second order."""
    queries, keys = queries_and_keys(size=10.0, dtype=dtype)
    mask = jnp.asarray(np.arange(TOKENS)[:, None] != np.full((1, TOKENS), 2))

    def row(queries, keys):
        return jnp.sum(KERNELS[name](queries, keys, mask)[2])

    def others(queries, keys):
        return jnp.sum(jnp.cos(KERNELS[name](queries, keys, mask)))

    assert float(row(queries, keys)) == 0.0
    for gradient in jax.grad(row, argnums=(0, 1))(queries, keys):
        np.testing.assert_array_equal(gradient, 0.0)
    for gradient in jax.grad(others, argnums=(0, 1))(queries, keys):
        assert np.all(np.isfinite(gradient))
    curvature = jax.jvp(jax.grad(others), (queries, keys), (queries, keys))[1]
    assert np.all(np.isfinite(curvature))


@pytest.mark.parametrize("name", KERNELS)
def test_causality_by_gradients(name):
    """Theorem: under the causal mask no row depends on a later key, and rows do on earlier ones."""
    queries, keys = queries_and_keys()
    kernel = functools.partial(KERNELS[name], mask=nn.causal_mask(TOKENS))
    jacobian = jax.jacobian(lambda keys: kernel(queries, keys) @ keys)(keys)
    influence = np.max(np.abs(jacobian), axis=(1, 3))
    np.testing.assert_array_equal(influence[np.triu_indices(TOKENS, 1)], 0.0)
    assert np.all(influence[np.tril_indices(TOKENS)] > 1e-8)


def test_rows_of_normalised_kernels_sum_to_one():
    """Theorem: rows with a key are probability vectors."""
    queries, keys = queries_and_keys()
    for name in ("softmax", "normalized"):
        for mask in ("none", "keys", "causal"):
            weights = KERNELS[name](queries, keys, masks()[mask][0])
            np.testing.assert_allclose(jnp.sum(weights, axis=1), 1.0, rtol=round_off())
            assert np.all(weights >= 0)


def test_normalised_gaussian_is_softmax_with_key_bias():
    """Theorem: bandwidth 1/2 at unit scale is softmax of q.k - |k|^2/2."""
    queries, keys = queries_and_keys()
    logits = queries @ keys.T - np.sum(keys**2, axis=1)[None, :] / 2
    weights = nn.gaussian(0.5, normalize=True, scale=1.0)(queries, keys)
    np.testing.assert_allclose(weights, jax.nn.softmax(logits, axis=1), rtol=round_off())


def test_unnormalised_gaussian_is_normalised_times_mass():
    """Theorem: the factor is exp(logsumexp(q.k - |k|^2/2) - |q|^2/2), row by row."""
    queries, keys = queries_and_keys()
    logits = queries @ keys.T - np.sum(keys**2, axis=1)[None, :] / 2
    mass = np.exp(jax.nn.logsumexp(logits, axis=1) - np.sum(queries**2, axis=1) / 2)
    expected = mass[:, None] * nn.gaussian(0.5, normalize=True, scale=1.0)(queries, keys)
    np.testing.assert_allclose(
        nn.gaussian(0.5, scale=1.0)(queries, keys), expected, rtol=round_off()
    )


@pytest.mark.parametrize("shift", [1.0, -3.0])
def test_gaussian_is_translation_invariant(shift):
    """Invariance: moving queries and keys together changes no distance; softmax does change."""
    queries, keys = queries_and_keys()
    for kernel in (nn.gaussian(), nn.gaussian(normalize=True)):
        moved = kernel(queries + shift, keys + shift)
        np.testing.assert_allclose(moved, kernel(queries, keys), rtol=10 * round_off())
    moved = nn.softmax()(queries + shift, keys + shift)
    assert np.max(np.abs(moved - nn.softmax()(queries, keys))) > 1e-2


@pytest.mark.parametrize("masked", [False, True])
def test_against_fused_attention(masked):
    """Independent library: jax.nn.dot_product_attention, which is exact in single precision."""
    queries, keys = queries_and_keys(dtype=np.float32)
    values = np.random.default_rng(3).normal(size=keys.shape).astype(np.float32)
    mask = nn.causal_mask(TOKENS) if masked else None
    fused = jax.nn.dot_product_attention(
        *(jnp.asarray(x[:, None, :]) for x in (queries, keys, values)),
        mask=None if mask is None else mask[None],
    )[:, 0]
    found = nn.softmax()(queries, keys, mask) @ values
    np.testing.assert_allclose(found, fused, rtol=round_off(np.float32), atol=1e-5)


def test_causal_mask():
    """Closed form: lower triangle with its diagonal."""
    np.testing.assert_array_equal(nn.causal_mask(4), np.tri(4, dtype=bool))


@pytest.mark.parametrize("bad", [-1.0, 0.0, np.nan, np.inf])
def test_refused_constants(bad):
    """Closed form: bandwidth and scale are finite and positive."""
    with pytest.raises(ValueError, match=f"bandwidth must be a finite number > 0, got {bad}"):
        nn.gaussian(bad)
    for constructor in (nn.softmax, nn.gaussian, nn.linear):
        with pytest.raises(ValueError, match=f"scale must be a finite number > 0, got {bad}"):
            constructor(scale=bad)


@pytest.mark.parametrize("shape", [(TOKENS + 1,), (TOKENS, TOKENS + 1), (1, TOKENS), (1,)])
@pytest.mark.parametrize("name", KERNELS)
def test_refused_masks(name, shape, monkeypatch):
    """Closed form: a mask has the length of the keys, or that of the pairs."""
    # Without the suite's type checks, which would refuse the shape before the library does.
    monkeypatch.setattr(kernels, "pairs_of", inspect.unwrap(kernels.pairs_of))
    queries, keys = queries_and_keys()
    with pytest.raises(ValueError, match=r"mask must have shape \(5,\) for keys or \(5, 5\)"):
        inspect.unwrap(KERNELS[name].weights)(queries, keys, jnp.ones(shape, bool))


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("name", KERNELS)
def test_some_rows_alone(name, mask):
    """Invariance: rows 1 to 3 from their queries and their part of the mask are those of all."""
    queries, keys = queries_and_keys()
    given = masks()[mask][0]
    own = given[1:4] if given is not None and given.ndim == 2 else given
    found = KERNELS[name](queries[1:4], keys, own)
    whole = KERNELS[name](queries, keys, given)
    np.testing.assert_allclose(found, whole[1:4], rtol=round_off(), atol=round_off())
