"""Figures and report of ``query_only``, from its record and the facts counted in it.

One trap: nothing is decided here; what a sentence says comes from ``query_only_facts``.
"""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import _report
from experiments.attention_kernels import query_only_facts
from experiments.attention_kernels.query_only_facts import KERNELS, Facts, interval
from meanfield import plots

CLAIM = (
    "Training W^Q alone, the Gaussian kernel reaches zero loss where softmax is caught in "
    "suboptimal points (Song et al. 2024; read here as: it wins somewhere and loses nowhere)."
)
COLORS = {"softmax": "#31688e", "gaussian": "#d1495b"}
PANELS = (
    ("softmax succeeds", "viridis"),
    ("Gaussian succeeds", "viridis"),
    ("Gaussian less softmax", "RdBu_r"),
)


def draw(arrays: dict[str, Any], facts: Facts, out_dir: Path) -> None:
    """Writes the figures."""
    _draw_map(arrays, facts, out_dir / "map.png")
    _draw_distances(arrays, facts, out_dir / "distances.png")


def _draw_map(arrays: dict[str, Any], facts: Facts, path: Path) -> None:
    dims, scales, distances = (arrays[name] for name in ("dims", "scales", "distances"))
    figure, axes = plots.panels(rows=len(dims), columns=3, width=3.9, height=2.7)
    shape = (len(dims), len(scales), len(distances))
    shares = [np.array([c.success[k].value for c in facts.cells]).reshape(shape) for k in KERNELS]
    maps = [*shares, shares[1] - shares[0]]
    winners = np.array([cell.winner or "" for cell in facts.cells]).reshape(shape)
    # Differences share a scale of their own, at least as wide as a tenth of all problems.
    widest = max(10.0, 100 * float(np.abs(maps[2]).max()))
    for row, dim in enumerate(dims):
        for column, (title, colors) in enumerate(PANELS):
            ax, values = axes[3 * row + column], 100 * maps[column][row]
            low, high = (0.0, 100.0) if column < 2 else (-widest, widest)
            image = ax.imshow(
                values, cmap=colors, vmin=low, vmax=high, aspect="auto", origin="lower"
            )
            ax.grid(visible=False)
            for (i, j), value in np.ndenumerate(values):
                # A star where the paired interval decides; ink that can be read on its colour.
                star = "*" if column == 2 and winners[row, i, j] else ""
                dark = value < 55 if column < 2 else abs(value) > 0.6 * widest
                ax.text(
                    j, i, f"{value:.0f}{star}".replace("-", "−"), ha="center", va="center",
                    fontsize=9, color="white" if dark else "#222222",
                )  # fmt: skip
            ax.set_xticks(range(len(distances)), [f"{value:g}" for value in distances])
            ax.set_yticks(range(len(scales)), [f"{value:g}" for value in scales])
            ax.set(title=f"{title} (%), D = {dim}", xlabel="target distance", ylabel="scale")
            figure.colorbar(image, ax=ax)
    plots.save_figure(figure, path)


def _draw_distances(arrays: dict[str, Any], facts: Facts, path: Path) -> None:
    dims, scales = arrays["dims"], arrays["scales"]
    figure, axes = plots.panels(rows=len(dims), columns=len(scales), width=3.6, height=2.7)
    panels = iter(axes)
    for dim in dims:
        for scale in scales:
            ax = next(panels)
            cells = [c for c in facts.cells if (c.dim, c.scale) == (dim, scale)]
            at = np.array([cell.distance for cell in cells])
            for kernel in KERNELS:
                shares = np.array([cell.success[kernel] for cell in cells]).T * 100
                error = np.abs(shares[1:] - shares[:1])
                ax.errorbar(
                    at, shares[0], yerr=error, fmt="o-", ms=3, color=COLORS[kernel], label=kernel
                )
                reach = [100 * (1 - cell.out_of_reach[kernel]) for cell in cells]
                ax.plot(at, reach, ":", color=COLORS[kernel], label=f"{kernel}, not ruled out")
            ax.set(title=f"D = {dim}, scale {scale:g}", xlabel="target distance")
            ax.set(ylabel="problems (%)", ylim=(-4, 104))
    plots.draw_legend(axes[len(scales) - 1])
    plots.save_figure(figure, path)


def report(arrays: dict[str, Any], facts: Facts, config: Any) -> str:
    """The page report.md."""
    agrees, because = query_only_facts.verdict(facts)
    return _report.page(
        "Training W^Q alone: softmax against the Gaussian kernel",
        [
            _setting(config),
            "## The claim",
            _report.claim(CLAIM, agrees=agrees, because=because),
            _report.figure(
                "map.png",
                "Success by kernel and the difference on the same problems, in percent; a star "
                "where the paired interval decides for one of the two.",
            ),
            _report.figure(
                "distances.png",
                "Success with Wilson's 95 % interval (solid), and the share of problems that the "
                "hull test (softmax) or the zonotope test (Gaussian) does not rule out (dotted).",
            ),
            _reach(facts),
            "## Every cell",
            _table(facts),
        ],
    )


def _setting(config: Any) -> str:
    ladder = ", ".join(f"{step:g}" for step in config.ladder)
    return (
        f"One sample of n = {config.tokens} Gaussian tokens, one head of dimension "
        f"{config.head_dim}, {config.outputs} output(s); W^K, W^V, W^O random and fixed. Targets "
        "at a given distance from the middle of the values, in units of their spread, in random "
        f"directions. {config.steps} steps of each of {ladder} over |X|² times the mean square of "
        f"the values; the best end counts. Success: last risk ≤ {config.tolerance:g} |y|²/2. "
        f"Gaussian kernel of bandwidth {config.bandwidth:g}, rows not normalised. {config.seeds} "
        "problems a cell, the same for both kernels. The starts of the published runs are not "
        "known: these are our own."
    )


def _reach(facts: Facts) -> str:
    return (
        "Rows of softmax stay in the convex hull of the values, rows of the Gaussian kernel in "
        "{Σ w_b u_b, 0 ≤ w ≤ 1}; a target beyond cannot be fitted from any start. Successes among "
        f"the problems so ruled out: {facts.impossible}."
    )


def _table(facts: Facts) -> str:
    rows = [
        [
            cell.dim,
            cell.scale,
            cell.distance,
            *(interval(cell.success[kernel]) for kernel in KERNELS),
            interval(cell.lead),
            cell.winner or "open",
            *(f"{100 * cell.out_of_reach[kernel]:.0f} %" for kernel in KERNELS),
        ]
        for cell in facts.cells
    ]
    head = [
        "D", "scale", "distance", "softmax", "Gaussian", "difference", "wins",
        "ruled out, softmax", "ruled out, Gaussian",
    ]  # fmt: skip
    return _report.table(head, rows)


def summary(facts: Facts) -> str:
    """A few lines for the terminal."""
    agrees, because = query_only_facts.verdict(facts)
    word = {True: "agrees with", False: "does not agree with", None: "cannot tell about"}[agrees]
    return f"This run {word} an advantage of the Gaussian kernel: {because}"
