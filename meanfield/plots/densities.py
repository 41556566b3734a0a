"""Densities on a grid of two dimensions, as maps of one colour scale.

One trap: panels drawn by two calls have two scales unless both are given the same ceiling.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes

from meanfield.plots import canvas


def draw_densities(
    axes: Sequence[Axes],
    densities: Sequence[Float[np.ndarray, "i j"]],
    edges: tuple[Float[np.ndarray, " i_1"], Float[np.ndarray, " j_1"]],
    /,
    *,
    titles: Sequence[str],
    ceiling: float | None = None,
    label: str | None = None,
) -> None:
    """Draws a density in each panel, white where it vanishes, all panels on one colour scale.

    Lay particles over it by ``draw_clouds`` on the same panels.

    Args:
        axes: One panel for each density, all of one figure.
        densities: Averages over cells, the first axis to the right.
        edges: Ends of the cells along each axis.
        titles: What stands over each panel, say its time.
        ceiling: The density of the darkest colour; the largest drawn if None. The frames of an
            animation agree if all get the same.
        label: What the colour bar calls the density; no colour bar if None.

    Raises:
        ValueError: If there are not as many panels and titles as densities.

    >>> ends = np.linspace(0.0, 1.0, 4), np.linspace(0.0, 1.0, 3)
    >>> draw_densities(canvas.panels()[1], [np.ones((3, 2))], ends, titles=["time 0"])
    """
    if not len(axes) == len(densities) == len(titles):
        raise ValueError(
            f"axes and titles must be one for each density, got {len(axes)} axes and "
            f"{len(titles)} titles for {len(densities)} densities"
        )
    top = float(np.max([density.max() for density in densities])) if ceiling is None else ceiling
    scale = {"vmin": 0.0, "vmax": top, "cmap": colormaps["Blues"]}
    meshes = [
        ax.pcolormesh(*edges, density.T, **scale)
        for ax, density in zip(axes, densities, strict=True)
    ]
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=10)
        ax.set_aspect("equal", adjustable="box")
        # Lines of the grid would pass for features of a density that is almost white.
        ax.grid(visible=False)
    if label is not None:
        bar = axes[0].figure.colorbar(meshes[0], ax=list(axes), shrink=0.8, pad=0.02)
        bar.set_label(label, fontsize=10)
        bar.ax.tick_params(labelsize=9, labelcolor=canvas.INK)
        bar.outline.set_edgecolor(canvas.FAINT)
