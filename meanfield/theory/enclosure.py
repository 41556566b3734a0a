r"""Enclosure of the infimum of a first variation by branch and bound, in 1 to 3 dimensions.

With V(theta_2), the first variation at its best homogeneous part, on a cell of centre c and
half-diagonal s, and a Lipschitz constant K of theta_2 -> g(theta_2),

    V  >=  -cost(|g(c)| + K s) + (lambda/2) min over the cell of |theta_2|^2,
    cost(x) = max over a <= r of  a x - (lambda/2) a^2.

Cells that cannot hold the infimum are dropped, the others halved along every axis. Without a
homogeneous part K is that of the risk's part, which takes the place of -cost.

One trap: an estimated K makes the enclosure an estimate; a slope between the sampled points may be
steeper than twice the steepest sampled.

References:
    Piyavskii 1972; Shubert 1972 (Lipschitz global optimisation).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from meanfield.theory.first_variation import response
from meanfield.theory.homogeneous import flat, reduced
from meanfield.theory.states import Encoder, States

CHUNK = 1024
SAFETY = 2.0


class Enclosure(NamedTuple):
    """Where the infimum of a first variation lies.

    Attributes:
        lower: A lower bound.
        upper: The least value found.
        lipschitz: The constant K that was used.
        evaluations: How often V was evaluated.
    """

    lower: float
    upper: float
    lipschitz: float
    evaluations: int


def enclosed_infimum(
    encoder: Encoder,
    one: PyTree,
    states: States,
    starts: Float[np.ndarray, "m q"],
    /,
    *,
    marks: tuple[bool, ...],
    weight_decay: float,
    radius: float,
    reach: float,
    lipschitz: float | None,
    tolerance: float,
    budget: int,
) -> Enclosure:
    """Bounds of the infimum of V over |theta_2| <= reach, at the first depth of the states.

    Args:
        encoder: The map of one particle.
        one: A particle, for its tree and shapes.
        states: Tokens and forces.
        starts: Points theta_2 that are tried first.
        marks: True for every leaf of the homogeneous part.
        weight_decay: The constant lambda.
        radius: Bound of |theta_1|.
        reach: Bound of |theta_2|.
        lipschitz: K over the cube of half-side ``reach``; estimated from slopes at random points,
            times 2, if None.
        tolerance: Distance of the bounds at which the search stops.
        budget: Evaluations after which it stops anyway.

    >>> states = States(jnp.zeros(1), jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))
    >>> sizes = {"weight_decay": 0.0, "radius": 1.0, "reach": 4.0, "lipschitz": 1.0}
    >>> wave = lambda T, theta, mask: jnp.cos(theta) * T
    >>> one = functools.partial(enclosed_infimum, marks=(False,), tolerance=1e-2, budget=999)
    >>> round(one(wave, jnp.zeros(()), states, np.zeros((1, 1)), **sizes).upper, 2)
    -1.0
    """
    values = functools.partial(_in_chunks, encoder, marks, one, states)
    if lipschitz is None:
        lipschitz = SAFETY * _steepest(values, reach, starts.shape[1])
    bound = _cell_bound(any(marks), weight_decay, radius, lipschitz)
    lower, upper, evaluations = _branch_and_bound(
        lambda points: values(points, constants=(weight_decay, radius))[:2],
        starts,
        bound,
        reach=reach,
        tolerance=tolerance,
        budget=budget,
    )
    return Enclosure(lower, upper, float(lipschitz), evaluations)


def _in_chunks(encoder, marks, one, states, points, *, constants):
    found = []
    for start in range(0, len(points), CHUNK):
        part = points[start : start + CHUNK]
        # Every call has one shape, so that one program serves all levels.
        padded = np.concatenate([part, np.zeros((CHUNK - len(part), points.shape[1]))])
        values = _values(
            encoder, marks, one, states, constants=constants, points=jnp.asarray(padded)
        )
        found.append([np.asarray(leaf)[: len(part)] for leaf in values])
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _values(encoder, marks, one, states, *, constants, points):
    """V, |g| (or the risk's part), and the size of the slope of g, at every point."""
    weight_decay, radius = constants
    risk_part = response(encoder, states.tokens[0], states.forces[0], states.masks)
    least = reduced(risk_part, marks, weight_decay, radius)

    def core(point):
        theta = _particle(one, marks, point)
        if not any(marks):
            return risk_part(theta)[None]
        slope = jax.tree.map(lambda leaf: leaf[None], jax.grad(risk_part)(theta))
        return flat(slope, marks)[0]

    def at(point):
        found = least(_particle(one, marks, point))
        size = found.force if any(marks) else risk_part(found.particle)
        return found.value, size, jnp.linalg.norm(jax.jacfwd(core)(point))

    return jax.lax.map(at, points, batch_size=128)


def _particle(one: PyTree, marks: tuple, point: Any) -> PyTree:
    leaves, structure = jax.tree.flatten(one)
    sizes = [0 if mark else leaf.size for leaf, mark in zip(leaves, marks, strict=True)]
    parts = jnp.split(point, np.cumsum(sizes)[:-1].tolist())
    filled = [
        jnp.zeros_like(leaf) if mark else part.reshape(leaf.shape).astype(leaf.dtype)
        for leaf, mark, part in zip(leaves, marks, parts, strict=True)
    ]
    return jax.tree.unflatten(structure, filled)


def _steepest(values, reach: float, dimension: int) -> float:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4 * CHUNK, dimension))
    points *= reach * rng.uniform(size=(len(points), 1)) / np.linalg.norm(points, axis=1)[:, None]
    return float(np.max(values(points, constants=(0.0, 1.0))[2]))


