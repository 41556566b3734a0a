r"""Search of one block for particles of least first variation, at every depth.

    minimise  V_t(theta_2) = min over |theta_1| <= r of dQ/drho(theta),    |theta_2| <= reach

by projected descent from random restarts, all of a depth at once. A step that does not lower V is
undone and shortened, so no restart ends above its start.

One trap: a descent finds local minima; more restarts, not more steps, say more about the infimum.

References:
    Ding et al., Prop. 6.1 (a negative direction of the first variation).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from meanfield.notation import Scalar
from meanfield.theory.first_variation import first_variation, response
from meanfield.theory.homogeneous import (
    Reduced,
    covering_angle,
    flat,
    kept,
    norms,
    reduced,
    unmarked,
)
from meanfield.theory.states import Encoder, States
from meanfield.tree import squared_norm


class Search(NamedTuple):
    """What was found in one block, at every depth.

    Attributes:
        value: The most negative first variation found.
        particle: Where.
        level: The mean of the first variation over the network's own particles.
        residual: int |grad dQ/drho|^2 drho_t.
        force: sup |g_t| over all particles tried.
        decay_force: lambda max |theta_1| over the network's own particles; a stationary measure of
            full support has ``force`` = at most this.
        covering: Largest angle from a random direction of theta_2 to the nearest particle's; NaN
            if theta_2 is empty.
        covering_uniform: The same for as many uniformly random directions.
        reach: Bound of |theta_2| in the search.
    """

    value: Float[Array, "l"]
    particle: PyTree[Float[Array, "l ..."]]
    level: Float[Array, "l"]
    residual: Float[Array, "l"]
    force: Float[Array, "l"]
    decay_force: Float[Array, "l"]
    covering: Float[Array, "l"]
    covering_uniform: Float[Array, "l"]
    reach: Scalar


def particle_search(
    key: Any,
    encoder: Encoder,
    draw: Callable[[Any], PyTree],
    particles: PyTree,
    states: States,
    /,
    *,
    marks: tuple[bool, ...],
    restarts: int,
    steps: int,
    weight_decay: float,
    radius: float,
    reach: float,
) -> Search:
    """The least first variation of one block that descent from random particles finds.

    Args:
        key: Random key.
        encoder: The map of one particle.
        draw: From a key, a particle to start from.
        particles: The network's own particles, leading axes [l, m]; they are tried too.
        states: Tokens and forces of the block.
        marks: True for every leaf of the homogeneous part.
        restarts: Random starts per depth.
        steps: Descent steps per start.
        weight_decay: The constant lambda.
        radius: Bound of |theta_1|.
        reach: Bound of |theta_2|.

    >>> states = States(jnp.zeros(1), jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))
    >>> sizes = {"restarts": 2, "steps": 3, "weight_decay": 0.5, "radius": 1.0, "reach": 1.0}
    >>> search = functools.partial(particle_search, marks=(True,), **sizes)
    >>> drift, own = lambda T, theta, mask: theta * T, jnp.ones((1, 2))
    >>> search(jax.random.key(0), drift, jax.random.normal, own, states).value.tolist()
    [-0.75]
    """
    return _search(
        key,
        encoder,
        draw,
        particles,
        states,
        marks=marks,
        restarts=restarts,
        constants=(weight_decay, radius, reach, steps),
    )


@functools.partial(jax.jit, static_argnums=(1, 2), static_argnames=("marks", "restarts"))
def _search(key, encoder, draw, particles, states, *, marks, restarts, constants):
    weight_decay, radius, reach, steps = constants

    def at_one_depth(inputs):
        key, tokens, forces, own = inputs
        risk_part = response(encoder, tokens, forces, states.masks)
        least = reduced(risk_part, marks, weight_decay, radius)
        descent = functools.partial(_descent, least, reach, steps)
        starts = _inside(jax.vmap(draw)(jax.random.split(key, restarts)), marks, reach)
        ends = jax.vmap(descent)(starts)
        # The network's own particles are probes too, so the search never misses what it holds.
        probes = jax.tree.map(
            lambda *parts: jnp.concatenate(parts), ends, _inside(own, marks, reach)
        )
        tried = jax.vmap(least)(probes)
        best = jnp.argmin(tried.value)
        return jax.tree.map(lambda leaf: leaf[best], tried), jnp.max(tried.force)

    depth = len(states.depths)
    start_key, cover_key = jax.random.split(key)
    inputs = jax.random.split(start_key, depth), states.tokens, states.forces, particles
    found, force = jax.lax.map(at_one_depth, inputs)
    own = first_variation(encoder, states, particles, weight_decay=weight_decay)
    angles = jax.vmap(covering_angle)(
        jax.random.split(cover_key, depth),
        jax.vmap(lambda tree: flat(tree, unmarked(marks)))(particles),
    )
    return Search(
        value=found.value,
        particle=found.particle,
        level=jnp.mean(own.value, axis=1),
        residual=jnp.mean(jax.vmap(jax.vmap(squared_norm))(own.gradient), axis=1),
        force=force,
        decay_force=weight_decay * jnp.max(norms(particles, marks), axis=1),
        covering=angles[0],
        covering_uniform=angles[1],
        reach=reach,
    )


def _descent(least: Callable[[Any], Reduced], reach: Any, steps: Any, start: PyTree) -> PyTree:
    slope_of = jax.value_and_grad(lambda rest: least(rest).value)

    def step(_, carry):
        rest, value, slope, size = carry
        trial = _clipped(jax.tree.map(lambda x, g: x - size * g, rest, slope), reach)
        lower, trial_slope = slope_of(trial)
        better = lower < value
        rest, value, slope = jax.tree.map(
            functools.partial(jnp.where, better), (trial, lower, trial_slope), (rest, value, slope)
        )
        # A start on a plateau grows its steps, one in a narrow valley shrinks them.
        return rest, value, slope, jnp.where(better, 2.0, 0.4) * size

    value, slope = slope_of(start)
    size = 0.1 * reach / jnp.maximum(jnp.sqrt(squared_norm(slope)), jnp.finfo(value.dtype).tiny)
    return jax.lax.fori_loop(0, steps, step, (start, value, slope, size))[0]


def _inside(particles: PyTree, marks: tuple, reach: Any) -> PyTree:
    return jax.vmap(lambda theta: _clipped(theta, reach))(kept(particles, unmarked(marks)))


def _clipped(rest: PyTree, reach: Any) -> PyTree:
    length = jnp.sqrt(squared_norm(rest))
    factor = jnp.minimum(1.0, reach / jnp.maximum(length, jnp.finfo(length.dtype).tiny))
    return jax.tree.map(lambda leaf: factor * leaf, rest)
