"""Figures and report of ``width_limit``, from its record and the facts fitted to it.

One trap: nothing is decided here; what a sentence says comes from ``width_limit_facts``.
"""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import _report
from experiments.global_convergence import limit_checks, width_limit_facts
from experiments.global_convergence.width_limit_facts import DRAWS, NAMES, Facts
from meanfield import plots

CLAIM = (
    "Trained networks of width M differ from their limit by M^(−1/2), uniformly in training time: "
    "predictions, risk and the law of their heads (Gao et al. 2024)."
)
EXACT = (
    "The limit extrapolated from finite widths is the limit itself: that of a linear network, "
    "which is known (Saxe et al. 2013; its moments obey an ODE)."
)
LIMIT = "#d1495b"


def draw(arrays: dict[str, Any], facts: Facts, config: Any, out_dir: Path) -> None:
    """Writes the three figures."""
    _draw_errors(arrays, facts, out_dir / "errors.png")
    _draw_limit(arrays, facts, out_dir / "limit.png")
    _draw_predictions(arrays, facts, config, out_dir / "predictions.png")


def _draw_errors(arrays: dict[str, Any], facts: Facts, path: Path) -> None:
    figure, axes = plots.panels(rows=2, columns=3, width=4.2, height=3.4)
    labels = {"predictions": "error of predictions", "risk": "error of the risk"}
    for row, (name, said) in enumerate(DRAWS.items()):
        for ax, (observable, fit) in zip(axes[3 * row :], facts.slopes[name].items(), strict=False):
            errors = arrays[name]
            x = errors["effective_widths"]
            plots.draw_rate(ax, x, errors[observable], fit, expected=-0.5, name="networks")
            ax.set_title(said)
            ax.set_xlabel("heads M, corrected for the reference")
            ax.set_ylabel(labels.get(observable, "law of heads: sliced $W_1$"))
            plots.draw_legend(ax, beside=False)
    plots.save_figure(figure, path)


def _draw_limit(arrays: dict[str, Any], facts: Facts, path: Path) -> None:
    figure, (time, ours, linear) = plots.panels(columns=3, width=4.6, height=3.6)
    risk, widths = arrays["trained"]["risk"], arrays["widths"]
    for index, color in enumerate(plots.sequential_colors(len(widths))):
        plots.draw_curves(
            time, arrays["times"], risk[:, index], label=f"{widths[index]}", color=color
        )
    limit = facts.risk
    half = np.stack([limit.value - limit.low, limit.high - limit.value])
    time.errorbar(
        arrays["times"], limit.value, yerr=half, fmt="o", color=LIMIT, markersize=3.5, capsize=2,
        label="M = ∞",
    )  # fmt: skip
    time.set(xlabel="mean-field time τ", ylabel="risk")
    plots.draw_legend(time, title="heads M", beside=False)
    _draw_expansion(ours, widths, risk[:, : len(widths), -1], limit)
    reference, wide = arrays["reference"], risk[:, -1, -1]
    ours.errorbar(
        [1 / reference], [wide.mean()], yerr=_half(wide[:, None]), fmt="D", color="#e08d00",
        markersize=4, capsize=2, label=f"M = {reference}, not in the fit",
    )  # fmt: skip
    ours.set_title("in-context regression")
    _draw_expansion(linear, widths, arrays["linear"]["risk"][:, :, -1], facts.linear)
    exact = arrays["linear"]["exact_risk"][-1]
    linear.axhline(exact, color="#222222", linestyle=":", linewidth=1.2, label="M = ∞, exact")
    linear.set_title("linear network, limit known")
    for ax in (ours, linear):
        ax.set(xlabel="1/M", ylabel=f"risk at τ = {arrays['times'][-1]:g}")
        plots.draw_legend(ax, beside=False)
    plots.save_figure(figure, path)


