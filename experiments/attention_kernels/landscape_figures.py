"""Figures of the landscape: surfaces of both kernels on one scale, and the risk along the ways.

One trap: heights are logarithms where the greatest risk of a task is many times the least; the
label says so.
"""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.attention_kernels.race_report import COLORS, NAMES
from experiments.attention_kernels.training import KERNELS
from meanfield import plots

STEEP = 30.0
"""Ratio of the greatest to the least risk from which logarithms are drawn."""
TASK_NAMES = {"text": "text", "pathfinder": "Pathfinder"}
PATH = "#ff6b35"


def draw_surfaces(arrays: dict[str, Any], path: Path) -> None:
    """Writes contours above and reliefs below, both kernels on one scale, for the first seed."""
    heights, label = scaled(arrays["surface"])
    levels = plots.shared_levels(list(heights))
    figure, axes = plots.panels(rows=2, columns=2, width=4.4, height=3.8)
    grid = arrays["grid"]
    for place, kernel in enumerate(KERNELS):
        flat = axes[place]
        flat.grid(False)
        plots.draw_contours(flat, grid, grid, heights[place], levels=levels)
        _draw_path(flat, arrays["shadow"][place, 0])
        ticks = np.linspace(grid[0], grid[-1], 5)
        flat.set(xlabel="a", ylabel="b", xticks=ticks, yticks=ticks)
        flat.set_title(NAMES[kernel], fontsize=10)
        relief = plots.draw_relief(
            axes[place + 2], grid, grid, heights[place], levels=levels, label=label
        )
        relief.set(xlabel="a", ylabel="b", xticks=ticks, yticks=ticks)
    # Framed: dark letters could not be read on dark colours.
    axes[0].legend(loc="lower left", fontsize=8, framealpha=0.9, edgecolor="none")
    plots.draw_colors(axes[:2], levels=levels, label=label)
    plots.save_figure(figure, path)


def scaled(surfaces: np.ndarray) -> tuple[np.ndarray, str]:
    """The heights that are drawn, and what they are.

    Args:
        surfaces: Risks.
    """
    finite = surfaces[np.isfinite(surfaces)]
    least = finite.min() if len(finite) else 0.0
    if least > 0 and finite.max() > STEEP * least:
        return np.log10(surfaces), "log₁₀ of the training loss"
    return surfaces, "training loss"


def _draw_path(ax: Any, shadow: np.ndarray) -> None:
    ax.plot(shadow[:, 0], shadow[:, 1], "-", color=PATH, linewidth=1.3, label="stage 2")
    ax.plot(*shadow[0], "o", color=PATH, ms=5, mec="white", label="its start")
    ax.plot(*shadow[-1], "*", color=PATH, ms=10, mec="white", label="its end M")


def draw_paths(arrays: dict[str, Any], path: Path) -> None:
    """Writes the loss over both stages, and the risk along the two ways, a row for each task."""
    figure, axes = plots.panels(rows=len(arrays), columns=3, width=4.0, height=3.1)
    for row, (name, found) in enumerate(arrays.items()):
        curves, stage, between = axes[3 * row : 3 * row + 3]
        times = np.linspace(0, 1, found["one_train_loss"].shape[-1])
        plots.draw_curves(
            curves, times, found["one_train_loss"], label="softmax, stage 1", color="#8a8a8a"
        )
        for place, kernel in enumerate(KERNELS):
            color, label = COLORS[kernel], NAMES[kernel]
            later = 1 + np.linspace(0, 1, found["two_train_loss"].shape[-1])
            plots.draw_curves(
                curves, later, found["two_train_loss"][place], label=f"{label}, stage 2",
                color=color,
            )  # fmt: skip
            shares = found["shares"][place, 0]
            plots.draw_curves(stage, shares, found["stage_way"][place], label=label, color=color)
            plots.draw_curves(between, shares, found["kernel_way"][place], label=label, color=color)
        curves.set(xlabel="stage", ylabel="training loss")
        curves.set_title(f"{TASK_NAMES[name]}: both stages", fontsize=10)
        stage.set(xlabel="share of the way", ylabel="training loss")
        between.set(xlabel="share of the way", ylabel="training loss")
        stage.set_title("from the end of stage 1 to M", fontsize=10)
        between.set_title("from softmax's M to Gaussian's M", fontsize=10)
        for ax in (curves, stage, between):
            if ax.get_ylim()[1] > STEEP * found["risk"].min():
                ax.set_yscale("log")
        plots.draw_legend(curves, beside=False)
        plots.draw_legend(between, beside=False)
    plots.save_figure(figure, path)
