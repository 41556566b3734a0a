"""Figures of the landscape: surfaces on one scale, ways, spectra, and heads one by one.

One trap: heights are logarithms where the greatest risk of a task is many times the least; the
label says so.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.attention_kernels import landscape_facts
from experiments.attention_kernels.race_report import COLORS, NAMES
from experiments.attention_kernels.training import KERNELS
from meanfield import plots

STEEP = 30.0
"""Ratio of the greatest to the least risk from which logarithms are drawn of a surface."""
SPREAD = 5.0
"""Ratio of the greatest to the least loss on a line from which its axis is logarithmic."""
TASK_NAMES = {"text": "text", "pathfinder": "Pathfinder"}
PATH = "#ff6b35"


def draw(arrays: dict[str, Any], planes: Sequence[str], folder: Path) -> None:
    """Writes every figure of the report.

    Args:
        arrays: The records of the tasks.
        planes: Kinds of planes.
        folder: Where to write.
    """
    for name, found in arrays.items():
        for place, kind in enumerate(planes):
            draw_surfaces(found, place, folder / f"surface_{name}_{kind}.png")
    draw_paths(arrays, folder / "paths.png")
    draw_spectra(arrays, folder / "spectra.png")
    draw_heads(arrays, folder / "heads.png")


def draw_surfaces(arrays: dict[str, Any], plane: int, path: Path) -> None:
    """Writes contours above and reliefs below, both kernels on one scale, for the first seed."""
    heights, label = scaled(arrays["surface"][:, plane])
    levels = plots.shared_levels(list(heights))
    figure, axes = plots.panels(rows=2, columns=2, width=4.4, height=3.8)
    grid = arrays["grid"]
    for place, kernel in enumerate(KERNELS):
        flat, shadow = axes[place], arrays["shadow"][place, 0, plane]
        flat.grid(False)
        plots.draw_contours(flat, grid, grid, heights[place], levels=levels)
        _draw_path(flat, shadow)
        ticks = np.linspace(grid[0], grid[-1], 5)
        flat.set(xlabel="a", ylabel="b", xticks=ticks, yticks=ticks, aspect="equal")
        flat.set_title(NAMES[kernel], fontsize=10)
        relief = plots.draw_relief(
            axes[place + 2], grid, grid, heights[place], levels=levels, label=label
        )
        plots.draw_track(relief, grid, grid, heights[place], shadow, color=PATH)
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
            _spread_out(ax)
        plots.draw_legend(curves, beside=False)
        plots.draw_legend(between, beside=False)
    plots.save_figure(figure, path)


def _spread_out(ax: Any) -> None:
    """Logarithmic heights with plain numbers beside them, where the lines span much."""
    drawn = np.concatenate([line.get_ydata() for line in ax.lines])
    low, high = drawn.min(), drawn.max()
    if not 0 < SPREAD * low < high:
        return
    ticks = [m * 10.0**n for n in range(-6, 7) for m in (1, 2, 5) if low < m * 10.0**n < 1.5 * high]
    ax.set_yscale("log")
    ax.set_yticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    ax.set_yticks([], minor=True)


def draw_spectra(arrays: dict[str, Any], path: Path) -> None:
    """Writes the spectral density of the Hessian at both ends, a panel for each task."""
    figure, axes = plots.panels(columns=len(arrays), width=5.2, height=3.4)
    for ax, (name, found) in zip(axes, arrays.items(), strict=True):
        grid, densities, single = landscape_facts.spectra(found)
        for kernel, seeds in zip(KERNELS, densities, strict=True):
            plots.draw_curves(ax, grid, seeds, label=NAMES[kernel], color=COLORS[kernel])
        ax.axhline(single, color="#8a8a8a", linewidth=0.9, linestyle=":", label="one eigenvalue")
        ax.set(yscale="log", xlabel="eigenvalue λ", ylabel="spectral density")
        ax.set_ylim(single / 10, 3 * max(np.max(line.get_ydata()) for line in ax.lines))
        ax.set_title(TASK_NAMES[name], fontsize=10)
    plots.draw_legend(axes[-1])
    plots.save_figure(figure, path)


def draw_heads(arrays: dict[str, Any], path: Path) -> None:
    """Writes what every head of every seed has, by layer: a row for each task."""
    figure, axes = plots.panels(rows=len(arrays), columns=3, width=3.6, height=2.8)
    titles = {
        "entropy": "entropy (nats)", "rank": "effective rank", "heads": "λ_max of the head's block",
    }  # fmt: skip
    for row, (name, found) in enumerate(arrays.items()):
        for ax, (key, title) in zip(axes[3 * row : 3 * row + 3], titles.items(), strict=True):
            layers = 1 + np.arange(found[key].shape[2])
            for place, kernel in enumerate(KERNELS):
                values = found[key][place]
                at = np.broadcast_to((layers + 0.3 * (place - 0.5))[None, :, None], values.shape)
                label, color = NAMES[kernel], COLORS[kernel]
                ax.plot(at.ravel(), values.ravel(), "o", color=color, alpha=0.6, ms=5, mew=0,
                        label=label)  # fmt: skip
            ax.set(xlabel="layer", xticks=layers, ylabel=title, xlim=(0.5, layers[-1] + 0.5))
        axes[3 * row].set_title(TASK_NAMES[name], fontsize=10)
    plots.draw_legend(axes[2])
    plots.save_figure(figure, path)