def _draw_expansion(ax: Any, widths: np.ndarray, risk: np.ndarray, limit: Any) -> None:
    """Trained risk [s w] against 1/M, and what it is extrapolated to."""
    x = 1 / widths
    ax.plot(
        np.broadcast_to(x, risk.shape).ravel(), risk.ravel(), "o", color="#31688e", alpha=0.3,
        markersize=3.5, markeredgewidth=0, label="networks",
    )  # fmt: skip
    ax.errorbar(
        x, risk.mean(axis=0), yerr=_half(risk), fmt="s", color="#31688e", markersize=4, capsize=3,
        label="mean",
    )  # fmt: skip
    value, low, high = (float(end[-1]) for end in (limit.value, limit.low, limit.high))
    ax.errorbar(
        [0], [value], yerr=[[value - low], [high - value]], fmt="o", color=LIMIT, markersize=6,
        capsize=4, elinewidth=2, label="M = ∞, extrapolated",
    )  # fmt: skip
    ax.plot(
        [0, x.max()], [value, value + float(limit.bias[-1]) * x.max()], "--", color=LIMIT,
        linewidth=1.1, label="its term in 1/M",
    )  # fmt: skip
    ax.set_ylim(_view(risk, low, high))


def _view(risk: np.ndarray, low: float, high: float) -> tuple[float, float]:
    # A few narrow networks far out would press all means into one line.
    bottom = min(low, float(np.quantile(risk, 0.02)))
    top = max(high, float(np.quantile(risk, 0.98)))
    return bottom - 0.08 * (top - bottom), top + 0.08 * (top - bottom)


def _draw_predictions(arrays: dict[str, Any], facts: Facts, config: Any, path: Path) -> None:
    figure, (ax,) = plots.panels(width=8.4, height=3.6)
    values, widths = arrays["trained"]["predictions"][:, :, -1], arrays["widths"]
    probes = np.arange(1, values.shape[2] + 1)
    shown = (0, len(widths) - 1)
    for place, color in zip(shown, plots.sequential_colors(2), strict=True):
        offset = 0.16 if place else -0.16
        ax.plot(
            np.broadcast_to(probes + offset, values[:, place].shape).ravel(),
            values[:, place].ravel(), "o", color=color, alpha=0.45, markersize=3.5,
            markeredgewidth=0, label=f"M = {widths[place]}, every network",
        )  # fmt: skip
    limit = facts.predictions
    half = np.stack([limit.value - limit.low, limit.high - limit.value])[:, -1]
    ax.errorbar(
        probes, limit.value[-1], yerr=half, fmt="_", color=LIMIT, markersize=9, capsize=3,
        elinewidth=1.6, markeredgewidth=1.6, label="M = ∞, extrapolated", zorder=4,
    )  # fmt: skip
    ax.set(xlabel="prompt", ylabel=f"prediction at τ = {config.horizon:g}")
    ax.set_xticks(probes)
    plots.draw_legend(ax)
    plots.save_figure(figure, path)


def _half(values: np.ndarray) -> np.ndarray:
    return width_limit_facts.half_interval(values)


def _setting(config: Any) -> str:
    share = (config.widths[-1] / (config.seeds * config.reference)) ** 0.5
    return (
        f"In-context regression ({config.prompts} prompts of {config.context} examples in the "
        f"plane, tokens of dimension 3) by softmax attention, {config.depth} "
        f"{'layers' if config.depth > 1 else 'layer'} of heads of dimension 2; weight decay "
        f"{config.weight_decay:g}. The gradient flow runs to mean-field time {config.horizon:g}. "
        f"Predictions are compared at {config.probes} prompts that are not trained on; "
        f"errors are the greatest over {config.saves} times. "
        f"{config.seeds} networks of each width. *Nested*: their heads are the first heads of "
        f"networks of {config.reference}, each compared with its own. *Drawn anew*: compared with "
        "the mean of all these. Abscissae are corrected for the finite reference; the fluctuation "
        f"of that mean, {100 * share:.0f} % of that of the widest networks, is common to all, and "
        "no part of the intervals."
    )


def _law_table(arrays: dict[str, Any], facts: Facts) -> str:
    header = ["draw", "error", "a in a/√M", "misfit (%)", f"at M = {arrays['widths'][-1]}"]
    rows = []
    for name, laws in facts.laws.items():
        for observable, fit in laws.items():
            a = f"{fit.coefficients[0]:.3g} [{fit.low[0]:.3g}, {fit.high[0]:.3g}]"
            at_widest = float(fit.coefficients[0] / np.sqrt(arrays["widths"][-1]))
            rows.append([DRAWS[name], NAMES[observable], a, 100 * fit.misfit, at_widest])
    return _report.table(header, rows)


