"""Figures and report of ``query_only``, from its record and the facts counted in it.

One trap: nothing is decided here; what a sentence says comes from ``query_only_facts``.
"""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import _report
from experiments.attention_kernels import query_only_facts
from experiments.attention_kernels.query_only_facts import KERNELS, Cell, Facts, interval
from meanfield import plots

CLAIM = (
    "Training W^Q alone, the Gaussian kernel reaches zero loss where softmax is caught in "
    "suboptimal points (Song et al. 2024; read here as: it wins somewhere and loses nowhere)."
)
NAMES = {"softmax": "softmax", "gaussian": "Gaussian"}
COLORS = {"softmax": "#31688e", "gaussian": "#d1495b"}
PANELS = (
    ("softmax succeeds", "viridis"),
    ("Gaussian succeeds", "viridis"),
    ("Gaussian less softmax", "RdBu_r"),
)


ABOUT = {
    "middle": (
        "distance from the middle",
        "Targets about the middle of the values. Softmax starts there where scales are small, so "
        "near targets are next to its start and not to that of the Gaussian kernel: not a "
        "neutral family, whatever comes of it.",
    ),
    "origin": (
        "distance from the origin",
        "Targets about the origin. The Gaussian kernel starts there where scales are large, and "
        "rows of softmax cannot shrink: the counterpart of the middle, no more neutral.",
    ),
    "teacher": (
        "kernel of the teacher",
        "Targets of a teacher, the output of another random W^Q under one of the kernels, at the "
        "same W^K, W^V and W^O. Its own kernel can meet them, the other need not: what counts is "
        "how often each learns from its own teacher, and from the other's.",
    ),
}


def draw(arrays: dict[str, Any], facts: Facts, out_dir: Path) -> None:
    """Writes the figures."""
    for family in query_only_facts.families(arrays):
        _draw_map(arrays, facts, family, out_dir / f"map_{family}.png")
        if family != "teacher":
            _draw_distances(arrays, facts, family, out_dir / f"distances_{family}.png")


def _level(family: str, level: float) -> str:
    return NAMES[KERNELS[int(level)]] if family == "teacher" else f"{level:g}"


def _draw_map(arrays: dict[str, Any], facts: Facts, family: str, path: Path) -> None:
    dims, scales, levels = arrays["dims"], arrays["scales"], arrays[family]["levels"]
    figure, axes = plots.panels(rows=len(dims), columns=3, width=3.9, height=2.7)
    shape = (len(dims), len(scales), len(levels))
    cells = [cell for cell in facts.cells if cell.family == family]
    shares = [np.array([c.success[k].value for c in cells]).reshape(shape) for k in KERNELS]
    maps = [*shares, shares[1] - shares[0]]
    winners = np.array([cell.winner or "" for cell in cells]).reshape(shape)
    # Differences share a scale of their own, at least as wide as a tenth of all problems.
    widest = max(10.0, 100 * float(np.nanmax(np.abs(maps[2]), initial=0.0)))
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
            ax.set_xticks(range(len(levels)), [_level(family, level) for level in levels])
            ax.set_yticks(range(len(scales)), [f"{value:g}" for value in scales])
            ax.set(title=f"{title} (%), D = {dim}", xlabel=ABOUT[family][0], ylabel="scale")
            figure.colorbar(image, ax=ax)
    plots.save_figure(figure, path)


