r"""How far networks of M particles are from the density on a grid, one number per seed and width.

    prediction   sup over saved times of the rms over samples of f_M - f
    histogram    int |histogram - rho|, in a few bins, at the end
    marginals    exact W_2 of both marginals of every half-step, at the end
    plane        exact W_2 in the plane to M draws of the density, at the end
    draws        the same of M other draws of the density, in the place of the particles

The first three fall like M^{-1/2}. In the plane samples approach their law at a rate of its own,
about sqrt(log M/M) and slower where the density thins out. So particles are compared with
independent draws of the density there: where their law is that density, both distances fall alike.

One trap: particles of one network interact, and are draws of the limit only as M grows; so `plane`
and `draws` need not agree at small M.

References:
    Ajtai, Komlos and Tusnady 1984 (matching in the plane).
    Fournier and Guillin 2015 (rates of the empirical measure in W_2).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments.global_convergence import scalar_transformer as scalar
from meanfield import measure

DOCTORED = 1.03
"""Factor on the velocities in the control of the weak residual."""


def errors(
    given: scalar.Data,
    grid: measure.Grid,
    densities: measure.DensityFlow,
    clouds: Mapping[int, np.ndarray],
    *,
    bins: int,
) -> dict[str, np.ndarray]:
    """Each error as [s w], from the clouds [t s r m 2] of each width."""
    _, outputs = of_densities(given, grid, densities.density)
    last = np.asarray(densities.density[-1])
    columns = []
    for points in clouds.values():
        _, networks = _of_clouds(given, jnp.asarray(points))
        gaps = np.sqrt(np.mean((np.asarray(networks) - outputs[:, None]) ** 2, axis=-1))
        plane, draws = _plane(points[-1], last, grid)
        columns.append(
            {
                "prediction": gaps.max(axis=0),
                "histogram": _histogram(points[-1], last, grid, bins),
                "marginals": _marginals(points[-1], last, grid),
                "plane": plane,
                "draws": draws,
            }
        )
    return {name: np.stack([column[name] for column in columns], axis=1) for name in columns[0]}


def of_densities(
    given: scalar.Data, grid: measure.Grid, densities: Any, /
) -> tuple[np.ndarray, np.ndarray]:
    """Q [t] and the outputs [t b] of densities [t r i j]."""
    energy, found = _of_densities(given, grid, jnp.asarray(densities))
    return np.asarray(energy), np.asarray(found)


def energies(given: scalar.Data, clouds: Mapping[int, np.ndarray], /) -> dict[int, np.ndarray]:
    """Q [s t] of the networks of each width."""
    return {
        width: np.asarray(_of_clouds(given, jnp.asarray(cloud))[0]).T
        for width, cloud in clouds.items()
    }


def block_means(density: np.ndarray, cells: int, /) -> np.ndarray:
    """Densities [r i j] averaged over blocks, so that ``cells`` per axis are left."""
    rows, side = len(density), density.shape[1] // cells
    return density.reshape(rows, cells, side, cells, side).mean(axis=(2, 4))


def weak(given: scalar.Data, times: np.ndarray, clouds: np.ndarray, /) -> dict[str, np.ndarray]:
    """The weak residual of one network's run [t r m 2], with velocities as they are and doctored.

    Velocities are those of the energy, so this is the equation of the paper.
    """
    velocities = _velocities(given, jnp.asarray(clouds))
    found = measure.weak_residual(_tests, times, clouds, velocities)
    doctored = measure.weak_residual(_tests, times, clouds, DOCTORED * velocities)
    return {
        "residual": found.residual,
        "rate": found.rate,
        "quadrature": found.quadrature,
        "doctored": doctored.residual,
    }


@jax.jit
def _velocities(given: scalar.Data, clouds: jax.Array) -> jax.Array:
    field = scalar.networks(given)
    return jax.lax.map(lambda cloud: field.velocity((cloud[None],))[0][0][0], clouds)


def _tests(theta: jax.Array) -> jax.Array:
    return jnp.stack([theta[0], theta[1], jnp.sin(theta[0] + theta[1]), jnp.exp(-theta @ theta)])


@jax.jit
def _of_densities(given: scalar.Data, grid: measure.Grid, densities: jax.Array):
    def both(density):
        pair = measure.weighted_particles(density, grid)
        return scalar.energy(given)(*pair), scalar.outputs(given, *pair)

    return jax.lax.map(both, densities)


@jax.jit
def _of_clouds(given: scalar.Data, clouds: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Q [t s] and the outputs [t s b] of clouds [t s r m 2]."""
    both = Partial(_energies_and_outputs, given)
    return jax.lax.map(both, clouds)


def _energies_and_outputs(given: scalar.Data, clouds: jax.Array) -> tuple[jax.Array, jax.Array]:
    return scalar.many_energies(given, clouds), scalar.many_outputs(given, clouds)


def _histogram(clouds: np.ndarray, density: np.ndarray, grid: measure.Grid, bins: int):
    """L^1 error of the histogram, mean over half-steps [s]."""
    lower, upper = ([float(ends[place]) for ends in grid.edges] for place in (0, -1))
    coarse = measure.uniform_grid(lower, upper, [bins] * grid.dimension)
    found = measure.histogram(clouds.reshape(-1, *clouds.shape[2:]), coarse)
    found = np.asarray(found).reshape(*clouds.shape[:2], bins, bins)
    gaps = np.abs(found - block_means(density, bins)[None]).sum(axis=(2, 3))
    return gaps.mean(axis=1) * float(coarse.volume)


def _marginals(clouds: np.ndarray, density: np.ndarray, grid: measure.Grid) -> np.ndarray:
    """W_2 of the marginals, root mean square over half-steps and axes [s]."""
    seeds, rows, width, _ = clouds.shape
    squares = []
    for axis in (0, 1):
        marginal = density.sum(axis=2 - axis) * float(grid.spacing[1 - axis])
        line = measure.Grid((grid.edges[axis],))
        many, points = np.tile(marginal, (seeds, 1)), clouds[..., axis].reshape(-1, width, 1)
        squares.append(measure.wasserstein_to_density(points, many, line) ** 2)
    return np.sqrt(np.mean(squares, axis=0).reshape(seeds, rows).mean(axis=1))


def _plane(
    clouds: np.ndarray, density: np.ndarray, grid: measure.Grid
) -> tuple[np.ndarray, np.ndarray]:
    """W_2 to draws of the density, of the particles and of other draws; rms over half-steps [s]."""
    seeds, rows, width, _ = clouds.shape
    many, flat = jnp.tile(jnp.asarray(density), (seeds, 1, 1)), clouds.reshape(-1, width, 2)
    first, second = (
        np.asarray(
            measure.draw_particles(
                jax.random.fold_in(jax.random.key(seed), width), many, grid, width
            )
        )
        for seed in (1, 2)
    )
    distances = [
        [float(measure.wasserstein(x, y)) ** 2 for x, y in zip(points, first, strict=True)]
        for points in (flat, second)
    ]
    plane, draws = np.sqrt(np.reshape(distances, (2, seeds, rows)).mean(axis=2))
    return plane, draws