def _cell_bound(linear: Any, weight_decay: float, radius: float, constant: float) -> Callable:
    def bound(sizes, centres, half):
        slack = constant * math.sqrt(centres.shape[1]) * half
        nearest = np.sum(np.maximum(np.abs(centres) - half, 0) ** 2, axis=1)
        if not linear:
            return sizes - slack + weight_decay / 2 * nearest
        force = sizes + slack
        length = np.minimum(radius, force / weight_decay) if weight_decay else radius
        return -length * force + weight_decay / 2 * (length**2 + nearest)

    return bound


def _branch_and_bound(values, own, bound, *, reach, tolerance, budget) -> tuple[float, float, int]:
    dimension, half = own.shape[1], reach / 4
    corners = np.array(np.meshgrid(*[[-1, 1]] * dimension)).reshape(dimension, -1).T
    centres = np.zeros((1, dimension))
    for size in (2 * half, half):
        centres = (centres[:, None] + size * corners[None]).reshape(-1, dimension)
    upper, lower, evaluations = float(np.min(values(own)[0])), math.inf, len(own)
    while True:
        # A cell that only touches the ball counts whole: that can but lower the bound.
        near = np.linalg.norm(np.maximum(np.abs(centres) - half, 0), axis=1) <= reach
        centres = centres[near]
        found, sizes = values(centres)
        evaluations += len(centres)
        inside = np.linalg.norm(centres, axis=1) <= reach
        upper = min(upper, float(np.min(found, where=inside, initial=math.inf)))
        # Where V is not finite nothing is bounded, and no cell may be ruled out.
        bounds = np.nan_to_num(bound(sizes, centres, half), nan=-math.inf)
        open_cells = bounds < upper - tolerance
        lower = min(lower, float(np.min(bounds, where=~open_cells, initial=math.inf)))
        centres = centres[open_cells]
        if not len(centres) or evaluations + len(centres) * len(corners) > budget:
            rest = float(np.min(bounds, where=open_cells, initial=math.inf))
            return min(lower, rest, upper), upper, evaluations
        half = half / 2
        centres = (centres[:, None] + half * corners[None]).reshape(-1, dimension)
