r"""What is measured of a measure at the end of its flow: how stationary, how certified.

    residual    -dQ/dtau = int int |grad dQ/drho|^2 drho_t dt
    drift       |dR/dtau| / (lambda R), the relative change of the risk in the time 1/lambda
    force       sup |g_t| over probes, against lambda max |theta_1|: equal where a stationary rho
                covers the directions of theta_2, and then R = O(lambda)
    gap         a bound on Q - Q* where Q is convex; elsewhere the rate of a descent by moving mass

One trap: the residual is small on a plateau too, so "stationary" is no "optimal"; the gap and the
force of directions that no particle has are what tells them apart.

References:
    Gao et al. 2024, arXiv 2410.23610; Ding et al. (stationary support: |g_t| = lambda |theta_1|).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.global_convergence.decay_problems import SLOPE, Problem
from meanfield import flow, nn, theory


def ends(
    problem: Problem, theta: nn.Theta, *, decay: float, rate: float, effort: tuple[int, int, int]
) -> dict[str, Any]:
    """All that is measured at the end of one run.

    ``rate`` is lambda, or what takes its place where lambda is 0; ``effort`` holds the restarts
    and steps of the search and the evaluations of the rigorous gap.
    """
    restarts, steps, evaluations = effort
    states = problem.states(theta.blocks)
    blocks = problem.model.network.blocks
    found = theory.certificate(
        jax.random.key(0),
        [block.particle for block in blocks],
        theta.blocks,
        states,
        draws=[block.draw for block in blocks],
        homogeneous=problem.homogeneous,
        weight_decay=decay,
        restarts=restarts,
        steps=steps,
        convex=problem.convex and decay > 0,
    )
    energy, risk, change = _values(problem, theta, decay)
    residuals = tuple(search.residual for search in found.searches)
    rigorous = math.nan
    if problem.convex and decay > 0:
        rigorous = _rigorous(problem, theta, states[0], energy, decay=decay, budget=evaluations)
    searched = {
        name: np.array([getattr(search, name) for search in found.searches])
        for name in ("force", "covering", "covering_uniform")
    }
    return searched | {
        "risk": risk,
        "energy": energy,
        "drift": abs(change) / (rate * risk),
        "residual": float(theory.dissipation(residuals, states[0].depths)),
        "largest": _largest(problem, theta),
        "value": found.value,
        "level": found.level,
        "searched_gap": found.gap,
        "gap": rigorous,
    }


def _values(problem: Problem, theta: nn.Theta, decay: float) -> tuple[float, float, float]:
    """Q, R and dR/dtau."""
    field = flow.gradient_field(problem.energy(decay), problem.model.time_scales)
    energy, risk, change = _along(problem.risk, field, theta)
    return float(energy), float(risk), float(change)


@jax.jit
def _along(risk: Any, field: flow.GradientField, theta: nn.Theta) -> tuple[Any, Any, Any]:
    return field.energy(theta), *jax.jvp(risk, (theta,), (field.velocity(theta)[0],))


def _rigorous(
    problem: Problem,
    theta: nn.Theta,
    states: theory.States,
    energy: float,
    *,
    decay: float,
    budget: int,
) -> float:
    """The Frank-Wolfe gap over all of particle space."""
    bound, lipschitz = theory.neuron_bounds(states, slope=SLOPE)
    return theory.frank_wolfe_gap(
        problem.model.network.blocks[0].particle,
        theta.blocks[0],
        states,
        homogeneous=problem.homogeneous[0],
        weight_decay=decay,
        bound=bound,
        lipschitz=lipschitz,
        # Below a hundredth of Q nothing is gained by resolving the infimum further.
        tolerance=0.01 * energy,
        max_evaluations=budget,
    ).gap


def _largest(problem: Problem, theta: nn.Theta) -> np.ndarray:
    """Largest |theta_1| of every block and depth [k l]."""
    rows = []
    for tree, mask in zip(theta.blocks, problem.homogeneous, strict=True):
        pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(mask), strict=True)
        squares = [jnp.sum(leaf**2, axis=tuple(range(2, leaf.ndim))) for leaf, on in pairs if on]
        rows.append(jnp.sqrt(jnp.max(sum(squares), axis=1)))
    return np.array(rows)
