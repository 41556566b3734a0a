import inspect

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from oracles import head_loop, particle

from meanfield import nn

TOKENS, DIM, HEAD_DIM, WIDTH = 4, 3, 2, 5
KERNELS = {
    "softmax": nn.softmax(),
    "gaussian": nn.gaussian(),
    "normalized": nn.gaussian(normalize=True),
    "linear": nn.linear(),
}


def tokens_and_heads(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    into, out = (WIDTH, DIM, HEAD_DIM), (WIDTH, HEAD_DIM, DIM)
    heads = nn.Head(*(jnp.asarray(rng.normal(size=s), dtype) for s in (into, into, into, out)))
    return jnp.asarray(rng.normal(size=(TOKENS, DIM)), dtype), heads


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", KERNELS)
def test_mean_against_loop(name, causal, dtype):
    """Numpy loop: the average over heads, each token and key by itself; one particle likewise."""
    tokens, heads = tokens_and_heads(dtype=dtype)
    block = nn.attention(dim=DIM, head_dim=HEAD_DIM, kernel=KERNELS[name])
    given = nn.causal_mask(TOKENS) if causal else None
    pairs = np.tri(TOKENS, dtype=bool) if causal else None
    exact = np.asarray(tokens, float)
    as_float = jax.tree.map(lambda leaf: np.asarray(leaf, float), heads)
    loops = [head_loop(exact, particle(as_float, j), name, pairs) for j in range(WIDTH)]
    tolerance = round_off(dtype)
    mean = block.mean(tokens, heads, given)
    assert mean.dtype == dtype
    np.testing.assert_allclose(mean, np.mean(loops, axis=0), rtol=tolerance, atol=tolerance)
    one = block.particle(tokens, jax.tree.map(lambda leaf: leaf[1], heads), given)
    np.testing.assert_allclose(one, loops[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("masked", [False, True])
def test_width_times_mean_is_flax(masked):
    """Independent library: flax's multi-head attention sums over heads; equal to round-off."""
    tokens, heads = tokens_and_heads()
    layer = flax.linen.MultiHeadDotProductAttention(
        num_heads=WIDTH,
        qkv_features=WIDTH * HEAD_DIM,
        out_features=DIM,
        use_bias=False,
        dtype=jnp.float64,
        param_dtype=jnp.float64,
    )
    params = {
        name: {"kernel": jnp.swapaxes(leaf, 0, 1)}
        for name, leaf in zip(("query", "key", "value"), heads[:3], strict=True)
    }
    params["out"] = {"kernel": heads.output}
    mask = nn.causal_mask(TOKENS) if masked else None
    expected = layer.apply({"params": params}, tokens, mask=None if mask is None else mask[None])
    found = WIDTH * nn.attention(dim=DIM, head_dim=HEAD_DIM).mean(tokens, heads, mask)
    np.testing.assert_allclose(found, expected, rtol=round_off(), atol=round_off())


def test_causality_by_gradients():
    """Theorem: the derivative of output a by token b > a is exactly 0 under the causal mask."""
    tokens, heads = tokens_and_heads()
    block = nn.attention(dim=DIM, head_dim=HEAD_DIM)
    jacobian = jax.jacobian(block.mean)(tokens, heads, nn.causal_mask(TOKENS))
    influence = np.max(np.abs(jacobian), axis=(1, 3))
    np.testing.assert_array_equal(influence[np.triu_indices(TOKENS, 1)], 0.0)
    assert np.all(influence[np.tril_indices(TOKENS)] > 1e-8)


def test_token_without_keys_is_left_alone():
    """Closed form: a fully masked query gets no update; gradients are finite."""
    tokens, heads = tokens_and_heads()
    block = nn.attention(dim=DIM, head_dim=HEAD_DIM)
    mask = jnp.asarray(np.arange(TOKENS)[:, None] != np.full((1, TOKENS), 2))
    np.testing.assert_array_equal(block.mean(tokens, heads, mask)[2], 0.0)
    gradient = jax.grad(lambda heads: jnp.sum(block.mean(tokens, heads, mask) ** 2))(heads)
    assert all(np.all(np.isfinite(leaf)) for leaf in gradient)


def test_homogeneous_in_value_and_output():
    """Theorem: doubling W_V and W_O multiplies the update by 4; W_Q and W_K are not homogeneous."""
    tokens, heads = tokens_and_heads()
    block = nn.attention(dim=DIM, head_dim=HEAD_DIM)
    base = block.mean(tokens, heads, None)
    doubled = heads._replace(value=2 * heads.value, output=2 * heads.output)
    np.testing.assert_allclose(block.mean(tokens, doubled, None), 4 * base, rtol=round_off())
    turned = heads._replace(query=2 * heads.query)
    assert np.max(np.abs(block.mean(tokens, turned, None) - 2 * base)) > 1e-2


def test_draw():
    """Closed form: shapes, double precision, and the measure asked for."""
    block = nn.attention(dim=DIM, head_dim=HEAD_DIM, measure=nn.inits.gaussian(0.0))
    head = block.draw(jax.random.key(0))
    assert [leaf.shape for leaf in head] == [(3, 2), (3, 2), (3, 2), (2, 3)]
    assert all(leaf.dtype == np.float64 and not leaf.any() for leaf in head)
    assert block.name == "heads"


@pytest.mark.parametrize("name", ["dim", "head_dim"])
def test_refused_dimensions(name):
    """Closed form: dimensions are integers >= 1."""
    sizes = {"dim": DIM, "head_dim": HEAD_DIM, name: 0}
    with pytest.raises(ValueError, match=f"^{name} must be an integer >= 1, got 0"):
        nn.attention(**sizes)


def test_refused_tokens(monkeypatch):
    """Closed form: tokens of another dimension, named with their shape."""
    _, heads = tokens_and_heads()
    module = inspect.getmodule(inspect.unwrap(nn.attention))
    monkeypatch.setattr(module, "check_tokens", inspect.unwrap(module.check_tokens))
    block = nn.attention(dim=DIM, head_dim=HEAD_DIM)
    with pytest.raises(ValueError, match=r"dimension 3, got tokens of shape \(4, 7\)"):
        block.mean(jnp.ones((TOKENS, 7)), heads, None)
    with pytest.raises(ValueError, match=r"dimension 3, got tokens of shape \(4, 7\)"):
        block.particle(jnp.ones((TOKENS, 7)), jax.tree.map(lambda leaf: leaf[0], heads), None)
