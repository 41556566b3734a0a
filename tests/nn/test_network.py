import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from oracles import head_loop, network_loop, neuron_loop

from meanfield import nn, working_set
from meanfield.nn.scaling import LAWS

TOKENS, DIM, DEPTH, HEADS, NEURONS = 4, 3, 3, 2, 5
KEY = jax.random.key(0)
BLOCKS = (nn.attention(dim=DIM, head_dim=2), nn.mlp(dim=DIM, activation=jnp.tanh))
MASK = jnp.array([True, True, False, True])


def tokens_and_particles(seed=0, size=0.3):
    """Tokens, and particles with another width for each block."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(size * rng.normal(size=(DEPTH, *shape)))

    heads = nn.Head(*(normal(HEADS, *s) for s in [(DIM, 2)] * 3 + [(2, DIM)]))
    neurons = nn.Neuron(normal(NEURONS, DIM), normal(NEURONS), normal(NEURONS, DIM))
    return jnp.asarray(rng.normal(size=(TOKENS, DIM))), (heads, neurons)


def shapes(network, width):
    """The particles of a network as shapes, without drawing them."""
    return jax.eval_shape(lambda key: network.init(key, width=width), KEY)


def factors(law, width):
    """Width and depth factor of a half-step, written out from the papers."""
    return {
        "mean_field": 1 / width / DEPTH,
        "complete_p": width**-0.5 / DEPTH,
        "ntk": width**-0.5 * DEPTH**-0.5,
        "standard": 1.0,
    }[law]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("law", LAWS)
def test_against_loop(law, masked):
    """Numpy loop: layers, half-steps and particles one by one; widths and kappa of their own."""
    tokens, particles = tokens_and_particles()
    network = nn.network(BLOCKS, depth=DEPTH, scaling=LAWS[law](), kappa=(0.8, 1.5))
    pairs = np.broadcast_to(np.asarray(MASK), (TOKENS, TOKENS)) if masked else None
    expected = network_loop(
        tokens,
        [(functools.partial(head_loop, mask=pairs), particles[0]), (neuron_loop, particles[1])],
        [0.8 * factors(law, HEADS), 1.5 * factors(law, NEURONS)],
        token_factor=DIM**-0.5 if law == "complete_p" else 1.0,
    )
    found = network.apply(particles, tokens, MASK if masked else None)
    np.testing.assert_allclose(found, expected, rtol=round_off(), atol=round_off())


def test_half_steps_are_in_order():
    """Numpy loop: heads before neurons is not neurons before heads; both orders are right."""
    tokens, (heads, neurons) = tokens_and_particles(size=1.0)
    steps = [1 / HEADS / DEPTH, 1 / NEURONS / DEPTH]
    loop = [(head_loop, heads), (neuron_loop, neurons)]
    forward = nn.network(BLOCKS, depth=DEPTH).apply((heads, neurons), tokens)
    backward = nn.network(BLOCKS[::-1], depth=DEPTH).apply((neurons, heads), tokens)
    for found, order in ((forward, 1), (backward, -1)):
        expected = network_loop(tokens, loop[::order], steps[::order])
        np.testing.assert_allclose(found, expected, rtol=round_off(), atol=round_off())
    assert np.max(np.abs(forward - backward)) > 1e-2


def test_one_block_and_three():
    """Numpy loop: any number of half-steps, a user's encoder among them."""
    tokens, (_, neurons) = tokens_and_particles()
    decay = nn.block(lambda T, rate, mask: -rate * T, jax.random.normal)
    rates = jnp.asarray(np.random.default_rng(2).uniform(size=(DEPTH, 4)))
    steps = [1 / 4 / DEPTH, 1 / NEURONS / DEPTH, 1 / 4 / DEPTH]

    def by_hand(tokens, particle):
        return -particle[0] * tokens

    alone = nn.network([decay], depth=DEPTH).apply((rates,), tokens)
    expected = np.asarray(tokens) * np.prod(1 - np.mean(rates, axis=1) / DEPTH)
    np.testing.assert_allclose(alone, expected, rtol=round_off())
    three = nn.network((decay, BLOCKS[1], decay), depth=DEPTH)
    loop = [(by_hand, (rates,)), (neuron_loop, neurons), (by_hand, (rates,))]
    np.testing.assert_allclose(
        three.apply((rates, neurons, rates), tokens),
        network_loop(tokens, loop, steps),
        rtol=round_off(),
        atol=round_off(),
    )


def test_recomputation_changes_nothing():
    """Invariance: remat gives the value and the gradient of the plain network, to round-off."""
    tokens, particles = tokens_and_particles()

    def value(network):
        return jax.value_and_grad(lambda p: jnp.sum(network.apply(p, tokens) ** 2))(particles)

    plain, again = (value(nn.network(BLOCKS, depth=DEPTH, remat=r)) for r in (False, True))
    close = functools.partial(np.testing.assert_allclose, rtol=round_off(), atol=round_off())
    jax.tree.map(close, again, plain)


@pytest.mark.parametrize("remat", [False, True])
def test_program_does_not_grow_with_depth(remat):
    """Equality: the program of 2 layers has as many operations as that of 7."""
    network = nn.network(BLOCKS, depth=2, remat=remat)

    def operations(depth):
        particles = shapes(nn.network(BLOCKS, depth=depth), 2)
        value = jax.grad(lambda p: jnp.sum(network.apply(p, jnp.ones((4, DIM)))))
        return len(jax.make_jaxpr(value)(particles).eqns)

    assert operations(2) == operations(7)


