"""Second-order upwind fluxes of a gradient flow of densities: conservative, positive, dissipative.

    d rho_i/dtau = -sum over axes (F_{i+1/2} - F_{i-1/2})/h,    F = u^+ rho_i^E + u^- rho_{i+1}^W,
    u_{i+1/2} = -(xi_{i+1} - xi_i)/h,                            xi = dQ/drho at the centres

with limited linear reconstructions rho^E, rho^W in each cell and no flux through the walls. Since
F u >= 0 on every face, an energy that xi is the derivative of never increases.
Trap: the reconstruction is of first order at extrema of the density, so L^1 orders lie below 2.

References:
    Carrillo, Chertock and Huang, A finite-volume method for nonlinear nonlocal equations with a
    gradient flow structure, arXiv 1402.4252, equations (2.4)-(2.8), theorems 2.1 and 2.3.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Tendency(NamedTuple):
    """The right-hand side at one density, and what is measured along with it.

    Attributes:
        change: d rho/dtau.
        speed: Faces crossed per unit of time, summed over axes and greatest over cells and depths;
            a step of Euler up to 1/(2 speed) keeps densities positive.
        velocities: u on the inner faces of each axis, the axis last.
        dissipation: -dQ/dtau at each depth, int |grad xi|^2 drho.
        blocked: Mass per unit of time at each depth that the walls keep from leaving.
    """

    change: Float[Array, "l *cells"]
    speed: Float[Array, ""]
    velocities: tuple[Float[Array, "l ..."], ...]
    dissipation: Float[Array, " l"]
    blocked: Float[Array, " l"]


def upwind_tendency(
    density: Float[Array, "l *cells"],
    potential: Float[Array, "l *cells"],
    spacing: tuple[Float[Array, ""], ...],
    /,
) -> Tendency:
    """Change of a density whose mass moves down a potential.

    Args:
        density: Averages over cells, >= 0.
        potential: xi at the centres of the cells.
        spacing: Length of a cell along each axis.

    Returns:
        The tendency; its change sums to 0 over the cells at each depth.

    >>> potential = jnp.array([[0.0, 1.0, 2.0]])
    >>> upwind_tendency(jnp.ones((1, 3)), potential, (jnp.array(1.0),)).change.tolist()
    [[1.0, 0.0, -1.0]]
    """
    change, dissipation, blocked = jnp.zeros_like(density), 0.0, 0.0
    velocities = []
    for axis, step in enumerate(spacing, start=1):
        rho = jnp.moveaxis(density, axis, -1)
        velocity = -jnp.diff(jnp.moveaxis(potential, axis, -1), axis=-1) / step
        slopes = _limited_slopes(rho)
        forth = jnp.maximum(velocity, 0.0) * (rho + slopes / 2)[..., :-1]
        back = jnp.minimum(velocity, 0.0) * (rho - slopes / 2)[..., 1:]
        flux = jnp.pad(forth + back, [(0, 0)] * (rho.ndim - 1) + [(1, 1)])
        change = change - jnp.moveaxis(jnp.diff(flux, axis=-1) / step, -1, axis)
        walls = rho[..., -1] * jnp.maximum(velocity[..., -1], 0.0)
        walls = walls - rho[..., 0] * jnp.minimum(velocity[..., 0], 0.0)
        dissipation = dissipation + _sums((forth + back) * velocity)
        blocked = blocked + _sums(walls) / step
        velocities.append(velocity)
    volume = jnp.prod(jnp.stack(spacing))
    faces = tuple(velocities)
    return Tendency(
        change, crossings(faces, spacing), faces, dissipation * volume, blocked * volume
    )


def crossings(
    velocities: tuple[Float[Array, "l ..."], ...], spacing: tuple[Float[Array, ""], ...], /
) -> Float[Array, ""]:
    """Cells crossed per unit of time: greatest |u|/h of each axis, summed over axes.

    Args:
        velocities: On the faces of each axis.
        spacing: Length of a cell along each axis.

    >>> crossings((jnp.array([[1.0, -3.0]]),), (jnp.array(0.5),)).item()
    6.0
    """
    rates = [jnp.max(jnp.abs(u)) / h for u, h in zip(velocities, spacing, strict=True)]
    return jnp.sum(jnp.stack(rates))


def _limited_slopes(rho: Array) -> Array:
    """Differences across each cell that keep both its face values between the neighbours'."""
    left, right = jnp.diff(rho, axis=-1)[..., :-1], jnp.diff(rho, axis=-1)[..., 1:]
    size = jnp.minimum(jnp.abs(left + right) / 2, 2 * jnp.minimum(jnp.abs(left), jnp.abs(right)))
    slopes = jnp.where(jnp.sign(left) == jnp.sign(right), jnp.sign(left) * size, 0.0)
    # At the walls there is one neighbour only: constant reconstruction.
    return jnp.pad(slopes, [(0, 0)] * (rho.ndim - 1) + [(1, 1)])


def _sums(values: Array) -> Array:
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))
