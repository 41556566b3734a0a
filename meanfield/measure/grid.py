"""Uniform grids in one and two dimensions, and densities on them as averages over cells.

    rho_i = (1/|C_i|) int_{C_i} rho_t,    sum_i |C_i| rho_i = 1    at every depth t

A grid spans a box in one or two dimensions, for beyond two it has more cells than one needs
particles. Trap: `density` is mass per volume, `weights` are masses; they differ by the volume of a
cell.

Reference:
    LeVeque, Finite Volume Methods for Hyperbolic Problems, 2002, section 4.1.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from meanfield.checks import count, finite


class Grid(NamedTuple):
    """A box cut into equal cells; see `uniform_grid`. Itself a tree of arrays.

    Attributes:
        edges: Ends of the cells along each axis, one more than cells.
    """

    edges: tuple[Float[Array, "_"], ...]

    @property
    def dimension(self) -> int:
        """Dimension p of a particle."""
        return len(self.edges)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of cells along each axis."""
        return tuple(ends.shape[0] - 1 for ends in self.edges)

    @property
    def spacing(self) -> tuple[Float[Array, ""], ...]:
        """Length of a cell along each axis."""
        return tuple((ends[-1] - ends[0]) / (ends.shape[0] - 1) for ends in self.edges)

    @property
    def volume(self) -> Float[Array, ""]:
        """Volume of a cell."""
        return math.prod(self.spacing, start=jnp.ones_like(self.edges[0][0]))

    @property
    def points(self) -> Float[Array, "g p"]:
        """Centres of all cells, the last axis of the grid fastest."""
        centres = [(ends[:-1] + ends[1:]) / 2 for ends in self.edges]
        return jnp.stack(jnp.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, self.dimension)


def uniform_grid(
    lower: Sequence[float | int], upper: Sequence[float | int], cells: Sequence[int], /
) -> Grid:
    """The grid of equal cells on a box.

    Args:
        lower: Least corner of the box, one or two coordinates.
        upper: Greatest corner.
        cells: Number of cells along each axis, at least 4.

    Returns:
        The grid.

    Raises:
        ValueError: A dimension other than 1 or 2, corners that do not span a box, too few cells.

    >>> uniform_grid([-1.0, 0.0], [1.0, 3.0], [20, 30]).shape
    (20, 30)
    """
    dimension = len(lower)
    if dimension not in {1, 2}:
        raise ValueError(
            f"particle dimension must be 1 or 2 for a grid, got {dimension}; in higher dimension "
            "follow particles, and check their run by weak_residual"
        )
    if len(upper) != dimension or len(cells) != dimension:
        raise ValueError(
            "lower, upper and cells must have one entry per axis, got "
            f"{dimension}, {len(upper)} and {len(cells)}"
        )
    for low, high in zip(lower, upper, strict=True):
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"lower must be finite and below upper, got {low} and {high}")
    numbers = [count("cells", number, least=4) for number in cells]
    ends = [np.linspace(a, b, n + 1) for a, b, n in zip(lower, upper, numbers, strict=True)]
    return Grid(tuple(jnp.asarray(end, dtype=float) for end in ends))


