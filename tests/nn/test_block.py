import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import round_off

from meanfield import nn, working_set
from meanfield.nn.block import check_particles, check_tokens, chunked_mean, particle_shapes

RNG = np.random.default_rng(0)
TOKENS = jnp.asarray(RNG.normal(size=(4, 3)))


def rotation(tokens, particle, mask):
    """An encoder of a user's: a drift and a pull to the mean of the tokens that are seen."""
    seen = jnp.ones(len(tokens)) if mask is None else mask.astype(tokens.dtype)
    centre = (seen / jnp.sum(seen)) @ tokens
    pull = particle["pull"] * (centre[None, :] - tokens)
    return jnp.sin(tokens @ particle["matrix"]) + pull


def draw(key):
    keys = jax.random.split(key)
    return {"matrix": jax.random.normal(keys[0], (3, 3)), "pull": jax.random.normal(keys[1])}


def user_particles(*leading):
    return {
        "matrix": jnp.asarray(RNG.normal(size=(*leading, 3, 3))),
        "pull": jnp.asarray(RNG.normal(size=leading)),
    }


def test_mean_of_a_users_encoder():
    """Numpy loop: the mean is the average of the encoder over particles, mask handed on."""
    block, particles = nn.block(rotation, draw, name="rotations"), user_particles(6)
    mask = jnp.array([True, False, True, True])
    updates = []
    for j in range(6):
        centre = np.mean(np.asarray(TOKENS)[np.asarray(mask)], axis=0)
        matrix, pull = np.asarray(particles["matrix"])[j], np.asarray(particles["pull"])[j]
        updates.append(np.sin(TOKENS @ matrix) + pull * (centre - np.asarray(TOKENS)))
    found = block.mean(TOKENS, particles, mask)
    np.testing.assert_allclose(found, np.mean(updates, axis=0), rtol=round_off())
    assert block.name == "rotations"


def test_own_mean_is_used():
    """Closed form: a mean that the user gives is the one that runs."""
    block = nn.block(rotation, draw, mean=lambda tokens, particles, mask: 7.0 * tokens)
    np.testing.assert_array_equal(block.mean(TOKENS, user_particles(2), None), 7.0 * TOKENS)


def test_particle_shapes():
    """Closed form: the shapes that the initial measure draws."""
    shapes = particle_shapes(nn.block(rotation, draw))
    assert {name: leaf.shape for name, leaf in shapes.items()} == {"matrix": (3, 3), "pull": ()}
    check_particles(nn.block(rotation, draw), user_particles(2, 5))


def test_refused_particles():
    """Closed form: another tree, another trailing shape, an axis missing or too many."""
    block, good = nn.block(rotation, draw, name="rotations"), user_particles(2, 5)
    with pytest.raises(ValueError, match="^rotations must be a tree .*got"):
        check_particles(block, good["matrix"])
    for bad in (jnp.ones((2, 5, 3, 4)), jnp.ones((5, 3, 3)), jnp.ones((1, 2, 5, 3, 3))):
        message = r"^rotations\['matrix'\] must have shape \('l', 'm', 3, 3\) .*got \("
        with pytest.raises(ValueError, match=message):
            check_particles(block, {**good, "matrix": bad})
    for bad in (jnp.ones((2, 4)), jnp.ones((1, 5))):
        with pytest.raises(ValueError, match="leaves must share one length along axis"):
            check_particles(block, {**good, "pull": bad})


def test_refused_tokens():
    """Closed form: the message names the particles, their dimension and the tokens' shape."""
    assert check_tokens(TOKENS, 3, "heads") is None
    message = r"^tokens must have the heads' dimension 5, got tokens of shape \(4, 3\)$"
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(check_tokens)(TOKENS, 5, "heads")


@pytest.mark.parametrize("kernel", [nn.softmax(), nn.gaussian()])
def test_mean_in_chunks(kernel):
    """Invariance: value, gradient, Hessian product to round-off; chunks need not divide."""
    block = nn.attention(dim=3, head_dim=2, kernel=kernel)
    heads = jax.vmap(block.draw)(jax.random.split(jax.random.key(0), 5))
    mask = jnp.array([True, False, True, True])

    def everything(chunk):
        def risk(at):
            return jnp.sum(chunked_mean(block, at[0], at[1], mask, chunk=chunk) ** 2)

        at = (TOKENS, heads)
        return risk(at), *jax.jvp(jax.grad(risk), (at,), (jax.tree.map(jnp.cos, at),))

    whole = everything(5)
    for chunk in (1, 2, 7):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(
                a, b, rtol=round_off(), atol=round_off() * np.abs(b).max()
            ),
            everything(chunk),
            whole,
        )


def test_memory_is_set_by_the_chunk(monkeypatch):
    """Equality: the compiled gradient needs no more scratch memory for twice the heads."""
    block, tokens = nn.attention(dim=2, head_dim=1), jnp.zeros((16, 2))

    def scratch(width, chunk=None):
        def risk(heads):
            return jnp.sum(chunked_mean(block, tokens, heads, None, chunk=chunk) ** 2)

        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((width, *leaf.shape), leaf.dtype),
            particle_shapes(block),
        )
        compiled = jax.jit(jax.grad(risk)).lower(shapes).compile()
        # Gradients themselves, and copies of the heads in the order of chunks, must grow.
        heads = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
        return compiled.memory_analysis().temp_size_in_bytes - heads

    whole = scratch(128)
    monkeypatch.setitem(working_set.BUDGET, "cpu", 2**14)
    assert scratch(256) <= scratch(128) < scratch(128, 64) / 4 < whole / 4


@pytest.mark.parametrize(("tokens", "chunk"), [(64, 16), (128, 16), (256, 8), (512, 2), (16, 128)])
def test_chunks(tokens, chunk):
    """Closed form: 16 samples' weights fit 2 MiB, or those of 16 heads and one sample, or one's."""
    heads = jax.eval_shape(
        jax.vmap(nn.attention(dim=4, head_dim=2).draw), jax.random.split(jax.random.key(0), 8192)
    )

    def loops(tokens):
        return str(jax.make_jaxpr(mean)(heads, jax.ShapeDtypeStruct((tokens, 4), np.float32)))

    def mean(heads, tokens):
        single = jax.tree.map(lambda leaf: leaf.astype(np.float32), heads)
        return chunked_mean(nn.attention(dim=4, head_dim=2), tokens, single, None)

    assert f" length={8192 // chunk}\n" in loops(tokens)


def test_few_particles_are_not_taken_apart():
    """Equality: where all fit, there is no loop."""
    block = nn.block(rotation, draw)
    traced = jax.make_jaxpr(lambda p: chunked_mean(block, TOKENS, p, None))(user_particles(6))
    assert "scan" not in str(traced)
