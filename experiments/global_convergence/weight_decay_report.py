"""Figures and report of ``weight_decay``, from its record and the facts fitted to it.

One trap: nothing is decided here; what a sentence says comes from ``weight_decay_facts``.
"""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import _report
from experiments.global_convergence import verdicts
from experiments.global_convergence import weight_decay_facts as decay_facts
from experiments.global_convergence.weight_decay_facts import PROBLEMS, Ladder
from meanfield import plots

CLAIM = (
    "For small weight decay λ the flow reaches a small risk: at a stationary measure that covers "
    "the directions of θ₂ at one depth, R = O(λ) (Gao et al. 2024, in the computable form "
    "|g_t(θ₂)| = λ|θ₁| on the support)."
)
COLUMNS = (
    "R, Q, gap: mean (least–greatest over seeds). Residual, drift, θ₁ and angle: the worst seed "
    "and half-step. sup‖g‖/(λ max‖θ₁‖): least–greatest over seeds and half-steps. Angle: from a "
    "random direction of θ₂ to the nearest particle, and the same for as many uniform directions."
)
FIRST_ORDER = (
    "With depth Q is not convex: the gap is the rate at which Q falls when mass moves to the "
    "particles found, first-order evidence and no bound."
)
BLUE, RED, INK = "#31688e", "#d1495b", "#222222"
BANDS = "Lines: mean over seeds; bands: least to greatest."
ENDS = {
    "stopped": "stationary", "completed": "out of time", "exhausted": "out of steps",
    "diverged": "diverged",
}  # fmt: skip


def draw(arrays: dict[str, Any], facts: dict[str, Ladder], out_dir: Path) -> None:
    """Writes the three figures."""
    _draw_risk(arrays, facts, out_dir / "risk.png")
    _draw_curves(arrays, out_dir / "curves.png")
    _draw_certificate(arrays, out_dir / "certificate.png")


def _draw_risk(arrays: dict[str, Any], facts: dict[str, Ladder], path: Path) -> None:
    figure, axes = plots.panels(columns=len(facts), width=5.0, height=3.7)
    decays = arrays["decays"]
    for ax, (name, found) in zip(axes, facts.items(), strict=True):
        risk, used = arrays[name]["risk"], np.isin(decays, found.fitted)
        if found.line is not None:
            plots.draw_rate(
                ax, found.fitted, risk[used].T, found.line, expected=1.0, because="O(λ)",
                name="all seeds stationary",
            )  # fmt: skip
        else:
            _draw_points(ax, decays[used], risk[used], "all seeds stationary", fill=BLUE)
        rest = ~used & (decays > 0)
        _draw_points(ax, decays[rest], risk[rest], "not all stationary", fill="white")
        without = risk[decays == 0].max()
        ax.plot([], [], " ", label=f"λ = 0: R ≤ {without:.1e} at the end")
        _prepare(ax, decays[:-1], PROBLEMS[name], "risk R at the end of the flow")
    plots.save_figure(figure, path)


def _draw_points(ax: Any, decays: np.ndarray, risk: np.ndarray, label: str, *, fill: str) -> None:
    if len(decays):
        shown = np.broadcast_to(decays[:, None], risk.shape).ravel()
        ax.plot(shown, risk.ravel(), "o", ms=4.5, mfc=fill, mec=BLUE, label=label)


def _prepare(ax: Any, decays: np.ndarray, title: str, ylabel: str) -> None:
    """Axes against lambda, with the decays that were run and no others."""
    ax.set(xlabel="weight decay λ", ylabel=ylabel, xscale="log", yscale="log")
    ax.set_title(title, fontsize=10)
    ax.set_xticks(decays, labels=[f"{decay:g}" for decay in decays])
    ax.set_xticks([], minor=True)
    plots.draw_legend(ax, beside=False)


def _draw_curves(arrays: dict[str, Any], path: Path) -> None:
    figure, axes = plots.panels(columns=len(PROBLEMS), width=5.0, height=3.6)
    decays = arrays["decays"]
    colors = [*plots.sequential_colors(len(decays) - 1), RED]
    for ax, (name, title) in zip(axes, PROBLEMS.items(), strict=True):
        found = arrays[name]
        for row, (decay, color) in enumerate(zip(decays, colors, strict=True)):
            times, curves = found["times"][row, 0], found["curve"][row]
            # At τ = 0 there is no logarithm.
            plots.draw_curves(ax, times[1:], curves[:, 1:], label=f"{decay:g}", color=color)
        ax.set(xlabel="mean-field time τ", ylabel="risk R", xscale="log", yscale="log")
        ax.set_title(title, fontsize=10)
    plots.draw_legend(axes[-1], title="λ")
    plots.save_figure(figure, path)


