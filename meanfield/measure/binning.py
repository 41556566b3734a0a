"""Particles and densities on a grid compared: histogram, exact W_2 on the line, draws, weights.

    rho_i = #{j : theta_j in C_i} / (m |C_i|),    W_2^2 = int_0^1 (F_m^{-1}(q) - F_rho^{-1}(q))^2 dq

Trap: for m draws from a density W_2 falls like m^(-1/2) only if that density does not thin out
too slowly: for a Gaussian there is a factor sqrt(log log m), and across a gap the rate is m^(-1/4).

Reference:
    Bobkov and Ledoux, One-dimensional empirical measures, order statistics, and Kantorovich
    transport distances, 2019, theorem 5.1 and corollary 6.14.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from meanfield.checks import count
from meanfield.measure.grid import Grid, check_clouds, check_density, check_shape


def histogram(points: Float[ArrayLike, "l m p"], grid: Grid, /) -> Float[Array, "l *cells"]:
    """Density of particles on the grid: the share in each cell, by its volume.

    For m independent draws the error in L^1 is sqrt(2/(pi m)) sum_i sqrt(p_i (1 - p_i)), where p_i
    are the masses of the cells: it falls like m^(-1/2), and grows with the number of cells.

    Args:
        points: Clouds of all depths (see `clouds`).
        grid: The grid, of the particles' dimension.

    Returns:
        The density, of mass one at every depth.

    Raises:
        ValueError: Empty clouds, another dimension, particles that are not finite or off the grid.

    >>> from meanfield.measure import uniform_grid
    >>> points, grid = jnp.array([[[0.1], [0.3], [3.9], [3.1]]]), uniform_grid([0.0], [4.0], [4])
    >>> histogram(points, grid).tolist()
    [[0.5, 0.0, 0.0, 0.5]]
    """
    clouds = check_clouds(points, grid)
    corners = [(float(ends[0]), float(ends[-1])) for ends in grid.edges]
    counts = []
    for cloud in clouds:
        cells, _ = np.histogramdd(cloud, bins=grid.shape, range=corners)
        outside = len(cloud) - int(cells.sum())
        if outside:
            raise ValueError(
                f"{outside} of {len(cloud)} particles lie off the grid {corners}; widen it to hold "
                f"{cloud.min(axis=0).tolist()} and {cloud.max(axis=0).tolist()}"
            )
        counts.append(cells / len(cloud))
    return jnp.asarray(np.stack(counts), grid.volume.dtype) / grid.volume


def draw_particles(
    key: PRNGKeyArray, density: Float[ArrayLike, "l *cells"], grid: Grid, /, width: int
) -> Float[Array, "l m p"]:
    """Independent particles of a density that is constant on each cell.

    Args:
        key: Random key.
        density: The density, of mass one at every depth.
        grid: Its grid.
        width: Number of particles per depth.

    Returns:
        The particles, drawn afresh at every depth.

    Raises:
        ValueError: The width is not positive, or the density is none (see `density_flow`).

    >>> from meanfield.measure import uniform_grid
    >>> grid = uniform_grid([0.0, 0.0], [1.0, 1.0], [4, 4])
    >>> draw_particles(jax.random.key(0), jnp.ones((3, 4, 4)), grid, width=5).shape
    (3, 5, 2)
    """
    masses = check_density(density, grid)
    width = count("width", width)
    which, where = jax.random.split(key)
    ends = jnp.cumsum(masses.reshape(len(masses), -1), axis=1)
    levels = jax.random.uniform(which, (len(masses), width), ends.dtype) * ends[:, -1:]
    # To the right of all equal ends, so that a cell of mass 0 is never drawn.
    cells = jax.vmap(lambda end, level: jnp.searchsorted(end, level, side="right"))(ends, levels)
    centres = grid.points[jnp.minimum(cells, ends.shape[1] - 1)]
    offsets = jax.random.uniform(where, centres.shape, ends.dtype, -0.5, 0.5)
    return centres + offsets * jnp.stack(grid.spacing)[None, None]


def weighted_particles(
    density: Float[ArrayLike, "l *cells"], grid: Grid, /
) -> tuple[Float[Array, "l g"], Float[Array, "l g p"]]:
    """A density as weighted particles: the masses of the cells at their centres.

    Args:
        density: Values on the grid.
        grid: The grid.

    Returns:
        Weights and points, for any function of weighted particles (an energy, a prediction).

    Raises:
        ValueError: A density of another shape than [l, *cells]; it may be traced, so that values
            are not read.

    >>> from meanfield.measure import uniform_grid
    >>> grid = uniform_grid([0.0], [1.0], [4])
    >>> weighted_particles(jnp.ones((1, 4)), grid)[0].tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    values = jnp.asarray(density)
    check_shape(values, grid)
    weights = values.reshape(values.shape[0], -1) * grid.volume
    return weights, jnp.broadcast_to(grid.points, (values.shape[0], *grid.points.shape))


def wasserstein_to_density(
    points: Float[ArrayLike, "l m 1"], density: Float[ArrayLike, "l g"], grid: Grid, /
) -> Float[np.ndarray, " l"]:
    """Exact distance W_2, on the line, of particles to a density constant on each cell.

    Runs on the host and costs a sort. In two dimensions compare the marginals, or draw particles of
    the density and use `wasserstein`.

    Args:
        points: Clouds of all depths, each particle of weight 1/m.
        density: The density, of mass one at every depth.
        grid: Its grid, of dimension 1.

    Returns:
        One distance per depth: the root and not the square.

    Raises:
        ValueError: Empty clouds, another dimension or depth, or no density (see `density_flow`).

    References:
        Peyre and Cuturi, Computational Optimal Transport, arXiv 1803.00567, equation 2.36.

    >>> from meanfield.measure import uniform_grid
    >>> grid = uniform_grid([0.0], [1.0], [4])
    >>> wasserstein_to_density(jnp.array([[[0.5]]]), jnp.ones((1, 4)), grid).round(4).tolist()
    [0.2887]
    """
    if grid.dimension != 1:
        raise ValueError(
            f"the exact W_2 needs a grid of dimension 1, got {grid.dimension}; compare marginals, "
            "or draw particles of the density and use wasserstein"
        )
    clouds = check_clouds(points, grid)[..., 0].astype(np.float64)
    masses = np.asarray(check_density(density, grid), np.float64)
    if len(clouds) != len(masses):
        raise ValueError(
            f"points and density must have equal depth, got {len(clouds)} and {len(masses)}"
        )
    edges = np.asarray(grid.edges[0], np.float64)
    return np.array(
        [_quantile_distance(np.sort(x), rho, edges) for x, rho in zip(clouds, masses, strict=True)]
    )


def _quantile_distance(sorted_points: np.ndarray, density: np.ndarray, edges: np.ndarray) -> float:
    width = len(sorted_points)
    cumulative = np.concatenate([[0.0], np.cumsum(density)])
    cumulative /= cumulative[-1]
    shares = np.arange(width + 1) / width
    levels = np.union1d(cumulative, shares)
    lows, highs = levels[:-1], levels[1:]
    # Between two levels one particle faces part of one cell, where the quantile is linear.
    cell = np.searchsorted(cumulative, lows, side="right") - 1
    particle = np.searchsorted(shares, lows, side="right") - 1
    slope = (edges[cell + 1] - edges[cell]) / (cumulative[cell + 1] - cumulative[cell])
    start, end = (
        edges[cell] + (level - cumulative[cell]) * slope - sorted_points[particle]
        for level in (lows, highs)
    )
    squares = (start**2 + start * end + end**2) / 3
    return float(np.sqrt(np.sum((highs - lows) * squares)))
