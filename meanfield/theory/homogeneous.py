r"""The first variation with its homogeneous part minimised out, and how directions are covered.

Where an encoder is linear in a part theta_1 of its particle, theta = (theta_1, theta_2),

    dQ/drho(theta, t) = <g_t(theta_2), theta_1> + (lambda/2) (|theta_1|^2 + |theta_2|^2)

has its least value over |theta_1| <= r at theta_1 = -a g/|g| with a = min(r, |g|/lambda):

    V_t(theta_2) = -a |g_t| + (lambda/2) (a^2 + |theta_2|^2).

So particles are searched in theta_2 alone, by first derivatives (the envelope theorem). A block
without such a part has theta_2 = theta and V = dQ/drho.

One trap: the theorem's homogeneous part may be of degree 1 without being linear (a ReLU of a
weight); mark only what is linear, which :func:`check_linear` tries at random particles.

References:
    Gao et al. 2024, arXiv 2410.23610 (partial 1-homogeneity);
    Ding et al. (stationary support: |g_t| = lambda |theta_1|).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from meanfield.checks import count
from meanfield.notation import Scalar
from meanfield.theory.first_variation import check_probes
from meanfield.theory.states import Encoder, States
from meanfield.tree import broadcast_prefix, squared_norm

# Random particles at which linearity is tried; a dead ReLU looks linear at half of them.
_TRIALS = 16

Potential = Callable[[Any], Scalar]


class Reduced(NamedTuple):
    """The first variation at the best homogeneous part.

    Attributes:
        value: V(theta_2).
        particle: The particle (theta_1, theta_2) that attains it.
        force: |g(theta_2)|; 0 without a homogeneous part.
    """

    value: Scalar
    particle: PyTree
    force: Scalar


def reduced(
    risk_part: Potential, marks: tuple[bool, ...], weight_decay: Any, radius: Any, /
) -> Callable[[Any], Reduced]:
    """V as a function of a particle, whose homogeneous entries are not read.

    Args:
        risk_part: From a particle to E <f(T, theta), kappa p>.
        marks: True for every leaf of the homogeneous part.
        weight_decay: The constant lambda.
        radius: Bound r of |theta_1|; may be infinite if lambda > 0.

    >>> least = reduced(lambda theta: 3.0 * theta[0], (True, False), 1.0, 2.0)
    >>> least((jnp.zeros(()), jnp.zeros(()))).value.item()
    -4.0
    """

    def value_of(theta: PyTree) -> Reduced:
        rest = kept(theta, unmarked(marks))
        slope = kept(jax.grad(risk_part)(rest), marks)
        force = jnp.sqrt(squared_norm(slope))
        tiny = jnp.finfo(force.dtype).tiny
        free = jnp.where(weight_decay > 0, force / jnp.maximum(weight_decay, tiny), jnp.inf)
        length = jnp.minimum(radius, free)
        # At a vanishing force the best homogeneous part is 0, whatever the radius.
        factor = jnp.where(force > 0, length / jnp.maximum(force, tiny), 0.0)
        best = jax.lax.stop_gradient(jax.tree.map(lambda leaf: -factor * leaf, slope))
        particle = jax.tree.map(jnp.add, rest, best)
        value = risk_part(particle) + weight_decay / 2 * squared_norm(particle)
        return Reduced(value, particle, force)

    return value_of


def unmarked(marks: tuple[bool, ...], /) -> tuple[bool, ...]:
    """The marks of the other part.

    Args:
        marks: True for every leaf of one part.

    >>> unmarked((True, False))
    (False, True)
    """
    return tuple(not mark for mark in marks)


def kept(theta: PyTree, marks: tuple[bool, ...], /) -> PyTree:
    """The particle with zeros for every leaf that is not marked.

    Args:
        theta: A particle, or many along leading axes.
        marks: True for every leaf to keep.

    >>> kept((1.0, 2.0), (True, False))
    (1.0, 0.0)
    """
    leaves, structure = jax.tree.flatten(theta)
    parts = [leaf if mark else 0 * leaf for leaf, mark in zip(leaves, marks, strict=True)]
    return jax.tree.unflatten(structure, parts)


def norms(theta: PyTree, marks: tuple[bool, ...], /) -> Float[Array, "l m"]:
    """The norm of one part of every particle.

    Args:
        theta: Particles, leading axes [l, m].
        marks: True for every leaf of the part.

    >>> norms((jnp.ones((1, 2, 4)), jnp.ones((1, 2))), (True, False)).tolist()
    [[2.0, 2.0]]
    """
    return jnp.sqrt(jax.vmap(jax.vmap(squared_norm))(kept(theta, marks)))


def check_linear(
    particle: Encoder, homogeneous: PyTree, particles: PyTree, states: States, /
) -> tuple[bool, ...]:
    """The marks of the leaves, if the encoder is linear in the marked part.

    Args:
        particle: The map of one particle.
        homogeneous: True for the homogeneous part: one value, or a prefix of a particle.
        particles: Particles, leading axes [l, m], for their tree and shapes.
        states: Tokens and forces at those depths.

    Raises:
        ValueError: If the encoder is not linear there, the mask is no prefix of a particle, or
            there are no particles at each of the depths.

    >>> states = States(jnp.zeros(1), jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))
    >>> check_linear(lambda T, theta, mask: theta * T, True, jnp.ones((1, 2)), states)
    (True,)
    """
    check_probes(particles, states)
    one = jax.tree.map(lambda leaf: leaf[0, 0], particles)
    marks = tuple(bool(mark) for mark in jax.tree.leaves(broadcast_prefix(homogeneous, one)))
    if not any(marks):
        return marks
    masks = None if states.masks is None else states.masks[0]
    # Random and not the network's own: at weights of 0 or of one value every map looks linear.
    leaves, structure = jax.tree.flatten(one)
    keys = jax.random.split(jax.random.key(0), (3, len(leaves)))
    rest, first, second = (
        structure.unflatten(
            [
                jax.random.normal(key, (_TRIALS, *jnp.shape(leaf)), jnp.result_type(leaf))
                * (mark == wanted)
                for key, leaf, mark in zip(row, leaves, marks, strict=True)
            ]
        )
        for row, wanted in zip(keys, (False, True, True), strict=True)
    )

    @jax.vmap
    def update(theta, rest):
        return particle(states.tokens[0, 0], jax.tree.map(jnp.add, rest, theta), masks)

    both = update(jax.tree.map(lambda a, b: a - 2 * b, first, second), rest)
    parts = update(first, rest), update(second, rest)
    gap = jnp.max(jnp.abs(both - parts[0] + 2 * parts[1]))
    size = max(float(jnp.max(jnp.abs(part))) for part in (both, *parts))
    if not float(gap) <= 1e3 * float(jnp.finfo(gap.dtype).eps) * size:
        raise ValueError(
            "homogeneous must mark a part of the particle in which the encoder is linear, got "
            f"{homogeneous}, where it is not: mark fewer leaves, or none (False)"
        )
    return marks


def covering_angle(
    key: Any, directions: Float[Array, "m q"], /, *, probes: int = 512
) -> tuple[Scalar, Scalar]:
    """How well particles cover the directions of their space.

    Args:
        key: Random key.
        directions: One vector per particle, of any length but 0.
        probes: Number of uniformly random directions that are tried.

    Returns:
        The largest angle, in radians, from a random direction to the nearest particle's; and the
        same for as many particles with uniformly random directions, to compare with. NaN if the
        space has dimension 0.

    Raises:
        ValueError: If ``probes`` is not a positive integer, or there are no directions.

    >>> angles = covering_angle(jax.random.key(0), jnp.array([[1.0], [-1.0]]))
    >>> float(angles[0])
    0.0
    """
    shape = (count("probes", probes), directions.shape[1])
    if not len(directions):
        raise ValueError("directions must be those of at least one particle, got none")
    tried_key, uniform_key = jax.random.split(key)
    tried = jax.random.normal(tried_key, shape, directions.dtype)
    uniform = jax.random.normal(uniform_key, directions.shape, directions.dtype)

    def unit(vectors):
        lengths = jnp.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / jnp.where(lengths > 0, lengths, 1)

    def angle(vectors):
        if not vectors.shape[1]:
            return jnp.full((), jnp.nan, vectors.dtype)
        nearest = jnp.max(unit(tried) @ unit(vectors).T, axis=1)
        return jnp.max(jnp.arccos(jnp.clip(nearest, -1, 1)))

    return angle(directions), angle(uniform)


def flat(theta: PyTree, marks: tuple[bool, ...], /) -> Float[Array, "m q"]:
    """One part of particles as vectors.

    Args:
        theta: Particles, one leading axis [m].
        marks: True for every leaf of the part.

    >>> flat((jnp.ones((2, 4)), jnp.ones((2, 3))), (True, False)).shape
    (2, 4)
    """
    leaves = jax.tree.leaves(theta)
    parts = [leaf for leaf, mark in zip(leaves, marks, strict=True) if mark]
    rows = [part.reshape(len(part), -1) for part in parts]
    return jnp.concatenate(rows, axis=1) if rows else jnp.zeros((len(leaves[0]), 0))