def _draw_certificate(arrays: dict[str, Any], path: Path) -> None:
    figure, (gaps, *forces) = plots.panels(columns=1 + len(PROBLEMS), width=4.4, height=3.6)
    positive = arrays["decays"] > 0
    decays, convex = arrays["decays"][positive], arrays["neurons"]
    for label, values, color in (
        ("energy Q", convex["energy"], INK),
        ("Q − Q* at most (rigorous gap)", convex["gap"], RED),
        ("the same, infimum searched", convex["searched_gap"], BLUE),
    ):
        plots.draw_curves(gaps, decays, values[positive].T, label=label, color=color)
    _prepare(gaps, decays, PROBLEMS["neurons"], "energy")
    for ax, (name, title) in zip(forces, PROBLEMS.items(), strict=True):
        found = arrays[name]
        force = found["force"][positive].max(axis=(2, 3))
        own = decays[:, None] * found["largest"][positive].max(axis=(2, 3))
        plots.draw_curves(ax, decays, force.T, label="sup |$g_t$| over probes", color=BLUE)
        plots.draw_curves(ax, decays, own.T, label="λ max |θ₁| over particles", color=RED)
        # The two coincide where the theorem holds.
        ax.lines[-1].set_linestyle("--")
        _prepare(ax, decays, title, "force on θ₁, largest over half-steps")
    plots.save_figure(figure, path)


def report(arrays: dict[str, Any], facts: dict[str, Ladder], config: Any) -> str:
    """The page report.md."""
    agrees, because = decay_facts.verdict(facts)
    sections = [
        _setting(config),
        "## The claim",
        _report.claim(CLAIM, agrees=agrees, because=because),
        verdicts.table(decay_facts.checks(facts)),
        _report.figure(
            "risk.png",
            "Risk at the end of the flow, one point per seed; only λ at which every seed was "
            "stationary enter the fit. Band: the runs without decay.",
        ),
    ]
    for name, title in PROBLEMS.items():
        sections += [
            f"## {title[0].upper()}{title[1:]}",
            _table(arrays["decays"], arrays[name]),
            COLUMNS,
            _words(facts[name]),
            _convex(facts[name]) if name == "neurons" else FIRST_ORDER,
        ]
    sections += [
        "## How the runs ended",
        _report.figure("curves.png", f"Risk along the flow, for each λ. {BANDS}"),
        _ended(arrays, config),
        _report.figure(
            "certificate.png",
            "Left: the energy of the convex problem and what bounds its distance to the least. "
            "Middle and right: the largest force that a probe feels, against that which weight "
            f"decay balances. {BANDS}",
        ),
    ]
    return _report.page("The risk at the end of the flow against weight decay", sections)


def _setting(config: Any) -> str:
    return (
        f"*Convex:* {config.neurons} neurons exp(−(x w_in + b)²) w_out in one layer, a wave on "
        f"{config.points} points. *Transformer:* {config.prompts} prompts of {config.context} "
        f"examples in dimension {config.dim}, depth {config.depth}, {config.heads} heads and as "
        f"many neurons per half-step, κ = {config.kappa:g}. {config.seeds} seeds redraw the "
        "particles; all λ of a seed start from the same. A run is *stationary* when the energy "
        f"falls by at most {100 * config.settled:g} % of itself in the time 1/λ; it is given "
        f"{config.horizon:g}/λ. (Without decay both are those of the smallest λ.) The exponent "
        f"agrees if its 95 % interval reaches 1 and not more than {verdicts.MARGIN:g} below it."
    )


