import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off
from oracles import head_loop, head_pullback, neuron_loop, neuron_pullback, particle
from theory_problems import DEPTH, INPUTS, KAPPA, MEANS, particles

from meanfield import theory
from meanfield.theory.states import check_network

PARTICLES = particles(0)
MAPS = ((head_loop, head_pullback), (neuron_loop, neuron_pullback))


def squares(final):
    return jnp.sum(final**2) / 2


def by_hand(tokens):
    """Tokens and forces of one sample, layer by layer, block by block, in numpy."""
    tokens, visited, forces = np.asarray(tokens), [], []
    blocks = [tuple(np.asarray(leaf) for leaf in tree) for tree in PARTICLES]
    for layer in range(DEPTH):
        for (encoder, _), block, kappa in zip(MAPS, blocks, KAPPA, strict=True):
            visited.append(tokens)
            updates = [encoder(tokens, particle(block, layer, j)) for j in range(block[0].shape[1])]
            tokens = tokens + kappa / DEPTH * np.mean(updates, axis=0)
    adjoint = tokens
    for step in reversed(range(2 * DEPTH)):
        layer, b = divmod(step, 2)
        forces.append(KAPPA[b] * adjoint)
        pulled = [
            MAPS[b][1](visited[step], particle(blocks[b], layer, j), adjoint)[0]
            for j in range(blocks[b][0].shape[1])
        ]
        adjoint = adjoint + KAPPA[b] / DEPTH * np.mean(pulled, axis=0)
    return np.array(visited), np.array(forces[::-1])


def test_against_loop():
    """Numpy loop: half-steps and their pullbacks by hand, sample by sample."""
    states = theory.network_states(MEANS, squares, PARTICLES, INPUTS, kappa=KAPPA)
    np.testing.assert_allclose(states[0].depths, np.arange(DEPTH) / DEPTH, rtol=round_off())
    for sample, tokens in enumerate(INPUTS):
        visited, forces = by_hand(tokens)
        for b, found in enumerate(states):
            for got, want in ((found.tokens, visited), (found.forces, forces)):
                np.testing.assert_allclose(
                    got[:, sample], want[b::2], rtol=round_off(), atol=round_off()
                )


def test_layer_that_holds_a_depth():
    """Closed form: layer l holds the depths from l/L up to, and without, (l+1)/L; 1 is the last."""
    (states,) = theory.network_states(
        [lambda tokens, theta, mask: tokens], squares, (jnp.ones((4, 1)),), jnp.ones((1, 1, 1))
    )
    found = theory.at_depths(states, jnp.array([0.0, 0.24, 0.25, 0.6, 1.0]))
    np.testing.assert_array_equal(found.tokens, states.tokens[np.array([0, 0, 1, 2, 3])])
    np.testing.assert_array_equal(found.forces, states.forces[np.array([0, 0, 1, 2, 3])])
    np.testing.assert_array_equal(theory.at_depths(states, [0.6]).tokens, states.tokens[2:3])


@pytest.mark.parametrize("kappa", [2, np.float32(2.0), jnp.asarray(2.0), [2.0], np.array([2.0])])
def test_one_constant_in_any_form(kappa):
    """Closed form: numbers of Python, numpy and jax, and lists of one of them."""
    bare = inspect.unwrap(check_network)
    assert bare([jnp.add], (jnp.ones((2, 3)),), kappa) == (2.0,)


def test_second_call_compiles_nothing():
    """Equality: other particles and tokens of the same shapes trace the block 0 times."""
    traces = []

    def mean(tokens, theta, mask):
        traces.append(None)
        return jnp.mean(theta) * tokens

    def call(size):
        tokens, tree = size * jnp.ones((1, 2, 2)), size * jnp.ones((2, 3))
        return theory.network_states([mean], squares, (tree,), tokens)

    call(1.0)
    before = len(traces)
    jax.block_until_ready(call(2.0))
    assert len(traces) == before > 0


@pytest.mark.parametrize(
    ("trees", "kappa", "message"),
    [
        (PARTICLES[:1], 1.0, "there must be one tree of particles for each mean.*got 1 trees"),
        ((PARTICLES[0], particles(0, depth=2)[1]), 1.0, r"particles .* got depths \[3, 2\]"),
        (PARTICLES, (1.0,), "kappa must be one number or 2, got 1"),
        (PARTICLES, -1.0, "kappa must be >= 0, got -1.0"),
    ],
)
def test_refusals(trees, kappa, message):
    """Closed form: got, expected, remedy."""
    with pytest.raises(ValueError, match=f"^{message}"):
        theory.network_states(MEANS, squares, trees, INPUTS, kappa=kappa)


def test_refused_depths():
    """Closed form: depths are numbers in [0, 1]."""
    states = theory.States(jnp.zeros(1), jnp.zeros((1, 1, 1, 1)), jnp.zeros((1, 1, 1, 1)))
    with pytest.raises(ValueError, match=r"^depths must be .*\[0, 1\].*got \[1.5\]"):
        theory.at_depths(states, jnp.array([1.5]))