def grid_density(
    pdf: Callable[[Float[Array, "g p"]], Float[Array, "..."]], grid: Grid, /
) -> Float[Array, "l *cells"]:
    """A density on the grid: averages over the cells, normalised to mass one.

    Args:
        pdf: From points to values >= 0, `[g]` for one depth or `[l g]`; any constant factor.
        grid: The grid.

    Returns:
        Averages by Gauss-Legendre quadrature with three nodes per axis and cell.

    Raises:
        ValueError: Values that are negative, not finite or 0 everywhere, or of another shape.

    >>> grid_density(lambda x: jnp.where(x[:, 0] < 1, 7.0, 0.0), uniform_grid([0], [2], [4]))
    Array([[1., 1., 0., 0.]], dtype=float32)
    """
    nodes, factors = (a / 2 for a in np.polynomial.legendre.leggauss(3))
    offsets = np.stack(np.meshgrid(*[nodes] * grid.dimension), axis=-1).reshape(-1, grid.dimension)
    products = np.prod(np.meshgrid(*[factors] * grid.dimension), axis=0).ravel()
    shifts = jnp.asarray(offsets) * jnp.stack(grid.spacing)[None]
    points = grid.points[:, None] + shifts[None]
    values = np.atleast_2d(np.asarray(pdf(points.reshape(-1, grid.dimension)), float))
    if values.ndim != 2 or values.shape[1] != points[..., 0].size:
        raise ValueError(
            f"pdf must give [g] or [l g] for the {points[..., 0].size} points [g p] handed in, got "
            f"shape {list(values.shape)}"
        )
    finite("pdf", values)
    averages = values.reshape(len(values), -1, len(products)) @ products
    masses = averages.sum(axis=1, keepdims=True) * float(grid.volume)
    if (values < 0).any() or (masses <= 0).any():
        raise ValueError(
            f"pdf must be >= 0 with positive mass on the grid, got least value {values.min()} and "
            f"masses {masses.ravel().tolist()}; move the grid to where the particles are"
        )
    return jnp.asarray((averages / masses).reshape(-1, *grid.shape), grid.volume.dtype)


def check_shape(density: Any, grid: Grid, /) -> None:
    """Nothing, if an array has the shape of a density on the grid.

    Args:
        density: Values on the grid behind an axis of depths, which may be traced.
        grid: The grid.

    Raises:
        ValueError: Otherwise.

    >>> check_shape(jnp.ones((1, 4)), uniform_grid([0.0], [1.0], [4]))
    """
    depth, *cells = np.shape(density) or (0,)
    if tuple(cells) != grid.shape or not depth:
        raise ValueError(
            f"density must have shape [l, {', '.join(map(str, grid.shape))}] with l >= 1 depths on "
            f"this grid, got {list(np.shape(density))}; one depth is density[None]"
        )


def check_density(density: Any, grid: Grid, /) -> Float[Array, "l *cells"]:
    """The density as an array of mass exactly one at every depth, if it is one to round-off.

    Args:
        density: Values on the grid behind an axis of depths.
        grid: The grid.

    Raises:
        ValueError: Another shape, a grid that is not uniform, values that are negative or not
            finite, masses other than 1.

    >>> check_density(jnp.ones((1, 4)), uniform_grid([0.0], [1.0], [4])).shape
    (1, 4)
    """
    values = np.asarray(density, float)
    check_shape(values, grid)
    tolerance = float(jnp.finfo(grid.volume.dtype).eps) ** 0.5
    for ends in grid.edges:
        steps = np.diff(np.asarray(ends))
        if not np.allclose(steps, steps.mean(), rtol=0.0, atol=tolerance * steps.mean()):
            raise ValueError("grid must have equal cells along each axis; use uniform_grid")
    finite("density", values)
    if (values < 0).any():
        raise ValueError(f"density must be >= 0, got {values.min()}; clip and normalise it")
    masses = values.sum(axis=tuple(range(1, values.ndim)), keepdims=True) * float(grid.volume)
    if (abs(masses - 1) > tolerance).any():
        raise ValueError(
            f"density must have mass 1 at every depth, got {masses.ravel().tolist()}; divide by "
            "the mass, sum(density) * grid.volume, or build it by grid_density"
        )
    return jnp.asarray(values / masses, grid.volume.dtype)


def check_clouds(points: Any, grid: Grid, /) -> Float[np.ndarray, "l m p"]:
    """The clouds as an array, if they are finite and of the grid's dimension.

    Args:
        points: Clouds of all depths.
        grid: The grid.

    Raises:
        ValueError: Otherwise, and if they are empty.

    >>> check_clouds(jnp.zeros((2, 5, 1)), uniform_grid([-1.0], [1.0], [4])).shape
    (2, 5, 1)
    """
    clouds = np.asarray(points)
    if clouds.ndim != 3 or 0 in clouds.shape or clouds.shape[2] != grid.dimension:
        raise ValueError(
            f"points must be non-empty clouds [l m {grid.dimension}] on this grid, got shape "
            f"{list(clouds.shape)}; a single cloud of points [m p] is points[None]"
        )
    finite("points", clouds)
    return clouds
