"""Surfaces over a plane: contours, reliefs, and the colours that several of them share.

One trap: surfaces drawn each in colours of their own look alike whatever their heights;
``shared_levels`` gives all of them one scale.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import cm, colors
from matplotlib.axes import Axes

from meanfield.plots import canvas

COLORMAP = "viridis"


def shared_levels(
    surfaces: Sequence[Float[np.ndarray, "_ _"]], /, *, number: int = 24
) -> Float[np.ndarray, " l"]:
    """Levels from the least to the greatest finite value of several surfaces.

    Args:
        surfaces: The surfaces; values that are not finite are left out.
        number: How many levels.

    Raises:
        ValueError: If no value is finite.

    >>> shared_levels([np.zeros((2, 2)), np.ones((2, 2))], number=3).tolist()
    [0.0, 0.5, 1.0]
    """
    values = np.concatenate([np.ravel(surface) for surface in surfaces])
    values = values[np.isfinite(values)]
    if not len(values):
        raise ValueError("surfaces must hold a finite value, got none")
    low, high = float(values.min()), float(values.max())
    # A flat surface has one level; contours need two that differ.
    return np.linspace(low, high if high > low else low + max(abs(low), 1.0) * 1e-6, number)


def draw_contours(
    ax: Axes,
    first: Float[np.ndarray, " a"],
    second: Float[np.ndarray, " b"],
    values: Float[np.ndarray, "a b"],
    /,
    *,
    levels: Float[np.ndarray, " l"],
) -> None:
    """Draws a surface as filled contours; what is not finite is left white.

    Args:
        ax: Where to draw.
        first: The abscissa.
        second: The ordinate.
        values: The surface, its first axis along the abscissa.
        levels: Of :func:`shared_levels`.

    >>> ax, grid = canvas.panels()[1][0], np.arange(3.0)
    >>> draw_contours(ax, grid, grid, np.outer(grid, grid), levels=np.linspace(0, 4, 5))
    """
    shown = np.ma.masked_invalid(values.T)
    ax.contourf(first, second, shown, levels=levels, cmap=COLORMAP)
    ax.contour(
        first, second, shown, levels=levels[1:-1:2], colors="white", linestyles="solid",
        linewidths=0.5, alpha=0.6,
    )  # fmt: skip
    ax.set(xlim=(first.min(), first.max()), ylim=(second.min(), second.max()))


def draw_relief(
    ax: Axes,
    first: Float[np.ndarray, " a"],
    second: Float[np.ndarray, " b"],
    values: Float[np.ndarray, "a b"],
    /,
    *,
    levels: Float[np.ndarray, " l"],
    label: str,
) -> Any:
    """Draws a surface in three dimensions in the place of a panel, and gives the new panel.

    Args:
        ax: The panel, which is taken out of its figure.
        first: The abscissa.
        second: The ordinate.
        values: The surface, its first axis along the abscissa.
        levels: Of :func:`shared_levels`; their ends are the limits of the height.
        label: What the height is.

    >>> ax, grid = canvas.panels()[1][0], np.arange(3.0)
    >>> draw_relief(ax, grid, grid, np.eye(3), levels=np.arange(2.0), label="loss").name
    '3d'
    """
    figure: Any = ax.figure
    place = ax.get_subplotspec()
    ax.remove()
    # In the order in which they are drawn: by depth, a surface would hide what lies on it.
    relief: Any = figure.add_subplot(place, projection="3d", computed_zorder=False)
    across, along = np.meshgrid(first, second, indexing="ij")
    shown = np.where(np.isfinite(values), values, np.nan)
    relief.plot_surface(
        across, along, shown, cmap=COLORMAP, vmin=levels[0], vmax=levels[-1], rcount=len(first),
        ccount=len(second), linewidth=0, antialiased=False,
    )  # fmt: skip
    relief.set_zlim(levels[0], levels[-1])
    relief.set_zlabel(label, fontsize=9, labelpad=4)
    relief.tick_params(labelsize=8, pad=1, labelcolor=canvas.INK)
    relief.view_init(elev=32, azim=-58)
    return relief


def draw_track(
    relief: Any,
    first: Float[np.ndarray, " a"],
    second: Float[np.ndarray, " b"],
    values: Float[np.ndarray, "a b"],
    track: Float[np.ndarray, "t 2"],
    /,
    *,
    color: str,
) -> None:
    """Draws a way over a relief, on the surface, from its start (a dot) to its end (a star).

    Args:
        relief: Of :func:`draw_relief`.
        first: The abscissa.
        second: The ordinate.
        values: The surface, its first axis along the abscissa.
        track: Points of the way in the plane; what lies outside the surface is left out.
        color: Of the way.

    >>> ax, grid = canvas.panels()[1][0], np.arange(3.0)
    >>> relief = draw_relief(ax, grid, grid, np.eye(3), levels=np.arange(2.0), label="loss")
    >>> draw_track(relief, grid, grid, np.eye(3), np.array([[0.0, 0.5], [1.0, 1.0]]), color="C1")
    """
    # Bilinear: along the abscissa for every ordinate, then along the ordinate.
    columns = np.stack([np.interp(track[:, 0], first, column) for column in values.T])
    heights = np.array([
        np.interp(y, second, column) for y, column in zip(track[:, 1], columns.T, strict=True)
    ])  # fmt: skip
    for place, axis in enumerate((first, second)):
        inside = (axis[0] <= track[:, place]) & (track[:, place] <= axis[-1])
        heights = np.where(inside, heights, np.nan)
    points = np.column_stack([track, heights])
    relief.plot(*points.T, "-", color=color, linewidth=1.3, zorder=3)
    relief.plot(*points[:1].T, "o", color=color, ms=5, mec="white", zorder=4)
    relief.plot(*points[-1:].T, "*", color=color, ms=10, mec="white", zorder=5)


def draw_colors(axes: Sequence[Axes], /, *, levels: Float[np.ndarray, " l"], label: str) -> None:
    """Draws the scale of colours that panels share, beside them.

    Args:
        axes: The panels.
        levels: Of :func:`shared_levels`.
        label: What the colours mean.

    >>> draw_colors(canvas.panels()[1], levels=np.arange(3.0), label="loss")
    """
    scale = cm.ScalarMappable(colors.Normalize(levels[0], levels[-1]), COLORMAP)
    figure: Any = axes[0].figure
    bar = figure.colorbar(scale, ax=list(axes), shrink=0.75, pad=0.03)
    bar.set_label(label, fontsize=10)
    bar.ax.tick_params(labelsize=9)
    bar.outline.set_visible(False)
