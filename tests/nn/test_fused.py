import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import nn
from meanfield.nn import rows
from meanfield.nn.dot_product import attended
from meanfield.nn.fused import fused_mixed

TOKENS, WIDTH, HEAD_DIM = 5, 2, 3
KERNELS = {
    "softmax": nn.softmax(0.7),
    "gaussian": nn.gaussian(0.8),
    "normalized": nn.gaussian(0.3, normalize=True, scale=1.1),
}


def masks(tokens=TOKENS):
    """Every kind of mask, with a row of no keys among the pairs."""
    rng = np.random.default_rng(1)
    keys, pairs = rng.uniform(size=tokens) < 0.6, rng.uniform(size=(tokens, tokens)) < 0.6
    pairs[2] = False
    found = {"none": None, "keys": keys, "pairs": pairs, "nothing": np.zeros(tokens, bool)}
    given = {name: None if mask is None else jnp.asarray(mask) for name, mask in found.items()}
    return given | {"causal": nn.causal_mask(tokens)}


def arrays(tokens=TOKENS, dtype: Any = np.float64, size=1.0, head_dim=HEAD_DIM, width=WIDTH):
    """Queries, keys, values, and a weight for each number of the output."""
    rng = np.random.default_rng(0)
    sizes = (size, size, 1.0, 1.0)
    shape = (tokens, width, head_dim)
    return tuple(jnp.asarray(a * rng.normal(size=shape), dtype) for a in sizes)


def values_and_gradients(form, given, kernels=KERNELS, which=("none",)):
    """Of the mixed values of these kernels under these masks: one program, in double precision."""
    *inputs, weight = given
    known = masks(len(weight))

    def every(inputs, weight):
        found = {}
        for name, kind in itertools.product(kernels, which):
            mix, mask = form(KERNELS[name]), known[kind]
            out, pull = jax.vjp(lambda *a, mix=mix, mask=mask: mix(*a, mask), *inputs)
            found[f"{name}, {kind}"] = (out, *pull(weight))
        return found

    return jax.tree.map(lambda leaf: np.asarray(leaf, float), jax.jit(every)(inputs, weight))


def by_softmax(factor):
    """A softmax of any precision in place of the device's."""
    return lambda *given: rows.mixed(nn.softmax(factor), *given)


def by_tiles(factor):
    """What fused programs on a GPU round to sixteen bits: weights, outputs, parts of gradients."""

    def forward(queries, keys, values):
        scores = factor * jnp.einsum("amk,bmk->mab", queries, keys, preferred_element_type="f4")
        total = jax.nn.logsumexp(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - jnp.broadcast_to(total, scores.shape))
        out = jnp.einsum("mab,bmk->amk", weights.astype(queries.dtype), values)
        return out, (queries, keys, values, weights, out)

    def backward(kept, upstream):
        queries, keys, values, weights, out = kept
        of_weights = jnp.einsum("amk,bmk->mab", upstream, values, preferred_element_type="f4")
        means = jnp.sum(upstream.astype("f4") * out.astype("f4"), axis=-1).T[..., None]
        centred = of_weights - jnp.broadcast_to(means, of_weights.shape)
        of_scores = (factor * weights * centred).astype(queries.dtype)
        of_queries = jnp.einsum("mab,bmk->amk", of_scores, keys)
        of_keys = jnp.einsum("mab,amk->bmk", of_scores, queries)
        of_values = jnp.einsum("mab,amk->bmk", weights.astype(queries.dtype), upstream)
        return of_queries, of_keys, of_values

    attend = jax.custom_vjp(lambda *given: forward(*given)[0])
    attend.defvjp(forward, backward)
    return lambda queries, keys, values, pairs: attend(queries, keys, values)


def fused(attend):
    def form(kernel):
        return lambda *given: fused_mixed(kernel.exponential, *given, attend=attend)

    return form


def plain(kernel):
    return lambda *given: rows.mixed(kernel, *given)


def largest_ratios(found, others, exact):
    """By kernel and mask, the largest error beside that of another form."""
    norm = np.linalg.norm
    return {
        name: max(norm(a - c) / norm(b - c) for a, b, c in zip(leaves, *both, strict=True))
        for name, leaves in found.items()
        for both in [(others[name], exact[name])]
    }


@pytest.mark.parametrize(("tokens", "which"), [(5, tuple(masks())), (8, ("none", "pairs"))])
def test_algebra_in_double_precision(tokens, which):
    """Theorem: it is softmax in more dimensions; value and gradient, every mask, to round-off."""
    given = arrays(tokens)
    found, exact = (
        values_and_gradients(form, given, which=tuple(masks()))
        for form in (fused(by_softmax), plain)
    )
    assert len(found) == 15
    for name, leaves in found.items():
        for leaf, expected in zip(leaves, exact[name], strict=True):
            np.testing.assert_allclose(
                leaf, expected, rtol=5 * round_off(), atol=5 * round_off(), err_msg=name
            )


@pytest.mark.parametrize("attend", [attended("xla"), by_tiles], ids=["jax.nn", "tiles"])
def test_sixteen_bits(attend):
    """Independent library: jax.nn's attention, and one that rounds as a GPU; to plain bfloat16."""
    given = arrays(33, jnp.bfloat16, head_dim=16)
    exact = values_and_gradients(plain, [leaf.astype(float) for leaf in given])
    others = values_and_gradients(plain, given)
    ratios = largest_ratios(values_and_gradients(fused(attend), given), others, exact)
    assert max(ratios.values()) <= 2.5, ratios


def test_single_precision():
    """Independent library: jax.nn's attention in float32, under every mask."""
    given = arrays(9, np.float32)
    which = tuple(masks())
    found = values_and_gradients(fused(attended("xla")), given, which=which)
    exact = values_and_gradients(plain, [leaf.astype(float) for leaf in given], which=which)
    for name, leaves in found.items():
        for leaf, expected in zip(leaves, exact[name], strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=2e-5, err_msg=name)


def test_no_digits_are_lost_in_the_exponent():
    """Closed form: keys far from 0 and close to queries, whose norms alone have eight digits."""
    queries, keys, values, weight = arrays(16, size=8.0, head_dim=16)
    near = jnp.asarray(queries + 0.05 * keys, jnp.bfloat16)
    given = [
        jnp.asarray(queries, jnp.bfloat16),
        near,
        *(a.astype("bfloat16") for a in (values, weight)),
    ]
    kernels = ("gaussian",)
    exact = values_and_gradients(plain, [leaf.astype(float) for leaf in given], kernels)
    others, found = (values_and_gradients(f, given, kernels) for f in (plain, fused(by_tiles)))
    ratios = largest_ratios(found, others, exact)
    assert max(ratios.values()) <= 2.5, ratios


@pytest.mark.parametrize("name", KERNELS)
def test_keys_out_of_sight_may_be_infinite(name):
    """Invariance: values and gradients do not see them."""
    mask: Any = masks()["keys"]
    given = arrays()
    far = [jnp.where(mask[:, None, None], leaf, jnp.inf) for leaf in given[1:3]]

    def value(queries, keys, values):
        return jnp.sum(jnp.sin(fused(by_softmax)(KERNELS[name])(queries, keys, values, mask)))

    gradient = jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))
    found, expected = gradient(given[0], *far), gradient(*given[:3])
    jax.tree.map(np.testing.assert_array_equal, found, expected)
