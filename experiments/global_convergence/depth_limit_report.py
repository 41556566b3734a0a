"""Figures and report of ``depth_limit``, from its record and the facts fitted to it.

One trap: nothing is decided here; what a sentence says comes from ``depth_limit_facts``.
"""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import _report
from experiments.global_convergence import depth_limit_facts, limit_checks
from experiments.global_convergence.depth_limit_facts import LAW, VARIABLE, Facts
from meanfield import plots

ORDER = (
    "With one path over depth per head, the network of L layers tends to the depth ODE of its "
    "particles at order 1 in 1/L (Gao et al. 2024; Ding et al., eq. 7 and 11)."
)
COUPLING = (
    "Along training, networks fluctuate about their limit by (L M)^(−1/2) if heads are drawn anew "
    "at every layer, by M^(−1/2) if each head has one path over depth (Chizat 2025; Gao et al. "
    "2024)."
)
NAMES = {"independent": "heads drawn at every layer", "path": "one path per head"}
POINTS = "Points: root mean square over seeds; bars: 95 % interval over seeds."


def draw(arrays: dict[str, Any], facts: Facts, out_dir: Path) -> None:
    """Writes the three figures."""
    _draw_order(arrays, facts, out_dir / "order.png")
    _draw_fluctuation(arrays, facts, out_dir / "fluctuation.png")
    _draw_laws(arrays, facts, out_dir / "laws.png")


def _draw_order(arrays: dict[str, Any], facts: Facts, path: Path) -> None:
    figure, axes = plots.panels(columns=2, width=4.6, height=3.6)
    for ax, name, fit in zip(axes, ("tokens", "forces"), (facts.tokens, facts.forces), strict=True):
        plots.draw_rate(ax, arrays["layers"], arrays["order"][name], fit, expected=-1.0)
        said = {"tokens": "tokens", "forces": "adjoint"}[name]
        ax.set(xlabel="layers L", ylabel=f"{said}: greatest gap to the depth ODE")
        plots.draw_legend(ax, beside=False)
    plots.save_figure(figure, path)


def _draw_fluctuation(arrays: dict[str, Any], facts: Facts, path: Path) -> None:
    """Errors against networks of the same depth: by M, and by the variable of the law."""
    figure, axes = plots.panels(rows=2, columns=2, width=4.6, height=3.5)
    for row, (name, errors) in enumerate(arrays["couplings"].items()):
        by_width, collapsed = axes[2 * row : 2 * row + 2]
        depths = np.unique(errors["depths"])
        variable = errors["effective_widths"] * (errors["depths"] if name == "independent" else 1)
        for depth, color in zip(depths, plots.sequential_colors(len(depths)), strict=True):
            kept = errors["depths"] == depth
            # Side by side, or the bars of one width hide one another.
            beside = errors["widths"][kept] * 1.05 ** (
                np.sum(depths < depth) - (len(depths) - 1) / 2
            )
            _points(by_width, beside, errors["predictions"][:, kept], color, f"{depth:g}")
            _points(collapsed, variable[kept], errors["predictions"][:, kept], color, "")
        fit = facts.couplings[name].predictions
        ends = np.array([variable.min(), variable.max()])
        fitted, theory = depth_limit_facts.lines(errors["predictions"], fit, ends)
        said = f"slope {limit_checks.said(fit)}"
        collapsed.plot(ends, fitted, color="#444444", linewidth=1.4, label=said)
        collapsed.plot(
            ends, theory, "--", color="#444444", linewidth=1.1, label="theory: slope −1/2"
        )
        for ax in (by_width, collapsed):
            ax.set(xscale="log", yscale="log", ylabel="fluctuation of predictions")
            ax.set_title(NAMES[name])
        by_width.set_xlabel("heads M")
        collapsed.set_xlabel(f"{VARIABLE[name]}, corrected for the reference")
        by_width.set_xticks(*_ticks(errors["widths"]))
        collapsed.set_xticks(*limit_checks.log_ticks(*ends))
        for ax in (by_width, collapsed):
            ax.set_xticks([], minor=True)
            _ticks_of_errors(ax, errors["predictions"])
        plots.draw_legend(by_width, title="layers L", beside=False)
        plots.draw_legend(collapsed, beside=False)
    plots.save_figure(figure, path)