def _table(decays: np.ndarray, found: dict[str, Any]) -> str:
    header = [
        "λ", "runs", "R", "Q", "residual −dQ/dτ", "drift of R in 1/λ", "sup‖g‖/(λ max‖θ₁‖)",
        "max‖θ₁‖", "angle uncovered (uniform)", "gap",
    ]  # fmt: skip
    ratios, rows = decay_facts.force_ratios(decays, found), []
    for row, decay in enumerate(decays):
        rigorous = found["gap"][row]
        gap = rigorous if np.isfinite(rigorous).all() else found["searched_gap"][row]
        covering = f"{found['covering'][row].max():.2f}"
        rows.append(
            [
                f"{decay:g}",
                _counted(found["result"][row]),
                _spread(found["risk"][row]),
                _spread(found["energy"][row]),
                f"{found['residual'][row].max():.1e}",
                f"{found['drift'][row].max():.2g}",
                f"{ratios[row].min():.2f}–{ratios[row].max():.2f}" if decay else "no decay",
                f"{found['largest'][row].max():.2f}",
                f"{covering} ({found['covering_uniform'][row].max():.2f})",
                _spread(gap),
            ]
        )
    return _report.table(header, rows)


def _words(found: Ladder) -> str:
    local = ", ".join(f"{slope:.2f}" for slope in found.local)
    law = (
        "At fewer than three λ were all seeds stationary, so no law is fitted."
        if found.law is None
        else f"R ~ λ^p with p = {verdicts.said(found.law)} for λ from {found.fitted[0]:g} to "
        f"{found.fitted[-1]:g}; between neighbours {local}. R/λ is at most {found.worst:.3g} there."
    )
    return (
        f"{law} Without decay R ends at {found.zero:.2g}. In the {found.runs} fitted runs "
        "sup |g_t| over probes, in units of λ max |θ₁| and at the half-step where that is least, "
        f"is {found.force[0]:.2f} in the median and {found.force[1]:.2f} at most (1: no probe "
        "feels more force than decay balances, which at one depth is what the theorem asks for); "
        f"over all half-steps it is up to {found.force[2]:.3g}. In {found.descents} of them "
        "moving mass to the particles found would lower Q at a rate of more than a tenth of Q: "
        "such a run is stationary, and not yet optimal to first order. The risk of the fitted runs "
        f"still changes by up to {100 * found.drift:.2g} % in the time 1/λ."
    )


def _convex(found: Ladder) -> str:
    bounds = "; ".join(
        f"λ = {decay:g}: Q* in [{low:.3g}, {high:.3g}]"
        for decay, (low, high) in zip(found.fitted, found.optimum, strict=True)
    )
    return (
        "The gap of this problem is rigorous where λ > 0: Q − Q* among all measures on particle "
        "space is at most that, by an enclosure of the infimum of the first variation. All seeds "
        f"share Q*, so together they say {bounds or 'nothing, as no λ was fitted'}. (At λ = 0, "
        "Q* ≥ 0, so Q − Q* ≤ R; the gap in the table is a searched rate there.)"
    )


def _ended(arrays: dict[str, Any], config: Any) -> str:
    header = ["λ", *(f"{title}: τ at the end" for title in PROBLEMS.values())]
    rows = []
    for row, decay in enumerate(arrays["decays"]):
        cells = []
        for name in PROBLEMS:
            found = arrays[name]
            cells.append(
                f"{_counted(found['result'][row])}; {_spread(found['end_time'][row])} of "
                f"{config.horizon / (decay or config.decays[-1]):.3g}"
            )
        rows.append([f"{decay:g}", *cells])
    worst = max(float(np.nanmax(arrays[name]["balance"])) for name in PROBLEMS)
    gradients = sum(int(arrays[name]["gradients"].sum()) for name in PROBLEMS)
    broken = decay_facts.broken(arrays)
    said = (
        f"\n\nDiverged, and measured where they last were finite: {'; '.join(broken)}."
        if broken
        else ""
    )
    return (
        f"{_report.table(header, rows)}{said}\n\nThe energy balance of all runs is off by at most "
        f"{100 * worst:.2g} %; {gradients} gradients in all. A plateau looks stationary too: what "
        "tells it apart is the force on directions that no particle has, in the tables above."
    )


def _counted(results: np.ndarray) -> str:
    names, counts = np.unique(results, return_counts=True)
    return ", ".join(f"{n} {ENDS[str(name)]}" for name, n in zip(names, counts, strict=True))


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.3g} ({values.min():.3g}–{values.max():.3g})"


def summary(facts: dict[str, Ladder]) -> str:
    """A few lines for the terminal."""
    agrees, because = decay_facts.verdict(facts)
    word = {True: "agrees with", False: "does not agree with", None: "cannot tell about"}[agrees]
    return f"This run {word} R = O(λ): {because}"