def test_few_large_layers_are_no_loop(monkeypatch):
    """Invariance: the same value and gradient, from a program without a loop."""
    tokens, particles = tokens_and_particles()
    network = nn.network(BLOCKS, depth=DEPTH)

    def gradient():
        value = jax.value_and_grad(lambda theta: jnp.sum(network.apply(theta, tokens) ** 2))
        lowered = jax.jit(value).lower(particles)
        return lowered.compile()(particles), lowered.as_text().count("stablehlo.while")

    looped, loops = gradient()
    monkeypatch.setattr(working_set, "LEAST_WORK", 0)
    straight, none = gradient()
    assert (loops, none) == (2, 0)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=round_off(), atol=round_off()),
        straight,
        looped,
    )
    monkeypatch.setattr(working_set, "MOST_LAYERS", DEPTH - 1)
    assert gradient()[1] == loops


def test_widths_at_initialisation():
    """Closed form: one width for all blocks, or one for each; depth layers."""
    network = nn.network(BLOCKS, depth=DEPTH)
    heads, neurons = shapes(network, (2, 5))
    assert heads.query.shape == (DEPTH, 2, DIM, 2)
    assert neurons.bias.shape == (DEPTH, 5)
    heads, neurons = shapes(network, 4)
    assert heads.output.shape == (DEPTH, 4, 2, DIM)
    assert neurons.weight_in.shape == (DEPTH, 4, DIM)


def test_blocks_draw_apart():
    """Closed form: two blocks of one kind do not share their particles; equal keys do."""
    normal = nn.block(lambda T, theta, mask: T, jax.random.normal)
    network = nn.network((normal, normal), depth=2)
    first, second = network.init(KEY, width=3)
    assert not np.any(np.asarray(first) == np.asarray(second))
    np.testing.assert_array_equal(network.init(KEY, width=3)[0], first)


def test_kappa_zero_is_the_identity():
    """Closed form: without its half-steps a network returns its tokens."""
    tokens, particles = tokens_and_particles()
    network = nn.network(BLOCKS, depth=DEPTH, kappa=0.0)
    np.testing.assert_array_equal(network.apply(particles, tokens), tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": ()}, "blocks must hold at least one half-step, got none"),
        ({"depth": 0}, "depth must be an integer >= 1, got 0"),
        ({"depth": -2}, "depth must be an integer >= 1, got -2"),
        ({"compute": "float16"}, "compute must be one of .*bfloat16"),
        ({"chunk": 0}, "chunk must be an integer >= 1, got 0"),
        ({"kappa": (1.0,)}, "kappa must be one number or 2, got 1"),
        ({"kappa": -1.0}, "kappa must be .*>= 0, got -1.0"),
        ({"kappa": (1.0, np.nan)}, "kappa must be .*>= 0, got nan"),
    ],
)
def test_refused_networks(options, message):
    """Closed form: got, expected, remedy."""
    options = {"blocks": BLOCKS, "depth": DEPTH, **options}
    with pytest.raises(ValueError, match=f"^{message}"):
        nn.network(options.pop("blocks"), **options)


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (0, "width must be an integer >= 1, got 0"),
        ((4, -1), "width must be an integer >= 1, got -1"),
        ((4, 4, 4), r"width must be one number or one for each of heads, neurons, got \[4, 4, 4\]"),
    ],
)
def test_refused_widths(width, message):
    """Closed form: got, expected, the names of the blocks."""
    with pytest.raises(ValueError, match=f"^{message}"):
        nn.network(BLOCKS, depth=DEPTH).init(KEY, width=width)


def test_refused_particles():
    """Closed form: too few trees, different depths, another head dimension, another coupling."""
    tokens, (heads, neurons) = tokens_and_particles()
    network = nn.network(BLOCKS, depth=DEPTH)
    with pytest.raises(ValueError, match="particles must be 2 trees, one per block, got 1"):
        network.apply((heads,), tokens)
    with pytest.raises(ValueError, match=r"all blocks must have one depth, got \[3, 2\]"):
        network.apply((heads, jax.tree.map(lambda leaf: leaf[:2], neurons)), tokens)
    with pytest.raises(ValueError, match=r"heads\.query must have shape \('l', 'm', 3, 2\)"):
        network.apply((heads._replace(query=jnp.ones((DEPTH, HEADS, DIM, 3))), neurons), tokens)
    with pytest.raises(ValueError, match="coupling must be one of .*did you mean 'path'"):
        network.init(KEY, width=2, coupling="paths")


@pytest.mark.parametrize("kernel", [nn.softmax(), nn.gaussian(), nn.gaussian(normalize=True)])
def test_sixteen_bits(kernel):
    """Theorem: rounding to 8 bits moves tokens and gradients by a few times 2^-8, no more."""
    tokens, particles = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32), tokens_and_particles(size=0.6)
    )
    blocks = (nn.attention(dim=DIM, head_dim=2, kernel=kernel), nn.mlp(dim=DIM))

    def everything(compute, chunk=5):
        net = nn.network(blocks, depth=DEPTH, compute=compute, chunk=chunk)

        def risk(particles):
            return jnp.sum(net.apply(particles, tokens) ** 2)

        return net.apply(particles, tokens), jax.grad(risk)(particles)

    exact = everything(None)
    same = everything("float32")
    jax.tree.map(np.testing.assert_array_equal, same, exact)
    for found in (everything("bfloat16"), everything("bfloat16", chunk=2)):
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
            assert one.dtype == np.float32
            gap = float(jnp.linalg.norm(one - other) / jnp.linalg.norm(other))
            assert 1e-5 < gap < 4 * 2**-8
