"""Steps in time that keep every density positive, and its mass to round-off.

    rho^(1) = rho + h F(rho),    rho_next = rho/2 + (rho^(1) + h F(rho^(1)))/2

A mean of steps of Euler is as positive as they are: h is bounded by the speeds at rho, and a step
that leaves a cell negative, as those at rho^(1) may be larger, is refused and halved. Trap: near
rest, speeds are small and would allow steps longer than the time in which they grow or settle; a
step is therefore also refused if velocities change by more than a tenth of the largest within it.

Reference:
    Gottlieb, Shu and Tadmor, Strong stability-preserving high-order time discretization methods,
    SIAM Review 43, 2001, equation 4.1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from meanfield.measure.grid import Grid
from meanfield.measure.upwind import crossings, upwind_tendency

# Largest change of velocities within a step, relative to the largest; in cells per step, changes
# that are round-off of a density at rest.
_CHANGE, _REST = 0.1, 1e-6


class Progress(NamedTuple):
    """How far a flow of densities has come.

    Attributes:
        left: Time left to the next save.
        density: Averages over cells, per depth.
        dissipated: int |grad dQ/drho|^2 drho over time, per depth.
        blocked: Mass that walls kept from leaving, per depth.
        mass_error: Largest |mass - 1| so far.
        longest: Longest step that the last refusals leave open.
        steps: Steps taken.
        rejected: Steps refused.
        healthy: Whether velocities are finite.
    """

    left: Float[Array, ""]
    density: Float[Array, "l *cells"]
    dissipated: Float[Array, " l"]
    blocked: Float[Array, " l"]
    mass_error: Float[Array, ""]
    longest: Float[Array, ""]
    steps: Int[Array, ""]
    rejected: Int[Array, ""]
    healthy: Bool[Array, ""]


@jax.jit
def densities_at(
    variation: Callable,
    density: Float[Array, "l *cells"],
    grid: Grid,
    lengths: Float[Array, " s"],
    limits: tuple[Float[Array, ""], Int[Array, ""]],
    /,
) -> tuple[Progress, Bool[Array, " s"], tuple[Float[Array, "t l *cells"], Float[Array, "t l"]]]:
    """The flow through successive intervals of time, from a density of mass one.

    Args:
        variation: dQ/drho, as a `jax.tree_util.Partial`.
        density: The density to start from.
        grid: Its grid.
        lengths: Lengths of the intervals.
        limits: The fraction of the longest positive step to take, and the most steps to try.

    Returns:
        The progress at the end, whether the end of each interval was reached, and density and
        dissipated energy at the start and after each.

    >>> from meanfield.measure import uniform_grid
    >>> still, limits = jax.tree_util.Partial(lambda w, x: 0 * w), (jnp.array(0.5), jnp.array(9))
    >>> flow = densities_at(
    ...     still, jnp.ones((1, 4)), uniform_grid([0], [1], [4]), jnp.ones(2), limits
    ... )
    >>> flow[1].tolist()
    [True, True]
    """
    cfl, max_steps = limits
    zeros = jnp.zeros(len(density), density.dtype)
    zero, none = jnp.zeros((), density.dtype), jnp.zeros_like(max_steps)
    start = Progress(
        zero, density, zeros, zeros, zero, zero + jnp.inf, none, none, jnp.asarray(True)
    )

    def going(state):
        return (state.left > 0) & state.healthy & (state.steps + state.rejected < max_steps)

    def interval(state, length):
        # Where a run has broken off, nothing is added, so later times are not reached either.
        state = state._replace(left=state.left + length)
        state = jax.lax.while_loop(going, lambda s: _step(variation, grid, cfl, s), state)
        return state, (state.left <= 0, state.density, state.dissipated)

    end, (reached, *saved) = jax.lax.scan(interval, start, lengths)
    rows = (density, zeros), tuple(saved)
    return end, reached, jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), *rows)


def _step(variation: Callable, grid: Grid, cfl: Array, state: Progress) -> Progress:
    def tendency(density):
        weights = density.reshape(len(density), -1) * grid.volume
        potential = variation(weights, grid.points).reshape(density.shape)
        return upwind_tendency(density, potential, grid.spacing)

    first = tendency(state.density)
    step = jnp.minimum(jnp.minimum(state.left, state.longest), cfl / (2 * first.speed))
    middle = state.density + step * first.change
    second = tendency(middle)
    density = (state.density + middle + step * second.change) / 2
    gained = tuple(new - old for new, old in zip(second.velocities, first.velocities, strict=True))
    change = step * crossings(gained, grid.spacing)
    fits = change <= jnp.maximum(_CHANGE * step * first.speed, _REST)
    # The bound on positive steps is known beforehand for the first stage only.
    fits &= (jnp.min(middle) >= 0) & (jnp.min(density) >= 0)
    masses = jnp.sum(density.reshape(len(density), -1), axis=1) * grid.volume
    taken = state._replace(
        left=state.left - step,
        density=density,
        dissipated=state.dissipated + step / 2 * (first.dissipation + second.dissipation),
        blocked=state.blocked + step / 2 * (first.blocked + second.blocked),
        mass_error=jnp.maximum(state.mass_error, jnp.max(jnp.abs(masses - 1))),
        longest=2 * state.longest,
        steps=state.steps + 1,
    )
    refused = state._replace(
        longest=step / 2,
        rejected=state.rejected + 1,
        healthy=jnp.isfinite(first.speed) & jnp.isfinite(second.speed),
    )
    return jax.tree.map(lambda yes, no: jnp.where(fits, yes, no), taken, refused)