def _risk_table(arrays: dict[str, Any], facts: Facts) -> str:
    rows, widths = [], [*arrays["widths"].tolist(), int(arrays["reference"])]
    mean, half = width_limit_facts.excess(arrays, facts)
    for width, value, error in zip(widths, 100 * mean, 100 * half, strict=True):
        law = facts.laws["nested"]["predictions"].coefficients[0] / np.sqrt(width)
        rows.append([width, float(law), f"{value:+.2g} ± {error:.2g}"])
    header = ["heads M", "error of predictions by the law", "mean trained risk over M = ∞ (%)"]
    return _report.table(header, rows)


def answer(arrays: dict[str, Any], facts: Facts, config: Any) -> str:
    """At which width the finite-width error falls below the tolerance."""
    reach = facts.reach
    beyond = (
        ", wider than any network run here: an extrapolation of the law"
        if reach.width > arrays["reference"]
        else ", a little more than was run"
        if reach.width > arrays["widths"][-1]
        else ""
    )
    widest = int(arrays["widths"][-1])
    law = float(facts.laws["nested"]["predictions"].coefficients[0]) / np.sqrt(widest)
    return (
        f"One network's predictions come within {config.tolerance:g} (root mean square, the "
        f"greatest over training; labels have deviation 1) of the infinite-width ones from "
        f"M = {reach.width:.0f} (95 % interval [{reach.low:.0f}, {reach.high:.0f}]) on{beyond}. "
        f"At M = {widest} they are off by {law:.2g}."
    )


def report(arrays: dict[str, Any], facts: Facts, config: Any) -> str:
    """The page report.md."""
    checks = width_limit_facts.checks(facts)
    agrees, because = limit_checks.together(checks)
    covered, covered_because = width_limit_facts.covered(facts)
    ahead, ahead_because = width_limit_facts.seen_ahead(facts)
    value, low, high = (float(end[-1]) for end in facts.risk[:3])
    order = int(facts.risk.order[-1])
    return _report.page(
        "Training at infinite width: the limit, and the way to it",
        [
            _setting(config),
            "## The rate",
            _report.claim(CLAIM, agrees=agrees, because=because),
            limit_checks.table(checks),
            f"Each interval alone holds its number 95 % of the time; of {len(checks)} such, one "
            "may miss by chance. The law of heads is measured so well that what sliced W₁ of few "
            "points lacks to its rate shows: its slope is asked to lie within 0.1 of −1/2.",
            _report.figure(
                "errors.png",
                "Errors against width, the greatest over training; one point per network. Dashed: "
                "slope −1/2.",
            ),
            _law_table(arrays, facts),
            f"## Is this the infinite-width limit, or M = {arrays['widths'][-1]}?",
            answer(arrays, facts, config),
            f"The trained risk at M = ∞ is {value:.4g} (95 % interval [{low:.4g}, {high:.4g}], "
            f"expansion to order {order} in 1/M). The networks of {arrays['reference']} heads, "
            "which the extrapolation has not seen, "
            f"{'confirm' if ahead else 'do not confirm'} it: {ahead_because}.",
            _risk_table(arrays, facts),
            _report.figure(
                "limit.png",
                "Left: risk along the flow; bands: least to greatest network. Middle, right: "
                "trained risk against 1/M, means with 95 % intervals, and the limit. A few far "
                "networks of the narrowest width may be out of view.",
            ),
            _report.figure(
                "predictions.png", "Predictions at the prompts that are not trained on."
            ),
            "## Where the limit is known",
            _report.claim(EXACT, agrees=covered, because=covered_because),
            _linear(arrays, facts),
            "## Is this the gradient flow?",
            "The flow dissipates the energy that it loses; the two differ by at most "
            f"{100 * float(arrays['balance'].max()):.2g} % of the loss in energy, over all runs.",
        ],
    )


def _linear(arrays: dict[str, Any], facts: Facts) -> str:
    value, low, high = (float(end[-1]) for end in facts.linear[:3])
    exact = float(arrays["linear"]["exact_risk"][-1])
    verb = "covers" if low <= exact <= high else "does not cover"
    return (
        f"Its trained risk extrapolates to {value:.4g} with the 95 % interval [{low:.4g}, "
        f"{high:.4g}], which {verb} the exact {exact:.4g}."
    )


def summary(arrays: dict[str, Any], facts: Facts, config: Any) -> str:
    """A few lines for the terminal."""
    _, because = limit_checks.together(width_limit_facts.checks(facts))
    return "\n".join(
        [f"Slopes −1/2: {because}", answer(arrays, facts, config), _linear(arrays, facts)]
    )
