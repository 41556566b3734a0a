import functools

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import round_off

from meanfield import nn

DIM, SIZE, WIDTH, TOKENS = 5, 3, 4, 6
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(TOKENS, DIM))
# Dropout that drops nothing: the way to the softmax that keeps the dtype.
IN_DOUBLE = {"dropout_rate": 0.5, "deterministic": True}
SHAPES = {"query": (WIDTH, SIZE), "key": (WIDTH, SIZE), "value": (WIDTH, SIZE), "out": (DIM,)}


def parameters(*lead, shared=WIDTH, biases=(), dtype=np.float64):
    """Kernels of an attention module, and biases of the layers named."""

    def normal(*shape):
        return jnp.asarray(RNG.normal(size=(*lead, *shape)), dtype)

    tree = {
        "query": {"kernel": normal(DIM, WIDTH, SIZE)},
        "key": {"kernel": normal(DIM, shared, SIZE)},
        "value": {"kernel": normal(DIM, shared, SIZE)},
        "out": {"kernel": normal(WIDTH, SIZE, DIM)},
    }
    for name in biases:
        shape = SHAPES[name] if name == "out" or shared == WIDTH else (shared, SIZE)
        tree[name]["bias"] = normal(*(SHAPES["query"] if name == "query" else shape))
    return tree


def linen_output(tree, tokens, *, causal=False):
    layer = flax.linen.MultiHeadDotProductAttention(
        num_heads=tree["out"]["kernel"].shape[-3],
        qkv_features=tree["out"]["kernel"].shape[-3] * SIZE,
        use_bias="bias" in tree["out"],
        param_dtype=tokens.dtype,
    )
    mask = nn.causal_mask(len(tokens))[None] if causal else None
    return layer.apply({"params": tree}, tokens, mask=mask)


def nnx_module(tree, dtype=np.float64, **options):
    module = nnx.MultiHeadAttention(
        WIDTH,
        DIM,
        WIDTH * SIZE,
        num_kv_heads=tree["key"]["kernel"].shape[-2],
        use_bias="bias" in tree["out"],
        param_dtype=dtype,
        decode=False,
        rngs=nnx.Rngs(0),
        **options,
    )
    state = nnx.state(module, nnx.Param)
    nnx.replace_by_pure_dict(state, tree)
    nnx.update(module, state)
    return module


def mean_output(heads, tokens, *, causal=False):
    block = nn.attention(dim=tokens.shape[-1], head_dim=SIZE)
    return block.mean(tokens, heads, nn.causal_mask(len(tokens)) if causal else None)


def with_one(tokens):
    return jnp.concatenate([tokens, jnp.ones((len(tokens), 1), tokens.dtype)], axis=1)


def assert_close(found, expected, dtype=np.float64):
    assert found.dtype == expected.dtype == dtype
    bound = round_off(dtype) * float(jnp.max(jnp.abs(expected)))
    np.testing.assert_allclose(found, expected, atol=bound)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_linen(dtype, causal):
    """Independent library: the mean over imported heads is flax.linen's output."""
    tree, tokens = parameters(dtype=dtype), jnp.asarray(DATA, dtype)
    expected = linen_output(tree, tokens, causal=causal)
    for given in (tree, {"params": tree}):
        heads = nn.heads_from_flax(given)
        assert heads.query.shape == (WIDTH, DIM, SIZE)
        assert_close(mean_output(heads, tokens, causal=causal), expected, dtype)


