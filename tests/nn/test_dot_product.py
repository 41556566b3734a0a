import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meanfield import nn
from meanfield.nn import mixing, rows
from meanfield.nn.dot_product import attended

TOKENS, WIDTH, HEAD_DIM, SAMPLES, FACTOR = 8, 2, 8, 3, 0.3


def arrays(*lead, tokens=TOKENS):
    """Queries, keys, values and their masks of pairs."""
    rng = np.random.default_rng(0)
    shape = (*lead, tokens, WIDTH, HEAD_DIM)
    given = [jnp.asarray(rng.normal(size=shape), np.float32) for _ in range(3)]
    pairs = rng.uniform(size=(*lead, tokens, tokens)) < 0.6
    return *given, jnp.asarray(pairs | np.eye(tokens, dtype=bool))


def plain(*given):
    return rows.mixed(nn.softmax(FACTOR), *given)


def agree(found, expected):
    def close(leaf, other):
        np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=2e-5)

    jax.tree.map(close, found, expected)


MAPPED = {
    "samples and masks": (0, 0, 0, 0),
    "one mask": (0, 0, 0, None),
    "no mask": (0, 0, 0, False),
    "other axes": (3, None, 1, None),
    "masks alone": (None, None, None, 0),
}


@pytest.mark.parametrize("case", MAPPED)
def test_axes_that_are_mapped_over(case):
    """Independent library: jax's own vmap of the plain form; cotangents that are not mapped too."""
    axes = [None if axis is False else axis for axis in MAPPED[case]]
    many, one = arrays(SAMPLES), arrays()
    given: list = [
        a if axis is None else jnp.moveaxis(b, 0, axis)
        for a, b, axis in zip(one, many, axes, strict=True)
    ]
    if MAPPED[case][3] is False:
        given[3] = None

    def gradients(attend):
        summed = jax.grad(lambda *given: jnp.sum(attend(*given)), argnums=(0, 1, 2))
        outer = jax.vmap(jax.vmap(summed, in_axes=axes), in_axes=(None, 0, None, None))
        lead = [a if i != 1 else jnp.stack([a, 2 * a]) for i, a in enumerate(given)]
        return jax.jit(outer)(*lead)

    agree(gradients(attended("xla")(FACTOR)), gradients(plain))


def test_hessian_products_through_layers():
    """Independent library: jax's derivatives of the plain form; forward over reverse, in a scan."""
    *given, pairs = arrays()
    moves = tuple(jnp.sin(leaf) for leaf in given)

    def value(attend, queries, keys, values):
        def layer(state, _):
            return state + attend(state, keys, values, pairs), None

        return jnp.sum(jnp.cos(jax.lax.scan(layer, queries, None, length=2)[0]))

    def product(attend):
        gradient = jax.grad(functools.partial(value, attend), argnums=(0, 1, 2))
        return jax.jit(lambda *given: jax.jvp(gradient, given, moves)[1])(*given)

    agree(product(attended("xla")(FACTOR)), product(plain))


def on_a_gpu(function, *given):
    """The program that jax would hand to a GPU's compiler."""
    program = jax.jit(function).trace(*given).lower(lowering_platforms=("cuda",)).as_text()
    square = re.findall(r"tensor<[0-9x]*103[0-9]x103[0-9]x\w+>", program)
    return set(re.findall(r"__cudnn\$\w+", program)), set(square)


LONG = 1032
FORWARD, BACKWARD = "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"


@pytest.fixture
def gpu(monkeypatch):
    """A device that answers like a GPU until something is to be computed on it."""
    # Whether cuDNN is installed is all that jax asks before a program is compiled.
    module = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(module, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(mixing, "_capability", lambda: 9.0)


@pytest.mark.parametrize(
    "kernel", [nn.softmax(), nn.gaussian(), nn.gaussian(normalize=True)], ids=["s", "g", "n"]
)
def test_program_of_a_gpu(kernel, gpu):
    """Closed form: gradients and Hessian products call cuDNN and hold no array of pairs."""
    net = nn.network(
        (nn.attention(dim=8, head_dim=4, kernel=kernel, rows=8),), depth=2, compute="bfloat16"
    )
    heads = jax.tree.map(lambda a: a.astype("f4"), net.init(jax.random.key(0), width=3))
    tokens, masks = jnp.ones((2, LONG - 1, 8), "f4"), jnp.ones((2, LONG - 1), bool)

    def loss(heads):
        found = jax.vmap(net.apply, in_axes=(None, 0, 0))(heads, tokens, masks)
        return jnp.sum(found**2)

    assert on_a_gpu(jax.grad(loss), heads) == ({FORWARD, BACKWARD}, set())


def test_hessian_product_of_a_gpu(gpu, monkeypatch):
    """Closed form: it is computed by rows beside cuDNN's gradient."""
    monkeypatch.setattr("meanfield.working_set.ELSEWHERE", 2**20)
    queries = jnp.ones((LONG, 1, 8), "bfloat16")
    attend = attended("cudnn")(FACTOR)

    def value(queries):
        return jnp.sum(attend(queries, queries, queries, None).astype("f4") ** 2)

    calls, square = on_a_gpu(lambda q: jax.jvp(jax.grad(value), (q,), (q,))[1], queries)
    assert calls >= {FORWARD}
    assert not square
