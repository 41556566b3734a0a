"""The Wasserstein gradient flow of densities on a grid, at all depths at once.

    d rho_t/dtau = div(rho_t grad dQ/drho(theta, t)),    no mass through the walls of the grid,

by upwind fluxes in space and the strong-stability-preserving Runge-Kutta method of two stages in
time, whose steps keep every density positive. Depths exchange no mass; they are coupled through
dQ/drho, which is handed in. Trap: dQ/drho is the derivative along added mass *at one depth*; where
the energy is a mean over depths, that is the number of depths times the derivative in the weights.

References:
    Gao et al. 2024, arXiv 2410.23610, eq. (9), (21);
    Carrillo, Chertock and Huang, arXiv 1402.4252, sections 2.1-2.3.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, ArrayLike, Float

from meanfield.checks import count, positive
from meanfield.measure.grid import Grid, check_density
from meanfield.measure.positive_steps import Progress, densities_at

Variation = Callable[[Float[Array, "l g"], Float[Array, "g p"]], Float[Array, "l g"]]
"""dQ/drho at the points of a grid, from the masses of its cells at all depths."""

Energy = Callable[[Float[Array, "l m"], Float[Array, "l m p"]], Float[Array, ""]]
"""Q of weighted particles at all depths."""


class DensityFlow(NamedTuple):
    """What a flow of densities leaves behind.

    Attributes:
        times: Times at which densities were saved, as far as the run came.
        density: The densities at these times.
        dissipated: int_0^tau int |grad dQ/drho|^2 drho_t, per depth; where Q is a mean over depths,
            so is what it loses: Q(0) - Q(tau) is the mean of these over depths.
        mass_error: Largest |mass - 1| over steps and depths.
        blocked: Mass that walls kept from leaving, per depth; what stays pressed against a wall
            counts again and again.
        steps: Steps taken.
        rejected: Steps tried and found too long.
        result: `"completed"`, `"diverged"` or `"exhausted"`.
        message: One sentence on how the run ended.
        warnings: Sentences that a report must repeat.
    """

    times: Float[np.ndarray, " t"]
    density: Float[Array, "t l *cells"]
    dissipated: Float[Array, "t l"]
    mass_error: float
    blocked: Float[Array, " l"]
    steps: int
    rejected: int
    result: str
    message: str
    warnings: tuple[str, ...]


def variation_of(energy: Energy, /, *, depth: int | None = None) -> Variation:
    """dQ/drho of an energy of weighted particles, by differentiation in the weights: exact.

    The same energy at weights 1/m gives the particles' flow, dtheta/dtau = -l m grad Q.

    Args:
        energy: Q from weights and points, a mean over depths with step 1/l.
        depth: That l; the number of rows if None. Give it where one depth has several rows, such
            as one for heads and one for neurons, or 1 where the energy is a sum over rows.

    Returns:
        The variation, for `density_flow`. Equal energies give equal variations.

    Raises:
        ValueError: The depth is no positive integer.

    >>> decay = variation_of(lambda weights, points: jnp.sum(weights * points[..., 0] ** 2) / 2)
    >>> decay(jnp.ones((1, 2)) / 2, jnp.array([[1.0], [3.0]])).tolist()
    [[0.5, 4.5]]
    """
    rows = None if depth is None else float(count("depth", depth))
    return Partial(_variation_of, _partial(energy), rows)


def density_flow(
    variation: Variation,
    density: Float[ArrayLike, "l *cells"],
    grid: Grid,
    ts: Any,
    /,
    *,
    cfl: float = 0.5,
    max_steps: int = 100_000,
    blocked_bound: float = 1e-6,
) -> DensityFlow:
    """Solves d rho_t/dtau = div(rho_t grad dQ/drho) from a density, and saves it at given times.

    Args:
        variation: dQ/drho from the masses of the cells `[l g]` and their centres `[g p]`, the last
            axis of the grid fastest; `variation_of` builds it from an energy.
        density: Averages over the cells at ts[0], of mass 1 at every depth (see `grid_density`).
        grid: The grid, in one or two dimensions.
        ts: Increasing times to save at; the first is that of `density`.
        cfl: Length of a step in units of the longest that keeps densities positive, in (0, 1).
        max_steps: Steps, rejected ones included, after which the run gives up.
        blocked_bound: Mass kept back by the walls above which the run warns.

    Returns:
        The flow. A run that breaks off says when and why, and keeps what it saved.

    Raises:
        ValueError: No density (negative, not finite, mass other than 1), times that do not
            increase, a variation of another shape, or options out of range.

    References:
        Gao et al. 2024, arXiv 2410.23610, eq. (9).

    >>> from meanfield.measure import uniform_grid
    >>> grid, still = uniform_grid([0.0], [1.0], [4]), lambda weights, points: 0 * weights
    >>> density_flow(still, jnp.ones((1, 4)), grid, [0.0, 1.0]).density[-1].tolist()
    [[1.0, 1.0, 1.0, 1.0]]
    """
    start = check_density(density, grid)
    times = _increasing(ts)
    if positive("cfl", cfl) >= 1:
        raise ValueError(f"cfl must lie in (0, 1), or densities turn negative; got {cfl}")
    field, bound = _fitting(variation, start, grid), positive("blocked_bound", blocked_bound)
    lengths = jnp.asarray(np.diff(times), start.dtype)
    limits = jnp.asarray(cfl, start.dtype), jnp.asarray(count("max_steps", max_steps))
    end, reached, saved = densities_at(field, start, grid, lengths, limits)
    kept = 1 + int(np.sum(np.asarray(reached)))
    result, message = _outcome(end, times, kept)
    return DensityFlow(
        times=times[:kept],
        density=saved[0][:kept],
        dissipated=saved[1][:kept],
        mass_error=float(end.mass_error),
        blocked=end.blocked,
        steps=int(end.steps),
        rejected=int(end.rejected),
        result=result,
        message=message,
        warnings=_wall_warnings(end.blocked, bound),
    )


def _increasing(ts: Any) -> np.ndarray:
    times = np.asarray(ts, float)
    fine = times.ndim == 1 and len(times) > 1 and np.isfinite(times).all()
    if not (fine and (np.diff(times) > 0).all()):
        raise ValueError(f"ts must be at least two increasing times, got {times.tolist()}")
    return times


def _fitting(variation: Variation, density: Array, grid: Grid) -> Partial:
    field, weights = _partial(variation), density.reshape(len(density), -1)
    given = jax.eval_shape(field, weights, grid.points)
    if getattr(given, "shape", None) != weights.shape:
        raise ValueError(
            f"variation must give [l g] = {list(weights.shape)}, one value per depth and cell, got "
            f"{given}; for an energy use variation_of"
        )
    return field


def _variation_of(energy: Energy, depth: Any, weights: Array, points: Array) -> Array:
    everywhere = jnp.broadcast_to(points, (len(weights), *points.shape))
    factor = len(weights) if depth is None else depth
    return jnp.asarray(factor, weights.dtype) * jax.grad(energy)(weights, everywhere)


def _partial(function: Callable[..., Any]) -> Partial:
    """The function as a tree that may enter `jit`, with the arrays it carries as leaves."""
    return function if isinstance(function, Partial) else Partial(function)


def _outcome(end: Progress, times: np.ndarray, kept: int) -> tuple[str, str]:
    steps = int(end.steps)
    if kept == len(times):
        return "completed", f"reached time {times[-1]:g} in {steps} steps"
    where = f"stopped at time {times[kept] - float(end.left):g} of {times[-1]:g}"
    if not bool(end.healthy):
        return "diverged", f"{where}: dQ/drho is not finite; check its data, or shrink the grid"
    return "exhausted", (
        f"{where}: {steps + int(end.rejected)} steps used up; raise max_steps, take fewer cells, "
        "or shrink the grid, whose fastest corner sets the step"
    )


def _wall_warnings(blocked: Array, bound: float) -> tuple[str, ...]:
    worst = float(jnp.max(blocked))
    if worst <= bound:
        return ()
    return (
        f"mass pressed against the walls at depth index {int(jnp.argmax(blocked))}: {worst:.1e} in "
        f"all, more than {bound:.1e}; the density is not that of the whole space, widen the grid",
    )
