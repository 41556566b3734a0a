r"""Half-steps of a Transformer: one particle's map, the mean over particles, the initial measure.

A block is any encoder f(T, theta) of one particle; its half-step uses

    mean(T, rho) = (1/M) sum_j f(T, theta_j).

Attention (:func:`meanfield.nn.attention`) and feed-forward (:func:`meanfield.nn.mlp`) are two such
blocks with fast means; :func:`block` builds one from any function.

One trap: a mean by ``vmap`` over particles is several times slower than merged projections; give
``mean`` where width matters.

References:
    Gao et al. 2024, arXiv 2410.23610 (encoders f and h; half-steps: our reading of the paper).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from meanfield.devices import zeros
from meanfield.notation import Mask, Tokens, Weights
from meanfield.tree import leading_axis
from meanfield.working_set import budget, fitting, largest_arrays

Encoder = Callable[[Tokens, Any, Mask | None], Tokens]
SAMPLES, PARTICLES = 16, 16
"""Samples that are meant to be handled side by side where particles are handled in chunks, unless
that leaves fewer particles at once than this."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One half-step of every layer.

    Attributes:
        name: What its particles are called ("heads").
        particle: f(tokens, particle, mask): the update by one particle.
        mean: The mean of ``particle`` over particles with one leading axis [m, ...].
        draw: One particle from a key: the initial measure.
        weights: weights(tokens, particle, mask): the attention weights [n n] of one particle; None
            where particles do not attend.
    """

    name: str
    particle: Encoder
    mean: Encoder
    draw: Callable[[Any], PyTree]
    weights: Callable[[Tokens, Any, Mask | None], Weights] | None = None


def block(
    particle: Encoder,
    draw: Callable[[Any], PyTree],
    *,
    name: str = "particles",
    mean: Encoder | None = None,
) -> Block:
    """A block from a user's encoder.

    Args:
        particle: f(tokens [n d], particle, mask) -> update [n d].
        draw: The initial measure: a particle from a key.
        name: What the particles are called.
        mean: The mean over particles [m, ...], if there is a faster way than ``vmap``.

    >>> drift = block(lambda T, theta, mask: theta * T, jax.random.normal)
    >>> drift.mean(jnp.ones((1, 1)), jnp.array([1.0, 3.0]), None).tolist()
    [[2.0]]
    """

    def mean_by_vmap(tokens: Tokens, particles: PyTree, mask: Mask | None) -> Tokens:
        updates = jax.vmap(particle, in_axes=(None, 0, None))(tokens, particles, mask)
        return jnp.mean(updates, axis=0)

    return Block(name=name, particle=particle, mean=mean or mean_by_vmap, draw=draw)


def chunked_mean(
    a_block: Block,
    tokens: Tokens,
    particles: PyTree,
    mask: Mask | None,
    *,
    chunk: int | None = None,
) -> Tokens:
    """The block's mean over particles, some of them at a time.

    A loop over chunks of particles adds up their means; the backward pass computes each anew, so
    memory does not grow with the width.

    Args:
        a_block: The block.
        tokens: Tokens of one sample.
        particles: Particles with one leading axis [m, ...].
        mask: True where a key may be attended to.
        chunk: Particles at once; if None, as many as keep the largest array that one sample makes
            in fast memory (:mod:`meanfield.working_set`).

    >>> drift = block(lambda T, theta, mask: theta * T, jax.random.normal)
    >>> chunked_mean(drift, jnp.ones((1, 1)), jnp.array([1.0, 3.0, 5.0]), None, chunk=2).tolist()
    [[3.0]]
    """
    width = leading_axis(particles)
    if chunk is None:
        every = largest_arrays(lambda p, t: a_block.mean(t, p, mask), particles, tokens).made
        each = every / width
        # Samples share the cache; but products of a handful of particles are slow.
        share = max(each, min(SAMPLES * each, budget() / PARTICLES))
        chunk = width if every <= budget() else fitting(width, share)
    if chunk >= width:
        return a_block.mean(tokens, particles, mask)

    @jax.checkpoint
    def summed(tokens: Tokens, some: PyTree) -> Tokens:
        # Many chunks of numbers with few digits add up to none.
        wide = jnp.promote_types(tokens.dtype, jnp.float32)
        return leading_axis(some) * a_block.mean(tokens, some, mask).astype(wide)

    def add(total: Tokens, some: PyTree) -> tuple[Tokens, None]:
        return total + summed(tokens, some), None

    whole = width // chunk * chunk
    chunks = jax.tree.map(lambda p: p[:whole].reshape(-1, chunk, *p.shape[1:]), particles)
    start = zeros(
        jax.eval_shape(lambda t, c: summed(t, jax.tree.map(lambda p: p[0], c)), tokens, chunks)
    )
    total = jax.lax.scan(add, start, chunks)[0]
    if whole < width:
        total = total + summed(tokens, jax.tree.map(lambda p: p[whole:], particles))
    return total / width


def particle_shapes(a_block: Block) -> PyTree:
    """Shapes and dtypes of one particle, as a tree of ``jax.ShapeDtypeStruct``.

    Args:
        a_block: The block.

    >>> particle_shapes(block(lambda T, theta, mask: T, jax.random.normal)).shape
    ()
    """
    return jax.eval_shape(a_block.draw, jax.random.key(0))


def check_particles(a_block: Block, particles: PyTree) -> None:
    """Nothing, if ``particles`` is a tree of the block's particle behind axes [l, m].

    Args:
        a_block: The block.
        particles: Its particles.

    Raises:
        ValueError: If the tree, a leaf's trailing shape or the leading axes do not fit.

    >>> drift = block(lambda T, theta, mask: theta * T, jax.random.normal)
    >>> check_particles(drift, jnp.ones((2, 4)))
    """
    shapes = particle_shapes(a_block)
    if jax.tree.structure(shapes) != jax.tree.structure(particles):
        raise ValueError(
            f"{a_block.name} must be a tree {jax.tree.structure(shapes)}, "
            f"got {jax.tree.structure(particles)}"
        )
    named = jax.tree_util.tree_leaves_with_path(shapes)
    for (path, leaf), given in zip(named, jax.tree.leaves(particles), strict=True):
        if jnp.ndim(given) != leaf.ndim + 2 or jnp.shape(given)[2:] != leaf.shape:
            raise ValueError(
                f"{a_block.name}{jax.tree_util.keystr(path)} must have shape "
                f"{('l', 'm', *leaf.shape)} with leading axes depth and width, "
                f"got {jnp.shape(given)}"
            )
    leading_axis(particles)
    leading_axis(particles, 1)


def check_tokens(tokens: Tokens, dim: int, name: str) -> None:
    """Nothing, if the tokens have the dimension of the particles that read them.

    Args:
        tokens: Tokens of one sample.
        dim: Dimension of the particles.
        name: What the particles are called in the message.

    Raises:
        ValueError: If the dimensions differ.

    >>> check_tokens(jnp.ones((4, 3)), 3, "heads")
    """
    if tokens.shape[-1] != dim:
        raise ValueError(
            f"tokens must have the {name}' dimension {dim}, got tokens of shape {tokens.shape}"
        )
