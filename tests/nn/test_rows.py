import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers import round_off

from meanfield import nn, working_set
from meanfield.nn import mixing
from meanfield.nn.rows import mixed, mixed_in_rows, rows_at_once

TOKENS, WIDTH, HEAD_DIM, ROWS = 7, 2, 3, 3
KERNELS = {
    "softmax": nn.softmax(),
    "gaussian": nn.gaussian(),
    "normalized": nn.gaussian(normalize=True),
    "linear": nn.linear(),
}


def masks(tokens=TOKENS):
    """None, one of keys, and one of pairs with a row of no keys."""
    rng = np.random.default_rng(1)
    keys, pairs = rng.uniform(size=tokens) < 0.7, rng.uniform(size=(tokens, tokens)) < 0.7
    pairs[2] = False
    return {"none": None, "keys": jnp.asarray(keys), "pairs": jnp.asarray(pairs)}


def arrays(tokens=TOKENS, dtype=np.float64, width=WIDTH, head_dim=HEAD_DIM):
    """Queries, keys, values, and a weight for each number of the output."""
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(tokens, width, head_dim)), dtype) for _ in range(4))


def values_and_gradients(mix, dtype, kernels=tuple(KERNELS), kinds=("none", "keys", "pairs")):
    """Of these kernels under these masks, in one program."""

    def every(*given):
        found = {}
        for name, kind in itertools.product(kernels, kinds):
            kernel, mask = KERNELS[name], masks()[kind]
            out, pull = jax.vjp(lambda *a, k=kernel, m=mask: mix(k, *a, m), *given[:3])
            found[f"{name}, {kind}"] = (out, *pull(given[3]))
        return found

    return jax.tree.map(lambda leaf: np.asarray(leaf, float), jax.jit(every)(*arrays(dtype=dtype)))


def in_rows(*given):
    return mixed_in_rows(*given, rows=ROWS)


def test_rows_are_exact():
    """Independent library: the plain form of jax's einsum; value and gradient, a rest of 1 row."""
    found, expected = (values_and_gradients(mix, np.float64) for mix in (in_rows, mixed))
    assert len(found) == 12
    for name, leaves in found.items():
        for leaf, plain in zip(leaves, expected[name], strict=True):
            np.testing.assert_allclose(
                leaf, plain, rtol=round_off(), atol=round_off(), err_msg=name
            )


def test_rows_in_sixteen_bits():
    """Closed form: the error against double precision is that of the plain form, within a half."""
    which = {"kernels": ("softmax", "gaussian"), "kinds": ("pairs",)}
    exact = values_and_gradients(mixed, np.float64, **which)
    rows, plain = (values_and_gradients(mix, jnp.bfloat16, **which) for mix in (in_rows, mixed))
    for name, leaves in exact.items():
        for true, found, other in zip(leaves, rows[name], plain[name], strict=True):
            errors = [np.linalg.norm(leaf - true) for leaf in (found, other)]
            assert errors[0] <= 1.5 * errors[1] + 1e-3 * np.linalg.norm(true), name


def test_memory_grows_with_the_tokens_alone():
    """Order of convergence: bytes of a compiled gradient, n^1 in rows of 8 and n^2 without."""
    sizes = (256, 512, 1024)

    def scratch(tokens, rows):
        block = nn.attention(dim=4, head_dim=2, rows=rows)
        heads = jax.vmap(block.draw)(jax.random.split(jax.random.key(0), 2))
        given = jnp.ones((tokens, 4)), heads, jnp.ones(tokens, bool)
        gradient = jax.grad(lambda *a: jnp.sum(block.mean(*a) ** 2), argnums=(0, 1))
        needs: Any = jax.jit(gradient).lower(*given).compile().memory_analysis()
        return needs.temp_size_in_bytes

    cut = np.polyfit(np.log(sizes), np.log([scratch(n, 8) for n in sizes]), 1)[0]
    whole = np.polyfit(np.log(sizes[:2]), np.log([scratch(n, n) for n in sizes[:2]]), 1)[0]
    assert cut <= 1.1
    assert whole >= 1.8


def looks_at_all_queries(seen):
    def kernel(queries, keys, mask=None):
        seen.append(len(queries))
        return queries @ keys.T / (1 + jnp.sum(queries**2))

    return kernel


def test_a_kernel_that_does_not_say_so_is_never_cut(monkeypatch):
    """Closed form: it sees all queries whatever the memory; one that says so sees four or three."""
    monkeypatch.setitem(working_set.BUDGET, "cpu", 8 * TOKENS * 4)
    queries, keys, values, _ = arrays()
    seen, told = [], []
    kernel = looks_at_all_queries(seen)
    found = mixing.mixing(kernel)(queries, keys, values, None)
    np.testing.assert_array_equal(found, mixed(kernel, queries, keys, values, None))
    assert set(seen) == {TOKENS}
    says_so = nn.RowKernel(weights=looks_at_all_queries(told))
    mixing.mixing(says_so)(queries, keys, values, None)
    assert set(told) == {4, 3}


def test_rows_from_the_budget(monkeypatch):
    """Closed form: all while one head's weights fit, in float32 where inputs have fewer digits."""
    queries, keys, *_ = arrays(tokens=8)
    for budget, expected in ((8 * 64, 8), (8 * 64 - 1, 4), (8 * 8, 1), (1, 1)):
        monkeypatch.setitem(working_set.BUDGET, "cpu", budget)
        assert rows_at_once(nn.softmax(), queries, keys) == expected
    monkeypatch.setitem(working_set.BUDGET, "cpu", 4 * 64)
    narrow = [leaf.astype(jnp.bfloat16) for leaf in (queries, keys)]
    assert rows_at_once(nn.softmax(), *narrow) == 8
    assert rows_at_once(nn.softmax(), queries, keys) == 4