def _draw_laws(arrays: dict[str, Any], facts: Facts, path: Path) -> None:
    """Errors against infinite depth by L for each M, with the law of each coupling."""
    figure, axes = plots.panels(columns=2, width=4.8, height=3.8)
    for ax, (name, errors) in zip(axes, arrays["couplings"].items(), strict=True):
        widths, fit = np.unique(errors["widths"]), facts.couplings[name].laws[LAW[name]]
        fine = np.geomspace(errors["depths"].min(), errors["depths"].max(), 60)
        for width, color in zip(widths, plots.sequential_colors(len(widths)), strict=True):
            kept = errors["widths"] == width
            _points(ax, errors["depths"][kept], errors["to_limit"][:, kept], color, f"{width:g}")
            curve = depth_limit_facts.law_values(errors, fit, LAW[name], fine, width)
            ax.plot(fine, curve, color=color, linewidth=1.2)
        ax.set(xscale="log", yscale="log", xlabel="layers L")
        ax.set_ylabel("error of predictions to infinite depth")
        ax.set_title(f"{NAMES[name]}\n{LAW[name]}")
        ax.set_xticks(*_ticks(errors["depths"]))
        ax.set_xticks([], minor=True)
        plots.draw_legend(ax, title="heads M")
    limits = np.array([ax.get_ylim() for ax in axes])
    for ax in axes:
        ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
        ax.set_yticks(*limit_checks.log_ticks(*ax.get_ylim()))
        ax.set_yticks([], minor=True)
    plots.save_figure(figure, path)


def _points(ax: Any, x: np.ndarray, errors: np.ndarray, color: str, label: str) -> None:
    value, low, high = limit_checks.root_mean_square(errors)
    ax.errorbar(
        x, value, yerr=[value - low, high - value], fmt="o", color=color, markersize=4,
        elinewidth=1, capsize=2, label=label,
    )  # fmt: skip


def _ticks(places: np.ndarray) -> tuple[list[float], list[str]]:
    places = np.unique(places)
    return places.tolist(), [f"{place:g}" for place in places]


def _ticks_of_errors(ax: Any, errors: np.ndarray) -> None:
    value, low, high = limit_checks.root_mean_square(errors)
    ax.set_ylim(0.85 * np.maximum(low, value / 4).min(), 1.15 * high.max())
    ax.set_yticks(*limit_checks.log_ticks(*ax.get_ylim()))
    ax.set_yticks([], minor=True)


def _law_table(facts: Facts) -> str:
    header = ["coupling", "law", "error of prediction (%)", "wins (%)", "a", "b", "misfit (%)"]
    rows = []
    for name, coupling in facts.couplings.items():
        for one in coupling.ranking.evidence:
            fit = coupling.laws[one.name]
            a, b = (
                f"{value:.3g} [{low:.3g}, {high:.3g}]"
                for value, low, high in zip(fit.coefficients, fit.low, fit.high, strict=True)
            )
            chosen = " (chosen)" if one.name == coupling.ranking.chosen else ""
            score, wins = 100 * one.score, 100 * one.wins
            rows.append([name, one.name + chosen, score, wins, a, b, 100 * fit.misfit])
    return _report.table(header, rows)


def _corrections(facts: Facts) -> str:
    said = " and ".join(
        f"{limit_checks.said(coupling.correction)} ({name})"
        for name, coupling in facts.couplings.items()
    )
    return (
        "These slopes are no part of the verdict above, as the fluctuation of L layers is 1 + c/L "
        f"times that of its law: c is {said}, fitted to the predictions at the slope of theory. "
        "Whether the slopes overlap is part of the verdict here."
    )