def _draw_distances(arrays: dict[str, Any], facts: Facts, family: str, path: Path) -> None:
    dims, scales = arrays["dims"], arrays["scales"]
    figure, axes = plots.panels(rows=len(dims), columns=len(scales), width=3.6, height=2.7)
    panels = iter(axes)
    for dim in dims:
        for scale in scales:
            ax = next(panels)
            cells = [c for c in facts.cells if c[:3] == (family, dim, scale)]
            at = np.array([cell.level for cell in cells])
            for kernel in KERNELS:
                shares = np.array([cell.success[kernel] for cell in cells]).T * 100
                error = np.abs(shares[1:] - shares[:1])
                ax.errorbar(
                    at, shares[0], yerr=error, fmt="o-", ms=3, color=COLORS[kernel], label=kernel
                )
                reach = [100 * (1 - cell.out_of_reach[kernel]) for cell in cells]
                ax.plot(at, reach, ":", color=COLORS[kernel], label=f"{kernel}, not ruled out")
            ax.set(title=f"D = {dim}, scale {scale:g}", xlabel=ABOUT[family][0])
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
            *(part for family in facts.leads for part in _family(facts, family)),
            _reach(facts),
        ],
    )


def _family(facts: Facts, family: str) -> list[str]:
    cells = [cell for cell in facts.cells if cell.family == family]
    wins = {
        kernel: ", ".join(
            f"({cell.dim}, {cell.scale:g}, {_level(family, cell.level)})"
            for cell in cells
            if cell.winner == kernel
        )
        for kernel in KERNELS
    }
    found = [
        f"## Targets: {family}",
        ABOUT[family][1],
        _report.figure(
            f"map_{family}.png",
            "Success by kernel and the difference on the same problems, in percent; a star where "
            "the paired interval decides for one of the two.",
        ),
        "\n".join(
            f"- {NAMES[kernel]} wins at (D, scale, level): {wins[kernel] or 'no cell'}."
            for kernel in KERNELS
        ),
    ]
    if family != "teacher":
        figure = _report.figure(
            f"distances_{family}.png",
            "Success with Wilson's 95 % interval (solid), and the share of problems that the hull "
            "test (softmax) or the zonotope test (Gaussian) does not rule out (dotted).",
        )
        found.append(figure)
    return [*found, _table(cells, family)]


def _setting(config: Any) -> str:
    ladder = ", ".join(f"{step:g}" for step in config.ladder)
    return (
        f"One sample of n = {config.tokens} Gaussian tokens, one head of dimension "
        f"{config.head_dim}, {config.outputs} output(s); W^K, W^V, W^O random and fixed. Families "
        f"of targets: {', '.join(config.families)}, none of them neutral. "
        f"{config.steps} steps of each of {ladder} over |X|² times the mean square of the values; "
        f"the best end counts. Success: last risk ≤ {config.tolerance:g} |y|²/2. "
        f"Gaussian kernel of bandwidth {config.bandwidth:g}, rows not normalised. {config.seeds} "
        "problems drawn for each cell, the same for both kernels; those that either begins below "
        "the tolerance are left out for both. The starts of the published runs are not "
        "known: these are our own."
    )


def _reach(facts: Facts) -> str:
    return (
        "Rows of softmax stay in the convex hull of the values, rows of the Gaussian kernel in "
        "{Σ w_b u_b, 0 ≤ w ≤ 1}; a target beyond cannot be fitted from any start. Successes among "
        f"the problems so ruled out: {facts.impossible}."
    )


def _table(cells: list[Cell], family: str) -> str:
    rows = [
        [
            cell.dim,
            cell.scale,
            _level(family, cell.level),
            cell.problems,
            *(interval(cell.success[kernel]) for kernel in KERNELS),
            interval(cell.lead),
            cell.winner or "open",
            *(f"{100 * cell.out_of_reach[kernel]:.0f} %" for kernel in KERNELS),
        ]
        for cell in cells
    ]
    head = [
        "D", "scale", ABOUT[family][0], "counted", "softmax", "Gaussian", "difference", "wins",
        "ruled out, softmax", "ruled out, Gaussian",
    ]  # fmt: skip
    return _report.table(head, rows)


def summary(facts: Facts) -> str:
    """A few lines for the terminal."""
    agrees, because = query_only_facts.verdict(facts)
    word = {True: "agrees with", False: "does not agree with", None: "cannot tell about"}[agrees]
    return f"This run {word} an advantage of the Gaussian kernel: {because}"
