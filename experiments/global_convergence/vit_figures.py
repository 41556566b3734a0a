"""Figures of training curves of networks of several sizes, one row of panels for each law.

One trap: rows have their own scales of loss; what two laws reach is compared in ``draw_ends``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.global_convergence.vit_facts import NAMES, Curves
from meanfield import plots

BANDS = "Lines: mean over seeds; bands: least to greatest."
COLORS = {"mean_field": "#31688e", "ntk": "#35b779", "standard": "#d1495b"}
PANELS = (
    ("loss", "training loss", 1),
    ("accuracy", "training accuracy (%)", 100),
    ("test_accuracy", "test accuracy (%)", 100),
)


def time_label(config: Any) -> str:
    """What the axis of time is called.

    Args:
        config: The configuration.
    """
    if config.training != "flow":
        return "epoch"
    return "mean-field time τ" if config.scalings == ("mean_field",) else "time τ of the flow"


def draw_training(
    arrays: Mapping[str, Any], config: Any, sizes: np.ndarray, title: str, path: Path
) -> None:
    """Draws losses and accuracies over time.

    Args:
        arrays: The record.
        config: The configuration.
        sizes: Sizes of the networks.
        title: What they number.
        path: The file.
    """
    laws = config.scalings
    figure, axes = plots.panels(rows=len(laws), columns=3, width=3.7, height=3.1)
    colors = plots.sequential_colors(len(sizes))
    for row, law in enumerate(laws):
        panels = axes[3 * row : 3 * row + 3]
        for ax, (name, label, unit) in zip(panels, PANELS, strict=True):
            for values, size, color in zip(arrays[law][name], sizes, colors, strict=True):
                plots.draw_curves(ax, arrays["times"], unit * values, label=f"{size}", color=color)
            ax.set(xlabel=time_label(config), ylabel=label)
        if config.training == "flow":
            panels[0].set_yscale("log")
        if len(laws) > 1:
            panels[0].set_title(f"{NAMES[law]} parametrisation", loc="left")
        plots.draw_legend(panels[-1], title=title)
    plots.save_figure(figure, path)


def draw_ends(
    arrays: Mapping[str, Any],
    facts: Mapping[str, Curves],
    sizes: np.ndarray,
    title: str,
    path: Path,
) -> None:
    """Draws what networks reach against their size, the laws in one panel.

    Args:
        arrays: The record.
        facts: What is fitted to the curves of each law.
        sizes: Sizes of the networks.
        title: What they number.
        path: The file.
    """
    figure, axes = plots.panels(columns=3, width=3.7, height=3.1)
    for ax, (name, label, unit) in zip(axes, PANELS, strict=True):
        for law, found in facts.items():
            ends = unit * arrays[law][name][..., found.last].T
            color = COLORS[law]
            plots.draw_curves(ax, sizes.astype(float), ends, label=NAMES[law], color=color)
            places = np.broadcast_to(sizes, ends.shape).ravel()
            ax.plot(places, ends.ravel(), "o", color=color, alpha=0.55, ms=4.5, markeredgewidth=0)
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, labels=[f"{size}" for size in sizes])
        ax.set_xticks([], minor=True)
        ax.set(xlabel=title, ylabel=f"{label}, at the end")
    plots.draw_legend(axes[-1], title="parametrisation")
    plots.save_figure(figure, path)