def _setting(config: Any) -> str:
    behind = config.reference_seeds * config.reference_width
    return (
        f"In-context regression ({config.prompts} prompts of {config.context} examples in the "
        "plane, tokens of dimension 3) by softmax attention with heads of dimension 2 and no "
        f"feed-forward part; weight decay {config.weight_decay:g}. Heads start with Gaussian "
        f"entries of mean {config.mean:g} and variance {config.gain:g}² over the fan-in: not "
        "centred, so that the drift and its 1/L error are there from the start. Trained to "
        f"mean-field time {config.horizon:g}; errors are root mean squares over "
        f"{config.probes} prompts that are not trained on, the greatest over {config.saves} times. "
        f"{config.seeds} networks of each width, depth and coupling, every configuration with "
        f"draws of its own. Reference: the mean of {config.reference_seeds} networks of "
        f"{config.reference_width} heads, of the same depth for the fluctuation and of "
        f"{config.limit_depth} layers for the limit. Its own fluctuation, "
        f"{100 * (config.widths[-1] / behind) ** 0.5:.0f} % of that of the widest networks, is "
        "common to all seeds: slopes are corrected for its size, intervals leave it out."
    )


def _trust(arrays: dict[str, Any], config: Any) -> str:
    deep = arrays["risk"][str(config.limit_depth)]
    smallest = depth_limit_facts.smallest(arrays)
    return (
        f"Training lowers the risk of the deep wide networks from {deep[0]:.3g} to {deep[-1]:.3g}. "
        f"Twice the steps change predictions by {float(arrays['solver']):.2g} at most, the same "
        f"for all networks nearly; the smallest fluctuation measured is {smallest:.2g}."
    )


def report(arrays: dict[str, Any], facts: Facts, config: Any) -> str:
    """The page report.md."""
    order, couplings = depth_limit_facts.checks(facts)
    agrees, because = limit_checks.together(order)
    both, both_because = limit_checks.together(couplings)
    apart, apart_because = depth_limit_facts.separation(facts)
    word = {True: "separate", False: "do not separate", None: "cannot be told apart here"}[apart]
    return _report.page(
        "Attention of infinite depth, and two ways to it",
        [
            _setting(config),
            "## Order 1 to the depth ODE",
            _report.claim(ORDER, agrees=agrees, because=because),
            limit_checks.table(order),
            _report.figure(
                "order.png",
                f"Untrained networks of {config.paths} heads against the depth ODE of the same "
                "heads, at quarters of the depth; one point per seed.",
            ),
            "## Fluctuation in the two couplings",
            _report.claim(COUPLING, agrees=both, because=both_because),
            limit_checks.table(couplings),
            f"Each interval alone holds its number 95 % of the time; of {len(couplings)} such, one "
            "may miss by chance.",
            _report.figure(
                "fluctuation.png",
                "Against wide networks of the same depth, sup over training. Left: by width, for "
                f"each depth. Right: by the variable of the law. {POINTS}",
            ),
            "## Do the couplings separate?",
            f"They **{word}**: {apart_because}",
            limit_checks.table(depth_limit_facts.in_depth(facts)),
            _corrections(facts),
            _law_table(facts),
            "Error of prediction: of a configuration left out of the fit. Wins: share of bootstrap "
            "resamples of the seeds in which the law predicts best.",
            _report.figure(
                "laws.png",
                f"Against wide networks of {config.limit_depth} layers, sup over training. Lines: "
                f"the law of each coupling, fitted, reference taken off. {POINTS}",
            ),
            "## Is this the flow?",
            _trust(arrays, config),
        ],
    )


def summary(facts: Facts) -> str:
    """A few lines for the terminal."""
    order, couplings = depth_limit_facts.checks(facts)
    lines = [limit_checks.together(order)[1], limit_checks.together(couplings)[1]]
    return "\n".join([*lines, f"Couplings: {depth_limit_facts.separation(facts)[1]}"])