@pytest.mark.parametrize("shared", [WIDTH, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_nnx(causal, shared):
    """Independent library: flax.nnx, both of its softmaxes, heads that share keys and values."""
    tree, tokens = parameters(shared=shared), jnp.asarray(DATA)
    module = nnx_module(tree)
    mask = nn.causal_mask(TOKENS)[None] if causal else None
    heads = nn.heads_from_flax(module)
    found = mean_output(heads, tokens, causal=causal)
    assert_close(found, nnx_module(tree, **IN_DOUBLE)(tokens, mask=mask))
    # The fused softmax is in float32, whatever the inputs are.
    fused = module(tokens, mask=mask)
    bound = round_off(np.float32) * float(jnp.max(jnp.abs(fused)))
    np.testing.assert_allclose(found, fused, atol=bound)
    jax.tree.map(
        np.testing.assert_array_equal, heads, nn.heads_from_flax(nnx.state(module, nnx.Param))
    )
    single = nnx_module(parameters(shared=shared, dtype=np.float32), np.float32)
    low = jnp.asarray(DATA, np.float32)
    found = mean_output(nn.heads_from_flax(single), low, causal=causal)
    assert_close(found, single(low, mask=mask), np.float32)


@pytest.mark.parametrize("biases", [("query", "key", "value"), ("query", "key", "value", "out")])
@pytest.mark.parametrize("causal", [False, True])
def test_biases_in_a_constant_coordinate(causal, biases):
    """Independent library: every bias, by tokens with one more coordinate; it is not written to."""
    tree = parameters(biases=biases)
    tree["out"].setdefault("bias", jnp.zeros(DIM))
    tokens = jnp.asarray(DATA)
    heads = nn.heads_from_flax(tree, biases="constant")
    assert heads.query.shape == (WIDTH + ("out" in biases), DIM + 1, SIZE)
    found = mean_output(heads, with_one(tokens), causal=causal)
    assert_close(found[:, :-1], linen_output(tree, tokens, causal=causal))
    np.testing.assert_array_equal(found[:, -1], 0.0)
    back = nn.flax_parameters(heads, biases="constant")
    jax.tree.map(assert_close, back, tree)


def test_key_bias_drops_out():
    """Theorem: a softmax does not see what it adds to all logits of a row."""
    tree = parameters(biases=("key",))
    for name in ("query", "value", "out"):
        tree[name]["bias"] = jnp.zeros(SHAPES[name])
    tokens = jnp.asarray(DATA)
    assert_close(mean_output(nn.heads_from_flax(tree), tokens), linen_output(tree, tokens))


@pytest.mark.parametrize("factor", [None, 1.0, 0.3])
def test_round_trip(factor):
    """Invariance: there and back, by linen's tree and by nnx's state, is the identity."""
    tree, tokens = parameters(), jnp.asarray(DATA)
    heads = nn.heads_from_flax(tree, output_factor=factor)
    ratio = (WIDTH if factor is None else factor) * tree["out"]["kernel"]
    assert_close(heads.output, ratio)
    back = nn.flax_parameters(heads, output_factor=factor)
    jax.tree.map(assert_close, back, tree)
    zero = nn.flax_parameters(heads, output_factor=factor, biases="zero")
    for exported in (back, zero):
        expected = linen_output(tree, tokens)
        assert_close(linen_output(exported, tokens), expected)
        assert_close(nnx_module(exported, **IN_DOUBLE)(tokens), expected)
        again = nn.heads_from_flax(nnx_module(exported), output_factor=factor)
        jax.tree.map(assert_close, again, heads)


def test_stack_of_layers():
    """Independent library: a network of imported layers is the residual stack of flax modules."""
    depth, tokens = 3, jnp.asarray(DATA)
    scanned = parameters(depth)
    layers = [jax.tree.map(lambda leaf, at=at: leaf[at], scanned) for at in range(depth)]
    expected = tokens
    for tree in layers:
        expected = expected + linen_output(tree, expected)
    for law in (nn.mean_field(), nn.standard(), nn.ntk()):
        factor = 1 / (law.depth_factor(depth) * law.width_factor(WIDTH))
        of = functools.partial(nn.heads_from_flax, output_factor=factor)
        network = nn.network((nn.attention(dim=DIM, head_dim=SIZE),), depth=depth, scaling=law)
        heads = of([nnx_module(tree) for tree in layers])
        assert_close(network.apply((heads,), tokens), expected)
        jax.tree.map(np.testing.assert_array_equal, heads, of(scanned))
        jax.tree.map(assert_close, nn.flax_parameters(heads, output_factor=factor), scanned)


def test_stack_with_biases():
    """Invariance: layers with and without biases stand in one stack, and come back."""
    layers = [parameters(biases=SHAPES), parameters()]
    heads = nn.heads_from_flax(layers, biases="constant")
    assert heads.output.shape == (2, WIDTH + 1, SIZE, DIM + 1)
    back = nn.flax_parameters(heads, biases="constant")
    first, second = (jax.tree.map(lambda leaf, at=at: leaf[at], back) for at in range(2))
    jax.tree.map(assert_close, first, layers[0])
    tokens = jnp.asarray(DATA)
    assert_close(linen_output(second, tokens), linen_output(layers[1], tokens))


def test_refusals():
    """Closed form: what a head is not."""
    for name in ("query", "value", "out"):
        with pytest.raises(ValueError, match=f"^the bias of {name} must be zero.*constant"):
            nn.heads_from_flax(parameters(biases=(name,)))
    normalised = nnx_module(parameters(), normalize_qk=True)
    with pytest.raises(ValueError, match="without normalised queries or keys"):
        nn.heads_from_flax(normalised)
    with pytest.raises(ValueError, match="^attention_fn must be flax.nnx.dot_product_attention"):
        nn.heads_from_flax(nnx_module(parameters(), attention_fn=lambda *args, **options: args[2]))
    wide = parameters()
    wide["out"]["kernel"] = jnp.zeros((WIDTH, SIZE, DIM + 1))
    with pytest.raises(ValueError, match="^the kernel of out must end in"):
        nn.heads_from_flax(wide)
    for layers in ([], [parameters(), parameters(WIDTH + 1)]):
        with pytest.raises(ValueError, match="^layers must be at least one, with kernels of one"):
            nn.heads_from_flax(layers)
    with pytest.raises(ValueError, match="^attention must be an nnx module, its state, a tree"):
        nn.heads_from_flax(jnp.ones(3))
    with pytest.raises(ValueError, match="^biases must be one of refuse, constant, got 'zero'"):
        nn.heads_from_flax(parameters(), biases="zero")
    heads = nn.heads_from_flax(parameters())
    with pytest.raises(ValueError, match="^heads must leave the constant coordinate alone"):
        nn.flax_parameters(heads, biases="constant")
    with pytest.raises(ValueError, match="^output_factor must be a finite number > 0, got 0"):
        nn.flax_parameters(heads, output_factor=0.0)
